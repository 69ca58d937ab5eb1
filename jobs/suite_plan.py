"""`privolve plan SUITE.toml`: what all cells of a suite would release, ask and cost together. Opens no model and no record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..cache.money import dollars
from ..data.private_set import Split
from ..pe_engine import shares
from ..privacy.accounting import default_delta, epsilon
from ..privacy.ledger import PlannedRelease
from ..privacy.mechanism import SampledGaussian
from ..privacy.words import counted
from . import prices
from .baselines import FloorConfig
from .design import Design
from .evolution import EvolutionConfig
from .job import JobConfig
from .plan import uses
from .prices import Use
from .suite import Cell, Suite


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What one cell releases, and how often it asks models and takes steps."""

    cell: Cell
    releases: tuple[PlannedRelease, ...] = ()
    chosen: tuple[PlannedRelease, ...] = ()
    calls: Counter[str] = field(default_factory=Counter[str])
    slots: Counter[str] = field(default_factory=Counter[str])
    uses: tuple[Use, ...] = ()
    why: str = ""
    """Why it cannot run, in one line."""

    @property
    def steps(self) -> int:
        """Of training with DP-SGD."""
        costs = [each.cost for each in self.releases]
        return sum(cost.steps for cost in costs if isinstance(cost, SampledGaussian) and cost.steps > 1)


def text(described: Suite) -> str:
    """The plan, for a reader; a cell that cannot run as it is written loses itself and says why."""
    found: list[_Asked] = []
    lines = [
        f"suite {described.config.name}: {counted(len(described.cells), 'cell')} on {', '.join(described.config.data)}"
    ]
    for label in described.config.data:
        cells = [cell for cell in described.cells if cell.data == label]
        some, said = _of_set(described, label, cells)
        found += some
        lines += ["", *said]
    return "\n".join([*lines, "", *_requests(found), "", *_money(found), "", *_steps(found), *_limit(described)])


def _of_set(described: Suite, label: str, cells: Sequence[Cell]) -> tuple[list[_Asked], list[str]]:
    """The cells on one private set, and what they cost it."""
    jobs = [(cell, cell.config) for cell in cells if isinstance(cell.config, JobConfig)]
    found = [_tried(cell) for cell in cells]
    if not jobs:
        return found, [f"{label}: nothing is released"]
    config, data = jobs[0][1], jobs[0][1].split()
    privacy, delta = config.privacy, _delta(config, data)
    lines = [
        f"{label}: {data.registered.count:,} private slots; at delta {delta:.3g} for one {privacy.unit}, {privacy.relation}"
    ]
    for each in found:
        if each.why:
            lines.append(f"  {each.cell.title:40} cannot run: {each.why}")
        if each.releases:
            alone = epsilon([release.cost for release in each.releases], delta, privacy.relation)
            lines.append(f"  {each.cell.title:40} epsilon {alone:8.4f} alone, {counted(len(each.releases), 'release')}")
    every = [release.cost for each in found for release in each.releases]
    chosen = [release.cost for each in found for release in each.chosen]
    if not described.is_joint:
        return found, [*lines, "  public data played as private: each has a plan of its own, and their sum is no claim"]
    needed = max((epsilon(each, delta, privacy.relation) for each in (every, chosen) if each), default=0.0)
    stated = described.config.privacy.joint_epsilon
    assert stated is not None  # `suite.parse` saw to it.
    enough = "" if needed <= stated else ": NOT ENOUGH; raise joint_epsilon, or take fewer cells"
    return found, [*lines, f"  together, in one plan: epsilon {needed:.4f} of the {stated:g} stated{enough}"]


def _delta(config: JobConfig, data: Split) -> float:
    """The ledger's, if it is new and the owner sets no total."""
    return config.privacy.delta or default_delta(data.registered.count)


def _tried(cell: Cell) -> _Asked:
    try:
        return _asked(cell)
    except ValueError as error:
        return _Asked(cell=cell, why=str(error))


def _asked(cell: Cell) -> _Asked:
    config = cell.config
    if isinstance(config, FloorConfig):
        judged = config.judged
        data = judged.split()
        first = sum(judged.stages(data.train.classes, shares.uniform(len(data.train.classes)))(0).counts)
        makes = [role for role in judged.roles() if role not in judged.private_roles()]
        return _Asked(cell=cell, calls=Counter(dict.fromkeys(makes, first)))
    if not isinstance(config, JobConfig):
        return _Asked(cell=cell)
    data = config.split()
    delta = _delta(config, data)
    releases = config.planned_releases(data, delta=delta, prefix="SUITE/CELL")
    chosen = config.planned_selection(data, delta=delta, prefix="SUITE/CELL")
    if not isinstance(config, EvolutionConfig):
        return _Asked(cell=cell, releases=releases, chosen=chosen)
    design = Design.of(config, classes=data.train.classes, voters=data.train.count, delta=delta)
    return _Asked(
        cell=cell,
        releases=releases,
        chosen=chosen,
        calls=Counter(dict(config.requests(design.stages()))),
        slots=Counter(dict.fromkeys(config.private_roles(), data.train.count)),
        uses=tuple(uses(config, design, data.train)),
    )


def _requests(found: Sequence[_Asked]) -> list[str]:
    """Of all cells together; what judges them is not counted."""
    calls, slots = (
        sum((each.calls for each in found), Counter[str]()),
        sum((each.slots for each in found), Counter[str]()),
    )
    lines = ["requests of all cells together (refused ones are asked again on top, and what judges is not counted)"]
    for role in dict.fromkeys([*calls, *slots]):
        private = f" + {slots[role]:,} private" if slots[role] else ""
        lines.append(f"  {role:10} {calls[role]:>10,}{private}")
    return lines if len(lines) > 1 else ["requests: none"]


def _money(found: Sequence[_Asked]) -> list[str]:
    """Of all cells together, each by its own prices."""
    sums, unknown, remote = [0, 0], 0, 0
    for each in found:
        if isinstance(each.cell.config, JobConfig):
            money, lacking = prices.together(list(each.uses), each.cell.config.performance)
            sums, unknown = [sums[0] + money[0], sums[1] + money[1]], unknown + lacking
            remote += bool(lacking or money[1])
    if not remote:
        return ["money: no remote model, so none"]
    but = f", and {counted(unknown, 'role')} at unknown prices" if unknown else ""
    return [f"money, expected to worst: {dollars(sums[0])} to {dollars(sums[1])}{but}"]


def _steps(found: Sequence[_Asked]) -> list[str]:
    steps = {each.cell.title: each.steps for each in found if each.steps}
    if not steps:
        return ["training: none"]
    lines = [f"  {title:40} {count:>8,} steps" for title, count in steps.items()]
    return [
        f"training: {sum(steps.values()):,} steps of DP-SGD; `privolve plan` of a cell's job says how long one takes",
        *lines,
    ]


def _limit(described: Suite) -> list[str]:
    limit = described.config.time_limit
    return [] if limit is None else [f"time limit: {limit}; cells that would start later are left to the next call"]
