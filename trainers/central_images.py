"""Central images: noisy sums of small versions of each class's images, over Poisson samples of the records.

DP-FETA (Li et al. 2025, S&P) averages the images of a class in a random batch and adds noise that was scaled for another
denominator than the mean was divided by. Here the *sum* is released, of pixels centred at 1/2, and divided afterwards by a
public constant: the rate times N times the declared share of the class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..data.training_records import TrainingRecords
from ..privacy.lattice import noisy, on_lattice
from ..privacy.mechanism import JSON, SampledGaussian
from ..privacy.randomness import SecretRng
from .contract import Shape, TrainerError

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class CentralImages:
    """The config: `rounds` queries, each over a Poisson sample of rate `probability`.

    `reduce` is by how much an edge shrinks, by averaging whole blocks; what is left over at the edges is averaged too.
    `statistic` "mean" sums pixels, "mode" counts in which of `bins` levels each pixel lies.
    """

    shape: Shape
    probability: float
    rounds: int
    reduce: int = 2
    statistic: Literal["mean", "mode"] = "mean"
    bins: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise TrainerError(f"central images: the sampling probability is {self.probability}; it lies in (0, 1]")
        if self.rounds < 1 or self.reduce < 1 or self.bins < 2:
            raise TrainerError("central images: rounds and reduce are at least 1, bins at least 2")

    @property
    def small(self) -> tuple[int, int, int]:
        """(height, width, channels) of what is summed."""
        return -(-self.shape.height // self.reduce), -(-self.shape.width // self.reduce), self.shape.channels

    @property
    def sensitivity(self) -> float:
        """The L2 norm of the most that a record adds to the sums of all classes: it has one class.

        Mean: every pixel moves its sum by at most 1/2. Mode: every pixel adds 1 to one bin.
        """
        return math.sqrt(math.prod(self.small)) * (0.5 if self.statistic == "mean" else 1.0)

    def cost(self, noise_multiplier: float) -> SampledGaussian:
        return SampledGaussian(probability=self.probability, noise_multiplier=noise_multiplier, steps=self.rounds)

    def with_noise(self, noise_multiplier: float) -> NoisyCentralImages:
        return NoisyCentralImages(config=self, noise_multiplier=noise_multiplier)


@dataclass(frozen=True, kw_only=True)
class NoisyCentralImages:
    """The mechanism. Returns {"sums": float64 (rounds, classes, height, width, channels[, bins])}.

    Formal guarantee: in each round a record is drawn with the public probability, independently of all others, and then
    adds a vector of L2 norm at most `sensitivity` (cut on the lattice) to the sums of its own class and nothing to the
    others'; a ghost is drawn alike and adds nothing, because it is zero after the centring and not before. Noise of
    `noise_multiplier * sensitivity` lies on every coordinate of every class. So a round is a Poisson-sampled Gaussian
    mechanism, and all rounds cost `SampledGaussian(probability, noise_multiplier, rounds)`.
    """

    config: CentralImages
    noise_multiplier: float

    @property
    def cost(self) -> SampledGaussian:
        return self.config.cost(self.noise_multiplier)

    def describe(self) -> Mapping[str, JSON]:
        config = self.config
        return {
            "mechanism": "central-images",
            "classes": len(config.shape.classes),
            "slots": config.shape.slots,
            "image": [config.shape.height, config.shape.width, config.shape.channels],
            "reduce": config.reduce,
            "statistic": config.statistic,
            "bins": config.bins if config.statistic == "mode" else 0,
            "probability": config.probability,
            "rounds": config.rounds,
            "sensitivity": config.sensitivity,
            "noise_multiplier": self.noise_multiplier,
        }

    def __call__(self, secret: SecretRng, data: TrainingRecords, /) -> Mapping[str, np.ndarray]:
        rounds = [self._round(secret, data) for _ in range(self.config.rounds)]
        return {"sums": np.stack(rounds)}

    def _round(self, secret: SecretRng, data: TrainingRecords) -> np.ndarray:
        config = self.config
        drawn = np.flatnonzero(secret.mask(len(data), config.probability))
        cell = config.small if config.statistic == "mean" else (*config.small, config.bins)
        total = np.zeros((len(config.shape.classes), *cell), dtype=np.int64)
        for start in range(0, len(drawn), _ROWS_AT_ONCE):
            rows = drawn[start : start + _ROWS_AT_ONCE]
            points = on_lattice(self._contributions(data.pixels[rows]), config.sensitivity)
            points[~data.valid[rows]] = 0
            for label in range(len(total)):
                total[label] += points[data.labels[rows] == label].sum(axis=0, dtype=np.int64)
        return noisy(total, clip_norm=config.sensitivity, noise_multiplier=self.noise_multiplier, secret=secret)

    def _contributions(self, pixels: np.ndarray) -> np.ndarray:
        """What each record adds: its small image about 1/2, or one 1 a pixel in the bin of its level."""
        small = shrunk(pixels, self.config.reduce)
        if self.config.statistic == "mean":
            return small - 0.5
        levels = np.minimum((small * self.config.bins).astype(np.int64), self.config.bins - 1)
        return (levels[..., None] == np.arange(self.config.bins)).astype(np.float64)


def shrunk(pixels: np.ndarray, reduce: int) -> np.ndarray:
    """uint8 images (n, height, width, channels) as means in [0, 1] of blocks of `reduce` pixels, edges by what is there."""
    unit = pixels.astype(np.float64) / 255
    for axis in (1, 2):
        starts = np.arange(0, unit.shape[axis], reduce)
        counts = np.diff([*starts, unit.shape[axis]]).astype(np.float64)
        shape = [1, 1, 1, 1]
        shape[axis] = len(starts)
        unit = np.add.reduceat(unit, starts, axis=axis) / counts.reshape(shape)
    return unit


def as_images(config: CentralImages, sums: np.ndarray, shares: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Released sums as images: uint8 (rounds * classes, height, width, channels) of full size, and their labels.

    Post-processing. Divided by the public expected number of the class's records, put back about 1/2, clipped, enlarged
    bicubically and freed of single pixels by a median over 3 x 3; where there is no colour, sharpened after that. As the
    paper does, but for its bilinear enlargement; pictures below 16 pixels stay as they are enlarged.
    """
    from PIL import Image, ImageFilter

    shape = config.shape
    images: list[np.ndarray] = []
    labels: list[int] = []
    for released in sums:
        for label in range(len(shape.classes)):
            expected = config.probability * shape.slots * shares[label]
            if config.statistic == "mean":
                small = np.clip(released[label] / expected + 0.5, 0.0, 1.0)
            else:
                small = np.argmax(released[label], axis=-1) / (config.bins - 1)
            levels = np.rint(small * 255).astype(np.uint8)
            picture = Image.fromarray(levels[:, :, 0] if shape.channels == 1 else levels)
            picture = picture.resize((shape.width, shape.height), Image.Resampling.BICUBIC)
            if min(shape.width, shape.height) >= 16:
                picture = picture.filter(ImageFilter.MedianFilter(3))
                if shape.channels == 1:
                    picture = picture.filter(ImageFilter.Kernel((3, 3), (0, -1, 0, -1, 5, -1, 0, -1, 0)))
            images.append(np.asarray(picture, dtype=np.uint8).reshape(shape.height, shape.width, shape.channels))
            labels.append(label)
    return np.stack(images), np.array(labels, dtype=np.int64)
