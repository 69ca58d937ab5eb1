"""Job files: one TOML table of tables, parsed once, frozen, and refused in one line when something in it is wrong."""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, SerializeAsAny, ValidationError, model_validator

from ..adapters import registry as adapters
from ..adapters.contract import AdapterConfig
from ..cache.modes import Mode
from ..cache.money import micro
from ..data import registry as sources
from ..data.config import DataConfig
from ..privacy.mechanism import Relation
from ..trainers import registry as methods

if TYPE_CHECKING:
    from ..data.private_set import Split
    from ..data.slots import PrivateLog
    from ..privacy.ledger import PlannedRelease
    from .run import Run


class InputError(ValueError):
    """What the user gave is wrong; the message is one line that says where, what and the way out."""


def _data(table: object) -> object:
    return sources.parse(table) if isinstance(table, Mapping) else table


def _adapter(table: object) -> object:
    return adapters.parse(table) if isinstance(table, Mapping) else table


Data = Annotated[SerializeAsAny[DataConfig], BeforeValidator(_data)]
AnyAdapter = Annotated[SerializeAsAny[AdapterConfig], BeforeValidator(_adapter)]


class Table(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """One table of a job file: frozen, and no unknown key."""


class SharedPrivacy(Table, frozen=True):
    """What runs on one private set have in common: the unit, the relation, the ledger and its total."""

    delta: float | None = Field(default=None, gt=0, lt=1)
    """None: the ledger's own, min(1/(N ln N), 1e-5) unless it was created with another."""
    unit: Literal["image", "text", "record"] = "image"
    """One slot: protection of an owner of several slots is not built yet."""
    relation: Literal[Relation.ZERO_OUT, Relation.REPLACE_ONE] = Relation.ZERO_OUT
    """Not add-or-remove: N is public here, and under that relation it would be a record's secret."""
    ledger: str | None = None
    """The ledger's folder; None: `ledgers/NAME` beside `experiments`, NAME being the private set's."""
    total_epsilon: float | None = Field(default=None, gt=0)
    total_delta: float | None = Field(default=None, gt=0, lt=1)
    declare_disjoint: str | None = None

    @model_validator(mode="after")
    def _both_totals_or_none(self) -> Self:
        if (self.total_epsilon is None) != (self.total_delta is None):
            raise ValueError("total_epsilon and total_delta cap the ledger together: give both or neither")
        return self


class Privacy(SharedPrivacy, frozen=True):
    """This run's share of the guarantee, and the ledger that it is taken from."""

    epsilon: float = Field(gt=0)


class RateLimits(Table, frozen=True):
    """What an account may ask for in a minute; what is not given is not limited."""

    requests: float | None = Field(default=None, gt=0)
    tokens: float | None = Field(default=None, gt=0)
    images: float | None = Field(default=None, gt=0)


class Budget(Table, frozen=True):
    """What the run may spend on remote models. It cannot change the result; kept out of the run's identity."""

    max_cost: float | None = Field(default=None, gt=0)
    """US dollars, over all processes of the run. None: money is counted and not capped."""
    allow_unknown_prices: bool = False
    """Use models whose price is not known all the same; what they cost then counts nothing."""
    lost_images: Literal["again", "stop"] = "again"
    """What to do about an image that was sent and whose reply was lost: it may have been billed, and would be again."""

    @property
    def micro(self) -> int | None:
        """`max_cost` in millionths of a dollar."""
        return None if self.max_cost is None else micro(self.max_cost)


class Performance(Table, frozen=True):
    """What cannot change the result; kept out of the run's identity."""

    cache: str | None = None
    """The folder of the response cache; None: `experiments/.cache`."""
    cache_mode: Mode = Mode.LIVE
    """live: ask what is not kept, and keep it. record: keep even what is cheap to compute. replay: ask nothing.

    refresh: ask anew and replace what is kept. off: keep nothing; a run that is stopped then pays again.
    """
    retry_refused: bool = False
    """Ask again what was refused in an earlier process; `privolve run --retry-refused` sets it. What is saved stays."""
    chunk: int = Field(default=256, gt=0)
    """How many answers of a local model may be lost by a crash; each chunk is durable before the next is asked."""
    concurrency: int = Field(default=64, gt=0, le=4096)
    """How many requests to remote models may be under way; a crash can cost so many answers and no more."""
    deadline_s: float = Field(default=600.0, gt=0)
    """For how long one request is tried, its retries included and its wait for a turn left out."""
    limits: dict[str, RateLimits] = Field(default_factory=dict)
    """By role, where the account's limits differ from what is known of the model."""
    neighbours: Literal["auto", "numpy", "faiss", "torch"] = "auto"
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """Where trainers compute: `cpu`, `cuda`, `cuda:1`; `auto` takes the first GPU if there is one."""
    gradients: Literal["auto", "vmap", "hooks", "loop"] = "auto"
    """How the gradient of each record is computed; every way is checked against a loop over single records first."""
    micro_batch: int | None = Field(default=None, gt=0)
    """So many records of a training at a time, halved until they fit into memory; None: by the size of an image."""
    gradient_chunk: int | None = Field(default=None, gt=0)
    """So many gradients at a time; None: as many as the way of computing them likes best."""
    compile: bool = False
    """Compile the networks of public stages and the gradients of `vmap` (`torch.compile`): faster after minutes of compiling."""
    checkpoint_every: int = Field(default=25, gt=0)
    """Steps of a training between durable checkpoints; a crash loses no more than these."""


class JobConfig(Table, frozen=True):
    """What every job has. `kind` chooses the job; the config runs what it describes."""

    kind: str
    purpose: Literal["private", "benchmark"] = "private"
    """`benchmark`: public data played as private, so that suites may be run freely; the certificate says so."""
    seed: int = 0
    """Of everything public. Noise has no seed."""
    trust: tuple[str, ...] = ()
    data: Data
    privacy: Privacy
    adapters: dict[str, AnyAdapter]
    budget: Budget = Budget()
    performance: Performance = Performance()

    @property
    def subject(self) -> str:
        """What the job is about, in its run's folder name."""
        return self.data.name

    def resolved(self) -> dict[str, Any]:
        """Every setting that can change the result, as JSON."""
        return self.model_dump(mode="json", exclude={"performance", "budget"})

    def digest(self) -> str:
        """Equal for equal results: SHA-256 over the resolved settings."""
        return hashlib.sha256(canonical(self.resolved()).encode()).hexdigest()

    def located(self, base: Path) -> Self:
        """The same job with every relative path of its data and models taken from `base`, the folder of the job file."""
        adapters = {role: adapter.resolved(base) for role, adapter in self.adapters.items()}
        return self.model_copy(update={"data": self.data.resolved(base), "adapters": adapters})

    @property
    def set_aside(self) -> float:
        """The share of the private slots that neither vote nor train, and choose between models instead."""
        return 0.0

    def split(self, *, private_log: PrivateLog | None = None) -> Split:
        """The private set in the partitions of this job."""
        return self.data.load(private_log=private_log, validation=self.set_aside)

    def planned_selection(self, data: Split, *, delta: float, prefix: str) -> tuple[PlannedRelease, ...]:
        """What a run of this job releases from the validation partition, named `PREFIX-validation/...`."""
        return ()

    def planned_releases(self, data: Split, *, delta: float, prefix: str) -> tuple[PlannedRelease, ...]:
        """Every release of a run of this job at the ledger's `delta`, named `PREFIX/...`; reads no record.

        Refuses what a run would refuse before it reserves its plan. For suites, whose joint plan holds those of all cells.
        """
        raise NotImplementedError

    def run(self, run: Run) -> None:
        """Do the job in `run`, from wherever it stopped."""
        raise NotImplementedError

    is_helped: ClassVar[bool] = False
    """Whether further processes, started by `torchrun`, take part."""

    def help(self) -> None:
        """Take part, as one of the further processes, in what the first one runs."""

    def closing(self, run: Run) -> str:
        """What a finished run says: its claim, its figures, and where things lie."""
        raise NotImplementedError


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal texts for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def kinds() -> dict[str, type[JobConfig]]:
    """The job kinds; each is a class of its own file."""
    from .dpiti import DpitiConfig
    from .image_pe import ImagePEConfig
    from .train import TrainConfig

    return {"dpiti": DpitiConfig, "image-pe": ImagePEConfig, "train": TrainConfig}


def load(path: Path, settings: Sequence[str] = ()) -> JobConfig:
    """The job in a TOML file, with `--set a.b=value` applied in order. Raises InputError, one line."""
    return parse(read_table(path, settings), where=str(path), base=path.parent.absolute())


def read_table(path: Path, settings: Sequence[str] = ()) -> dict[str, Any]:
    """The tables of a TOML file as they stand there, with `--set a.b=value` applied in order."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(
            f"{path}: cannot be read: {reason}; name a job file, or make one with `privolve init KIND`"
        ) from None
    try:
        table: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    except RecursionError:
        raise InputError(f"{path}: its values are nested too deeply; a job file needs three levels") from None
    for setting in settings:
        _set(table, setting)
    return table


def parse(table: Mapping[str, Any], *, where: str, base: Path) -> JobConfig:
    """The job that a table describes; relative paths of its data and its models are taken from `base`."""
    kind = table.get("kind")
    known = kinds()
    if not isinstance(kind, str) or kind not in known:
        raise InputError(f"{where}: {_unknown_kind(kind, known)}")
    try:
        return known[kind].model_validate(dict(table)).located(base)
    except ValidationError as error:
        raise InputError(f"{where}: {first_problem(error, known[kind])}") from None
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None


def _unknown_kind(kind: object, known: Mapping[str, object]) -> str:
    """What is wrong with a job's `kind`; a suite and a training method are taken for what they are."""
    there_are = f"use one of {', '.join(sorted(known))}"
    if kind is None:
        return f"kind: missing; {there_are}"
    if kind == "suite":
        return "is a suite, no job: `privolve plan` and `privolve compare` take it"
    if isinstance(kind, str) and kind in methods.METHODS:
        return f'kind: {kind!r} is no job kind but a training method: kind = "train", and [trainer] kind = "{kind}"'
    close = difflib.get_close_matches(str(kind), known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"kind: {kind!r} is no job kind; {hint}{there_are}"


def _set(table: dict[str, Any], setting: str) -> None:
    name, equals, text = setting.partition("=")
    if not equals or not all(part.strip() for part in name.split(".")):
        raise InputError(f"--set {setting}: write it as --set table.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text
    *path, last = name.strip().split(".")
    for part in path:
        inner = table.setdefault(part, {})
        if not isinstance(inner, dict):
            raise InputError(f"--set {setting}: {part!r} is a value, not a table")
        table = inner
    table[last] = value


def first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a validation in one line, with the way out, and how many more there are."""
    problems = error.errors()
    # A misspelt key is why another is missing; of a union's problems the deepest is about what was meant.
    problem = min(problems, key=lambda each: (each["type"] != "extra_forbidden", -len(_place(each["loc"]))))
    place = _place(problem["loc"])
    where = ".".join(place)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if problem["type"] == "extra_forbidden":
        known = _keys(model, place[:-1])
        close = difflib.get_close_matches(place[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}" if known else "remove it"
        return f"{where}: unknown key; {hint}{more}"
    if problem["type"] == "missing":
        return f"{where}: missing; it has no default{more}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "union_tag_invalid":
        context = problem.get("ctx", {})
        tag, tags = str(context.get("tag")), str(context.get("expected_tags")).replace("'", "")
        close = difflib.get_close_matches(tag, tags.split(", "), n=1)
        return f"{where}: there is no kind {tag!r}; {f'did you mean {close[0]!r}? ' if close else ''}there are {tags}{more}"
    if problem["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{where}: a table is needed, not {_short(problem['input'])}{more}"
    if problem["type"] == "value_error":
        # A registry names the table too, for those who come without a file.
        message = message.removeprefix("[data]: ").removeprefix("adapters: ")
        return f"{where}: {message}{more}" if where else f"{message}{more}"
    message = message.partition(", unable to parse")[0].replace("a valid tuple", "a list")
    return f"{where}: {message[:1].lower()}{message[1:]}, not {_short(problem['input'])}{more}"


def _place(loc: Sequence[str | int]) -> list[str]:
    """The keys on the way to a problem, without the names that pydantic gives to the members of a union."""
    return [str(part) for part in loc if "[" not in str(part) and part not in ("int", "float", "bool", "str")]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _keys(model: type[BaseModel], place: Sequence[str]) -> list[str]:
    for part in place:
        field = model.model_fields.get(part)
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
