"""The Vendi score: how many different items a set is worth, by the eigenvalues of its similarities.

    VS = exp(-sum l_i ln l_i), l_i the eigenvalues of K/n      Friedman and Dieng (2023), definition 3.1

K holds the cosines of features. 1 if all point one way, n if all are orthogonal. It sees no real item: a set of noise is
diverse, so its yardstick is the score of real items, and it is read beside precision.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from .metric import Items, Score
from .metric_config import Judge, MetricConfig, References, at_least, score
from .statistics import scatter, unit_rows


def vendi_score(features: np.ndarray) -> float:
    """Of rows of features (n, d), by the smaller of K (n, n) and the second moments (d, d), which have equal eigenvalues.

    Rows of zeros have no direction: they are equal to one another, and orthogonal to all others.
    """
    rows = unit_rows(features)
    count, dimensions = rows.shape
    matrix = scatter(rows) if count > dimensions else rows @ rows.T
    eigenvalues = np.maximum(np.linalg.eigvalsh(matrix), 0.0) / count
    without_direction = 1 - np.count_nonzero(rows.any(axis=1)) / count
    eigenvalues = np.append(eigenvalues, without_direction)
    eigenvalues = eigenvalues[eigenvalues > 0]
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


class VendiScore(MetricConfig):
    """Of the synthetic items alone; the real ones are not looked at."""

    kind: str = Field(default="vendi", pattern="^vendi$")

    def __call__(self, real: Items, synthetic: Items, /) -> Score:
        del real
        return self.of(synthetic)

    def of(self, synthetic: Items) -> Score:
        at_least(1, "a Vendi score", synthetic)
        return score("Vendi score", vendi_score(synthetic.rows), synthetic, better="higher", least=1.0)

    def judge(self, references: References) -> Judge:
        return lambda synthetic: (self.of(synthetic),)
