"""What a cache says it holds, what may go, and what may be shared."""

from __future__ import annotations

import os
import sqlite3
import time

import pytest

from privolve.cache import upkeep
from privolve.cache.keys import Address
from privolve.cache.money import Charge, Money
from privolve.cache.sqlite import SqliteStore
from privolve.cache.store import Saved, StoreDamaged, StoreError

LARGE = os.urandom(200_000)


def place(name: str, namespace: str = "run", draw: int = 0) -> Address:
    return Address(key=f"k1:{name}", namespace=namespace, draw=draw, canonical=f'"{name}"')


def saved(payload: bytes = b"words", kind: str = "text") -> Saved:
    return Saved(kind=kind, payload=payload)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "cache" / "answers.db"
    store = SqliteStore(path)
    store.put(
        [(place("a"), saved()), (place("b"), saved(b"no", "refusal")), (place("a", "other"), saved(LARGE, "png"))]
    )
    money = Money(store, scope="run", cap=100)
    attempt = money.reserve("writer", 40, place=place("c")).result().attempt
    money.settle(attempt, Charge(micro=30, request_id="req-secret"), [(place("c"), saved(b"c"))]).result()
    store.close()
    return path


def test_statistics_tell_answers_refusals_and_money(path):
    store = SqliteStore(path)
    kept = {each.namespace: (each.answers, each.refusals) for each in upkeep.kept(store)}
    assert kept == {"run": (3, 1), "other": (1, 0)}
    assert [(each.scope, each.role, each.settled, each.micro) for each in upkeep.spent(store)] == [
        ("run", "writer", 1, 30)
    ]
    store.close()
    assert upkeep.sizes(path)[1] == len(LARGE)


def test_pruning_a_run_removes_its_answers_and_files_and_keeps_what_was_spent(path):
    blob = next((path.parent / "blobs").glob("??/*"))
    os.utime(blob, (0, 0))
    answers, size = upkeep.prune(path, namespace="other")
    assert (answers, blob.exists()) == (1, False)
    assert size >= len(LARGE)
    store = SqliteStore(path)
    assert [one is not None for one in store.get([place("a"), place("b"), place("a", "other")])] == [True, True, False]
    assert upkeep.spent(store)[0].micro == 30
    store.close()


def test_pruning_by_age_spares_what_is_newer(path):
    assert upkeep.prune(path, before_ms=int((time.time() - 60) * 1000))[0] == 0
    assert upkeep.prune(path, before_ms=int((time.time() + 60) * 1000))[0] == 4


def test_pruning_waits_until_nobody_works(path):
    store = SqliteStore(path)
    Money(store, scope="run").reserve("writer", 1, place=place("d")).result()
    with pytest.raises(StoreError, match="is in use"):
        upkeep.prune(path, namespace="run")
    store.close()


def test_a_public_copy_is_one_file_with_every_answer_and_no_account(path, tmp_path):
    target = tmp_path / "shared" / "answers.db"
    target.parent.mkdir()
    assert upkeep.export(path, target, public=True) == 4
    store = SqliteStore(target)
    replies = store.get([place("a"), place("b"), place("c"), place("a", "other")])
    assert [reply.payload for reply in replies if reply] == [b"words", b"no", b"c", LARGE]
    assert upkeep.spent(store) == []
    store.close()
    assert b"req-secret" not in target.read_bytes()
    assert sorted(each.name for each in target.parent.iterdir() if each.suffix == ".db") == ["answers.db"]
    assert not (target.parent / "blobs").exists()


def test_a_copy_of_ones_own_keeps_the_accounts_and_one_of_a_run_leaves_others_out(path, tmp_path):
    assert upkeep.export(path, tmp_path / "whole.db", public=False) == 4
    with sqlite3.connect(tmp_path / "whole.db") as copy:
        assert copy.execute("select request_id from attempts").fetchall() == [("req-secret",)]
    assert upkeep.export(path, tmp_path / "one.db", public=True, namespace="other") == 1
    with sqlite3.connect(tmp_path / "one.db") as copy:
        assert copy.execute("select key from requests").fetchall() == [("k1:a",)]


def test_a_copy_overwrites_nothing_and_notices_damage(path, tmp_path):
    (tmp_path / "there").write_text("mine")
    with pytest.raises(StoreError, match="exists"):
        upkeep.export(path, tmp_path / "there", public=True)
    next((path.parent / "blobs").glob("??/*")).write_bytes(b"other")
    with pytest.raises(StoreDamaged):
        upkeep.export(path, tmp_path / "new.db", public=True)
    assert [each.name for each in tmp_path.iterdir() if "new" in each.name] == []


def test_a_cache_of_the_first_schema_is_brought_up_to_date(tmp_path):
    path = tmp_path / "answers.db"
    store = SqliteStore(path)
    store.put([(place("a"), saved())])
    store.close()
    with sqlite3.connect(path) as old:
        for table in ("attempts", "budgets", "models"):
            old.execute(f"drop table {table}")
        old.execute("delete from _sqlite_migrations where name = 'second'")
        old.execute("pragma user_version = 1")
    store = SqliteStore(path)
    assert store.get([place("a")])[0].payload == b"words"
    assert Money(store, scope="run").totals().spent == 0
    store.close()


def asked(name: str, *, model: str = "m-1", kind: str = "TextRequest") -> Address:
    canonical = f'{{"identity":{{"model":"{model}"}},"request":{{"$type":"{kind}"}}}}'
    return Address(key=f"k1:{name}", namespace="run", draw=0, canonical=canonical)


def took(store: SqliteStore, place: Address, *, given: int, most: int, output: int, reported: bool = True) -> None:
    money = Money(store, scope="run")
    attempt = money.reserve("writer", 1, place=place).result().attempt
    usage = {"input_tokens": given, "most_input_tokens": most, "output_tokens": output, "reported": reported}
    money.settle(attempt, Charge(micro=1, usage=usage), [(place, saved())]).result()


def test_a_models_habit_is_a_moving_average_of_what_its_calls_took(tmp_path) -> None:
    """Half of the input, then all of it, which weighs as 1 to 0.98; what was refused or not reported counts not."""
    store = SqliteStore(tmp_path / "answers.db")
    assert upkeep.habit(store, model="m-1", request="TextRequest") is None
    took(store, asked("old"), given=50, most=100, output=10)
    took(store, asked("new"), given=300, most=300, output=20)
    took(store, asked("model", model="m-2"), given=1, most=100, output=900)
    took(store, asked("kind", kind="CaptionRequest"), given=1, most=100, output=900)
    took(store, asked("refused"), given=0, most=100, output=0)
    took(store, asked("silent"), given=100, most=100, output=900, reported=False)
    habit = upkeep.habit(store, model="m-1", request="TextRequest")
    assert habit is not None and habit.calls == 2
    assert habit.share_of_input == pytest.approx((1 + 0.98 * 0.5) / 1.98)
    assert habit.output_tokens == pytest.approx((20 + 0.98 * 10) / 1.98)
    store.close()
