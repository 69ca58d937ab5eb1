"""What a ledger's public entries say: its terms, the plans, the attempts, and what they cost together.

The same reading serves the live ledger, which asks before it writes, and a public copy, whose entries must obey the
same rules. Within a plan the privacy loss distributions of all events compose: the questions may be adaptive, noise
and counts are fixed before the first release. Between plans only the shares add up, because a later plan may depend on
what an earlier one released, and distributions of adaptively chosen events do not compose.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal

from . import ledger_chain as chain
from .ledger_chain import Entry
from .mechanism import Cost, PrivacyTarget, Relation, SampledGaussian

FREE_ATTEMPTS = 3
"""So many attempts at one release, all but the last ended by a crash, are paid by one charge."""

SYSTEM_NOISE = "SystemRng"
"""The only source of noise for which a claim is made."""

Purpose = Literal["private", "benchmark"]
NOTES = ("egress", "assumption", "disclosed")


class Contradiction(ValueError):
    """The entries break a rule of the ledger, so that nothing can be claimed from them."""

    def __init__(self, entry: Entry, why: str) -> None:
        super().__init__(f"entry {entry.seq} ({entry.kind}): {why}")


@dataclass(frozen=True, kw_only=True)
class PlannedRelease:
    """One release of a plan by its full name, `<run>/histogram/3`, and what it will cost."""

    name: str
    cost: Cost


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything a run will release from one partition, and the share of the ledger that covers it."""

    run: str
    partition: str
    share: PrivacyTarget
    releases: tuple[PlannedRelease, ...]


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What is fixed when a ledger is made. `ledger` is its random public id."""

    ledger: str
    slots: int
    unit: str
    relation: Relation
    delta: float
    total: tuple[float, float] | None
    purpose: Purpose


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What the plans of a partition may spend together, reserved in full, and the cap if the owner set one."""

    epsilon: float
    delta: float
    runs: int
    total: tuple[float, float] | None

    @property
    def left(self) -> tuple[float, float] | None:
        """The (epsilon, delta) that further plans may share; None without a cap."""
        if self.total is None:
            return None
        return _minus(self.total[0], self.epsilon), _minus(self.total[1], self.delta)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a long release had come to after `step` of its steps, stored durably under this SHA-256."""

    step: int
    sha256: str


@dataclass(kw_only=True)
class Attempt:
    """One charge under a name and how it ended: "open" until saved or failed, and open for ever after a crash.

    `continued`: the checkpoints that it went on from. `shown`: those of which anything was shown.
    """

    seq: int
    body: dict[str, Any]
    continued: list[Checkpoint] = field(default_factory=list[Checkpoint])
    shown: list[Checkpoint] = field(default_factory=list[Checkpoint])
    outcome: Literal["open", "failed", "released"] = "open"
    output: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def binding(self) -> dict[str, Any]:
        """All that must be equal for a redraw, or for the saved output to be given back."""
        return {key: value for key, value in self.body.items() if key != "attempt"}


@dataclass(frozen=True, kw_only=True)
class Reserved:
    """A plan in the ledger. `figures_before`: how often unprotected figures of its partition had been shown by then."""

    plan: Plan
    figures_before: int


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """The plan as it is chained; exact, floats included."""
    from .accounting import cost_to_json

    return {
        "run": plan.run,
        "partition": plan.partition,
        "share": {"epsilon": plan.share.epsilon, "delta": plan.share.delta},
        "unit": plan.share.unit,
        "relation": str(plan.share.relation),
        "releases": [{"name": release.name, "cost": cost_to_json(release.cost)} for release in plan.releases],
    }


def plan_from_json(value: Mapping[str, Any]) -> Plan:
    """The inverse of `plan_to_json`."""
    from .accounting import cost_from_json

    return Plan(
        run=value["run"],
        partition=value["partition"],
        share=PrivacyTarget(
            epsilon=value["share"]["epsilon"],
            delta=value["share"]["delta"],
            unit=value["unit"],
            relation=Relation(value["relation"]),
        ),
        releases=tuple(
            PlannedRelease(name=release["name"], cost=cost_from_json(release["cost"])) for release in value["releases"]
        ),
    )


def plan_digest(plan: Plan) -> str:
    """sha256 of the plan, which every charge of its run holds."""
    return chain.digest(plan_to_json(plan))


class Book:
    """The entries of one chain, read one by one; `add` raises `Contradiction` where they break a rule."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.plans: dict[str, Reserved] = {}
        self.notes: list[Entry] = []
        self.certified: list[Entry] = []
        self._terms: Terms | None = None
        self._attempts: dict[str, list[Attempt]] = {}
        self._run_of: dict[str, str] = {}
        for entry in entries:
            self.add(entry)

    @property
    def terms(self) -> Terms:
        """The terms of the first entry; an empty chain has none."""
        if self._terms is None:
            raise ValueError("the chain is empty")
        return self._terms

    def add(self, entry: Entry) -> None:
        """Read the next entry."""
        readers = {
            "created": self._created,
            "opened": self._opened,
            "plan": self._planned,
            "charge": self._charged,
            "continued": self._continued,
            "shown": self._shown,
            "failed": self._failed,
            "release": self._released,
            "certified": self.certified.append,
            **dict.fromkeys(NOTES, self.notes.append),
        }
        reader = readers.get(entry.kind)
        if reader is None:
            raise Contradiction(entry, f"is of no known kind; known are {', '.join(readers)}")
        if (self._terms is None) != (entry.kind == "created"):
            raise Contradiction(entry, "a chain has one entry `created`, its first")
        try:
            reader(entry)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, Contradiction):
                raise
            raise Contradiction(entry, f"lacks or misstates a field ({type(error).__name__})") from None

    # What plans and attempts stand at.

    def release_named(self, name: str) -> tuple[Plan, PlannedRelease] | None:
        """The plan that names a release, and the release; None if no plan does."""
        run = self._run_of.get(name)
        if run is None:
            return None
        plan = self.plans[run].plan
        return plan, next(release for release in plan.releases if release.name == name)

    def attempts(self, name: str) -> list[Attempt]:
        """The attempts at a release, first to last."""
        return self._attempts.get(name, [])

    def goes_on(self, name: str, checkpoint: Checkpoint | None) -> bool:
        """Whether work from `checkpoint` goes on with the last attempt: it came further since it last began.

        If not, it is one attempt more.
        """
        attempts = self.attempts(name)
        if checkpoint is None or not attempts or attempts[-1].outcome != "open":
            return False
        return checkpoint.step > max((begun.step for begun in attempts[-1].continued), default=0)

    def misplaced(self, name: str, checkpoint: Checkpoint | None) -> str:
        """Why no attempt at a release may begin from `checkpoint` (None: from nothing); "" if one may.

        What was gone on from, or shown, is fixed: no step before it is drawn a second time.
        """
        known = [one for attempt in self.attempts(name) for one in (*attempt.continued, *attempt.shown)]
        furthest = max(known, key=lambda one: one.step, default=None)
        if checkpoint is not None:
            if not self.attempts(name):
                return "it is of no attempt that was charged here"
            found = self.release_named(name)
            cost = found[1].cost if found else None
            if not isinstance(cost, SampledGaussian) or not 1 <= checkpoint.step <= cost.steps:
                return f"there is no step {checkpoint.step} in what was planned"
        if furthest is None or (checkpoint is not None and checkpoint.step > furthest.step):
            return ""
        if checkpoint is None or checkpoint.step < furthest.step:
            return f"it is older than step {furthest.step}, from which this release went on, or of which something was shown"
        return "" if checkpoint == furthest else f"step {checkpoint.step} had another outcome before"

    def charged(self, run: str) -> bool:
        """Whether anything of the run's plan was ever charged."""
        reserved = self.plans.get(run)
        return reserved is not None and any(self.attempts(release.name) for release in reserved.plan.releases)

    def copies(self, name: str, *, another: bool = False) -> int:
        """How often a release is paid: once, once more for each attempt beyond three, and for each that failed otherwise.

        `another`: counting one more attempt, to be made now.
        """
        attempts = self.attempts(name)
        failed = sum(attempt.outcome == "failed" for attempt in attempts)
        others = len(attempts) - failed + another
        return max(1, failed + (others > 0) + max(0, others - FREE_ATTEMPTS))

    def costs(self, run: str, *, another: str | None = None) -> tuple[Cost, ...]:
        """Every cost of the run's plan, as often as it is paid; `another` names a release about to be tried again."""
        return tuple(
            release.cost
            for release in self.plans[run].plan.releases
            for _ in range(self.copies(release.name, another=release.name == another))
        )

    def doubles(self, runs: Iterable[str]) -> list[str]:
        """The sources of noise, other than the secret one, that any charge of `runs` drew from."""
        names = {
            attempt.body["noise"]
            for run in runs
            for release in self.plans[run].plan.releases
            for attempt in self.attempts(release.name)
        }
        return sorted(names - {SYSTEM_NOISE})

    def figures_shown(self, partition: str) -> int:
        """How often unprotected figures of a partition were shown so far; how many they were depends on its records."""
        return sum(
            note.body["figures"]
            for note in self.notes
            if note.kind == "disclosed" and note.body["partition"] == partition
        )

    # What they cost.

    @property
    def partitions(self) -> list[str]:
        """The partitions that any plan releases from, sorted."""
        return sorted({reserved.plan.partition for reserved in self.plans.values()})

    def runs(self, partition: str) -> list[str]:
        """The runs whose plans release from a partition, in the order of their plans."""
        return [run for run, reserved in self.plans.items() if reserved.plan.partition == partition]

    def plans_of(self, run: str) -> list[str]:
        """The run's plan, and its plans of further partitions, which are named RUN-PARTITION: a slot is under one of them."""
        return [run, *(name for name in self.plans if name != run and self.run_of(name) == run)]

    def run_of(self, plan: str) -> str:
        """The run whose plan of a further partition this is, or the plan's own name."""
        partition = self.plans[plan].plan.partition
        of = self.plans.get(plan.removesuffix(f"-{partition}"))
        return plan if of is None or of.plan.partition == partition else of.plan.run

    def epsilon(self, run: str, delta: float, relation: Relation | None = None) -> float:
        """Epsilon of the run's plan alone, attempts included, at `delta`; under the ledger's relation by default."""
        if self.doubles([run]):
            return math.inf
        return composed_epsilon(self.costs(run), delta, relation or self.terms.relation)

    def spent(self, partition: str | None = None) -> Loss:
        """The sums of the shares of all plans of a partition; by default the largest over the partitions.

        A record lies in one partition, so partitions do not add up.
        """
        losses = [
            Loss(
                epsilon=_sum(self.plans[run].plan.share.epsilon for run in runs),
                delta=_sum(self.plans[run].plan.share.delta for run in runs),
                runs=len(runs),
                total=self.terms.total,
            )
            for runs in map(self.runs, self.partitions if partition is None else [partition])
        ]
        return Loss(
            epsilon=max((loss.epsilon for loss in losses), default=0.0),
            delta=max((loss.delta for loss in losses), default=0.0),
            runs=sum(loss.runs for loss in losses),
            total=self.terms.total,
        )

    def spent_wherever(self, partition: str) -> Loss:
        """As `spent`, for a slot that another run may have put elsewhere: of each run, the dearer of its partitions."""
        runs = dict.fromkeys(map(self.run_of, self.runs(partition)))
        shares = [[self.plans[plan].plan.share for plan in self.plans_of(run)] for run in runs]
        return Loss(
            epsilon=_sum(max(share.epsilon for share in each) for each in shares),
            delta=_sum(max(share.delta for share in each) for each in shares),
            runs=len(runs),
            total=self.terms.total,
        )

    # What they may not do.

    def malformed(self, plan: Plan) -> str:
        """Why no ledger of these terms can hold such a plan; "" if it can."""
        terms, share = self.terms, plan.share
        names = [release.name for release in plan.releases]
        if not plan.run or not plan.partition or not names:
            return "a plan names its run, its partition and at least one release"
        if foreign := [name for name in names if not name.startswith(f"{plan.run}/")]:
            return f"release {foreign[0]!r} is not named under its run: call it {plan.run}/{foreign[0]}"
        if len(set(names)) < len(names):
            return "two releases have one name; number them"
        if taken := [name for name in names if self._run_of.get(name, plan.run) != plan.run]:
            return f"release {taken[0]!r} belongs to the plan of run {self._run_of[taken[0]]}"
        if (share.unit, share.relation) != (terms.unit, terms.relation):
            return (
                f"the share is for one {share.unit} under {share.relation}, "
                f"the ledger for one {terms.unit} under {terms.relation}; plans of both cannot be added up"
            )
        if not (0 < share.epsilon < math.inf and 0 < share.delta < 1):
            return f"the share must have 0 < epsilon < infinity and 0 < delta < 1, not ({share.epsilon}, {share.delta})"
        return ""

    def over_budget(self, plan: Plan) -> str:
        """Why the shares of the partition would not bear this plan beside the others; "" if they do."""
        terms, share = self.terms, plan.share
        if share.delta > terms.delta:
            return (
                f"its delta {share.delta:g} exceeds the ledger's {terms.delta:g}, which was fixed when the ledger was "
                f"made; ask for at most that"
            )
        others = [self.plans[run].plan.share for run in self.runs(plan.partition) if run != plan.run]
        epsilon = _exact_sum([share.epsilon, *(other.epsilon for other in others)])
        delta = _exact_sum([share.delta, *(other.delta for other in others)])
        left = self.spent(plan.partition).left or (0.0, 0.0)
        if terms.total is not None and (epsilon > _exact(terms.total[0]) or delta > _exact(terms.total[1])):
            return (
                f"with the {len(others)} plans before it, it would come to ({float(epsilon):g}, {float(delta):g}), "
                f"above the owner's total ({terms.total[0]:g}, {terms.total[1]:g}) for partition {plan.partition}; ask for at "
                f"most what is left, ({left[0]:g}, {left[1]:g})"
            )
        if terms.purpose == "private" and delta * terms.slots >= 1:
            return (
                f"with the {len(others)} plans before it, delta would come to {float(delta):g}, which is not below "
                f"1/{terms.slots}; ask for a smaller delta"
            )
        return ""

    def above_share(self, run: str, *, another: str | None = None) -> str:
        """Why the run's share does not bear what its plan costs (with one more attempt at `another`); "" if it does."""
        share = self.plans[run].plan.share
        return cost_above_share(self.costs(run, another=another), share)

    # Reading.

    def _created(self, entry: Entry) -> None:
        body = entry.body
        total = body["total"]
        self._terms = Terms(
            ledger=body["ledger"],
            slots=body["slots"],
            unit=body["unit"],
            relation=Relation(body["relation"]),
            delta=body["delta"],
            total=None if total is None else (total[0], total[1]),
            purpose=body["purpose"],
        )

    def _opened(self, entry: Entry) -> None:
        """Says nothing in public: whether the records had changed is in its private part."""

    def _planned(self, entry: Entry) -> None:
        plan = plan_from_json(entry.body["plan"])
        if plan.run != entry.run or plan_to_json(plan) != entry.body["plan"]:
            raise Contradiction(entry, "is not the plan of its run")
        if self.charged(plan.run):
            raise Contradiction(entry, f"changes the plan of {plan.run} after its first charge")
        if why := self.malformed(plan) or self.over_budget(plan):
            raise Contradiction(entry, why)
        if entry.body["figures_before"] != self.figures_shown(plan.partition):
            raise Contradiction(entry, "miscounts the unprotected figures shown before it")
        # A plan that was never charged has released nothing, so that another may take its place.
        self._run_of = {name: run for name, run in self._run_of.items() if run != plan.run}
        self.plans.pop(plan.run, None)
        self.plans[plan.run] = Reserved(plan=plan, figures_before=entry.body["figures_before"])
        self._run_of.update({release.name: plan.run for release in plan.releases})

    def _charged(self, entry: Entry) -> None:
        from .accounting import cost_from_json

        body = entry.body
        name: str = body["name"]
        found = self.release_named(name)
        attempts = self.attempts(name)
        if found is None or found[0].run != entry.run:
            raise Contradiction(entry, f"charges {name!r}, which the plan of its run does not hold")
        plan, release = found
        if cost_from_json(body["cost"]) != release.cost or body["plan"] != plan_digest(plan):
            raise Contradiction(entry, f"charges {name!r} other than planned")
        attempt = Attempt(seq=entry.seq, body=body)
        if body["attempt"] != len(attempts) + 1 or not isinstance(body["noise"], str):
            raise Contradiction(entry, f"is not the next attempt at {name!r}")
        if attempts and attempts[-1].outcome == "released":
            raise Contradiction(entry, f"draws {name!r} again after its release")
        if attempts and attempts[-1].binding != attempt.binding:
            raise Contradiction(entry, f"binds {name!r} to something else than before")
        self._attempts.setdefault(name, []).append(attempt)

    def _continued(self, entry: Entry) -> None:
        attempt, checkpoint = self._checkpointed(entry)
        name: str = entry.body["name"]
        if not self.goes_on(name, checkpoint):
            raise Contradiction(entry, f"goes on with {name!r} from where it began before")
        if why := self.misplaced(name, checkpoint):
            raise Contradiction(entry, f"begins {name!r} at a wrong checkpoint: {why}")
        attempt.continued.append(checkpoint)

    def _shown(self, entry: Entry) -> None:
        attempt, checkpoint = self._checkpointed(entry)
        if why := self.misplaced(entry.body["name"], checkpoint):
            raise Contradiction(entry, f"shows a wrong checkpoint of {entry.body['name']!r}: {why}")
        attempt.shown.append(checkpoint)

    def _checkpointed(self, entry: Entry) -> tuple[Attempt, Checkpoint]:
        attempt = self._open_attempt(entry)
        step, sha256 = entry.body["step"], entry.body["checkpoint"]
        if type(step) is not int or not isinstance(sha256, str) or len(sha256) != 64:
            raise Contradiction(entry, "names no checkpoint")
        return attempt, Checkpoint(step=step, sha256=sha256)

    def _failed(self, entry: Entry) -> None:
        self._open_attempt(entry).outcome = "failed"

    def _released(self, entry: Entry) -> None:
        attempt = self._open_attempt(entry)
        attempt.output = {"sha256": entry.body["sha256"], "arrays": entry.body["arrays"]}
        attempt.outcome = "released"

    def _open_attempt(self, entry: Entry) -> Attempt:
        attempts = self.attempts(entry.body["name"])
        if not attempts or attempts[-1].outcome != "open" or entry.body["attempt"] != len(attempts):
            raise Contradiction(entry, f"is of an attempt at {entry.body['name']!r} that no charge began")
        return attempts[-1]


@lru_cache(maxsize=1024)
def composed_epsilon(costs: tuple[Cost, ...], delta: float, relation: Relation) -> float:
    """Epsilon of all costs together at `delta`; 0 for none."""
    from .accounting import epsilon

    return epsilon(costs, delta, relation) if costs else 0.0


def cost_above_share(costs: tuple[Cost, ...], share: PrivacyTarget) -> str:
    """Why a share does not bear these costs; "" if it does."""
    needed = composed_epsilon(costs, share.delta, share.relation)
    if needed <= share.epsilon:
        return ""
    return (
        f"its {len(costs)} events cost epsilon {needed:.6g} at delta {share.delta:g}, more than its share "
        f"{share.epsilon:g}; calibrate the noise to the share, or plan fewer releases"
    )


def _exact(value: float) -> Decimal:
    """The decimal that was written down, so that ten shares of 0.1 make 1."""
    return Decimal(repr(float(value)))


def _exact_sum(values: Iterable[float]) -> Decimal:
    return sum(map(_exact, values), Decimal(0))


def _sum(values: Iterable[float]) -> float:
    return float(_exact_sum(values))


def _minus(total: float, spent: float) -> float:
    return float(max(Decimal(0), _exact(total) - _exact(spent)))
