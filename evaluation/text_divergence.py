"""MAUVE: the area under the curve of divergences between two sets of embeddings, each a histogram over common clusters.

    C = {(exp(-c KL(Q | R)), exp(-c KL(P | R))): R = w P + (1 - w) Q, 0 < w < 1}      Pillutla et al. (2021), section 2

Done as in the published code: unit-length embeddings of both sets together, principal components up to 90 % of the variance,
k-means with a tenth as many clusters as the smaller set has items, c = 5, 25 mixtures. What differs: the embeddings are those
of the judge's network, not GPT-2's last states, so that figures compare only where the score names the same network;
k-means is scikit-learn's; and at most 500 clusters, so that large sets take minutes. Small sets score lower than large ones
of the same distribution: compare at equal n.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from pydantic import Field

from .metric import Items, Score, same_network
from .metric_config import Judge, MetricConfig, References, at_least, score
from .statistics import unit_rows

MIXTURES = 25
MOST_CLUSTERS = 500


def curve(p: np.ndarray, q: np.ndarray, *, scale: float = 5.0, mixtures: int = MIXTURES) -> np.ndarray:
    """The divergence curve (mixtures + 2, 2) of two histograms that each sum to 1, with its ends on the axes."""
    weights = np.linspace(1e-6, 1 - 1e-6, mixtures)[:, None]
    mixed = weights * p + (1 - weights) * q
    points = np.exp(-scale * np.stack([_divergence(q, mixed), _divergence(p, mixed)], axis=1))
    return np.concatenate([[[1.0, 0.0]], points, [[0.0, 1.0]]])


def area(points: np.ndarray) -> float:
    """Under the curve: 1 for equal histograms, near 0 for disjoint ones."""
    x, y = points.T
    return float((_trapezoids(x, y) + _trapezoids(y, x)) / 2)


def histograms(
    real: np.ndarray, synthetic: np.ndarray, *, clusters: int, explained: float, restarts: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The shares of both sets of embeddings in clusters that were found in both together."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    together = unit_rows(np.concatenate([synthetic, real]))
    restarted: Any = restarts  # Annotated as text alone.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Rows that are alike make fewer clusters; a warning of it would tell something of private ones.
        warnings.simplefilter("ignore")
        components = PCA(random_state=seed + 1).fit(together)
        kept = int(np.argmax(np.cumsum(components.explained_variance_ratio_) >= explained)) + 1
        places = components.transform(together)[:, :kept].astype(np.float32)
        labels = KMeans(clusters, n_init=restarted, max_iter=500, random_state=seed + 2).fit_predict(places)
    counts = [np.bincount(part, minlength=clusters) for part in (labels[len(synthetic) :], labels[: len(synthetic)])]
    return counts[0] / len(real), counts[1] / len(synthetic)


class Mauve(MetricConfig):
    """MAUVE on the embeddings of the judge's network.

    clusters    of k-means; a tenth of the smaller set if not given, at most 500
    explained   the share of the variance that the principal components keep
    restarts    of k-means, the best of which counts
    """

    kind: str = Field(default="mauve", pattern="^mauve$")
    clusters: int | None = Field(default=None, ge=2)
    explained: float = Field(default=0.9, gt=0, lt=1)
    scale: float = Field(default=5.0, gt=0)
    restarts: int = Field(default=5, ge=1)
    seed: int = 25

    def __call__(self, real: Items, synthetic: Items, /) -> Score:
        same_network(real, synthetic)
        at_least(max(self.clusters or 0, 20), "MAUVE", real, synthetic)
        clusters = self.clusters or min(max(2, round(min(len(real), len(synthetic)) / 10)), MOST_CLUSTERS)
        p, q = histograms(
            real.rows,
            synthetic.rows,
            clusters=clusters,
            explained=self.explained,
            restarts=self.restarts,
            seed=self.seed,
        )
        value = area(curve(p, q, scale=self.scale))
        return score(f"MAUVE ({clusters} clusters)", value, synthetic, real, better="higher", least=0.0, most=1.0)

    def judge(self, references: References) -> Judge:
        return lambda synthetic: (self(references.test, synthetic),)


def _divergence(p: np.ndarray, mixed: np.ndarray) -> np.ndarray:
    """KL(p | each row of mixed), where 0 log 0 = 0."""
    occurs = p > 0
    return np.asarray(np.sum(p[occurs] * np.log(p[occurs] / mixed[:, occurs]), axis=1))


def _trapezoids(x: np.ndarray, y: np.ndarray) -> float:
    order = np.lexsort((-y, x))  # The curve falls: of points that share an x the higher comes first.
    return abs(float(np.trapezoid(y[order], x[order])))
