"""A perceptron with one hidden layer: the MLP of DPDM (Dockhorn et al., 2023)."""

from __future__ import annotations

from torch import nn


def build(*, size: tuple[int, int], channels: int, classes: int, hidden: int = 100) -> nn.Module:
    """Pixels, `hidden` rectified units, logits."""
    inputs = size[0] * size[1] * channels
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))
