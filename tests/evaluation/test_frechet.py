from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.linalg import sqrtm

from privolve.evaluation import frechet
from privolve.evaluation.frechet import (
    FrechetDistance,
    FrechetDistanceAtInfinity,
    FrechetDistancePerClass,
    GaussianFit,
    distance_at_infinity,
    frechet_distance,
)
from privolve.evaluation.metric import Items, MetricError
from privolve.evaluation.metric_config import References


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


def test_it_is_torch_fidelitys(torch_fidelity: SimpleNamespace) -> None:
    torch = pytest.importorskip("torch")
    first, second = features(500, 40, 1), features(400, 40, 2)
    statistics = [torch_fidelity.fid.fid_features_to_statistics(torch.from_numpy(rows)) for rows in (first, second)]
    theirs = torch_fidelity.fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(GaussianFit.of(first), GaussianFit.of(second)) == pytest.approx(theirs, rel=1e-6)
    published = [GaussianFit.of_moments(each["mu"], each["sigma"]) for each in statistics]
    assert frechet_distance(*published) == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("n", [70, 600])
def test_the_fast_route_of_large_matrices_equals_the_slow_one(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    first, second = GaussianFit.of(features(n, 90, 1)), GaussianFit.of(features(300, 90, 2))
    slow = frechet_distance(first, second)
    monkeypatch.setattr(frechet, "LARGE", 2)
    assert frechet_distance(first, second) == pytest.approx(slow, rel=1e-6)


def test_the_fast_route_is_left_where_its_digits_would_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly equal sets with tiny variances: squared, these vanish in the rounding of the large ones."""
    monkeypatch.setattr(frechet, "LARGE", 2)
    scales = np.geomspace(1, 1e-9, 40)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 40)) * scales @ np.linalg.qr(rng.normal(size=(40, 40)))[0]
    first, second = GaussianFit.of(rows), GaussianFit.of(rows + 1e-6)
    assert frechet_distance(first, second) == pytest.approx(40e-12, rel=1e-3)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_features_may_come_in_parts_of_any_size(size: int) -> None:
    first, second = features(300, 12, 1), features(200, 12, 2)
    parts = GaussianFit.of_chunks(first[start : start + size] for start in range(0, 300, size))
    expected = frechet_distance(GaussianFit.of(first), GaussianFit.of(second))
    assert frechet_distance(parts, GaussianFit.of(second)) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(MetricError):
        GaussianFit.of_chunks([first[:1], first[:0]])


def test_published_moments_of_few_items_are_singular_and_exact() -> None:
    first, second = features(20, 60, 1), features(200, 60, 2)
    moments = GaussianFit.of_moments(first.mean(axis=0), np.cov(first.T))
    exact = frechet_distance(GaussianFit.of(first), GaussianFit.of(second))
    assert len(moments.factor) < 60
    assert frechet_distance(moments, GaussianFit.of(second)) == pytest.approx(exact, rel=1e-6)
    with pytest.raises(MetricError, match="does not belong"):
        GaussianFit.of_moments(np.zeros(59), np.cov(first.T))


def test_moving_and_turning_both_sets_changes_nothing() -> None:
    first, second = features(200, 10, 1), features(150, 10, 2)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(10, 10)))[0]
    moved = [GaussianFit.of((rows + 5) @ rotation) for rows in (first, second)]
    expected = frechet_distance(GaussianFit.of(first), GaussianFit.of(second))
    assert frechet_distance(*moved) == pytest.approx(expected, rel=1e-9)


def test_at_infinity_the_bias_of_few_items_is_gone() -> None:
    """Truth: 24 * 0.3^2. The plain distance of 300 items is far above it, on average and each time."""
    truth, plain, extrapolated = 24 * 0.09, [], []
    real = GaussianFit.of_moments(np.zeros(24), np.eye(24))
    for seed in range(20):
        rows = np.random.default_rng(seed).normal(0.3, 1.0, (300, 24))
        plain.append(frechet_distance(real, GaussianFit.of(rows)))
        extrapolated.append(distance_at_infinity(real, rows))
    error = np.std(extrapolated) / np.sqrt(20)
    assert abs(np.mean(extrapolated) - truth) < 6 * error + 0.02 < 0.3
    assert np.mean(plain) > truth + 0.5


def test_at_infinity_a_line_in_one_over_n_is_read_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = GaussianFit.of_moments(np.zeros(2), np.eye(2)), []

    def line(first: GaussianFit, second: GaussianFit) -> float:
        asked.append(int(second.mean[0]))
        return 3.0 + 70.0 / asked[-1]

    class Counted:
        @staticmethod
        def of(rows: np.ndarray) -> GaussianFit:
            return GaussianFit(mean=np.array([len(rows), 0.0]), factor=np.eye(2))

    monkeypatch.setattr(frechet, "frechet_distance", line)
    monkeypatch.setattr(frechet, "GaussianFit", Counted)
    assert distance_at_infinity(real, np.zeros((400, 2)), points=5) == pytest.approx(3.0)
    assert asked == [40, 130, 220, 310, 400]


def test_at_infinity_needs_enough_synthetic_items() -> None:
    good = Items(name="held-out test", values=features(50, 5, 1))
    score = FrechetDistanceAtInfinity()(good, Items(name="final", values=features(40, 5, 2)))
    assert score.name == "Frechet distance at infinity" and score.n == 40
    with pytest.raises(
        MetricError, match="final: a Frechet distance at infinity needs at least 10 items, not 9; `frechet`"
    ):
        FrechetDistanceAtInfinity()(good, Items(name="final", values=features(9, 5, 2)))
    with pytest.raises(MetricError, match="at least 41 items, not 40"):
        FrechetDistanceAtInfinity(smallest=40)(good, Items(name="final", values=features(40, 5, 2)))


def test_each_class_is_compared_with_its_own_and_the_worst_is_named() -> None:
    rows, labels = features(90, 4, 1), np.repeat([0, 1, 2], 30)
    moved = rows + np.where(labels == 2, 3.0, 0.0)[:, None]
    real, synthetic = (
        Items(name=name, values=values, labels=labels, network="pixels")
        for name, values in (("test", rows), ("final", moved))
    )
    scores = FrechetDistancePerClass().judge(References(test=real))(synthetic)
    values = {score.name: score.value for score in scores}
    assert list(values.values()) == pytest.approx([0, 0, 36, 12, 36], abs=1e-9)
    assert "Frechet distance of class 2" in values and "Frechet distance of the worst class" in values
    assert len({score.column for score in scores}) == 5


def test_a_class_that_is_missing_is_named() -> None:
    real = Items(name="test", values=features(40, 4, 1), labels=np.repeat([0, 1], 20))
    judge = FrechetDistancePerClass().judge(References(test=real))
    with pytest.raises(MetricError, match="final: class 1 has 0 items, and its Frechet distance needs 2"):
        judge(Items(name="final", values=features(20, 4, 2), labels=np.zeros(20, dtype=np.int64)))
    with pytest.raises(MetricError, match="test: class 2 has 0 items"):
        judge(Items(name="final", values=features(60, 4, 2), labels=np.repeat([0, 1, 2], 20)))
    with pytest.raises(MetricError, match="final: a Frechet distance per class needs labels"):
        judge(Items(name="final", values=features(20, 4, 2)))
