from __future__ import annotations

import numpy as np
import pytest

from privolve.evaluation.calibration import brier_score, expected_calibration_error, reliability
from privolve.evaluation.metric import MetricError


def by_hand(probabilities: np.ndarray, truth: np.ndarray, bins: int) -> float:
    """Guo et al. (2017), equation 3, bin by bin."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    error = 0.0
    for m in range(1, bins + 1):
        inside = (confidence > (m - 1) / bins) & (confidence <= m / bins)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


def some(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet([0.5] * 4, size=n), rng.integers(4, size=n)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_it_equals_the_sum_over_bins_by_hand(bins: int) -> None:
    probabilities, truth = some(500, 1)
    assert expected_calibration_error(probabilities, truth, bins=bins) == pytest.approx(
        by_hand(probabilities, truth, bins), rel=1e-12
    )


def test_one_who_is_right_as_often_as_he_says_has_hardly_an_error_and_a_boaster_has_his_boast() -> None:
    rng = np.random.default_rng(2)
    probabilities = rng.dirichlet([1, 1, 1], size=40_000)
    truth = (probabilities.cumsum(axis=1) < rng.random((40_000, 1))).sum(axis=1)
    assert expected_calibration_error(probabilities, truth) < 0.02
    boast = np.tile([0.99, 0.005, 0.005], (300, 1))
    assert expected_calibration_error(boast, np.arange(300) % 3) == pytest.approx(0.99 - 1 / 3)


def test_a_confidence_on_an_edge_belongs_to_the_lower_bin_and_certainty_to_the_last() -> None:
    found = reliability(np.array([[0.8, 0.2], [1.0, 0.0]]), np.array([0, 0]), bins=5)
    assert found.counts.tolist() == [0, 0, 0, 1, 1]
    assert found.confidence.tolist() == [0, 0, 0, 0.8, 1.0]


def test_brier_is_zero_for_certainty_in_the_truth_and_two_in_another_class() -> None:
    assert brier_score(np.eye(3), np.arange(3)) == 0.0
    assert brier_score(np.eye(3), np.array([1, 2, 0])) == 2.0
    assert brier_score(np.full((5, 4), 0.25), np.zeros(5, dtype=int)) == pytest.approx(0.75)


def test_brier_equals_scikit_learns_for_two_classes() -> None:
    from sklearn.metrics import brier_score_loss

    rng = np.random.default_rng(3)
    second = rng.random(200)
    truth = rng.integers(2, size=200)
    ours = brier_score(np.stack([1 - second, second], axis=1), truth)
    assert ours == pytest.approx(2 * brier_score_loss(truth, second), rel=1e-12)


def test_rows_that_do_not_match_or_are_not_finite_are_refused() -> None:
    with pytest.raises(MetricError, match="one row"):
        brier_score(np.eye(3), np.arange(2))
    with pytest.raises(MetricError, match="NaN"):
        expected_calibration_error(np.array([[np.nan, 1.0]]), np.array([1]))
