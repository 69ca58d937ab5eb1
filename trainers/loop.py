"""Training on public or released images: ordinary mini-batches, Adam, an average of the weights, and resumption.

Nothing here is private, and nothing is noised. A stage that was stopped goes on from its last checkpoint and ends with the
same bits as one that was not: batch and noise of step t are functions of (seed, t) alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..privacy import durable
from ..privacy.randomness import PublicRng
from .contract import Arrays, Progress, TrainerError
from .gradients import Losses

CHECKPOINT_EVERY_S = 30.0

Batches = Callable[[np.ndarray, int], "dict[str, Tensor]"]
"""(rows of the training set, step) to the batch of the loss."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How long and how fast: `steps` mini-batches of `batch` images with replacement, Adam at `learning_rate`."""

    steps: int
    batch: int
    learning_rate: float
    ema: float = 0.999

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
) -> Arrays:
    """Train `module` from its present weights and return {"weights/NAME", "ema/NAME"} of every parameter and buffer.

    Raises TrainerError where the loss stops being a number: on public data that is nobody's secret.
    """
    module.to(device).train()
    parameters = {key: value for key, value in module.named_parameters() if trained is None or key in set(trained)}
    optimizer = torch.optim.Adam(list(parameters.values()), lr=settings.learning_rate)
    average = {key: value.detach().clone() for key, value in module.state_dict().items()}
    path = folder / "unfinished.safetensors"
    first = _resume(path, module, average, parameters, optimizer, device)
    saved = time.monotonic()
    rng = PublicRng(seed)
    for step in range(first, settings.steps):
        rows = rng.at("fit", name, step).integers(0, images, settings.batch)
        batch = {key: value.to(device) for key, value in batches(rows, step).items()}
        loss = losses(module, batch).mean()
        if not torch.isfinite(loss):
            raise TrainerError(f"{name}: the loss is not a number after {step} steps; lower learning_rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            decay = min(settings.ema, (1 + step) / (10 + step))
            for key, value in module.state_dict().items():
                if value.is_floating_point():
                    average[key].lerp_(value, 1 - decay)
                else:
                    average[key].copy_(value)
        progress(name, step + 1, settings.steps)
        if time.monotonic() - saved > CHECKPOINT_EVERY_S:
            _keep(path, step + 1, module, average, parameters, optimizer)
            saved = time.monotonic()
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


def _resume(
    path: Path,
    module: nn.Module,
    average: dict[str, Tensor],
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Adam,
    device: str,
) -> int:
    if not path.exists():
        return 0
    kept = load_file(path, device=device)
    module.load_state_dict({key[8:]: value for key, value in kept.items() if key.startswith("weights/")})
    for key in average:
        average[key].copy_(kept[f"average/{key}"])
    for key, parameter in parameters.items():
        optimizer.state[parameter] = {
            "step": kept["step"].clone().float().cpu(),
            "exp_avg": kept[f"first/{key}"],
            "exp_avg_sq": kept[f"second/{key}"],
        }
    return int(kept["step"])


def _keep(
    path: Path,
    step: int,
    module: nn.Module,
    average: dict[str, Tensor],
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Adam,
) -> None:
    """Whole or not at all: a checkpoint that was being written when the process died does not exist."""
    tensors = {f"weights/{key}": value for key, value in module.state_dict().items()}
    tensors |= {f"average/{key}": value for key, value in average.items()}
    for key, parameter in parameters.items():
        tensors[f"first/{key}"] = optimizer.state[parameter]["exp_avg"]
        tensors[f"second/{key}"] = optimizer.state[parameter]["exp_avg_sq"]
    tensors["step"] = torch.tensor(step)
    durable.write_bytes(path, save({key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}))


def _array(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy().copy()
