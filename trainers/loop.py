"""Training on public or released images: ordinary mini-batches, Adam, an average of the weights, and resumption.

Nothing here is private, and nothing is noised. A stage that was stopped goes on from its last checkpoint and ends with the
same bits as one that was not: batch and noise of step t are functions of (seed, t) alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..privacy import durable
from ..privacy.failpoint import failpoint
from ..privacy.randomness import PublicRng
from . import gradients
from .contract import Arrays, Progress, TrainerError
from .gradients import Batch, Losses, Precision
from .optimizers import Average

CHECKPOINT_EVERY_S = 30.0

Batches = Callable[[np.ndarray, int], Batch]
"""(rows of the training set, step) to the batch of the loss."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How long and how fast: `steps` mini-batches of `batch` images with replacement, Adam at `learning_rate`."""

    steps: int
    batch: int
    learning_rate: float
    ema: float = 0.999
    precision: Precision = "fp32"
    """Of the forward pass and its way back; weights, optimizer and average stay float32."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or not self.learning_rate > 0 or not 0 <= self.ema < 1:
            raise TrainerError(f"a training has steps, batch and learning_rate above 0 and ema in [0, 1): {self}")


def fit(
    module: nn.Module,
    losses: Losses,
    batches: Batches,
    *,
    images: int,
    settings: Fit,
    seed: int,
    folder: Path,
    progress: Progress,
    name: str,
    trained: Sequence[str] | None = None,
    device: str = "cpu",
    compiled: bool = False,
) -> Arrays:
    """Train `module` from its present weights and return {"weights/NAME", "ema/NAME"} of every parameter and buffer.

    Raises TrainerError where the loss stops being a number: on public data that is nobody's secret.
    """
    module.to(device).train()
    parameters = {key: value for key, value in module.named_parameters() if trained is None or key in set(trained)}
    optimizer = torch.optim.Adam(list(parameters.values()), lr=settings.learning_rate)
    averaging = Average(decay=settings.ema)
    average = {key: value.detach().clone() for key, value in module.state_dict().items()}
    unfinished = Unfinished(
        folder,
        {
            **{f"weights/{key}": value for key, value in module.state_dict().items()},
            **{f"average/{key}": value for key, value in average.items()},
        },
        parameters,
        optimizer,
    )
    net: Any = gradients.compiled(module) if compiled else module
    rounded = gradients.in_precision(losses, settings.precision)
    rng = PublicRng(seed)
    for step in range(unfinished.resumed(), settings.steps):
        rows = rng.at("fit", name, step).integers(0, images, settings.batch)
        batch = {key: value.to(device) for key, value in batches(rows, step).items()}
        loss = rounded(net, batch).mean()
        if not torch.isfinite(loss):
            raise TrainerError(f"{name}: the loss is not a number after {step} steps; lower learning_rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for key, value in module.state_dict().items():
                if value.is_floating_point():
                    averaging.move(average[key], value, step=step + 1)
                else:
                    average[key].copy_(value)
        progress(name, step + 1, settings.steps)
        unfinished.reached(step + 1)
    return {
        **{f"weights/{key}": _array(value) for key, value in module.state_dict().items()},
        **{f"ema/{key}": _array(value) for key, value in average.items()},
    }


def part(arrays: Arrays, prefix: str) -> dict[str, np.ndarray]:
    """The arrays below `prefix/`, without it."""
    return {name[len(prefix) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{prefix}/")}


def arrays_of(module: nn.Module) -> dict[str, np.ndarray]:
    """Copies of every parameter and buffer."""
    return {name: _array(value) for name, value in module.state_dict().items()}


def load_weights(module: nn.Module, weights: Arrays) -> None:
    """Set every parameter and buffer; missing or further names are an error."""
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()}, strict=True)


def seeded(seed: int, *place: int | str) -> torch.Generator:
    """A torch generator for one public place."""
    return torch.Generator().manual_seed(int(PublicRng(seed).at(*place).integers(0, 2**62)))


def initialised(make: Callable[[], nn.Module], seed: int, *place: int | str) -> nn.Module:
    """A module with the initial weights of one public place, whatever else has drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(PublicRng(seed).at("initial", *place).integers(0, 2**62)))
        return make()


def set_rate(optimizer: torch.optim.Optimizer, rate: float, step: int, steps: int) -> None:
    """The learning rate of step `step` of `steps`: half a cosine from `rate` down to 0."""
    for group in optimizer.param_groups:
        group["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2


@final
class Unfinished:
    """What a stopped training goes on from: `tensors` as they are, Adam's memory, and the step.

    The tensors are those that the training changes in place; `parameters` names what `optimizer` moves.
    """

    def __init__(
        self,
        folder: Path,
        tensors: Mapping[str, Tensor],
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Adam,
    ) -> None:
        self._path = folder / "unfinished.safetensors"
        self._tensors = tensors
        self._parameters = parameters
        self._optimizer = optimizer
        self._kept_at = time.monotonic()

    def resumed(self) -> int:
        """Put back what was kept; the step to go on with, 0 where nothing was."""
        if not self._path.exists():
            return 0
        kept = load_file(self._path)
        with torch.no_grad():
            for key, tensor in self._tensors.items():
                tensor.copy_(kept[f"tensors/{key}"])
        for key, parameter in self._parameters.items():
            self._optimizer.state[parameter] = {
                "step": kept["step"].float(),
                "exp_avg": kept[f"first/{key}"].to(parameter.device),
                "exp_avg_sq": kept[f"second/{key}"].to(parameter.device),
            }
        return int(kept["step"])

    def reached(self, step: int) -> None:
        """Keep what there is after `step` steps, if the last time is long ago: whole or not at all."""
        if time.monotonic() - self._kept_at < CHECKPOINT_EVERY_S:
            return
        tensors = {f"tensors/{key}": value for key, value in self._tensors.items()}
        for key, parameter in self._parameters.items():
            tensors[f"first/{key}"] = self._optimizer.state[parameter]["exp_avg"]
            tensors[f"second/{key}"] = self._optimizer.state[parameter]["exp_avg_sq"]
        tensors["step"] = torch.tensor(step)
        content = save({key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()})
        durable.write_bytes(self._path, content)
        self._kept_at = time.monotonic()
        failpoint("stage-after-checkpoint")


def _array(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy().copy()
