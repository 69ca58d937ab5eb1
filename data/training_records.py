"""A private set of images as arrays, for what reads all of it many times: the private argument of every trainer.

Row i belongs to slot i, always: a ghost keeps its row, is blank there, has label -1 and is not valid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..privacy.private import Private
from .private_set import PrivateSet, Records
from .voters import GHOST_LABEL

_SLOTS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class TrainingRecords:
    """`pixels` uint8 (N, height, width, channels); `labels` int64 (N,), -1 for a ghost; `valid` bool (N,)."""

    pixels: np.ndarray
    labels: np.ndarray
    valid: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.pixels)
        for name, array, dtype, dimensions in (
            ("pixels", self.pixels, np.uint8, 4),
            ("labels", self.labels, np.int64, 1),
            ("valid", self.valid, np.bool_, 1),
        ):
            if array.dtype != dtype or array.ndim != dimensions or len(array) != count:
                raise TypeError(
                    f"training records: {name!r} must be {np.dtype(dtype)} with {dimensions} dimensions and one row a slot"
                )

    def __len__(self) -> int:
        return len(self.pixels)

    def parts(self) -> Iterator[bytes]:
        """One byte string a slot, for a keyed digest: all that the slot contributes, and nothing of its neighbours."""
        for slot in range(len(self)):
            yield (
                int(self.labels[slot]).to_bytes(8, "little", signed=True)
                + bytes([bool(self.valid[slot])])
                + self.pixels[slot].tobytes()
            )

    def __repr__(self) -> str:
        return "TrainingRecords(...)"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("training records are private and are not pickled")


def training_records(data: PrivateSet) -> Private[TrainingRecords]:
    """All slots of a set of images, decoded once and kept in memory, still private."""
    if data.size is None:
        raise TypeError(f"{data.name!r} holds texts; a trainer of images needs images")
    return data.records.map(lambda records: read_all(records, data), stage="reading images")


def read_all(records: Records, data: PrivateSet) -> TrainingRecords:
    """The opened records of `data`, a set of images, as arrays of its declared size."""
    assert data.size is not None
    (width, height), classes = data.size, len(data.classes)
    pixels = np.zeros((len(records), height, width, data.channels), dtype=np.uint8)
    labels = np.full(len(records), GHOST_LABEL, dtype=np.int64)
    for start in range(0, len(records), _SLOTS_AT_ONCE):
        stop = min(start + _SLOTS_AT_ONCE, len(records))
        for slot, record in enumerate(records.read_many(start, stop), start):
            if record is None or not isinstance(record.content, np.ndarray) or not 0 <= record.label < classes:
                continue
            pixels[slot], labels[slot] = record.content, record.label
    return TrainingRecords(pixels=pixels, labels=labels, valid=labels >= 0)


def holds_any(records: Private[TrainingRecords], pixels: np.ndarray) -> Private[bool]:
    """Whether any record has exactly the pixels of one of these images, uint8 (n, height, width, channels); still private."""
    known = {image.tobytes() for image in pixels}
    return records.map(
        lambda read: any(read.valid[slot] and read.pixels[slot].tobytes() in known for slot in range(len(read))),
        stage="comparing with the public set",
    )
