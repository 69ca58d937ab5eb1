"""The public classifiers that PrivImage asks what a private image looks like: residual networks without BatchNorm.

Each takes images (b, c, h, w) in [-1, 1], of any size, to scores (b, classes). Where the published network normalises over a
batch, these do over groups of the channels of one image (GroupNorm, Wu and He 2018): row i depends on image i alone, in
training as in scoring, and there are no statistics to keep. Widths are multiples of 4.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import relu, silu

_ROWS_AT_ONCE = 64


class SmallResNet(nn.Module):
    """Three residual blocks, for a CPU."""

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.ModuleList([_Block(width, width), _Block(width, 2 * width), _Block(2 * width, 4 * width)])
        self.exit = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for place, block in enumerate(self.blocks):
            x = block(x)
            if place < 2 and min(x.shape[-2:]) > 2:
                x = nn.functional.avg_pool2d(x, 2, ceil_mode=True)
        return self.exit(x.mean(dim=(2, 3)))


class ResNet50(nn.Module):
    """ResNet-50 (He et al. 2016) as it is for images of 32 x 32: the first convolution is 3 x 3 and nothing is pooled after it.

    The published one has width 64.
    """

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.enter = _normed(channels, width, 3)
        blocks, given = nn.Sequential(), width
        for stage, count in enumerate((3, 4, 6, 3)):
            for place in range(count):
                blocks.append(_Bottleneck(given, width * 2**stage, stride=2 if stage and not place else 1))
                given = 4 * width * 2**stage
        self.blocks = blocks
        self.exit = nn.Linear(given, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.exit(self.blocks(relu(self.enter(x))).mean(dim=(2, 3)))


class _Block(nn.Module):
    def __init__(self, channels: int, wanted: int) -> None:
        super().__init__()
        self.first_norm = nn.GroupNorm(4, channels)
        self.first = nn.Conv2d(channels, wanted, 3, padding=1)
        self.second_norm = nn.GroupNorm(4, wanted)
        self.second = nn.Conv2d(wanted, wanted, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, wanted, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(silu(self.first_norm(x)))
        return self.shortcut(x) + self.second(silu(self.second_norm(h)))


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        wanted = 4 * width
        self.first = _normed(channels, width, 1)
        self.second = _normed(width, width, 3, stride)
        self.third = _normed(width, wanted, 1)
        same = channels == wanted and stride == 1
        self.shortcut = nn.Identity() if same else _normed(channels, wanted, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.shortcut(x) + self.third(relu(self.second(relu(self.first(x))))))


def _normed(channels: int, wanted: int, size: int, stride: int = 1) -> nn.Sequential:
    """A convolution and its norm, over at most 32 groups of at least 4 channels: one pixel of fewer has no spread."""
    convolution = nn.Conv2d(channels, wanted, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(math.gcd(32, wanted // 4), wanted))


def batch_of(pixels: np.ndarray, labels: np.ndarray) -> dict[str, Tensor]:
    """uint8 (b, h, w, c) and labels as the classifier takes them."""
    return {"image": _images(pixels), "label": torch.from_numpy(np.asarray(labels, dtype=np.int64))}


def scores_of(network: nn.Module, pixels: np.ndarray, device: str) -> np.ndarray:
    """Scores (n, classes) of uint8 (n, h, w, c), a few images at a time; `network` is on `device`.

    The shape of a product can decide the last bits of its rows. The shapes here follow from n alone, so that row i depends
    on image i, its place and n, and never on another image.
    """
    with torch.inference_mode():
        pieces = [
            network(_images(pixels[start : start + _ROWS_AT_ONCE]).to(device)).cpu().numpy()
            for start in range(0, len(pixels), _ROWS_AT_ONCE)
        ]
    return np.concatenate(pieces)


def _images(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float() / 127.5 - 1
