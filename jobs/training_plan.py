"""`privolve plan` of a training: what it releases at what cost and to what avail, how large it is, and how long it takes here.

No record is read. Time and memory are measured on public random input of the shapes to come, for one micro-batch; or for as
much of one as takes seconds.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..data.private_set import Split
from ..privacy.accounting import epsilon
from ..privacy.mechanism import Relation
from ..trainers.course import DiffusionMethod
from . import model_selection, training_signal
from .train import Painted, TrainConfig
from .training_design import Design, candidate_steps, check, gradient_chunk, micro_batch

if TYPE_CHECKING:
    from torch import nn

MEASURED_S = 4.0
"""About how long a network of any size is timed."""


def text(config: TrainConfig) -> str:
    """The plan, for a reader. Raises InputError or ValueError where the job cannot run as it is written."""
    data = config.split()
    check(config, data)
    config.check_roles()
    design = Design.of(config, data)
    network = _network(config, design)
    return "\n".join(
        [
            f"train ({config.trainer.kind}) on {data.train.name}: {data.train.count:,} private slots, "
            f"{len(data.train.classes)} classes",
            "",
            *_privacy(design),
            *_selection(config, design, data),
            "",
            *_public(config),
            "",
            *_signal(config, design, network),
            "",
            *_machine(config, design, network),
        ]
    )


def _privacy(design: Design) -> list[str]:
    releases, target = design.releases("RUN"), design.target
    costs = [release.cost for release in releases]
    lines = [
        f"privacy: ({target.epsilon:g}, {target.delta:.3g}) for one {target.unit}, {target.relation}; "
        f"{len(releases)} releases"
    ]
    for number, release in enumerate(releases, 1):
        spent = epsilon(costs[:number], target.delta, target.relation)
        lines.append(f"  after {release.name.removeprefix('RUN/'):24} epsilon {spent:.4f}")
    swapped = epsilon(costs, target.delta, Relation.REPLACE_ONE)
    lines.append(f"  the same for replacing one {target.unit} by another: epsilon {swapped:.4f}")
    if design.sgd is not None:
        cost = design.sgd.cost
        lines.append(
            f"  training: {cost.steps:,} steps of {cost.probability * design.shape.slots:,.0f} records on average "
            f"(rate {cost.probability:.4f}), noise multiplier {cost.noise_multiplier:.4f}"
        )
    return lines


def _selection(config: TrainConfig, design: Design, data: Split) -> list[str]:
    lines = model_selection.plan_lines(config.selection, design.selection, data)
    if not lines:
        return []
    steps = [*candidate_steps(config, design.shape), design.sgd.cost.steps if design.sgd is not None else 0]
    return [*lines, f"  it is one of {len(steps)} models, after {', '.join(f'{step:,}' for step in steps)} steps"]


def _public(config: TrainConfig) -> list[str]:
    public = config.public
    if public is None:
        return ["public set: none"]
    if isinstance(public, Painted):
        return [f"public set: {public.count:,} images of {config.adapters['painter'].kind}"]
    return [f"public set: {public.name} ({public.kind})"]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Network:
    """What DP-SGD trains, and how many numbers that are."""

    module: nn.Module
    trained: tuple[str, ...]
    parameters: int


def _network(config: TrainConfig, design: Design) -> _Network | None:
    trainer = config.trainer
    if design.sgd is None or not isinstance(trainer, DiffusionMethod):
        return None
    from ..trainers import gradients

    module = trainer.module(design.shape, config.seed)
    trainer.prepared(module, None)
    trained = trainer.trained(module)
    parameters = gradients.trained_parameters(module, trained)
    return _Network(module=module, trained=trained, parameters=sum(value.numel() for value in parameters.values()))


def _signal(config: TrainConfig, design: Design, network: _Network | None) -> list[str]:
    training = [] if network is None else training_signal.of_training(design, network.parameters)
    return training_signal.lines(training_signal.of_queries(config.trainer, design), training)


def _machine(config: TrainConfig, design: Design, network: _Network | None) -> list[str]:
    trainer, sgd = config.trainer, design.sgd
    if network is None or sgd is None or not isinstance(trainer, DiffusionMethod):
        return []
    import torch

    from ..trainers import gradients
    from ..trainers.workspace import chosen_device

    module, trained = network.module, network.trained
    whole = sum(value.numel() for value in module.parameters())
    device, rows = chosen_device(config.performance.device), micro_batch(config, design)
    lines = [
        f"network: {whole:,} parameters, {network.parameters:,} of them trained; {device}, {rows} records at a time"
    ]
    channels, height, width = trainer.seen(design.shape)
    loss = trainer.loss(design.shape, private=True)
    module.to(device)

    def batch(count: int) -> dict[str, torch.Tensor]:
        blank = np.zeros((count, height, width, channels), dtype=np.uint8)
        zeros = np.zeros(count, dtype=np.int64)
        return {name: value.to(device) for name, value in loss.rows(config.seed)(blank, zeros, zeros, 0).items()}

    def timed(count: int) -> float:
        asked, began = batch(count), time.perf_counter()
        for _ in engine.per_record(asked):
            pass
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    losses = gradients.in_precision(loss.losses, trainer.precision)
    engine = gradients.engine(
        config.performance.gradients, module, losses, trained, gradient_chunk(config, design), public=batch(1)
    )
    one = timed(1)  # The first pass is slower than those to come, and of a large network long enough.
    measured = rows if device != "cpu" else min(rows, max(1, int(MEASURED_S / one)))
    while (took := timed(measured)) < MEASURED_S / 4 and measured < rows:
        measured = min(rows, 4 * measured)
    records = sgd.cost.probability * design.shape.slots
    seconds = took / measured * max(rows, records) * sgd.cost.steps
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if device != "cpu":
        memory = torch.cuda.max_memory_allocated() / 2**30
    noun = "record" if measured == 1 else "records"
    uncompiled = ", not compiled, since that takes minutes" if config.performance.compile else ""
    return [
        *lines,
        f"time: about {_spoken(seconds)} for the steps on this machine, as {measured:,} {noun} of random input took "
        f"{took:.2f} s{uncompiled}; public stages and samples come on top",
        f"memory: {memory:.1f} GiB at its peak meanwhile",
    ]


def _spoken(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
