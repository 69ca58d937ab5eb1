"""OpenAI's own SDK against the stub: an update of the SDK that changes the wire fails here."""

from __future__ import annotations

import base64
import itertools
import json
import time
from collections.abc import Iterator
from io import BytesIO

import PIL.Image
import pytest

from privolve.adapters.stub import Stub

openai = pytest.importorskip("openai")

MESSAGES = [{"role": "user", "content": "Describe a bedroom."}]


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub() as running:
        yield running


@pytest.fixture
def client(stub: Stub) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=stub.openai_url, api_key="any", max_retries=0, timeout=5) as made:
        yield made


def test_chat_has_words_and_usage(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="gpt-6-luna", messages=MESSAGES, n=3)
    texts = [choice.message.content for choice in reply.choices]
    assert len(set(texts)) == 3
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 0
    assert reply.model == "gpt-6-luna"


def test_chat_stops_at_the_length_asked(client: openai.OpenAI) -> None:
    choice = client.chat.completions.create(model="m", messages=MESSAGES, max_completion_tokens=3).choices[0]
    assert len(choice.message.content.split()) == 3
    assert choice.finish_reason == "length"


def test_chat_takes_images(client: openai.OpenAI, stub: Stub) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
    content = [{"type": "text", "text": "What is it?"}, part]
    reply = client.chat.completions.create(model="m", messages=[{"role": "user", "content": content}])
    assert reply.choices[0].message.content
    assert reply.usage.prompt_tokens > 85
    assert stub.requests[0].json()["messages"][0]["content"][1] == part


def test_a_stream_says_a_sentence_word_by_word(client: openai.OpenAI) -> None:
    def streamed() -> str:
        events = list(
            client.chat.completions.create(
                model="m", messages=MESSAGES, temperature=0, stream=True, stream_options={"include_usage": True}
            )
        )
        assert len(events) > 5
        assert events[-1].usage.total_tokens > 0
        assert events[-2].choices[0].finish_reason == "stop"
        return "".join(event.choices[0].delta.content or "" for event in events if event.choices)

    first = streamed()
    assert first.endswith(".") and "  " not in first
    assert first == streamed()


@pytest.mark.parametrize(("size", "kind"), [("64x48", "png"), ("32x32", "jpeg"), ("32x32", "webp")])
def test_images_have_the_size_and_format_asked(client: openai.OpenAI, size: str, kind: str) -> None:
    reply = client.images.generate(model="gpt-image-2", prompt="a room", size=size, n=2, output_format=kind)
    pictures = [base64.b64decode(each.b64_json) for each in reply.data]
    assert pictures[0] != pictures[1]
    opened = PIL.Image.open(BytesIO(pictures[0]))
    assert f"{opened.width}x{opened.height}" == size
    assert opened.format == kind.upper()
    assert reply.usage.output_tokens > 0


def test_older_image_models_answer_with_addresses(client: openai.OpenAI, stub: Stub) -> None:
    import http.client

    url = client.images.generate(model="dall-e-3", prompt="a room", size="64x64").data[0].url
    connection = http.client.HTTPConnection(stub.url.removeprefix("http://"), timeout=5)
    connection.request("GET", url.removeprefix(stub.url))
    assert PIL.Image.open(BytesIO(connection.getresponse().read())).size == (64, 64)
    connection.close()


def test_edits_take_a_form_with_the_image(client: openai.OpenAI, stub: Stub) -> None:
    picture = ("image.png", b"png bytes", "image/png")
    reply = client.images.edit(model="gpt-image-2", image=picture, prompt="brighter", size="32x32")
    again = client.images.edit(model="gpt-image-2", image=[picture, picture], prompt="brighter", size="32x32")
    assert reply.data[0].b64_json and again.data[0].b64_json
    assert b"png bytes" in stub.requests[0].body
    assert stub.requests[0].model == "gpt-image-2"


def test_embeddings_come_packed_or_plain(client: openai.OpenAI) -> None:
    packed = client.embeddings.create(model="text-embedding-3-small", input=["a bed", "a lamp"], dimensions=8)
    plain = client.embeddings.create(
        model="text-embedding-3-small", input=["a bed", "a lamp"], dimensions=8, encoding_format="float"
    )
    assert [len(each.embedding) for each in packed.data] == [8, 8]
    assert packed.data[1].embedding == pytest.approx(plain.data[1].embedding, abs=1e-6)


def test_the_models_list_tells_when_a_model_ends(client: openai.OpenAI) -> None:
    ends = {model.id: model.shutdown_date for model in client.models.list()}
    assert ends["gpt-4o-mini"] == "2027-01-14"
    assert client.models.retrieve("gpt-6-luna").shutdown_date is None


def test_a_batch_is_answered_line_by_line(client: openai.OpenAI, stub: Stub) -> None:
    lines = [
        {
            "custom_id": str(number),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "m", "messages": [{"role": "user", "content": text}]},
        }
        for number, text in enumerate(("one", "two", "bad words"))
    ]
    # A rule for lines must not meet the upload that holds them.
    stub.follow({"polls": 1, "rules": [{"path": "*/chat/completions", "contains": "bad words", "fault": "moderated"}]})
    content = "\n".join(json.dumps(line) for line in lines).encode()
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    batch = client.batches.create(
        completion_window="24h", endpoint="/v1/chat/completions", input_file_id=file.id, metadata={"run": "r1"}
    )
    assert client.batches.retrieve(batch.id).status == "in_progress"
    done = client.batches.retrieve(batch.id)
    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", 2, 1)
    good = [json.loads(line) for line in client.files.content(done.output_file_id).text.splitlines()]
    assert {line["custom_id"] for line in good} == {"0", "1"}
    assert good[0]["response"]["body"]["choices"][0]["message"]["content"]
    failed = json.loads(client.files.content(done.error_file_id).text)
    assert failed["response"]["body"]["error"]["code"] == "moderation_blocked"
    assert [each.metadata for each in client.batches.list()] == [{"run": "r1"}]


def test_azures_addresses_name_the_model(stub: Stub) -> None:
    client = openai.AzureOpenAI(azure_endpoint=stub.url, api_key="any", api_version="2025-01-01", max_retries=0)
    assert client.chat.completions.create(model="my-deployment", messages=MESSAGES).choices[0].message.content
    client.close()
    assert stub.requests[0].model == "my-deployment"
    assert stub.requests[0].headers["api-key"] == "any"


def test_the_sdk_names_our_refusals(client: openai.OpenAI, stub: Stub) -> None:
    raised = {
        "rate-limited": openai.RateLimitError,
        "no-money": openai.RateLimitError,
        "bad-key": openai.AuthenticationError,
        "model-gone": openai.NotFoundError,
        "moderated": openai.BadRequestError,
        "conflict": openai.ConflictError,
        "unavailable": openai.InternalServerError,
        "drop": openai.APIConnectionError,
        "reset": openai.APIConnectionError,
    }
    for fault, kind in raised.items():
        stub.follow({"rules": [{"fault": fault}]})
        with pytest.raises(kind):
            client.chat.completions.create(model="m", messages=MESSAGES)


def test_the_sdk_waits_as_long_as_the_stub_says(stub: Stub) -> None:
    stub.follow({"rules": [{"first": 2, "fault": "rate-limited", "retry_after_s": 0.3}]})
    with openai.OpenAI(base_url=stub.openai_url, api_key="any", max_retries=2) as client:
        client.chat.completions.create(model="m", messages=MESSAGES)
    at = [request.at_s for request in stub.requests]
    assert [request.status for request in stub.requests] == [429, 429, 200]
    assert all(later - earlier >= 0.29 for earlier, later in itertools.pairwise(at))


def test_silence_lasts_as_long_as_the_clients_patience(stub: Stub) -> None:
    stub.follow({"rules": [{"fault": "silence"}]})
    with openai.OpenAI(base_url=stub.openai_url, api_key="any", max_retries=0, timeout=0.3) as client:
        start = time.monotonic()
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="m", messages=MESSAGES)
    assert 0.25 < time.monotonic() - start < 3


def test_none_content_reaches_the_client_without_an_error(client: openai.OpenAI, stub: Stub) -> None:
    stub.follow({"rules": [{"fault": "no-content"}]})
    assert client.chat.completions.create(model="m", messages=MESSAGES).choices[0].message.content is None
    assert client.images.generate(model="gpt-image-2", prompt="x", size="16x16").data[0].b64_json is None


def test_a_connection_is_used_again(client: openai.OpenAI, stub: Stub) -> None:
    for _ in range(5):
        client.chat.completions.create(model="m", messages=MESSAGES)
    assert stub.counts["connections"] == 1
