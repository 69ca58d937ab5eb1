"""`privolve audit` of a training job: its queries and its DP-SGD, at their calibrated noise, tried on stand-in data.

The private set is not read. A stand-in set has a few slots of random pixels; the network is the job's own, or a tiny one where
that would take minutes: how it is built does not enter the guarantee, and a run checks its gradients before its first step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.training_records import TrainingRecords
from ..privacy.accounting import epsilon
from ..privacy.audit import AuditReport, AuditRow, Neighbour, audit
from ..privacy.audit_sampled import Subject, audit_sampled, canary_lower_bound
from ..privacy.randomness import PublicRng, SystemRng
from .job import InputError
from .train import TrainConfig
from .training_design import Design, check

if TYPE_CHECKING:
    from ..trainers.course import DiffusionMethod

SLOTS = 20
LARGEST = 100_000
"""Parameters of a network that is audited as it is."""
RUNS, DRAWS = 20_000, 20_000_000
"""A side of the many-run test of the whole training; fewer where its steps would make more draws than these."""


def run(config: TrainConfig) -> bool:
    """Print what was tried and what held; True if all did."""
    from ..trainers.course import DiffusionMethod

    data = config.split()
    check(config, data)
    trainer = config.trainer
    if not isinstance(trainer, DiffusionMethod):
        raise InputError(f"trainer.kind: {trainer.kind!r} has no mechanisms that are known here")
    design = Design.of(config, data)
    print(f"mechanisms of this job on stand-in data; {data.train.count:,} slots were counted, none was read")
    reports = [_said(name, report) for name, report in _queries(trainer, design)]
    if design.sgd is not None:
        reports.append(_said("DP-SGD", _training(trainer, design)))
    return all(report.passed for report in reports)


def _said(name: str, report: AuditReport) -> AuditReport:
    print(f"\n{name}\n{report}")
    return report


# --- queries ----------------------------------------------------------------------------------------------------------


def _queries(trainer: DiffusionMethod, design: Design) -> list[tuple[str, AuditReport]]:
    from ..trainers.privimage import PrivImage
    from ..trainers.semantic_query import SemanticQuery
    from ..trainers.warm_up import CentralWarmUp

    shape, found = design.shape, list[tuple[str, AuditReport]]()
    records = _records((shape.height, shape.width, shape.channels), len(shape.classes))
    if isinstance(trainer, PrivImage):
        public = max(trainer.public_classes, 2 * trainer.votes)
        query = SemanticQuery(shape=shape, public_classes=public, votes=trainer.votes)
        asked = query.with_noise(trainer.noise_multiplier).over(_scores(public))
        report = audit(lambda: asked, lambda: records, NEIGHBOURS, samples=20_000, runs=2000, delta=design.target.delta)
        found.append(("semantic query", report))
    for (name, _), each in zip(trainer.queries(shape)[-len(trainer.warm_up) :], trainer.warm_up, strict=False):
        if isinstance(each, CentralWarmUp):
            images, noise = each.config(shape), each.noise_multiplier

            def rounds(steps: int, images: Any = images, noise: float = noise) -> Any:
                return replace(images, rounds=steps).with_noise(noise)

            found.append((name, _sums(rounds, records, images.sensitivity, design, steps=min(each.rounds, 3))))
        else:
            means = each.config(shape, 0).with_noise(each.noise_multiplier)
            found.append((name, _sums(lambda steps, means=means: means, records, 1.0, design, steps=1)))
    return found


def _sums(
    mechanism: Callable[[int], Any], records: TrainingRecords, sensitivity: float, design: Design, *, steps: int
) -> AuditReport:
    def sums(output: Mapping[str, np.ndarray]) -> np.ndarray:
        return (output["sums"].sum(axis=0) if output["sums"].ndim > 2 else output["sums"]).ravel() / sensitivity

    subject = Subject(
        mechanism=mechanism, data=lambda: records, slots=SLOTS, neighbours=NEIGHBOURS, sums=sums, steps=steps
    )
    return audit_sampled(subject, samples=20_000, runs=2000, delta=design.target.delta)


def _scores(classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """A stand-in for the public classifier: fixed random directions."""

    def scores(pixels: np.ndarray) -> np.ndarray:
        flat = pixels.reshape(len(pixels), -1).astype(np.float64)
        return flat @ PublicRng(0).at("audit", "classifier").standard_normal((flat.shape[1], classes))

    return scores


# --- the training -----------------------------------------------------------------------------------------------------


def _training(trainer: DiffusionMethod, design: Design) -> AuditReport:
    """One step as it is: masks, gradients, clipping, noise, normaliser; then all steps, on a canary's own direction."""
    sgd = design.sgd
    assert sgd is not None
    with TemporaryDirectory() as folder:
        report = audit_sampled(_step(trainer, design, Path(folder)), samples=2000, runs=2000, delta=design.target.delta)
    cost = sgd.cost
    runs = min(RUNS, max(500, DRAWS // cost.steps))
    found = canary_lower_bound(cost, SystemRng(), runs=runs, delta=design.target.delta)
    claimed = epsilon([cost], design.target.delta)
    said = f"epsilon is at least {found:.3g} by {runs:,} runs a side; accounted {claimed:.3g}"
    return AuditReport(
        rows=(*report.rows, AuditRow(name=f"all {cost.steps:,} steps", passed=found <= claimed, detail=said))
    )


def _step(trainer: DiffusionMethod, design: Design, folder: Path) -> Subject[TrainingRecords]:
    from ..trainers.dp_sgd import Task, Training
    from ..trainers.latent_course import LatentMethod, LatentTable
    from ..trainers.loop import arrays_of
    from ..trainers.optimizers import Optimizer
    from ..trainers.workspace import Workspace

    sgd = design.sgd
    assert sgd is not None
    trainer = trainer.model_copy(update={"multiplicity": min(trainer.multiplicity, 2)})
    module = trainer.module(design.shape, 0)
    whole = sum(value.numel() for value in module.parameters())
    if whole > LARGEST:
        tiny = {"latent": LatentTable()} if isinstance(trainer, LatentMethod) else {"network": "tiny"}
        trainer = trainer.model_copy(update=tiny)
        module = trainer.module(design.shape, 0)
        print(f"\na tiny network stands in for one of {whole:,} parameters")
    trainer.prepared(module, None)
    _stir(module)
    trained, start = trainer.trained(module), arrays_of(module)
    channels, height, width = trainer.seen(design.shape)
    loss = trainer.loss(design.shape, private=True)
    records = _records((height, width, channels), len(design.shape.classes))
    config, clip_norm = sgd.config, sgd.config.clip_norm
    # The optimizer is what comes after the noisy sum; this one leaves the sum to be read, in clipping norms.
    reading = Optimizer(kind="sgd", learning_rate=config.sampling_probability * SLOTS / clip_norm)
    task = Task(
        module=module,
        losses=lambda net, batch: 1e4 * loss.losses(net, batch),  # so that every record is cut
        trained=trained,
        rows=loss.rows(0),
        image=(height, width, channels),
    )
    made: dict[int, Training] = {}

    def mechanism(steps: int) -> Training:
        if steps not in made:
            workspace = Workspace(folder=folder, device="cpu", micro_batch=SLOTS, log_every=0)
            again = replace(sgd, config=replace(config, steps=steps, optimizer=reading))
            made[steps] = again.training(task, start, workspace)
        return made[steps]

    def sums(output: Mapping[str, np.ndarray]) -> np.ndarray:
        moved = [start[name] - output[f"weights/{name}"] for name in trained]
        return np.concatenate([each.astype(np.float64).ravel() for each in moved])

    return Subject(
        mechanism=mechanism,
        data=lambda: records,
        slots=SLOTS,
        neighbours=NEIGHBOURS,
        sums=sums,
        additive=False,
    )


def _stir(module: Any) -> None:
    """Public noise on all parameters: at its start an output layer is zero, and with it every gradient below."""
    import torch

    rng = PublicRng(0).at("audit", "weights")
    with torch.no_grad():
        for value in module.parameters():
            value.add_(torch.from_numpy(0.05 * rng.standard_normal(tuple(value.shape), dtype=np.float32)))


# --- stand-in data ----------------------------------------------------------------------------------------------------


def _records(image: tuple[int, int, int], classes: int) -> TrainingRecords:
    """Random images, a white one in the slot that is changed, and a ghost, so that N can be told from what is there."""
    rng = PublicRng(0).at("audit", "records")
    pixels = rng.integers(0, 256, (SLOTS, *image), dtype=np.uint8)
    pixels[0] = 255
    labels = np.arange(SLOTS, dtype=np.int64) % classes
    return _with(TrainingRecords(pixels=pixels, labels=labels, valid=np.ones(SLOTS, dtype=np.bool_)), 4, ghost=True)


def _with(
    records: TrainingRecords, slot: int, *, pixels: Any = 0, label: int = 0, ghost: bool = False
) -> TrainingRecords:
    changed = TrainingRecords(pixels=records.pixels.copy(), labels=records.labels.copy(), valid=records.valid.copy())
    changed.pixels[slot], changed.labels[slot], changed.valid[slot] = pixels, -1 if ghost else label, not ghost
    return changed


def _nobody(records: TrainingRecords) -> TrainingRecords:
    return TrainingRecords(
        pixels=np.zeros_like(records.pixels),
        labels=np.full(len(records), -1, dtype=np.int64),
        valid=np.zeros(len(records), dtype=np.bool_),
    )


NEIGHBOURS = (
    Neighbour[TrainingRecords](
        name="a ghost in a slot", change=lambda each: _with(each, 0, ghost=True), contributions=1
    ),
    Neighbour[TrainingRecords](
        name="a ghost in the last slot", change=lambda each: _with(each, SLOTS - 1, ghost=True), contributions=1
    ),
    Neighbour[TrainingRecords](
        name="another record in a slot", change=lambda each: _with(each, 0, pixels=0, label=0), contributions=2
    ),
    Neighbour[TrainingRecords](
        name="a record of another class",
        change=lambda each: _with(each, 0, pixels=each.pixels[0], label=int(each.labels.max())),
        contributions=2,
    ),
    Neighbour[TrainingRecords](
        name="a duplicate of a neighbour",
        change=lambda each: _with(each, 0, pixels=each.pixels[1], label=int(each.labels[1])),
        contributions=2,
    ),
    Neighbour[TrainingRecords](name="nobody at all", change=_nobody, contributions=None),
)
"""How the stand-in records are changed, one slot at a time."""
