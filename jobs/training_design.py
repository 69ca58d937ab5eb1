"""The private side of a training job, from public numbers alone: what it releases, at which noise, in which batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..data.private_set import PrivateSet, Split
from ..privacy.accounting import check_delta, default_delta, epsilon
from ..privacy.ledger import PlannedRelease
from ..privacy.mechanism import Cost, PrivacyTarget, PureEpsilon, calibrate
from ..trainers.contract import Shape
from .job import InputError
from .train import TrainConfig

if TYPE_CHECKING:
    from ..trainers.dp_sgd import DPSGD, NoisySGD

SMALL_IMAGE = 256
"""Numbers in an image up to which many more records fit into a micro-batch."""

TRAINING = "training"
"""The release that is the trained weights."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """The private side of a training, from public numbers alone."""

    shape: Shape
    target: PrivacyTarget
    sgd: NoisySGD | None
    queries: tuple[tuple[str, Any], ...]
    selection: PureEpsilon | None = None
    """Of the choice between the models, on a partition of its own; None: it reads no private record."""

    @classmethod
    def of(cls, config: TrainConfig, data: Split, *, delta: float | None = None) -> Design:
        """Queries at the noise of their settings, the training calibrated beside them. Raises ValueError."""
        shape = shape_of(data.train)
        privacy = config.privacy
        target = PrivacyTarget(
            epsilon=privacy.epsilon,
            delta=privacy.delta or delta or default_delta(data.registered.count),
            unit=privacy.unit,
            relation=privacy.relation,
        )
        check_delta(target.delta, shape.slots)
        queries = config.trainer.queries(shape)
        training = config.trainer.dp_sgd(shape)
        beside, fixed = [cost for _, cost in queries], config.trainer.fixed_noise
        sgd = None
        if training is not None and fixed is not None:
            sgd = affordable(training, fixed, target, beside)
        elif training is not None:
            sgd = calibrate(training, target, beside=beside)
        selection = config.selection.cost([*beside, *([] if sgd is None else [sgd.cost])], target)
        return cls(shape=shape, target=target, sgd=sgd, queries=queries, selection=selection)

    def releases(self, prefix: str) -> tuple[PlannedRelease, ...]:
        """Every release of the run, in order."""
        planned = [PlannedRelease(name=f"{prefix}/{name}", cost=cost) for name, cost in self.queries]
        if self.sgd is not None:
            planned.append(PlannedRelease(name=f"{prefix}/{TRAINING}", cost=self.sgd.cost))
        return tuple(planned)


def shape_of(data: PrivateSet) -> Shape:
    """What is public of the private set."""
    assert data.size is not None  # `check` saw to it.
    return Shape(
        width=data.size[0],
        height=data.size[1],
        channels=data.channels,
        classes=data.classes,
        slots=data.count,
    )


def affordable(training: DPSGD, noise_multiplier: float, target: PrivacyTarget, beside: Sequence[Cost]) -> NoisySGD:
    """The training at a noise multiplier that the job file fixed. Raises InputError where its steps cost more than the target."""

    def fits(steps: int) -> bool:
        cost = replace(training, steps=steps).with_noise(noise_multiplier).cost
        return epsilon([*beside, cost], target.delta, target.relation) <= target.epsilon

    if fits(training.steps):
        return training.with_noise(noise_multiplier)
    least, most = 0, training.steps
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fits(middle) else (least, middle)
    raise InputError(
        f"trainer: {training.steps:,} steps at noise = {noise_multiplier:g} cost more than epsilon {target.epsilon:g} at delta "
        f"{target.delta:.3g}, which buys {least:,}; lower epochs, raise noise, or leave noise out, and it is calibrated"
    )


def check_installed() -> None:
    """Refuse, in one line, to train without what trains."""
    for name in ("torch", "safetensors"):
        if find_spec(name) is None:
            raise InputError(f"kind: a training needs {name}, which is not installed: pip install 'privolve[train]'")


def check(config: TrainConfig, data: Split) -> None:
    """Refuse data that no trainer can use, before any record is read."""
    check_installed()
    from ..trainers.workspace import chosen_device

    chosen_device(config.performance.device)
    if data.train.size is None:
        raise InputError(f"[data] {data.train.name!r} holds texts; a training job needs images")
    if config.trainer.needs_public and config.public is None:
        raise InputError(f"[public]: {config.trainer.kind} starts from a public set; name one")
    if config.samples.shares != "uniform" and set(config.samples.shares) != set(data.train.classes):
        raise InputError("samples.shares: give one share for each class, under its name")
    config.selection.check(config, data)
    if config.selection.rule != "last":
        _check_candidates(config, shape_of(data.train))


def _check_candidates(config: TrainConfig, shape: Shape) -> None:
    """Refuse a choice that would be between the last model and nothing, or by no image."""
    rule, count = config.selection.rule, config.samples.count
    if not config.samples.previews:
        raise InputError(
            f"selection.rule: {rule!r} is a choice between models that are shown on the way, and samples.previews = 0 shows "
            'none; raise it, or take "last"'
        )
    if not candidate_steps(config, shape):
        raise InputError(
            f"performance.checkpoint_every: {checkpoint_every(config)} is too many steps for a model to be shown "
            f"before the last one, and selection.rule = {rule!r} is a choice between these; lower it"
        )
    if rule == "synthetic" and int(config.selection.share * count) == 0:
        raise InputError(
            f"selection.share: {config.selection.share:g} of {count} samples leaves none to choose by; raise it"
        )


def checkpoint_every(config: TrainConfig) -> int:
    """Steps between checkpoints. Two at least where models are kept for a choice.

    One that was lost with its process is kept in the step after its checkpoint, while that is still the newest.
    """
    every = config.performance.checkpoint_every
    return every if config.selection.rule == "last" else max(2, every)


def preview_every(config: TrainConfig, steps: int) -> int:
    """Steps between previews: whole checkpoints, so that about as many fit as are asked for; 0: there are none."""
    wanted, every = config.samples.previews, checkpoint_every(config)
    return max(1, round(steps / (wanted + 1) / every)) * every if wanted else 0


def candidate_steps(config: TrainConfig, shape: Shape) -> range:
    """After which steps of the training a model is shown that is not the last."""
    training = config.trainer.dp_sgd(shape)
    every = 0 if training is None else preview_every(config, training.steps)
    return range(every, training.steps, every) if training is not None and every else range(0)


def micro_batch(config: TrainConfig, design: Design) -> int:
    """How many records are computed at a time, from public numbers: most steps fill a whole number of micro-batches."""
    if config.performance.micro_batch is not None:
        return config.performance.micro_batch
    most = 64 if design.shape.pixels > SMALL_IMAGE else 512
    if design.sgd is None:
        return most
    rate, slots = design.sgd.cost.probability, design.shape.slots
    nearly_all = math.ceil(rate * slots + 2 * math.sqrt(rate * (1 - rate) * slots))
    pieces = math.ceil(nearly_all / most)
    return max(1, math.ceil(nearly_all / pieces))


def gradient_chunk(config: TrainConfig, design: Design) -> int | None:
    """How many gradients at a time: of small images all of a micro-batch, else the engine's own number."""
    chosen = config.performance.gradient_chunk
    return micro_batch(config, design) if chosen is None and design.shape.pixels <= SMALL_IMAGE else chosen


def describe(design: Design) -> str:
    """The training in one line, from public numbers."""
    assert design.sgd is not None
    cost = design.sgd.cost
    return (
        f"DP-SGD: {cost.steps:,} steps, each over a random {cost.probability:.1%} of {design.shape.slots:,} slots, "
        f"noise multiplier {cost.noise_multiplier:.3f}"
    )
