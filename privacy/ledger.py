"""The ledger: every release from one private set, and what they cost together.

A ledger belongs to a private set, found by the name that its operator declares, and not to a run: two runs on the same
set compose, and a set that was edited continues the ledger it had. A release computes its clean query in memory, charges
durably, draws fresh noise, saves durably, and only then returns. What was charged once is never given back.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import platform
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar, final

import numpy as np

from . import arrays, ledger_witness
from .failpoint import failpoint
from .ledger_book import (
    NOTES,
    SYSTEM_NOISE,
    Book,
    Checkpoint,
    Loss,
    Plan,
    PlannedRelease,
    Purpose,
    Terms,
    cost_above_share,
    plan_digest,
    plan_to_json,
)
from .ledger_chain import START, Entry, canonical
from .ledger_errors import (
    BindingChanged,
    BudgetExceeded,
    LedgerBusy,
    LedgerDamaged,
    LedgerError,
    LedgerWriteError,
    NotPlanned,
    PlanChanged,
    RolledBack,
    SetOverlaps,
    TermsDiffer,
)
from .ledger_gate import Gate, Masks
from .ledger_store import Draft, LedgerStore, make_folder, root_key, root_locked
from .mechanism import (
    JSON,
    CalibratedMechanism,
    PrivateInput,
    Relation,
    SampledGaussian,
)
from .private import OperationalError, Private, PrivateStageError, guarded, open_private
from .randomness import SecretRng, SystemRng

__all__ = [
    "BindingChanged",
    "BudgetExceeded",
    "Checkpoint",
    "Ledger",
    "LedgerBusy",
    "LedgerDamaged",
    "LedgerError",
    "LedgerWriteError",
    "Loss",
    "NotPlanned",
    "Plan",
    "PlanChanged",
    "PlannedRelease",
    "RolledBack",
    "SetOverlaps",
    "TermsDiffer",
    "assist",
]

In = TypeVar("In", bound=PrivateInput)


class SlottedRecords(Protocol):
    """What the ledger reads of a private set: the stored bytes of each of its N slots, b"" for an unreadable one."""

    def __len__(self) -> int: ...

    def raw(self, slot: int, /) -> bytes: ...


@final
class Ledger:
    """The open ledger of one private set; this process is its only writer. A context manager."""

    def __init__(self, store: LedgerStore, *, key: bytes, secret: SecretRng | None) -> None:
        """By `create_or_open` only."""
        self.key = key
        """The secret key that the ledgers of one root share, for keyed digests of private values."""
        self._store = store
        self._secret = secret
        self._book = _read(store)
        self._releasing = False

    @classmethod
    def create_or_open(
        cls,
        directory: Path,
        *,
        name: str,
        slots: int,
        unit: str,
        relation: Relation,
        delta: float | None = None,
        total: tuple[float, float] | None = None,
        purpose: Purpose = "private",
        records: Private[Any] | None = None,
        declare_disjoint: str | None = None,
        secret: SecretRng | None = None,
    ) -> Ledger:
        """The ledger in `directory`, made there if there is none. Ledgers that should know of one another lie side by side.

        `delta` and `total`, the owner's cap on the sums of all shares, are fixed when it is made; None later means as made.
        `records` (`SlottedRecords`, the set's) are fingerprinted under the key, so that a ledger under a second name for
        the same records is refused, unless `declare_disjoint` says why it is no second name: an assumption on every
        certificate. `secret` is the source of noise; any but `SystemRng` makes every claim infinite.
        """
        directory = Path(directory)
        make_folder(directory)
        with root_locked(directory.parent):
            key = root_key(directory.parent)
            store = LedgerStore(directory)
        try:
            asked = _Asked(
                name=name, slots=slots, unit=unit, relation=relation, delta=delta, total=total, purpose=purpose
            )
            fingerprints = _fingerprints(records, slots=slots, key=key)
            with root_locked(directory.parent):
                _register(store, asked, fingerprints, declare_disjoint, key=key)
            ledger = cls(store, key=key, secret=secret)
            ledger._remember()
            return ledger
        except BaseException:
            store.close()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process write."""
        self._store.close()

    # What it says.

    @property
    def id(self) -> str:
        """The random public name of this ledger."""
        return self._book.terms.ledger

    @property
    def delta(self) -> float:
        """The delta fixed when the ledger was made: the most that a share may ask for."""
        return self._book.terms.delta

    @property
    def book(self) -> Book:
        """The public entries, read."""
        return self._book

    def entries(self) -> list[Entry]:
        """The public entries, first to last."""
        return list(self._store.entries)

    def head(self) -> str:
        """The hash of the last entry, which holds all before it."""
        return self._store.entries[-1].hash

    def spent(self, partition: str | None = None) -> Loss:
        """The sums of the shares of all plans of a partition, reserved in full; by default the largest over partitions."""
        return self._book.spent(partition)

    def check_head(self, head: str) -> None:
        """Refuse if this ledger does not hold an entry that a run saw at its end: it was rolled back, or is a copy."""
        if head != START and all(entry.hash != head for entry in self._store.entries):
            raise RolledBack(
                f"{self._store.directory}: the ledger does not hold entry {head[:12]}, which a run saw in it. It is an older "
                "copy or another set's ledger; put the newest one back."
            )

    # What it does.

    def note(self, run: str, kind: str, body: Mapping[str, JSON]) -> None:
        """Chain a public fact: `egress`, `assumption` ({"text"}) or `disclosed` ({"partition", "figures": 1}).

        The first two once each. Every time that figures are shown counts as one: how many they were depends on the records.
        """
        if kind not in NOTES:
            raise LedgerError(f"{kind!r} is no kind of note; the kinds are {', '.join(NOTES)}")
        fields = dict(body)
        if kind == "assumption" and not isinstance(fields.get("text"), str):
            raise LedgerError('an assumption is noted as {"text": ...}')
        if kind == "disclosed":
            if not isinstance(fields.get("partition"), str) or fields.get("figures") != 1:
                raise LedgerError('a disclosure is noted as {"partition": ..., "figures": 1}')
        elif any((note.run, note.kind, note.body) == (run, kind, fields) for note in self._book.notes):
            return
        self._append(Draft(kind=kind, run=run, body=fields))

    def reserve(self, plan: Plan) -> None:
        """Reserve the whole plan of a run before its first release; the equal plan again is nothing new.

        Raises BudgetExceeded if its events cost more than its share, or the shares more than the total (or delta more
        than 1/N together); PlanChanged if the run was charged under another plan. Nothing reserved ever returns.
        """
        book, title = self._book, f"the plan of run {plan.run}"
        reserved = book.plans.get(plan.run)
        if reserved is not None and reserved.plan == plan:
            return
        if book.charged(plan.run):
            raise PlanChanged(
                f"{title} differs from the one it was charged under. Give the first one again, or begin a new run."
            )
        if why := book.malformed(plan):
            raise LedgerError(f"{title}: {why}.")
        if why := book.over_budget(plan):
            raise BudgetExceeded(f"{title}: {why}.")
        if why := cost_above_share(tuple(release.cost for release in plan.releases), plan.share):
            raise BudgetExceeded(f"{title}: {why}.")
        body = {"plan": plan_to_json(plan), "figures_before": book.figures_shown(plan.partition)}
        self._append(Draft(kind="plan", run=plan.run, body=body))

    def release(
        self,
        mechanism: CalibratedMechanism[In],
        data: Private[In],
        *,
        name: str,
        question: str,
        checkpoint: Checkpoint | None = None,
    ) -> Mapping[str, np.ndarray]:
        """The mechanism's noisy answer on `data`, charged to the plan that holds `name`.

        `question` is the digest of everything public that the answer depends on. The same name, question, input,
        mechanism and versions give back the saved answer; the same name with any other is refused. After a crash the
        noise is drawn afresh, three attempts for one charge. Raises before `data` is read whatever does not depend on it.

        A long release goes on from its newest durable `checkpoint`, and draws the steps after it alone. That is no new
        attempt, if the last one came further than where it began; the chain then says `continued`.

        Formal guarantee: whatever returns was charged, durably and whole, before its first noise was drawn; a plan costs at
        most its share; there is one answer under a name; no step of a checkpoint that was gone on from, or shown, is drawn
        again.
        """
        if self._releasing:
            raise LedgerError(f"release {name}: a mechanism may not release in its turn")
        self._releasing = True
        try:
            return self._released(mechanism, data, name=name, question=question, checkpoint=checkpoint)
        finally:
            self._releasing = False

    def shown(self, name: str, checkpoint: Checkpoint) -> None:
        """Chain that something made of a durable checkpoint is about to be shown; called while the release `name` runs."""
        if not self._releasing:
            raise LedgerError(f"release {name}: nothing of a checkpoint is shown unless its release runs")
        body = {"name": name, "attempt": len(self._book.attempts(name)), **_checkpoint(checkpoint)}
        found = self._book.release_named(name)
        self._append(Draft(kind="shown", run=found[0].run if found else "", body=body))

    def _released(
        self,
        mechanism: CalibratedMechanism[In],
        data: Private[In],
        *,
        name: str,
        question: str,
        checkpoint: Checkpoint | None,
    ) -> Mapping[str, np.ndarray]:
        run, charge = self._charge(mechanism, name=name, question=question, checkpoint=checkpoint)
        attempts = self._book.attempts(name)

        # The first look at private values.
        keyed = guarded(
            lambda value: _keyed_digest(self.key, name, value), open_private(data), stage=f"reading for {name}"
        )
        if attempts and not hmac.compare_digest(keyed, self._store.private_part(attempts[-1].seq).get("input", "")):
            raise BindingChanged(
                f"release {name} was charged for another private input. Restore the input, or begin a new run."
            )
        if attempts and attempts[-1].outcome == "released":
            return self._saved(name, attempts[-1].output["sha256"])

        # Query, charge at the gate, draw.
        ended = {"name": name, "attempt": charge["attempt"]}
        private = {"input": keyed, "time": int(time.time())}
        drafts: list[Draft] = []
        if charge["attempt"] > len(attempts):
            drafts.append(Draft(kind="charge", run=run, body=charge, private=private))
        if checkpoint is not None:
            drafts.append(Draft(kind="continued", run=run, body={**ended, **_checkpoint(checkpoint)}))

        def durable_charge() -> None:
            failpoint("ledger-before-charge")
            self._append(*drafts, point="ledger-during-charge")
            failpoint("ledger-after-charge")

        done = checkpoint.step if checkpoint else 0
        gate = Gate(self._secret or SystemRng(), mechanism.cost, durable_charge, done=done)
        try:
            content = guarded(
                lambda value: arrays.released(mechanism(gate, value)), open_private(data), stage=f"release {name}"
            )
        except OperationalError as error:
            if not gate.charged or isinstance(error, LedgerError):
                raise
            raise OperationalError(
                f"release {name} stopped after its charge; give the same command again to redraw it"
            ) from None
        except PrivateStageError:
            if gate.charged:
                self._append(Draft(kind="failed", run=run, body=ended))
            if gate.refusal:
                raise LedgerError(f"release {name}: {gate.refusal}.") from None
            raise
        finally:
            gate.close()
        if checkpoint is not None and gate.steps_left == 0 and not gate.refusal:
            durable_charge()
            gate.charged = True
        if gate.refusal or not gate.charged:
            if gate.charged:
                self._append(Draft(kind="failed", run=run, body=ended))
            raise LedgerError(
                f"release {name}: {gate.refusal or 'its mechanism drew no noise, so nothing is released'}."
            )

        # Save, then return.
        failpoint("ledger-before-save")
        body = {**ended, "sha256": hashlib.sha256(content).hexdigest(), "arrays": arrays.described(content)}
        self._append(Draft(kind="release", run=run, body=body), output=(name, content), point="ledger-during-save")
        failpoint("ledger-after-save")
        return arrays.unpacked(content)

    def _charge(
        self, mechanism: CalibratedMechanism[In], *, name: str, question: str, checkpoint: Checkpoint | None
    ) -> tuple[str, dict[str, Any]]:
        """The run and the body of the charge that a release needs now; refuses what the plan or the past does not allow.

        Its attempt is the last one if that was answered, or is gone on with.
        """
        from .accounting import cost_to_json

        book = self._book
        found = book.release_named(name)
        if found is None:
            raise NotPlanned(
                f"release {name} is in no reserved plan. Reserve the whole plan of a run before its first release."
            )
        plan, planned = found
        if mechanism.cost != planned.cost:
            raise PlanChanged(f"release {name} would cost {mechanism.cost}, but its plan holds {planned.cost}.")
        if not question:
            raise LedgerError(f"release {name} has no question; give the digest of all that is public in it.")
        attempts = book.attempts(name)
        released = bool(attempts) and attempts[-1].outcome == "released"
        again = released or book.goes_on(name, checkpoint)
        charge: dict[str, Any] = {
            "name": name,
            "attempt": len(attempts) + (not again),
            "plan": plan_digest(plan),
            "cost": cost_to_json(planned.cost),
            "mechanism": dict(mechanism.describe()),
            "question": question,
            "noise": _noise_name(self._secret),
            "code": {"privolve": _version("privolve"), "source": _source_digest(type(mechanism).__module__)},
            "libraries": _libraries(),
        }
        try:
            canonical(charge)
        except (TypeError, ValueError):
            raise LedgerError(f"release {name}: its mechanism does not describe itself in JSON.") from None
        if attempts:
            asked = {key: value for key, value in charge.items() if key != "attempt"}
            differs = [key for key, value in attempts[-1].binding.items() if canonical(asked[key]) != canonical(value)]
            if differs:
                raise BindingChanged(
                    f"release {name} was charged with another {', '.join(differs)}. Restore what was there then, or begin a "
                    "new run."
                )
            if not again and book.above_share(plan.run, another=name):
                raise BudgetExceeded(
                    f"release {name} was attempted {len(attempts)} times without an answer, and one more would be charged "
                    "anew, above this run's share. Begin a new run: change `seed`, or name another folder with --out."
                )
        if not released and (why := book.misplaced(name, checkpoint)):
            raise LedgerError(
                f"release {name} cannot begin {f'from step {checkpoint.step}' if checkpoint else 'anew'}: {why}. Put the newest "
                "checkpoint back, or begin a new run."
            )
        return plan.run, charge

    def certified(self, run: str, body: Mapping[str, JSON]) -> Entry:
        """Chain the hashes of a certificate; called by `statement.write` alone."""
        return self._append(Draft(kind="certified", run=run, body=dict(body)))

    def _saved(self, name: str, sha256: str) -> Mapping[str, np.ndarray]:
        content = self._store.output(name)
        if content is None or hashlib.sha256(content).hexdigest() != sha256:
            raise LedgerDamaged(
                f"{self._store.directory}: the stored output of {name} is not what was chained. Restore the ledger from a "
                "backup."
            )
        return arrays.unpacked(content)

    def _append(self, *drafts: Draft, output: tuple[str, bytes] | None = None, point: str = "") -> Entry:
        self._store.append(drafts, read=self._book.add, output=output, point=point)
        self._remember()
        return self._store.entries[-1]

    def _remember(self) -> None:
        name = self._store.private_part(1)["name"]
        ledger_witness.remember(self.id, name=name, directory=self._store.directory, head=self.head())


def assist(mechanism: CalibratedMechanism[In], data: Private[In], *, secret: SecretRng | None = None) -> None:
    """Do this process's part of a release that is spread over several, one of which holds the ledger and answers.

    Formal guarantee: this process draws who takes part, from a secret source of its own, and no noise; it gives nothing back.
    What it hands to the process that charges is a part of the clean sum, which stays inside the mechanism.
    """
    cost = mechanism.cost
    if not isinstance(cost, SampledGaussian):
        raise LedgerError("only steps on a sample are spread over several processes")
    masks = Masks(secret or SystemRng(), cost)
    guarded(lambda value: mechanism(masks, value), open_private(data), stage="helping with a release")


# --- opening ----------------------------------------------------------------------------------------------------------


class _Asked:
    """The terms that the caller asks for; None where the ledger decides."""

    def __init__(
        self,
        *,
        name: str,
        slots: int,
        unit: str,
        relation: Relation,
        delta: float | None,
        total: tuple[float, float] | None,
        purpose: Purpose,
    ) -> None:
        if not name or slots < 1 or not unit or purpose not in ("private", "benchmark"):
            raise LedgerError(
                f"a ledger needs a name, at least one slot, a unit, and a purpose private or benchmark; "
                f"this has {name!r}, {slots}, {unit!r}, {purpose!r}."
            )
        if total is not None and not (0 < total[0] < math.inf and 0 < total[1] < 1):
            raise LedgerError(f"the total must have 0 < epsilon < infinity and 0 < delta < 1, not {total}.")
        self.name = name
        self.slots = slots
        self.unit = unit
        self.relation = Relation(relation)
        self.delta = delta
        self.total = total
        self.purpose = purpose

    def created(self, key: bytes) -> Draft:
        """The first entry of a new ledger."""
        from .accounting import check_delta, default_delta

        delta = self.delta
        if delta is None:
            delta = default_delta(self.slots) if self.total is None else min(default_delta(self.slots), self.total[1])
        try:
            check_delta(delta, self.slots)
            if self.total is not None and self.purpose == "private":
                check_delta(self.total[1], self.slots)
        except ValueError as error:
            raise LedgerError(str(error)) from None
        ledger = secrets.token_hex(16)
        body: dict[str, Any] = {
            "format": 1,
            "ledger": ledger,
            "slots": self.slots,
            "unit": self.unit,
            "relation": str(self.relation),
            "delta": float(delta),
            "total": None if self.total is None else [float(part) for part in self.total],
            "purpose": self.purpose,
        }
        return Draft(kind="created", body=body, private={"name": self.name, "key": _key_check(key, ledger)})

    def differences(self, terms: Terms, name: str) -> list[str]:
        """What the ledger was made with instead, in words."""
        pairs: list[tuple[str, Any, Any]] = [
            ("name", name, self.name),
            ("slots", terms.slots, self.slots),
            ("unit", terms.unit, self.unit),
            ("relation", str(terms.relation), str(self.relation)),
            ("delta", terms.delta, terms.delta if self.delta is None else self.delta),
            ("total", terms.total, terms.total if self.total is None else tuple(self.total)),
            ("purpose", terms.purpose, self.purpose),
        ]
        return [f"{what} {made!r}, not {asked!r}" for what, made, asked in pairs if made != asked]


def _register(
    store: LedgerStore,
    asked: _Asked,
    fingerprints: tuple[str, frozenset[bytes]] | None,
    disjoint: str | None,
    *,
    key: bytes,
) -> None:
    """Make the ledger or check its terms, then write down which records it is opened with."""
    drafts: list[Draft] = []
    book = _read(store)
    if store.entries:
        terms = book.terms
        heads = [entry.hash for entry in store.entries]
        ledger_witness.check(terms.ledger, directory=store.directory, heads=heads)
        created = store.private_part(1)
        if created.get("key") != _key_check(key, terms.ledger):
            raise LedgerDamaged(
                f"{store.directory}: the key beside this ledger is not the one it was made with, so that its records cannot "
                "be recognised. Put that key back."
            )
        if differences := asked.differences(terms, created.get("name", "")):
            way_out = "name another ledger and declare why its records are others"
            if not book.plans:
                way_out = "remove its folder, as nothing was ever released or planned from it"
            raise TermsDiffer(
                f"{store.directory}: this ledger was made with {'; '.join(differences)}. Its terms are fixed: give those, or "
                f"{way_out}."
            )
    else:
        if asked.purpose == "private":
            ledger_witness.check_name(asked.name, directory=store.directory)
        drafts.append(asked.created(key))
    if disjoint is not None:
        if not disjoint.strip():
            raise LedgerError("declare_disjoint needs a reason; it is printed on every certificate.")
        text = f"the records of this ledger are declared to lie in no other ledger: {disjoint.strip()}"
        if all(entry.kind != "assumption" or entry.body.get("text") != text for entry in store.entries):
            drafts.append(Draft(kind="assumption", body={"text": text}))
    new: set[bytes] = set()
    if fingerprints is not None:
        whole, records = fingerprints
        new = store.unknown_fingerprints(records) if store.entries else set(records)
        if disjoint is None and (other := store.neighbour_holding(new)) is not None:
            raise SetOverlaps(
                f"{store.directory}: records of this set lie in the ledger {other!r} too. Use that ledger, so that what is "
                "released from them adds up, or pass declare_disjoint with the reason why they are others."
            )
        # The public entry is the same whether the records changed or not: that is a fact about records.
        earlier = next((entry for entry in reversed(store.entries) if entry.kind == "opened"), None)
        changed = earlier is not None and store.private_part(earlier.seq).get("records") != whole
        private = {"records": whole, "changed": changed, "time": int(time.time())}
        drafts.append(Draft(kind="opened", body={}, private=private))
    if drafts:
        store.append(drafts, read=book.add, fingerprints=new, point="ledger-during-opening")


def _fingerprints(records: Private[Any] | None, *, slots: int, key: bytes) -> tuple[str, frozenset[bytes]] | None:
    """The keyed fingerprint of the whole set, in any order, and those of its records but the unreadable."""
    if records is None:
        return None
    found = guarded(
        lambda value: _record_digests(key, value), open_private(records), stage="fingerprinting the records"
    )
    if len(found) != slots:
        raise TermsDiffer(f"the private set has {len(found)} slots, but {slots} were declared. Declare what it has.")
    whole = hmac.new(key, b"set", hashlib.sha256)
    for digest in sorted(found):
        whole.update(digest)
    return whole.hexdigest(), frozenset(found) - {b""}


def _record_digests(key: bytes, records: SlottedRecords) -> list[bytes]:
    raws = (records.raw(slot) for slot in range(len(records)))
    return [hmac.digest(key, b"record" + raw, "sha256")[:16] if raw else b"" for raw in raws]


def _key_check(key: bytes, ledger: str) -> str:
    return hmac.new(key, b"ledger" + ledger.encode(), hashlib.sha256).hexdigest()


def _read(store: LedgerStore) -> Book:
    try:
        return Book(store.entries)
    except ValueError as error:
        raise LedgerDamaged(
            f"{store.directory}: the ledger contradicts itself ({error}). Restore it from a backup."
        ) from None


# --- what a charge binds ----------------------------------------------------------------------------------------------


def _keyed_digest(key: bytes, name: str, value: PrivateInput) -> str:
    """Of all that the mechanism reads; the length of every part counts."""
    keyed = hmac.new(key, b"input", hashlib.sha256)
    framed = _framed(name.encode(), value.parts())
    while some := b"".join(islice(framed, 256)):
        keyed.update(some)
    return keyed.hexdigest()


def _framed(first: bytes, parts: Iterator[bytes]) -> Iterator[bytes]:
    yield len(first).to_bytes(8, "big")
    yield first
    for part in parts:
        yield memoryview(part).nbytes.to_bytes(8, "big")
        yield part


def _checkpoint(checkpoint: Checkpoint) -> dict[str, JSON]:
    return {"step": checkpoint.step, "checkpoint": checkpoint.sha256}


def _noise_name(secret: SecretRng | None) -> str:
    """The class of the source; a double is never called what the secret source is called."""
    if secret is None or type(secret) is SystemRng:
        return SYSTEM_NOISE
    name = type(secret).__qualname__
    return name if name != SYSTEM_NOISE else f"{type(secret).__module__}.{name}"


@lru_cache(maxsize=64)
def _source_digest(module: str) -> str:
    """sha256 over the source of this package and of the mechanism's module, which is what the guarantee rests on."""
    whole = hashlib.sha256()
    files = sorted(Path(__file__).parent.glob("*.py"))
    if file := getattr(sys.modules.get(module), "__file__", None):
        files.append(Path(file))
    for path in files:
        content = path.read_bytes()
        whole.update(len(content).to_bytes(8, "big") + content)
    return whole.hexdigest()


@lru_cache(maxsize=1)
def _libraries() -> dict[str, str]:
    names = ("cryptography", "dp-accounting", "numpy", "opendp", "scipy")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


@lru_cache(maxsize=16)
def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
