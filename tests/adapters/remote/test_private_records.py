"""Private records at a server: what it makes of one alone is a ghost, what it makes of all stops the stage."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.wrappers import Request, Response

from privolve.adapters.gateway import Gateway
from privolve.adapters.wrappers.retrying import Patience
from privolve.cache.store import MemoryStore
from privolve.data.private_set import PrivateSet, Record
from privolve.data.voters import Voters
from privolve.privacy.private import OperationalError, Private, open_private

TEXTS = ["one", "two", "odd CANARY", "four", "five"]
ODD = 2


class Texts:
    ids = tuple(f"row/{row}" for row in range(len(TEXTS)))

    def __len__(self) -> int:
        return len(TEXTS)

    def read(self, slot: int) -> Record:
        return Record(TEXTS[slot], 0)

    def read_many(self, start: int, stop: int) -> list[Record]:
        return [self.read(slot) for slot in range(start, stop)]

    def raw(self, slot: int) -> bytes:
        return TEXTS[slot].encode()

    def parts(self):
        yield from map(self.raw, range(len(TEXTS)))


def embedding(*numbers: float) -> Response:
    reply = {"model": "m", "data": [{"index": 0, "embedding": list(numbers)}], "usage": {"prompt_tokens": 3}}
    return Response(json.dumps(reply), content_type="application/json")


def failure(status: int, code: str = "") -> Response:
    error = {"error": {"code": code, "message": "odd CANARY cannot be handled"}}
    return Response(json.dumps(error), status=status, content_type="application/json")


@pytest.fixture
def embed(openai, httpserver, tmp_path) -> Callable[..., Voters]:
    """The voters of a server that has its own reply to the odd text, with the blank's reply in the cache before."""
    store = MemoryStore()

    def embedded(reply: Callable[[], Response], *, also_blank: bool = False) -> Voters:
        failing = False

        def handle(request: Request) -> Response:
            asked: str = (request.get_json() or {})["input"]
            return (
                reply() if failing and (asked == TEXTS[ODD] or (also_blank and asked == "blank")) else embedding(1, 2)
            )

        httpserver.expect_request("/x/embeddings").respond_with_handler(handle)
        config = openai("text-embedding-3-small", base_url=httpserver.url_for("/x"))
        private = PrivateSet(
            name="notes",
            partition="train",
            records=Private(Texts()),
            count=len(TEXTS),
            classes=("a",),
            size=None,
            channels=0,
            text_bytes=100,
            declaration="",
        )
        for warm in (True, False):
            failing = not warm
            options: dict[str, Any] = {"store": store, "private_dir": tmp_path / str(warm), "key": b"k" * 32}
            with Gateway(
                {"eye": config},
                trust=["eye"],
                namespace="run",
                concurrency=1,
                patience=Patience(first_wait_s=0.0, deadline_s=2.0),
                **options,
            ) as gateway:
                voters = open_private(gateway.open_trusted("eye").embed(private))
        return voters

    return embedded


ALONE = {
    "400": lambda: failure(400, "invalid_value"),
    "422": lambda: failure(422),
    "too long": lambda: failure(400, "context_length_exceeded"),
    "refused": lambda: failure(400, "content_policy_violation"),
    "no data": lambda: Response(json.dumps({"data": []}), content_type="application/json"),
    "not a number": lambda: embedding(1.0, float("nan")),
    "no numbers": lambda: embedding(),
    "another width": lambda: embedding(1, 2, 3),
    "html": lambda: Response("<html>", content_type="text/html"),
}


@pytest.mark.parametrize("reply", ALONE.values(), ids=ALONE)
def test_a_record_that_the_server_cannot_handle_is_a_ghost(embed, reply):
    voters = embed(reply)
    assert voters.valid.tolist() == [slot != ODD for slot in range(len(TEXTS))]
    assert voters.embeddings[0].tolist() == [1, 2]


@pytest.mark.parametrize("which", ["400", "422", "no data", "not a number", "html"])
def test_a_server_that_cannot_handle_blanks_either_stops_the_stage(embed, which):
    with pytest.raises(OperationalError, match=r"^'eye' fails on a blank; nothing was charged$"):
        embed(ALONE[which], also_blank=True)


@pytest.mark.parametrize("status", [429, 500, 503, 401, 402, 404])
def test_a_failure_of_the_operation_stops_the_stage_with_words_that_no_record_chose(embed, status):
    with pytest.raises(OperationalError, match=r"^'eye' (gave no answer before|stopped: its key)") as stopped:
        embed(lambda: failure(status))
    assert "CANARY" not in str(stopped.value)


def test_the_width_is_that_of_the_public_blank_and_not_of_the_first_record(embed, monkeypatch):
    monkeypatch.setitem(globals(), "ODD", 0)
    voters = embed(lambda: embedding(1, 2, 3))
    assert voters.valid.tolist() == [False, True, True, True, True]
