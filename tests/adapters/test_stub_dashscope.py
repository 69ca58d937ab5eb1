"""DashScope's own SDK (v2), and OpenAI's in compatible mode, against the stub."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import PIL.Image
import pytest

from privolve.adapters.stub import Stub

dashscope = pytest.importorskip("dashscope")
openai = pytest.importorskip("openai")
errors = pytest.importorskip("dashscope.v2.errors")

MESSAGES = [{"role": "user", "content": "Describe a bedroom."}]
PICTURE = {"type": "image", "url": "data:image/png;base64,AAAA"}


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub() as running:
        yield running


@pytest.fixture
def client(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dashscope.Client]:
    monkeypatch.setenv("HOME", str(tmp_path))
    with dashscope.Client(api_key="any", base_url=stub.dashscope_url, max_retries=0, timeout=5) as made:
        yield made


def test_chat_has_words_and_usage(client: dashscope.Client, stub: Stub) -> None:
    reply = client.chat.completions.create(model="qwen-plus", messages=MESSAGES)
    assert "bed" in reply.choices[0].message.content
    assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens > 0
    assert stub.requests[0].path == "/api/v1/services/aigc/text-generation/generation"


def test_an_image_in_a_message_goes_to_the_multimodal_service(client: dashscope.Client, stub: Stub) -> None:
    content = [PICTURE, {"type": "text", "text": "What is it?"}]
    reply = client.multimodal.chat.create(model="qwen3-vl-plus", messages=[{"role": "user", "content": content}])
    assert "bed" in str(reply.choices[0].message.content)
    assert stub.requests[0].path.endswith("/multimodal-generation/generation")


def test_a_stream_gives_the_words_one_after_another(client: dashscope.Client) -> None:
    pieces = [
        chunk.choices[0].delta.content or ""
        for chunk in client.chat.completions.create(model="qwen-plus", messages=MESSAGES, stream=True)
        if chunk.choices
    ]
    assert len(pieces) > 5
    assert "".join(pieces).endswith(".")


def fetched(url: str) -> PIL.Image.Image:
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=5)
    connection.request("GET", f"/{path}")
    body = connection.getresponse().read()
    connection.close()
    return PIL.Image.open(BytesIO(body))


def test_an_image_task_is_asked_after_until_it_is_done(client: dashscope.Client, stub: Stub) -> None:
    stub.follow({"polls": 2})
    job = client.images.generate(
        model="wan2.2-t2i-flash", prompt="a room", size="64*48", n=2, poll_interval=0.01, max_interval=0.01
    )
    assert job.succeeded
    assert len(set(job.image_urls)) == 2
    assert fetched(job.image_urls[0]).size == (64, 48)
    assert [request.method for request in stub.requests] == ["POST", "GET", "GET", "GET", "GET"]
    assert stub.requests[0].headers["x-dashscope-async"] == "enable"


def test_newer_image_models_answer_at_once(client: dashscope.Client) -> None:
    job = client.images.generate(model="wan2.6-t2i", prompt="a room", size="64*64")
    assert fetched(job.image_urls[0]).size == (64, 64)


def test_a_task_can_fail_by_moderation(client: dashscope.Client, stub: Stub) -> None:
    stub.follow({"polls": 0, "rules": [{"fault": "moderated-answer"}]})
    created = client.images.jobs.create(model="wan2.2-t2i-flash", prompt="a room", size="64*64")
    with pytest.raises(errors.ContentFilterError):
        client.images.jobs.fetch(created.task_id)


def test_embeddings(client: dashscope.Client) -> None:
    reply = client.embeddings.create(model="text-embedding-v4", input=["a bed", "a lamp"], dimension=64)
    assert "64" not in str(reply.usage)
    assert len(reply.model_dump()["embeddings"]) == 2


def test_the_sdk_names_our_refusals(client: dashscope.Client, stub: Stub) -> None:
    raised = {
        "rate-limited": errors.RateLimitError,
        "tokens-limited": errors.RateLimitError,
        "no-money": errors.PermissionDeniedError,
        "free-tier-only": errors.PermissionDeniedError,
        "bad-key": errors.AuthenticationError,
        "model-gone": errors.NotFoundError,
        "moderated": errors.ContentFilterError,
        "error-in-body": errors.ContentFilterError,
        "server-error": errors.InternalServerError,
        "drop": errors.APIConnectionError,
    }
    for fault, kind in raised.items():
        stub.follow({"rules": [{"fault": fault}]})
        with pytest.raises(kind):
            client.chat.completions.create(model="qwen-plus", messages=MESSAGES)


def test_the_asynchronous_client(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    async def ask() -> list[str]:
        client = dashscope.AsyncClient(api_key="any", base_url=stub.dashscope_url, max_retries=0)
        replies = await asyncio.gather(
            *(client.chat.completions.create(model="qwen-plus", messages=f"number {number}") for number in range(8))
        )
        await client.aclose()
        return [reply.choices[0].message.content for reply in replies]

    assert len(set(asyncio.run(ask()))) == 8


def test_compatible_mode_speaks_openais_protocol(stub: Stub) -> None:
    with openai.OpenAI(base_url=stub.compatible_url, api_key="any", max_retries=0) as client:
        assert client.chat.completions.create(model="qwen-plus", messages=MESSAGES).choices[0].message.content
        stub.follow({"rules": [{"fault": "tokens-limited"}]})
        with pytest.raises(openai.RateLimitError) as raised:
            client.chat.completions.create(model="qwen-plus", messages=MESSAGES)
    assert raised.value.code == "insufficient_quota"
