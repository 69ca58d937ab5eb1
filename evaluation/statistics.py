"""What metrics compute from rows of features, a chunk at a time: moments, unit rows, kernels' Gram matrices.

Moments are a mean and a factor R of the scatter matrix, R^T R = sum (x - mean)(x - mean)^T, updated by orthogonal
transformations: no scatter matrix is ever formed, so nothing is lost by squaring.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..neighbours.blocks import blocks
from .metric import MetricError

CHUNK = 4096
"""Rows that are held in float64 at once."""
PENDING = 4
"""A factor is reduced when it has more rows than this many times its columns: fewer reductions, more memory."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """`count` rows so far, their `mean` (d,) and a `factor` (any, d) of their scatter matrix; float64."""

    count: int
    mean: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Moments:
        """Of features (n, d), n >= 1, in chunks."""
        if rows.ndim != 2 or not len(rows):
            raise MetricError(f"moments need rows of features, not an array of shape {rows.shape}")
        return cls.of_chunks(rows[block] for block in blocks(len(rows), CHUNK))

    @classmethod
    def of_chunks(cls, chunks: Iterable[np.ndarray]) -> Moments:
        """Of features that come in parts (n_i, d), which need not be kept. Empty parts are skipped."""
        total: Moments | None = None
        for chunk in chunks:
            rows = np.asarray(chunk, dtype=np.float64)
            if rows.ndim != 2:
                raise MetricError(f"moments need rows of features, not an array of shape {rows.shape}")
            if len(rows):
                mean = rows.mean(axis=0)
                part = cls(count=len(rows), mean=mean, factor=rows - mean)
                total = part if total is None else total.merged(part)
        if total is None:
            raise MetricError("moments need at least one row of features")
        return total.reduced()

    def merged(self, other: Moments) -> Moments:
        """Of both sets of rows together (Chan, Golub and LeVeque 1983, equation 2.1)."""
        if self.mean.shape != other.mean.shape:
            raise MetricError(f"features of {self.mean.size} and {other.mean.size} dimensions have no common moments")
        count = self.count + other.count
        offset = other.mean - self.mean
        between = np.sqrt(self.count * other.count / count) * offset
        factor = np.concatenate([self.factor, other.factor, between[None]])
        merged = Moments(count=count, mean=self.mean + offset * (other.count / count), factor=factor)
        return merged if len(factor) <= PENDING * factor.shape[1] else merged.reduced()

    def reduced(self) -> Moments:
        """The same, with at most as many rows in the factor as it has columns."""
        if len(self.factor) <= self.factor.shape[1]:
            return self
        return Moments(count=self.count, mean=self.mean, factor=np.asarray(np.linalg.qr(self.factor, mode="r")))


def factor_of(covariance: np.ndarray) -> np.ndarray:
    """F (rank, d) with F^T F = covariance (d, d): Cholesky with complete pivoting, so that a singular one is exact too."""
    from scipy.linalg import get_lapack_funcs

    matrix = np.array(covariance, dtype=np.float64, order="F")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.isfinite(matrix).all():
        raise MetricError(f"a covariance is a finite square matrix, not {matrix.shape} with NaN or infinity")
    size = float(np.abs(matrix).max(initial=0.0))
    if not np.allclose(matrix, matrix.T, rtol=0, atol=1e-6 * size):
        raise MetricError("the covariance is not symmetric; was it saved by rows?")
    trace = float(np.trace(matrix))
    if size == 0:
        return np.zeros((0, len(matrix)))
    (pivoted_cholesky,) = get_lapack_funcs(("pstrf",), (matrix,))
    upper, pivots, rank, _ = pivoted_cholesky(matrix, lower=0)
    factor = np.zeros((rank, len(matrix)))
    factor[:, pivots - 1] = np.triu(upper)[:rank]
    if not abs(trace - np.vdot(factor, factor)) <= 1e-4 * trace:
        raise MetricError("the covariance has negative eigenvalues; it is that of no features")
    return factor


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Each row over its length, float64; a row of zeros has no direction and stays zero."""
    features = np.asarray(rows, dtype=np.float64)
    largest = np.abs(features).max(axis=1, initial=0.0)[:, None]
    # Over the largest first: the square of a very small or large number is none.
    scaled = np.divide(features, largest, out=np.zeros_like(features), where=largest > 0)
    length = np.sqrt((scaled * scaled).sum(axis=1))[:, None]
    return np.divide(scaled, length, out=scaled, where=length > 0)


def scatter(rows: np.ndarray) -> np.ndarray:
    """rows^T rows, float64, in chunks."""
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for block in blocks(len(rows), CHUNK):
        some = np.asarray(rows[block], dtype=np.float64)
        total += some.T @ some
    return total
