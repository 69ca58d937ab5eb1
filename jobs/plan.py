"""`privolve plan`: what a job would ask, cost and release. Opens no model, no key and no record."""

from __future__ import annotations

from ..privacy.accounting import epsilon
from ..privacy.mechanism import Relation
from .design import Design
from .evolution import EvolutionConfig
from .job import InputError, JobConfig


def text(config: JobConfig) -> str:
    """The plan, for a reader. Raises InputError where the job cannot run as it is written."""
    if not isinstance(config, EvolutionConfig):
        raise InputError(f"kind: {config.kind!r} has no plan")
    data = config.data.load()
    config.check(data)
    config.check_roles()
    config.prompts()
    design = Design.of(config, classes=data.train.classes, voters=data.train.count)
    return "\n".join(
        [
            f"{config.kind} on {data.train.name}: {data.train.count:,} private slots, {len(data.train.classes)} classes",
            "",
            *_privacy(design),
            "",
            *_requests(config, design, data.train.count),
            "",
            *_signal(design),
        ]
    )


def _privacy(design: Design) -> list[str]:
    releases = design.releases("RUN")
    target = design.target
    costs = [release.cost for release in releases]
    lines = [
        f"privacy: ({target.epsilon:g}, {target.delta:.3g}) for one {target.unit}, {target.relation}; "
        f"{len(releases)} releases, noise of scale {design.histogram.scale:.3f} on each histogram"
    ]
    for number, release in enumerate(releases, 1):
        spent = epsilon(costs[:number], target.delta, target.relation)
        lines.append(f"  after {release.name.removeprefix('RUN/'):16} epsilon {spent:.4f}")
    swapped = epsilon(costs, target.delta, Relation.REPLACE_ONE)
    lines.append(f"  the same for replacing one {target.unit} by another: epsilon {swapped:.4f}")
    return lines


def _requests(config: EvolutionConfig, design: Design, voters: int) -> list[str]:
    stages = design.stages()
    asked = config.requests(stages)
    lines = ["requests (refused ones are asked again on top)"]
    for role, kinds in config.roles().items():
        kind = config.adapters[role].kind
        public = asked.get(role, 0)
        private = f" + {voters:,} private" if role in config.private_roles() else ""
        names = "/".join(each.__name__.removesuffix("Request").lower() for each in kinds)
        lines.append(f"  {role:10} {kind:16} {public:>10,} {names}{private}")
    if config.evaluation.random_baseline:
        lines.append("  and as many again, less the first candidates, for the random baseline")
    return lines


def _signal(design: Design) -> list[str]:
    lines = ["signal against noise, from public numbers alone"]
    for number, each in enumerate(design.signals(design.stages()), 1):
        lines.append(
            f"  histogram {number:<3} {each.expected_votes:8.2f} votes a candidate, noise {each.scale:.2f}, "
            f"{each.noise_share:.0%} of the winners picked by noise"
        )
    return [
        *lines,
        *(f"  {advice}" for advice in dict.fromkeys(each.advice for each in design.signals(design.stages()))),
    ]
