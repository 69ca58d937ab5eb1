"""A private training in a process of its own, to be killed: `training_worker.py FOLDER`, once per attempt.

Its source of noise writes each draw down before it gives it away. Prints what the release came to.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from privolve.data.training_records import TrainingRecords
from privolve.privacy.ledger import Ledger, Plan, PlannedRelease
from privolve.privacy.mechanism import PrivacyTarget, Relation
from privolve.privacy.private import Private
from privolve.trainers.dp_sgd import DPSGD, Task, release_training
from privolve.trainers.workspace import Workspace

STEPS, SLOTS, SIZE = 12, 20, 6


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(SIZE))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class LoggedNoise:
    def __init__(self, log: Path) -> None:
        self.log = log

    def write(self, line: Mapping[str, Any]) -> None:
        with self.log.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def mask(self, n: int, probability: float) -> np.ndarray:
        drawn = np.frombuffer(os.urandom(n), dtype=np.uint8) < 256 * probability
        self.write({"mask": drawn.tolist()})
        return drawn

    def gaussian(self, shape: tuple[int, ...], scale: float) -> np.ndarray:
        drawn = np.frombuffer(os.urandom(8 * shape[0]), dtype=np.int64) / 2**63 * scale
        self.write({"noise": drawn.tolist()})
        return drawn


def rows(pixels: np.ndarray, labels: np.ndarray, slots: np.ndarray, step: int) -> dict[str, Tensor]:
    return {"x": torch.from_numpy(pixels.reshape(len(pixels), -1).astype(np.float32) / 255)}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ["PRIVOLVE_STATE"] = str(folder / "state")
    pixels = np.random.default_rng(0).integers(0, 256, (SLOTS, 2, 3, 1), dtype=np.uint8)
    data = TrainingRecords(pixels=pixels, labels=np.zeros(SLOTS, dtype=np.int64), valid=np.ones(SLOTS, dtype=np.bool_))
    noise = LoggedNoise(folder / "draws")

    def preview(step: int, weights: Mapping[str, np.ndarray]) -> None:
        noise.write({"shown": step})

    workspace = Workspace(
        folder=folder / "private",
        device="cpu",
        engine="loop",
        micro_batch=8,
        checkpoint_every=4,
        preview_every=8,
        preview=preview,
        progress=lambda step, steps: noise.write({"step": step}),
    )
    task = Task(
        module=Net(), losses=lambda net, batch: net(batch["x"]), trained=("weight",), rows=rows, image=(2, 3, 1)
    )
    training = DPSGD(steps=STEPS, sampling_probability=0.4).with_noise(4.0).training(task, None, workspace)
    with Ledger.create_or_open(
        folder / "ledgers" / "set",
        name="set",
        slots=SLOTS,
        unit="image",
        relation=Relation.ZERO_OUT,
        secret=noise,  # type: ignore[arg-type]
    ) as ledger:
        ledger.reserve(
            Plan(
                run="run",
                partition="train",
                share=PrivacyTarget(epsilon=20.0, delta=1e-5, unit="image"),
                releases=(PlannedRelease(name="run/dp-sgd", cost=training.cost),),
            )
        )
        outputs = release_training(ledger, training, Private(data), name="run/dp-sgd", question="what a test asks")
        print(json.dumps({name: array.tolist() for name, array in outputs.items()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
