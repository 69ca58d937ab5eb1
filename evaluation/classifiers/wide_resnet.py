"""Wide residual networks: Zagoruyko and Komodakis (2016), normalisation before each convolution, dropout between the two."""

from __future__ import annotations

import torch
from torch import nn

from .resnet import initialised


class Block(nn.Module):
    """Normalise, rectify, convolve, twice; where width or size change the shortcut branches off the rectified input."""

    def __init__(self, inputs: int, width: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.entry = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
        )
        changes = stride != 1 or inputs != width
        self.projection = nn.Conv2d(inputs, width, 1, stride, bias=False) if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        entered = self.entry(x)
        return self.residual(entered) + (x if self.projection is None else self.projection(entered))


def build(
    *, size: tuple[int, int], channels: int, classes: int, depth: int = 40, widen: int = 4, dropout: float = 0.3
) -> nn.Module:
    """`depth` = 6 n + 4: three stages of n blocks, 16, 32 and 64 times `widen` wide."""
    if depth % 6 != 4:
        raise ValueError(f"a wide residual network of depth {depth}: the depth is 6 n + 4")
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False)]
    inputs = 16
    for width, first_stride in ((16 * widen, 1), (32 * widen, 2), (64 * widen, 2)):
        for block in range(depth // 6):
            layers.append(Block(inputs, width, first_stride if block == 0 else 1, dropout))
            inputs = width
    linear = nn.Linear(inputs, classes)
    nn.init.zeros_(linear.bias)
    model = nn.Sequential(*layers, nn.BatchNorm2d(inputs), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    return initialised(model)
