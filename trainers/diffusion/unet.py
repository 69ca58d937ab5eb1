"""A U-Net for images at a level of noise: DDPM++ of Song et al. (2021, 2011.13456), in the form that DP training uses.

Residual blocks as in BigGAN (resampling inside the block, shortcuts divided by sqrt 2), GroupNorm and no BatchNorm, no
dropout, no buffers: the output for a row depends on that row alone. It runs under `torch.func.vmap`: nothing is written in
place, and no branch depends on values. Any size of image: an odd side is padded before it is halved and cropped afterwards.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from .sizes import UNetConfig


class UNet(nn.Module):
    """x (b, c, h, w), noise (b,) as the parametrisation scales it, labels (b,) in [0, classes] -> (b, c, h, w).

    The label `classes` is null. The output is zero before any training: its last layer, and the last of every block, start
    at zero.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        context = 4 * width
        self.label = nn.Embedding(config.classes + 1, width)
        self.context_in = nn.Linear(width, context)
        self.context_out = nn.Linear(context, context)
        pixels = config.channels * config.patch**2
        self.entry = nn.Conv2d(pixels, width, 3, padding=1)
        levels = [width * multiplier for multiplier in config.multipliers]
        sides = [max(config.image_width, config.image_height) // config.patch]
        for _ in levels[1:]:
            sides.append(-(-sides[-1] // 2))
        attends = [side in config.attention for side in sides]

        self.encoder, self.down = nn.ModuleList(), nn.ModuleList()
        channels, skips = width, [width]
        for level, wanted in enumerate(levels):
            blocks = nn.ModuleList()
            for _ in range(config.blocks):
                blocks.append(Block(channels, wanted, context, attention=attends[level]))
                channels = wanted
                skips.append(channels)
            self.encoder.append(blocks)
            if level < len(levels) - 1:
                self.down.append(Residual(channels, channels, context, resample="down"))
                skips.append(channels)

        self.middle_in = Block(channels, channels, context, attention=True)
        self.middle_out = Residual(channels, channels, context)

        self.decoder, self.up = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(levels))):
            blocks = nn.ModuleList()
            for at in range(config.blocks + 1):
                last = at == config.blocks
                blocks.append(Block(channels + skips.pop(), levels[level], context, attention=last and attends[level]))
                channels = levels[level]
            self.decoder.append(blocks)
            if level:
                self.up.append(Residual(channels, channels, context, resample="up"))

        self.exit_norm = _norm(channels)
        self.exit = nn.Conv2d(channels, pixels, 3, padding=1)
        _initialise(self)
        _zero(self.exit)

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor) -> Tensor:
        context = _waves(noise, self.config.width) + self.label(labels)
        context = functional.silu(self.context_out(functional.silu(self.context_in(context))))
        h = self.entry(functional.pixel_unshuffle(x, self.config.patch))
        skips, sizes = [h], []
        for level, blocks in enumerate(self.encoder):
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues]
                h = block(h, context)
                skips.append(h)
            sizes.append(h.shape[-2:])
            if level < len(self.down):
                h = self.down[level](h, context)
                skips.append(h)
        h = self.middle_out(self.middle_in(h, context), context)
        for stage, blocks in enumerate(self.decoder):
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues]
                h = block(torch.cat([h, skips.pop()], dim=1), context)
            if stage < len(self.up):
                height, width = sizes[-2 - stage]
                h = self.up[stage](h, context)[..., :height, :width].contiguous()
        return functional.pixel_shuffle(self.exit(functional.silu(self.exit_norm(h))), self.config.patch)


class Block(nn.Module):
    """A residual block, and attention where it is asked for."""

    def __init__(self, channels: int, wanted: int, context: int, *, attention: bool) -> None:
        super().__init__()
        self.residual = Residual(channels, wanted, context)
        self.attention = Attention(wanted) if attention else None

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.residual(x, context)
        return h if self.attention is None else self.attention(h)


class Residual(nn.Module):
    """Two convolutions with the context added between them, and a shortcut; `resample` halves or doubles the sides."""

    def __init__(self, channels: int, wanted: int, context: int, *, resample: str = "") -> None:
        super().__init__()
        self.resample = {"": _same, "down": _halved, "up": _doubled}[resample]
        self.norm_in = _norm(channels)
        self.conv_in = nn.Conv2d(channels, wanted, 3, padding=1)
        self.context = nn.Linear(context, wanted)
        self.norm_out = _norm(wanted)
        self.conv_out = nn.Conv2d(wanted, wanted, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, wanted, 1) if channels != wanted or resample else None

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.conv_in(self.resample(functional.silu(self.norm_in(x))))
        h = h + self.context(context)[:, :, None, None]
        h = self.conv_out(functional.silu(self.norm_out(h)))
        x = self.resample(x)
        if self.shortcut is not None:
            x = self.shortcut(x)
        return (x + h) * math.sqrt(0.5)


class Attention(nn.Module):
    """Every position attends to all positions of its own image; one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.queries = nn.Linear(channels, channels)
        self.keys = nn.Linear(channels, channels)
        self.values = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        channels, height, width = x.shape[-3:]
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        scores = self.queries(tokens) @ self.keys(tokens).transpose(1, 2)
        h = self.out(torch.softmax(scores * channels**-0.5, dim=-1) @ self.values(tokens))
        # Contiguous: strides left behind here flow through the layers to come, and opacus reads them wrongly.
        h = h.transpose(1, 2).reshape(-1, channels, height, width).contiguous()
        return (x + h) * math.sqrt(0.5)


def trained_part(network: UNet, part: Literal["all", "attention"] = "all") -> tuple[str, ...]:
    """The names of the parameters of `part` that can learn; `attention` is that of DP-LDM-SD: contexts, entry and attention.

    A bias of keys is left out: it cancels in the softmax, has no gradient and would be moved by noise alone.
    """
    first = ("label.", "context_in.", "context_out.", "entry.")
    kinds = ("queries", "keys", "values", "out")
    names = []
    for name, _ in network.named_parameters():
        inside = name.startswith(first) or (".attention." in name and name.split(".")[-2] in kinds)
        if (part == "all" or inside) and not name.endswith("keys.bias"):
            names.append(name)
    return tuple(names)


def parameters_of(module: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in module.parameters())


def _norm(channels: int) -> nn.GroupNorm:
    groups = min(max(channels // 4, 1), 32)
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels, eps=1e-6)


def _waves(noise: Tensor, width: int) -> Tensor:
    """Sines and cosines of the noise, (b, width): the positional embedding of Vaswani et al. (2017)."""
    half = width // 2
    steps = torch.arange(half, device=noise.device, dtype=noise.dtype) / max(half - 1, 1)
    angles = noise[:, None] * torch.exp(-math.log(10_000) * steps)
    return functional.pad(torch.cat([torch.sin(angles), torch.cos(angles)], dim=1), (0, width % 2))


def _same(x: Tensor) -> Tensor:
    return x


def _halved(x: Tensor) -> Tensor:
    """Means of squares of four pixels; an odd side first repeats its last row or column."""
    if x.shape[-1] % 2:
        x = torch.cat([x, x[..., -1:]], dim=-1)
    if x.shape[-2] % 2:
        x = torch.cat([x, x[..., -1:, :]], dim=-2)
    return functional.avg_pool2d(x, 2)


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def _initialise(module: nn.Module) -> None:
    """Uniform by fan average, as DDPM; zero biases; zero where a block ends, so that each starts as its shortcut."""
    for each in module.modules():
        if isinstance(each, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(each.weight)
            if each.bias is not None:
                nn.init.zeros_(each.bias)
        if isinstance(each, Residual):
            _zero(each.conv_out)
        if isinstance(each, Attention):
            _zero(each.out)


def _zero(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
