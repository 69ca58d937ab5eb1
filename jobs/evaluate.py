"""`privolve evaluate`: the harness on any images or texts, against any data set.

They are taken for released by whoever names them. On a held-out part that is public every figure may be shown; where
it is private all of them are unprotected, lie in `private/`, and nothing of them is printed.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..adapters import registry as adapters
from ..data import registry as sources
from ..evaluation.settings import Settings
from . import job, side_by_side
from .baselines import role_of, settings_of
from .job import Budget, InputError, JobConfig, Performance, canonical
from .run import Run
from .start import EXPERIMENTS

if TYPE_CHECKING:
    from ..adapters.contract import AdapterConfig
    from ..adapters.gateway import Gateway
    from ..data.config import DataConfig
    from ..data.private_set import Split
    from ..data.slots import PrivateLog
    from .samples import Samples
    from .text_samples import TextSamples

KEYS = ("data", "judge", "evaluation", "trust")
"""Tables of a file that is no job; or it is a `[data]` table alone."""


@dataclass(frozen=True, kw_only=True)
class Against:
    """What images are judged against, and how; `job` is there where a job file says it."""

    data: DataConfig
    judge: AdapterConfig
    settings: Settings
    trust: tuple[str, ...] = ()
    job: JobConfig | None = None

    def split(self, *, private_log: PrivateLog | None = None) -> Split:
        """The set in its partitions, as the job has them where there is one."""
        return self.data.load(private_log=private_log) if self.job is None else self.job.split(private_log=private_log)

    @property
    def purpose(self) -> str:
        return "private" if self.job is None else self.job.purpose

    @property
    def shows_voters(self) -> bool:
        """As in a run of the job; a data set without a job has no ledger to count such figures in."""
        if self.job is None:
            return False
        wanted = getattr(settings_of(self.job), "unprotected", None)
        return self.purpose == "benchmark" if wanted is None else bool(wanted)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation, as a run of its own."""

    against: Against
    samples: Samples | TextSamples

    kind = "evaluate"

    @property
    def subject(self) -> str:
        return self.against.data.name

    def resolved(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "called": self.samples.name,
            "samples": self.samples.digest,
            "purpose": self.against.purpose,
            "shows_voters": self.against.shows_voters,
            "data": self.against.data.model_dump(mode="json"),
            "judge": self.against.judge.model_dump(mode="json"),
            "evaluation": self.against.settings.model_dump(mode="json"),
            "trust": list(self.against.trust),
        }

    def digest(self) -> str:
        return hashlib.sha256(canonical(self.resolved()).encode()).hexdigest()


def evaluate(
    samples: Path,
    data_file: Path,
    *,
    settings: Sequence[str] = (),
    judge: str | None = None,
    profile: str | None = None,
    metrics: Sequence[str] | None = None,
    fit: bool = False,
    out: Path | None = None,
) -> None:
    """Judge the images or texts at `samples` by what `data_file` names; print the figures, or where they lie."""
    from .samples import fits, missing_classes, read
    from .text_samples import read_texts

    against = _changed(_read(data_file, settings), judge=judge, profile=profile, metrics=metrics)
    data = against.split()
    test, classes = data.test, data.train.classes
    if test is None:
        raise InputError(f"{data_file}: [data] has no held-out part to judge by; give `holdout`, or a test path")
    what = "text" if test.size is None else "image"
    if test.size is None:
        found = read_texts(samples, classes)
    else:
        found = read(samples, classes)
        fits(found, test.size, test.channels, fit=fit)
    for name in missing_classes(found, classes):
        print(f"{samples}: has no {what} of class {name!r}; its real {what}s count as errors")
    described = Evaluation(against=against, samples=found)
    with Run.open(described, root=EXPERIMENTS, out=out) as run:
        if not run.is_finished:
            _judge(described, run)
            run.finish()
        _say(described, run, public=data.test_is_public)


def _judge(described: Evaluation, run: Run) -> None:
    from ..evaluation.harness import FINAL
    from . import assess
    from .ledgers import check_heads, open_ledger
    from .text_samples import TextSamples

    against, samples = described.against, described.samples
    data = against.split(private_log=run.private_log)
    with ExitStack() as opened:
        gateway = opened.enter_context(_gateway(against, run))
        run.record(
            identities={role: vars(identity) for role, identity in gateway.identities().items()},
            test_is_public=data.test_is_public,
        )
        ledger = None
        if against.shows_voters and against.job is not None:
            ledger = opened.enter_context(open_ledger(against.job, data))
            check_heads(against.job, ledger, run)
        bench = assess.Bench(
            run=run,
            data=data,
            settings=against.settings,
            gateway=gateway,
            role="judge",
            shows_voters=against.shows_voters,
            ledger=ledger,
        )
        judged: assess.Images | assess.Texts
        if isinstance(samples, TextSamples):
            judged = assess.Texts(name=FINAL, texts=samples.texts, labels=samples.labels)
        else:
            judged = assess.Images(name=FINAL, pixels=samples.pixels, labels=samples.labels)
        assess.write_scores(run, bench.scores([judged]))


def _say(described: Evaluation, run: Run, *, public: bool) -> None:
    from ..evaluation.comparison import Comparison
    from ..evaluation.tables import tables

    whole = Comparison(
        title=f"{described.samples.name} on {described.subject}",
        purpose="benchmark" if described.against.purpose == "benchmark" else "private",
        groups=side_by_side.groups(side_by_side.sources([run.folder])),
    )
    shown = whole if whole.purpose == "benchmark" else whole.public()
    for group in shown.groups:
        for table in tables(group):
            print(f"\n{table.markdown()}", end="")
    print()
    if not public:
        print(
            "the held-out part is private, so figures on it are unprotected: they are not for publication, and lie in"
        )
        print(f"{run.private / 'scores.json'}")
    else:
        print(f"scores       {run.release / 'scores.json'}")


# --- what is judged against -------------------------------------------------------------------------------------------


def _read(path: Path, settings: Sequence[str]) -> Against:
    table, base = job.read_table(path, settings), path.parent.absolute()
    kind = table.get("kind")
    if kind == "suite":
        raise InputError(f"{path}: is a suite; name a job file, or a file with [data] alone")
    if kind in job.kinds():
        return _of_job(job.parse(table, where=str(path), base=base))
    alone = kind is not None and "data" not in table
    if unknown := sorted(set(table) - set(KEYS)) if not alone else []:
        raise InputError(f"{path}: {unknown[0]}: unknown key; known here: {', '.join(KEYS)}, or a whole job")
    try:
        data = sources.parse(table if alone else table.get("data", {})).resolved(base)
        default = _default(data)
        judge = adapters.parse(default if alone else table.get("judge", default), role="judge").resolved(base)
        chosen = Settings.model_validate(_usual(data) | ({} if alone else table.get("evaluation", {})))
    except ValidationError as error:
        raise InputError(f"{path}: evaluation.{job.first_problem(error, Settings)}") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    return Against(
        data=data,
        judge=judge,
        settings=chosen,
        trust=tuple(table.get("trust", ())) if not alone else (),
    )


DEFAULT = {"kind": "drawnet"}
"""The network that judges where none is named: of no fame, and there without a download."""
DEFAULT_OF_TEXTS = {"kind": "hashing"}
METRICS_OF_TEXTS = ("mauve", "text-length", "distinct-n", "self-bleu", "next-word")


def _default(data: DataConfig) -> dict[str, str]:
    return DEFAULT_OF_TEXTS if data.text_bytes else DEFAULT


def _usual(data: DataConfig) -> dict[str, Any]:
    """What is measured where nothing is said."""
    return {"metrics": METRICS_OF_TEXTS} if data.text_bytes else {}


def _of_job(config: JobConfig) -> Against:
    role = role_of(config)
    return Against(
        data=config.data,
        judge=adapters.parse(_default(config.data)) if role is None else config.adapters[role],
        settings=Settings.model_validate(settings_of(config).model_dump(include=set(Settings.model_fields))),
        trust=("judge",) if role in config.trust else (),
        job=config,
    )


def _changed(against: Against, *, judge: str | None, profile: str | None, metrics: Sequence[str] | None) -> Against:
    """With what the command line says instead."""
    changes: Mapping[str, Any] = {
        key: value for key, value in (("profile", profile), ("metrics", metrics)) if value is not None
    }
    try:
        settings = Settings.model_validate({**against.settings.model_dump(), **changes})
        network = against.judge if judge is None else adapters.parse({"kind": judge}, role="judge")
        # The job trusts the network that it names, and no other.
        trust = against.trust if judge is None else ()
    except ValidationError as error:
        raise InputError(f"--{job.first_problem(error, Settings)}") from None
    return Against(data=against.data, judge=network, settings=settings, trust=trust, job=against.job)


def _gateway(against: Against, run: Run) -> Gateway:
    from ..adapters import roles
    from ..adapters.contract import EmbedRequest
    from ..cache.sqlite import SqliteStore
    from .gateways import CACHE_FILE, cache_folder, open_gateway

    configs = {"judge": against.judge}
    roles.check(configs, trust=against.trust, asked={"judge": (EmbedRequest,)}, private=("judge",))
    budget = Budget() if against.job is None else against.job.budget
    performance = Performance() if against.job is None else against.job.performance
    return open_gateway(
        configs,
        budget=budget,
        performance=performance,
        trust=against.trust,
        store=SqliteStore(cache_folder(performance) / CACHE_FILE),
        private_dir=run.private / "answers",
        key=secrets.token_bytes(32),
        namespace=run.namespace,
        scope=run.id,
    )
