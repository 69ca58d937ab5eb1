from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from privolve.evaluation.kernel import (
    ClipMaximumMeanDiscrepancy,
    GaussianLessOne,
    KernelInceptionDistance,
    Polynomial,
    interval_of,
    mmd,
    subset_mmds,
)
from privolve.evaluation.metric import Items, MetricError
from privolve.evaluation.statistics import unit_rows


def features(n: int, dimensions: int = 16, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (n, dimensions))


def items(name: str, rows: np.ndarray, *, protected: bool = True) -> Items:
    return Items(name=name, values=rows, network="pixels", network_hash="1", protected=protected)


def by_hand(gram_x: np.ndarray, gram_y: np.ndarray, gram_xy: np.ndarray) -> float:
    n, m = gram_xy.shape
    return (
        (gram_x.sum() - np.trace(gram_x)) / (n * (n - 1))
        + (gram_y.sum() - np.trace(gram_y)) / (m * (m - 1))
        - 2 * gram_xy.mean()
    )


@pytest.mark.parametrize(("n", "m", "size"), [(300, 250, 60), (300, 250, 240), (2500, 2500, 100)])
def test_kid_is_torch_fidelitys(torch_fidelity: SimpleNamespace, n: int, m: int, size: int) -> None:
    """Both ways of computing subsets are among these: one Gram matrix for all, and one a subset."""
    torch = pytest.importorskip("torch")
    real, synthetic = features(m, seed=1), features(n, seed=2, shift=0.3)
    subsets = 20
    theirs = torch_fidelity.kid.kid_features_to_metric(
        torch.from_numpy(synthetic),
        torch.from_numpy(real),
        kid_subsets=subsets,
        kid_subset_size=size,
        kid_kernel="poly",
        kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None,
        kid_kernel_poly_coef0=1,
        rng_seed=2020,
        verbose=False,
    )
    ours = KernelInceptionDistance(subsets=subsets, subset_size=size).distance(real, synthetic)
    assert ours.value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert ours.deviation == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-7)


def test_the_unbiased_mmd_equals_scikit_learns_gram_matrices() -> None:
    from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel

    x, y = features(1300, 8, 1), features(70, 8, 2, 0.2)
    poly = [polynomial_kernel(a, b, degree=3, coef0=1) for a, b in ((x, x), (y, y), (x, y))]
    assert mmd(Polynomial(), x, y) == pytest.approx(by_hand(*poly), rel=1e-9)
    x, y = unit_rows(x), unit_rows(y)
    rbf = [rbf_kernel(a, b, gamma=1 / 200) for a, b in ((x, x), (y, y), (x, y))]
    assert mmd(GaussianLessOne(width=10), x, y) == pytest.approx(by_hand(*rbf), rel=1e-6)
    biased = rbf[0].mean() + rbf[1].mean() - 2 * rbf[2].mean()
    assert mmd(GaussianLessOne(width=10), x, y, biased=True) == pytest.approx(biased, rel=1e-6)


def test_a_case_of_two_points_each_is_known_by_hand() -> None:
    x, y = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    # k(0,1) = 1, k(1,2) = 27, cross: k(0,1) = 1, k(0,2) = 1, k(1,1) = 8, k(1,2) = 27
    assert mmd(Polynomial(), x, y) == pytest.approx(1 + 27 - 2 * (1 + 1 + 8 + 27) / 4)


def test_cmmd_is_a_thousand_times_the_mmd_of_unit_rows() -> None:
    from sklearn.metrics.pairwise import rbf_kernel

    real, synthetic = features(60, 8, 1, 1.0), features(50, 8, 2, 1.3)
    x, y = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (real, synthetic))
    gram = [rbf_kernel(a, b, gamma=1 / 200) for a, b in ((x, x), (y, y), (x, y))]
    unbiased = ClipMaximumMeanDiscrepancy()(items("real", real), items("synthetic", synthetic))
    assert unbiased.value == pytest.approx(1000 * by_hand(*gram), rel=1e-6) and unbiased.name == "CMMD"
    biased = ClipMaximumMeanDiscrepancy(estimate="biased")(items("real", real * 7), items("synthetic", synthetic / 3))
    assert biased.value == pytest.approx(1000 * (gram[0].mean() + gram[1].mean() - 2 * gram[2].mean()), rel=1e-6)
    assert biased.name != unbiased.name


def test_the_order_of_items_does_not_move_cmmd_and_barely_moves_kid() -> None:
    real, synthetic = features(200, seed=1), features(150, seed=2, shift=0.5)
    shuffled = np.random.default_rng(0).permutation(synthetic)
    cmmd = ClipMaximumMeanDiscrepancy()
    assert cmmd.distance(real, shuffled).value == pytest.approx(cmmd.distance(real, synthetic).value, rel=1e-9)
    kid = KernelInceptionDistance()
    assert kid.distance(real, shuffled).value == pytest.approx(kid.distance(real, synthetic).value, rel=0.05)


def test_the_size_of_a_subset_does_not_move_the_expectation() -> None:
    real, synthetic = features(400, seed=1), features(400, seed=2, shift=0.5)
    full = mmd(Polynomial(), real, synthetic)
    for size in (20, 200):
        found = subset_mmds(Polynomial(), real, synthetic, subsets=300, size=size, seed=0)
        assert abs(found.mean() - full) < 6 * found.std() / np.sqrt(300) < full / 5


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Equal distributions: the truth is zero. 95 % or a little more, and not as wide as to hold everything."""
    held, widths, values = 0, [], []
    for seed in range(150):
        x, y = features(100, 6, 2 * seed), features(100, 6, 2 * seed + 1)
        value = mmd(Polynomial(), x, y)
        interval = interval_of(Polynomial(), x, y, value=value, seed=0)
        assert interval is not None
        held += interval[0] <= 0 <= interval[1]
        widths.append(interval[1] - interval[0])
        values.append(value)
    assert held >= 120  # P(Binomial(150, 0.95) < 120) < 1e-9
    assert np.median(widths) < 40 * np.std(values)
    assert interval_of(Polynomial(), features(25), features(100), value=0.0, seed=0) is None


def test_an_interval_does_not_mind_items_sorted_by_class() -> None:
    """Parts taken in order would compare one class with the other, and find them nowhere near zero."""
    low, high = features(100, shift=-1), features(100, seed=1, shift=1)
    other_low, other_high = features(100, seed=2, shift=-1), features(100, seed=3, shift=1)
    real, synthetic = np.concatenate([low, high]), np.concatenate([other_high, other_low])
    sorted_by_class = KernelInceptionDistance().distance(real, synthetic).interval
    shuffled = (
        KernelInceptionDistance().distance(*map(np.random.default_rng(5).permutation, (real, synthetic))).interval
    )
    assert sorted_by_class is not None and shuffled is not None
    assert sorted_by_class[1] - sorted_by_class[0] < 3 * (shuffled[1] - shuffled[0])
    apart = mmd(Polynomial(), low, other_high)
    assert sorted_by_class[1] - sorted_by_class[0] < apart


def test_the_interval_of_a_squared_norm_is_not_below_nought_and_that_of_an_unbiased_estimate_is() -> None:
    real, synthetic = items("real", features(60)), items("synthetic", features(60, seed=1))
    unbiased, biased = (ClipMaximumMeanDiscrepancy(estimate=each)(real, synthetic) for each in ("unbiased", "biased"))
    assert unbiased.interval is not None and unbiased.interval[0] < 0
    assert biased.interval is not None and biased.interval[0] >= 0


def test_too_few_items_are_named_with_the_way_out() -> None:
    real = items("held-out test", features(500))
    with pytest.raises(MetricError, match="final: KID needs at least 300 items, not 200; lower `subset_size`"):
        KernelInceptionDistance(subset_size=300)(real, items("final", features(200)))
    with pytest.raises(MetricError, match="final: KID needs at least 4 items, not 3"):
        KernelInceptionDistance()(real, items("final", features(3)))
    with pytest.raises(MetricError, match="final: CMMD needs at least 2 items, not 1"):
        ClipMaximumMeanDiscrepancy()(real, items("final", features(1)))


def test_the_score_says_what_it_was_made_of() -> None:
    score = KernelInceptionDistance()(items("voters", features(90), protected=False), items("final", features(80)))
    assert (score.subject, score.reference, score.n, score.reference_n) == ("final", "voters", 80, 90)
    assert (score.network, score.network_hash, score.better, score.protected) == ("pixels", "1", "lower", False)
    assert score.interval is not None and score.interval[0] < score.value < score.interval[1]
