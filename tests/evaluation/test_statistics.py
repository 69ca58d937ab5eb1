from __future__ import annotations

import numpy as np
import pytest

from privolve.evaluation.metric import MetricError
from privolve.evaluation.statistics import PENDING, Moments, factor_of, scatter, unit_rows


def rows_of(n: int, dimensions: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(3.0, 1.0, (n, dimensions)) @ rng.normal(size=(dimensions, dimensions))


def covariance(moments: Moments) -> np.ndarray:
    return moments.factor.T @ moments.factor / (moments.count - 1)


@pytest.mark.parametrize("n", [2, 7, 400])
def test_moments_are_numpys(n: int) -> None:
    rows = rows_of(n, 6)
    moments = Moments.of(rows)
    assert moments.count == n and len(moments.factor) <= 6
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(covariance(moments), np.cov(rows.T), rtol=1e-10)


@pytest.mark.parametrize("size", [1, 3, 50, 1000])
def test_the_size_of_chunks_does_not_matter(size: int) -> None:
    rows = rows_of(300, 5)
    chunks = (rows[start : start + size] for start in range(0, 300, size))
    np.testing.assert_allclose(covariance(Moments.of_chunks(chunks)), np.cov(rows.T), rtol=1e-10)


def test_two_sets_merge_into_the_moments_of_both_and_the_factor_stays_small() -> None:
    first, second = rows_of(120, 4, 1), rows_of(90, 4, 2) - 7
    merged = Moments.of(first).merged(Moments.of(second))
    both = np.concatenate([first, second])
    assert merged.count == 210
    np.testing.assert_allclose(merged.mean, both.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(covariance(merged), np.cov(both.T), rtol=1e-10)
    assert len(Moments.of_chunks(rows_of(1000, 4)[i : i + 1] for i in range(1000)).factor) <= 4 * PENDING


def test_a_far_mean_costs_no_digits() -> None:
    rows = np.random.default_rng(0).normal(size=(500, 3))
    np.testing.assert_allclose(covariance(Moments.of(rows + 1e7)), np.cov(rows.T), atol=1e-7)


def test_no_rows_have_no_moments() -> None:
    for wrong in (np.zeros((0, 3)), np.zeros(3)):
        with pytest.raises(MetricError):
            Moments.of(wrong)
    with pytest.raises(MetricError):
        Moments.of_chunks([])
    with pytest.raises(MetricError, match="3 and 4 dimensions"):
        Moments.of(np.ones((2, 3))).merged(Moments.of(np.ones((2, 4))))


@pytest.mark.parametrize("n", [3, 9, 200])
def test_a_covariance_is_factored_even_if_singular(n: int) -> None:
    matrix = np.cov(rows_of(n, 8).T)
    factor = factor_of(matrix)
    assert len(factor) == min(n - 1, 8)
    np.testing.assert_allclose(factor.T @ factor, matrix, atol=1e-10 * np.abs(matrix).max())


def test_what_is_no_covariance_is_refused() -> None:
    for wrong in (np.zeros((2, 3)), np.full((2, 2), np.nan), np.array([[1.0, 5.0], [0.0, 1.0]]), -np.eye(3)):
        with pytest.raises(MetricError):
            factor_of(wrong)
    with pytest.raises(MetricError, match="negative eigenvalues"):
        factor_of(np.diag([2.0, 1.0, -0.5]))


def test_unit_rows_have_length_one_however_long_they_were_and_zero_stays_zero() -> None:
    rows = unit_rows(np.array([[3.0, 4.0], [1e-300, 0.0], [1e300, 1e300], [0.0, 0.0]]))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1, 1, 1, 0])
    np.testing.assert_allclose(rows[0], [0.6, 0.8])


def test_scatter_is_the_product() -> None:
    rows = rows_of(5000, 3).astype(np.float32)
    np.testing.assert_allclose(scatter(rows), rows.astype(np.float64).T @ rows.astype(np.float64), rtol=1e-12)
