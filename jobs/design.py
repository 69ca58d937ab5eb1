"""The private side of a run, from public numbers alone: what is released, with how much noise, at what cost, to what avail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from ..pe_engine import shares
from ..pe_engine.histogram import LabelHistogram, NearestNeighbourHistogram, NoisyHistogram, NoisyLabelHistogram
from ..pe_engine.selection import Sample
from ..pe_engine.signal import Signal, signal
from ..privacy.accounting import check_delta, default_delta
from ..privacy.ledger import PlannedRelease
from ..privacy.mechanism import PrivacyTarget, PureEpsilon, calibrate

if TYPE_CHECKING:
    from ..pe_engine.schedule import Stages
    from .evolution import EvolutionConfig


@dataclass(frozen=True, kw_only=True)
class Design:
    """The calibrated mechanisms of a run over N voters."""

    config: EvolutionConfig
    classes: tuple[str, ...]
    voters: int
    target: PrivacyTarget
    histogram: NoisyHistogram
    labels: NoisyLabelHistogram | None
    selection: PureEpsilon | None
    """Of the choice between the iterations' sets, on a partition of its own; None: it reads no private record."""

    @classmethod
    def of(cls, config: EvolutionConfig, *, classes: tuple[str, ...], voters: int, delta: float | None = None) -> Self:
        """Calibrate to the run's share; `delta` is the ledger's where the job file gives none. Raises ValueError."""
        privacy, settings = config.privacy, config.evolution
        target = PrivacyTarget(
            epsilon=privacy.epsilon,
            delta=privacy.delta or delta or default_delta(voters),
            unit=privacy.unit,
            relation=privacy.relation,
        )
        check_delta(target.delta, voters)
        labels = None
        if settings.shares == "released":
            labels = LabelHistogram(classes=len(classes)).with_noise(settings.share_noise)
        histogram = calibrate(
            NearestNeighbourHistogram(neighbours=settings.neighbours, distance=settings.distance),
            target,
            uses=settings.iterations,
            beside=[] if labels is None else [labels.cost],
        )
        costs = [*[histogram.cost] * settings.iterations, *([] if labels is None else [labels.cost])]
        return cls(
            config=config,
            classes=classes,
            voters=voters,
            target=target,
            histogram=histogram,
            labels=labels,
            selection=config.selection.cost(costs, target),
        )

    def releases(self, run: str) -> tuple[PlannedRelease, ...]:
        """Every release of the run, in order: the label histogram if there is one, then one histogram an iteration."""
        planned = [PlannedRelease(name=label_release(run), cost=self.labels.cost)] if self.labels is not None else []
        planned += [
            PlannedRelease(name=histogram_release(run, number), cost=self.histogram.cost)
            for number in range(1, self.config.evolution.iterations + 1)
        ]
        return tuple(planned)

    def shares(self) -> np.ndarray | None:
        """The label shares, or None where they are still to be released."""
        declared = self.config.evolution.shares
        if declared == "released":
            return None
        return shares.uniform(len(self.classes)) if declared == "uniform" else shares.declared(declared, self.classes)

    def stages(self, label_shares: np.ndarray | None = None) -> Stages:
        """The schedule, with uniform shares standing in for ones that are still to be released.

        Raises ValueError where an iteration asks for more candidates, or more neighbours, than a class will have.
        """
        known = self.shares() if label_shares is None else label_shares
        stages = self.config.stages(self.classes, shares.uniform(len(self.classes)) if known is None else known)
        for number in range(1, self.config.evolution.iterations + 1):
            self._check_pools(number, stages)
        return stages

    def signals(self, stages: Stages) -> list[Signal]:
        """Signal against noise of each iteration's votes, first to last."""
        settings = self.config.evolution
        found: list[Signal] = []
        for number in range(1, settings.iterations + 1):
            stage, pool = stages(number), _pool(number, stages)
            found.append(
                signal(
                    voters=self.voters,
                    candidates=pool,
                    selected=[min(count, size) for count, size in zip(stage.counts, pool, strict=True)],
                    scale=self.histogram.scale,
                    shares=stages.shares,
                    neighbours=settings.neighbours,
                    iterations=settings.iterations,
                )
            )
        return found

    def _check_pools(self, number: int, stages: Stages) -> None:
        settings, stage = self.config.evolution, stages(number)
        for name, count, pool in zip(self.classes, stage.counts, _pool(number, stages), strict=True):
            if count > pool and not isinstance(stage.selection, Sample):
                raise ValueError(
                    f"[evolution] iteration {number} selects {count} candidates of class {name!r} from a pool of {pool}; "
                    "raise `variations` or the `count` before it, lower `count`, or select by sampling"
                )
            if settings.neighbours > pool:
                raise ValueError(
                    f"[evolution] neighbours = {settings.neighbours}, and iteration {number} has {pool} candidates of class "
                    f"{name!r} to vote for; lower `neighbours`, or raise `count` or `variations`"
                )


def _pool(number: int, stages: Stages) -> list[int]:
    """How many candidates of each class the records vote on."""
    before = stages(number - 1)
    kept = number == 1 or before.keep_selected
    return [count * (before.folds + kept) for count in before.counts]


def label_release(run: str) -> str:
    return f"{run}/labels"


def histogram_release(run: str, number: int) -> str:
    return f"{run}/histogram/{number:03d}"
