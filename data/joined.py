"""Several containers as one source: their slots one after another, in the order given."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import final

from .private_set import Record
from .slots import ReadFailed, Slots, Unusable


@final
class Joined:
    """The slots of `parts`, whose ids already tell the parts apart."""

    def __init__(self, parts: Sequence[Slots]) -> None:
        self._parts = parts
        self._starts = [0, *accumulate(len(part.ids) for part in parts)]
        self.ids = list(chain.from_iterable(part.ids for part in parts))

    def read(self, rows: Sequence[int]) -> Sequence[Record | Unusable]:
        answers: list[Record | Unusable] = []
        first = 0
        while first < len(rows):
            part = self._part(rows[first])
            last = first
            while last < len(rows) and self._part(rows[last]) == part:
                last += 1
            start = self._starts[part]
            try:
                answers += self._parts[part].read([row - start for row in rows[first:last]])
            except ReadFailed as failure:
                raise ReadFailed(failure.row + start, failure.kind) from None
            first = last
        return answers

    def raw(self, row: int) -> bytes:
        part = self._part(row)
        try:
            return self._parts[part].raw(row - self._starts[part])
        except ReadFailed as failure:
            raise ReadFailed(failure.row + self._starts[part], failure.kind) from None

    def _part(self, row: int) -> int:
        return bisect_right(self._starts, row) - 1
