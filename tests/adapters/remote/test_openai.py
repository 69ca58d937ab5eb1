"""What `openai` puts on the wire and makes of good replies, through the real SDK."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from contextlib import closing
from dataclasses import replace
from datetime import date

import numpy as np
import PIL.Image
import pytest
from pydantic import ValidationError

from privolve.adapters.contract import (
    AdapterUnavailable,
    AsyncAdapter,
    EmbedRequest,
    ImageRequest,
    Location,
    Message,
    MeteredAdapter,
    Stopped,
    TextRequest,
    Transient,
    wrong_with,
)
from privolve.adapters.gateway import Gateway
from privolve.adapters.remote.openai import DEGREES, OpenAIConfig
from privolve.cache.sqlite import SqliteStore


def test_a_text_is_asked_for_with_every_setting_of_the_request(stub, openai, ask, text):
    answered = ask(openai("gpt-4o-mini"), text)
    assert isinstance(answered.reply, str) and answered.reply
    (sent,) = stub.requests
    assert sent.path == "/v1/chat/completions"
    assert sent.json() == {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Write a caption."},
        ],
        "temperature": 1.2,
        "max_tokens": 50,
        "store": False,
    }


def test_a_model_that_reasons_is_told_not_to_so_that_it_takes_a_temperature(stub, openai, ask, text):
    ask(openai("gpt-6-luna"), text)
    sent = stub.requests[0].json()
    assert sent["reasoning_effort"] == "none"
    assert sent["temperature"] == 1.2
    assert sent["max_completion_tokens"] == 50 and "max_tokens" not in sent


def test_a_model_without_temperature_is_refused_one_in_one_line_that_names_the_way_out(stub, openai, ask, text):
    with pytest.raises(Stopped, match="drop_temperature"):
        ask(openai("gpt-5-mini"), text)
    assert stub.requests == []
    ask(openai("gpt-5-mini", drop_temperature=True), text)
    assert "temperature" not in stub.requests[0].json()


def test_a_request_without_a_bound_gets_the_configs(stub, openai, ask):
    request = TextRequest(messages=(Message(role="user", content="Say something."),), draw=0)
    config = openai(max_tokens=77)
    ask(config, request)
    assert stub.requests[0].json()["max_completion_tokens"] == 77
    assert config.open().estimate(request).output_tokens == 77


def test_an_image_to_caption_travels_as_a_png_data_url_with_its_exact_pixels(stub, openai, ask, caption):
    answered = ask(openai(detail="low"), caption)
    assert wrong_with(caption, answered.reply) == ""
    words, image = stub.requests[0].json()["messages"][0]["content"]
    assert words == {"type": "text", "text": "Describe it."}
    assert image["image_url"]["detail"] == "low"
    head, _, encoded = image["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    sent = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(encoded))))
    assert np.array_equal(sent, caption.image.pixels)


def test_an_image_is_asked_for_at_the_nearest_size_and_comes_back_at_the_wanted_one(stub, openai, ask):
    for size, channels, asked in (((48, 32), 3, "1536x1024"), ((20, 20), 1, "1024x1024"), ((9, 30), 3, "1024x1536")):
        request = ImageRequest(prompt="a bedroom", draw=0, size=size, channels=channels)
        answered = ask(openai("gpt-image-2.6-flare"), request)
        assert wrong_with(request, answered.reply) == ""
        assert stub.requests[-1].json() == {
            "model": "gpt-image-2.6-flare",
            "prompt": "a bedroom",
            "n": 1,
            "size": asked,
            "quality": "low",
        }


def test_the_size_to_paint_at_can_be_set(stub, openai, ask, painting):
    ask(openai("gpt-image-2", image_size="512x512"), painting)
    assert stub.requests[0].json()["size"] == "512x512"


def test_an_unknown_server_is_asked_for_the_image_itself_unless_it_must_not_be(stub, openai, ask, painting):
    ask(openai("sd-turbo", provider="compatible"), painting)
    assert stub.requests[0].json()["response_format"] == "b64_json"
    with pytest.raises(Transient, match="image_format"):
        ask(openai("sd-turbo", provider="compatible", image_format="none"), painting)
    assert "response_format" not in stub.requests[1].json()


def test_a_variation_is_an_edit_whose_file_name_says_nothing_and_whose_prompt_says_the_degree(
    stub, openai, ask, variation
):
    answered = ask(openai("gpt-image-2.6-flare"), variation)
    assert wrong_with(variation, answered.reply) == ""
    (sent,) = stub.requests
    assert sent.path == "/v1/images/edits"
    assert b'filename="image.png"' in sent.body
    assert f"{DEGREES[0]} a bedroom".encode() in sent.body


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_dall_e_2_makes_variations_by_its_own_endpoint_on_a_server_that_still_has_it(stub, openai, ask, variation):
    answered = ask(openai("dall-e-2", provider="compatible"), variation)
    assert wrong_with(variation, answered.reply) == ""
    (sent,) = stub.requests
    assert sent.path == "/v1/images/variations"
    assert b"b64_json" in sent.body


def test_dall_e_paints_on_another_server_and_asks_for_the_image_itself(stub, openai, ask, painting):
    ask(openai("dall-e-3", provider="compatible"), painting)
    sent = stub.requests[0].json()
    assert sent["response_format"] == "b64_json"
    assert "quality" not in sent


@pytest.mark.parametrize("model", ["dall-e-2", "dall-e-3", "gpt-image-1"])
def test_a_model_that_openai_shut_down_cannot_be_opened_there_and_the_error_names_its_replacement(model):
    with pytest.raises(AdapterUnavailable, match=r"shut down.*gpt-image-2\.6-flare"):
        OpenAIConfig(model=model, api_key_env="A_KEY").open()


def test_a_text_is_embedded_as_float32_and_an_image_is_not(stub, openai, ask, picture):
    request = EmbedRequest(content="a bedroom")
    answered = ask(openai("text-embedding-3-small", dimensions=256), request)
    assert wrong_with(request, answered.reply) == ""
    assert stub.requests[0].json() == {
        "model": "text-embedding-3-small",
        "input": "a bedroom",
        "encoding_format": "float",
        "dimensions": 256,
    }
    with pytest.raises(Stopped, match="local adapter"):
        ask(openai("text-embedding-3-small"), EmbedRequest(content=picture))


def test_an_adapter_has_the_contracts_faces(openai):
    adapter = openai().open()
    assert isinstance(adapter, AsyncAdapter) and isinstance(adapter, MeteredAdapter)
    assert adapter.location is Location.REMOTE and OpenAIConfig.location is Location.REMOTE


def test_the_identity_holds_the_provider_the_model_and_the_server(openai, stub):
    one = openai("gpt-6-luna").open().identity
    assert (one.model, one.provider) == ("gpt-6-luna", "openai/openai")
    assert stub.openai_url in one.revision
    assert OpenAIConfig(model="m", api_key_env="A_KEY").open().identity.revision != one.revision


def test_what_cannot_change_a_reply_is_no_part_of_the_settings(openai):
    one = openai(deadline_s=5, api_key_env="A_KEY", price={"input": "1"}).settings()
    assert one == openai(deadline_s=50, api_key_env="OTHER").settings()
    assert one != openai(detail="low").settings()
    assert one != openai(reasoning_effort="").settings()
    assert json.dumps(one)


def test_the_usage_is_the_servers_with_the_account_as_it_came(openai, ask, text):
    usage = ask(openai(), text).usage
    assert usage.reported and usage.resolved_model == "gpt-6-luna" and usage.request_id.startswith("req_")
    assert usage.raw["prompt_tokens"] == usage.input_tokens > 0
    assert usage.raw["completion_tokens"] == usage.output_tokens > 0


def test_the_estimate_bounds_what_a_text_takes(openai, ask, text):
    config = openai()
    bound, taken = config.open().estimate(text), ask(config, text).usage
    assert not bound.reported
    assert taken.input_tokens <= bound.input_tokens and taken.output_tokens <= bound.output_tokens


def test_a_config_estimates_without_a_key_and_without_being_opened(openai, text, monkeypatch):
    opened = openai().open().estimate(text)
    monkeypatch.delenv("A_KEY")
    assert openai().estimate(text) == opened


def test_the_estimate_of_a_small_picture_at_low_detail_is_the_models_own_figure(openai, caption):
    low = openai("gpt-4o-mini", detail="low").open().estimate(caption)
    high = openai("gpt-4o-mini", detail="high").open().estimate(caption)
    assert 2833 <= low.input_tokens <= 2900
    assert 8500 <= high.input_tokens <= 8600


def test_the_estimate_of_an_image_grows_with_its_quality(openai, painting):
    low, high = (openai("gpt-image-2.6-flare", quality=q).open().estimate(painting) for q in ("low", "high"))
    assert low.images == high.images == 1
    assert 294 <= low.output_tokens < high.output_tokens


def test_azure_has_its_own_url_and_its_own_header(stub, openai, ask, text, key):
    ask(openai("my-deployment", provider="azure", base_url=stub.url, azure_api_version="2025-04-01-preview"), text)
    (sent,) = stub.requests
    assert sent.path == "/openai/deployments/my-deployment/chat/completions"
    assert sent.query == "api-version=2025-04-01-preview"
    assert sent.headers["api-key"] == key and "authorization" not in sent.headers
    ask(openai("my-deployment", provider="azure", base_url=stub.url), text)
    assert stub.requests[1].path == "/openai/v1/chat/completions"


def test_more_fields_reach_a_server_that_has_them_but_ours_cannot_be_replaced(stub, openai, ask, text):
    ask(openai(extra={"top_k": 40}), text)
    assert stub.requests[0].json()["top_k"] == 40
    with pytest.raises(ValidationError, match="cannot be set here"):
        openai(extra={"messages": []})


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.com/v1",
        "ftp://example.com",
        "https://user:secret@example.com",
        "https://e.com/?key=secret",
        "x",
    ],
)
def test_a_base_url_is_https_or_this_machine_and_holds_no_secret(url):
    with pytest.raises(ValidationError) as caught:
        OpenAIConfig(model="m", base_url=url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://mine.openai.azure.com", "azure"),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "dashscope"),
        ("https://api.openai.com.evil.example/v1", "compatible"),
        ("http://localhost:8000/v1", "compatible"),
    ],
)
def test_whose_tables_hold_is_told_by_the_host(url, provider):
    assert OpenAIConfig(model="m", base_url=url).speaks == provider


def test_another_server_has_no_price_until_one_is_given():
    there = OpenAIConfig(model="gpt-6-luna", base_url="http://localhost:8000/v1")
    assert there.facts.price is None and there.facts.shutdown is None
    priced = OpenAIConfig(model="x", base_url="http://localhost:8000/v1", price={"input": 1, "output": 2})
    assert priced.facts.price is not None
    assert OpenAIConfig(model="gpt-6-luna").facts.price is not None


def test_a_provider_that_is_not_known_is_an_error_that_lists_the_known():
    with pytest.raises(ValidationError, match="azure, compatible, dashscope, openai"):
        OpenAIConfig(model="m", provider="opnai")


def test_the_servers_list_says_when_a_model_stops(stub, openai):
    stub.follow({"models": [{"id": "gpt-4o-mini", "shutdown_date": "2027-01-14"}]})

    async def listed():
        adapter = openai("gpt-4o-mini").open()
        try:
            return await adapter.listed_shutdown()
        finally:
            await adapter.close()

    assert asyncio.run(listed()) == date(2027, 1, 14)


def test_one_adapter_works_on_one_event_loop_after_another(openai, text):
    adapter = openai().open()

    async def once():
        reply = await adapter.answer(text)
        await adapter.close()
        return reply

    assert asyncio.run(once()) and asyncio.run(once())


def test_half_a_surrogate_pair_is_sent_as_a_question_mark(stub, openai, ask, text):
    ask(openai("text-embedding-3-small"), EmbedRequest(content="a\ud800b"))
    assert stub.requests[0].json()["input"] == "a?b"


def test_a_person_is_told_before_a_run_of_a_model_that_stops_and_of_a_price_that_is_not_known():
    today = date(2026, 11, 22)
    (stops,) = OpenAIConfig(model="gpt-4o-mini").notices(today)
    assert "2027-01-14" in stops and "gpt-6-luna" in stops
    (unknown,) = OpenAIConfig(model="llama", base_url="http://localhost:8000/v1").notices(today)
    assert "price" in unknown
    assert OpenAIConfig(model="gpt-6-luna").notices(today) == ()


def test_a_gateway_asks_it_through_its_retries_and_keeps_what_it_answered(stub, openai, text, tmp_path):
    stub.follow({"rules": [{"nth": 1, "fault": "rate-limited", "retry_after_s": 0.05}]})
    requests = [replace(text, draw=draw) for draw in range(6)]
    for _ in range(2):
        with (
            closing(SqliteStore(tmp_path / "cache.db")) as store,
            Gateway(
                {"writer": openai()},
                store=store,
                private_dir=tmp_path,
                key=b"a private key of 32 bytes length",
                namespace="a",
            ) as gateway,
        ):
            replies = gateway.open("writer").send(requests)
    assert len(replies) == 6 and all(isinstance(reply, str) for reply in replies)
    assert len(stub.requests) == 7
