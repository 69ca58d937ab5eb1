"""Diffusion in the latents of an autoencoder (Rombach et al. 2022), by diffusers' networks.

The autoencoder is trained on public images alone. Its latents are moved and scaled, by statistics of the public images, to mean
0 and the standard deviation of pixels, so that parametrisations hold for both. A latent is the mean of its distribution: a
function of the image alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...privacy.randomness import PublicRng
from ..loop import Unfinished, set_rate
from .denoisers import SIGMA_DATA
from .samplers import to_pixels, to_unit
from .sizes import AutoencoderConfig, LatentUNetConfig

Part = Literal["all", "attention"]


class Autoencoder:
    """Images to latents and back. `weights` and `scaling` are all of its state."""

    def __init__(self, config: AutoencoderConfig, *, device: str = "cpu") -> None:
        self.config = config
        self.device = device
        self.network = _autoencoder(config).to(device)
        self.mean, self.scale = np.zeros((config.latent_channels, 1, 1), np.float32), 1.0

    def encode(self, pixels: np.ndarray, *, batch: int = 256) -> np.ndarray:
        """uint8 (n, h, w, c) as latents float32 (n, *latent_shape). `DiffusionLoss.rows(seed, encode=...)` takes this."""
        latents = np.empty((len(pixels), *self.config.latent_shape), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(pixels), batch):
                images = torch.from_numpy(to_unit(pixels[start : start + batch])).to(self.device)
                latents[start : start + batch] = self.network.encode(images).latent_dist.mode().cpu().numpy()
        return (latents - self.mean) * np.float32(self.scale)

    def decode(self, latents: Tensor, *, batch: int = 256) -> np.ndarray:
        """float (n, *latent_shape) as uint8 (n, h, w, c)."""
        whole = latents / self.scale + torch.from_numpy(self.mean)
        shape = (len(latents), self.config.image_height, self.config.image_width, self.config.channels)
        pixels = np.empty(shape, dtype=np.uint8)
        with torch.inference_mode():
            for start in range(0, len(latents), batch):
                images = self.network.decode(whole[start : start + batch].to(self.device)).sample
                pixels[start : start + batch] = to_pixels(images.cpu())
        return pixels

    def saved(self) -> dict[str, np.ndarray]:
        """Everything that `restore` needs, as arrays."""
        weights = {f"network/{name}": value.cpu().numpy() for name, value in self.network.state_dict().items()}
        return {**weights, "mean": self.mean, "scale": np.asarray(self.scale, dtype=np.float64)}

    def restore(self, saved: Mapping[str, np.ndarray]) -> Autoencoder:
        """Take the state of `saved`, and be it."""
        weights = {
            name.removeprefix("network/"): torch.from_numpy(np.array(value))
            for name, value in saved.items()
            if name.startswith("network/")
        }
        self.network.load_state_dict(weights)
        self.mean, self.scale = np.array(saved["mean"], dtype=np.float32), float(saved["scale"])
        return self


def train_autoencoder(
    pixels: np.ndarray,
    config: AutoencoderConfig,
    *,
    steps: int,
    seed: int,
    batch: int = 64,
    learning_rate: float = 2e-3,
    kl_weight: float = 1e-6,
    device: str = "cpu",
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Autoencoder:
    """An autoencoder of *public* images, uint8 (n, h, w, c): absolute and squared error, and a little KL.

    Stopped and called again with the same `folder`, it goes on and ends with the same bits.

    The published ones add a perceptual and an adversarial loss, which need networks of their own.
    """
    if not len(pixels) or steps < 1:
        raise ValueError(f"an autoencoder is trained on images, for steps: {len(pixels)} images, {steps} steps")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(PublicRng(seed).at("autoencoder", "weights").integers(2**63)))
        trained = Autoencoder(config, device=device)
    optimizer = torch.optim.Adam(trained.network.parameters(), lr=learning_rate)
    unfinished, first = None, 0
    if folder is not None:
        parameters = dict(trained.network.named_parameters())
        unfinished = Unfinished(folder, trained.network.state_dict(), parameters, optimizer)
        first = unfinished.resumed()
    for step in range(first, steps):
        set_rate(optimizer, learning_rate, step, steps)
        draw = PublicRng(seed).at("autoencoder", "step", step)
        rows = draw.integers(0, len(pixels), batch)
        images = torch.from_numpy(to_unit(pixels[rows])).to(device)
        latents = trained.network.encode(images).latent_dist
        noise = torch.from_numpy(draw.standard_normal(tuple(latents.mean.shape), dtype=np.float32)).to(device)
        again = trained.network.decode(latents.mean + latents.std * noise).sample
        error = functional.l1_loss(again, images) + functional.mse_loss(again, images)
        optimizer.zero_grad()
        (error + kl_weight * latents.kl().mean()).backward()
        optimizer.step()
        if progress is not None:
            progress(step + 1, steps)
        if unfinished is not None:
            unfinished.reached(step + 1)
    trained.network.eval()
    latents = trained.encode(pixels[:10_000])
    trained.mean = latents.mean(axis=(0, 2, 3), keepdims=True)[0]
    trained.scale = SIGMA_DATA / max(float((latents - trained.mean).std()), 1e-6)
    return trained


class LatentUNet(nn.Module):
    """x (b, c, h, w), noise (b,), labels (b,) in [0, classes] -> (b, c, h, w), as `UNet`; the class is one token."""

    def __init__(self, config: LatentUNetConfig) -> None:
        super().__init__()
        self.config = config
        self.label = nn.Embedding(config.classes + 1, config.context)
        self.network = _conditional(config)
        last: Any = self.network.conv_out
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor) -> Tensor:
        token = self.label(labels)[:, None, :]
        return self.network(x, noise, encoder_hidden_states=token, return_dict=False)[0]


def trained_part(network: LatentUNet, part: Part = "all") -> tuple[str, ...]:
    """The names of the parameters of `part` that can learn; `attention` is the transformers and the class embedding (DP-LDM).

    Left out are those without a gradient, which would be moved by noise alone: cross-attention to a single token is constant, so
    that its queries, its keys and the norm before them do nothing.
    """
    names = []
    for name, _ in network.named_parameters():
        inside = ".attentions." in name or name.startswith("label.")
        dead = any(piece in name for piece in (".attn2.to_q.", ".attn2.to_k.", ".norm2.")) and ".attentions." in name
        if (part == "all" or inside) and not dead:
            names.append(name)
    return tuple(names)


def _autoencoder(config: AutoencoderConfig) -> Any:
    kind = _diffusers("AutoencoderKL")
    levels = len(config.multipliers)
    return kind(
        in_channels=config.channels,
        out_channels=config.channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(config.width * multiplier for multiplier in config.multipliers),
        layers_per_block=config.blocks,
        latent_channels=config.latent_channels,
        norm_num_groups=4,
        sample_size=max(config.image_width, config.image_height),
    )


def _conditional(config: LatentUNetConfig) -> Any:
    kind = _diffusers("UNet2DConditionModel")
    levels = len(config.multipliers)
    network = kind(
        sample_size=(config.height, config.width_in),
        in_channels=config.channels,
        out_channels=config.channels,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        mid_block_type="UNetMidBlock2DCrossAttn",
        block_out_channels=tuple(config.width * multiplier for multiplier in config.multipliers),
        layers_per_block=config.blocks,
        norm_num_groups=min(max(config.width // 4, 1), 32),  # of 4 channels: in one of 1, biases before it cancel
        cross_attention_dim=config.context,
        attention_head_dim=config.heads,
        dropout=0.0,
    )
    # Plain matrix products: vmap has no rule for the fused attention of CPUs, and falls back to a loop over records.
    network.set_attn_processor(_diffusers("models.attention_processor.AttnProcessor")())
    return network


def _diffusers(name: str) -> Any:
    place, _, kind = f"diffusers.{name}".rpartition(".")
    try:
        return getattr(importlib.import_module(place), kind)
    except ImportError as error:
        raise ValueError("latent diffusion needs diffusers: pip install 'privolve[train]'") from error
