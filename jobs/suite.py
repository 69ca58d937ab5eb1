"""A suite file: methods x data sets x epsilons x seeds, each cell a job of its own, all judged alike.

    kind = "suite"
    epsilons = [1.0, 3.0]
    [data.digits]                       # a [data] table by its label
    kind = "digits"
    [methods.pe]                        # a job file, with what differs; or a whole job without data and epsilon
    job = "image-pe.toml"
    [methods.pe-sd]                     # Private Evolution of what another method trained, on the same set, epsilon and seed
    job = "image-pe.toml"
    models = { painter = "dpdm" }
    [methods.floor]                     # what no private data is worth: the first candidates of another method
    kind = "floor"
    [methods.ceiling]                   # what the real training set is worth
    kind = "ceiling"

Everything is parsed, and refused, before the first cell runs. A suite on private data has one plan a private set, with a
joint epsilon that its owner states; public data is played as private by `purpose = "benchmark"` (rules 6 and 21). A training
and what goes on from its model always share a plan, so that `models` needs a joint one.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, ValidationError, field_validator, model_validator

from ..adapters import registry as adapters
from ..evaluation.settings import Settings
from . import job
from .baselines import CeilingConfig, FloorConfig
from .evolution import EvolutionConfig
from .job import AnyAdapter, Budget, Data, InputError, JobConfig, Performance, Table, canonical
from .train import TrainConfig

CELLS = "cells"
"""Of a suite's folder: the runs of its cells."""
PSEUDO = ("floor", "ceiling")
NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}"
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h)")
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
OURS = ("data", "evaluation", "privacy", "purpose", "seed", "trust")
"""Tables of a job file that a suite sets for all its cells."""


class Judging(Settings, frozen=True):
    """`[evaluation]` of a suite: for all of its cells, and instead of what their job files say."""

    random_baseline: bool = False
    """Also run each Private Evolution with random selection instead of votes."""
    unprotected: bool | None = None
    """As in a job: None means only where `purpose = "benchmark"`."""


class SuitePrivacy(job.SharedPrivacy, frozen=True):
    """`[privacy]` of a suite: as in a job, but that each cell has an epsilon of the list."""

    joint_epsilon: PositiveFloat | None = None
    """On private data: the most that all cells of a private set may cost together. Composed by PLD over all releases."""


class SuiteConfig(Table, frozen=True):
    """The parsed suite; `cells` are its jobs, in the order in which they run."""

    kind: Literal["suite"] = "suite"
    name: str = Field(default="suite", pattern=f"^{NAME}$")
    purpose: Literal["private", "benchmark"] = "private"
    epsilons: tuple[PositiveFloat, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    time_limit: str | None = None
    """As "90s", "15m" or "2h", for one call of the command: cells that would start later are left to the next call."""
    trust: tuple[str, ...] = ()
    data: dict[str, Data] = Field(min_length=1)
    methods: dict[str, dict[str, Any]] = Field(min_length=1)
    privacy: SuitePrivacy = SuitePrivacy()
    judge: AnyAdapter | None = None
    """The network in whose features all images are measured; None: `pixels`. Without its weights no cell begins.

    Each says so in one line before it releases anything, and the same command goes on once the weights are there.
    """
    evaluation: Judging = Judging()
    budget: Budget | None = None
    performance: Performance | None = None

    @field_validator("data", "methods")
    @classmethod
    def _names(cls, tables: dict[str, Any]) -> dict[str, Any]:
        for name in tables:
            if not re.fullmatch(NAME, name):
                raise ValueError(f"{name!r} is no name for a table: use letters, digits and . _ + -")
        return tables

    @field_validator("epsilons", "seeds")
    @classmethod
    def _once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) != len(values):
            raise ValueError("a value is given twice")
        return values

    @field_validator("time_limit")
    @classmethod
    def _duration(cls, text: str | None) -> str | None:
        if text is not None and not DURATION.fullmatch(text):
            raise ValueError(f'{text!r} is no time; write "90s", "15m" or "2h"')
        return text

    @model_validator(mode="after")
    def _distinct_sets(self) -> SuiteConfig:
        names = [each.name for each in self.data.values()]
        if len(set(names)) != len(names):
            raise ValueError("two tables of [data] have one `name`, and so one ledger; give each its own")
        if self.privacy.ledger is not None and len(names) > 1:
            raise ValueError("privacy.ledger is one private set's, and the suite has several; leave it out")
        return self

    @property
    def time_limit_s(self) -> float | None:
        found = DURATION.fullmatch(self.time_limit) if self.time_limit else None
        return float(found[1]) * SECONDS[found[2]] if found else None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a suite: `method` on the set `data` at `epsilon` (None: a floor or a ceiling) from `seed`."""

    method: str
    data: str
    epsilon: float | None
    seed: int
    config: JobConfig | FloorConfig | CeilingConfig
    after: tuple[Cell, ...] = ()
    """The trainings whose models it goes on from."""

    @property
    def name(self) -> str:
        """Its folder's name; a changed cell has another."""
        epsilon = "" if self.epsilon is None else f"-eps{self.epsilon:g}"
        return f"{self.method}-{self.data}{epsilon}-seed{self.seed}-{self.config.digest()[:6]}"

    @property
    def title(self) -> str:
        """For a reader."""
        epsilon = "" if self.epsilon is None else f", epsilon {self.epsilon:g}"
        return f"{self.method} on {self.data}{epsilon}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A suite with its cells: what `compare` runs. Its identity is that of its cells."""

    config: SuiteConfig
    cells: tuple[Cell, ...]

    kind = "suite"

    @property
    def subject(self) -> str:
        return self.config.name

    @property
    def is_joint(self) -> bool:
        """Whether all cells of a private set share one plan."""
        return self.config.purpose == "private"

    def resolved(self) -> dict[str, Any]:
        kept = {"name", "purpose", "epsilons", "seeds", "trust", "privacy", "evaluation"}
        return {
            "kind": self.kind,
            **self.config.model_dump(mode="json", include=kept),
            "data": {label: each.model_dump(mode="json") for label, each in self.config.data.items()},
            "cells": {cell.name: cell.config.resolved() for cell in self.cells},
        }

    def digest(self) -> str:
        return hashlib.sha256(canonical(self.resolved()).encode()).hexdigest()


def load(path: Path, settings: Sequence[str] = ()) -> Suite:
    """The suite in a TOML file, all of its cells parsed. Raises InputError, one line."""
    table = job.read_table(path, settings)
    if table.get("kind") != "suite":
        raise InputError(f'{path}: kind: {table.get("kind")!r} is no suite; give a file with kind = "suite", or runs')
    return parse(table, where=str(path), base=path.parent.absolute())


def parse(table: Mapping[str, Any], *, where: str, base: Path) -> Suite:
    """The suite that a table describes; relative paths are taken from `base`."""
    try:
        config = SuiteConfig.model_validate(dict(table))
    except ValidationError as error:
        raise InputError(f"{where}: {job.first_problem(error, SuiteConfig)}") from None
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
    if config.purpose == "private" and config.privacy.joint_epsilon is None:
        raise InputError(
            f"{where}: privacy.joint_epsilon: say what all cells on one private set may cost together, or, if the data is "
            'public, purpose = "benchmark"'
        )
    config = config.model_copy(update={"data": {label: each.resolved(base) for label, each in config.data.items()}})
    return Suite(config=config, cells=tuple(_cells(config, where, base)))


def _cells(config: SuiteConfig, where: str, base: Path) -> list[Cell]:
    """Data by data, seed by seed: the floor first, the methods by rising epsilon, the ceiling last."""
    # Methods are parsed first, so that what is wrong with one is said of it and not of its floor.
    # Models are trained before what goes on from them.
    ordered = sorted(
        config.methods, key=lambda name: (config.methods[name].get("kind") in PSEUDO, "models" in config.methods[name])
    )
    cells: list[Cell] = []
    for data in config.data:
        for seed in config.seeds:
            some: list[Cell] = []
            for method in ordered:
                kind = config.methods[method].get("kind")
                if kind == "ceiling" and seed != config.seeds[0]:
                    continue  # Nothing of it depends on the seed.
                for epsilon in (None,) if kind in PSEUDO else sorted(config.epsilons):
                    place = f"{where}: methods.{method}"
                    made = _job(config, method, data, epsilon, seed, place, base)
                    models = _models(config, method, [each for each in some if each.epsilon == epsilon], place)
                    if models:
                        assert isinstance(made, JobConfig)
                        made = _going_on(made, models)
                    after = tuple(models.values())
                    some.append(Cell(method=method, data=data, epsilon=epsilon, seed=seed, config=made, after=after))
            cells += sorted(some, key=lambda cell: _order(config.methods[cell.method]))
    return cells


def _models(config: SuiteConfig, method: str, before: Sequence[Cell], where: str) -> Mapping[str, Cell]:
    """By role, the training that the role's model comes from; `before` are the cells of the same set, epsilon and seed."""
    models = config.methods[method].get("models", {})
    if not models:
        return {}
    if config.purpose == "benchmark":
        raise InputError(
            f"{where}.models: a training and what goes on from its model need one plan for both; state "
            "privacy.joint_epsilon and leave purpose out"
        )
    trained = {each.method: each for each in before if isinstance(each.config, TrainConfig)}
    if not isinstance(models, Mapping) or not set(models.values()) <= set(trained):
        known = ", ".join(trained) or "none"
        raise InputError(
            f"{where}.models: for each role a method of this suite that trains a model; there are: {known}"
        )
    return {str(role): trained[name] for role, name in models.items()}


def _going_on(made: JobConfig, models: Mapping[str, Cell]) -> JobConfig:
    """The job with these models in its roles; their folders are seen from the suite's."""
    trained = {
        role: adapters.parse({**_drawing(made, role), "kind": "trained", "path": f"{CELLS}/{cell.name}"}, role=role)
        for role, cell in models.items()
    }
    changed: dict[str, Any] = {"adapters": {**made.adapters, **trained}}
    if isinstance(made, EvolutionConfig):
        # Its first candidates have seen private records, through the model: they are no floor.
        changed["evaluation"] = made.evaluation.model_copy(update={"floor": False})
    return made.model_copy(update=changed)


def _drawing(made: JobConfig, role: str) -> dict[str, Any]:
    """What the job says of how a trained model draws in this role."""
    given = made.adapters.get(role)
    if given is None or given.kind != "trained":
        return {}
    return given.model_dump(mode="json", exclude={"kind", "path"}, exclude_unset=True)


def _order(table: Mapping[str, Any]) -> int:
    return {"floor": -1, "ceiling": 2}.get(str(table.get("kind")), 1 if "models" in table else 0)


def _job(
    config: SuiteConfig, method: str, data: str, epsilon: float | None, seed: int, where: str, base: Path
) -> JobConfig | FloorConfig | CeilingConfig:
    table = config.methods[method]
    kind = table.get("kind")
    if kind not in PSEUDO:
        return _method(config, table, data, epsilon, seed, where, base)
    known = {"kind", "of"} if kind == "floor" else {"kind"}
    if unknown := sorted(set(table) - known):
        raise InputError(f"{where}: {unknown[0]!r} is not a setting of a {kind}; it has {', '.join(sorted(known))}")
    of = _floor_of(config, table, where)
    judged = _method(config, config.methods[of], data, config.epsilons[0], seed, f"{where} of {of}", base)
    if kind == "ceiling":
        return CeilingConfig(judged=judged)
    if "models" in config.methods[of]:
        raise InputError(
            f"{where}: of = {of!r} goes on from a model that has seen private records; name another method"
        )
    if not isinstance(judged, EvolutionConfig):
        raise InputError(f"{where}: of = {of!r} has no first candidates; name a method of Private Evolution")
    return FloorConfig(judged=judged)


def _floor_of(config: SuiteConfig, table: Mapping[str, Any], where: str) -> str:
    """The method whose first candidates are the floor: the one named, or the first that is a method."""
    methods = [name for name, each in config.methods.items() if each.get("kind") not in PSEUDO]
    if not methods:
        raise InputError(f"{where}: a floor or a ceiling stands beside a method, and the suite has none")
    of = table.get("of", methods[0])
    if of not in methods:
        raise InputError(f"{where}: of = {of!r} is no method of this suite; it has {', '.join(methods)}")
    return of


def _method(
    config: SuiteConfig,
    table: Mapping[str, Any],
    data: str,
    epsilon: float | None,
    seed: int,
    where: str,
    base: Path,
) -> JobConfig:
    """A job: its file, what the method's table changes, what it changes on this set, and what the suite sets for all."""
    own = {key: value for key, value in table.items() if key not in ("job", "on", "models")}
    if set_by_suite := sorted(set(own) & set(OURS)):
        raise InputError(f"{where}: {set_by_suite[0]!r} is the suite's to set, the same for every method")
    start: dict[str, Any] = {}
    if "job" in table:
        file = base / str(table["job"])
        try:
            start, base = job.read_table(file), file.parent
        except InputError as error:
            raise InputError(f"{where}: job: {error}") from None
    on = table.get("on", {})
    if not isinstance(on, Mapping) or set(on) - set(config.data):
        raise InputError(f"{where}.on: what differs on a set, under its name: {', '.join(config.data)}")
    merged = _merged(_merged(start, own), on.get(data, {}))
    earlier = merged.get("privacy", {})
    common = config.privacy.model_dump(exclude_unset=True, exclude={"joint_epsilon"})
    merged |= {
        "purpose": config.purpose,
        "seed": seed,
        "trust": config.trust,
        "data": config.data[data],
        "privacy": {**{key: value for key, value in earlier.items() if key == "unit"}, **common, "epsilon": epsilon},
        "evaluation": {
            **config.evaluation.model_dump(),
            # What has a cell of its own is not judged in every other cell too.
            **{pseudo: all(each.get("kind") != pseudo for each in config.methods.values()) for pseudo in PSEUDO},
        },
        "adapters": {**merged.get("adapters", {}), "judge": _judge(config)},
    }
    for name, value in (("budget", config.budget), ("performance", config.performance)):
        if value is not None:
            merged[name] = value
    return job.parse(merged, where=where, base=base)


def _judge(config: SuiteConfig) -> Any:
    return config.judge if config.judge is not None else {"kind": "pixels"}


def _merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`table` with `changes`, table by table; a table that names another kind takes the place of the old one."""
    merged = copy.deepcopy(dict(table))
    for key, value in changes.items():
        before = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(before, Mapping)
        if both and value.get("kind", before.get("kind")) == before.get("kind"):  # type: ignore[union-attr]
            merged[key] = _merged(before, value)  # type: ignore[arg-type]
        else:
            merged[key] = copy.deepcopy(value)
    return merged
