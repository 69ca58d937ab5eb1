"""Warm-ups: what is asked of the private set before the training, and the images that are made of the answer.

Images made of a release are as public as the release: a network may be trained on them as long as one likes. The two kinds are
those of DP-FETA (Li et al. 2025): central images in the domain of time, and of DP-FETA-Pro (Gong et al. 2026, 2601.06368):
images of a generator that matches noisy random Fourier features, in the domain of frequency.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, Field

from ..privacy.mechanism import SampledGaussian
from .central_images import CentralImages, as_images
from .contract import Arrays, Bench, Shape, TrainerError
from .contract import digest as digest_of
from .feature_means import FeatureMeans


class Pretraining(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Ordinary training on images that are public, or made of a release: without noise and without cost."""

    steps: int = Field(gt=0)
    batch: int = Field(default=64, gt=0)
    learning_rate: float = Field(default=3e-4, gt=0)
    conditional: bool = True
    """Whether the network learns the classes; if not, all images have the null label."""
    augmentation: Literal["none", "shift", "flip-shift"] = "none"


class _Table(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    fit: Pretraining
    """The pre-training on the images that come of it."""


class CentralWarmUp(_Table, frozen=True):
    """Noisy sums of small images by class, as pictures: see `central_images`."""

    kind: Literal["central-images"] = "central-images"
    expected_batch: float | None = Field(default=None, gt=0)
    """Records in a round on average; None: all of them, every time."""
    rounds: int = Field(default=5, gt=0)
    noise_multiplier: float = Field(default=5.0, gt=0)
    statistic: Literal["mean", "mode"] = "mean"
    reduce: int = Field(default=2, gt=0)
    bins: int = Field(default=2, gt=1)

    def config(self, shape: Shape) -> CentralImages:
        batch = shape.slots if self.expected_batch is None else self.expected_batch
        if batch > shape.slots:
            raise TrainerError(
                f"trainer.warm_up: expected_batch = {batch:g} is more than the {shape.slots:,} slots there are; lower it"
            )
        return CentralImages(
            shape=shape,
            probability=batch / shape.slots,
            rounds=self.rounds,
            reduce=self.reduce,
            statistic=self.statistic,
            bins=self.bins,
        )

    def cost(self, shape: Shape) -> SampledGaussian:
        return self.config(shape).cost(self.noise_multiplier)

    def images(self, name: str, bench: Bench, shares: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Release the sums, and make one picture a class and round of them: uint8 (n, h, w, c), int64 (n,)."""
        config = self.config(bench.shape)
        released = bench.release(
            name, config.with_noise(self.noise_multiplier), question={"query": self.kind, "shape": vars(bench.shape)}
        )
        return as_images(config, released["sums"], shares)


class FrequencyWarmUp(_Table, frozen=True):
    """Images of a generator that matches the noisy mean features of each class: see `feature_means`."""

    kind: Literal["feature-means"] = "feature-means"
    features: int = Field(default=10_000, gt=1)
    scale: float = Field(default=105.0, gt=0)
    noise_multiplier: float = Field(default=7.4, gt=0)
    width: int = Field(default=32, gt=0)
    """Channels of the generator."""
    steps: int = Field(default=2000, gt=0)
    batch: int = Field(default=100, gt=0)
    learning_rate: float = Field(default=3e-3, gt=0)
    count: int = Field(default=60_000, gt=0)
    """How many images are drawn of the generator, the same number of each class."""

    def config(self, shape: Shape, seed: int) -> FeatureMeans:
        return FeatureMeans(shape=shape, features=self.features, scale=self.scale, seed=seed)

    def cost(self, shape: Shape) -> SampledGaussian:
        return self.config(shape, 0).with_noise(self.noise_multiplier).cost

    def images(self, name: str, bench: Bench, shares: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Release the sums, train the generator on them and draw its images: uint8 (n, h, w, c), int64 (n,)."""
        shape, config = bench.shape, self.config(bench.shape, bench.seed)
        released = bench.release(
            name,
            config.with_noise(self.noise_multiplier),
            question={"query": self.kind, "shape": vars(shape), "seed": bench.seed},
        )
        means = released["sums"] / (shape.slots * np.asarray(shares))[:, None]
        key = {
            "means": digest_of({"means": means}),
            "settings": self.model_dump(mode="json"),
            "shape": vars(shape),
            "seed": bench.seed,
        }

        def make(folder: Path) -> Arrays:
            from .feature_generator import matched_images

            return matched_images(
                means,
                config,
                width=self.width,
                steps=self.steps,
                batch=self.batch,
                learning_rate=self.learning_rate,
                count=self.count,
                folder=folder,
                progress=lambda done, total: bench.progress("generator", done, total),
            )

        made = bench.stage("generator", key, make)
        return made["pixels"], made["labels"]


WarmUp = Annotated[CentralWarmUp | FrequencyWarmUp, Field(discriminator="kind")]
