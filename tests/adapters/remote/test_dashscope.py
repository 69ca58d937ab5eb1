"""What `dashscope` puts on the wire and makes of replies and failures, through the real SDK."""

from __future__ import annotations

import time

import pytest
from pydantic import ValidationError

from privolve.adapters.contract import (
    AdapterUnavailable,
    Cause,
    EmbedRequest,
    ImageRequest,
    Message,
    MeteredAdapter,
    Refusal,
    Stopped,
    TextRequest,
    Transient,
    wrong_with,
)
from privolve.adapters.remote.dashscope import DashScopeConfig


def failing(stub, fault: str, **rule) -> None:
    stub.follow({"rules": [{"fault": fault, **rule}]})


def test_a_text_is_asked_for_on_the_native_wire(stub, dashscope, ask, text):
    answered = ask(dashscope(), text)
    assert isinstance(answered.reply, str) and answered.reply
    (sent,) = stub.requests
    assert sent.path == "/api/v1/services/aigc/text-generation/generation"
    assert sent.json()["parameters"] == {
        "result_format": "message",
        "temperature": 1.2,
        "max_tokens": 50,
        "enable_thinking": False,
    }
    assert answered.usage.reported and answered.usage.output_tokens > 0


def test_a_text_can_be_asked_of_the_endpoint_of_models_that_see(stub, dashscope, ask, text):
    ask(dashscope(multimodal=True), text)
    assert stub.requests[0].path.endswith("/multimodal-generation/generation")


def test_a_picture_travels_inline(stub, dashscope, ask, caption):
    answered = ask(dashscope("qwen3-vl-plus"), caption)
    assert wrong_with(caption, answered.reply) == ""
    (sent,) = stub.requests
    image, words = sent.json()["input"]["messages"][0]["content"]
    assert image["image"].startswith("data:image/png;base64,")
    assert words == {"text": "Describe it."}


def test_a_prompt_that_is_the_name_of_a_file_is_sent_as_that_name(stub, dashscope, ask, picture, tmp_path, monkeypatch):
    """The older surface of the SDK would upload the file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("THE-FILES-CONTENT")
    for prompt in ("secret.txt", f"file://{tmp_path}/secret.txt", str(tmp_path / "secret.txt")):
        stub.clear()
        ask(dashscope(), TextRequest(messages=(Message(role="user", content=prompt),), draw=0))
        ask(dashscope("wan2.2-t2i-flash"), ImageRequest(prompt=prompt, draw=0, size=(8, 8)))
        assert not any(b"THE-FILES-CONTENT" in sent.body for sent in stub.requests)
        assert prompt.encode() in stub.requests[0].body
        assert not any("uploads" in sent.path for sent in stub.requests)


def test_an_image_is_painted_by_a_task_polled_until_it_is_done_and_fetched_without_the_key(
    stub, dashscope, ask, painting
):
    stub.follow({"polls": 2})
    answered = ask(dashscope("wan2.2-t2i-flash"), painting)
    assert wrong_with(painting, answered.reply) == ""
    paths = [(sent.method, sent.path.rsplit("/", 1)[0]) for sent in stub.requests]
    assert paths[0] == ("POST", "/api/v1/services/aigc/text2image")
    assert paths[1:4] == [("GET", "/api/v1/tasks")] * 3
    assert paths[4:] == [("GET", "/results")]
    assert "authorization" not in stub.requests[4].headers
    assert stub.requests[0].json()["parameters"] == {
        "n": 1,
        "size": "1024*768",
        "prompt_extend": False,
        "watermark": False,
    }
    assert answered.usage.images == 1 and answered.usage.reported


def test_a_model_that_paints_at_once_is_not_polled(stub, dashscope, ask):
    request = ImageRequest(prompt="a bedroom", draw=0, size=(16, 16), channels=1)
    assert wrong_with(request, ask(dashscope("wan2.6-t2i"), request).reply) == ""
    assert [sent.method for sent in stub.requests] == ["POST", "GET"]


def test_a_poll_that_fails_is_repeated_and_paints_nothing_again(stub, dashscope, ask, painting):
    for fault in ("rate-limited", "server-error", "drop", "html"):
        stub.clear()
        stub.follow({"rules": [{"path": "*/tasks/*", "nth": 1, "fault": fault}]})
        assert wrong_with(painting, ask(dashscope("wan2.2-t2i-flash"), painting).reply) == ""
        assert sum(sent.method == "POST" for sent in stub.requests) == 1


def test_a_fetch_that_fails_is_repeated_and_paints_nothing_again(stub, dashscope, ask, painting):
    stub.follow({"rules": [{"path": "/results/*", "nth": 1, "fault": "server-error"}]})
    assert wrong_with(painting, ask(dashscope("wan2.2-t2i-flash"), painting).reply) == ""
    assert sum(sent.method == "POST" for sent in stub.requests) == 1


def test_an_image_that_can_never_be_fetched_was_paid_for(stub, dashscope, ask, painting):
    stub.follow({"rules": [{"path": "/results/*", "fault": "server-error"}]})
    with pytest.raises(Transient) as caught:
        ask(dashscope("wan2.2-t2i-flash"), painting)
    assert caught.value.possibly_billed and caught.value.usage.images == 1


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://dashscope-result-bj.oss-cn-beijing.aliyuncs.com/a.png?sig=1", True),
        ("http://dashscope-result-sgp.oss-ap-southeast-1.aliyuncs.com/a.png", True),
        ("https://dashscope-result-bj.oss-cn-beijing.aliyuncs.com.evil.example/a.png", False),
        ("https://evil.example/dashscope-result.oss-cn.aliyuncs.com", False),
        ("https://dashscope-a.evil.oss-cn.aliyuncs.com/a.png", False),
        ("https://dashscope-a.oss-cn.aliyuncs.com:8443/a.png", False),
        ("http://127.0.0.1:1/a.png", False),
        ("http://169.254.169.254/latest/meta-data", False),
        ("file:///etc/passwd", False),
    ],
)
def test_an_image_is_fetched_from_allowed_hosts_only_and_over_https(dashscope, url, allowed):
    adapter = dashscope("wan2.2-t2i-flash").open()
    if allowed:
        assert adapter._checked(url).startswith("https://")
    else:
        with pytest.raises(Transient, match="download_hosts"):
            adapter._checked(url)


def test_a_downloaded_image_is_cut_off_at_the_limit(dashscope, ask, painting):
    with pytest.raises(Transient, match="more than 2048 bytes"):
        ask(dashscope("wan2.2-t2i-flash", max_response_bytes=2048), painting)


@pytest.mark.parametrize(
    ("fault", "rule", "cause", "wait_s"),
    [
        ("rate-limited", {}, Cause.RATE, None),
        ("rate-limited", {"retry_after_s": 12}, Cause.RATE, 12.0),
        ("slow-down", {}, Cause.RATE, None),
        ("tokens-limited", {}, Cause.RATE, None),
        ("server-error", {}, Cause.SERVER, None),
        ("bad-gateway", {}, Cause.SERVER, None),
        ("unavailable", {"retry_after_s": 0.5}, Cause.SERVER, 0.5),
        ("gateway-timeout", {}, Cause.SERVER, None),
        ("too-late", {}, Cause.SERVER, None),
    ],
)
def test_what_may_pass_is_transient_and_sent_once(stub, dashscope, ask, text, fault, rule, cause, wait_s):
    failing(stub, fault, **rule)
    with pytest.raises(Transient) as caught:
        ask(dashscope(), text)
    assert (caught.value.cause, caught.value.wait_s) == (cause, wait_s)
    assert len(stub.requests) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no-money", "no money or quota"),
        ("free-tier-only", "no money or quota"),
        ("bad-key", "check the key in A_KEY"),
        ("forbidden", "access denied"),
        ("model-gone", "check `model`"),
        ("bad-request", "not accepted"),
    ],
)
def test_what_a_person_must_mend_stops_the_role_at_once(stub, dashscope, ask, text, fault, words):
    failing(stub, fault)
    with pytest.raises(Stopped, match=words) as caught:
        ask(dashscope(), text)
    assert "\n" not in str(caught.value)
    assert len(stub.requests) == 1


@pytest.mark.parametrize("fault", ["moderated", "error-in-body"])
def test_moderation_is_a_refusal_and_costs_nothing(stub, dashscope, ask, text, painting, fault):
    failing(stub, fault)
    assert ask(dashscope(), text).reply == Refusal("DataInspectionFailed")
    refused = ask(dashscope("wan2.2-t2i-flash"), painting)
    assert isinstance(refused.reply, Refusal) and refused.usage.images == 0


def test_a_task_that_is_refused_after_it_began_is_a_refusal(stub, dashscope, ask, painting):
    failing(stub, "moderated-answer")
    answered = ask(dashscope("wan2.2-t2i-flash"), painting)
    assert isinstance(answered.reply, Refusal)
    assert sum(sent.method == "POST" for sent in stub.requests) == 1


@pytest.mark.parametrize(
    "fault", ["wrong-json", "truncated-json", "empty", "html", "no-content", "no-choices", "too-many-choices"]
)
def test_a_200_that_is_no_answer_is_tried_twice_at_most_and_counts_as_paid(stub, dashscope, ask, text, fault):
    failing(stub, fault)
    with pytest.raises(Transient) as caught:
        ask(dashscope(), text)
    assert caught.value.cause is Cause.MALFORMED
    assert caught.value.tries == 2
    assert caught.value.possibly_billed
    assert len(stub.requests) == 1


@pytest.mark.parametrize("fault", ["drop", "reset"])
def test_a_connection_that_breaks_after_sending_may_have_been_billed_and_nothing_is_sent_again(
    stub, dashscope, ask, text, fault
):
    failing(stub, fault)
    with pytest.raises(Transient) as caught:
        ask(dashscope(), text)
    assert caught.value.cause is Cause.CONNECTION and caught.value.possibly_billed
    assert len(stub.requests) == 1


@pytest.mark.parametrize(("fault", "rule"), [("silence", {}), ("drip", {"pace_s": 0.05, "pieces": 100})])
def test_one_deadline_ends_silence_and_dripping_alike(stub, dashscope, ask, text, fault, rule):
    failing(stub, fault, **rule)
    start = time.monotonic()
    with pytest.raises(Transient) as caught:
        ask(dashscope(deadline_s=0.3), text)
    assert time.monotonic() - start < 3
    assert caught.value.cause is Cause.TIMEOUT and caught.value.possibly_billed


def test_a_task_that_never_ends_meets_the_deadline(stub, dashscope, ask, painting):
    stub.follow({"polls": 10_000})
    with pytest.raises(Transient) as caught:
        ask(dashscope("wan2.2-t2i-flash", deadline_s=0.4), painting)
    assert caught.value.cause is Cause.TIMEOUT and caught.value.possibly_billed


def test_a_host_that_cannot_be_reached_was_sent_nothing(dashscope, ask, text):
    with pytest.raises(Transient, match="cannot be reached") as caught:
        ask(dashscope(base_url="http://127.0.0.1:9/api/v1"), text)
    assert not caught.value.possibly_billed and caught.value.tries == 3


def test_the_region_has_no_default_because_it_is_where_the_data_goes():
    with pytest.raises(ValidationError, match="region"):
        DashScopeConfig(model="qwen-plus")


def test_a_region_without_a_shared_endpoint_needs_a_workspace():
    with pytest.raises(ValidationError, match="needs a `workspace`"):
        DashScopeConfig(model="qwen-plus", region="eu-central-1")
    there = DashScopeConfig(model="qwen-plus", region="eu-central-1", workspace="ws-1")
    assert str(there.endpoint) == "https://ws-1.eu-central-1.maas.aliyuncs.com/api/v1"


def test_regions_share_no_identity_and_no_price():
    here, there = (
        DashScopeConfig(model="qwen3.7-plus", region=r, api_key_env="") for r in ("ap-southeast-1", "cn-beijing")
    )
    assert here.open().identity != there.open().identity
    assert here.facts.price is not None and there.facts.price is None


def test_a_model_that_was_taken_offline_cannot_be_opened():
    with pytest.raises(AdapterUnavailable, match=r"2026-07-13.*qwen3\.7-plus"):
        DashScopeConfig(model="qwen-vl-max", region="cn-beijing", api_key_env="").open()


def test_it_embeds_nothing_and_says_so(dashscope, ask):
    assert EmbedRequest not in DashScopeConfig.answers
    with pytest.raises(Stopped, match="use another adapter"):
        ask(dashscope(), EmbedRequest(content="a"))


def test_an_adapter_has_the_metered_face(dashscope):
    assert isinstance(dashscope().open(), MeteredAdapter)


def test_images_are_estimated_by_the_piece(dashscope, painting):
    bound = dashscope("wan2.2-t2i-flash").open().estimate(painting)
    assert (bound.images, bound.input_tokens, bound.output_tokens) == (1, 0, 0)
