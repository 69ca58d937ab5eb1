"""What a run reads of the cache and what it writes."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import numpy as np
import pytest

from privolve.adapters.contract import (
    AdapterUnavailable,
    EmbedRequest,
    Location,
    Message,
    ModelIdentity,
    TextRequest,
)
from privolve.adapters.scripted import Scripted, ScriptedAsync, ScriptedConfig
from privolve.adapters.wrappers.replayed import ReplayMiss
from privolve.cache.modes import Mode
from privolve.privacy.private import OperationalError


class Writer:
    """A model that never says the same twice."""

    def __init__(self) -> None:
        self.asked: Counter[int] = Counter()

    async def later(self, request: TextRequest) -> str:
        return self(request)

    def __call__(self, request: TextRequest) -> str:
        self.asked[request.draw] += 1
        return f"{request.messages[0].content}/{request.draw}/{self.asked.total()}"


IDENTITY = ModelIdentity(provider="scripted", model="writer")


class WriterConfig(ScriptedConfig):
    kind: str = "scripted-writer"
    temperature: float = 1.0


class RemoteConfig(WriterConfig):
    location: ClassVar[Location] = Location.REMOTE


class CheapConfig(WriterConfig):
    cheap: ClassVar[bool] = True


CheapConfig.__module__ = "privolve.adapters.embedded.cheap"  # Ours, so that LOCAL is believed.


class NoKey(WriterConfig):
    def open(self):
        raise AdapterUnavailable("there is no key")


def text(draw: int, words: str = "a") -> TextRequest:
    return TextRequest(messages=(Message(role="user", content=words),), draw=draw)


@pytest.fixture(params=["batch", "async"])
def face(request):
    def config(writer: Writer, kind: type[WriterConfig] = WriterConfig, **settings) -> WriterConfig:
        if request.param == "batch":
            return kind(adapter=Scripted(writer, identity=IDENTITY), **settings)
        return kind(adapter=ScriptedAsync(writer.later, location=Location.LOCAL, identity=IDENTITY), **settings)

    return config


REQUESTS = [text(draw) for draw in range(9)]


def test_a_replay_asks_nothing_and_says_the_same_at_any_concurrency(gateway, face):
    said = gateway({"writer": face(Writer())}).open("writer").send(REQUESTS)
    silent = Writer()
    for concurrency in (1, 3, 64):
        for requests in (REQUESTS, REQUESTS[::-1]):
            replayed = gateway({"writer": face(silent)}, mode=Mode.REPLAY, concurrency=concurrency)
            replies = replayed.open("writer").send(requests)
            assert replies == (said if requests is REQUESTS else said[::-1])
    assert not silent.asked


def test_a_replay_opens_no_adapter_so_it_needs_no_key(gateway, face):
    said = gateway({"writer": face(Writer())}).open("writer").send(REQUESTS)
    replayed = gateway({"writer": face(Writer(), NoKey)}, mode=Mode.REPLAY)
    assert replayed.open("writer").send(REQUESTS) == said
    assert replayed.identities() == {"writer": IDENTITY}


def test_a_replay_miss_names_what_differs_from_the_nearest_question(gateway, face):
    gateway({"writer": face(Writer())}).open("writer").send([text(0, "a red house"), text(0, "a blue house")])
    replay = {"mode": Mode.REPLAY}
    other = gateway({"writer": face(Writer())}, **replay).open("writer")
    with pytest.raises(
        ReplayMiss, match=r'"a green house", and "a (red|blue) house" in the nearest kept question'
    ) as miss:
        other.send([text(0, "a green house"), text(1, "a green house")])
    assert "request.messages[0].content" in str(miss.value)
    assert "'writer'" in str(miss.value)
    assert "(and 1 more)" in str(miss.value)
    warmer = gateway({"writer": face(Writer(), temperature=0.5)}, **replay).open("writer")
    with pytest.raises(ReplayMiss, match=r"settings.temperature is 0.5, and 1 in"):
        warmer.send([text(0, "a red house")])
    with pytest.raises(ReplayMiss, match="the question is kept, but not draw 7"):
        other.send([text(7, "a red house")])
    with pytest.raises(ReplayMiss, match=r"kept for run, and this is 'another': name it with --reuse"):
        gateway({"writer": face(Writer())}, namespace="another", **replay).open("writer").send([text(0, "a red house")])


def test_a_replay_of_nothing_says_so(gateway, face):
    with pytest.raises(ReplayMiss, match="the cache is empty"):
        gateway({"writer": face(Writer())}, mode=Mode.REPLAY).open("writer").send(REQUESTS)


def test_refresh_asks_anew_once_and_replaces_what_was_kept(gateway, face):
    gateway({"writer": face(Writer())}).open("writer").send(REQUESTS)
    writer = Writer()
    writer.asked[100] = 100
    renewed = gateway({"writer": face(writer)}, mode=Mode.REFRESH).open("writer")
    said = renewed.send(REQUESTS)
    assert renewed.send(REQUESTS) == said
    assert writer.asked.total() == 100 + len(REQUESTS)
    assert all(int(reply.split("/")[2]) > 100 for reply in said)
    assert gateway({"writer": face(Writer())}).open("writer").send(REQUESTS) == said


def test_off_reads_and_keeps_nothing_and_still_asks_once(gateway, face):
    gateway({"writer": face(Writer())}).open("writer").send(REQUESTS[:3])
    writer = Writer()
    off = gateway({"writer": face(writer)}, mode=Mode.OFF).open("writer")
    said = off.send(REQUESTS)
    assert off.send(REQUESTS) == said
    assert writer.asked == Counter(range(9))
    with pytest.raises(ReplayMiss):
        gateway({"writer": face(Writer())}, mode=Mode.REPLAY).open("writer").send(REQUESTS)


def test_record_keeps_what_is_cheap_so_that_the_file_replays_by_itself(gateway):
    def cheap(writer: Writer) -> CheapConfig:
        return CheapConfig(adapter=Scripted(writer, identity=IDENTITY))

    said = gateway({"writer": cheap(Writer())}, mode=Mode.RECORD).open("writer").send(REQUESTS)
    silent = Writer()
    replayed = gateway({"writer": cheap(silent)}, mode=Mode.REPLAY).open("writer")
    assert replayed.send(REQUESTS) == said
    assert not silent.asked
    # What was not recorded costs less to compute than to explain.
    assert replayed.send([text(50)]) == ["a/50/1"]


def test_a_replay_may_show_private_records_to_a_local_model_alone(gateway, images):
    def eye(request: EmbedRequest) -> np.ndarray:
        return np.ones(3, dtype=np.float32)

    adapter = Scripted(eye, identity=IDENTITY)
    local = gateway({"eye": ScriptedConfig(adapter=adapter)}, trust=["eye"])
    local.open_trusted("eye").embed(images(1))
    again = gateway({"eye": ScriptedConfig(adapter=adapter)}, mode=Mode.REPLAY, trust=["eye"])
    again.open_trusted("eye").embed(images(5))
    gateway({"eye": RemoteConfig(adapter=adapter)}, trust=["eye"]).open_trusted("eye").embed(images(1))
    remote = gateway({"eye": RemoteConfig(adapter=adapter)}, mode=Mode.REPLAY, trust=["eye"])
    with pytest.raises(OperationalError, match="replay: 'eye' would have to be asked"):
        remote.open_trusted("eye").embed(images(6))
