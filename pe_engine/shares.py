"""Label shares: how many candidates each class gets, from shares that are declared, uniform or released with noise.

Never from the private labels themselves: those counts are private.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def uniform(classes: int) -> np.ndarray:
    """Every class the same share."""
    return np.full(classes, 1 / classes)


def declared(weights: Mapping[str, float], classes: Sequence[str]) -> np.ndarray:
    """Shares in proportion to declared `weights`, one a class.

    >>> declared({"cat": 3, "dog": 1}, ["dog", "cat"]).tolist()
    [0.25, 0.75]
    """
    missing, unknown = [c for c in classes if c not in weights], [c for c in weights if c not in classes]
    if missing or unknown:
        wrong = f"lack {missing}" if missing else f"name {unknown}, which are no classes"
        raise ValueError(f"the declared label shares {wrong}; give each of {list(classes)} a number")
    shares = np.array([weights[name] for name in classes], dtype=np.float64)
    if not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() <= 0:
        raise ValueError("the declared label shares must be numbers of at least 0 with a sum above 0")
    return shares / shares.sum()


def released(counts: np.ndarray) -> np.ndarray:
    """Shares from the noisy counts of a `LabelHistogram`: negative ones count as zero, and if all do, all are equal.

    Post-processing that always has an answer, because the release is paid when it is asked for.
    """
    positive = np.maximum(counts, 0).astype(np.float64)
    return positive / positive.sum() if positive.sum() > 0 else uniform(len(counts))


def with_floor(shares: np.ndarray, count: int) -> np.ndarray:
    """The shares moved towards equal ones as far as every class needs to get at least one of `count` candidates.

    >>> with_floor(np.array([1.0, 0.0]), 10).tolist()
    [0.9, 0.1]
    """
    if count < len(shares):
        raise ValueError(f"{count} candidates cannot be shared by {len(shares)} classes; raise `count`")
    return (1 - len(shares) / count) * shares + 1 / count


def apportion(total: int, shares: np.ndarray, classes: Sequence[str]) -> tuple[int, ...]:
    """`total` split by `shares`: each part rounded down, the rest to the largest remainders, lowest index first.

    >>> apportion(10, np.array([0.45, 0.45, 0.1]), ["a", "b", "c"])
    (5, 4, 1)
    """
    exact = shares * total
    counts = np.floor(exact).astype(np.int64)
    rest = total - int(counts.sum())
    counts[np.argsort(-(exact - counts), kind="stable")[:rest]] += 1
    empty = [name for name, count in zip(classes, counts.tolist(), strict=True) if count == 0]
    if empty:
        raise ValueError(f"{total} candidates leave none for {empty}. Raise `count`, or change the label shares")
    return tuple(counts.tolist())
