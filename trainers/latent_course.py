"""The course in latents: an autoencoder and a diffusion model of its latents, both trained on public images, then DP-SGD.

Only a part of the latent model is trained on private records: what attends to the class. A latent is a function of its own
image alone, so that it changes nothing about sampling, clipping or noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from .contract import Arrays, Bench, PublicImages, Shape, TrainerError
from .contract import digest as digest_of
from .course import DiffusionMethod, Table
from .diffusion.sizes import AutoencoderConfig, LatentUNetConfig

if TYPE_CHECKING:
    from torch import nn

    from .contract import GenerativeModel
    from .diffusion.latent import Autoencoder


class AutoencoderTable(Table, frozen=True):
    """The autoencoder of public images; each multiplier after the first halves the sides."""

    steps: int = Field(gt=0)
    batch: int = Field(default=64, gt=0)
    learning_rate: float = Field(default=2e-3, gt=0)
    latent_channels: int = Field(default=3, gt=0)
    width: int = Field(default=16, gt=0)
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = Field(default=1, gt=0)


class LatentTable(Table, frozen=True):
    """The U-Net of latents, which attends to the class."""

    width: int = Field(default=16, gt=0)
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = Field(default=1, gt=0)
    heads: int = Field(default=2, gt=0)
    context: int = Field(default=32, gt=0)


TINY: Mapping[str, Any] = {
    "epochs": 20,
    "autoencoder": {"steps": 600},
    "latent": {},
    "pretraining": {"steps": 1000, "batch": 128, "learning_rate": 2e-3},
}
SMALL: Mapping[str, Any] = {
    "autoencoder": {"steps": 2000, "width": 32},
    "latent": {"width": 32},
    "pretraining": {"steps": 4000, "batch": 64, "learning_rate": 1e-3},
}
PAPER: Mapping[str, Any] = {
    "autoencoder": {"steps": 80_000, "width": 128, "blocks": 2, "learning_rate": 3e-4},
    "latent": {"width": 32, "multipliers": (1, 2, 2), "blocks": 2, "heads": 8, "context": 512},
    "pretraining": {"steps": 200_000, "batch": 1024, "learning_rate": 1e-3},
}


class LatentMethod(DiffusionMethod, frozen=True):
    """Abstract: the settings that the latent methods share."""

    autoencoder: AutoencoderTable
    latent: LatentTable = LatentTable()

    def check(self, shape: Shape, public: PublicImages | None) -> None:
        super().check(shape, public)
        if find_spec("diffusers") is None:
            raise TrainerError(f"{self.kind} needs diffusers: pip install 'privolve[train]'")
        if public is None:
            raise TrainerError(f"{self.kind} trains its autoencoder on a public set; name one in [public]")
        if self.augmentation != "none" or (self.pretraining and self.pretraining.augmentation != "none"):
            raise TrainerError(f"{self.kind} sees latents, which are not augmented; set augmentation = 'none'")
        try:
            self.network_config(shape, len(shape.classes))
        except ValueError as error:
            raise TrainerError(f"trainer: {error}") from None

    def seen(self, shape: Shape) -> tuple[int, int, int]:
        return self._autoencoder_config(shape).latent_shape

    def network_config(self, shape: Shape, classes: int) -> LatentUNetConfig:
        channels, height, width = self._autoencoder_config(shape).latent_shape
        return LatentUNetConfig(
            height=height,
            width_in=width,
            channels=channels,
            classes=classes,
            **self.latent.model_dump(),
        )

    def module(self, shape: Shape, seed: int, *, classes: int | None = None) -> nn.Module:
        from .diffusion.latent import LatentUNet
        from .loop import initialised

        config = self.network_config(shape, len(shape.classes) if classes is None else classes)
        return initialised(lambda: LatentUNet(config), seed, "latent-unet")

    def encoder(self, bench: Bench) -> Callable[[np.ndarray], np.ndarray]:
        return self._autoencoder(bench).encode

    def depends_on(self, bench: Bench) -> Mapping[str, str]:
        return {"autoencoder": digest_of(self._autoencoder(bench).saved())}

    def model(self, bench: Bench, weights: Arrays) -> GenerativeModel:
        from .latent_model import LatentModel

        return LatentModel(
            autoencoder=self._autoencoder_config(bench.shape),
            network=self.network_config(bench.shape, len(bench.shape.classes)),
            weights=weights,
            autoencoder_weights=self._autoencoder(bench).saved(),
            parametrisation=self.parametrisation,
            sampling=self.sampling,
            device=bench.device,
        )

    def _autoencoder_config(self, shape: Shape) -> AutoencoderConfig:
        table = self.autoencoder
        return AutoencoderConfig(
            image_width=shape.width,
            image_height=shape.height,
            channels=shape.channels,
            latent_channels=table.latent_channels,
            width=table.width,
            multipliers=table.multipliers,
            blocks=table.blocks,
        )

    def _autoencoder(self, bench: Bench) -> Autoencoder:
        """Trained on the public images: a stage that the latent methods share."""
        from .diffusion.latent import Autoencoder, train_autoencoder

        public, config, table = bench.public, self._autoencoder_config(bench.shape), self.autoencoder
        assert public is not None  # `check` saw to it.
        key = {
            "images": public.digest,
            "config": repr(config),
            "settings": table.model_dump(mode="json"),
            "seed": bench.seed,
        }

        def make(folder: Path) -> Arrays:
            return train_autoencoder(
                public.pixels,
                config,
                steps=table.steps,
                batch=table.batch,
                learning_rate=table.learning_rate,
                seed=bench.seed,
                device=bench.device,
                folder=folder,
                progress=lambda done, total: bench.progress("autoencoder", done, total),
            ).saved()

        return Autoencoder(config, device=bench.device).restore(bench.stage("autoencoder", key, make))
