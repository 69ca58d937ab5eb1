"""Confidence intervals of 95 % for the figures of an attack: shares, medians, and the area under a curve.

Exact where there is an exact one; else a bootstrap from public randomness, so that a figure is the same each time.
"""

from __future__ import annotations

import numpy as np

from ..privacy.randomness import PublicRng

Interval = tuple[float, float]
LEVEL = 0.95
RESAMPLES = 1000


def share_interval(hits: int, trials: int, *, level: float = LEVEL) -> Interval:
    """Clopper and Pearson (1934): holds at least `level` of the time, whatever the share.

    >>> [round(bound, 4) for bound in share_interval(0, 100)]
    [0.0, 0.0362]
    """
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(beta.ppf(1 - tail, hits + 1, trials - hits))
    return low, high


def median_interval(values: np.ndarray) -> Interval:
    """Between two order statistics: holds at least 95 % of the time for any distribution, where 6 values or more allow it."""
    from scipy.stats import binom

    ordered = np.sort(values)
    # The largest rank r at which fewer than r values lie below the median with probability at most the tail.
    rank = max(int(binom.ppf((1 - LEVEL) / 2, len(ordered), 0.5)), 1)
    return float(ordered[rank - 1]), float(ordered[len(ordered) - rank])


def area_under_curve(above: np.ndarray, below: np.ndarray) -> float:
    """The share of pairs in which the value of `above` is the larger one; equal ones count half (Mann and Whitney)."""
    ordered = np.sort(below)
    left = np.searchsorted(ordered, above, side="left")
    right = np.searchsorted(ordered, above, side="right")
    return float(np.mean((left + right) / 2) / len(ordered))


def area_interval(above: np.ndarray, below: np.ndarray, *, seed: int = 0) -> Interval:
    """Percentiles of the area over bootstrap resamples of both samples."""
    values = np.concatenate([above, below])
    _, rank = np.unique(values, return_inverse=True)
    ranks = int(rank.max()) + 1
    of_above, of_below = rank[: len(above)], rank[len(above) :]
    rng = PublicRng(seed).at("interval", "area")
    areas = np.empty(RESAMPLES)
    for resample in range(RESAMPLES):
        drawn = np.bincount(of_above[rng.integers(len(above), size=len(above))], minlength=ranks)
        against = np.bincount(of_below[rng.integers(len(below), size=len(below))], minlength=ranks)
        smaller = np.cumsum(against) - against
        areas[resample] = np.dot(drawn, smaller + against / 2) / (len(above) * len(below))
    return percentiles(areas)


def percentiles(statistics: np.ndarray) -> Interval:
    """The middle 95 % of the statistics of bootstrap resamples."""
    low, high = np.quantile(statistics, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
