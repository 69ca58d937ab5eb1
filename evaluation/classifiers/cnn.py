"""A small convolutional network: the CNN of DPDM (Dockhorn et al., 2023), convolutions of 32, 64 and 128 with dropout."""

from __future__ import annotations

from torch import nn

SMALLEST_UNPADDED = 18
"""Smaller images keep their size through the convolutions, which else would leave nothing of them."""


def build(*, size: tuple[int, int], channels: int, classes: int, dropout: float = 0.5) -> nn.Module:
    """Theirs at 28 x 28, with as many inputs of the first linear layer as other sizes need."""
    padding = 1 if min(size) < SMALLEST_UNPADDED else 0
    lost = 2 - 2 * padding
    left = [((side - lost) // 2 - lost) // 2 - lost for side in size]
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=padding),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Conv2d(32, 64, 3, padding=padding),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Conv2d(64, 128, 3, padding=padding),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128 * left[0] * left[1], 128),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(128, classes),
    )
