"""Labels as a container stores them, and the index of each in the declared class list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import Damaged

UNKNOWN = -1
"""The index of a label that is not declared: its slot is a ghost."""


@dataclass(frozen=True, eq=False)
class Labels:
    """`indices` int64 into the class list, `UNKNOWN` where the label is none of them; `stored` what they were made of."""

    indices: np.ndarray
    stored: np.ndarray

    def raw(self, row: int) -> bytes:
        """The label as stored, for fingerprints: the same for the number 3 and the text "3"."""
        return str(self.stored[row]).encode("utf-8", "surrogateescape")


def unlabelled(count: int) -> Labels:
    """Every record is of the only class there is."""
    return Labels(np.zeros(count, dtype=np.int64), np.full(count, "", dtype="U1"))


def from_array(stored: np.ndarray, classes: tuple[str, ...], *, count: int, where: str) -> Labels:
    """Text labels are looked up by name. So are numbers where every class is a number ("0", "1", ...); otherwise label
    i means the i-th class.

    >>> from_array(np.array([7, 3]), ("3", "7"), count=2, where="").indices.tolist()
    [1, 0]
    >>> from_array(np.array([1, 2]), ("cat", "dog"), count=2, where="").indices.tolist()
    [1, -1]
    """
    if stored.ndim == 2 and stored.shape[1] == 1:
        stored = stored[:, 0]
    if stored.ndim != 1 or len(stored) != count:
        raise Damaged(f"{where}: labels of shape {stored.shape} for {count} images; one label an image is needed")
    if stored.dtype.kind == "U":
        known = {name: index for index, name in enumerate(classes)}
    elif stored.dtype.kind in "iu":
        numbered = all(name.isdecimal() for name in classes)
        known = {int(name) if numbered else index: index for index, name in enumerate(classes)}
    else:
        raise Damaged(f"{where}: labels of type {stored.dtype}; integers or text are needed, one an image")
    indices = np.fromiter((known.get(label, UNKNOWN) for label in stored.tolist()), dtype=np.int64, count=count)
    return Labels(indices, stored)


def from_names(names: Sequence[str], classes: tuple[str, ...]) -> Labels:
    """Each label by its name.

    >>> from_names(["dog", "cow"], ("cat", "dog")).indices.tolist()
    [1, -1]
    """
    known = {name: index for index, name in enumerate(classes)}
    indices = np.fromiter((known.get(name, UNKNOWN) for name in names), dtype=np.int64, count=len(names))
    return Labels(indices, np.array(names, dtype=object))


def from_numbers(numbers: Sequence[int], classes: tuple[str, ...]) -> Labels:
    """Each label by its number, as in `from_array`; a number below zero is no label."""
    stored = np.array(numbers, dtype=np.int64)
    return from_array(stored, classes, count=len(stored), where="")
