"""Where a ledger is kept: one SQLite file in a folder of its own, one writer, every commit durable or fatal.

Rollback journal and synchronous EXTRA, because a retried sync can lie and the write-ahead log of many SQLite releases
can be torn: after the first failed write the store serves nothing more, and the next process starts from what is
on the disk.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import sqlite3
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from . import ledger_chain as chain
from .durable import sync_folder
from .failpoint import failpoint
from .ledger_chain import Entry
from .ledger_errors import LedgerBusy, LedgerDamaged, LedgerError, LedgerWriteError

FILE = "ledger.sqlite"
_KEY = ".key"
_PIECE = 16 << 20
_SCHEMA = """
CREATE TABLE entries (seq INTEGER PRIMARY KEY, line BLOB NOT NULL);
CREATE TABLE private_parts (seq INTEGER PRIMARY KEY REFERENCES entries, salt BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE outputs (name TEXT NOT NULL, piece INTEGER NOT NULL, content BLOB NOT NULL, PRIMARY KEY (name, piece));
CREATE TABLE fingerprints (digest BLOB PRIMARY KEY) WITHOUT ROWID;
"""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An entry before it has a place in the chain. `private` stays in the store; None if there is nothing to keep."""

    kind: str
    run: str = ""
    body: dict[str, Any]
    private: dict[str, Any] | None = None


class LedgerStore:
    """The open file of one ledger. Reading needs no transaction: this process is its only writer."""

    def __init__(self, directory: Path) -> None:
        """Open or create; takes the lock, checks the file and the whole chain. Use as a context manager."""
        self.directory = directory
        self._failed = ""
        self._lock = _locked(directory)
        try:
            self._database = _connected(directory / FILE)
            try:
                self.entries: list[Entry] = _checked_entries(self._database, directory)
            except BaseException:
                self._database.close()
                raise
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> LedgerStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back. What was appended is on the disk already."""
        if self._lock >= 0:
            self._database.close()
            os.close(self._lock)
            self._lock = -1

    def append(
        self,
        drafts: Sequence[Draft],
        *,
        read: Callable[[Entry], None],
        output: tuple[str, bytes] | None = None,
        fingerprints: Collection[bytes] = (),
        point: str = "",
    ) -> None:
        """Chain `drafts`, with an output or fingerprints that belong to them, in one durable transaction.

        `read` sees each entry before anything is written, and may refuse by raising. A failed write is fatal for this
        store: nothing of the transaction is kept, and no later call is served. `point` names a failpoint before the commit.
        """
        self._usable()
        entries: list[Entry] = []
        parts: list[tuple[int, bytes, bytes]] = []
        for draft in drafts:
            salt = secrets.token_bytes(32)
            entry = chain.link(
                (entries or self.entries or [None])[-1],
                kind=draft.kind,
                run=draft.run,
                body=draft.body,
                private="" if draft.private is None else chain.commitment(salt, draft.private),
            )
            entries.append(entry)
            if draft.private is not None:
                parts.append((entry.seq, salt, chain.canonical(draft.private)))
        for entry in entries:
            read(entry)
        with self._transaction() as database:
            lines = [(entry.seq, chain.line(entry)) for entry in entries]
            database.executemany("INSERT INTO entries VALUES (?, ?)", lines)
            database.executemany("INSERT INTO private_parts VALUES (?, ?, ?)", parts)
            if output is not None:
                name, content = output
                pieces = (content[start : start + _PIECE] for start in range(0, len(content), _PIECE))
                rows = ((name, number, piece) for number, piece in enumerate(pieces))
                database.executemany("INSERT INTO outputs VALUES (?, ?, ?)", rows)
            if fingerprints:
                rows = ((fingerprint,) for fingerprint in fingerprints)
                database.executemany("INSERT OR IGNORE INTO fingerprints VALUES (?)", rows)
            if point:
                failpoint(point)
        self.entries.extend(entries)

    def private_part(self, seq: int) -> dict[str, Any]:
        """What entry `seq` keeps out of public copies; empty if nothing."""
        with self._reading() as database:
            row = database.execute("SELECT body FROM private_parts WHERE seq = ?", (seq,)).fetchone()
        return json.loads(row[0]) if row else {}

    def output(self, name: str) -> bytes | None:
        """The stored output of a release, byte by byte as it was saved; None if there is none."""
        with self._reading() as database:
            rows = database.execute("SELECT content FROM outputs WHERE name = ? ORDER BY piece", (name,)).fetchall()
        return b"".join(row[0] for row in rows) if rows else None

    def unknown_fingerprints(self, fingerprints: Collection[bytes]) -> set[bytes]:
        """Those that this ledger has never held."""
        with self._reading() as database:
            return set(fingerprints) - {row[0] for row in database.execute("SELECT digest FROM fingerprints")}

    def neighbour_holding(self, fingerprints: Collection[bytes]) -> str | None:
        """The folder name of another ledger of this root that holds any of `fingerprints`; None if there is none."""
        wanted = set(fingerprints)
        if not wanted:
            return None
        for file in sorted(self.directory.resolve().parent.glob(f"*/{FILE}")):
            if file.parent == self.directory.resolve():
                continue
            try:
                # Not read-only: the crash of its writer may have left a journal that the first reader rolls back.
                with closing(_connected(file)) as other:
                    known = other.execute("SELECT 1 FROM sqlite_master WHERE name = 'fingerprints'").fetchone()
                    rows = other.execute("SELECT digest FROM fingerprints") if known else ()
                    if any(row[0] in wanted for row in rows):
                        return file.parent.name
            except sqlite3.Error as error:
                raise LedgerDamaged(
                    f"{file}: cannot be read ({error}), so it is unknown whether it holds the same records. "
                    "Restore it from a backup, or move it out of this folder."
                ) from None
        return None

    def _usable(self) -> None:
        if self._lock < 0:
            raise LedgerError(f"{self.directory}: the ledger is closed")
        if self._failed:
            raise LedgerWriteError(self._failed)

    @contextmanager
    def _reading(self) -> Generator[sqlite3.Connection]:
        self._usable()
        try:
            yield self._database
        except sqlite3.Error as error:
            raise _damaged(self.directory, str(error)) from None

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        database = self._database
        try:
            database.execute("BEGIN IMMEDIATE")
            if not self.entries:
                for statement in _SCHEMA.strip().split("\n"):
                    database.execute(statement)
            yield database
            database.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
        except BaseException:
            # Nothing is known to be stored, so nothing more may be served: as after a crash.
            self._failed = self._failed or f"{self.directory}: a write was interrupted; start again"
            database.close()
            raise

    def _fail(self, error: Exception) -> NoReturn:
        self._failed = (
            f"{self.directory}: the ledger could not be written ({error}). What was stored before is safe; "
            "make room or repair the disk, then give the same command again."
        )
        self._database.close()
        raise LedgerWriteError(self._failed) from None


def read_entries(directory: Path) -> list[Entry]:
    """The entries of the ledger in `directory` as of now, without becoming its writer; the chain is checked."""
    file = directory / FILE
    if not file.is_file():
        raise LedgerError(f"{directory}: holds no ledger. Name the folder that holds {FILE}.")
    with closing(_connected(file)) as database:
        return _checked_entries(database, directory)


def root_key(root: Path) -> bytes:
    """The 32 secret bytes that the ledgers of `root` share, made on first use with mode 0600.

    Shared, so that records which lie in two ledgers can be recognised. Never made anew beside existing ledgers.
    """
    path = root / _KEY
    try:
        if not path.exists():
            if any(root.glob(f"*/{FILE}")):
                raise LedgerDamaged(
                    f"{path}: the key of the ledgers in {root} is gone, and without it their records cannot be "
                    "recognised. Restore it from a backup."
                )
            _create_key(path)
        key = path.read_bytes()
    except OSError as error:
        raise _not_accessible(path, error) from None
    if len(key) != 32:
        raise LedgerDamaged(f"{path}: the key has {len(key)} bytes, not 32. Restore it from a backup.")
    return key


@contextmanager
def root_locked(root: Path) -> Generator[None]:
    """Hold the root while a ledger compares its records with the others', so that two cannot miss each other."""
    try:
        descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _not_accessible(root, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def make_folder(directory: Path) -> None:
    """The ledger's folder, mode 0700 whoever made it."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.mkdir(exist_ok=True, mode=0o700)
        directory.chmod(0o700)
        sync_folder(directory.parent)
    except OSError as error:
        raise _not_accessible(directory, error) from None


def _create_key(path: Path) -> None:
    """Whole or not at all, and never over a key that another process made meanwhile."""
    temporary = path.with_name(f"{_KEY}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def _locked(directory: Path) -> int:
    try:
        descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _not_accessible(directory, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace") or "unknown"
        os.close(descriptor)
        raise LedgerBusy(
            f"{directory}: the ledger is in use by process {holder}. Wait for it to end, or stop it."
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise _not_accessible(directory, error) from None
    return descriptor


def _connected(file: Path) -> sqlite3.Connection:
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise _not_accessible(file, error) from None
    database = sqlite3.connect(file, isolation_level=None, timeout=60)
    try:
        for setting in ("journal_mode = DELETE", "synchronous = EXTRA", "temp_store = MEMORY", "trusted_schema = OFF"):
            database.execute(f"PRAGMA {setting}")
    except sqlite3.Error as error:
        database.close()
        raise _damaged(file.parent, str(error)) from None
    return database


def _checked_entries(database: sqlite3.Connection, directory: Path) -> list[Entry]:
    """The chain, after every check that needs nothing but the file."""
    try:
        found: list[tuple[str]] = database.execute("PRAGMA integrity_check").fetchall()
        if found != [("ok",)]:
            raise _damaged(directory, str(found[0][0]))
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchone():
            return []
        lines: list[bytes] = [row[0] for row in database.execute("SELECT line FROM entries ORDER BY seq")]
        entries = chain.read(b"".join(lines))
        parts: dict[int, tuple[bytes, bytes]] = {
            seq: (salt, body) for seq, salt, body in database.execute("SELECT seq, salt, body FROM private_parts")
        }
        for entry in entries:
            part = parts.pop(entry.seq, None)
            wanted = "" if part is None else chain.commitment(part[0], json.loads(part[1]))
            if entry.private != wanted:
                raise _damaged(directory, f"the private part of entry {entry.seq} is not the one it was chained with")
        if parts:
            raise _damaged(directory, f"entry {min(parts)} has a private part that it was not chained with")
    except (sqlite3.Error, chain.ChainBroken, TypeError, ValueError) as error:
        if isinstance(error, LedgerError):
            raise
        raise _damaged(directory, str(error)) from None
    return entries


def _damaged(directory: Path, why: str) -> LedgerDamaged:
    return LedgerDamaged(
        f"{directory}: the ledger is damaged ({why}). Restore it from a backup; the runs that used it will say "
        "whether the backup is recent enough."
    )


def _not_accessible(path: Path, error: OSError) -> LedgerError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LedgerWriteError(
            f"{path}: no space left. Make room, then give the same command again; the ledger is safe."
        )
    return LedgerError(f"{path}: cannot be used ({error.strerror}). Give a folder that can be read and written.")
