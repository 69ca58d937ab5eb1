"""Which candidates go on, by their noisy votes: post-processing, label by label.

SelectionError
├── EmptiedLabel     no candidate of a label is left above the threshold
└── PoolTooSmall     more distinct candidates were asked for than a label has
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

BARRED = int(np.iinfo(np.int64).min)
"""The votes of a candidate that must not be selected, whatever noise says: one that could not be scored."""

At = Callable[[int], np.random.Generator]
"""The public randomness of a label."""


class SelectionError(ValueError):
    """No selection can be made from these votes; the message says why and the way out."""


class EmptiedLabel(SelectionError):
    def __init__(self, label: int, threshold: float, largest: int | None) -> None:
        best = (
            "it has no candidates that could be scored" if largest is None else f"its largest noisy vote is {largest}"
        )
        super().__init__(
            f"no candidate of label {label} is above the threshold {threshold:g}: {best}. "
            "Lower the threshold, or make fewer candidates, so that each gets more votes"
        )
        self.label, self.threshold, self.largest = label, threshold, largest


class PoolTooSmall(SelectionError):
    def __init__(self, label: int, asked: int, pool: int) -> None:
        super().__init__(
            f"{asked} candidates of label {label} were to be selected, and its pool has {pool}. "
            "Raise the folds or the number of first candidates, lower `count`, or select by sampling"
        )
        self.label, self.asked, self.pool = label, asked, pool


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Rank(_Rule):
    """The candidates with the most votes, each once. Ties are broken at random, by public randomness.

    A threshold takes nothing from the order; it refuses a label in which nobody exceeds it.
    """

    kind: Literal["rank"] = "rank"
    threshold: float | None = None

    def select(self, votes: np.ndarray, labels: np.ndarray, counts: Sequence[int], at: At) -> np.ndarray:
        """Rows of the selected: label by label, most votes first."""
        chosen: list[np.ndarray] = []
        for label, count, rows in _pools(votes, labels, counts):
            if self.threshold is not None:
                _clipped(votes[rows], label, self.threshold)
            if count > len(rows):
                raise PoolTooSmall(label, count, len(rows))
            order = np.lexsort((at(label).permutation(len(rows)), -votes[rows]))
            chosen.append(rows[order[:count]])
        return _joined(chosen)


class Sample(_Rule):
    """Candidates drawn with replacement, with probability proportional to `max(votes - threshold, 0)`.

    Without a threshold it is zero, since noisy votes can be negative.
    """

    kind: Literal["sample"] = "sample"
    threshold: float | None = None

    def select(self, votes: np.ndarray, labels: np.ndarray, counts: Sequence[int], at: At) -> np.ndarray:
        """Rows of the selected: label by label, in the order drawn, with repeats."""
        chosen: list[np.ndarray] = []
        for label, count, rows in _pools(votes, labels, counts):
            weights = _clipped(votes[rows], label, self.threshold or 0.0)
            chosen.append(rows[at(label).choice(len(rows), size=count, p=weights / weights.sum())])
        return _joined(chosen)


class Uniform(_Rule):
    """Candidates drawn at random without a look at the votes: the baseline that voting must beat."""

    kind: Literal["uniform"] = "uniform"
    replace: bool = False

    def select(self, votes: np.ndarray, labels: np.ndarray, counts: Sequence[int], at: At) -> np.ndarray:
        """Rows of the selected: label by label, in the order drawn."""
        chosen: list[np.ndarray] = []
        for label, count, rows in _pools(votes, labels, counts):
            if count > len(rows) and not (self.replace and len(rows)):
                raise PoolTooSmall(label, count, len(rows))
            chosen.append(rows[at(label).choice(len(rows), size=count, replace=self.replace)])
        return _joined(chosen)


Selection = Annotated[Rank | Sample | Uniform, Field(discriminator="kind")]


class Select(Protocol):
    def __call__(self, votes: np.ndarray, labels: np.ndarray, counts: Sequence[int], at: At) -> np.ndarray: ...


def select_all_labels(
    rule: Rank | Sample | Uniform, votes: np.ndarray, labels: np.ndarray, counts: Sequence[int], at: At
) -> tuple[np.ndarray, list[EmptiedLabel]]:
    """The rows that `rule` selects, and the labels that its threshold emptied, whose candidates go on without one.

    For a run whose votes are paid: a label without voters must not end it. A threshold that empties every label is an
    error still. An emptied label goes on by rank, or where candidates were to be drawn with repeats, at random.
    """
    chosen: list[np.ndarray] = []
    emptied: list[EmptiedLabel] = []
    wanted = [label for label, count in enumerate(counts) if count > 0]
    for label in wanted:
        only = [count if index == label else 0 for index, count in enumerate(counts)]
        try:
            chosen.append(rule.select(votes, labels, only, at))
        except EmptiedLabel as error:
            if error.largest is None:
                raise
            emptied.append(error)
            instead = Uniform(replace=True) if isinstance(rule, Sample) else Rank()
            chosen.append(instead.select(votes, labels, only, at))
    if emptied and len(emptied) == len(wanted):
        raise emptied[0]
    return _joined(chosen), emptied


def barred(votes: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """The votes with those of candidates that have no finite embedding replaced by `BARRED`."""
    return np.where(np.isfinite(embeddings).all(axis=1), votes, BARRED)


def _pools(votes: np.ndarray, labels: np.ndarray, counts: Sequence[int]) -> list[tuple[int, int, np.ndarray]]:
    """(label, how many to select, rows to select from) of every label that any are wanted of."""
    if votes.shape != labels.shape:
        raise ValueError(f"{len(labels)} candidates have {len(votes)} votes")
    eligible = votes != BARRED
    return [
        (label, count, np.flatnonzero(eligible & (labels == label))) for label, count in enumerate(counts) if count > 0
    ]


def _clipped(votes: np.ndarray, label: int, threshold: float) -> np.ndarray:
    """Clip and subtract: `max(votes - threshold, 0)`, of which at least one must remain."""
    weights = np.maximum(votes - threshold, 0.0)
    if not weights.sum() > 0:
        raise EmptiedLabel(label, threshold, int(votes.max()) if len(votes) else None)
    return weights


def _joined(chosen: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype=np.int64), *chosen])
