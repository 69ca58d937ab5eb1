"""One of several processes that train one model: `distributed_worker.py FOLDER RANK SIZE`; all meet at a file in FOLDER.

Masks are functions of (step, slot), so that however many processes there are, the same records take part. Writes the weights
that it ends with, and how often it drew noise.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from privolve.data.training_records import TrainingRecords
from privolve.privacy.private import Private
from privolve.trainers.dp_sgd import DPSGD, Task
from privolve.trainers.workspace import Workspace

STEPS, SLOTS = 5, 23


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.last = nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)))[:, 0]


class Source:
    """This process's share of the masks of all, and noise that is a function of the step."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.masks = self.noises = 0

    def mask(self, n: int, probability: float) -> np.ndarray:
        everybody = np.random.default_rng([3, self.masks]).random(SLOTS) < probability
        self.masks += 1
        mine = everybody[self.rank :: self.size]
        assert len(mine) == n
        return mine

    def gaussian(self, shape: tuple[int, ...], scale: float) -> np.ndarray:
        self.noises += 1
        return np.random.default_rng([4, self.noises]).normal(size=shape) * scale


def rows(pixels: np.ndarray, labels: np.ndarray, slots: np.ndarray, step: int) -> dict[str, Tensor]:
    draws = np.stack([np.random.default_rng([9, step, slot]).normal(size=6) for slot in slots])
    x = pixels.reshape(len(pixels), -1) / 255 + 0.1 * draws
    return {"x": torch.from_numpy(x.astype(np.float32))}


def main(folder: Path, rank: int, size: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    os.environ["WORLD_SIZE"] = str(size)
    if size > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=size
        )
    draw = np.random.default_rng(0)
    data = TrainingRecords(
        pixels=draw.integers(0, 256, (SLOTS, 2, 3, 1), dtype=np.uint8),
        labels=np.zeros(SLOTS, dtype=np.int64),
        valid=np.arange(SLOTS) != 5,
    )
    module = Net()
    task = Task(
        module=module,
        losses=lambda net, batch: net(batch["x"]).square() * 50,
        trained=tuple(name for name, _ in module.named_parameters()),
        rows=rows,
        image=(2, 3, 1),
    )
    if rank:
        with torch.no_grad():
            module.first.bias.add_(1.0)  # All begin where rank 0 begins.
    workspace = Workspace(folder=folder / f"private-{rank}-{size}", device="cpu", engine="loop", micro_batch=4)
    training = DPSGD(steps=STEPS, sampling_probability=0.5).with_noise(1.0).training(task, None, workspace)
    source = Source(rank, size)
    if rank == 0:
        training(source, data)  # type: ignore[arg-type]
    else:
        from privolve.privacy.ledger import assist

        assist(training, Private(data), secret=source)  # type: ignore[arg-type]
    state = {name: value.tolist() for name, value in module.state_dict().items()}
    (folder / f"weights-{rank}-{size}.json").write_text(
        json.dumps(
            {
                "state": state,
                "masks": source.masks,
                "noises": source.noises,
                "files": sorted(path.name for path in workspace.folder.iterdir()),
            }
        )
    )
    if size > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
