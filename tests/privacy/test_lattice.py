"""Lattice noise: no record moves the sum by more than C, batches do not matter, and the noise has its scale."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from privolve.privacy.lattice import RESOLUTION, lattice_sum, noisy, on_lattice
from privolve.privacy.mechanism import MOST_NOISE, SampledGaussian
from privolve.privacy.randomness import SystemRng


class Silent:
    """A source without noise, for looking at clean sums."""

    def gaussian(self, shape: tuple[int, ...], scale: float) -> np.ndarray:
        return np.zeros(shape)


rows = hnp.arrays(
    st.sampled_from([np.float32, np.float64]),
    hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
)


@settings(max_examples=300, deadline=None)
@given(rows, st.sampled_from([1e-6, 0.1, 1.0, 1.7, 1e6]))
def test_no_row_has_a_norm_above_the_clip_norm(batch: np.ndarray, clip_norm: float) -> None:
    points = on_lattice(batch, clip_norm).reshape(len(batch), -1)
    squares = [sum(int(point) ** 2 for point in row) for row in points]
    assert max(squares) <= RESOLUTION**2


@settings(max_examples=200, deadline=None)
@given(rows)
def test_a_row_that_fits_is_kept_up_to_the_lattice_and_one_that_does_not_is_scaled(batch: np.ndarray) -> None:
    points = on_lattice(batch, 2.0).reshape(len(batch), -1)
    for row, point in zip(batch.reshape(len(batch), -1).astype(np.float64), points, strict=True):
        if not np.isfinite(row).all():
            assert not point.any()
            continue
        norm = math.hypot(*row)
        expected = row * min(1.0, 2.0 / norm if norm else 1.0) * (1 - 1e-5)
        assert np.allclose(point * 2.0 / RESOLUTION, expected, rtol=0, atol=2.0 / RESOLUTION * 1.001)
        assert (np.abs(point * 2.0 / RESOLUTION) <= np.abs(expected) * (1 + 1e-9) + 1e-300).all()  # toward zero


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 300), st.lists(st.integers(0, 40), max_size=6), st.integers(0, 2**32 - 1))
def test_the_sum_is_bit_equal_under_any_cut_into_batches(n: int, d: int, cuts: list[int], seed: int) -> None:
    batch = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32) * 10.0
    whole = on_lattice(batch, 1.0).sum(axis=0)
    edges = sorted({0, n, *(min(cut, n) for cut in cuts)})
    parts = [batch[a:b] for a, b in itertools.pairwise(edges)]
    for pieces in (parts, [row[None] for row in batch], [np.asfortranarray(batch)], [batch.astype(np.float64)]):
        total = lattice_sum(pieces, shape=(d,), clip_norm=1.0, noise_multiplier=1.0, secret=Silent())  # type: ignore[arg-type]
        assert np.array_equal(total * RESOLUTION, whole)


def test_one_record_moves_the_sum_by_at_most_the_clip_norm() -> None:
    generator = np.random.default_rng(3)
    for scale in (1e-3, 1.0, 1e30):
        batch = generator.normal(size=(50, 200)) * scale
        ghost = batch.copy()
        ghost[7] = 0.0
        arguments = {"shape": (200,), "clip_norm": 0.3, "noise_multiplier": 1.0, "secret": Silent()}
        moved = lattice_sum([batch], **arguments) - lattice_sum([ghost], **arguments)
        assert np.linalg.norm(moved) <= 0.3


def test_clipping_the_batch_or_not_at_all_would_be_seen() -> None:
    """The check above has power: these two mutants exceed the clip norm."""
    batch = np.ones((4, 9)) * 5.0
    assert np.linalg.norm(batch[0]) > 0.3
    assert np.linalg.norm(on_lattice(batch, 0.3).sum(axis=0)) * 0.3 / RESOLUTION == pytest.approx(1.2, rel=1e-4)


def test_an_empty_batch_gives_noise_all_the_same() -> None:
    total = lattice_sum([], shape=(1000,), clip_norm=1.0, noise_multiplier=2.0, secret=SystemRng())
    assert total.std() > 1.5
    assert np.array_equal(on_lattice(np.zeros((0, 3)), 1.0), np.zeros((0, 3)))


def test_the_noise_has_its_scale_and_not_one_3_percent_off() -> None:
    clip_norm, noise_multiplier = 0.7, 1.3
    noise = noisy(
        np.zeros(1_000_000, np.int64), clip_norm=clip_norm, noise_multiplier=noise_multiplier, secret=SystemRng()
    )
    points = noise / (clip_norm / RESOLUTION)
    assert np.allclose(points, np.rint(points), atol=1e-6)
    scaled = noise / (clip_norm * noise_multiplier)
    assert stats.kstest(scaled, "norm").pvalue > 1e-10
    bound = 6.5 * math.sqrt(2 / noise.size)
    for factor, holds in ((1.0, True), (0.97, False), (1.03, False)):
        assert bool(abs(np.mean((scaled / factor) ** 2) - 1) < bound) is holds


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, math.inf, math.nan])
def test_no_clip_norm_is_refused(clip_norm: float) -> None:
    with pytest.raises(ValueError, match="clip norm"):
        on_lattice(np.ones((1, 2)), clip_norm)


def test_noise_is_added_to_integers_alone() -> None:
    with pytest.raises(TypeError, match="int64"):
        noisy(np.zeros(3), clip_norm=1.0, noise_multiplier=1.0, secret=SystemRng())  # type: ignore[arg-type]


def test_noise_that_would_overflow_the_integers_is_refused_and_not_turned_into_a_constant() -> None:
    total = np.array([0, 3, 7, 11], dtype=np.int64) * RESOLUTION
    for much in (MOST_NOISE * 1.01, 1e15, math.inf, math.nan):
        with pytest.raises(ValueError, match="noise_multiplier"):
            SampledGaussian(probability=1.0, noise_multiplier=much)
        with pytest.raises(ValueError, match="overflow"):
            noisy(total, clip_norm=1.0, noise_multiplier=much, secret=SystemRng())


def test_the_most_noise_still_hides_the_sum() -> None:
    class Furthest:
        """Tails as far out as the sampler's."""

        def gaussian(self, shape: tuple[int, ...], scale: float) -> np.ndarray:
            return np.array([9.3, -9.3]) * scale

    total = np.array([2**40 * RESOLUTION, -(2**40) * RESOLUTION])
    found = noisy(total, clip_norm=1.0, noise_multiplier=MOST_NOISE, secret=Furthest())  # type: ignore[arg-type]
    assert found == pytest.approx([9.3 * MOST_NOISE + 2.0**40, -9.3 * MOST_NOISE - 2.0**40])
