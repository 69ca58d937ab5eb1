"""SqliteStore: replies in one SQLite file, large ones as content-addressed files beside it.

Decisions. One connection a process, and a rollback journal: SQLite before 3.51.3 can corrupt a write-ahead log that
several connections reset at once, and several processes may share this file. Every write transaction begins
IMMEDIATE, so that waiting works. A large reply's file is written, synced and renamed before the row that names it, so
a row never names a file that is not there. Every payload carries its SHA-256, checked when it is read. What it holds
was paid for and tells what a run asked: files and folders are their owner's alone.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from ..privacy import durable
from ..privacy.failpoint import failpoint
from . import schema
from .group_commit import GroupCommit, Job
from .keys import Address
from .owners import Owners
from .statements import MOST_TOGETHER, flat, values
from .store import (
    Answers,
    Saved,
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreTooNew,
    Together,
    Transaction,
    compare,
)

T = TypeVar("T")

APPLICATION_ID = 0x50564C43  # "PVLC"
SCHEMA = schema.VERSION
INLINE_BYTES = 64 * 1024

_FIND = """
select r.canonical, s.kind, s.about, s.sha256, s.payload from samples s join requests r on r.id = s.request
where r.key = ? and s.namespace = ? and s.draw = ?
"""

_THERE = """
select v.column1 from (values {rows}) v cross join requests r on r.key = v.column2
cross join samples s on s.request = r.id and s.namespace = v.column3 and s.draw = v.column4
"""

_ASKED = "insert into requests (key, canonical) values {rows} on conflict (key) do nothing"
_INSERT = """
insert into samples (request, namespace, draw, kind, about, sha256, payload, saved_ms)
select r.id, v.column2, v.column3, v.column4, v.column5, v.column6, v.column7, v.column8
from (values {rows}) v cross join requests r on r.key = v.column1 where true on conflict
"""
_KEEP = "do nothing"
_REPLACE = """
(request, namespace, draw) do update set
kind = excluded.kind, about = excluded.about, sha256 = excluded.sha256, payload = excluded.payload, saved_ms = excluded.saved_ms
"""

_Row = tuple[str, str, int, str, str, bytes, bytes | None, int]
_Outcome = tuple[Job, Any, Exception | None]


@dataclass(frozen=True, eq=False)
class _Write:
    work: Callable[[Any], Any]
    answers: Answers
    replace: bool


class SqliteStore:
    """The store at `path`, made if absent; files of large replies lie in `blobs` beside it."""

    def __init__(self, path: Path, *, wait_s: float = 30.0) -> None:
        self._path = path
        self._blobs = path.parent / "blobs"
        self._lock = threading.RLock()
        self._group = GroupCommit(self._commit)
        self._owners = Owners(path.with_name(f"{path.name}-owners"))
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._own(path)
            self._connection = sqlite3.connect(
                path, timeout=wait_s, isolation_level=None, check_same_thread=False, cached_statements=512
            )
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def get(self, addresses: Sequence[Address], /) -> list[Saved | None]:
        with self._lock, self._translated(), self._transaction("begin"):
            return [self._find(address) for address in addresses]

    def put(self, answers: Answers, /, *, replace: bool = False) -> list[Saved]:
        with self._lock, self._translated():
            rows = self._rows(answers)
            with self._transaction("begin immediate"):
                return self._insert(answers, rows, replace=replace)

    def submit(
        self, work: Callable[[Transaction], T], /, answers: Answers = (), *, replace: bool = False
    ) -> Future[tuple[T, list[Saved]]]:
        return self._group.submit(_Write(work, answers, replace))

    @property
    def connection(self) -> sqlite3.Connection:
        return self._connection

    def find(self, addresses: Sequence[Address], /) -> list[Saved | None]:
        places = [(index, *address.place) for index, address in enumerate(addresses)]
        there = {row for (row,) in self._connection.execute(_THERE.format(rows=values(places)), flat(places))}
        return [self._find(address) if index in there else None for index, address in enumerate(addresses)]

    def questions(self) -> list[str]:
        with self._lock, self._translated():
            rows = self._connection.execute("select canonical from requests where id in (select request from samples)")
            return [canonical for (canonical,) in rows]

    def places(self, key: str, /) -> list[tuple[str, int]]:
        with self._lock, self._translated():
            return self._connection.execute(
                "select s.namespace, s.draw from samples s join requests r on r.id = s.request where r.key = ?", (key,)
            ).fetchall()

    @property
    def owner(self) -> str:
        return self._owners.own()

    def is_alive(self, owner: str, /) -> bool:
        return self._owners.is_alive(owner)

    def close(self) -> None:
        self._group.close()
        with self._lock:
            self._connection.close()
            self._owners.close()

    def _commit(self, group: Sequence[Job]) -> None:
        """Together what is to be done together; each other job in a savepoint, so that one that raises takes only itself back."""
        with self._lock, self._translated():
            rows = {id(job): self._rows(job.work.answers) for job in group}
            keeps = any(rows.values())
            if keeps:
                failpoint("cache-before-put")
            outcomes: list[_Outcome] = []
            with self._transaction("begin immediate"):
                for jobs in _in_order(group):
                    outcomes += self._done(jobs, rows)
            if keeps:
                failpoint("cache-after-put")
        for job, value, error in outcomes:
            if not job.result.set_running_or_notify_cancel():
                continue
            if error is None:
                job.result.set_result(value)
            else:
                job.result.set_exception(error)

    def _done(self, jobs: Sequence[Job], rows: Mapping[int, list[_Row]]) -> list[_Outcome]:
        """Do one piece of work, or the same for several; where that raises, each of them alone."""
        work = jobs[0].work.work
        self._connection.execute("savepoint job")
        try:
            done = self._results(work, jobs)
            kept = self._put(jobs, rows)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001  the caller's own, by its future
            self._connection.execute("rollback to job")
            self._connection.execute("release job")
            if len(jobs) == 1:
                return [(jobs[0], None, error)]
            return [outcome for job in jobs for outcome in self._done([job], rows)]
        self._connection.execute("release job")
        return [(job, (result, its), None) for job, result, its in zip(jobs, done, kept, strict=True)]

    def _results(self, work: Any, jobs: Sequence[Job]) -> Sequence[Any]:
        return work.do(self, [job.work.work.item for job in jobs]) if len(jobs) > 1 else [work(self)]

    def _put(self, jobs: Sequence[Job], rows: Mapping[int, list[_Row]]) -> list[list[Saved]]:
        """What now lies at the places of each job's answers."""
        kept: dict[int, list[Saved]] = {}
        for replace in (False, True):
            having = [job for job in jobs if job.work.answers and job.work.replace == replace]
            if not having:
                continue
            answers = [each for job in having for each in job.work.answers]
            now = iter(self._insert(answers, [row for job in having for row in rows[id(job)]], replace=replace))
            kept |= {id(job): [next(now) for _ in job.work.answers] for job in having}
        return [kept.get(id(job), []) for job in jobs]

    def _rows(self, answers: Answers) -> list[_Row]:
        """The rows of some answers; a large one's file is durable first."""
        now = int(time.time() * 1000)
        rows: list[_Row] = []
        for address, saved in answers:
            digest = sha256(saved.payload).digest()
            inline = saved.payload if len(saved.payload) <= INLINE_BYTES else None
            if inline is None:
                self._write_blob(digest.hex(), saved.payload)
            rows.append((*address.place, saved.kind, saved.about, digest, inline, now))
        return rows

    def _insert(self, answers: Answers, rows: Sequence[_Row], *, replace: bool) -> list[Saved]:
        kept: list[Saved] = []
        for first in range(0, len(rows), MOST_TOGETHER):
            part = slice(first, first + MOST_TOGETHER)
            kept += self._insert_together(answers[part], rows[part], replace=replace)
        return kept

    def _insert_together(self, answers: Answers, rows: Sequence[_Row], *, replace: bool) -> list[Saved]:
        questions = list({address.key: (address.key, address.canonical) for address, _ in answers}.values())
        self._connection.execute(_ASKED.format(rows=values(questions)), flat(questions))
        insert = _INSERT.format(rows=values(rows)) + (_REPLACE if replace else _KEEP)
        new = self._connection.execute(insert, flat(rows)).rowcount
        if new == len(rows) and len({row[:3] for row in rows}) == len(rows):
            return [saved for _, saved in answers]
        return [self._find(address) or saved for address, saved in answers]

    def _find(self, address: Address) -> Saved | None:
        row = self._connection.execute(_FIND, address.place).fetchone()
        if row is None:
            return None
        canonical, kind, about, digest, payload = row
        compare(canonical, address)
        if payload is None:
            payload = self._read_blob(digest.hex())
        if sha256(payload).digest() != digest:
            raise StoreDamaged(f"{self._path}: a saved reply does not match its checksum; restore or move the cache")
        return Saved(kind=kind, payload=payload, about=about)

    def _own(self, path: Path) -> None:
        """Make the file if absent; it and what lies beside it are then for its owner's eyes."""
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        # What belongs to another user is not ours to change.
        with suppress(PermissionError):
            if path.stat().st_mode & 0o077:
                path.chmod(0o600)
        with suppress(PermissionError, FileNotFoundError):
            if self._blobs.stat().st_mode & 0o077:
                self._blobs.chmod(0o700)

    def _prepare(self) -> None:
        execute = self._connection.execute
        execute("pragma trusted_schema = off")
        execute("pragma foreign_keys = on")
        application, version = execute("pragma application_id").fetchone()[0], self._version()
        empty = execute("select count(*) from sqlite_master").fetchone()[0] == 0
        if application != APPLICATION_ID and not (empty and application == 0):
            raise StoreDamaged(f"{self._path} is not a privolve cache; name another file")
        if version > SCHEMA:
            raise StoreTooNew(
                f"{self._path} was written by a newer privolve (schema {version}, this one reads {SCHEMA}); "
                "update privolve or name another cache"
            )
        execute("pragma journal_mode = truncate")
        execute("pragma synchronous = full")
        if version < SCHEMA:
            self._migrate()

    def _migrate(self) -> None:
        with self._transaction("begin immediate"):
            if self._version() < SCHEMA:  # Another process may have been first.
                schema.migrate(self._connection)
                self._connection.execute(f"pragma application_id = {APPLICATION_ID}")
                self._connection.execute(f"pragma user_version = {SCHEMA}")

    def _version(self) -> int:
        return self._connection.execute("pragma user_version").fetchone()[0]

    @contextmanager
    def _transaction(self, begin: str) -> Generator[None]:
        self._connection.execute(begin)
        try:
            yield
            self._connection.execute("commit")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("rollback")
            raise

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except sqlite3.OperationalError as error:
            code = error.sqlite_errorcode & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise StoreBusy(
                    f"{self._path} is locked by another process; wait for it or name another cache"
                ) from error
            if code == sqlite3.SQLITE_FULL:
                raise self._full() from error
            raise StoreError(f"{self._path}: {error}; check that the folder can be written and has space") from error
        except sqlite3.DatabaseError as error:
            raise StoreDamaged(f"{self._path}: {error}; restore it or move it away and run again") from error
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise self._full() from error
            raise StoreError(
                f"{self._path}: {error.strerror or error}; name a cache folder that can be written"
            ) from error

    def _full(self) -> StoreFull:
        return StoreFull(
            f"{self._path}: no space left; answers so far are kept, make room and run the same command again"
        )

    def _write_blob(self, name: str, payload: bytes) -> None:
        target = self._blob(name)
        if target.exists():
            return
        if not target.parent.exists():
            self._blobs.mkdir(mode=0o700, exist_ok=True)
            target.parent.mkdir(mode=0o700, exist_ok=True)
            durable.sync_folder(self._blobs)
        durable.write_bytes(target, payload, mode=0o600)

    def _read_blob(self, name: str) -> bytes:
        try:
            return self._blob(name).read_bytes()
        except FileNotFoundError:
            raise StoreDamaged(f"{self._blob(name)} is missing; restore it or move the cache away") from None

    def _blob(self, name: str) -> Path:
        return self._blobs / name[:2] / name


def _in_order(group: Sequence[Job]) -> list[list[Job]]:
    """What is to be done together, by rank, and then each of the others by itself, as they came."""
    together: dict[Any, list[Job]] = {}
    alone: list[list[Job]] = []
    for job in group:
        work = job.work.work
        if isinstance(work, Together):
            together.setdefault((work.rank, work.do), []).append(job)
        else:
            alone.append([job])
    return [together[each] for each in sorted(together, key=lambda each: each[0])] + alone


_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
