"""Slots: what a source lists before it decodes anything, and how slots become partitions and records.

A source answers for each slot with a record or with the reason why there is none. The reason goes to the private log;
everybody else sees a ghost. Only what is a function of the record alone makes a ghost. A file that vanished, or that may
not be opened, says nothing about the record: it stops the stage, before any charge (`OperationalError`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol, final

from ..privacy.private import OperationalError
from .errors import Undeclared
from .private_set import Record

HOLDOUT_KEY = b"privolve: slots held out, 1"
"""Fixed: which slots are held out is a function of their ids, and of nothing that anybody can choose by trying."""

PrivateLog = Callable[[str], None]
"""Where the names of ghosts may go: a file in `private/`."""


@dataclass(frozen=True)
class Unusable:
    """Why a slot is a ghost, in words for the private log."""

    reason: str


class ReadFailed(Exception):
    """A slot could not be read for a reason that is no function of its record. `kind` is the operating system's word."""

    def __init__(self, row: int, kind: str) -> None:
        super().__init__(kind)
        self.row = row
        self.kind = kind


class Slots(Protocol):
    """All slots of a source, in a fixed order. `rows` are indices into `ids`."""

    @property
    def ids(self) -> Sequence[str]: ...

    def read(self, rows: Sequence[int]) -> Sequence[Record | Unusable]:
        """One answer a row, in order; no answer depends on another row. Raises `ReadFailed` alone."""
        ...

    def raw(self, row: int) -> bytes:
        """The stored bytes, label included; b"" if the record alone prevents reading them. Raises `ReadFailed` alone."""
        ...


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a source found: the slots for voters, and those of a test part of its own, if it has one."""

    voters: Slots
    test: Slots | None = None


@final
class SlotRecords:
    """Some rows of a source as `Records`: every ghost in its place, its reason in the private log once."""

    def __init__(
        self, source: Slots, rows: Sequence[int], *, where: str, private_log: PrivateLog | None = None
    ) -> None:
        self._source = source
        self._rows = rows
        self._where = where
        self._log = private_log
        self._logged: set[int] = set()
        self._ids = [source.ids[row] for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return "SlotRecords(...)"

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def read(self, slot: int) -> Record | None:
        if not 0 <= slot < len(self):
            raise IndexError(f"slot {slot} of {len(self)}")
        return self.read_many(slot, slot + 1)[0]

    def read_many(self, start: int, stop: int) -> Sequence[Record | None]:
        rows = self._rows[start:stop]
        try:
            answers = self._source.read(rows)
        except ReadFailed as failure:
            self._stop(failure.row, failure.kind)
        records: list[Record | None] = []
        for row, answer in zip(rows, answers, strict=True):
            if isinstance(answer, Unusable):
                self._note(row, f"a ghost: {answer.reason}")
                records.append(None)
            else:
                records.append(answer)
        return records

    def raw(self, slot: int) -> bytes:
        if not 0 <= slot < len(self):
            raise IndexError(f"slot {slot} of {len(self)}")
        try:
            return self._source.raw(self._rows[slot])
        except ReadFailed as failure:
            self._stop(failure.row, failure.kind)

    def parts(self) -> Iterator[bytes]:
        for slot in range(len(self)):
            yield self.raw(slot)

    def _note(self, row: int, what: str) -> None:
        if self._log is not None and row not in self._logged:
            self._logged.add(row)
            self._log(f"{self._where}: slot {self._source.ids[row]!r} is {what}")

    def _stop(self, row: int, kind: str) -> NoReturn:
        self._note(row, f"not readable: {kind}")
        raise OperationalError(
            f"{self._where}: a file of the set could not be opened or read ({kind}); its name is in the private log. "
            "Put it back or give permission, and run the same command again"
        ) from None


def partition(
    ids: Sequence[str], *, slots: tuple[int, int] | None, holdout: float, where: str
) -> tuple[Sequence[int], Sequence[int]]:
    """The rows of voters and of the held-out part, both in listing order.

    Both are functions of the slots' ids and of the declaration: the same whatever the slots hold. The held-out part has
    exactly floor(holdout x slots) rows, those whose keyed hashes are smallest.
    """
    start, stop = slots if slots is not None else (0, len(ids))
    if stop > len(ids):
        raise Undeclared(f"{where}: slots = [{start}, {stop}] ends after the last of {len(ids)} slots; declare fewer")
    rows = range(start, stop)
    if holdout == 0.0:
        return rows, ()
    size = int(holdout * len(rows))
    if size == 0 or size == len(rows):
        raise Undeclared(
            f"{where}: holdout = {holdout} of {len(rows)} slots leaves a part without slots; change holdout"
        )
    order = sorted(rows, key=lambda row: (_keyed_hash(ids[row]), row))
    held_out = set(order[:size])
    return [row for row in rows if row not in held_out], sorted(held_out)


def _keyed_hash(slot_id: str) -> bytes:
    return hashlib.blake2b(slot_id.encode("utf-8", "surrogateescape"), key=HOLDOUT_KEY, digest_size=16).digest()
