"""What is paid for private records, what is written of it, and what stops for want of it: functions of public values alone."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import numpy as np
import pytest

from privolve.adapters.contract import Answered, Cause, Location, ModelIdentity, Refusal, Rejected, Transient, Usage
from privolve.adapters.models import Facts, Price
from privolve.adapters.scripted import ScriptedConfig
from privolve.adapters.wrappers.metered import PRIVATE_TRIES, Spending
from privolve.adapters.wrappers.retrying import Patience
from privolve.data.private_set import Record
from privolve.privacy.private import OperationalError, open_private

QUICK = Patience(first_wait_s=0.0, deadline_s=5.0)
LONGEST = 50
COUNT = 10
STAGE = COUNT * PRIVATE_TRIES * LONGEST
PROBE = len("blank")


class Reader:
    """Embeds texts at a millionth of a dollar a byte; what a text begins with is what goes wrong with it."""

    location = Location.REMOTE
    identity = ModelIdentity(provider="paid", model="reader")

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.blanks_fail = False

    def estimate(self, request: Any, /) -> Usage:
        return Usage(input_tokens=len(request.content.encode()))

    async def answer(self, request: Any, /) -> Any:
        return (await self.answer_metered(request)).reply

    async def answer_metered(self, request: Any, /) -> Answered[Any]:
        await asyncio.sleep(0)
        text: str = request.content
        self.asked.append(text)
        usage = self.estimate(request)
        if text.startswith("rejected") or (text == "blank" and self.blanks_fail):
            raise Rejected("400 CANARY")
        if text.startswith("malformed"):
            raise Transient("empty CANARY", cause=Cause.MALFORMED, possibly_billed=True, usage=usage, tries=2)
        if text.startswith("lost") and self.asked.count(text) < 2:
            raise Transient("dropped CANARY", cause=Cause.TIMEOUT, possibly_billed=True)
        if text.startswith("always lost"):
            raise Transient("dropped CANARY", cause=Cause.TIMEOUT, possibly_billed=True)
        if text.startswith("limited") and self.asked.count(text) < 9:
            raise Transient("429 CANARY", cause=Cause.RATE, wait_s=0.0)
        if text.startswith("refused"):
            return Answered(Refusal("CANARY"), usage)
        if text.startswith("nan"):
            return Answered(np.full(3, np.nan, dtype=np.float32), usage)
        if text.startswith("bug"):
            raise RuntimeError("CANARY")
        return Answered(np.full(3, len(text), dtype=np.float32), usage)

    async def close(self) -> None:
        pass


class ReaderConfig(ScriptedConfig):
    location = Location.REMOTE

    @property
    def facts(self) -> Facts:
        return Facts(provider="paid", model="reader", price=Price(input=1, output=1))


PLAIN = ["a"] * COUNT
STRANGE = {
    "long": ["a" * LONGEST] * COUNT,
    "ghosts": [None] * COUNT,
    "too long": ["a" * (LONGEST + 1)] * COUNT,
    **{
        name: [*PLAIN[:3], name, *PLAIN[4:]]
        for name in ("rejected", "malformed", "lost", "limited", "refused", "nan", "bug")
    },
    "all rejected": ["rejected"] * COUNT,
}


@pytest.fixture
def embed(gateway, texts):
    def embedded(contents: list[str | None], name: str, reader: Reader | None = None, **options: Any) -> Any:
        seen: list[Any] = []
        one = gateway(
            {"eye": ReaderConfig(adapter=reader or Reader())},
            trust=["eye"],
            namespace=name,
            patience=QUICK,
            private_dir=options.pop("private_dir"),
            progress=lambda *line: seen.append((*line, one.money())),
            **options,
        )
        records = texts([None if text is None else Record(text, 0) for text in contents], text_bytes=LONGEST)
        voters = open_private(one.open_trusted("eye").embed(records))
        return voters, seen, one.money(), one.spent(), one.counts()

    return embedded


def written(tmp_path, scope: str) -> list[Any]:
    with sqlite3.connect(tmp_path / "shared" / "cache.sqlite") as connection:
        columns = "key, draw, role, state, reserved, charged, model, price_version, usage, request_id"
        return connection.execute(f"select {columns} from attempts where scope = ? order by id", (scope,)).fetchall()


@pytest.mark.parametrize("cap", [None, STAGE])
@pytest.mark.parametrize("name", STRANGE)
def test_no_row_no_figure_and_no_refusal_depends_on_a_record(embed, tmp_path, name, cap):
    spending = Spending(max_cost=cap)
    embed(["a"], "warm", private_dir=tmp_path / "warm")  # The public blank is cached from here on.
    plain = embed(PLAIN, "plain", private_dir=tmp_path / "plain", spending=spending)
    strange = embed(STRANGE[name], "strange", private_dir=tmp_path / "strange", spending=spending)
    assert strange[1:] == plain[1:]
    rows = written(tmp_path, "strange")
    assert rows == written(tmp_path, "plain")
    assert [row[5] for row in rows] == [slots * PRIVATE_TRIES * LONGEST for slots in (4, 4, 2)]
    assert plain[2].spent == STAGE
    assert plain[0].valid.all()


def test_a_record_is_never_worth_more_tries_than_were_paid(embed, tmp_path):
    reader = Reader()
    embed(["malformed"], "run", reader, private_dir=tmp_path / "one")
    assert reader.asked == ["blank", "malformed", "malformed", "blank"]
    lost = Reader()
    with pytest.raises(OperationalError, match="'eye' gave no answer before its deadline"):
        embed(["always lost"], "lost", lost, private_dir=tmp_path / "two")
    assert lost.asked == ["always lost"] * 2


@pytest.mark.parametrize("cap", [STAGE - 1, 4 * PRIVATE_TRIES * LONGEST - 1])
def test_a_budget_that_is_too_small_says_the_same_whatever_the_records_are(embed, tmp_path, cap):
    embed(["a"], "warm", private_dir=tmp_path / "warm")
    told = []
    for name, contents in (("plain", PLAIN), *STRANGE.items()):
        with pytest.raises(OperationalError, match=r"the budget of .* is used up.*private slots") as stopped:
            embed(contents, name, private_dir=tmp_path / name, spending=Spending(max_cost=cap))
        told.append((str(stopped.value), written(tmp_path, name)))
    assert all(each == told[0] for each in told)


def test_what_was_answered_is_not_paid_again_and_a_chunk_that_broke_off_is(embed, tmp_path):
    folder = tmp_path / "private"
    broken = [*PLAIN[:5], "always lost", *PLAIN[6:]]
    with pytest.raises(OperationalError):
        embed(broken, "run", private_dir=folder)
    assert [row[5] for row in written(tmp_path, "run")[1:]] == [4 * PRIVATE_TRIES * LONGEST] * 2
    reader = Reader()
    reader.asked = ["always lost"]
    reader.answer_metered = _answered  # type: ignore[method-assign]
    embed(broken, "run", reader, private_dir=folder)
    paid = [slots * PRIVATE_TRIES * LONGEST for slots in (4, 4, 4, 2)]
    assert [row[5] for row in written(tmp_path, "run")[1:]] == paid
    embed(broken, "run", reader, private_dir=folder)
    assert [row[5] for row in written(tmp_path, "run")[1:]] == paid


async def _answered(request: Any) -> Answered[Any]:
    return Answered(np.ones(3, dtype=np.float32), Usage(input_tokens=1))


# Whose fault it is


@pytest.mark.parametrize("odd", ["rejected", "malformed", "refused", "nan", "bug", "a" * (LONGEST + 1)])
def test_what_the_server_cannot_handle_is_a_ghost_in_its_slot(embed, tmp_path, odd):
    voters = embed([*PLAIN[:3], odd, *PLAIN[4:]], "run", private_dir=tmp_path / "private")[0]
    assert voters.valid.tolist() == [slot != 3 for slot in range(COUNT)]
    assert voters.labels[3] == -1


@pytest.mark.parametrize("odd", ["rejected", "malformed"])
def test_a_server_that_cannot_handle_a_blank_either_stops_the_stage(embed, tmp_path, odd):
    embed(["a"], "warm", private_dir=tmp_path / "warm")
    reader = Reader()
    reader.blanks_fail = True
    with pytest.raises(OperationalError, match="'eye' fails on a blank; nothing was charged") as stopped:
        embed([odd], "run", reader, private_dir=tmp_path / "private")
    assert "CANARY" not in str(stopped.value)


def test_a_captioner_that_fails_on_a_blank_says_so_before_it_sees_a_record(gateway, images):
    asked: list[Any] = []

    class Captioner(Reader):
        def estimate(self, request: Any, /) -> Usage:
            return Usage(input_tokens=1)

        async def answer_metered(self, request: Any, /) -> Answered[Any]:
            asked.append(request.image.pixels.any())
            raise Rejected("no images here")

    one = gateway({"captioner": ReaderConfig(adapter=Captioner())}, trust=["captioner"])
    with pytest.raises(Rejected, match="no images here"):
        one.open_trusted("captioner").caption(images(3), prompt="what")
    assert asked == [False]
