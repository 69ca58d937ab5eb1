"""Whether synthetic texts are as long as real ones: distances of the distributions of lengths, counted in words."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from .metric import SHARE, Items, Score
from .metric_config import Judge, LooksAt, MetricConfig, References, at_least, score
from .text import texts_of


def lengths(texts: list[str]) -> np.ndarray:
    """Words between white space, as Aug-PE counts them."""
    return np.array([len(text.split()) for text in texts], dtype=np.float64)


def wasserstein(first: np.ndarray, second: np.ndarray) -> float:
    """The area between the two distribution functions: how many words a length has to move on average.

    >>> wasserstein(np.array([1.0, 2.0]), np.array([2.0, 5.0]))
    2.0
    """
    at, low, high = _distributions(first, second)
    return float(np.sum(np.abs(low - high)[:-1] * np.diff(at)))


def kolmogorov(first: np.ndarray, second: np.ndarray) -> float:
    """The largest difference of the two distribution functions, in [0, 1]."""
    _, low, high = _distributions(first, second)
    return float(np.max(np.abs(low - high)))


class TextLength(MetricConfig):
    """How far apart the lengths are: on average, in words; and the largest difference of the distributions."""

    looks_at: ClassVar[LooksAt] = "texts"
    kind: str = Field(default="text-length", pattern="^text-length$")

    def judge(self, references: References) -> Judge:
        real = references.test
        at_least(1, "a distance of lengths", real)
        expected = lengths(texts_of(real))

        def distances(synthetic: Items) -> tuple[Score, ...]:
            at_least(1, "a distance of lengths", synthetic)
            found = lengths(texts_of(synthetic))
            return (
                score("mean words", float(found.mean()), synthetic, better="", unit="words", least=0.0),
                score(
                    "length distance",
                    wasserstein(found, expected),
                    synthetic,
                    real,
                    better="lower",
                    unit="words",
                    least=0.0,
                ),
                score(
                    "largest difference of lengths",
                    kolmogorov(found, expected),
                    synthetic,
                    real,
                    better="lower",
                    unit=SHARE,
                ),
            )

        return distances


def _distributions(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where either distribution function steps, and the values of both there."""
    at = np.unique(np.concatenate([first, second]))
    low, high = (np.searchsorted(np.sort(each), at, side="right") / len(each) for each in (first, second))
    return at, low, high
