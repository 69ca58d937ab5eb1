"""Whether a classifier is as often right as it says: expected calibration error, Brier score, reliability diagram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .metric import MetricError

BINS = 15


@dataclass(frozen=True, kw_only=True, eq=False)
class Reliability:
    """One row a bin of confidence, the largest probability: how many items, their mean confidence, their accuracy.

    Bins are of equal width over (0, 1]; an empty bin has confidence and accuracy 0.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def expected_error(self) -> float:
        """Equation 3 of Guo et al. (2017): the mean gap between confidence and accuracy, weighted by the counts."""
        return float(np.sum(self.counts / self.counts.sum() * np.abs(self.accuracy - self.confidence)))


def reliability(probabilities: np.ndarray, truth: np.ndarray, *, bins: int = BINS) -> Reliability:
    """Of probabilities (n, classes) against the class indices `truth`."""
    _check(probabilities, truth)
    confidence = probabilities.max(axis=1).clip(0, 1)
    right = (probabilities.argmax(axis=1) == truth).astype(np.float64)
    # Bin m holds ((m - 1) / bins, m / bins].
    row = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(row, minlength=bins)
    each = np.maximum(counts, 1)
    return Reliability(
        counts=counts,
        confidence=np.bincount(row, confidence, minlength=bins) / each,
        accuracy=np.bincount(row, right, minlength=bins) / each,
    )


def expected_calibration_error(probabilities: np.ndarray, truth: np.ndarray, *, bins: int = BINS) -> float:
    """ECE in [0, 1].

    >>> expected_calibration_error(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1]))
    0.0
    """
    return reliability(probabilities, truth, bins=bins).expected_error


def brier_score(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The mean squared distance of the probabilities from certainty in the truth, over all classes: in [0, 2]. Brier (1950).

    >>> brier_score(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 0]))
    0.25
    """
    _check(probabilities, truth)
    offsets = probabilities.astype(np.float64)
    offsets[np.arange(len(truth)), truth] -= 1
    return float(np.mean(np.square(offsets).sum(axis=1)))


def _check(probabilities: np.ndarray, truth: np.ndarray) -> None:
    if probabilities.ndim != 2 or len(probabilities) != len(truth) or not len(truth):
        raise MetricError(
            f"calibration needs one row of probabilities an item, not {probabilities.shape} for {len(truth)} items"
        )
    if not np.isfinite(probabilities).all():
        raise MetricError("calibration needs finite probabilities; a classifier gave NaN or infinity")
