"""Upkeep: what a cache holds, what may go, and a copy to share."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ..privacy import durable
from . import schema
from .sqlite import APPLICATION_ID, SqliteStore
from .store import StoreDamaged, StoreError, Transaction


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The answers of one namespace; "" holds what every run shares: embeddings."""

    namespace: str
    answers: int
    refusals: int
    newest_ms: int


@dataclass(frozen=True, kw_only=True)
class Spent:
    """The attempts of one role in one run. Private slots have no attempts: they are paid for in advance, by the chunk."""

    scope: str
    role: str
    settled: int
    answered: int
    """Of the settled ones: those whose answer is kept."""
    slots: int
    lost: int
    micro: int


@dataclass(frozen=True, kw_only=True)
class Habit:
    """What a model's calls of one kind took of late, as its provider reported: moving averages, to which the newest call adds most."""

    calls: int
    share_of_input: float
    """Of the input tokens that had been counted, which are the most that there can be."""
    output_tokens: float


def kept(store: SqliteStore) -> Sequence[Kept]:
    def read(open_: Transaction) -> Sequence[Kept]:
        rows = open_.connection.execute(
            "select namespace, count(*), sum(kind = 'refusal'), max(saved_ms) from samples group by namespace order by 4 desc"
        )
        return [Kept(namespace=a, answers=b, refusals=c, newest_ms=d) for a, b, c, d in rows]

    return store.submit(read).result()[0]


def spent(store: SqliteStore) -> Sequence[Spent]:
    def read(open_: Transaction) -> Sequence[Spent]:
        rows = open_.connection.execute(
            "select scope, role, sum(state = 'settled' and key is not null), "
            "sum(state = 'settled' and exists (select 1 from requests join samples on samples.request = requests.id "
            "where requests.key = attempts.key and samples.namespace = attempts.namespace and samples.draw = attempts.draw)), "
            "sum(case when key is null then coalesce(json_extract(usage, '$.slots'), 0) else 0 end), "
            "sum(state = 'lost'), sum(coalesce(charged, 0)) from attempts group by scope, role order by scope, role"
        )
        return [Spent(scope=a, role=b, settled=c, answered=d, slots=e, lost=f, micro=g) for a, b, c, d, e, f, g in rows]

    return store.submit(read).result()[0]


def habit(store: SqliteStore, *, model: str, request: str) -> Habit | None:
    """Of public requests of the type `request` to `model`, by whichever run; None: it has answered none."""

    def read(open_: Transaction) -> Sequence[tuple[float, float]]:
        return open_.connection.execute(
            "select json_extract(usage, '$.input_tokens') * 1.0 / json_extract(usage, '$.most_input_tokens'), "
            "json_extract(usage, '$.output_tokens') from attempts join requests on requests.key = attempts.key "
            "where state = 'settled' and json_extract(usage, '$.reported') and json_extract(usage, '$.most_input_tokens') > 0 "
            "and json_extract(usage, '$.input_tokens') > 0 "  # What was refused took nothing, and is asked again.
            "and json_extract(canonical, '$.identity.model') = ? and json_extract(canonical, '$.request.\"$type\"') = ? "
            "order by attempts.id desc limit ?",
            (model, request, _REMEMBERED),
        ).fetchall()

    calls = store.submit(read).result()[0]
    if not calls:
        return None
    weights = [_FADING**age for age in range(len(calls))]
    share, output = (sum(w * each[part] for w, each in zip(weights, calls, strict=True)) for part in (0, 1))
    return Habit(calls=len(calls), share_of_input=share / sum(weights), output_tokens=output / sum(weights))


_FADING = 0.98
"""How much less a call weighs than the one after it."""
_REMEMBERED = 400
"""Calls; older ones would weigh less than a thousandth of the newest."""


def sizes(path: Path) -> tuple[int, int]:
    """Bytes of the database, and of the files beside it."""
    return path.stat().st_size, sum(
        file.stat().st_size for file in (path.parent / "blobs").rglob("*") if file.is_file()
    )


def prune(path: Path, *, namespace: str | None = None, before_ms: int | None = None) -> tuple[int, int]:
    """Remove answers by namespace or by age, then files that nothing names. How many answers, how many bytes.

    Not while another process uses the cache: a file that it has written and not yet named would go. What was spent stays.
    """
    with closing(SqliteStore(path)) as store:

        def remove(open_: Transaction) -> int:
            execute = open_.connection.execute
            others = execute("select distinct owner from attempts where state in ('reserved', 'sent')").fetchall()
            if any(store.is_alive(owner) for (owner,) in others):
                raise StoreError(f"{path} is in use; prune when no run is under way")
            removed = 0
            if namespace is not None:
                removed = execute("delete from samples where namespace = ?", (namespace,)).rowcount
            elif before_ms is not None:
                removed = execute("delete from samples where saved_ms <= ?", (before_ms,)).rowcount
            execute("delete from requests where id not in (select request from samples)")
            return removed

        def named(open_: Transaction) -> set[str]:
            return {
                digest.hex()
                for (digest,) in open_.connection.execute("select sha256 from samples where payload is null")
            }

        removed = store.submit(remove).result()[0]
        before = sum(sizes(path))
        wanted = store.submit(named).result()[0]
        for file in (path.parent / "blobs").glob("??/*"):
            if file.name not in wanted and time.time() - file.stat().st_mtime > _GRACE_S:
                file.unlink()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("vacuum")
    return removed, before - sum(sizes(path))


_GRACE_S = 60.0


def export(path: Path, target: Path, *, public: bool, namespace: str | None = None) -> int:
    """Copy answers into one new file, which can be used as a cache: how many.

    Large answers come inside; with a namespace's own come those that every run shares. `public`: no attempts and budgets, so no costs, request ids, owners and times.
    """
    if target.exists():
        raise StoreError(f"{target} exists; name a new file")
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    SqliteStore(path).close()  # Refuses what is no cache, and brings an older one up to date.
    if not public:
        temporary.touch(mode=0o600)
    try:
        with closing(sqlite3.connect(temporary, isolation_level=None)) as copy:
            schema.migrate(copy)
            copy.execute(f"pragma application_id = {APPLICATION_ID}")
            copy.execute(f"pragma user_version = {schema.VERSION}")
            copy.execute("attach database ? as cache", (str(path),))
            copy.execute("begin")
            copy.execute(
                "insert into samples select * from cache.samples where ?1 is null or namespace in (?1, '')",
                (namespace,),
            )
            copy.execute("insert into requests select * from cache.requests where id in (select request from samples)")
            copy.execute("insert into models select * from cache.models")
            if public:
                copy.execute("update samples set saved_ms = 0")
            else:
                copy.execute("insert into attempts select * from cache.attempts")
                copy.execute("insert into budgets select * from cache.budgets")
            if namespace is not None:
                there = copy.execute("select count(*) from samples where namespace = ?", (namespace,)).fetchone()[0]
                if not there:
                    raise StoreError(
                        f"{path} holds no answers of {namespace!r}; see `privolve cache stats` for its names"
                    )
            _take_in(copy, path.parent / "blobs")
            count = copy.execute("select count(*) from samples").fetchone()[0]
            copy.execute("commit")
            copy.execute("detach database cache")
            copy.execute("vacuum")
        temporary.replace(target)
        durable.sync_folder(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return count


def _take_in(copy: sqlite3.Connection, blobs: Path) -> None:
    outside = copy.execute("select rowid, sha256 from samples where payload is null").fetchall()
    for row, digest in outside:
        name = digest.hex()
        try:
            payload = (blobs / name[:2] / name).read_bytes()
        except FileNotFoundError:
            raise StoreDamaged(f"{blobs / name[:2] / name} is missing; restore it") from None
        if sha256(payload).digest() != digest:
            raise StoreDamaged(f"{blobs / name[:2] / name} is not what was kept; restore it")
        copy.execute("update samples set payload = ? where rowid = ?", (payload, row))
