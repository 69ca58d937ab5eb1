"""The stub on the wire: keep-alive, what it records, and every fault, seen by a client without patience."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import PIL.Image
import pytest

from privolve.adapters.stub import Fault, Script, ScriptError, Stub
from privolve.adapters.stub.answers import png, sentence, vector
from privolve.adapters.stub.stub import StubError

CHAT = "/v1/chat/completions"
NATIVE = "/api/v1/services/aigc/text-generation/generation"


def ask(
    stub: Stub, path: str = CHAT, text: str = "hello", *, key: str = "any", wait_s: float = 5.0, **more
) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own: status, headers, body."""
    connection = http.client.HTTPConnection("127.0.0.1", int(stub.url.rpartition(":")[2]), timeout=wait_s)
    try:
        messages = [{"role": "user", "content": text}]
        body = {"model": "m", "messages": messages, "input": {"messages": messages}} | more
        connection.request(
            "POST", path, json.dumps(body), {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        )
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def said(stub: Stub, text: str = "hello", **more) -> str:
    status, _, body = ask(stub, text=text, **more)
    assert status == 200, body
    return json.loads(body)["choices"][0]["message"]["content"]


def of_rule(**rule) -> Stub:
    return Stub({"rules": [rule]})


def test_it_records_what_it_was_sent() -> None:
    with Stub() as stub:
        ask(stub, text="a bedroom", key="secret")
    (request,) = stub.requests
    assert (request.method, request.path, request.model, request.status, request.fault) == (
        "POST",
        CHAT,
        "m",
        200,
        None,
    )
    assert request.headers["authorization"] == "Bearer secret"
    assert request.json()["messages"][0]["content"] == "a bedroom"
    assert request.answered


def test_it_keeps_only_counts_when_told_to() -> None:
    with Stub(keep=False) as stub:
        ask(stub)
        _, _, counts = ask(stub, "/stub/counts")
    assert stub.requests == []
    assert json.loads(counts)["answered"] == 1


def test_an_equal_request_gets_another_sample_and_the_same_ones_again_in_another_life() -> None:
    with Stub() as stub:
        first = [said(stub) for _ in range(4)]
    with Stub() as stub:
        second = [said(stub) for _ in range(4)]
    assert first == second
    assert len(set(first)) == 4


def test_at_temperature_zero_an_equal_request_gets_an_equal_answer() -> None:
    with Stub() as stub:
        assert said(stub, temperature=0) == said(stub, temperature=0)
    with Stub({"fresh": False}) as stub:
        assert said(stub) == said(stub)


def test_another_seed_answers_otherwise() -> None:
    with Stub({"seed": 1}) as one, Stub({"seed": 2}) as two:
        assert said(one) != said(two)


def test_pictures_have_the_size_asked_and_differ() -> None:
    for size in ((64, 48), (1, 1), (200, 300)):
        assert PIL.Image.open(BytesIO(png(b"a", *size))).convert("RGB").size == size
    assert len({png(seed.to_bytes(), 32, 32) for seed in range(50)}) == 50


def test_captions_are_sentences_and_many() -> None:
    texts = {sentence(seed.to_bytes(4)) for seed in range(2000)}
    assert len(texts) > 1990
    assert all(text[0].isupper() and text.endswith(".") for text in texts)


def test_vectors_are_of_unit_length_and_close_for_shared_words() -> None:
    one, near, far = (vector(text, 256) for text in ("a red bed", "a red bed here", "nine green apples fell"))
    inner = [sum(a * b for a, b in zip(one, other, strict=True)) for other in (one, near, far)]
    assert inner[0] == pytest.approx(1)
    assert inner[0] > inner[1] > inner[2] + 0.2


@pytest.mark.parametrize(
    ("fault", "openai", "dashscope"),
    [
        (Fault.RATE_LIMITED, (429, "rate_limit_exceeded"), (429, "Throttling.RateQuota")),
        (Fault.SLOW_DOWN, (429, "slow_down"), (429, "Throttling.BurstRate")),
        (Fault.TOKENS_LIMITED, (429, "rate_limit_exceeded"), (429, "Throttling.AllocationQuota")),
        (Fault.NO_MONEY, (429, "insufficient_quota"), (400, "Arrearage")),
        (Fault.FREE_TIER_ONLY, (429, "credit_balance_exhausted"), (403, "AllocationQuota.FreeTierOnly")),
        (Fault.BAD_KEY, (401, "invalid_api_key"), (401, "InvalidApiKey")),
        (Fault.MODEL_GONE, (404, "model_not_found"), (404, "ModelNotFound")),
        (Fault.MODERATED, (400, "moderation_blocked"), (400, "DataInspectionFailed")),
        (Fault.SERVER_ERROR, (500, None), (500, "InternalError")),
        (Fault.OVERLOADED, (503, "server_is_overloaded"), (503, "ModelServingError")),
    ],
)
def test_a_refusal_is_in_the_words_of_the_protocol_spoken(fault: Fault, openai: tuple, dashscope: tuple) -> None:
    with of_rule(fault=fault) as stub:
        status, _, body = ask(stub)
        assert (status, json.loads(body)["error"]["code"]) == openai
        status, _, body = ask(stub, NATIVE)
        assert (status, json.loads(body)["code"]) == dashscope


def test_the_quota_that_lifts_by_itself_has_openais_name_for_an_empty_account_in_compatible_mode() -> None:
    with of_rule(fault="tokens-limited") as stub:
        _, _, body = ask(stub, "/compatible-mode/v1/chat/completions")
    assert json.loads(body)["error"]["code"] == "insufficient_quota"


def test_retry_after_is_there_only_where_the_script_says_so() -> None:
    with of_rule(fault="rate-limited") as stub:
        assert "retry-after" not in ask(stub)[1]
    with of_rule(fault="rate-limited", retry_after_s=2) as stub:
        assert ask(stub)[1]["retry-after"] == "2"
    with of_rule(fault="unavailable", retry_after_s=0.25) as stub:
        assert ask(stub)[1]["retry-after-ms"] == "250"


def test_a_bare_status_is_an_error_of_that_status() -> None:
    for status in (418, 429, 502, 529):
        with of_rule(status=status) as stub:
            assert ask(stub)[0] == status


@pytest.mark.parametrize("fault", ["silence", "reset", "drop", "drip"])
def test_faults_of_the_wire_give_an_impatient_client_no_answer(fault: str) -> None:
    with of_rule(fault=fault, pace_s=0.15, pieces=10) as stub:
        start = time.monotonic()
        try:
            _, _, body = ask(stub, wait_s=0.4)
        except (OSError, http.client.HTTPException):
            assert fault != "drip"
        else:
            # Bytes come often enough for a time-out of reading, so only a deadline of one's own ends it.
            assert fault == "drip" and time.monotonic() - start > 1.2
            assert json.loads(body)["choices"]
    assert stub.requests[0].answered is (fault == "drip")


def test_a_duplicate_is_an_answer_to_nobody_on_the_same_connection() -> None:
    with of_rule(fault="duplicate") as stub:
        body = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'
        with socket.create_connection(("127.0.0.1", int(stub.url.rpartition(":")[2])), timeout=2) as raw:
            raw.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nAuthorization: Bearer k\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            received = b"".join(iter(lambda: raw.recv(65536), b""))
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert len(stub.requests) == 1


def test_answers_that_are_none_have_status_200() -> None:
    def body_of(fault: str) -> bytes:
        with of_rule(fault=fault) as stub:
            status, _, body = ask(stub, n=1)
        assert status == 200
        return body

    assert json.loads(body_of("no-content"))["choices"][0]["message"]["content"] is None
    assert json.loads(body_of("no-choices"))["choices"] == []
    assert len(json.loads(body_of("too-many-choices"))["choices"]) == 2
    assert json.loads(body_of("wrong-json")) == {"foo": 1}
    assert "error" in json.loads(body_of("error-in-body"))
    assert json.loads(body_of("moderated-answer"))["choices"][0]["finish_reason"] == "content_filter"
    assert body_of("empty") == b""
    assert body_of("html").startswith(b"<!doctype html>")
    with pytest.raises(ValueError):
        json.loads(body_of("truncated-json"))


def test_a_redirect_points_where_the_script_says() -> None:
    with Stub() as other, of_rule(fault="redirect", location=other.url) as stub:
        status, headers, _ = ask(stub)
    assert (status, headers["location"]) == (307, other.url + CHAT)


def test_rules_choose_by_path_model_text_and_number() -> None:
    rules = [
        {"path": "*/embeddings", "fault": "server-error"},
        {"model": "old-*", "fault": "model-gone"},
        {"contains": "forbidden words", "fault": "moderated"},
        {"nth": [2], "fault": "rate-limited"},
    ]
    with Stub({"rules": rules}) as stub:
        asked = [
            ask(stub, "/v1/embeddings", input="x"),
            ask(stub, model="old-one"),
            ask(stub, text="some forbidden words here"),
            ask(stub),
            ask(stub),
            ask(stub),
        ]
    assert [status for status, _, _ in asked] == [500, 404, 400, 200, 429, 200]


def test_probability_depends_on_the_request_and_not_on_the_order() -> None:
    script = {"seed": 3, "rules": [{"probability": 0.3, "fault": "server-error"}]}
    texts = [f"request {number}" for number in range(100)]
    with Stub(script) as stub:
        forwards = {text: ask(stub, text=text)[0] for text in texts}
    with Stub(script) as stub, ThreadPoolExecutor(8) as pool:
        backwards = dict(zip(texts[::-1], pool.map(lambda text: ask(stub, text=text)[0], texts[::-1]), strict=True))
    assert forwards == backwards
    # Binomial(100, 0.3): beyond these bounds with probability below 1e-9.
    assert 4 <= list(forwards.values()).count(500) <= 61


def test_a_fault_can_spare_the_second_attempt() -> None:
    with of_rule(attempt=1, fault="unavailable") as stub:
        assert [ask(stub, text=text)[0] for text in ("a", "b", "a", "b")] == [503, 503, 200, 200]


def test_more_than_the_limit_at_once_is_rate_limited() -> None:
    with Stub({"latency_s": 0.3, "at_once": 2}) as stub, ThreadPoolExecutor(5) as pool:
        statuses = sorted(pool.map(lambda number: ask(stub, text=str(number))[0], range(5)))
    assert statuses == [200, 200, 429, 429, 429]


def test_sixty_four_at_once_wait_together() -> None:
    with Stub({"latency_s": 0.2}) as stub, ThreadPoolExecutor(64) as pool:
        start = time.monotonic()
        list(pool.map(lambda number: ask(stub, text=str(number)), range(64)))
        took = time.monotonic() - start
    assert stub.counts["answered"] == 64
    assert took < 3.0


def test_it_serves_what_is_sent_in_chunks() -> None:
    with Stub() as stub, socket.create_connection(("127.0.0.1", int(stub.url.rpartition(":")[2])), timeout=2) as raw:
        body = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'
        raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nAuthorization: k\r\nTransfer-Encoding: chunked\r\n\r\n")
        raw.sendall(b"5\r\n" + body[:5] + b"\r\n")
        time.sleep(0.05)
        raw.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body) - 5, body[5:]))
        assert raw.recv(100).startswith(b"HTTP/1.1 200 OK")
    assert stub.requests[0].body == body


def test_a_key_is_needed_and_may_be_prescribed() -> None:
    with Stub({"keys": ["right"]}) as stub:
        assert [ask(stub, key=key)[0] for key in ("", "wrong", "right")] == [401, 401, 200]


def test_a_model_beyond_the_scripts_list_is_gone() -> None:
    with Stub({"models": [{"id": "m"}]}) as stub:
        assert [ask(stub)[0], ask(stub, model="other")[0]] == [200, 404]


def test_a_script_is_refused_in_one_line(tmp_path) -> None:
    with pytest.raises(ScriptError, match=r"rules.0.falt: .*known here: path"):
        Script.of({"rules": [{"falt": "drop"}]})
    with pytest.raises(ScriptError, match="a redirect needs a `location`"):
        Script.of({"rules": [{"fault": "redirect"}]})
    with pytest.raises(ScriptError, match="cannot be read"):
        Script.of(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("rules = [")
    with pytest.raises(ScriptError, match="not valid TOML"):
        Script.of(tmp_path / "bad.toml")


def test_a_port_in_use_is_refused_in_one_line() -> None:
    with Stub() as stub, pytest.raises(StubError, match="cannot be listened on"), Stub(port=int(stub.url[17:])):
        pass


def test_a_port_that_there_is_not_is_refused_in_one_line() -> None:
    with pytest.raises(StubError, match="cannot be listened on"), Stub(port=99999):
        pass


def test_it_stops_with_clients_still_waiting() -> None:
    with of_rule(fault="silence") as stub:
        waiting = socket.create_connection(("127.0.0.1", int(stub.url.rpartition(":")[2])))
        waiting.sendall(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
        start = time.monotonic()
    waiting.close()
    assert time.monotonic() - start < 2


def test_the_command_serves_until_it_is_interrupted(tmp_path) -> None:
    (tmp_path / "faults.toml").write_text('[[rules]]\nnth = 1\nfault = "rate-limited"\n')
    command = [sys.executable, "-m", "privolve.cli", "stub", "--script", str(tmp_path / "faults.toml")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().split(":")[2].split("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/v1/models", headers={"Authorization": "Bearer k"})
        assert connection.getresponse().status == 429
        connection.close()
    finally:
        process.send_signal(2)
        rest, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "status-429: 1" in rest


@pytest.mark.parametrize("kind", ["openai", "dashscope"])
def test_the_stub_bills_no_more_than_a_careful_client_reserves(kind: str, monkeypatch) -> None:
    """A provider's figures lie below our estimates; where a stub's did not, budgets would seem to be passed."""
    from privolve.adapters import registry
    from privolve.adapters.contract import (
        CaptionRequest,
        EmbedRequest,
        Image,
        ImageRequest,
        ImageVariationRequest,
        Message,
        TextRequest,
    )

    monkeypatch.setenv("A_KEY", "sk-of-no-use")
    picture = Image(np.zeros((40, 50, 3), dtype=np.uint8))
    messages = (Message(role="user", content="Write."),)
    requests = [
        TextRequest(messages=messages, draw=0, max_tokens=4),
        TextRequest(messages=messages, draw=0, max_tokens=400),
        CaptionRequest(image=picture, prompt="", draw=0, max_tokens=5),
        ImageRequest(prompt="a", draw=0, size=(1024, 1024)),
        ImageRequest(prompt="a", draw=0, size=(1536, 1024)),
        ImageVariationRequest(image=picture, prompt="a", degree=0.5, draw=0),
        EmbedRequest(content="a"),
    ]
    names = {
        "openai": {"paints": "gpt-image-2", "embeds": "text-embedding-3-small", "talks": "gpt-6-luna"},
        "dashscope": {"paints": "qwen-image", "talks": "qwen3.7-plus"},
    }[kind]
    here = {"openai": {"provider": "openai"}, "dashscope": {"region": "ap-southeast-1", "poll_s": 0.01}}[kind]

    async def billed(adapter, request):
        try:
            return (await adapter.answer_metered(request)).usage
        finally:
            await adapter.close()

    compared = 0
    with Stub({"models": [{"id": name} for name in names.values()]}) as stub:
        url = stub.openai_url if kind == "openai" else stub.dashscope_url
        for request in requests:
            paints = isinstance(request, ImageRequest | ImageVariationRequest)
            model = names.get("embeds" if isinstance(request, EmbedRequest) else "paints" if paints else "talks", "")
            for quality in ("low", "high") if kind == "openai" and paints else ("",):
                more = {"quality": quality} if quality else {}
                table = {"kind": kind, "model": model or "none", "base_url": url, "api_key_env": "A_KEY"}
                config = registry.parse({**table, **here, **more})
                if not isinstance(request, config.answers):
                    continue
                most, used = config.estimate(request), asyncio.run(billed(config.open(), request))
                assert used.reported
                assert used.input_tokens <= most.input_tokens
                assert used.output_tokens <= most.output_tokens
                assert used.images <= most.images
                compared += 1
    assert compared == {"openai": 10, "dashscope": 5}[kind]
