"""The mean embedding of each class under random Fourier features, in one noisy release.

DP-MERF (Harder et al. 2021, Algorithm 1), which DP-FETA-Pro takes as its warm-up in the frequency domain:

    phi(x) = [cos(W x), sin(W x)] / sqrt(d / 2),   W ~ N(0, 1 / scale),   |phi(x)| = 1

Released is the sum of phi(x) over each class; the mean is that over a public number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..data.training_records import TrainingRecords
from ..privacy.lattice import noisy, on_lattice
from ..privacy.mechanism import JSON, SampledGaussian
from ..privacy.randomness import PublicRng, SecretRng
from .contract import Shape, TrainerError

_ROWS_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True)
class FeatureMeans:
    """The config. `features` d is even; `scale` the squared width of the Gaussian kernel; `seed` public."""

    shape: Shape
    features: int
    scale: float
    seed: int

    def __post_init__(self) -> None:
        if self.features < 2 or self.features % 2 or not self.scale > 0:
            raise TrainerError("feature means: features is an even number of at least 2, scale above 0")

    @property
    def frequencies(self) -> np.ndarray:
        """W, float32 (pixels, features / 2), on pixels in [0, 1]."""
        rng = PublicRng(self.seed).at("feature-means", self.features)
        drawn = rng.standard_normal((self.shape.pixels, self.features // 2), dtype=np.float32)
        return drawn / np.float32(np.sqrt(self.scale))

    def with_noise(self, noise_multiplier: float) -> NoisyFeatureMeans:
        return NoisyFeatureMeans(config=self, noise_multiplier=noise_multiplier)


@dataclass(frozen=True, kw_only=True)
class NoisyFeatureMeans:
    """The mechanism. Returns {"sums": float64 (classes, features)}.

    Formal guarantee: a record adds a vector of L2 norm at most 1 (cut on the lattice, whatever its features are) to the sum
    of its own class, a ghost nothing; noise of `noise_multiplier` lies on every coordinate. One Gaussian query of all
    records: `SampledGaussian(probability=1, noise_multiplier)`.
    """

    config: FeatureMeans
    noise_multiplier: float

    @property
    def cost(self) -> SampledGaussian:
        return SampledGaussian(probability=1.0, noise_multiplier=self.noise_multiplier, steps=1)

    def describe(self) -> Mapping[str, JSON]:
        config = self.config
        return {
            "mechanism": "feature-means",
            "classes": len(config.shape.classes),
            "slots": config.shape.slots,
            "features": config.features,
            "scale": config.scale,
            "seed": config.seed,
            "noise_multiplier": self.noise_multiplier,
        }

    def __call__(self, secret: SecretRng, data: TrainingRecords, /) -> Mapping[str, np.ndarray]:
        config = self.config
        frequencies = config.frequencies
        total = np.zeros((len(config.shape.classes), config.features), dtype=np.int64)
        for start in range(0, len(data), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            points = on_lattice(features_of(data.pixels[rows], frequencies), 1.0)
            points[~data.valid[rows]] = 0  # Not left out: the shape of a product decides the last bits of its rows.
            for label in range(len(total)):
                total[label] += points[data.labels[rows] == label].sum(axis=0, dtype=np.int64)
        return {"sums": noisy(total, clip_norm=1.0, noise_multiplier=self.noise_multiplier, secret=secret)}


def features_of(pixels: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """phi of uint8 images: float32 (n, features)."""
    unit = pixels.reshape(len(pixels), -1).astype(np.float32) / np.float32(255)
    angles = unit @ frequencies
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / np.float32(np.sqrt(frequencies.shape[1]))
