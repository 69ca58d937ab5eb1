from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from privolve.evaluation.frechet import FrechetDistance, GaussianFit, frechet_distance
from privolve.evaluation.metric import Items, MetricError


def by_square_root(first: np.ndarray, second: np.ndarray) -> float:
    """The textbook route, in float64."""
    one, two = np.cov(first.T), np.cov(second.T)
    offset = first.mean(axis=0) - second.mean(axis=0)
    return float(offset @ offset + np.trace(one + two - 2 * np.real(sqrtm(one @ two))))


def features(n: int, dimensions: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(dimensions, dimensions)) / np.sqrt(dimensions)
    return rng.normal(seed * 0.1, 1.0, size=(n, dimensions)) @ mixing


@pytest.mark.parametrize(("n", "m", "dimensions"), [(400, 300, 24), (300, 40, 24), (25, 400, 24)])
def test_it_equals_the_textbook_where_the_textbook_works(n: int, m: int, dimensions: int) -> None:
    first, second = features(n, dimensions, 1), features(m, dimensions, 2)
    assert frechet_distance(GaussianFit.of(first), GaussianFit.of(second)) == pytest.approx(
        by_square_root(first, second), rel=1e-9
    )


@pytest.mark.parametrize(("n", "m"), [(20, 30), (20, 200), (2, 200), (2, 2)])
def test_fewer_items_than_dimensions_give_the_singular_limit(n: int, m: int) -> None:
    """Textbook with a vanishing ridge, which it needs and we do not."""
    first, second = features(n, 60, 1), features(m, 60, 2)
    ridge = 1e-9 * np.eye(60)
    one, two = np.cov(first.T) + ridge, np.cov(second.T) + ridge
    root = np.linalg.cholesky(one)
    common = np.sqrt(np.maximum(np.linalg.eigvalsh(root.T @ two @ root), 0)).sum()
    offset = first.mean(axis=0) - second.mean(axis=0)
    expected = offset @ offset + np.trace(one + two) - 2 * common
    assert frechet_distance(GaussianFit.of(first), GaussianFit.of(second)) == pytest.approx(expected, rel=1e-3)


def test_published_moments_give_the_same_as_features() -> None:
    first, second = features(300, 16, 1), features(200, 16, 2)
    moments = GaussianFit.of_moments(first.mean(axis=0), np.cov(first.T))
    exact = frechet_distance(GaussianFit.of(first), GaussianFit.of(second))
    assert frechet_distance(moments, GaussianFit.of(second)) == pytest.approx(exact, rel=1e-9)


def test_equal_sets_are_at_distance_zero_and_a_shift_is_its_square() -> None:
    rows = features(100, 32, 3)
    fit = GaussianFit.of(rows)
    assert frechet_distance(fit, fit) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(fit, GaussianFit.of(rows + 0.5)) == pytest.approx(32 * 0.25, rel=1e-9)
    assert frechet_distance(fit, GaussianFit.of(rows[::-1])) == pytest.approx(0.0, abs=1e-9)


def test_constant_features_are_no_trouble() -> None:
    flat = np.ones((10, 4), dtype=np.float32)
    assert frechet_distance(GaussianFit.of(flat), GaussianFit.of(flat * 3)) == pytest.approx(16.0)
    assert frechet_distance(GaussianFit.of_moments(np.ones(4), np.zeros((4, 4))), GaussianFit.of(flat)) == 0.0


def test_the_score_is_protected_only_if_both_sides_are() -> None:
    def items(name: str, protected: bool) -> Items:
        return Items(name=name, values=features(20, 5, 1), network="pixels", network_hash="1", protected=protected)

    metric = FrechetDistance()
    score = metric(items("held-out test", True), items("final population", True))
    assert score.protected and score.better == "lower" and score.network == "pixels"
    assert (score.subject, score.reference, score.n, score.reference_n) == ("final population", "held-out test", 20, 20)
    assert not metric(items("voters", False), items("final population", True)).protected


def test_one_item_has_no_covariance_and_the_message_says_whose() -> None:
    good = Items(name="held-out test", values=features(20, 5, 1))
    with pytest.raises(MetricError, match="final population: a Frechet distance needs at least 2 items, not 1"):
        FrechetDistance()(good, Items(name="final population", values=features(1, 5, 1)))
    with pytest.raises(MetricError):
        GaussianFit.of(np.zeros((1, 5)))


def test_it_sees_what_it_should_on_real_digits(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = digits
    rows = images.reshape(len(images), -1) / 255.0
    fit = GaussianFit.of(rows[::2])
    same = frechet_distance(fit, GaussianFit.of(rows[1::2]))
    dropped = frechet_distance(fit, GaussianFit.of(rows[1::2][labels[1::2] < 5]))
    noisy = frechet_distance(
        fit, GaussianFit.of(rows[1::2] + np.random.default_rng(0).normal(0, 0.3, rows[1::2].shape))
    )
    assert same < dropped / 4 and same < noisy / 4
