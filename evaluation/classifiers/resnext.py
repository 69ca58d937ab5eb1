"""Residual networks of grouped convolutions: Xie et al. (2017), figure 3 (c), section 5.2 for small images."""

from __future__ import annotations

import torch
from torch import nn


class Block(nn.Module):
    """1 x 1 down to `inner` channels, 3 x 3 in `groups`, 1 x 1 up again."""

    def __init__(self, inputs: int, width: int, inner: int, groups: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, stride, padding=1, groups=groups, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut: nn.Module = nn.Identity()
        if inputs != width:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.residual(x) + self.shortcut(x))


def build(
    *, size: tuple[int, int], channels: int, classes: int, depth: int = 29, groups: int = 8, widen: int = 4
) -> nn.Module:
    """Three stages of (`depth` - 2) // 9 blocks, 64, 128 and 256 times `widen` wide, in `groups` of 64, 128 and 256."""
    layers: list[nn.Module] = [nn.Conv2d(channels, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    inputs = 64
    for base, first_stride in ((64, 1), (128, 2), (256, 2)):
        width = base * widen
        for block in range((depth - 2) // 9):
            layers.append(Block(inputs, width, groups * base, groups, first_stride if block == 0 else 1))
            inputs = width
    linear = nn.Linear(inputs, classes)
    nn.init.kaiming_normal_(linear.weight)
    nn.init.zeros_(linear.bias)
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    return model
