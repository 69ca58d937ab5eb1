"""The gateway: the only place that opens adapters, and puts on them what all have: money, limits, retries, the cache.

`open` gives public requests to a role, behind the shared cache. `open_trusted` gives it private records: one of the
three doors, which a role that may be remote passes by trust alone (`roles.py`; what it then does is in `trusted.py`).
Formal guarantee: none for what a trusted remote role receives; `egress` lists those roles for the certificate.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy.typing as npt

from ..cache import modes
from ..cache.keys import Addressing, canonical_json
from ..cache.modes import Mode
from ..cache.money import Money, Totals
from ..cache.store import Store, Transaction
from ..data.private_set import Records
from ..privacy.private import OperationalError, Private, guarded, open_private
from . import registry
from .contract import Adapter, AdapterConfig, AsyncAdapter, Classifying, Location, ModelIdentity
from .pricing import Batching, has_price, limits_of, pricing_of
from .roles import (
    Counts,
    GatewayError,
    Progress,
    Role,
    Tally,
    check_answers,
    check_names,
    check_trust,
    role_config,
)
from .trusted import TrustedAdapter
from .wrappers.batched import Batched
from .wrappers.cached import Cached
from .wrappers.clock import Clock
from .wrappers.limited import Gate, Limits
from .wrappers.metered import Advance, Metered, Prepaid, Spending, unpriced
from .wrappers.overheard import Billed, overheard
from .wrappers.replayed import Missing, Unopened
from .wrappers.retrying import Patience, Retrying, RetryingAsync
from .wrappers.single_flight import Asked, Flights
from .wrappers.streaming import Bridged, Chunked, Direct, EventLoop, Stream

T = TypeVar("T")

LAST_REPLIES_S = 10.0
"""For how long a gateway that closes waits for replies that are under way and paid for."""


class Gateway:
    """The adapters of one run, by role.

    `namespace` says whose samples are read and kept: the run's, so that each draws anew, unless runs share one on purpose.
    `scope` is whose money is spent: the run's, the namespace if not given. `concurrency` bounds how many requests are sent
    and not yet kept: a crash can cost no more. `chunk` is the size of a batch, public, and how many
    answers of a batch adapter a crash can cost. `key` is the ledger's private key, `private_dir` its owner's alone.
    """

    def __init__(
        self,
        configs: Mapping[str, AdapterConfig],
        *,
        trust: Collection[str] = (),
        store: Store,
        private_dir: Path,
        key: bytes,
        namespace: str,
        chunk: int = 64,
        concurrency: int = 64,
        patience: Patience | None = None,
        progress: Progress | None = None,
        mode: Mode = Mode.LIVE,
        retry_refused: bool = False,
        scope: str | None = None,
        spending: Spending | None = None,
        limits: Mapping[str, Limits] | None = None,
        clock: Clock | None = None,
        billed: Billed | None = None,
    ) -> None:
        check_names(trust, configs)
        if len(key) < 16:
            raise ValueError("the private key needs at least 16 bytes")
        if chunk < 1 or concurrency < 1:
            raise ValueError("`chunk` and `concurrency` are at least 1")
        self._configs = dict(configs)
        self._trust = frozenset(trust)
        self._store = modes.view(store, mode, retry_refused=retry_refused)
        self._fresh = mode in (Mode.REFRESH, Mode.OFF) or retry_refused
        self._mode = mode
        self._scope = namespace if scope is None else scope
        self._spending = spending or Spending()
        self._limits = dict(limits or {})
        self._clock = clock or Clock()
        self._billed = billed
        self._money: Money | None = None
        self._gates: dict[tuple[str, str, str], Gate] = {}
        self._flights = Flights()
        self._private_dir = private_dir
        self._key = key
        self._namespace = namespace
        self._chunk = chunk
        self._concurrency = concurrency
        self._patience = patience
        self._progress = progress
        self._roles: dict[str, Role] = {}
        self._loop: EventLoop | None = None
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close remote adapters' connections and the event loop. The store stays open: it is the caller's; counts stay."""
        with self._lock:
            loop, self._loop = self._loop, None
            if loop is not None:
                with suppress(Exception):
                    loop.start(self._flights.finish(within_s=LAST_REPLIES_S)).result(timeout=LAST_REPLIES_S + 5.0)
            for role in self._roles.values():
                if loop is not None and isinstance(role.adapter, RetryingAsync):
                    # A connection that cannot be closed in time ends with the process.
                    with suppress(Exception):
                        loop.start(role.adapter.close()).result(timeout=5.0)
            if loop is not None:
                loop.close()

    def require(self, role: str, *requests: type) -> None:
        """Refuse, before any work, a role that is missing or whose adapter does not answer these kinds of request."""
        check_answers(role, role_config(self._configs, role), requests)

    def check_trust(self, role: str) -> None:
        """Refuse, before any work, a role that may be remote and is not trusted."""
        config = role_config(self._configs, role)
        check_trust(role, config, registry.location(config), self._trust)

    def open(self, role: str) -> Adapter[Any, Any]:
        """The role's adapter for public requests: retried, and answered from the shared cache where it can be."""
        return self._role(role).public

    def open_trusted(self, role: str) -> TrustedAdapter:
        """The role's adapter for private records; a remote one only if the operator trusts it."""
        self.check_trust(role)
        opened = self._role(role)
        check_trust(role, opened.config, opened.location, self._trust)
        return TrustedAdapter(
            opened,
            door=_looked_at,
            private_dir=self._private_dir,
            key=self._key,
            chunk=self._chunk,
            bridge=self._bridge,
        )

    def counts(self) -> Mapping[str, Counts]:
        """What each opened role was asked so far, for the cost table."""
        return {name: role.tally.counts() for name, role in self._roles.items()}

    def money(self) -> Totals:
        """What the run may spend, has reserved and has spent, its earlier processes included."""
        with self._lock:
            return self._money.totals() if self._money is not None else Totals(cap=self._spending.max_cost)

    def spent(self) -> Mapping[str, int]:
        """Millionths of a dollar, by role."""
        with self._lock:
            return self._money.by_role() if self._money is not None else {}

    def identity(self, role: str) -> ModelIdentity:
        """Which model answers for the role; opens it."""
        return self._role(role).identity

    def class_head(self, role: str) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]] | None:
        """What turns the role's features into probabilities of its own classes; None where it knows no classes."""
        opened = self._role(role)
        if not opened.config.knows_classes:
            return None
        adapter = opened.model if opened.model is not None else opened.config.open()
        return adapter.probabilities if isinstance(adapter, Classifying) else None

    def identities(self) -> Mapping[str, ModelIdentity]:
        """Which model answers for each role, for the manifest; opens them all."""
        return {role: self.identity(role) for role in self._configs}

    def egress(self) -> Mapping[str, ModelIdentity]:
        """The roles that may carry private records off this machine: trusted and remote. Opens them."""
        return {
            role: self._role(role).identity
            for role in sorted(self._trust)
            if self._role(role).location is Location.REMOTE
        }

    def _role(self, role: str) -> Role:
        config = role_config(self._configs, role)
        with self._lock:
            if role not in self._roles:
                self._roles[role] = self._opened(role, config)
            return self._roles[role]

    def _opened(self, role: str, config: AdapterConfig) -> Role:
        if self._mode is Mode.REPLAY:
            return self._replayed(role, config)
        adapter = config.open()
        identity = adapter.identity
        remote = Location.REMOTE in (registry.location(config), adapter.location)
        location = Location.REMOTE if remote else Location.LOCAL
        tally = Tally(role, self._progress)
        patient: Retrying | RetryingAsync
        advance: Advance | None = None
        live: Stream | None = None
        metered = isinstance(adapter, AsyncAdapter)
        if metered:
            stream, live, patient, advance = self._metered(role, config, adapter, location)
        else:
            patient = Retrying(adapter, self._patience)
            stream = Chunked(patient, role=role, size=self._chunk)
        public: Adapter[Any, Any]
        if config.cheap and self._mode is not Mode.RECORD:
            public = Direct(stream, identity=identity, location=location, heard=tally.heard)
        else:
            self._remember(config, identity)
            public = self._cached(config, stream, identity, location, tally, kept_below=metered)
        now = public
        if live is not None:
            now = self._cached(config, live, identity, location, tally, kept_below=True)
        return Role(
            name=role,
            config=config,
            adapter=patient,
            public=public,
            now=now,
            identity=identity,
            location=location,
            tally=tally,
            advance=advance,
            model=adapter,
        )

    def _cached(
        self,
        config: AdapterConfig,
        stream: Stream,
        identity: ModelIdentity,
        location: Location,
        tally: Tally,
        *,
        kept_below: bool,
    ) -> Cached:
        return Cached(
            stream,
            store=self._store,
            addressing=Addressing(identity, settings=config.settings(), namespace=self._namespace),
            identity=identity,
            location=location,
            heard=tally.heard,
            kept_below=kept_below,
        )

    def _metered(
        self, role: str, config: AdapterConfig, adapter: AsyncAdapter[Any, Any], location: Location
    ) -> tuple[Stream, Stream | None, RetryingAsync, Advance]:
        """The public stream of a remote adapter, one that does not wait for batches if that does, its face for private
        records, and who pays for these."""
        pricing = pricing_of(config, location)
        if not (has_price(config, location) or self._spending.max_cost is None or self._spending.allow_unknown_prices):
            raise GatewayError(unpriced(role, adapter.identity.model))
        if self._money is None:
            self._money = Money(self._store, scope=self._scope, cap=self._spending.max_cost)
        identity = adapter.identity
        account = (identity.provider, identity.model, identity.revision)
        if account not in self._gates:
            self._gates[account] = Gate(
                concurrency=self._concurrency,
                limits=self._limits.get(role) or limits_of(config),
                clock=self._clock,
                outage_s=(self._patience or Patience()).deadline_s,
            )
        gate = self._gates[account]
        metered = partial(
            Metered,
            overheard(adapter, role=role, billed=self._billed),
            role=role,
            money=self._money,
            gate=gate,
            spending=self._spending,
            clock=self._clock,
            fresh=self._fresh,
        )
        advance = Advance(adapter=adapter, role=role, money=self._money, pricing=pricing, spending=self._spending)
        patient = partial(RetryingAsync, adapter, self._patience, clock=self._clock.now, sleep=self._clock.sleep)
        public = patient(trying=metered(pricing=pricing))
        private = patient(trying=Prepaid(adapter, gate=gate))
        live = self._bridge(_Shared(public, self._flights), ahead=self._concurrency, kept_below=True)
        if not isinstance(config, Batching) or not config.is_batch:
            return live, None, private, advance
        batched = Batched(
            config.batches(adapter),
            live=live,
            metered=metered(pricing=pricing_of(config, location, batch=True)),
            store=self._store,
            loop=self._event_loop,
            clock=self._clock,
            patience=self._patience or Patience(),
            poll_s=config.batch_poll_s,
        )
        return batched, live, private, advance

    def _event_loop(self) -> EventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = EventLoop()
            return self._loop

    def _replayed(self, role: str, config: AdapterConfig) -> Role:
        """A role that asks no model: its identity is what was remembered, so that not even a key is needed."""
        identity = self._remembered(config)
        location = registry.location(config)
        tally = Tally(role, self._progress)
        unopened = Unopened(partial(_opened_for_replay, role, config, location), identity=identity, location=location)
        stream: Stream = Missing(self._store, role=role)
        if config.cheap:
            stream = Chunked(unopened, role=role, size=self._chunk)
        public = self._cached(config, stream, identity, location, tally, kept_below=not config.cheap)
        patient = Retrying(unopened, self._patience)
        return Role(
            name=role,
            config=config,
            adapter=patient,
            public=public,
            now=public,
            identity=identity,
            location=location,
            tally=tally,
        )

    def _remember(self, config: AdapterConfig, identity: ModelIdentity) -> None:
        about = (canonical_json({"kind": config.kind, **config.settings()}), canonical_json(vars(identity)))

        def keep(open_: Transaction) -> None:
            open_.connection.execute(
                "insert into models (settings, identity) values (?, ?) "
                "on conflict (settings) do update set identity = excluded.identity",
                about,
            )

        self._store.submit(keep).result()

    def _remembered(self, config: AdapterConfig) -> ModelIdentity:
        about = canonical_json({"kind": config.kind, **config.settings()})

        def find(open_: Transaction) -> Any:
            return open_.connection.execute("select identity from models where settings = ?", (about,)).fetchone()

        row = self._store.submit(find).result()[0]
        return ModelIdentity(**json.loads(row[0])) if row is not None else config.open().identity

    def _bridge(self, adapter: AsyncAdapter[Any, Any], *, ahead: int = 0, kept_below: bool = False) -> Bridged:
        """`ahead`: how many more requests may wait at the gate."""
        return Bridged(adapter, loop=self._event_loop(), concurrency=self._concurrency + ahead, kept_below=kept_below)


class _Shared:
    """A remote role's public face: equal requests that come at the same time are one."""

    def __init__(self, patient: RetryingAsync, flights: Flights) -> None:
        self._patient = patient
        self._flights = flights

    @property
    def location(self) -> Location:
        return self._patient.location

    @property
    def identity(self) -> ModelIdentity:
        return self._patient.identity

    async def answer(self, asked: Asked, /) -> Any:
        return await self._flights.reply(asked, self._patient.answer)

    async def close(self) -> None:
        await self._patient.close()


def _looked_at(records: Private[Records], look: Callable[[Records], T], /, *, stage: str) -> Private[T]:
    """The door: the one place among the adapters where raw records are opened."""
    return Private(guarded(look, open_private(records), stage=stage))


def _opened_for_replay(role: str, config: AdapterConfig, location: Location) -> Adapter[Any, Any]:
    """A local adapter may still see what no shared file holds: private records, and what is cheap to compute."""
    adapter = None if location is Location.REMOTE else config.open()
    if adapter is None or isinstance(adapter, AsyncAdapter):
        raise OperationalError(f'replay: {role!r} would have to be asked; run with performance.cache_mode = "live"')
    return adapter
