"""Several seeds of one comparison: means with intervals, and paired differences with their standard error."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .metric import MetricError, Score


@dataclass(frozen=True, kw_only=True)
class Paired:
    """The mean difference over pairs that share a seed, and its standard error."""

    mean: float
    standard_error: float
    pairs: int

    @property
    def is_clear(self) -> bool:
        """Whether the mean lies above twice its standard error."""
        return self.mean > 2 * self.standard_error


def paired_difference(treated: Sequence[float], control: Sequence[float]) -> Paired:
    """`treated - control`, seed by seed."""
    if len(treated) != len(control) or len(treated) < 2:
        raise MetricError(f"a paired difference needs two or more pairs, not {len(treated)} and {len(control)} values")
    differences = np.asarray(treated, dtype=np.float64) - np.asarray(control, dtype=np.float64)
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return Paired(mean=float(differences.mean()), standard_error=float(error), pairs=len(differences))


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean over seeds of one score, with a 95 % t interval within what the score can be; protected only if every one is."""
    from scipy.stats import t

    if not scores:
        raise MetricError("a mean needs at least one score")
    for first, second in pairwise(scores):
        if (first.subject, *first.column) != (second.subject, *second.column):
            raise MetricError(f"{first.name} of {first.subject} and {second.name} of {second.subject} have no mean")
    values = np.asarray([score.value for score in scores], dtype=np.float64)
    mean, interval = float(values.mean()), None
    if len(values) > 1:
        half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
        interval = scores[0].within(mean - half, mean + half)
    return dataclasses.replace(
        scores[0],
        value=mean,
        interval=interval,
        repeats=len(scores),
        protected=all(score.protected for score in scores),
    )
