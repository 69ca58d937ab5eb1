"""What a training's `[selection]` is between: the models that were shown on the way, and the last.

private/candidates/
  0000050/    model.json  model.npz  samples.npz    after step 50, kept when its checkpoint was shown
  last/       samples.npz

They lie in `private/` because one of them alone is released.

Formal guarantee: a candidate is the average of the weights at a checkpoint from which no earlier step is drawn again: the chain
names it as shown, or as gone on from. So all of them are post-processing of one DP-SGD, whose charge covers every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..privacy import arrays, durable
from ..trainers import serving
from ..trainers.contract import Arrays, GenerativeModel
from . import store


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A model whose samples are drawn once, so that a choice by them is asked again bit by bit. `GenerativeModel`.

    A run asks every candidate for the same labels, of one seed.
    """

    name: str
    folder: Path
    model: Callable[[], GenerativeModel]

    def sample(
        self, labels: np.ndarray, *, seed: int, progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        drawn = self.folder / "samples.npz"
        if not drawn.exists():
            pixels = self.model().sample(labels, seed=seed, progress=progress)
            self.folder.mkdir(parents=True, exist_ok=True)
            durable.write_bytes(drawn, arrays.npz({"x": pixels, "y": labels}, compressed=True), mode=0o600)
        return arrays.unpacked(drawn.read_bytes())["x"]

    def saved(self) -> tuple[dict[str, Any], Arrays]:
        return self.model().saved()


class Candidates:
    """Those of one run, in `folder`."""

    def __init__(self, folder: Path, *, classes: Sequence[str], device: str) -> None:
        self._folder = folder
        self._classes = classes
        self._device = device

    def keep(self, step: int, model: GenerativeModel) -> None:
        """The model after `step` steps, durably."""
        folder = self._of(step)
        folder.mkdir(parents=True, exist_ok=True)
        store.save_model(folder, model, self._classes)
        durable.sync_folder(self._folder)

    def holds(self, step: int) -> bool:
        return (self._of(step) / "model.json").exists()

    def all(self, last: GenerativeModel, *, steps: int) -> list[Candidate]:
        """What was kept, in the order of its making, then the model after all `steps`."""
        kept = [path.parent for path in sorted(self._folder.glob("[0-9]*/model.json"))]
        return [
            *(Candidate(name=f"step {int(each.name)}", folder=each, model=partial(self._load, each)) for each in kept),
            Candidate(name=f"step {steps}", folder=self._folder / "last", model=lambda: last),
        ]

    def _load(self, folder: Path) -> GenerativeModel:
        return serving.load(folder, device=self._device).model

    def _of(self, step: int) -> Path:
        return self._folder / f"{step:07d}"
