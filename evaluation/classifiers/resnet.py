"""Residual networks for small images, of two convolutions a block: He et al. (2016), section 4.2, shortcuts of option B."""

from __future__ import annotations

import math

import torch
from torch import nn


class Block(nn.Module):
    """Two convolutions and a shortcut, projected where width or size change."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.residual(x) + self.shortcut(x))


def build(*, size: tuple[int, int], channels: int, classes: int, depth: int = 110) -> nn.Module:
    """`depth` = 6 n + 2: three stages of n blocks, 16, 32 and 64 wide. Any `size`: the last map is averaged."""
    if depth % 6 != 2:
        raise ValueError(f"a residual network of depth {depth}: the depth is 6 n + 2")
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    inputs = 16
    for width, first_stride in ((16, 1), (32, 2), (64, 2)):
        for block in range(depth // 6):
            layers.append(Block(inputs, width, first_stride if block == 0 else 1))
            inputs = width
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
    return initialised(model)


def initialised(model: nn.Module) -> nn.Module:
    """Normal weights of variance 2 / (outputs x kernel) in every convolution, as the three networks' first code has it.

    Groups do not divide the outputs; the linear layer keeps the library's start.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            height, width = module.kernel_size
            nn.init.normal_(module.weight, std=math.sqrt(2 / (height * width * module.out_channels)))
    return model
