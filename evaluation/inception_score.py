"""The Inception Score of class probabilities, of Inception or of a classifier that knows the domain.

    IS = exp E KL(p(y|x) || p(y))      Salimans et al. (2016), section 4

High where each item is of one class for sure and all classes occur. It sees no real item, so no reference; its scale is
that of its classifier, which the score names.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import numpy as np
from pydantic import Field

from .metric import Items, MetricError, Score
from .metric_config import Judge, LooksAt, MetricConfig, References, at_least, score


def inception_score(log_probabilities: np.ndarray, *, splits: int = 10, seed: int | None = 2020) -> tuple[float, float]:
    """Mean and standard deviation over `splits` parts of the items (n, classes), shuffled as torch-fidelity shuffles.

    In logarithms throughout, so that a probability of zero is one: minus infinity. With `seed` None the order stays.
    """
    logs = np.asarray(log_probabilities, dtype=np.float64)
    count = len(logs)
    if seed is not None:
        logs = logs[np.random.RandomState(seed).permutation(count)]
    bounds = [part * count // splits for part in range(splits + 1)]
    found = [np.exp(_mean_divergence(logs[start:stop])) for start, stop in pairwise(bounds)]
    return float(np.mean(found)), float(np.std(found))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """The log-probabilities of rows of logits, without overflow."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


class InceptionScore(MetricConfig):
    """Of items whose values are class probabilities. The real items are not looked at."""

    kind: str = Field(default="inception-score", pattern="^inception-score$")
    looks_at: ClassVar[LooksAt] = "probabilities"
    splits: int = Field(default=10, ge=1)
    seed: int = 2020

    def __call__(self, real: Items, synthetic: Items, /) -> Score:
        del real
        return self.of(synthetic)

    def of(self, synthetic: Items) -> Score:
        at_least(self.splits, "an Inception Score", synthetic, instead="lower `splits`")
        value, _ = inception_score(_logs(synthetic), splits=self.splits, seed=self.seed)
        return score("Inception Score", value, synthetic, better="higher", least=1.0)

    def judge(self, references: References) -> Judge:
        return lambda synthetic: (self.of(synthetic),)


def _logs(items: Items) -> np.ndarray:
    rows = items.rows.astype(np.float64)
    sums = rows.sum(axis=1)
    if not len(rows) or rows.min() < 0 or np.abs(sums - 1).max() > 1e-3:
        raise MetricError(
            f"{items.name}: an Inception Score needs class probabilities, >= 0 with sum 1; give the classifier's softmax"
        )
    with np.errstate(divide="ignore"):
        return np.log(rows / sums[:, None])


def _mean_divergence(logs: np.ndarray) -> float:
    """The mean over rows of KL(row || mean row)."""
    probabilities = np.exp(logs)
    with np.errstate(divide="ignore"):
        of_all = np.log(probabilities.mean(axis=0))
    terms = np.zeros_like(probabilities)
    # 0 log 0 = 0
    np.multiply(probabilities, logs - np.where(np.isfinite(of_all), of_all, 0.0), out=terms, where=probabilities > 0)
    return float(terms.sum(axis=1).mean())
