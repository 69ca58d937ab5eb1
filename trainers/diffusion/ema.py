"""The exponential moving average of weights: what samples are drawn from.

It is computed from released weights alone and costs nothing; its decay may be chosen afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Averages in float32 that start at `values`. Update n has the decay min(`decay`, (1 + n) / (10 + n)), n from 1.

    An update is a step of training, not a micro-batch. `averages` and `updates` are all of its state.
    """

    def __init__(self, values: Mapping[str, Tensor], *, decay: float = 0.999, updates: int = 0) -> None:
        if not 0 <= decay < 1 or updates < 0:
            raise ValueError(f"the decay of an average lies in [0, 1) and updates are not negative: {decay}, {updates}")
        self.decay = decay
        self.updates = updates
        self.averages = {name: value.detach().float().clone() for name, value in values.items()}

    def update(self, values: Mapping[str, Tensor]) -> None:
        """Take one step of training in."""
        self.updates += 1
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
        with torch.no_grad():
            for name, average in self.averages.items():
                average.lerp_(values[name].detach().float(), 1 - keep)


@contextmanager
def lent(module: nn.Module, values: Mapping[str, Tensor]) -> Iterator[nn.Module]:
    """The module with `values` in place of its parameters of these names; put back afterwards, bit by bit."""
    parameters = dict(module.named_parameters())
    unknown = sorted(set(values) - set(parameters))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not a parameter of this network, but of the one that was saved")
    before = {name: parameters[name].detach().clone() for name in values}
    try:
        with torch.no_grad():
            for name, value in values.items():
                parameters[name].copy_(value)
        yield module
    finally:
        with torch.no_grad():
            for name, value in before.items():
                parameters[name].copy_(value)
