"""SqliteStore: replies in one SQLite file, large ones as content-addressed files beside it.

Decisions. One connection a process, and a rollback journal: SQLite before 3.51.3 can corrupt a write-ahead log that
several connections reset at once, and several processes may share this file. Every write transaction begins
IMMEDIATE, so that waiting works. A large reply's file is written, synced and renamed before the row that names it, so
a row never names a file that is not there. Every payload carries its SHA-256, checked when it is read.
"""

from __future__ import annotations

import errno
import sqlite3
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from ..privacy import durable
from .keys import Address
from .store import Saved, StoreBusy, StoreDamaged, StoreError, StoreFull, StoreTooNew, compare

if TYPE_CHECKING:
    from sqlite_utils import Database, Migrations

APPLICATION_ID = 0x50564C43  # "PVLC"
SCHEMA = 1
INLINE_BYTES = 64 * 1024

_FIND = """
select r.canonical, s.kind, s.about, s.sha256, s.payload from samples s join requests r on r.id = s.request
where r.key = ? and s.namespace = ? and s.draw = ?
"""


class SqliteStore:
    """The store at `path`, made if absent; files of large replies lie in `blobs` beside it."""

    def __init__(self, path: Path, *, wait_s: float = 30.0) -> None:
        self._path = path
        self._blobs = path.parent / "blobs"
        self._lock = threading.RLock()
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=wait_s, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def get(self, addresses: Sequence[Address], /) -> list[Saved | None]:
        with self._lock, self._translated(), self._transaction("begin"):
            return [self._find(address) for address in addresses]

    def put(self, answers: Sequence[tuple[Address, Saved]], /) -> list[Saved]:
        now = int(time.time() * 1000)
        with self._lock, self._translated():
            rows: list[tuple[str, str, int, str, str, bytes, bytes | None, int]] = []
            for address, saved in answers:
                digest = sha256(saved.payload).digest()
                inline = saved.payload if len(saved.payload) <= INLINE_BYTES else None
                if inline is None:
                    self._write_blob(digest.hex(), saved.payload)
                place = (address.key, address.namespace, address.draw)
                rows.append((*place, saved.kind, saved.about, digest, inline, now))
            with self._transaction("begin immediate"):
                self._connection.executemany(
                    "insert into requests (key, canonical) values (?, ?) on conflict (key) do nothing",
                    [(address.key, address.canonical) for address, _ in answers],
                )
                kept = self._connection.executemany(
                    "insert into samples (request, namespace, draw, kind, about, sha256, payload, saved_ms) "
                    "select id, ?2, ?3, ?4, ?5, ?6, ?7, ?8 from requests where key = ?1 on conflict do nothing",
                    rows,
                ).rowcount
                if kept == len(rows):
                    return [saved for _, saved in answers]
                return [self._find(address) or saved for address, saved in answers]

    def close(self) -> None:
        with self._lock:
            self._connection.close()

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
        from sqlite_utils import Database

        database = Database(self._connection, recursive_triggers=False, execute_plugins=False)
        with self._transaction("begin immediate"):
            if self._version() < SCHEMA:  # Another process may have been first.
                _migrations().apply(database)
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
            target.parent.mkdir(parents=True, exist_ok=True)
            durable.sync_folder(self._blobs)
        durable.write_bytes(target, payload)

    def _read_blob(self, name: str) -> bytes:
        try:
            return self._blob(name).read_bytes()
        except FileNotFoundError:
            raise StoreDamaged(f"{self._blob(name)} is missing; restore it or move the cache away") from None

    def _blob(self, name: str) -> Path:
        return self._blobs / name[:2] / name


def _migrations() -> Migrations:
    """The schema's history; a change is a new migration and a new SCHEMA, never an edit of an old one."""
    from sqlite_utils import Migrations

    migrations = Migrations("privolve.cache")

    def first(database: Database) -> None:
        requests = database.table("requests")
        requests.create({"id": int, "key": str, "canonical": str}, pk="id", not_null={"key", "canonical"})
        requests.create_index(["key"], unique=True)
        database.table("samples").create(
            {
                "request": int,
                "namespace": str,
                "draw": int,
                "kind": str,
                "about": str,
                "sha256": bytes,
                "payload": bytes,
                "saved_ms": int,
            },
            pk=("request", "namespace", "draw"),
            not_null={"kind", "about", "sha256", "saved_ms"},
            foreign_keys=[("request", "requests", "id")],
        )

    migrations(name="first")(first)
    return migrations


_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
