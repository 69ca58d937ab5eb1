"""A small generator that matches mean features: the second half of DP-MERF (Harder et al. 2021), post-processing of a release.

It is trained to make | M_c - mean phi(G(z, c)) |^2 small for every class c, where M_c is the noisy mean of the class's
features.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from ..privacy.randomness import PublicRng
from .contract import Arrays, Shape
from .feature_means import FeatureMeans
from .loop import Unfinished, initialised, set_rate

_NOISE = 32


class Generator(nn.Module):
    """Noise (b, 32) and labels (b,) to images (b, c, h, w) in [0, 1]."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        self.shape = shape
        self.start = (-(-shape.height // 4), -(-shape.width // 4))
        self.label = nn.Embedding(len(shape.classes), _NOISE)
        self.enter = nn.Linear(2 * _NOISE, 2 * width * self.start[0] * self.start[1])
        self.first = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.second = nn.Conv2d(2 * width, width, 3, padding=1)
        self.exit = nn.Conv2d(width, shape.channels, 3, padding=1)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        x = self.enter(torch.cat([noise, self.label(labels)], dim=1)).reshape(len(noise), -1, *self.start)
        x = interpolate(silu(self.first(silu(x))), scale_factor=2)
        x = interpolate(silu(self.second(x)), scale_factor=2)
        return torch.sigmoid(self.exit(x)[..., : self.shape.height, : self.shape.width])


def matched_images(
    means: np.ndarray,
    config: FeatureMeans,
    *,
    width: int,
    steps: int,
    batch: int,
    learning_rate: float,
    count: int,
    folder: Path,
    progress: Callable[[int, int], None],
) -> Arrays:
    """{"pixels": uint8 (count, h, w, c), "labels": int64 (count,)} of a generator that matches `means` (classes, features).

    Stopped and called again with the same `folder`, it goes on and ends with the same bits.
    """
    shape, classes = config.shape, len(config.shape.classes)
    generator = initialised(lambda: Generator(shape, width), config.seed, "feature-generator")
    optimizer = torch.optim.Adam(generator.parameters(), lr=learning_rate)
    frequencies = torch.from_numpy(config.frequencies)
    wanted = torch.from_numpy(means).float()
    each = max(1, batch // classes)
    labels = torch.arange(classes).repeat_interleave(each)
    rng = PublicRng(config.seed)
    unfinished = Unfinished(folder, generator.state_dict(), dict(generator.named_parameters()), optimizer)
    for step in range(unfinished.resumed(), steps):
        set_rate(optimizer, learning_rate, step, steps)
        noise = torch.from_numpy(rng.at("feature-generator", step).standard_normal((len(labels), _NOISE))).float()
        # phi sees images as the records are: height, width, channels.
        images = generator(noise, labels).permute(0, 2, 3, 1).reshape(len(labels), -1)
        angles = images @ frequencies
        features = torch.cat([angles.cos(), angles.sin()], dim=1) / frequencies.shape[1] ** 0.5
        loss = (features.reshape(classes, each, -1).mean(dim=1) - wanted).square().sum(dim=1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        progress(step + 1, steps)
        unfinished.reached(step + 1)
    drawn = np.arange(count, dtype=np.int64) % classes
    return {"pixels": _drawn(generator, drawn, config.seed), "labels": drawn}


def _drawn(generator: nn.Module, labels: np.ndarray, seed: int) -> np.ndarray:
    rng = PublicRng(seed).at("feature-generator", "images")
    pieces: list[np.ndarray] = []
    with torch.no_grad():
        for start in range(0, len(labels), 1024):
            some = torch.from_numpy(labels[start : start + 1024])
            noise = torch.from_numpy(rng.standard_normal((len(some), _NOISE))).float()
            images = generator(noise, some).permute(0, 2, 3, 1)
            pieces.append((images * 255).round().to(torch.uint8).numpy())
    return np.concatenate(pieces)
