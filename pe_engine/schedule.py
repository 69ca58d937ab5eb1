"""What each iteration does: settings that hold throughout, or change by iteration.

Iteration 0 makes the first candidates; iterations 1 to T vote, select and vary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from .selection import Rank, Sample, Selection, Uniform
from .shares import apportion

T = TypeVar("T")
BY_RANK = Rank()


@dataclass(frozen=True, kw_only=True)
class Schedule(Generic[T]):
    """One value for each iteration from `first` to `last`."""

    name: str
    first: int
    values: tuple[T, ...]

    @classmethod
    def of(cls, value: T | Sequence[T], *, name: str, first: int, last: int) -> Schedule[T]:
        """A single value holds throughout; a list must have one for each iteration.

        >>> Schedule.of([0.8, 0.4], name="degree", first=1, last=2).at(2)
        0.4
        """
        count = last - first + 1
        if not isinstance(value, list | tuple):
            return cls(name=name, first=first, values=(value,) * count)  # type: ignore[arg-type]
        if len(value) != count:
            raise ValueError(
                f"`{name}` lists {len(value)} values, and the iterations {first} to {last} are {count}. "
                "Give one value for all, or one for each"
            )
        return cls(name=name, first=first, values=tuple(value))

    def at(self, iteration: int) -> T:
        if not self.first <= iteration < self.first + len(self.values):
            last = self.first + len(self.values) - 1
            raise ValueError(f"`{self.name}` is set for the iterations {self.first} to {last}, not for {iteration}")
        return self.values[iteration - self.first]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One iteration: select `counts` of each label by `selection`, then make `folds` variations of each selected one.

    `degree` in [0, 1] is how much a variation changes: the degree of an image variation, the blank probability of a text.
    """

    counts: tuple[int, ...]
    folds: int
    degree: float
    selection: Rank | Sample | Uniform = BY_RANK
    keep_selected: bool = False


@dataclass(frozen=True, kw_only=True)
class Stages:
    """The stages of a whole run, checked when made. Call it with the number of an iteration.

    `count`, `folds` and `degree` are one value, or a list for the iterations 0 to T (0: how many first candidates, how
    many variations of each, and how different); `selection`, `threshold` and `keep_selected` one value, or a list for 1 to T.
    """

    iterations: int
    classes: tuple[str, ...]
    shares: np.ndarray
    count: int | Sequence[int]
    folds: int | Sequence[int] = 1
    degree: float | Sequence[float] = 0.5
    selection: Selection | Sequence[Selection] = BY_RANK
    threshold: float | Sequence[float | None] | None = None
    keep_selected: bool | Sequence[bool] = True

    def __post_init__(self) -> None:
        if self.iterations < 0:
            raise ValueError(f"`iterations` is {self.iterations}; it must be at least 0")
        for iteration in range(self.iterations + 1):
            self(iteration)

    def __call__(self, iteration: int) -> Stage:
        count = self._from_start(self.count, "count").at(iteration)
        folds = self._from_start(self.folds, "folds").at(iteration)
        degree = self._from_start(self.degree, "degree").at(iteration)
        if count < 1:
            raise ValueError(f"`count` is {count} at iteration {iteration}; it must be at least 1")
        if folds < 0:
            raise ValueError(f"`folds` is {folds} at iteration {iteration}; it must be at least 0")
        if not 0 <= degree <= 1:
            raise ValueError(f"`degree` is {degree} at iteration {iteration}; it must lie between 0 and 1")
        counts = apportion(count, self.shares, self.classes)
        if iteration == 0:
            return Stage(counts=counts, folds=folds, degree=degree, keep_selected=True)
        keep = self._by_vote(self.keep_selected, "keep_selected").at(iteration)
        if folds == 0 and not keep:
            raise ValueError(
                f"iteration {iteration} leaves no candidates. Set `folds` to 1 or more, or `keep_selected`"
            )
        return Stage(
            counts=counts, folds=folds, degree=degree, selection=self._selection(iteration), keep_selected=keep
        )

    def _selection(self, iteration: int) -> Rank | Sample | Uniform:
        rule = self._by_vote(self.selection, "selection").at(iteration)
        threshold = self._by_vote(self.threshold, "threshold").at(iteration)
        if threshold is None:
            return rule
        if isinstance(rule, Uniform) or rule.threshold is not None:
            raise ValueError(f"`threshold` cannot be combined with the selection {rule!r}; set it in one place")
        return rule.model_copy(update={"threshold": threshold})

    def _from_start(self, value: T | Sequence[T], name: str) -> Schedule[T]:
        return Schedule.of(value, name=name, first=0, last=self.iterations)

    def _by_vote(self, value: T | Sequence[T], name: str) -> Schedule[T]:
        return Schedule.of(value, name=name, first=1, last=self.iterations)
