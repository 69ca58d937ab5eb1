"""The Frechet distance of two sets of features, as between the Gaussians with their means and covariances.

    d^2 = |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))

The last trace is the sum of the singular values of A B^T for any factors A^T A = S1 and B^T B = S2. Centred features
are such factors, so that n < dimensions needs no matrix of dimensions x dimensions at all, and no square root of a
matrix is ever taken: singular covariances are exact, not a special case. Heusel et al. (2017), equation 6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from .metric import Items, MetricError, Score, same_network


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianFit:
    """A mean and a factor of the unbiased covariance: `factor.T @ factor`, with at most as many rows as columns."""

    mean: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> GaussianFit:
        """Fitted to rows of features, in float64."""
        rows = np.asarray(features, dtype=np.float64)
        if rows.ndim != 2 or len(rows) < 2:
            raise MetricError(f"a covariance needs at least 2 rows of features, not an array of shape {rows.shape}")
        mean = rows.mean(axis=0)
        factor = (rows - mean) / np.sqrt(len(rows) - 1)
        if len(factor) > factor.shape[1]:
            factor = np.asarray(np.linalg.qr(factor, mode="r"))
        return cls(mean=mean, factor=factor)

    @classmethod
    def of_moments(cls, mean: np.ndarray, covariance: np.ndarray) -> GaussianFit:
        """From a published mean and covariance."""
        eigenvalues, vectors = np.linalg.eigh(np.asarray(covariance, dtype=np.float64))
        keep = eigenvalues > eigenvalues[-1] * len(eigenvalues) * np.finfo(np.float64).eps
        return cls(
            mean=np.asarray(mean, dtype=np.float64), factor=np.sqrt(eigenvalues[keep])[:, None] * vectors.T[keep]
        )


def frechet_distance(first: GaussianFit, second: GaussianFit) -> float:
    """The squared Frechet distance, which the literature calls FID on Inception's features."""
    if first.mean.shape != second.mean.shape:
        raise MetricError(f"features of {first.mean.size} and {second.mean.size} dimensions cannot be compared")
    offset = first.mean - second.mean
    spread = np.vdot(first.factor, first.factor) + np.vdot(second.factor, second.factor)
    common = np.linalg.svd(first.factor @ second.factor.T, compute_uv=False).sum()
    return float(max(offset @ offset + spread - 2 * common, 0.0))


@dataclass(frozen=True, kw_only=True)
class FrechetDistance:
    """The metric: how far the synthetic items' features are from the real ones'. Biased upwards at small n."""

    def __call__(self, real: Items, synthetic: Items, /) -> Score:
        return self.to(real)(synthetic)

    def to(self, real: Items) -> Callable[[Items], Score]:
        """The distance to `real`, which is fitted once however many sets are measured."""
        fit_of_real = cache(lambda: GaussianFit.of(real.rows))

        def score(synthetic: Items) -> Score:
            same_network(real, synthetic)
            for items in (real, synthetic):
                if len(items) < 2:
                    raise MetricError(f"{items.name}: a Frechet distance needs at least 2 items, not {len(items)}")
            return Score(
                name="Frechet distance",
                subject=synthetic.name,
                value=frechet_distance(fit_of_real(), GaussianFit.of(synthetic.rows)),
                protected=real.protected and synthetic.protected,
                better="lower",
                network=real.network,
                network_hash=real.network_hash,
                reference=real.name,
                n=len(synthetic),
                reference_n=len(real),
            )

        return score
