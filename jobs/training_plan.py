"""`privolve plan` of a training: what it releases at what cost and to what avail, how large it is, and how long it takes here.

No record is read. Time and memory are measured on public random input of the shapes to come, for one micro-batch; or for as
much of one as takes seconds.
"""

from __future__ import annotations

import resource
import time

from ..data.private_set import Split
from ..privacy.accounting import epsilon
from ..privacy.mechanism import Relation
from ..privacy.words import counted
from . import model_selection, training_signal
from .train import Painted, TrainConfig
from .training_design import Design, candidate_steps, check
from .training_network import Network

MEASURED_S = 4.0
"""About how long a network of any size is timed."""


def text(config: TrainConfig) -> str:
    """The plan, for a reader. Raises InputError or ValueError where the job cannot run as it is written."""
    data = config.split()
    check(config, data)
    config.check_roles()
    design = Design.of(config, data)
    network = Network.of(config, design)
    return "\n".join(
        [
            f"train ({config.trainer.kind}) on {data.train.name}: {data.train.count:,} private slots, "
            f"{counted(len(data.train.classes), 'class')}",
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
        f"{counted(len(releases), 'release')}"
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


def _signal(config: TrainConfig, design: Design, network: Network | None) -> list[str]:
    training = [] if network is None else training_signal.of_training(design, network.parameters)
    return training_signal.lines(training_signal.of_queries(config.trainer, design), training)


def _machine(config: TrainConfig, design: Design, network: Network | None) -> list[str]:
    sgd = design.sgd
    if network is None or sgd is None:
        return []
    import torch

    whole = sum(value.numel() for value in network.module.parameters())
    device, rows = network.device, network.rows
    lines = [
        f"network: {whole:,} parameters, {network.parameters:,} of them trained; {device}, {rows} records at a time"
    ]
    engine = network.engine(compiled=False)

    def timed(count: int) -> float:
        asked, began = network.batch(count), time.perf_counter()
        for _ in engine.per_record(asked):
            pass
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    one = timed(1)  # The first pass is slower than those to come, and of a large network long enough.
    measured = rows if device != "cpu" else min(rows, max(1, int(MEASURED_S / one)))
    while (took := timed(measured)) < MEASURED_S / 4 and measured < rows:
        measured = min(rows, 4 * measured)
    records = sgd.cost.probability * design.shape.slots
    seconds = took / measured * max(rows, records) * sgd.cost.steps
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if device != "cpu":
        memory = torch.cuda.max_memory_allocated() / 2**30
    uncompiled = ", not compiled, since that takes minutes" if config.performance.compile else ""
    return [
        *lines,
        f"time: about {_spoken(seconds)} for the steps on this machine, as {counted(measured, 'record')} of random input took "
        f"{took:.2f} s{uncompiled}; public stages and samples come on top",
        f"memory: {memory:.1f} GiB at its peak meanwhile",
    ]


def _spoken(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
