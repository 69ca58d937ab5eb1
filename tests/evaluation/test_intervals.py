from __future__ import annotations

import numpy as np
import pytest

from privolve.evaluation.intervals import area_interval, area_under_curve, median_interval, share_interval


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (3, 20), (10, 10), (481, 1000)])
def test_a_share_has_the_interval_of_clopper_and_pearson(hits: int, trials: int) -> None:
    from scipy.stats import binomtest

    exact = binomtest(hits, trials).proportion_ci(confidence_level=0.95, method="exact")
    assert share_interval(hits, trials) == pytest.approx((exact.low, exact.high), abs=1e-9)
    wide = share_interval(hits, trials, level=0.99)
    assert wide[0] <= exact.low and wide[1] >= exact.high


def test_the_area_counts_pairs_and_equal_values_half() -> None:
    assert area_under_curve(np.array([2.0, 3.0]), np.array([1.0, 0.0])) == 1.0
    assert area_under_curve(np.array([1.0, 1.0]), np.array([1.0])) == 0.5
    rng = np.random.default_rng(0)
    above, below = rng.integers(0, 9, 50).astype(float), rng.integers(0, 9, 70).astype(float)
    pairs = (above[:, None] > below).mean() + (above[:, None] == below).mean() / 2
    assert area_under_curve(above, below) == pytest.approx(pairs)


def test_the_interval_of_an_area_is_as_wide_as_theory_says() -> None:
    """For two equal samples of n the area's variance is (2 n + 1) / (12 n^2)."""
    rng = np.random.default_rng(1)
    above, below = rng.normal(size=400), rng.normal(size=400)
    low, high = area_interval(above, below)
    assert low < area_under_curve(above, below) < high
    assert (high - low) / (2 * 1.96) == pytest.approx(np.sqrt(801 / 12) / 400, rel=0.15)
    assert area_interval(above, below) == (low, high)
    assert area_interval(above + 100, below) == (1.0, 1.0)


def test_the_interval_of_an_area_covers_the_truth_about_nineteen_times_of_twenty() -> None:
    covered = 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        low, high = area_interval(rng.normal(size=60), rng.normal(size=60), seed=seed)
        covered += low <= 0.5 <= high
    assert 70 <= covered < 80


def test_the_interval_of_a_median_covers_it_at_least_that_often_and_is_made_of_values() -> None:
    covered = 0
    for seed in range(2000):
        values = np.random.default_rng(seed).exponential(size=25)
        low, high = median_interval(values)
        assert low in values and high in values
        covered += low <= np.log(2) <= high
    assert 0.94 < covered / 2000 < 0.98
    assert median_interval(np.arange(10.0)) == (1.0, 8.0)  # the table of order statistics: ranks 2 and 9
    assert median_interval(np.array([4.0])) == (4.0, 4.0)
