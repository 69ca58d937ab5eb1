"""`privolve plan`: what a job would ask, cost and release. Opens no model, no key and no record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ..adapters.contract import Request
from ..adapters.pricing import facts_of
from ..cache import upkeep
from ..cache.sqlite import SqliteStore
from ..cache.upkeep import Habit
from ..data.private_set import PrivateSet
from ..privacy.accounting import default_delta, epsilon
from ..privacy.mechanism import Relation
from ..privacy.words import counted
from . import job, model_selection, run
from .design import Design
from .evolution import EvolutionConfig
from .gateways import CACHE_FILE, cache_folder
from .job import InputError, JobConfig
from .prices import Use, lines
from .start import EXPERIMENTS
from .store import finished_iterations
from .train import TrainConfig


def of_file(path: Path, settings: Sequence[str] = ()) -> str:
    """The plan of a job file, or of all cells of a suite file. Raises InputError, one line."""
    if job.read_table(path, settings).get("kind") == "suite":
        from . import suite, suite_plan

        return suite_plan.text(suite.load(path, settings))
    return text(job.load(path, settings))


def text(config: JobConfig) -> str:
    """The plan, for a reader. Raises InputError where the job cannot run as it is written."""
    if isinstance(config, TrainConfig):
        from . import training_plan

        return training_plan.text(config)
    if not isinstance(config, EvolutionConfig):
        raise InputError(f"kind: {config.kind!r} has no plan")
    data = config.split()
    config.check(data)
    config.check_roles()
    config.prompts()
    delta = default_delta(data.registered.count)
    design = Design.of(config, classes=data.train.classes, voters=data.train.count, delta=delta)
    return "\n".join(
        [
            f"{config.kind} on {data.train.name}: {data.train.count:,} private slots, {counted(len(data.train.classes), 'class')}",
            "",
            *_privacy(design),
            *model_selection.plan_lines(config.selection, design.selection, data),
            "",
            *_requests(config, design, data.train.count),
            "",
            *_money(config, design, data.train),
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
        f"{counted(len(releases), 'release')}, noise of scale {design.histogram.scale:.3f} on each histogram"
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
    text = ["requests (refused ones are asked again on top)"]
    for role, kinds in config.roles().items():
        kind = config.adapters[role].kind
        public = asked.get(role, 0)
        private = f" + {voters:,} private" if role in config.private_roles() else ""
        names = "/".join(each.__name__.removesuffix("Request").lower() for each in kinds)
        text.append(f"  {role:10} {kind:16} {public:>10,} {names}{private}")
    reference = config.reference_requests(stages)
    if reference:
        words = ", ".join(f"{count:,} {role}" for role, count in reference.items() if count)
        text.append(
            f"  the published code would ask {words}: it varies the last winners too and paints kept ones again"
        )
    if config.evaluation.random_baseline:
        text.append("  and as many again, less the first candidates, for the random baseline")
    return text


def _money(config: EvolutionConfig, design: Design, private: PrivateSet) -> list[str]:
    kept = _kept(config, private.count)
    return lines(uses(config, design, private, kept), config.performance, config.budget, spent=kept.micro)


def uses(config: EvolutionConfig, design: Design, private: PrivateSet, kept: _Kept | None = None) -> list[Use]:
    """What each role is left to be asked; without `kept` of a run that asked nothing yet."""
    kept = kept or _Kept(calls={}, slots={}, micro=0)
    asked, typical, largest = config.requests(design.stages()), config.typical(private), config.largest(private)
    habits = _habits(config, typical)
    found: list[Use] = []
    for role in config.roles():
        # Before its first private record a role is asked about a blank.
        public = asked.get(role, 0) + (role in largest)
        found.append(
            Use(
                role=role,
                config=config.adapters[role],
                calls=max(0, public - kept.calls.get(role, 0)),
                kept=kept.calls.get(role, 0),
                typical=typical[role],
                slots=max(0, private.count - kept.slots.get(role, 0)) if role in largest else 0,
                largest=largest.get(role),
                habit=habits.get(role),
            )
        )
    return found


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """What an earlier process of the same run has had answered by remote models, by role, and spent."""

    calls: Mapping[str, int]
    slots: Mapping[str, int]
    """Of the private set, that need not be paid for again."""
    micro: int


def _kept(config: EvolutionConfig, count: int) -> _Kept:
    """`count`: of the private set's slots."""
    folder = run.find(EXPERIMENTS, config, config.digest())
    path = cache_folder(config.performance) / CACHE_FILE
    if folder is None or not path.is_file():
        return _Kept(calls={}, slots={}, micro=0)
    scope = run.read_manifest(folder)["id"]
    with closing(SqliteStore(path)) as store:
        spent = [each for each in upkeep.spent(store) if each.scope == scope]
    # All slots are answered before the first candidates are saved. Until then the last chunk may have to be paid again.
    answered = bool(finished_iterations(folder / "iterations"))
    unsure = 0 if answered else config.performance.chunk
    return _Kept(
        calls={each.role: each.answered for each in spent},
        slots={each.role: count if answered else max(0, min(count, each.slots) - unsure) for each in spent},
        micro=sum(each.micro for each in spent),
    )


def _habits(config: EvolutionConfig, typical: Mapping[str, Request]) -> Mapping[str, Habit]:
    """What earlier calls of any run took, by role. Only of public requests is anything known, so no record is in it."""
    path = cache_folder(config.performance) / CACHE_FILE
    models = {role: facts.model for role in config.roles() if (facts := facts_of(config.adapters[role])) is not None}
    if not models or not path.is_file():
        return {}
    with closing(SqliteStore(path)) as store:
        found = {
            role: upkeep.habit(store, model=model, request=type(typical[role]).__name__)
            for role, model in models.items()
        }
    return {role: habit for role, habit in found.items() if habit is not None}


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
