"""`privolve audit`: the job's own mechanisms, calibrated as it would calibrate them, tried on stand-in data.

The private set is not read: slots are counted, voters are drawn at random from public numbers (rule 20 of the guarantee).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..data.voters import GHOST_LABEL, Voters
from ..privacy.accounting import default_delta
from ..privacy.audit import AuditReport, Neighbour, audit
from ..privacy.randomness import PublicRng
from .design import Design
from .evolution import EvolutionConfig
from .job import InputError, JobConfig
from .train import TrainConfig

DIMENSIONS = 8
VOTERS_OF_A_LABEL = 12
CANDIDATES_OF_A_LABEL = 6


def run(config: JobConfig) -> bool:
    """Print what was tried and what held; True if all did."""
    if isinstance(config, TrainConfig):
        from .training_design import check_installed

        check_installed()
        from . import audit_training

        return audit_training.run(config)
    if not isinstance(config, EvolutionConfig):
        raise InputError(f"kind: {config.kind!r} has no mechanisms to audit")
    data = config.split()
    config.check(data)
    design = Design.of(
        config, classes=data.train.classes, voters=data.train.count, delta=default_delta(data.registered.count)
    )
    print(f"mechanisms of this job on stand-in data; {data.train.count:,} slots were counted, none was read")
    reports = [_histogram(design)]
    print(f"\nnearest-neighbour histogram, noise of scale {design.histogram.scale:.3f}\n{reports[0]}")
    if design.labels is not None:
        labels = design.labels
        reports.append(_audit(design, lambda: labels))
        print(f"\nlabel histogram, noise of scale {labels.scale:.3f}\n{reports[1]}")
    return all(report.passed for report in reports)


def _histogram(design: Design) -> AuditReport:
    count = max(CANDIDATES_OF_A_LABEL, design.config.evolution.neighbours + 1)
    rng = PublicRng(0).at("audit", "candidates")
    labels = np.repeat(np.arange(len(design.classes), dtype=np.int64), count)
    embeddings = rng.standard_normal((len(labels), DIMENSIONS), dtype=np.float32)
    backend = design.config.performance.neighbours
    return _audit(design, lambda: design.histogram.over(embeddings, labels, backend=backend))


def _audit(design: Design, mechanism: Callable[[], object]) -> AuditReport:
    classes = len(design.classes)

    def voters() -> Voters:
        rng = PublicRng(0).at("audit", "voters")
        labels = np.tile(np.arange(classes, dtype=np.int64), VOTERS_OF_A_LABEL)
        embeddings = rng.standard_normal((len(labels), DIMENSIONS), dtype=np.float32)
        return Voters(embeddings=embeddings, labels=labels, valid=np.ones(len(labels), dtype=np.bool_))

    return audit(mechanism, voters, NEIGHBOURS, delta=design.target.delta)  # type: ignore[arg-type]


def _with(voters: Voters, slot: int, row: np.ndarray | float, label: int, valid: bool) -> Voters:
    embeddings, labels, usable = voters.embeddings.copy(), voters.labels.copy(), voters.valid.copy()
    embeddings[slot], labels[slot], usable[slot] = row, label, valid
    return replace(voters, embeddings=embeddings, labels=labels, valid=usable)


def _nobody(voters: Voters) -> Voters:
    ghosts = np.full(len(voters), GHOST_LABEL, dtype=np.int64)
    return replace(
        voters, embeddings=np.zeros_like(voters.embeddings), labels=ghosts, valid=np.zeros(len(voters), dtype=np.bool_)
    )


NEIGHBOURS = (
    Neighbour[Voters](
        name="a ghost in a slot", change=lambda each: _with(each, 0, 0.0, GHOST_LABEL, False), contributions=1
    ),
    Neighbour[Voters](
        name="another record in a slot",
        change=lambda each: _with(each, 0, -10 * each.embeddings[0], 0, True),
        contributions=2,
    ),
    Neighbour[Voters](
        name="a record of another class",
        change=lambda each: _with(each, 0, each.embeddings[0], int(each.labels.max()), True),
        contributions=2,
    ),
    Neighbour[Voters](
        name="NaN in a slot", change=lambda each: _with(each, 0, np.nan, int(each.labels[0]), True), contributions=1
    ),
    Neighbour[Voters](
        name="a duplicate of a neighbour",
        change=lambda each: _with(each, 0, each.embeddings[1], int(each.labels[1]), True),
        contributions=2,
    ),
    Neighbour[Voters](name="nobody at all", change=_nobody, contributions=None),
)
"""How the stand-in voters are changed, one slot at a time."""
