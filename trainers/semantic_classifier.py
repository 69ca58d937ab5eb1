"""The public classifier that PrivImage asks what a private image looks like: a residual network without BatchNorm."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import silu


class SemanticClassifier(nn.Module):
    """Images (b, c, h, w) in [-1, 1], of any size, to scores (b, classes). Row i depends on image i alone."""

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


def batch_of(pixels: np.ndarray, labels: np.ndarray) -> dict[str, Tensor]:
    """uint8 (b, h, w, c) and labels as the classifier takes them."""
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float() / 127.5 - 1
    return {"image": images, "label": torch.from_numpy(np.asarray(labels, dtype=np.int64))}
