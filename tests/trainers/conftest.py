"""A gymnasium for private training: records, a network whose gradients are known, and sources of noise that can be looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from privolve.data.training_records import TrainingRecords
from privolve.privacy.lattice import RESOLUTION
from privolve.privacy.ledger import Ledger, Plan, PlannedRelease
from privolve.privacy.mechanism import PrivacyTarget, Relation
from privolve.trainers.dp_sgd import DPSGD, NoisySGD, Task, Training
from privolve.trainers.gradients import Loop
from privolve.trainers.optimizers import Average, Optimizer
from privolve.trainers.workspace import Workspace

IMAGE = (2, 3, 1)
BROKEN = 255
"""A first pixel of this value makes the record's loss not a number."""


class Linear(nn.Module):
    """The loss <w, x>: the gradient of a record is what the record is."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))
        self.frozen = nn.Parameter(torch.full((2,), 7.0))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x @ self.weight + 0 * self.frozen.sum()


class Conv(nn.Module):
    """A small network of the layers that trainers use."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.labels = nn.Embedding(4, 4)
        self.last = nn.Linear(4, 1)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        hidden = self.norm(self.first(image)) + self.labels(label)[:, :, None, None]
        return self.last(torch.tanh(hidden).mean(dim=(2, 3)))[:, 0]


class Secret:
    """A source whose masks and noise are functions of how often they were asked for; it keeps what was asked."""

    def __init__(
        self,
        mask: Callable[[int, int], np.ndarray] | None = None,
        noise: Callable[[int, tuple[int, ...]], np.ndarray] | None = None,
    ) -> None:
        self._mask = mask or (lambda _, n: np.ones(n, dtype=np.bool_))
        self._noise = noise or (lambda _, shape: np.zeros(shape))
        self.masks: list[tuple[int, float]] = []
        self.noises: list[tuple[tuple[int, ...], float]] = []

    def mask(self, n: int, probability: float) -> np.ndarray:
        self.masks.append((n, probability))
        return self._mask(len(self.masks) - 1, n)

    def gaussian(self, shape: tuple[int, ...], scale: float) -> np.ndarray:
        self.noises.append((shape, scale))
        return self._noise(len(self.noises) - 1, shape) * scale

    def discrete_gaussian(self, counts: np.ndarray, scale: float) -> np.ndarray:
        raise AssertionError

    def noisy_max(self, counts: np.ndarray, epsilon: float) -> int:
        raise AssertionError


class Gym:
    """Makes what a test of a training needs."""

    IMAGE, BROKEN, RESOLUTION = IMAGE, BROKEN, RESOLUTION
    Linear, Conv, Secret = Linear, Conv, Secret

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: list[Ledger] = []

    def records(self, count: int = 20, *, seed: int = 0, image: tuple[int, int, int] = IMAGE) -> TrainingRecords:
        draw = np.random.default_rng(seed)
        pixels = draw.integers(0, 250, (count, *image), dtype=np.uint8)
        return TrainingRecords(pixels=pixels, labels=draw.integers(0, 3, count), valid=np.ones(count, dtype=np.bool_))

    def changed(
        self, data: TrainingRecords, slot: int, *, pixels: Any = None, label: int | None = None, ghost: bool = False
    ) -> TrainingRecords:
        """The records but for one slot; a ghost is blank, has label -1 and is not valid."""
        new = TrainingRecords(pixels=data.pixels.copy(), labels=data.labels.copy(), valid=data.valid.copy())
        if ghost:
            pixels, label = 0, -1
            new.valid[slot] = False
        if pixels is not None:
            new.pixels[slot] = pixels
        if label is not None:
            new.labels[slot] = label
        return new

    def linear(self, *, size: int | None = None, image: tuple[int, int, int] = IMAGE, scale: float = 64.0) -> Task:
        """The gradient of a record is its pixels about 128, over `scale`, repeated up to `size`; and one public draw by slot."""
        size = size or int(np.prod(image))

        def rows(pixels: np.ndarray, labels: np.ndarray, slots: np.ndarray, step: int) -> Mapping[str, Tensor]:
            flat = pixels.reshape(len(pixels), -1).astype(np.float32)
            x = (
                np.resize((flat - 128) / scale, (len(pixels), size))
                if size < flat.shape[1]
                else np.tile((flat - 128) / scale, (1, -(-size // flat.shape[1])))[:, :size]
            )
            signs = np.array([np.random.default_rng([5, step, slot]).integers(0, 2) * 2 - 1 for slot in slots])
            x = x * signs[:, None]
            x[flat[:, 0] == BROKEN] = np.nan
            return {"x": torch.from_numpy(x.astype(np.float32))}

        return Task(
            module=Linear(size),
            losses=lambda net, batch: net(batch["x"]),
            trained=("weight",),
            rows=rows,
            image=image,
        )

    def conv(self) -> Task:
        torch.manual_seed(0)

        def rows(pixels: np.ndarray, labels: np.ndarray, slots: np.ndarray, step: int) -> Mapping[str, Tensor]:
            image = torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
            return {"image": image, "label": torch.from_numpy(labels)}

        def losses(net: Any, batch: Mapping[str, Tensor]) -> Tensor:
            return (net(batch["image"], batch["label"]) - 1).square() * 20

        module = Conv()
        return Task(
            module=module,
            losses=losses,
            trained=tuple(name for name, _ in module.named_parameters()),
            rows=rows,
            image=(6, 6, 1),
        )

    def sgd(self, *, steps: int = 1, probability: float = 0.3, noise: float = 2.0, **fields: Any) -> NoisySGD:
        """Plain SGD, whose weights are minus the sum of all noisy sums over the clip norm, if slots are 20."""
        return DPSGD(
            **{
                "steps": steps,
                "sampling_probability": probability,
                "optimizer": Optimizer(kind="sgd", learning_rate=probability * 20),
                "ema": Average(decay=0.5),
                **fields,
            }
        ).with_noise(noise)

    def workspace(self, name: str = "private", **settings: Any) -> Workspace:
        return Workspace(folder=self.folder / name, **{"device": "cpu", "micro_batch": 4, "log_every": 0, **settings})

    def training(self, task: Task, sgd: NoisySGD, *, start: Any = None, loop: bool = True, **settings: Any) -> Training:
        """By the loop over single records, unless told otherwise."""
        return sgd.training(
            task,
            start,
            settings.pop("workspace", None) or self.workspace(**settings),
            engine=(lambda task: Loop(module=task.module, losses=task.losses, trained=task.trained)) if loop else None,
        )

    def ledger(self, slots: int, *, secret: Any = None, name: str = "set") -> Ledger:
        ledger = Ledger.create_or_open(
            self.folder / "ledgers" / name,
            name=name,
            slots=slots,
            unit="image",
            relation=Relation.ZERO_OUT,
            secret=secret,
        )
        self._open.append(ledger)
        return ledger

    def plan(self, training: Training, *, run: str = "run", epsilon: float = 50.0) -> Plan:
        return Plan(
            run=run,
            partition="train",
            share=PrivacyTarget(epsilon=epsilon, delta=1e-5, unit="image"),
            releases=(PlannedRelease(name=f"{run}/dp-sgd", cost=training.cost),),
        )

    def close(self) -> None:
        for ledger in self._open:
            ledger.close()


@pytest.fixture
def gym(tmp_path: Path) -> Iterator[Gym]:
    gym = Gym(tmp_path)
    yield gym
    gym.close()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
