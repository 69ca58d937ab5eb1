from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from privolve.evaluation import precision_recall
from privolve.evaluation.metric import Items, MetricError
from privolve.evaluation.precision_recall import Balls, Manifolds, PrecisionRecall, compare


def features(n: int, dimensions: int, seed: int, spread: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, (n, dimensions)).astype(np.float32)


def figures(real: np.ndarray, synthetic: np.ndarray, k: int = 3) -> Manifolds:
    return compare(Balls.of(real, k), Balls.of(synthetic, k))


def brute_force(real: np.ndarray, synthetic: np.ndarray, k: int) -> Manifolds:
    """By all differences, in float64, without a matrix product."""

    def squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return ((a[:, None].astype(np.float64) - b[None]) ** 2).sum(axis=2)

    radius, other = (np.sort(squares(rows, rows), axis=1)[:, k] for rows in (real, synthetic))
    between = squares(real, synthetic)
    inside = between <= radius[:, None]
    return Manifolds(
        precision=float(inside.any(axis=0).mean()),
        recall=float((between <= other).any(axis=1).mean()),
        density=float(inside.sum(axis=0).mean() / k),
        coverage=float(inside.any(axis=1).mean()),
    )


def assert_equal(found: Manifolds, expected: Manifolds) -> None:
    assert dataclasses.asdict(found) == pytest.approx(dataclasses.asdict(expected), abs=1e-12)


@pytest.mark.parametrize(("n", "m", "dimensions", "k"), [(300, 200, 3, 1), (200, 300, 3, 3), (150, 150, 30, 5)])
def test_all_four_equal_brute_force(n: int, m: int, dimensions: int, k: int) -> None:
    real, synthetic = features(n, dimensions, 1), features(m, dimensions, 2, 0.8)
    assert_equal(figures(real, synthetic, k), brute_force(real, synthetic, k))


def test_precision_and_recall_are_torch_fidelitys(torch_fidelity: SimpleNamespace) -> None:
    torch = pytest.importorskip("torch")
    real, synthetic = features(700, 12, 1), features(600, 12, 2, 0.7)
    found = figures(real, synthetic)
    theirs = torch_fidelity.prc.calculate_precision_recall_full(
        torch.from_numpy(synthetic).double(), torch.from_numpy(real).double(), 3
    )
    assert (found.precision, found.recall) == pytest.approx(theirs, rel=1e-3)
    assert 0.1 < found.recall < 0.9


def test_a_line_of_points_is_known_by_hand() -> None:
    # With k = 1 the real balls are [-1, 1], [0, 2], [1, 3], [2, 18].
    real, synthetic = np.float32([[0], [1], [2], [10]]), np.float32([[0.9], [20.0], [12.0]])
    found = figures(real, synthetic, 1)
    # 0.9 lies in two balls, 20 in none, 12 in the last; the third ball is empty.
    assert found.precision == pytest.approx(2 / 3)
    assert found.density == pytest.approx(3 / 3)
    assert found.coverage == pytest.approx(3 / 4)
    # The synthetic balls reach 11.1, 8 and 8 far: all real points lie in that of 0.9.
    assert found.recall == 1.0


def test_an_item_is_not_its_own_neighbour() -> None:
    real = np.float32([[0], [10], [20]])
    assert figures(real, np.float32([[9], [11], [29.5]]), 1).precision == 1.0  # every ball reaches 10 far
    np.testing.assert_allclose(Balls.of(real, 2).squares, [400, 100, 400])


def test_copies_have_exact_figures_though_every_radius_is_a_tie() -> None:
    real = features(400, 64, 1)
    found = figures(real, np.random.default_rng(0).permutation(real))
    assert_equal(found, Manifolds(precision=1.0, recall=1.0, density=4 / 3, coverage=1.0))


@pytest.mark.parametrize("far", [0.0, 1000.0])
def test_edges_are_decided_exactly_even_far_from_the_origin(far: float) -> None:
    """Points on a grid: nearly every comparison is a tie."""
    rng = np.random.default_rng(2)
    real, synthetic = (rng.integers(0, 4, (120, 3)).astype(np.float32) + np.float32(far) for _ in range(2))
    assert_equal(figures(real, synthetic), brute_force(real, synthetic, 3))


@pytest.mark.parametrize(("rows", "columns"), [(1, 7), (64, 1000), (1000, 33)])
def test_tiles_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch, rows: int, columns: int) -> None:
    real, synthetic = features(130, 8, 1), features(110, 8, 2)
    expected = figures(real, synthetic)
    monkeypatch.setattr(precision_recall, "ROWS", rows)
    monkeypatch.setattr(precision_recall, "COLUMNS", columns)
    assert_equal(figures(real, synthetic), expected)


def test_order_translation_and_scale_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    real, synthetic = features(200, 6, 1), features(180, 6, 2, 0.8)
    expected = figures(real, synthetic)
    assert_equal(figures(rng.permutation(real), rng.permutation(synthetic)), expected)
    assert_equal(figures(real * 1024, synthetic * 1024), expected)
    moved = figures(real + np.float32(1), synthetic + np.float32(1))
    assert dataclasses.asdict(moved) == pytest.approx(dataclasses.asdict(expected), abs=0.02)


def test_mode_collapse_keeps_precision_and_loses_recall_and_coverage() -> None:
    real = features(500, 4, 1)
    found = figures(real, np.repeat(features(1, 4, 2, 0.1), 50, axis=0))
    assert found.precision == 1.0 and found.recall < 0.02 and found.coverage < 0.05


def test_scores_name_their_k_and_carry_protection() -> None:
    real = Items(name="voters", values=features(50, 4, 1), network="pixels")
    synthetic = Items(name="final", values=features(40, 4, 2), network="pixels", protected=True)
    scores = PrecisionRecall(k=5).scores(real, synthetic)
    assert [score.name for score in scores] == [f"{n} (k = 5)" for n in ("precision", "recall", "density", "coverage")]
    assert not any(score.protected for score in scores)
    assert all((score.n, score.reference_n, score.network) == (40, 50, "pixels") for score in scores)


def test_too_few_items_for_k_are_named_with_the_way_out() -> None:
    real = Items(name="held-out test", values=features(50, 4, 1))
    few = Items(name="final", values=features(3, 4, 2))
    with pytest.raises(MetricError, match="final: the neighbour 3 of an item needs at least 4 items, not 3; lower `k`"):
        PrecisionRecall().scores(real, few)
    with pytest.raises(MetricError):
        Balls.of(few.rows, 3)
    with pytest.raises(MetricError):
        compare(Balls.of(real.rows, 2), Balls.of(real.rows, 3))
