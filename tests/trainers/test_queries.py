"""The private queries before a training: central images, the semantic query, feature means."""

from __future__ import annotations

import math

import numpy as np
import pytest

from privolve.data.training_records import TrainingRecords
from privolve.privacy.accounting import epsilon
from privolve.privacy.mechanism import DiscreteGaussian, SampledGaussian
from privolve.privacy.randomness import SystemRng
from privolve.trainers.central_images import CentralImages, as_images, shrunk
from privolve.trainers.contract import Shape, TrainerError
from privolve.trainers.feature_means import FeatureMeans, features_of
from privolve.trainers.semantic_query import SemanticQuery, select_disjoint

SHAPE = Shape(width=8, height=6, channels=1, classes=("a", "b", "c"), slots=40)


class Everyone:
    """Draws every record and adds no noise: what is left is the clean query, once rounded to the lattice."""

    def __init__(self, drawn: np.ndarray | None = None) -> None:
        self.drawn = drawn
        self.scales: list[float] = []
        self.probabilities: list[float] = []

    def mask(self, n: int, probability: float) -> np.ndarray:
        self.probabilities.append(probability)
        return np.ones(n, dtype=bool) if self.drawn is None else self.drawn

    def gaussian(self, shape: tuple[int, ...], scale: float) -> np.ndarray:
        self.scales.append(scale)
        return np.zeros(shape)

    def discrete_gaussian(self, counts: np.ndarray, scale: float) -> np.ndarray:
        self.scales.append(scale)
        return counts

    def noisy_max(self, counts: np.ndarray, epsilon: float) -> int:
        raise AssertionError


def records(seed: int = 0, *, ghosts: tuple[int, ...] = ()) -> TrainingRecords:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (SHAPE.slots, SHAPE.height, SHAPE.width, 1), dtype=np.uint8)
    labels = rng.integers(0, 3, SHAPE.slots)
    valid = np.ones(SHAPE.slots, dtype=bool)
    for slot in ghosts:
        pixels[slot], labels[slot], valid[slot] = 0, -1, False
    return TrainingRecords(pixels=pixels, labels=labels, valid=valid)


def extreme(label: int, level: int) -> TrainingRecords:
    """One record of one level everywhere, in the first slot; ghosts elsewhere."""
    pixels = np.zeros((SHAPE.slots, SHAPE.height, SHAPE.width, 1), dtype=np.uint8)
    labels = np.full(SHAPE.slots, -1)
    pixels[0], labels[0] = level, label
    return TrainingRecords(pixels=pixels, labels=labels, valid=labels >= 0)


NOBODY = TrainingRecords(
    pixels=np.zeros((SHAPE.slots, SHAPE.height, SHAPE.width, 1), dtype=np.uint8),
    labels=np.full(SHAPE.slots, -1),
    valid=np.zeros(SHAPE.slots, dtype=bool),
)


def central(**changes: object) -> CentralImages:
    return CentralImages(shape=SHAPE, **{"probability": 0.5, "rounds": 1, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("statistic", ["mean", "mode"])
@pytest.mark.parametrize("level", [0, 255])
def test_a_record_moves_the_sums_of_its_class_by_the_sensitivity_at_most_and_the_others_not_at_all(
    statistic: str, level: int
) -> None:
    config = central(statistic=statistic)
    sums = config.with_noise(1.0)(Everyone(), extreme(1, level))["sums"][0]
    moved = np.linalg.norm(sums[1])
    assert moved <= config.sensitivity
    assert moved == pytest.approx(config.sensitivity, rel=1e-4)
    assert not sums[0].any() and not sums[2].any()


@pytest.mark.parametrize("statistic", ["mean", "mode"])
def test_a_ghost_adds_nothing_though_its_pixels_are_black(statistic: str) -> None:
    mechanism = central(statistic=statistic).with_noise(1.0)
    assert not mechanism(Everyone(), NOBODY)["sums"].any()
    clean = mechanism(Everyone(), records())["sums"]
    without = mechanism(Everyone(), records(ghosts=(3,)))["sums"]
    moved = np.linalg.norm(clean - without)
    assert 0 < moved <= mechanism.config.sensitivity


def test_the_sums_are_those_of_the_drawn_records_about_one_half() -> None:
    data, drawn = records(), np.arange(SHAPE.slots) % 3 == 0
    sums = central().with_noise(1.0)(Everyone(drawn), data)["sums"][0]
    small = shrunk(data.pixels, 2) - 0.5
    for label in range(3):
        expected = small[drawn & (data.labels == label)].sum(axis=0)
        np.testing.assert_allclose(sums[label], expected, atol=1e-3)


def test_noise_is_on_every_class_at_the_stated_scale_once_a_round() -> None:
    config = central(rounds=4)
    secret = Everyone()
    config.with_noise(3.0)(secret, records())
    assert secret.scales == [3.0 * 2**20] * 4
    assert secret.probabilities == [0.5] * 4
    released = config.with_noise(3.0)(SystemRng(), NOBODY)["sums"]
    spread = released.std() / (3.0 * config.sensitivity)
    assert 0.7 < spread < 1.3  # 144 coordinates
    assert config.with_noise(3.0).cost == SampledGaussian(probability=0.5, noise_multiplier=3.0, steps=4)


def test_an_empty_round_and_a_class_without_records_are_only_noise_and_still_images() -> None:
    config = central(rounds=2)
    sums = config.with_noise(0.5)(Everyone(np.zeros(SHAPE.slots, dtype=bool)), records())["sums"]
    images, labels = as_images(config, sums, [1 / 3] * 3)
    assert images.shape == (6, 6, 8, 1) and images.dtype == np.uint8
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert (images == 128).all()


def test_central_images_look_like_the_mean_of_their_class() -> None:
    shape = Shape(width=16, height=16, channels=1, classes=("dark", "bright"), slots=2000)
    labels = np.arange(2000) % 2
    pixels = np.repeat(labels * 200 + 20, 16 * 16).reshape(2000, 16, 16, 1).astype(np.uint8)
    config = CentralImages(shape=shape, probability=1.0, rounds=1)
    data = TrainingRecords(pixels=pixels, labels=labels, valid=np.ones(2000, dtype=bool))
    images, _ = as_images(config, config.with_noise(1.0)(SystemRng(), data)["sums"], [0.5, 0.5])
    assert abs(float(images[0].mean()) - 20) < 4
    assert abs(float(images[1].mean()) - 220) < 4


def picture_of(pixels: np.ndarray) -> np.ndarray:
    """The central image of a class whose mean is known: (height, width, channels)."""
    height, width, channels = pixels.shape
    shape = Shape(width=width, height=height, channels=channels, classes=("only",), slots=1)
    config = CentralImages(shape=shape, probability=1.0, rounds=1, reduce=1)
    return as_images(config, (pixels / 255 - 0.5)[None, None], [1.0])[0][0]


def edge(side: int, channels: int) -> np.ndarray:
    """Dark on the left, bright on the right."""
    return np.broadcast_to(np.repeat([100, 150], side // 2)[:, None], (side, side, channels)).astype(np.uint8)


def test_sharpening_makes_an_edge_of_a_grey_central_image_steeper_and_leaves_the_rest() -> None:
    row = picture_of(edge(16, 1))[8, :, 0]
    assert row.tolist() == [100] * 7 + [50, 200] + [150] * 7


@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_flat_central_image_stays_as_it_is(level: int) -> None:
    flat = np.full((17, 20, 1), level, dtype=np.uint8)
    assert np.array_equal(picture_of(flat), flat)


@pytest.mark.parametrize("picture", [edge(16, 3), edge(8, 1)], ids=["colour", "tiny"])
def test_central_images_in_colour_or_of_few_pixels_are_not_sharpened(picture: np.ndarray) -> None:
    assert np.array_equal(picture_of(picture), picture)


def test_shrinking_averages_whole_blocks_and_what_is_left_at_the_edges() -> None:
    pixels = np.array([[[0, 255, 51], [255, 0, 51], [102, 102, 255]]], dtype=np.uint8)[..., None]
    np.testing.assert_allclose(shrunk(pixels, 2)[0, :, :, 0], [[0.5, 0.2], [0.4, 1.0]])


@pytest.mark.parametrize("changes", [{"probability": 0.0}, {"probability": 1.5}, {"rounds": 0}, {"bins": 1}])
def test_settings_without_sense_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(TrainerError, match="central images"):
        central(**changes)


# The semantic query.


def query(votes: int = 2) -> SemanticQuery:
    return SemanticQuery(shape=SHAPE, public_classes=7, votes=votes)


def by_brightness(pixels: np.ndarray) -> np.ndarray:
    level = pixels.reshape(len(pixels), -1).mean(axis=1) / 255 * 6
    return -np.abs(level[:, None] - np.arange(7))


def test_a_record_votes_for_its_likeliest_public_classes_in_the_row_of_its_label() -> None:
    histogram = query().with_noise(1.0).over(by_brightness)(Everyone(), extreme(2, 255))["histogram"]
    assert histogram.dtype == np.int64
    assert histogram[2].tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert histogram.sum() == 2


def test_a_ghost_or_a_record_without_finite_scores_votes_for_nothing() -> None:
    mechanism = query().with_noise(1.0)
    assert not mechanism.over(by_brightness)(Everyone(), NOBODY)["histogram"].any()
    no_scores = mechanism.over(lambda pixels: np.full((len(pixels), 7), np.nan))
    assert not no_scores(Everyone(), records())["histogram"].any()


def test_the_noise_is_sqrt_k_times_the_multiplier_and_is_accounted_by_cells() -> None:
    secret = Everyone()
    mechanism = query(votes=4).with_noise(50.0)
    mechanism.over(by_brightness)(secret, records())
    assert secret.scales == [100.0]
    assert mechanism.cost == DiscreteGaussian(scale=100.0, cells=4)
    single = SampledGaussian(probability=1.0, noise_multiplier=50.0)
    assert epsilon([mechanism.cost], 1e-5) == pytest.approx(epsilon([single], 1e-5), rel=0.02)


def test_every_count_of_every_class_gets_noise_of_the_stated_scale() -> None:
    mechanism = query().with_noise(1000.0)
    released = mechanism.over(by_brightness)(SystemRng(), NOBODY)["histogram"]
    assert (np.abs(released).max(axis=1) > 0).all()  # by chance all of a row are 0 once in 1e24
    spread = np.sqrt(np.mean(released.astype(float) ** 2)) / mechanism.cost.scale
    assert 0.2 < spread < 2.5  # 21 coordinates: by chance once in 1e13


def test_selected_public_classes_are_disjoint_and_the_most_voted() -> None:
    histogram = np.array([[9, 8, 7, 0, 0, 0], [9, 8, 1, 5, 0, 0], [0, 0, 0, 0, 3, -2000]])
    assert select_disjoint(histogram, 2) == ((0, 2), (1, 3), (4, 5))
    with pytest.raises(TrainerError, match="more than the 6"):
        select_disjoint(histogram, 3)


def test_more_votes_than_public_classes_are_refused() -> None:
    with pytest.raises(TrainerError, match="8 of 7"):
        query(votes=8)


# Feature means.


def means(features: int = 64) -> FeatureMeans:
    return FeatureMeans(shape=SHAPE, features=features, scale=10.0, seed=3)


def test_features_have_norm_one_and_their_products_are_the_gaussian_kernel() -> None:
    config = means(features=20_000)
    data = records()
    phi = features_of(data.pixels, config.frequencies)
    np.testing.assert_allclose(np.linalg.norm(phi, axis=1), 1.0, atol=1e-5)
    x = data.pixels.reshape(40, -1) / 255
    kernel = math.exp(-float(np.sum((x[0] - x[1]) ** 2)) / (2 * 10.0))
    assert float(phi[0] @ phi[1]) == pytest.approx(kernel, abs=0.04)


def test_a_record_moves_the_sum_of_its_class_by_at_most_one() -> None:
    mechanism = means().with_noise(2.0)
    assert mechanism.cost == SampledGaussian(probability=1.0, noise_multiplier=2.0)
    clean = mechanism(Everyone(), records())["sums"]
    without = mechanism(Everyone(), records(ghosts=(5,)))["sums"]
    label = records().labels[5]
    assert 0.999 < np.linalg.norm(clean - without) <= 1.0
    assert np.array_equal(np.delete(clean, label, axis=0), np.delete(without, label, axis=0))
    assert not mechanism(Everyone(), NOBODY)["sums"].any()


def test_the_frequencies_are_public_and_the_same_everywhere() -> None:
    assert np.array_equal(means().frequencies, means().frequencies)
    assert not np.array_equal(
        means().frequencies, FeatureMeans(shape=SHAPE, features=64, scale=10.0, seed=4).frequencies
    )


def test_every_feature_of_every_class_gets_noise_of_the_stated_scale() -> None:
    mechanism = means(features=2000).with_noise(2.0)
    secret = Everyone()
    mechanism(secret, records())
    assert secret.scales == [2.0 * 2**20]
    released = mechanism(SystemRng(), NOBODY)["sums"]
    spread = released.std(axis=1) / 2.0
    assert ((spread > 0.85) & (spread < 1.15)).all()  # 2,000 coordinates each: 9 standard deviations
