"""A Private Evolution run, from private set to certificate: what `dpiti` and `image-pe` share.

    load, reserve the plan, embed the voters, then for each iteration: score, release, select, vary, save;
    in the end: release, evaluate, certify, report.

Whatever was saved is not done again: an iteration is a folder that exists when it is whole, a release is in the ledger,
an answer is in the cache.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ..evaluation.settings import Settings
from ..neighbours import Distance
from ..pe_engine.selection import Rank, Selection
from .job import InputError, JobConfig, Table
from .model_selection import ModelSelection, planned

if TYPE_CHECKING:
    import numpy as np

    from ..adapters.contract import Request
    from ..adapters.gateway import Gateway
    from ..data.private_set import PrivateSet, Split
    from ..data.voters import Voters
    from ..pe_engine.population import Population
    from ..pe_engine.schedule import Stages
    from ..pe_engine.scoring import Scoring
    from ..pe_engine.variation import Maker
    from ..privacy.ledger import PlannedRelease
    from ..privacy.private import Private
    from ..privacy.randomness import PublicRng
    from .run import Run

PROBABILITY = Field(ge=0, le=1)


class Evolution(Table, frozen=True):
    """The `[evolution]` table. Lists have one value for each of the iterations 0 to T (0 makes the first candidates).

    Lists of `select`, `threshold` and `keep_selected` have one for each of 1 to T.
    """

    iterations: int = Field(ge=1)
    """T: how many times the private records vote."""
    count: int | tuple[int, ...]
    """How many candidates are selected, over all classes; also how many first candidates there are."""
    variations: int | tuple[int, ...] = 3
    """How many variations are made of each selected candidate, and of each first one."""
    keep_selected: bool | tuple[bool, ...] = True
    select: Selection | tuple[Selection, ...] = Rank()
    threshold: float | tuple[float | None, ...] | None = None
    neighbours: int = Field(default=1, ge=1)
    """k: for how many candidates a record votes."""
    distance: Distance = Distance.L2
    look_ahead: int = Field(default=0, ge=0)
    """Compare by the mean of so many variations of a candidate instead of by the candidate itself; 0: by itself."""
    final: Literal["selected", "varied"] = "selected"
    """Release the last winners, or a last variation of them."""
    pictures: bool = True
    """Also write each synthetic image as a PNG of its own; `samples.npz` holds them all in any case."""
    shares: Literal["uniform", "released"] | dict[str, float] = "uniform"
    """Of the classes: all the same, declared by name, or from a DP label histogram that the plan pays for."""
    share_noise: float = Field(default=20.0, gt=0)
    """The scale of that histogram's noise, in records."""


class Evaluation(Settings, frozen=True):
    """The `[evaluation]` table of a run: what is measured in the end, on held-out records and beside a ceiling and a floor."""

    random_baseline: bool = False
    """Also run with random selection instead of votes. Free of privacy, but every model is asked again."""
    floor: bool = True
    """Also judge what the method makes before any private record has a say."""
    ceiling: bool = True
    """Also judge the real training set, where unprotected figures are computed at all."""
    unprotected: bool | None = None
    """Also compute figures that only `private/` may hold: the real training set as ceiling, nearest private records.

    None: only where `purpose = "benchmark"`, because later certificates must count such figures.
    """


class EvolutionConfig(JobConfig, frozen=True):
    """A Private Evolution job. Kinds differ in how candidates are made and where they are compared."""

    unit_of_candidates: ClassVar[str]
    spare_roles: ClassVar[tuple[str, ...]] = ()
    """Roles that some settings of this kind do without: they may be named and not used."""
    key_of_degree: ClassVar[str] = "degree"
    """What the job file calls how much a variation changes."""

    evolution: Evolution
    selection: ModelSelection = ModelSelection()
    """Between the sets that were selected in the iterations 1 to T, which are the candidates whatever the votes say."""
    evaluation: Evaluation = Evaluation()

    @property
    def set_aside(self) -> float:
        return self.selection.set_aside

    @property
    def shows_unprotected(self) -> bool:
        wanted = self.evaluation.unprotected
        return self.purpose == "benchmark" if wanted is None else wanted

    @property
    def judges(self) -> Mapping[str, tuple[type[Request], ...]]:
        """The role `judge`, where an adapter is given for it: to be added to the roles of every kind."""
        from ..adapters.contract import EmbedRequest

        return {"judge": (EmbedRequest,)} if "judge" in self.adapters else {}

    @property
    def judging_role(self) -> str | None:
        """Whose features synthetic records are measured in: the judge's, else the eye's if it sees what is judged."""
        sees = self.evolution_sees_images or self.data.text_bytes > 0
        return "judge" if self.judges else "eye" if sees else None

    @property
    def evolution_sees_images(self) -> bool:
        """Whether the eye compares images, so that real and synthetic images can be measured in its space."""
        return True

    @property
    def degree(self) -> float | tuple[float, ...]:
        """How much a variation changes, in [0, 1]: one value, or one for each of the iterations 0 to T."""
        raise NotImplementedError

    @property
    def carries_images(self) -> bool:
        """Whether a population is its images, so that they are saved with it."""
        raise NotImplementedError

    def roles(self) -> Mapping[str, tuple[type[Request], ...]]:
        """The roles that the job uses, and what it asks of each."""
        raise NotImplementedError

    def private_roles(self) -> tuple[str, ...]:
        """The roles that see private records."""
        raise NotImplementedError

    def check(self, data: Split) -> None:
        """Refuse data that the job cannot use, before any record is read. Raises InputError."""
        raise NotImplementedError

    def check_selection(self, data: Split) -> None:
        """Refuse a choice between sets that cannot be made, before any record is read. Raises InputError."""
        self.selection.check(self, data)
        if self.selection.rule == "last":
            return
        if self.evolution.final != "selected":
            raise InputError(
                f"selection.rule: {self.selection.rule!r} is a choice between sets that were selected; take "
                'evolution.final = "selected"'
            )
        counts = self.evolution.count
        newest = counts if isinstance(counts, int) else counts[-1]
        if self.selection.rule == "synthetic" and int(self.selection.share * newest) == 0:
            raise InputError(
                f"selection.share: {self.selection.share:g} of the {newest} candidates of the last iteration leaves none to "
                "choose by; raise it"
            )

    def check_roles(self) -> None:
        """Refuse adapters that cannot do what the job asks, or may not see what it shows them. Opens none."""
        from ..adapters import roles

        known = {*self.roles(), *self.spare_roles}
        for role in self.adapters:
            if role not in known:
                close = difflib.get_close_matches(role, sorted(known), n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"its roles are {', '.join(sorted(known))}"
                raise InputError(f"adapters.{role}: {self.kind} has no such role; {hint}")
        used = {role: config for role, config in self.adapters.items() if role in self.roles()}
        roles.check(used, trust=self.trust, asked=self.roles(), private=self.private_roles())

    def voters(self, gateway: Gateway, records: PrivateSet) -> Private[Voters]:
        """What the private records vote with."""
        raise NotImplementedError

    def maker(self, gateway: Gateway, data: PrivateSet) -> Maker:
        """Who makes candidates."""
        raise NotImplementedError

    def scoring(self, gateway: Gateway, data: PrivateSet, maker: Maker, stages: Stages, rng: PublicRng) -> Scoring:
        """Where candidates are compared with the private records."""
        raise NotImplementedError

    def pictured(self, population: Population, gateway: Gateway, data: PrivateSet, rng: PublicRng) -> Population:
        """The population with an image for every candidate that can have one."""
        raise NotImplementedError

    def prompts(self) -> list[dict[str, str]]:
        """The templates used: name, digest, provenance."""
        return []

    def requests(self, stages: Stages) -> Mapping[str, int]:
        """How often each role is asked about public values, from the settings alone; refusals come on top."""
        raise NotImplementedError

    def reference_requests(self, stages: Stages) -> Mapping[str, int]:
        """The same as the published code asks it: a last variation that nobody uses, and images painted again."""
        return {}

    def typical(self, data: PrivateSet) -> Mapping[str, Request]:
        """One request of each role, as large as they usually are: to estimate what it costs."""
        raise NotImplementedError

    def largest(self, data: PrivateSet) -> Mapping[str, Request]:
        """One request of each private role, such that none about a private record costs more."""
        raise NotImplementedError

    def stages(self, classes: tuple[str, ...], shares: np.ndarray) -> Stages:
        """The schedule of the run. Raises ValueError where its settings do not fit together."""
        from ..pe_engine.schedule import Stages

        settings = self.evolution
        try:
            return Stages(
                iterations=settings.iterations,
                classes=classes,
                shares=shares,
                count=settings.count,
                folds=settings.variations,
                degree=self.degree,
                selection=settings.select,
                threshold=settings.threshold,
                keep_selected=settings.keep_selected,
            )
        except ValueError as error:
            text = str(error)
            for engine, key in (("folds", "variations"), ("selection", "select"), ("degree", self.key_of_degree)):
                text = text.replace(f"`{engine}`", f"`{key}`")
            raise InputError(f"[evolution] {text}") from None

    def planned_releases(self, data: Split, *, delta: float, prefix: str) -> tuple[PlannedRelease, ...]:
        from .design import Design

        self.check(data)
        self.check_roles()
        design = Design.of(self, classes=data.train.classes, voters=data.train.count, delta=delta)
        design.stages()
        return design.releases(prefix)

    def planned_selection(self, data: Split, *, delta: float, prefix: str) -> tuple[PlannedRelease, ...]:
        from .design import Design

        design = Design.of(self, classes=data.train.classes, voters=data.train.count, delta=delta)
        return planned(design.selection, prefix)

    def painted_in_the_end(self, stages: Stages) -> int:
        """Candidates whose pictures are looked at after the last votes: those released, or all that may be."""
        first = self.evolution.iterations if self.selection.rule == "last" else 1
        return sum(sum(stages(number).counts) for number in range(first, self.evolution.iterations + 1))

    def pools(self, stages: Stages) -> list[tuple[int, int]]:
        """For each iteration 0 to T: (candidates that it makes, candidates in the population that it leaves)."""
        sizes: list[tuple[int, int]] = []
        for number in range(self.evolution.iterations + 1):
            stage = stages(number)
            count = sum(stage.counts)
            made = count * stage.folds + (count if number == 0 else 0)
            if number == self.evolution.iterations and self.evolution.final == "selected":
                sizes.append((0, count))
            else:
                sizes.append((made, made + (count if number and stage.keep_selected else 0)))
        return sizes

    def run(self, run: Run) -> None:
        from .private_evolution import PrivateEvolution

        PrivateEvolution(self, run).go()

    def closing(self, run: Run) -> str:
        from .page import closing

        return closing(run.folder, private=self.purpose == "benchmark")
