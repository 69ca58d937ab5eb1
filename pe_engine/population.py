"""Candidates and populations: public values throughout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..adapters.contract import Image

SELECTED = -1
"""The fold of a candidate that was drawn at random or kept by selection; 0, 1, ... are variation folds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """One candidate. `id` is unique in the run ("3/17"); `parent` the id it was varied from, or "" for a first one."""

    id: str
    label: int
    caption: str = ""
    image: Image | None = None
    parent: str = ""
    fold: int = SELECTED
    born: int = 0


@dataclass(frozen=True, eq=False)
class Population:
    """Candidates in a fixed order."""

    candidates: tuple[Candidate, ...]

    def __len__(self) -> int:
        return len(self.candidates)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.candidates)

    @property
    def labels(self) -> np.ndarray:
        """Label index of each candidate, int64."""
        return np.fromiter((c.label for c in self.candidates), dtype=np.int64, count=len(self.candidates))

    def take(self, rows: Sequence[int] | np.ndarray) -> Population:
        """The candidates at `rows`, in that order, repeats allowed."""
        return Population(tuple(self.candidates[int(row)] for row in rows))

    def __add__(self, other: Population) -> Population:
        return Population(self.candidates + other.candidates)
