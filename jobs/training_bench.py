"""What a training job lends to its method: `trainers.contract.Bench`, in the first process and in those that help it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.training_records import TrainingRecords
from ..privacy import arrays, durable
from ..privacy.ledger import Ledger, assist
from ..privacy.mechanism import CalibratedMechanism
from ..privacy.private import Private
from ..trainers import dp_sgd, gradients
from ..trainers.contract import Arrays, GenerativeModel, Progress, PublicImages
from ..trainers.workspace import Workspace, chosen_device
from . import several
from .gateways import cache_folder
from .job import canonical
from .progress import Bars
from .run import Event, Run
from .stages import Stages
from .train import TrainConfig
from .training_candidates import Candidates
from .training_design import Design, candidate_steps, checkpoint_every, gradient_chunk, micro_batch, preview_every

PREVIEWED = 80
"""About how many images a preview has, over all classes."""


class JobBench:
    """`trainers.contract.Bench` of a run."""

    def __init__(
        self,
        *,
        config: TrainConfig,
        run: Run,
        ledger: Ledger,
        design: Design,
        public: PublicImages | None,
        records: Private[TrainingRecords],
        bars: Bars,
        candidates: Candidates | None,
    ) -> None:
        """`candidates`: where models that are shown are kept, for a choice between them; None: none is made."""
        self.shape = design.shape
        self.seed = config.seed
        self.public = public
        self.device = chosen_device(config.performance.device)
        self._run = run
        self._ledger = ledger
        self._records = records
        self._bars = bars
        self._performance = config.performance
        self._config = config
        self._design = design
        self.compiled = config.performance.compile
        self._stages = Stages(cache_folder(config.performance).parent / ".stages")
        self._finished: dict[str, Arrays] = {}
        self._candidates = candidates
        self._training: dp_sgd.Training | None = None

    @property
    def progress(self) -> Callable[[str, int, int], None]:
        return self._bars

    def stage(self, name: str, key: Mapping[str, Any], make: Callable[[Path], Arrays]) -> Arrays:
        place = f"{name} {canonical(key)}"
        if place not in self._finished:
            self._bars.stage(name)
            self._finished[place] = self._stages.get(name, key, make)
            several.share({"stage": name}, self._finished[place])
        return self._finished[place]

    def release(
        self,
        name: str,
        mechanism: CalibratedMechanism[TrainingRecords],
        *,
        question: Mapping[str, Any],
    ) -> Arrays:
        self._bars.stage(name)
        name_of_release = f"{self._run.releases_as}/{name}"
        asked = hashlib.sha256(canonical(question).encode()).hexdigest()
        if isinstance(mechanism, dp_sgd.Training):
            attempts = self._ledger.book.attempts(name_of_release)
            self._training = mechanism
            several.share({"help": not attempts or attempts[-1].outcome != "released"})
            released = dp_sgd.release_training(
                self._ledger, mechanism, self._records, name=name_of_release, question=asked
            )
        else:
            released = self._ledger.release(mechanism, self._records, name=name_of_release, question=asked)
        several.share({"release": name}, released)
        self._run.record(ledger_head=self._ledger.head())
        self._run.journal(Event.RELEASED, name=name)
        return released

    def workspace(self, name: str, *, model: Callable[[Arrays], GenerativeModel] | None = None) -> Workspace:
        performance, sgd = self._performance, self._design.sgd
        return Workspace(
            folder=self._run.private / name,
            device=self.device,
            engine=performance.gradients,
            micro_batch=micro_batch(self._config, self._design),
            chunk=gradient_chunk(self._config, self._design),
            compiled=self.compiled,
            checkpoint_every=checkpoint_every(self._config),
            preview_every=0 if model is None or sgd is None else preview_every(self._config, sgd.cost.steps),
            preview=None if model is None else lambda step, weights: self._show(step, model(weights)),
            progress=lambda step, steps: self._moved(step, steps, model),
        )

    def _moved(self, step: int, steps: int, model: Callable[[Arrays], GenerativeModel] | None) -> None:
        """Tell; and in the first step from a checkpoint, keep its model, if an earlier process was killed between the two."""
        self._bars("steps", step, steps)
        training = self._training
        if training is None or model is None or self._candidates is None:
            return
        resumed = training.workspace.resumed
        if resumed is not None and resumed.step == step - 1:
            average = torch.from_numpy(resumed.arrays["ema"])
            named = gradients.unflatten(average, training.task.module, training.task.trained)
            self._keep(resumed.step, lambda: model({name: value.numpy() for name, value in named.items()}))

    def _keep(self, step: int, model: Callable[[], GenerativeModel]) -> None:
        """As a candidate, if the model after this step is one and is not kept yet."""
        kept = self._candidates
        if kept is not None and step in candidate_steps(self._config, self.shape) and not kept.holds(step):
            kept.keep(step, model())

    def _show(self, step: int, model: GenerativeModel) -> None:
        """A grid of samples of a durable checkpoint, in a new folder under `iterations/`."""
        self._keep(step, lambda: model)
        classes = np.arange(min(len(self.shape.classes), PREVIEWED), dtype=np.int64)
        labels = np.repeat(classes, max(1, PREVIEWED // len(self.shape.classes)))
        pixels = model.sample(labels, seed=self.seed)
        taken = [int(path.name) for path in self._run.iterations.iterdir() if path.name.isdigit()]
        folder = self._run.iterations / f"{max(taken, default=0) + 1:03d}"
        folder.mkdir()
        content = {"x": pixels, "y": labels, "step": np.asarray(step, dtype=np.int64)}
        durable.write_bytes(folder / "preview.npz", arrays.npz(content, compressed=True))


class HelpingBench:
    """`trainers.contract.Bench` of a process beside the first: it waits for what the first one has, and helps to train."""

    def __init__(
        self,
        *,
        config: TrainConfig,
        design: Design,
        public: PublicImages | None,
        records: Private[TrainingRecords],
        folder: Path,
    ) -> None:
        self.shape = design.shape
        self.seed = config.seed
        self.public = public
        self.device = chosen_device(config.performance.device)
        self.compiled = config.performance.compile
        self._config = config
        self._design = design
        self._records = records
        self._folder = folder
        self._finished: dict[str, Arrays] = {}

    @property
    def progress(self) -> Progress:
        return lambda what, done, total: None

    def stage(self, name: str, key: Mapping[str, Any], make: Callable[[Path], Arrays]) -> Arrays:
        place = f"{name} {canonical(key)}"
        if place not in self._finished:
            self._finished[place] = several.share()[1]
        return self._finished[place]

    def release(
        self, name: str, mechanism: CalibratedMechanism[TrainingRecords], *, question: Mapping[str, Any]
    ) -> Arrays:
        if isinstance(mechanism, dp_sgd.Training) and several.share()[0]["help"]:
            assist(mechanism, self._records)
        return several.share()[1]

    def workspace(self, name: str, *, model: Callable[[Arrays], GenerativeModel] | None = None) -> Workspace:
        return Workspace(
            folder=self._folder,
            device=self.device,
            engine=self._config.performance.gradients,
            micro_batch=micro_batch(self._config, self._design),
            chunk=gradient_chunk(self._config, self._design),
            compiled=self.compiled,
        )
