"""A private set: N slots whose number, classes and sizes are public by declaration, and whose records are not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..privacy.private import Private


@dataclass(frozen=True)
class Record:
    """One readable record: content (pixels, height x width x channels uint8 of the declared size; or text) and label index."""

    content: np.ndarray | str = field(repr=False)
    label: int = field(repr=False)


class Records(Protocol):
    """N slots, listed before anything is decoded. Slot i may hold a ghost, in its place everywhere.

    `ids` are the slots' public names only towards the ledger and the private log: file name or row number.
    """

    def __len__(self) -> int: ...

    @property
    def ids(self) -> Sequence[str]: ...

    def read(self, slot: int) -> Record | None:
        """The record of a slot, decoded now, or None for a ghost (unreadable, wrong size or channels, undeclared label)."""
        ...

    def read_many(self, start: int, stop: int) -> Sequence[Record | None]:
        """`read` of the slots start <= slot < stop, in order: equal to reading them one by one, and faster."""
        ...

    def raw(self, slot: int) -> bytes:
        """The slot's stored bytes, label included, for keyed fingerprints; b"" if they cannot be read."""
        ...

    def parts(self) -> Iterator[bytes]:
        """`raw` of every slot in order."""
        ...


@dataclass(frozen=True, kw_only=True)
class PrivateSet:
    """One partition of a private set. All but the records is public by declaration.

    `size` = (width, height) and `channels` of every image; None and 0 for text. `text_bytes` is the most UTF-8 that a
    text holds, 0 for images. `declaration` digests everything declared on which a record depends: what is derived from a
    record under one declaration is not valid under another.
    """

    name: str
    partition: str
    records: Private[Records]
    count: int
    classes: tuple[str, ...]
    size: tuple[int, int] | None
    channels: int
    text_bytes: int
    declaration: str


@dataclass(frozen=True, kw_only=True)
class Split:
    """The partitions of one private set: `train` votes, `test` never does. `test_is_public` as the source declares it.

    `validation`, where a job sets one aside, chooses between models and does nothing else; `whole` is then it and `train`
    together, which is the set that the ledger knows.
    """

    train: PrivateSet
    test: PrivateSet | None
    test_is_public: bool
    validation: PrivateSet | None = None
    whole: PrivateSet | None = None

    @property
    def registered(self) -> PrivateSet:
        """All slots from which anything is released: the same set whether some of them validate or all of them vote."""
        return self.whole or self.train
