"""A trained diffusion model: what samples, what is released, and what is loaded again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .contract import Arrays, TrainerError
from .diffusion.sampling import SamplerConfig, Seed
from .diffusion.sizes import UNetConfig

if TYPE_CHECKING:
    from torch import nn

FORMAT = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class DiffusionModel:
    """A U-Net on pixels, its weights by name (float32), and how images are drawn of it. `GenerativeModel`."""

    network: UNetConfig
    weights: Arrays = field(repr=False)
    parametrisation: str
    sampling: SamplerConfig
    conditional: bool = True
    device: str = "cpu"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of what it draws."""
        return self.network.image_height, self.network.image_width, self.network.channels

    def sample(
        self, labels: np.ndarray, *, seed: Seed, progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        return self._drawn(labels, seed, self.sampling, None, progress)

    def varied(self, images: np.ndarray, labels: np.ndarray, *, degree: float, seed: Seed) -> np.ndarray:
        """Variations of images, uint8 (n, h, w, c): noise is put on them, the more the higher `degree` in [0, 1], and taken off.

        SDEdit (Meng et al. 2022): the level at `degree` of the way from the least to the most of a walk from noise.
        """
        return self._drawn(labels, seed, self.sampling.up_to(degree), images, None)

    def saved(self) -> tuple[dict[str, Any], Arrays]:
        description = {
            "format": FORMAT,
            "kind": "diffusion",
            "network": {**vars(self.network), "multipliers": list(self.network.multipliers)},
            "parametrisation": self.parametrisation,
            "sampling": self.sampling.model_dump(mode="json"),
            "conditional": self.conditional,
        }
        description["network"]["attention"] = list(self.network.attention)
        return description, {name: np.asarray(weight) for name, weight in self.weights.items()}

    @classmethod
    def load(cls, description: Mapping[str, Any], weights: Arrays) -> DiffusionModel:
        """The inverse of `saved`. Raises TrainerError for what another version wrote."""
        try:
            if description["format"] != FORMAT or description["kind"] != "diffusion":
                raise TrainerError(f"a model of format {description['format']} cannot be read; this is format {FORMAT}")
            network = dict(description["network"])
            network["multipliers"] = tuple(network["multipliers"])
            network["attention"] = tuple(network["attention"])
            return cls(
                network=UNetConfig(**network),
                weights=weights,
                parametrisation=description["parametrisation"],
                sampling=SamplerConfig.model_validate(description["sampling"]),
                conditional=description["conditional"],
            )
        except (KeyError, TypeError) as error:
            raise TrainerError(
                f"the description of the model is damaged ({error}); take the one it came with"
            ) from None

    @cached_property
    def _module(self) -> nn.Module:
        from .diffusion.unet import UNet
        from .loop import load_weights

        module = UNet(self.network)
        load_weights(module, self.weights)
        return module.to(self.device)

    def _drawn(
        self,
        labels: np.ndarray,
        seed: Seed,
        sampling: SamplerConfig,
        start: np.ndarray | None,
        progress: Callable[[int, int], None] | None,
    ) -> np.ndarray:
        from .diffusion.denoisers import parametrisation
        from .diffusion.samplers import sample

        network = self.network
        wanted = labels if self.conditional else np.full_like(labels, network.null)
        return sample(
            self._module,
            parametrisation(self.parametrisation),  # type: ignore[arg-type]
            wanted,
            sampling,
            shape=(network.channels, network.image_height, network.image_width),
            null=network.null,
            seed=seed,
            start=start,
            device=self.device,
            progress=progress,
        )
