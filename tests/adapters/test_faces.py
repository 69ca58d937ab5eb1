"""What the gateway keeps of an adapter's promises, whatever its face: a batch, one at a time, or cheap to compute."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest

from privolve.adapters.contract import (
    AdapterConfig,
    CaptionRequest,
    EmbedRequest,
    Image,
    ImageRequest,
    ImageVariationRequest,
    Message,
    ModelIdentity,
    Refusal,
    TextRequest,
    wrong_with,
)
from privolve.adapters.scripted import Scripted, ScriptedAsync, ScriptedConfig
from privolve.cache.keys import canonical_json
from privolve.cache.store import MemoryStore

MODEL = ModelIdentity(provider="scripted", model="hash")


def reply_by_hash(request: Any) -> Any:
    rng = np.random.default_rng(list(canonical_json(request).encode()))
    if isinstance(request, EmbedRequest):
        return rng.normal(size=5).astype(np.float32)
    if isinstance(request, ImageRequest):
        return Image(rng.integers(0, 256, (*request.size[::-1], request.channels)).astype(np.uint8), "recipe")
    if isinstance(request, ImageVariationRequest):
        return Image(rng.integers(0, 256, request.image.pixels.shape).astype(np.uint8))
    return f"{rng.integers(10**9)}"


async def reply_later(request: Any) -> Any:
    await asyncio.sleep(0.001 * (len(canonical_json(request)) % 3))
    return reply_by_hash(request)


class Cheap(ScriptedConfig):
    cheap: ClassVar[bool] = True


MADE: dict[str, Callable[[], AdapterConfig]] = {
    "batch": lambda: ScriptedConfig(adapter=Scripted(reply_by_hash, identity=MODEL)),
    "async": lambda: ScriptedConfig(adapter=ScriptedAsync(reply_later, identity=MODEL)),
    "cheap": lambda: Cheap(adapter=Scripted(reply_by_hash, identity=MODEL)),
}


@cache
def requests_for(kind: str, draws: int = 3) -> list[Any]:
    """A few of every kind that the adapter answers."""
    config = MADE[kind]()
    asked = [ImageRequest(prompt=prompt, draw=draw, size=(16, 16), channels=1) for prompt in "37" for draw in (0, 1)]
    images = [image for image in Scripted(reply_by_hash).send(asked) if isinstance(image, Image)]
    requests: list[Any] = []
    for draw in range(draws):
        for number, image in enumerate(images):
            words = f"Write a caption for the label 3, please. Variant {number}."
            requests += [
                TextRequest(messages=(Message(role="user", content=words),), draw=draw),
                CaptionRequest(image=image, prompt="Describe it.", draw=draw),
                ImageRequest(prompt="the digit 7" if number % 2 else "3", draw=draw, size=(16, 12), channels=1),
                ImageRequest(prompt="7", draw=draw, size=(9, 9), channels=3),
                ImageVariationRequest(image=image, prompt="7", degree=0.5, draw=draw),
            ]
    embeds = [EmbedRequest(content=image) for image in images]
    texts = [EmbedRequest(content=text) for text in ("a small 3", "a large 7", "")]
    chosen = [request for request in requests if isinstance(request, config.answers)]
    if EmbedRequest in config.answers:
        chosen += texts + embeds
    return chosen


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Image) and isinstance(other, Image):
        return one.recipe == other.recipe and np.array_equal(one.pixels, other.pixels)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.tobytes() == other.tobytes()
    return type(one) is type(other) and one == other


def all_same(some: Any, others: Any) -> bool:
    return len(some) == len(others) and all(same(one, other) for one, other in zip(some, others, strict=True))


@pytest.fixture(params=MADE)
def role(request, gateway):
    """Opens the adapter behind a new gateway, with an empty cache or one that is kept."""

    def opened(*, kept: bool = False, chunk: int = 4) -> Any:
        store = {} if kept else {"store": MemoryStore()}
        return gateway({"it": MADE[request.param]()}, chunk=chunk, **store).open("it")

    opened.requests = requests_for(request.param)  # type: ignore[attr-defined]
    assert opened.requests
    return opened


def test_every_reply_answers_its_request(role):
    replies = role().send(role.requests)
    assert len(replies) == len(role.requests)
    assert [wrong_with(request, reply) for request, reply in zip(role.requests, replies, strict=True)] == [""] * len(
        replies
    )
    assert not all(isinstance(reply, Refusal) for reply in replies)


def test_a_reply_depends_on_no_neighbour_no_order_and_no_batch(role):
    replies = role().send(role.requests)
    backwards = role(chunk=7).send(role.requests[::-1])
    alone = role(chunk=1).send(role.requests[:8])
    assert all_same(replies, backwards[::-1])
    assert all_same(replies[:8], alone)


def test_draws_of_one_request_differ(role):
    requests = [request for request in role.requests if isinstance(request, TextRequest | ImageRequest)]
    if not requests:
        pytest.skip("does not sample")
    replies = role().send(requests)
    by_question: dict[str, list[Any]] = {}
    for request, reply in zip(requests, replies, strict=True):
        question = canonical_json({**vars(request), "draw": 0})
        by_question.setdefault(question, []).append(reply)
    assert len(requests) > len(by_question)
    assert any(not same(some[0], other) for some in by_question.values() for other in some[1:])


def test_a_replay_gives_the_same_bits(role):
    replies = role(kept=True).send(role.requests)
    assert all_same(replies, role(kept=True).send(role.requests))
    assert all_same(replies, role(kept=True, chunk=9).send(role.requests[::-1])[::-1])


def test_the_identity_is_the_same_each_time_it_is_opened(role):
    identity = role().identity
    assert identity == role().identity
    assert identity.provider
    assert identity.model
