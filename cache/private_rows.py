"""Private rows: what a trusted adapter answered about a private set, one fixed-size row a slot.

No key, no deduplication and no length depends on a record: a row's place is its slot, a ghost's row is there and holds
zeros. A file is readable by its owner alone. It is bound by a keyed digest to the set, the model and the question it
was made for; under another binding it is made anew.

A file is a header, then four columns: done (a byte a slot), valid (a byte), label (int64), payload (`row_bytes`).
A slot is marked done after its row is durable.
"""

from __future__ import annotations

import fcntl
import hmac
import mmap
import os
import stat
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol, TypeVar
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from ..privacy.durable import sync_folder

MAGIC = b"privolve rows 1\n"
_HEADER_BYTES = 4096
_PAGE_BYTES = 4096

Number = TypeVar("Number", bound=np.generic)
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int64]
Slots = npt.NDArray[np.int64]


class RowsBusy(OSError):
    """Another process writes these rows."""


@dataclass(frozen=True, eq=False)
class Columns:
    """All rows, not writable: `payload` slots x row_bytes, mapped from the file where there is one."""

    payload: Bytes
    labels: Labels
    valid: Flags


class Rows(Protocol):
    """Rows of one private set: a payload of `row_bytes`, a label and a valid mark for each slot."""

    def done(self) -> Flags:
        """Which slots hold a row, ghosts included."""
        ...

    def write(self, slots: Slots, payload: Bytes, labels: Labels, valid: Flags) -> None:
        """Keep the rows of `slots`, then mark them done."""
        ...

    def columns(self) -> Columns:
        """What every slot holds; stays readable after `close`."""
        ...

    def close(self) -> None: ...


class MemoryRows:
    """Rows that end with the process, for answers that cost less to make than to keep."""

    def __init__(self, *, slots: int, row_bytes: int) -> None:
        self._payload = np.zeros((slots, row_bytes), dtype=np.uint8)
        self._labels = np.full(slots, -1, dtype=np.int64)
        self._valid = np.zeros(slots, dtype=np.bool_)
        self._done = np.zeros(slots, dtype=np.bool_)

    def done(self) -> Flags:
        return self._done.copy()

    def write(self, slots: Slots, payload: Bytes, labels: Labels, valid: Flags) -> None:
        self._payload[slots] = payload
        self._labels[slots] = labels
        self._valid[slots] = valid
        self._done[slots] = True

    def columns(self) -> Columns:
        return Columns(_read_only(self._payload), _read_only(self._labels), _read_only(self._valid))

    def close(self) -> None:
        pass


class PrivateRows:
    """Rows in a file of mode 0600, in a folder of mode 0700; one process at a time."""

    def __init__(self, path: Path, *, slots: int, row_bytes: int, binding: bytes) -> None:
        self._path = path
        self._slots = slots
        self._row_bytes = row_bytes
        self._done_at = _HEADER_BYTES
        self._valid_at = self._done_at + _paged(slots)
        self._labels_at = self._valid_at + _paged(slots)
        self._payload_at = self._labels_at + _paged(8 * slots)
        self._bytes = self._payload_at + slots * row_bytes
        own_folder(path.parent)
        header = MAGIC + slots.to_bytes(8, "little") + row_bytes.to_bytes(8, "little") + binding
        if len(header) > _HEADER_BYTES:
            raise ValueError("the binding is too long for the header")
        self._file = self._open(header.ljust(_HEADER_BYTES, b"\0"))

    def done(self) -> Flags:
        return self._column(self._done_at, self._slots) != 0

    def write(self, slots: Slots, payload: Bytes, labels: Labels, valid: Flags) -> None:
        for start, stop in _runs(slots):
            first = int(slots[start])
            self._put(self._payload_at + first * self._row_bytes, payload[start:stop].tobytes())
            self._put(self._labels_at + 8 * first, labels[start:stop].astype("<i8").tobytes())
            self._put(self._valid_at + first, valid[start:stop].astype(np.uint8).tobytes())
        os.fsync(self._file)
        for start, stop in _runs(slots):
            self._put(self._done_at + int(slots[start]), b"\1" * (stop - start))
        os.fsync(self._file)

    def columns(self) -> Columns:
        # Through the descriptor, not the path: the path may be another file by now.
        mapped = mmap.mmap(self._file, self._bytes, access=mmap.ACCESS_READ)
        payload = np.frombuffer(mapped, dtype=np.uint8, offset=self._payload_at, count=self._slots * self._row_bytes)
        labels = self._column(self._labels_at, 8 * self._slots).view("<i8").astype(np.int64)
        valid = self._column(self._valid_at, self._slots) != 0
        return Columns(payload.reshape(self._slots, self._row_bytes), _read_only(labels), _read_only(valid))

    def close(self) -> None:
        if self._file >= 0:
            # By name, because a map of the file keeps a copy of the descriptor, and with it the lock.
            fcntl.flock(self._file, fcntl.LOCK_UN)
            os.close(self._file)
            self._file = -1

    def _open(self, header: bytes) -> int:
        """A descriptor of the file under `header`, locked; a file under another header is replaced by an empty one."""
        for _ in range(3):
            try:
                file = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                self._make(header)
                continue
            try:
                _lock(file)
                if not _same_file(file, self._path):  # Replaced while we waited for the lock.
                    os.close(file)
                    continue
                intact = os.fstat(file).st_size == self._bytes
                if intact and hmac.compare_digest(os.pread(file, _HEADER_BYTES, 0), header):
                    os.fchmod(file, stat.S_IRUSR | stat.S_IWUSR)
                    return file
                self._make(header)
                os.close(file)
            except BaseException:
                os.close(file)
                raise
        raise RowsBusy("private rows are being replaced by another process")

    def _make(self, header: bytes) -> None:
        temporary = self._path.with_name(f".{self._path.name}.{uuid4().hex}")
        file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(file, self._bytes)
            os.pwrite(file, header, 0)
            os.fsync(file)
            temporary.replace(self._path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)
        sync_folder(self._path.parent)

    def _put(self, offset: int, data: bytes) -> None:
        # Not through a map: on a full disk a map dies of SIGBUS, a write says so.
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, offset)
            view, offset = view[written:], offset + written

    def _column(self, offset: int, size: int) -> Bytes:
        return np.frombuffer(_read(self._file, size, offset), dtype=np.uint8)


def _read_only(column: npt.NDArray[Number]) -> npt.NDArray[Number]:
    view = column.view()
    view.flags.writeable = False
    return view


def own_folder(folder: Path) -> None:
    """Make `folder` if absent, and see to it that only its owner may enter."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)


def _read(file: int, size: int, offset: int) -> bytes:
    parts: list[bytes] = []
    while size > 0:
        part = os.pread(file, size, offset)
        if not part:
            raise OSError("private rows end early")
        parts.append(part)
        size, offset = size - len(part), offset + len(part)
    return b"".join(parts)


def _lock(file: int) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RowsBusy("private rows are in use by another process") from None


def _same_file(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _runs(slots: Slots) -> list[tuple[int, int]]:
    """The stretches of consecutive slots, as (start, stop) positions in `slots`."""
    if len(slots) == 0:
        return []
    breaks = [0, *(np.flatnonzero(np.diff(slots) != 1) + 1).tolist(), len(slots)]
    return list(pairwise(breaks))


def _paged(size: int) -> int:
    return -(-size // _PAGE_BYTES) * _PAGE_BYTES
