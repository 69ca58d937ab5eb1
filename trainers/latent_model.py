"""A trained latent diffusion model: latents are drawn, then decoded. `GenerativeModel`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .contract import Arrays, TrainerError
from .diffusion.sampling import SamplerConfig, Seed
from .diffusion.sizes import AutoencoderConfig, LatentUNetConfig

if TYPE_CHECKING:
    from torch import nn

    from .diffusion.latent import Autoencoder

FORMAT = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentModel:
    """The U-Net of latents, the autoencoder, and how latents are drawn."""

    autoencoder: AutoencoderConfig
    network: LatentUNetConfig
    weights: Arrays = field(repr=False)
    autoencoder_weights: Arrays = field(repr=False)
    parametrisation: str
    sampling: SamplerConfig
    device: str = "cpu"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of what it draws."""
        return self.autoencoder.image_height, self.autoencoder.image_width, self.autoencoder.channels

    def sample(
        self, labels: np.ndarray, *, seed: Seed, progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        return self._drawn(labels, seed, self.sampling, None, progress)

    def varied(self, images: np.ndarray, labels: np.ndarray, *, degree: float, seed: Seed) -> np.ndarray:
        """As `DiffusionModel.varied`, in latents."""
        import torch

        start = torch.from_numpy(self._decoder.encode(images))
        return self._drawn(labels, seed, self.sampling.up_to(degree), start, None)

    def saved(self) -> tuple[dict[str, Any], Arrays]:
        description = {
            "format": FORMAT,
            "kind": "latent-diffusion",
            "autoencoder": {**vars(self.autoencoder), "multipliers": list(self.autoencoder.multipliers)},
            "network": {**vars(self.network), "multipliers": list(self.network.multipliers)},
            "parametrisation": self.parametrisation,
            "sampling": self.sampling.model_dump(mode="json"),
        }
        weights = {f"network/{name}": np.asarray(value) for name, value in self.weights.items()}
        return description, {
            **weights,
            **{f"autoencoder/{name}": np.asarray(value) for name, value in self.autoencoder_weights.items()},
        }

    @classmethod
    def load(cls, description: Mapping[str, Any], weights: Arrays) -> LatentModel:
        """The inverse of `saved`. Raises TrainerError for what another version wrote."""
        try:
            if description["format"] != FORMAT:
                raise TrainerError(f"a model of format {description['format']} cannot be read; this is format {FORMAT}")
            autoencoder, network = dict(description["autoencoder"]), dict(description["network"])
            for table in (autoencoder, network):
                table["multipliers"] = tuple(table["multipliers"])
            return cls(
                autoencoder=AutoencoderConfig(**autoencoder),
                network=LatentUNetConfig(**network),
                weights=_below("network", weights),
                autoencoder_weights=_below("autoencoder", weights),
                parametrisation=description["parametrisation"],
                sampling=SamplerConfig.model_validate(description["sampling"]),
            )
        except (KeyError, TypeError) as error:
            raise TrainerError(
                f"the description of the model is damaged ({error}); take the one it came with"
            ) from None

    @cached_property
    def _module(self) -> nn.Module:
        from .diffusion.latent import LatentUNet
        from .loop import load_weights

        module = LatentUNet(self.network)
        load_weights(module, self.weights)
        return module.to(self.device)

    @cached_property
    def _decoder(self) -> Autoencoder:
        from .diffusion.latent import Autoencoder

        return Autoencoder(self.autoencoder, device=self.device).restore(self.autoencoder_weights)

    def _drawn(
        self,
        labels: np.ndarray,
        seed: Seed,
        sampling: SamplerConfig,
        start: Any,
        progress: Callable[[int, int], None] | None,
    ) -> np.ndarray:
        from .diffusion.denoisers import parametrisation
        from .diffusion.samplers import draw

        latents = draw(
            self._module,
            parametrisation(self.parametrisation),  # type: ignore[arg-type]
            labels,
            sampling,
            shape=self.autoencoder.latent_shape,
            null=self.network.null,
            seed=seed,
            start=start,
            device=self.device,
            progress=progress,
        )
        return self._decoder.decode(latents)


def _below(prefix: str, arrays: Arrays) -> dict[str, np.ndarray]:
    return {name[len(prefix) + 1 :]: value for name, value in arrays.items() if name.startswith(f"{prefix}/")}
