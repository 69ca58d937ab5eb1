"""The Frechet distance of two sets of features, as between the Gaussians with their means and covariances.

    d^2 = |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))

The last trace is the sum of the singular values of A B^T for any factors A^T A = S1 and B^T B = S2. Centred features
are such factors, so that n < dimensions needs no matrix of dimensions x dimensions at all, and no square root of a
matrix is ever taken: singular covariances are exact, not a special case. Heusel et al. (2017), equation 6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
from pydantic import Field

from .metric import Items, MetricError, Score, same_network
from .metric_config import Judge, MetricConfig, References, at_least, score
from .statistics import Moments, factor_of

DISTANCE = "Frechet distance"
LARGE = 512
"""From this order on, eigenvalues are tried before singular values, which take three times as long."""
TOLERANCE = 1e-6
"""How much of the distance the faster route may be wrong by, at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianFit:
    """A mean and a factor of the unbiased covariance: `factor.T @ factor`, with at most as many rows as columns."""

    mean: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> GaussianFit:
        """Fitted to rows of features, in float64, a chunk at a time."""
        if np.ndim(features) != 2 or len(features) < 2:
            raise MetricError(
                f"a covariance needs at least 2 rows of features, not an array of shape {np.shape(features)}"
            )
        return cls._of(Moments.of(np.asarray(features)))

    @classmethod
    def of_chunks(cls, chunks: Iterable[np.ndarray]) -> GaussianFit:
        """Fitted to features that come in parts, as a network makes them; none is kept."""
        return cls._of(Moments.of_chunks(chunks))

    @classmethod
    def of_moments(cls, mean: np.ndarray, covariance: np.ndarray) -> GaussianFit:
        """From a published mean and covariance."""
        mean, factor = np.asarray(mean, dtype=np.float64), factor_of(covariance)
        if mean.shape != factor.shape[1:] or not np.isfinite(mean).all():
            raise MetricError(f"a mean of shape {mean.shape} does not belong to a covariance of {factor.shape[1]}")
        return cls(mean=mean, factor=factor)

    @classmethod
    def _of(cls, moments: Moments) -> GaussianFit:
        if moments.count < 2:
            raise MetricError("a covariance needs at least 2 rows of features, not 1")
        return cls(mean=moments.mean, factor=moments.factor / np.sqrt(moments.count - 1))


def frechet_distance(first: GaussianFit, second: GaussianFit) -> float:
    """The squared Frechet distance, which the literature calls FID on Inception's features."""
    if first.mean.shape != second.mean.shape:
        raise MetricError(f"features of {first.mean.size} and {second.mean.size} dimensions cannot be compared")
    offset = first.mean - second.mean
    spread = np.vdot(first.factor, first.factor) + np.vdot(second.factor, second.factor)
    apart = float(offset @ offset + spread)
    product = first.factor @ second.factor.T
    if min(product.shape) >= LARGE:
        common, error = _sum_by_eigenvalues(product)
        distance = apart - 2 * common
        if 2 * error <= TOLERANCE * distance:
            return distance
    return max(apart - 2 * float(np.linalg.svd(product, compute_uv=False).sum()), 0.0)


def _sum_by_eigenvalues(product: np.ndarray) -> tuple[float, float]:
    """The sum of the singular values, and by how much it may be wrong: squaring costs small ones their digits."""
    square = product.T @ product if product.shape[0] >= product.shape[1] else product @ product.T
    eigenvalues = np.maximum(np.linalg.eigvalsh(square), 0.0)
    # Backward error of the product and of the eigenvalues, an order above what is seen (Higham 2002, section 3.5).
    noise = 10 * np.finfo(np.float64).eps * np.sqrt(len(square)) * eigenvalues[-1]
    roots = np.sqrt(eigenvalues)
    wrong = np.minimum(np.sqrt(noise), noise / np.maximum(roots, np.finfo(np.float64).tiny))
    return float(roots.sum()), float(wrong.sum())


def distance_at_infinity(
    real: GaussianFit, features: np.ndarray, *, points: int = 15, smallest: int | None = None, seed: int = 0
) -> float:
    """The Frechet distance that infinitely many synthetic items would have; may be below zero where it is near it.

    The distance of n items is a line in 1/n (Chong and Forsyth 2020, section 3), which is fitted to `points` sizes
    between `smallest` and all, each a random choice of items, and read at 1/n = 0. `smallest` is by default a tenth, but
    2.5 items a dimension (theirs: 5,000 of 50,000, in 2,048 dimensions), at most half. `real` stays as it is: the bias that
    comes of its own finite number is left in, as in theirs.
    """
    count, dimensions = features.shape
    least = min(max(count // 10, 5 * dimensions // 2), count // 2) if smallest is None else smallest
    if points < 2 or not 2 <= least < count:
        raise MetricError(f"a line needs 2 sizes from 2 to {count} items, not {points} from {least}; make more items")
    rng = np.random.default_rng(seed)
    sizes = np.linspace(least, count, points).astype(np.int64)
    distances = [frechet_distance(real, GaussianFit.of(features[rng.permutation(count)[:size]])) for size in sizes]
    return float(np.polyfit(1.0 / sizes, distances, 1)[1])


class FrechetDistance(MetricConfig):
    """How far the synthetic items' features are from the real ones'. Biased upwards at small n."""

    kind: str = Field(default="frechet", pattern="^frechet$")

    def __call__(self, real: Items, synthetic: Items, /) -> Score:
        return self.to(real)(synthetic)

    def to(self, real: Items) -> Callable[[Items], Score]:
        """The distance to `real`, which is fitted once however many sets are measured."""
        fit_of_real = _fitted_once(real)

        def distance(synthetic: Items) -> Score:
            same_network(real, synthetic)
            at_least(2, "a Frechet distance", real, synthetic)
            value = frechet_distance(fit_of_real(), GaussianFit.of(synthetic.rows))
            return score(DISTANCE, value, synthetic, real, better="lower", least=0.0)

        return distance

    def judge(self, references: References) -> Judge:
        distance = self.to(references.test)
        return lambda synthetic: (distance(synthetic),)


class FrechetDistanceAtInfinity(MetricConfig):
    """The Frechet distance without the bias that comes of a finite number of synthetic items."""

    kind: str = Field(default="frechet-infinity", pattern="^frechet-infinity$")
    points: int = Field(default=15, ge=2)
    smallest: int | None = Field(default=None, ge=2)
    seed: int = 0

    def __call__(self, real: Items, synthetic: Items, /) -> Score:
        return self.to(real)(synthetic)

    def to(self, real: Items) -> Callable[[Items], Score]:
        fit_of_real = _fitted_once(real)

        def distance(synthetic: Items) -> Score:
            same_network(real, synthetic)
            at_least(2, "a Frechet distance", real)
            needed = 10 if self.smallest is None else self.smallest + 1
            at_least(needed, "a Frechet distance at infinity", synthetic, instead="`frechet` needs 2")
            value = distance_at_infinity(
                fit_of_real(), synthetic.rows, points=self.points, smallest=self.smallest, seed=self.seed
            )
            return score(f"{DISTANCE} at infinity", value, synthetic, real, better="lower")

        return distance

    def judge(self, references: References) -> Judge:
        distance = self.to(references.test)
        return lambda synthetic: (distance(synthetic),)


class FrechetDistancePerClass(MetricConfig):
    """The distance between the items of each class, its mean over classes, and that of the worst one."""

    kind: str = Field(default="frechet-per-class", pattern="^frechet-per-class$")
    needs_labels: ClassVar[bool] = True

    def judge(self, references: References) -> Judge:
        real = references.test
        real_labels = _labels(real)
        fits: dict[int, GaussianFit] = {}

        def distances(synthetic: Items) -> tuple[Score, ...]:
            same_network(real, synthetic)
            labels = _labels(synthetic)
            found: dict[int, float] = {}
            for label in sorted(set(real_labels.tolist()) | set(labels.tolist())):
                rows = [items.rows[of == label] for items, of in ((real, real_labels), (synthetic, labels))]
                for items, some in zip((real, synthetic), rows, strict=True):
                    if len(some) < 2:
                        raise MetricError(
                            f"{items.name}: class {label} has {len(some)} items, and its Frechet distance needs 2; "
                            "`frechet` compares all classes at once"
                        )
                if label not in fits:
                    fits[label] = GaussianFit.of(rows[0])
                found[label] = frechet_distance(fits[label], GaussianFit.of(rows[1]))
            values = {f"{DISTANCE} of class {label}": value for label, value in found.items()}
            values[f"mean {DISTANCE} of a class"] = float(np.mean(list(found.values())))
            values[f"{DISTANCE} of the worst class"] = max(found.values())
            return tuple(
                score(name, value, synthetic, real, better="lower", least=0.0) for name, value in values.items()
            )

        return distances


def _fitted_once(real: Items) -> Callable[[], GaussianFit]:
    return cache(lambda: GaussianFit.of(real.rows))


def _labels(items: Items) -> np.ndarray:
    if items.labels is None:
        raise MetricError(f"{items.name}: a Frechet distance per class needs labels; `frechet` does without")
    return items.labels
