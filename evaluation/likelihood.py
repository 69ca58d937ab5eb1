"""FLD, the feature likelihood divergence: how likely held-out items are under a density around the synthetic ones.

A mixture of isotropic Gaussians is centred at the synthetic features, one each, and only their variances are fitted, to
training features. A copy of a training item gets a tiny variance there, and so explains held-out items badly: FLD
punishes what is unlike, what is missing and what is memorised, all three. Jiralerspong et al. (2023), section 3.

    FLD = 100/d (NLL(test | synthetic) - NLL(test | half of train))      equation 4, and the published code
    gap = 100/d (NLL(train | synthetic) - NLL(test | synthetic))         far below 0 where train is memorised

Features are first brought to the mean and deviation that test has in each dimension. The fit is the published code's:
Adam on log variances, from the nearest training item, with one more broad component around the training mean, which
takes what is near no synthetic item and is left out when likelihoods are measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from ..neighbours.blocks import blocks
from .metric import Items, Score, same_network
from .metric_config import Judge, MetricConfig, References, at_least, score, train_of

RATE = 0.5
EPOCHS = 50
BATCH = 10_000
NEAREST = 1e-3
"""Added to the square distance that a variance starts from."""
ORIGIN_SHRINKS = 0.9**2
"""What square distances to the training mean are multiplied by."""
LOWEST, HIGHEST = -40.0, 20.0
"""Of a log variance."""
ROWS = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixture:
    """Equal parts of isotropic Gaussians: `centres` (m, d) and the logarithms of their variances (m,)."""

    centres: np.ndarray
    log_variances: np.ndarray

    @classmethod
    def fitted(cls, centres: np.ndarray, rows: np.ndarray) -> Mixture:
        """Around the centres, with variances under which `rows` (n, d) are likely. Holds n x m float32 numbers."""
        squares = np.empty((len(rows), len(centres)), dtype=np.float32)
        for block in blocks(len(rows), ROWS):
            squares[block] = _square_distances(rows[block], centres)
        offset = rows - rows.mean(axis=0)
        to_origin = ORIGIN_SHRINKS * (offset * offset).sum(axis=1)
        start = np.log((squares.min(axis=0).astype(np.float64) + NEAREST) / rows.shape[1])
        return cls(centres=centres, log_variances=_fit(squares, to_origin, start, rows.shape[1]))

    def negative_log_likelihood(self, rows: np.ndarray) -> float:
        """The mean over rows (n, d), a dimension: in nats."""
        dimensions, total = rows.shape[1], 0.0
        scale, constant = _terms(self.log_variances, len(self.centres), dimensions)
        for block in blocks(len(rows), ROWS):
            logs = constant - _square_distances(rows[block], self.centres) * scale
            total += float(_log_sum(logs).sum())
        return -total / len(rows) / dimensions


@dataclass(frozen=True, kw_only=True)
class Likelihoods:
    """FLD and its generalisation gap, in hundredths of a nat a dimension."""

    divergence: float
    gap: float


def feature_likelihood(train: np.ndarray, test: np.ndarray, synthetic: np.ndarray, *, baseline: float) -> Likelihoods:
    """Of normalised features (n, d) and all their rows; `baseline` is `baseline_of` the same train and test."""
    mixture = Mixture.fitted(synthetic, train)
    of_test, of_train = (mixture.negative_log_likelihood(rows) for rows in (test, train))
    return Likelihoods(divergence=100 * (of_test - baseline), gap=100 * (of_train - of_test))


def baseline_of(train: np.ndarray, test: np.ndarray, *, most: int) -> float:
    """NLL of test under a mixture around the first half of train (at most `most` items), fitted to the rest."""
    half = min(most, len(train) // 2)
    return Mixture.fitted(train[:half], train[half:]).negative_log_likelihood(test)


@dataclass(frozen=True, kw_only=True, eq=False)
class Normalisation:
    """Brings features to mean 0 and deviation 1 of the test items; a dimension that is constant there is only moved."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, test: np.ndarray) -> Normalisation:
        rows = np.asarray(test, dtype=np.float64)
        deviation = rows.std(axis=0, ddof=1)
        return cls(mean=rows.mean(axis=0), deviation=np.where(deviation > 0, deviation, 1.0))

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return (rows - self.mean) / self.deviation


class FeatureLikelihoodDivergence(MetricConfig):
    """FLD on test, and the gap between train and test; lower is better, and 0 is as good as half of the training items.

    Of larger sets, a random choice is used: 10,000 synthetic items, as in the published code, and 20,000 of train (all, there),
    so that no more than 0.8 GB is held. One judgement of 10,000 by 10,000 items takes about a minute of one core.
    """

    kind: str = Field(default="fld", pattern="^fld$")
    needs_train: ClassVar[bool] = True
    most_synthetic: int = Field(default=10_000, ge=1)
    most_train: int = Field(default=20_000, ge=4)
    seed: int = 0

    def judge(self, references: References) -> Judge:
        test, train = references.test, train_of("FLD", references)
        baselines: dict[int, float] = {}

        def figures(synthetic: Items) -> tuple[Score, ...]:
            same_network(test, synthetic)
            same_network(train, synthetic)
            at_least(4, "FLD", train)
            at_least(2, "FLD", test)
            at_least(1, "FLD", synthetic)
            normal = Normalisation.of(test.rows)
            chosen = normal(self._some(synthetic.rows, self.most_synthetic))
            of_train, of_test = normal(self._some(train.rows, self.most_train)), normal(test.rows)
            most = min(len(chosen), len(of_train) // 2)
            if most not in baselines:
                baselines[most] = baseline_of(of_train, of_test, most=most)
            found = feature_likelihood(of_train, of_test, chosen, baseline=baselines[most])
            return (
                score("FLD", found.divergence, synthetic, test, train, better="lower"),
                score("FLD generalisation gap", found.gap, synthetic, test, train, better="higher"),
            )

        return figures

    def _some(self, rows: np.ndarray, most: int) -> np.ndarray:
        """In random order, so that the halves of the baseline are alike."""
        return rows[np.random.default_rng(self.seed).permutation(len(rows))[:most]]


def _fit(squares: np.ndarray, to_origin: np.ndarray, start: np.ndarray, dimensions: int) -> np.ndarray:
    """Log variances that lower -1/(n d) sum log(1/m sum_j N(x_i; c_j, v_j) + N_origin): `EPOCHS` of Adam from `start`.

    `squares` (n, m) are the square distances of rows and centres, `to_origin` (n,) those to the training mean.
    """
    parameters = np.append(start, 0.0)  # the last is the origin's
    adam = _Adam.of(len(parameters))
    for _ in range(EPOCHS):
        for batch in blocks(len(squares), BATCH):
            gradient = _gradient(parameters, squares[batch], to_origin[batch], dimensions)
            parameters = adam.step(parameters, gradient)
            parameters[:-1] = parameters[:-1].clip(LOWEST, HIGHEST)
    return parameters[:-1]


def _gradient(parameters: np.ndarray, squares: np.ndarray, to_origin: np.ndarray, dimensions: int) -> np.ndarray:
    count, centres = squares.shape
    scale, constant = _terms(parameters[:-1], centres, dimensions)
    origin_scale, origin_constant = _terms(parameters[-1:], 1, dimensions)
    weights, weighted = np.zeros(centres + 1), np.zeros(centres + 1)
    for block in blocks(count, ROWS):
        some = squares[block].astype(np.float64)
        logs = np.empty((len(some), centres + 1))
        np.multiply(some, -scale, out=logs[:, :-1])
        logs[:, :-1] += constant
        logs[:, -1] = origin_constant - to_origin[block] * origin_scale
        logs -= _log_sum(logs)[:, None]
        parts = np.exp(logs, out=logs)
        weights += parts.sum(axis=0)
        weighted[:-1] += np.einsum("ij,ij->j", parts[:, :-1], some)
        weighted[-1] += parts[:, -1] @ to_origin[block]
    return (weights / 2 - weighted * np.append(scale, origin_scale) / dimensions) / count


def _terms(log_variances: np.ndarray, parts: int, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """What a square distance is multiplied by, and the constant, of the log density of one of `parts` Gaussians."""
    constant = -dimensions / 2 * (log_variances + math.log(2 * math.pi)) - math.log(parts)
    return np.exp(-log_variances) / 2, constant


def _log_sum(logs: np.ndarray) -> np.ndarray:
    """log sum exp of each row."""
    largest = logs.max(axis=1)
    return largest + np.log(np.exp(logs - largest[:, None]).sum(axis=1))


def _square_distances(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(n, m) in float64, where the distance of copies is zero up to 1e-12 of their norms."""
    squares = (rows * rows).sum(axis=1)[:, None] + (centres * centres).sum(axis=1)
    squares -= 2 * rows @ centres.T
    return np.maximum(squares, 0.0)


@dataclass(kw_only=True)
class _Adam:
    """Kingma and Ba (2015), algorithm 1, with its default decays."""

    first: np.ndarray
    second: np.ndarray
    steps: int = 0

    @classmethod
    def of(cls, size: int) -> _Adam:
        return cls(first=np.zeros(size), second=np.zeros(size))

    def step(self, parameters: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        self.steps += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        mean, square = self.first / (1 - 0.9**self.steps), self.second / (1 - 0.999**self.steps)
        return parameters - RATE * mean / (np.sqrt(square) + 1e-8)
