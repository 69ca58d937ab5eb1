"""What can records add to a training at most, against its noise? From public numbers alone.

Model: every record adds a vector of the longest length that is let through, and all of them point the same way, so that their
sum is as long as they are many. The noise is measured in the same unit: as long as how many records. Real gradients disagree
and may be shorter, so a ratio is a ceiling and no promise. Lengths count all directions; along a single one noise is shorter.

    a step          q N records on average                 noise sigma C on each of P parameters:      sigma sqrt(P) records
    T steps         T times that, if all steps agree       independent noise, which adds up slower:    sigma sqrt(P T)
    a warm-up       the records of the smallest class      sigma times their length, on d numbers:     sigma sqrt(d)
    semantic query  one vote a record in each of k cells   sigma sqrt(k) votes in a cell
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..trainers.contract import Method, Shape
from ..trainers.course import DiffusionMethod
from ..trainers.privimage import QUERY, PrivImage
from ..trainers.warm_up import CentralWarmUp, WarmUp
from .training_design import TRAINING, Design


@dataclass(frozen=True, kw_only=True)
class Signal:
    """What records can add at most to one answer, and its noise, both in records."""

    name: str
    most: float
    noise: float
    unit: str = "records"

    @property
    def ratio(self) -> float:
        """Signal to noise at best."""
        return self.most / self.noise


def of_queries(method: Method, design: Design) -> list[Signal]:
    """One for each query before the training, in order, over the records that its smallest class is declared to have."""
    if not isinstance(method, DiffusionMethod):
        return []
    shape, share = design.shape, min(method.shares(design.shape))
    found: list[Signal] = []
    if isinstance(method, PrivImage):
        noise = method.noise_multiplier * math.sqrt(method.votes)
        found.append(Signal(name=QUERY, most=share * shape.slots, noise=noise, unit="votes in a cell"))
    for (name, _), each in zip(design.queries[len(found) :], method.warm_up, strict=True):
        found.append(_of_warm_up(name, each, shape, share))
    return found


def of_training(design: Design, parameters: int) -> list[Signal]:
    """Of one step on so many trained parameters, and of all steps together."""
    if design.sgd is None:
        return []
    cost = design.sgd.cost
    records, noise = cost.probability * design.shape.slots, cost.noise_multiplier * math.sqrt(parameters)
    together = f"{cost.steps:,} steps"
    return [
        Signal(name=f"{TRAINING}, a step", most=records, noise=noise),
        Signal(name=f"{TRAINING}, {together}", most=cost.steps * records, noise=math.sqrt(cost.steps) * noise),
    ]


def lines(queries: list[Signal], training: list[Signal]) -> list[str]:
    """What `privolve plan` says."""
    found = [*queries, *training]
    if not found:
        return []
    return [
        "signal against noise, from public numbers alone: at best, as if all records pulled the same way",
        *(
            f"  {each.name:24} {each.most:12,.1f} {each.unit}, noise of {each.noise:,.1f}: at best {each.ratio:.3g} times the noise"
            for each in found
        ),
        *([f"  {_advice(*training)}"] if training else []),
    ]


def _of_warm_up(name: str, warm_up: WarmUp, shape: Shape, share: float) -> Signal:
    if isinstance(warm_up, CentralWarmUp):
        config = warm_up.config(shape)
        records, numbers = config.probability * shape.slots, math.prod(config.small)
        numbers *= config.bins if config.statistic == "mode" else 1
    else:
        records, numbers = shape.slots, warm_up.features
    noise = warm_up.noise_multiplier * math.sqrt(numbers)
    return Signal(name=name, most=share * records, noise=noise, unit="records of a class")


def _advice(step: Signal, together: Signal) -> str:
    """Where the noise stops being longer than what records can add; no other bound has grounds in these figures."""
    if step.ratio >= 1:
        return "In a step the records can outweigh the noise, as far as they agree."
    if together.ratio >= 1:
        needed = math.ceil(step.ratio**-2)
        return (
            f"A step is more noise than signal even at best; over {needed:,} steps or more the records can outweigh it, as far as "
            "these steps agree."
        )
    return (
        "Even if all records pulled the same way in all steps, there would be more noise than signal. To help: train fewer "
        "parameters, use more records, or give more epsilon."
    )
