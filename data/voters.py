"""Voters: what a private set's records vote with.

Row i belongs to slot i, always: a ghost keeps its row, holds zeros there, has label -1 and is not valid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

GHOST_LABEL = -1
_SLOTS_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class Voters:
    """One row a slot. `units` names the owner of each slot when the unit of protection is larger than a record."""

    embeddings: np.ndarray
    labels: np.ndarray
    valid: np.ndarray
    units: np.ndarray | None = None

    def __post_init__(self) -> None:
        count = len(self.embeddings)
        _check("embeddings", self.embeddings, np.float32, 2, count)
        _check("labels", self.labels, np.int64, 1, count)
        _check("valid", self.valid, np.bool_, 1, count)
        if self.units is not None:
            _check("units", self.units, np.int64, 1, count)

    def __len__(self) -> int:
        return len(self.embeddings)

    def parts(self) -> Iterator[bytes]:
        """One byte string a slot, for a keyed digest: all that the slot contributes, and nothing of its neighbours."""
        for start in range(0, len(self), _SLOTS_AT_ONCE):
            some = slice(start, start + _SLOTS_AT_ONCE)
            columns = [
                self.labels[some, None].astype("<i8").view(np.uint8),
                self.valid[some, None].astype(np.uint8),
                self.embeddings[some].astype("<f4", order="C").view(np.uint8),
            ]
            if self.units is not None:
                columns.append(self.units[some, None].astype("<i8").view(np.uint8))
            for row in np.concatenate(columns, axis=1):
                yield row.tobytes()

    def __repr__(self) -> str:
        return "Voters(...)"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("voters are private and are not pickled")


def _check(name: str, array: np.ndarray, dtype: type[np.generic], dimensions: int, count: int) -> None:
    if array.dtype != dtype or array.ndim != dimensions or len(array) != count:
        raise TypeError(f"voters: {name!r} must be {dtype.__name__} with {dimensions} dimensions and one row a slot")
