from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest

from privolve.adapters.contract import (
    AdapterConfig,
    AdapterError,
    EmbedRequest,
    Image,
    ImageRequest,
    Location,
    Message,
    ModelIdentity,
    Refusal,
    Stopped,
    TextRequest,
    Transient,
)
from privolve.adapters.gateway import Gateway
from privolve.adapters.roles import Counts, RoleError, TrustError
from privolve.adapters.scripted import Scripted, ScriptedAsync, ScriptedConfig, named_after
from privolve.adapters.wrappers.cached import decode, encode
from privolve.adapters.wrappers.retrying import Patience


def text(words: str, draw: int = 0) -> TextRequest:
    return TextRequest(messages=(Message(role="user", content=words),), draw=draw)


def paint(prompt: str, draw: int = 0, size: tuple[int, int] = (4, 3)) -> ImageRequest:
    return ImageRequest(prompt=prompt, draw=draw, size=size)


class Writer:
    """Answers a text request by its words and draw, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: Counter[object] = Counter()

    def __call__(self, request: TextRequest) -> str:
        self.asked[request] += 1
        return f"{request.messages[0].content}/{request.draw}"


class Batches:
    """Remembers the size of each batch."""

    location = Location.LOCAL
    identity = ModelIdentity(provider="scripted", model="batches")

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def send(self, requests, /):
        self.sizes.append(len(requests))
        return [f"{request.draw}" for request in requests]


# Roles


EYE = ModelIdentity(provider="theirs", model="eye")
FAR = ModelIdentity(provider="far", model="m")


class EyeConfig(AdapterConfig):
    """From outside privolve: it says LOCAL, but that is a claim."""

    kind: str = "their-eye"
    answers: ClassVar[tuple[type, ...]] = (EmbedRequest,)
    location: ClassVar[Location] = Location.LOCAL

    def open(self) -> Scripted:
        return Scripted(lambda _: np.ones(3, dtype=np.float32), identity=EYE)


def remote(answer) -> ScriptedConfig:
    return ScriptedConfig(adapter=Scripted(answer, location=Location.REMOTE, identity=FAR))


def test_a_remote_adapter_may_not_see_private_data(gateway):
    with pytest.raises(TrustError) as refused:
        gateway({"eye": remote(len)}).open_trusted("eye")
    assert str(refused.value) == (
        "'eye' is a remote adapter and may not see private data. Use a local one, or add 'eye' to `trust`."
    )


def test_an_adapter_from_elsewhere_may_not_see_private_data_either(gateway):
    opened = gateway({"eye": EyeConfig()})
    with pytest.raises(TrustError, match=r"'eye' comes from outside privolve.*add 'eye' to `trust`"):
        opened.check_trust("eye")
    with pytest.raises(TrustError):
        opened.open_trusted("eye")
    assert opened.counts() == {}


def test_trust_is_given_by_role_and_listed_for_the_manifest(gateway):
    roles = {"eye": EyeConfig(), "captioner": remote(len), "writer": remote(len), "painter": len}
    opened = gateway(roles, trust=["eye", "captioner", "painter"])
    opened.open_trusted("eye")
    opened.open_trusted("captioner")
    opened.open_trusted("painter")
    with pytest.raises(TrustError):
        opened.open_trusted("writer")
    assert opened.egress() == {"eye": EYE, "captioner": FAR}


def test_trust_in_a_role_that_is_not_there_is_an_error(gateway):
    with pytest.raises(RoleError, match=r"`trust` names 'eyes'.*The roles: eye"):
        gateway({"eye": len}, trust=["eyes"])


def test_a_missing_role_is_one_line_that_names_the_roles(gateway):
    opened = gateway({"writer": len, "eye": len})
    with pytest.raises(RoleError, match=r"needs an adapter for the role 'painter'; .adapters. names eye, writer"):
        opened.require("painter", ImageRequest)


def test_a_role_that_answers_something_else_is_refused_before_it_is_opened(gateway):
    opened = gateway({"eye": EyeConfig()})
    opened.require("eye", EmbedRequest)
    with pytest.raises(
        RoleError, match=r"'eye' is a 'their-eye' adapter and does not answer TextRequest.*answers EmbedRequest"
    ):
        opened.require("eye", EmbedRequest, TextRequest)
    assert opened.counts() == {}


def test_identities_name_the_model_of_each_role(gateway):
    opened = gateway({"writer": len, "eye": remote(len)})
    assert opened.identities() == {"writer": named_after(len), "eye": FAR}


# The cache


def test_replies_come_back_in_order_and_are_asked_once(gateway):
    writer = Writer()
    requests = [text("b"), text("a"), text("b", 1), text("b"), text("a")]
    send = gateway({"writer": writer}).open("writer").send
    assert send(requests) == ["b/0", "a/0", "b/1", "b/0", "a/0"]
    assert send(requests[::-1]) == ["a/0", "b/0", "b/1", "a/0", "b/0"]
    assert set(writer.asked.values()) == {1}


def test_a_later_gateway_of_the_same_run_asks_nothing_again(gateway):
    writer = Writer()
    requests = [text("a", draw) for draw in range(10)]
    first = gateway({"writer": writer}).open("writer").send(requests)
    again = gateway({"writer": writer})
    assert again.open("writer").send(requests) == first
    assert sum(writer.asked.values()) == 10
    assert again.counts()["writer"] == Counts(asked=10, from_cache=10, sent=0)


def test_another_run_draws_anew(gateway):
    writer = Writer()
    gateway({"writer": writer}).open("writer").send([text("a")])
    gateway({"writer": writer}, namespace="another").open("writer").send([text("a")])
    assert sum(writer.asked.values()) == 2


def test_another_model_or_setting_is_asked_anew(gateway):
    class Sized(ScriptedConfig):
        steps: int = 1

    writer = Writer()
    other = Scripted(writer, identity=ModelIdentity(provider="scripted", model="Writer", revision="2"))
    for config in (Sized(adapter=Scripted(writer)), Sized(adapter=other), Sized(adapter=Scripted(writer), steps=2)):
        gateway({"writer": config}).open("writer").send([text("a")])
    assert writer.asked[text("a")] == 3


@pytest.mark.parametrize(
    "reply",
    [
        "words \ud83d\ude00 \ud800 \x00",
        "",
        Refusal("no"),
        np.array([1.5, -0.0, np.nan, 1e-45], dtype=np.float32),
        Image(np.arange(36, dtype=np.uint8).reshape(3, 4, 3), "a recipe \u2713"),
        Image(np.random.default_rng(0).integers(0, 256, (300, 300, 1)).astype(np.uint8)),
        Image(np.random.default_rng(0).integers(0, 256, (200, 300, 3)).astype(np.uint8), "r"),
    ],
)
def test_a_reply_comes_back_from_the_cache_bit_for_bit(reply):
    again = decode(encode(reply))
    assert type(again) is type(reply)
    if isinstance(reply, Image):
        assert again.recipe == reply.recipe
        assert again.pixels.shape == reply.pixels.shape
        assert again.pixels.tobytes() == reply.pixels.tobytes()
    elif isinstance(reply, np.ndarray):
        assert again.dtype == np.float32
        assert again.tobytes() == reply.tobytes()
    else:
        assert again == reply


def test_a_refusal_is_an_answer_that_is_kept_and_counted(gateway):
    asked: list[object] = []

    def picky(request: TextRequest) -> object:
        asked.append(request)
        return Refusal("unsafe") if request.draw == 1 else "fine"

    opened = gateway({"writer": picky})
    requests = [text("a", draw) for draw in range(3)]
    assert (
        opened.open("writer").send(requests)
        == opened.open("writer").send(requests)
        == ["fine", Refusal("unsafe"), "fine"]
    )
    assert len(asked) == 3
    assert opened.counts()["writer"] == Counts(asked=6, from_cache=3, sent=3, refused=2)


def test_misses_are_asked_chunk_by_chunk_and_each_is_kept_before_the_next(gateway):
    money = False
    asked: list[list[int]] = []

    class Billed(Batches):
        def send(self, requests, /):
            asked.append([request.draw for request in requests])
            if not money and any(request.draw == 9 for request in requests):
                raise Stopped("no money")
            return super().send(requests)

    requests = [text("a", draw) for draw in range(12)]
    config = ScriptedConfig(adapter=Billed())
    with pytest.raises(Stopped, match="no money"):
        gateway({"writer": config}).open("writer").send(requests)
    money = True
    gateway({"writer": config}).open("writer").send(requests)
    assert asked == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [8, 9, 10, 11]]


def test_a_cheap_adapter_is_not_kept(gateway, tmp_path):
    class Cheap(ScriptedConfig):
        cheap: ClassVar[bool] = True

    writer = Writer()
    opened = gateway({"writer": Cheap(adapter=Scripted(writer))})
    assert opened.open("writer").send([text("a"), text("b")]) == ["a/0", "b/0"]
    opened.open("writer").send([text("a")])
    assert writer.asked[text("a")] == 2
    assert opened.counts()["writer"] == Counts(asked=3, sent=3)


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (text("a"), None),
        (text("a"), 3),
        (EmbedRequest(content="a"), np.ones(3)),
        (EmbedRequest(content="a"), np.ones((1, 3), dtype=np.float32)),
        (EmbedRequest(content="a"), [1.0]),
        (paint("a"), Image(np.zeros((4, 3, 3), dtype=np.uint8))),
        (paint("a"), "data:image/png"),
    ],
)
def test_a_reply_of_a_wrong_form_is_an_error_and_never_kept(gateway, request_, reply):
    with pytest.raises(AdapterError, match=r"'role' gave no usable reply: .* expected"):
        gateway({"role": lambda _: reply}).open("role").send([request_])
    with pytest.raises(AdapterError):
        gateway({"role": lambda _: reply}).open("role").send([request_])


def test_a_batch_of_another_length_is_an_error(gateway):
    class Short(Batches):
        def send(self, requests, /):
            return ["only one"]

    with pytest.raises(AdapterError, match="'writer' gave 1 replies to 2 requests"):
        gateway({"writer": ScriptedConfig(adapter=Short())}).open("writer").send([text("a"), text("b")])


def test_progress_tells_how_far_a_batch_is(gateway):
    seen: list[tuple[str, int, int]] = []
    opened = gateway({"writer": Writer()}, progress=lambda role, done, total: seen.append((role, done, total)))
    opened.open("writer").send([text("a", draw) for draw in range(3)])
    opened.open("writer").send([text("a", draw) for draw in range(10)])
    assert seen == [("writer", 3, 3), ("writer", 3, 10), ("writer", 7, 10), ("writer", 10, 10)]


# Remote adapters: one request at a time


def quick(answer) -> ScriptedConfig:
    return ScriptedConfig(adapter=ScriptedAsync(answer))


async def echo(request: TextRequest) -> str:
    await asyncio.sleep(0.001 * (request.draw % 3))
    return f"{request.draw}"


def test_an_async_adapter_answers_in_order_whatever_finishes_first(gateway):
    send = gateway({"writer": quick(echo)}).open("writer").send
    requests = [text("a", draw) for draw in [*range(30), 5, 5]]
    assert send(requests) == [f"{request.draw}" for request in requests]
    assert send([]) == []


def test_it_works_under_a_running_event_loop(gateway):
    send = gateway({"writer": quick(echo)}).open("writer").send

    async def notebook() -> list[str]:
        return list(send([text("a", 1), text("a", 2)]))

    assert asyncio.run(notebook()) == ["1", "2"]


def test_as_many_are_under_way_as_allowed_and_no_more(gateway):
    under_way, most = 0, 0

    async def slow(request: TextRequest) -> str:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.005)
        under_way -= 1
        return "words"

    gateway({"writer": quick(slow)}, concurrency=5).open("writer").send([text("a", draw) for draw in range(20)])
    assert most == 5


def test_no_more_answers_than_allowed_wait_to_be_kept(tmp_path):
    from privolve.cache.store import MemoryStore

    answered = 0
    unkept: list[int] = []

    class Slow(MemoryStore):
        kept = 0

        def put(self, answers, /):
            time.sleep(0.01)
            unkept.append(answered - self.kept)
            self.kept += len(answers)
            return super().put(answers)

    async def writer(request: TextRequest) -> str:
        nonlocal answered
        answered += 1
        return "words"

    options = {"store": Slow(), "private_dir": tmp_path, "key": b"k" * 32, "namespace": "run"}
    with Gateway({"writer": quick(writer)}, concurrency=4, **options) as opened:
        opened.open("writer").send([text("a", draw) for draw in range(40)])
    assert answered == 40
    assert max(unkept) <= 4


def test_what_finished_is_kept_before_the_error_is_raised(gateway):
    asked: Counter[int] = Counter()
    broken = True

    async def writer(request: TextRequest) -> str:
        asked[request.draw] += 1
        await asyncio.sleep(0)
        if broken and request.draw == 3:
            raise Stopped("no money")
        await asyncio.sleep(0.02)  # Under way when the other fails.
        return f"{request.draw}"

    requests = [text("a", draw) for draw in range(20)]
    with pytest.raises(Stopped, match="no money"):
        gateway({"writer": quick(writer)}, concurrency=6).open("writer").send(requests)
    assert sorted(asked) == list(range(6))
    broken = False
    assert gateway({"writer": quick(writer)}).open("writer").send(requests) == [f"{draw}" for draw in range(20)]
    assert {draw for draw, times in asked.items() if times > 1} == {3}


def test_an_async_adapter_is_asked_again_after_a_transient_failure(gateway):
    failures = {1: 2, 7: 1}

    async def flaky(request: TextRequest) -> str:
        if failures.get(request.draw, 0):
            failures[request.draw] -= 1
            raise Transient("busy", wait_s=0.0)
        return f"{request.draw}"

    send = gateway({"writer": quick(flaky)}).open("writer").send
    assert send([text("a", draw) for draw in range(10)]) == [f"{draw}" for draw in range(10)]


def test_two_threads_may_ask_one_gateway(gateway):
    opened = gateway({"writer": quick(echo), "eye": Writer()})
    replies: dict[int, list[str]] = {}

    def work(own: int) -> None:
        requests = [text("a", draw) for draw in range(own, own + 20)]
        replies[own] = [*opened.open("writer").send(requests), *opened.open("eye").send(requests)]

    threads = [threading.Thread(target=work, args=(own,)) for own in (0, 10, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for own, got in replies.items():
        draws = range(own, own + 20)
        assert got == [*(f"{draw}" for draw in draws), *(f"a/{draw}" for draw in draws)]


def test_closing_ends_the_event_loop_and_the_connections(tmp_path):
    from privolve.cache.store import MemoryStore

    closed: list[str] = []

    class Connected(ScriptedAsync):
        async def close(self) -> None:
            closed.append(threading.current_thread().name)

    config = ScriptedConfig(adapter=Connected(echo))
    options = {"store": MemoryStore(), "private_dir": tmp_path, "key": b"k" * 32, "namespace": "run"}
    with Gateway({"writer": config}, **options) as opened:
        opened.open("writer").send([text("a")])
    assert closed == ["privolve-gateway"]
    deadline = time.monotonic() + 5
    while any(thread.name == "privolve-gateway" for thread in threading.enumerate()):
        assert time.monotonic() < deadline


def test_patience_is_the_callers(gateway):
    def busy(_: object) -> str:
        raise Transient("busy", wait_s=1.0)

    started = time.monotonic()
    with pytest.raises(Transient, match="busy"):
        gateway({"writer": busy}, patience=Patience(deadline_s=0.5)).open("writer").send([text("a")])
    assert time.monotonic() - started < 0.5
