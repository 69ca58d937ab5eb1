"""What is made of a noisy gradient: the next weights and their running average. Post-processing, on flat float32 vectors.

Adam (Kingma and Ba, 2015), AdamW (Loshchilov and Hutter, 2019) and SGD with momentum, as torch.optim has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from ..privacy.mechanism import JSON

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How a gradient moves the weights. The rate warms up linearly, then stays, or falls to 0 at the last step."""

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    """Decoupled for adamw; added to the gradient for the others."""
    momentum: float = 0.0
    """For sgd."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warm_up_steps: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("adam", "adamw", "sgd"):
            raise ValueError(f"optimizer {self.kind!r} is not known; there are adam, adamw and sgd")
        if self.schedule not in ("constant", "linear", "cosine"):
            raise ValueError(f"schedule {self.schedule!r} is not known; there are constant, linear and cosine")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be a finite number above 0")
        if not all(0 <= beta < 1 for beta in (*self.betas, self.momentum)):
            raise ValueError(f"betas {self.betas} and momentum {self.momentum} must lie in [0, 1)")
        if self.epsilon <= 0 or not 0 <= self.weight_decay < math.inf or self.warm_up_steps < 0:
            raise ValueError("epsilon must be above 0, weight_decay and warm_up_steps at least 0")

    def describe(self) -> Mapping[str, JSON]:
        return {**asdict(self), "betas": list(self.betas)}

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of `step`, which counts from 0."""
        if step < self.warm_up_steps:
            return self.learning_rate * (step + 1) / self.warm_up_steps
        done = (step - self.warm_up_steps) / max(steps - self.warm_up_steps, 1)
        if self.schedule == "linear":
            return self.learning_rate * (1 - done)
        if self.schedule == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * done)) / 2
        return self.learning_rate

    def begin(self, weights: Tensor) -> dict[str, Tensor]:
        """What is carried from step to step, before the first."""
        names = ("first", "second") if self.kind != "sgd" else ("first",) if self.momentum else ()
        return {name: weights.new_zeros(weights.shape) for name in names}

    def move(self, weights: Tensor, gradient: Tensor, state: Mapping[str, Tensor], *, step: int, steps: int) -> None:
        """Change `weights` and `state` in place; `step` counts from 0."""
        rate = self.rate(step, steps)
        if self.weight_decay and self.kind == "adamw":
            weights.mul_(1 - rate * self.weight_decay)
        elif self.weight_decay:
            gradient = gradient.add(weights, alpha=self.weight_decay)
        if self.kind == "sgd":
            if self.momentum:
                gradient = state["first"].mul_(self.momentum).add_(gradient)
            weights.add_(gradient, alpha=-rate)
            return
        for_first, for_second = self.betas
        first = state["first"].mul_(for_first).add_(gradient, alpha=1 - for_first)
        second = state["second"].mul_(for_second).addcmul_(gradient, gradient, value=1 - for_second)
        root = second.div(1 - for_second ** (step + 1)).sqrt_().add_(self.epsilon)
        weights.addcdiv_(first, root, value=-rate / (1 - for_first ** (step + 1)))


@dataclass(frozen=True, kw_only=True)
class Average:
    """The exponential moving average of the weights, whose decay warms up: min(decay, (1 + n) / (10 + n)) at the n-th step."""

    decay: float = 0.999

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"the decay of the average is {self.decay}; it must lie in [0, 1)")

    def at(self, step: int) -> float:
        """The decay after `step` steps."""
        return min(self.decay, (1 + step) / (10 + step))

    def move(self, average: Tensor, weights: Tensor, *, step: int) -> None:
        """Change `average` in place after `step` steps."""
        average.lerp_(weights, 1 - self.at(step))
