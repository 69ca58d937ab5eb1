"""The gateway: the only place that opens adapters, and the boundary that private records cross by trust alone.

    GatewayError
    ├── RoleError     a role is missing, or its adapter does not answer what the job asks
    └── TrustError    an adapter that may be remote was given a private role without trust

`open` gives public requests to a role, behind the shared cache. `open_trusted` gives it private records: one of the
three doors. Formal guarantee: none for what a trusted remote role receives; `egress` lists those roles for the
certificate. What an adapter answers stays `Private`, in files of the private folder.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, cast

import numpy as np
import numpy.typing as npt

from ..cache import modes
from ..cache.keys import Addressing, canonical_json
from ..cache.modes import Mode
from ..cache.money import Money, Totals
from ..cache.private_rows import Columns, MemoryRows, PrivateRows, Rows
from ..cache.store import Store, Transaction
from ..data.private_set import PrivateSet, Records
from ..data.voters import Voters
from ..privacy.private import OperationalError, Private, guarded, open_private
from . import registry
from .contract import (
    Adapter,
    AdapterConfig,
    AdapterError,
    AsyncAdapter,
    CaptionRequest,
    Classifying,
    EmbedRequest,
    Image,
    ImageRequest,
    Location,
    ModelIdentity,
    Refusal,
    wrong_with,
)
from .pricing import Batching, has_price, limits_of, pricing_of
from .trusted import (
    AsyncAsker,
    BatchAsker,
    Question,
    RowRecords,
    binding,
    blank_of,
    fill,
    is_declared,
    largest_of,
    operational,
    rows_name,
)
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

CAPTION_BYTES = 4096
"""The row of a private caption: its length in four bytes, its UTF-8, zeros. A longer caption is cut."""


LAST_REPLIES_S = 10.0
"""For how long a gateway that closes waits for replies that are under way and paid for."""


class GatewayError(ValueError):
    """The job's adapters cannot do what it asks; the message is one line."""


class RoleError(GatewayError):
    """A role is missing or answers something else."""


class TrustError(GatewayError):
    """A role may not see private data."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a role was asked. For private records these count slots."""

    asked: int = 0
    from_cache: int = 0
    sent: int = 0
    refused: int = 0


class Progress(Protocol):
    def __call__(self, role: str, done: int, total: int, /) -> None: ...


def check(
    configs: Mapping[str, AdapterConfig],
    *,
    trust: Collection[str] = (),
    asked: Mapping[str, Sequence[type]],
    private: Collection[str] = (),
) -> None:
    """Refuse adapters that cannot answer what is `asked` of each role, or may not see the `private` roles' records.

    Opens nothing, so that a job can be refused before anything is made or charged.
    """
    _check_names(trust, configs)
    for role, requests in asked.items():
        _check_answers(role, _config(configs, role), requests)
    for role in private:
        config = _config(configs, role)
        _check_trust(role, config, registry.location(config), trust)


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
        _check_names(trust, configs)
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
        self._roles: dict[str, _Role] = {}
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
        _check_answers(role, _config(self._configs, role), requests)

    def check_trust(self, role: str) -> None:
        """Refuse, before any work, a role that may be remote and is not trusted."""
        config = _config(self._configs, role)
        _check_trust(role, config, registry.location(config), self._trust)

    def open(self, role: str) -> Adapter[Any, Any]:
        """The role's adapter for public requests: retried, and answered from the shared cache where it can be."""
        return self._role(role).public

    def open_trusted(self, role: str) -> TrustedAdapter:
        """The role's adapter for private records; a remote one only if the operator trusts it."""
        self.check_trust(role)
        opened = self._role(role)
        _check_trust(role, opened.config, opened.location, self._trust)
        return TrustedAdapter(
            opened, private_dir=self._private_dir, key=self._key, chunk=self._chunk, bridge=partial(self._bridge, role)
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

    def _role(self, role: str) -> _Role:
        config = _config(self._configs, role)
        with self._lock:
            if role not in self._roles:
                self._roles[role] = self._opened(role, config)
            return self._roles[role]

    def _opened(self, role: str, config: AdapterConfig) -> _Role:
        if self._mode is Mode.REPLAY:
            return self._replayed(role, config)
        adapter = config.open()
        identity = adapter.identity
        remote = Location.REMOTE in (registry.location(config), adapter.location)
        location = Location.REMOTE if remote else Location.LOCAL
        tally = _Tally(role, self._progress)
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
        return _Role(
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
        tally: _Tally,
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
        live = self._bridge(role, _Shared(public, self._flights), _anything, ahead=self._concurrency, kept_below=True)
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

    def _replayed(self, role: str, config: AdapterConfig) -> _Role:
        """A role that asks no model: its identity is what was remembered, so that not even a key is needed."""
        identity = self._remembered(config)
        location = registry.location(config)
        tally = _Tally(role, self._progress)
        unopened = Unopened(partial(_opened_for_replay, role, config, location), identity=identity, location=location)
        stream: Stream = Missing(self._store, role=role)
        if config.cheap:
            stream = Chunked(unopened, role=role, size=self._chunk)
        public = self._cached(config, stream, identity, location, tally, kept_below=not config.cheap)
        patient = Retrying(unopened, self._patience)
        return _Role(
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

    def _bridge(
        self,
        role: str,
        adapter: AsyncAdapter[Any, Any],
        wrong: Callable[[Any, Any], str] = wrong_with,
        *,
        ahead: int = 0,
        kept_below: bool = False,
    ) -> Bridged:
        """`ahead`: how many more requests may wait at the gate."""
        return Bridged(
            adapter,
            role=role,
            loop=self._event_loop(),
            concurrency=self._concurrency + ahead,
            wrong=wrong,
            kept_below=kept_below,
        )


class TrustedAdapter:
    """A role that may see private records. Its answers are private, one row a slot; what a crash left is gone on with."""

    def __init__(
        self,
        role: _Role,
        *,
        private_dir: Path,
        key: bytes,
        chunk: int,
        bridge: Callable[..., Bridged],
    ) -> None:
        self._role = role
        self._private_dir = private_dir
        self._key = key
        self._chunk = chunk
        self._bridge = bridge

    def embed(self, private: PrivateSet) -> Private[Voters]:
        """The features of every record. A record whose features are not finite, or not of the public width, is a ghost."""
        blank = blank_of(private)
        width = self._width(blank)
        question = Question(
            request=lambda content: EmbedRequest(content=_content(content)),
            row=partial(_vector_row, width=width),
            row_bytes=4 * width,
            content=is_declared(private),
            blank=_raw(blank),
            largest=_raw(largest_of(private)),
        )

        def voters(records: Records) -> Voters:
            rows = self._answered(private, records, question, {"verb": "embed", "width": width})
            return Voters(embeddings=rows.payload.view(np.dtype("<f4")), labels=rows.labels, valid=rows.valid)

        return Private(guarded(voters, open_private(private.records), stage=f"embedding by {self._role.name!r}"))

    def caption(self, private: PrivateSet, *, prompt: str, max_tokens: int | None = None) -> PrivateSet:
        """The set with every image replaced by words about it; a refused image is a ghost."""
        if private.size is None:
            raise GatewayError(f"{private.name!r} holds texts; only images can be captioned")
        question = Question(
            request=lambda content: CaptionRequest(image=Image(content), prompt=prompt, draw=0, max_tokens=max_tokens),
            row=_caption_row,
            row_bytes=CAPTION_BYTES,
            content=is_declared(private),
            blank=_raw(blank_of(private)),
            largest=_raw(largest_of(private)),
        )
        about = {"verb": "caption", "prompt": prompt, "max_tokens": max_tokens}
        self._probe(question)

        def captions(records: Records) -> Records:
            return RowRecords(records.ids, self._answered(private, records, question, about), _caption)

        stage = f"captioning by {self._role.name!r}"
        derived = Private(guarded(captions, open_private(private.records), stage=stage))
        return _derived(private, derived, size=None, channels=0, text_bytes=CAPTION_BYTES - 4)

    def paint(self, private: PrivateSet, *, size: tuple[int, int], channels: int) -> PrivateSet:
        """The set with every text replaced by an image of what it says; a refused text is a ghost."""
        if private.size is not None:
            raise GatewayError(f"{private.name!r} holds images; only texts can be painted")
        shape = (size[1], size[0], channels)
        question = Question(
            request=lambda content: ImageRequest(prompt=content, draw=0, size=size, channels=channels),
            row=partial(_image_row, shape=shape),
            row_bytes=shape[0] * shape[1] * shape[2],
            content=is_declared(private),
            blank=blank_of(private),
            largest=largest_of(private),
        )
        about = {"verb": "paint", "size": list(size), "channels": channels}
        self._probe(question)

        def images(records: Records) -> Records:
            rows = self._answered(private, records, question, about)
            return RowRecords(records.ids, rows, lambda row: np.array(row).reshape(shape))

        stage = f"painting by {self._role.name!r}"
        derived = Private(guarded(images, open_private(private.records), stage=stage))
        return _derived(private, derived, size=size, channels=channels)

    def _answered(self, private: PrivateSet, records: Records, question: Question, about: Mapping[str, Any]) -> Columns:
        """Every slot's row, from the file of an earlier try where there is one."""
        role = self._role
        adapter = role.adapter
        if isinstance(adapter, RetryingAsync):
            asker = AsyncAsker(adapter, partial(self._bridge, wrong=_anything), role.name)
        else:
            asker = BatchAsker(adapter, role.name)
        with operational(role.name):
            if len(records) != private.count:
                raise OperationalError(
                    f"{private.name!r} holds another number of slots than it declares; nothing was charged"
                )
            rows = self._rows(private, records, question, about)
            try:
                report = partial(role.tally.slots, total=private.count)
                return fill(rows, records, question, asker, chunk=self._chunk, pay=role.pay, report=report)
            finally:
                rows.close()

    def _rows(self, private: PrivateSet, records: Records, question: Question, about: Mapping[str, Any]) -> Rows:
        if self._role.config.cheap:
            return MemoryRows(slots=private.count, row_bytes=question.row_bytes)
        form = {"size": private.size, "channels": private.channels, "text_bytes": private.text_bytes}
        public = {
            "set": private.name,
            "partition": private.partition,
            "declaration": private.declaration,
            "classes": private.classes,
            "form": form,
            "role": self._role.name,
            "identity": self._role.identity,
            "settings": self._role.config.settings(),
            "ask": about,
        }
        path = self._private_dir / f"{rows_name(self._key, about=public)}.rows"
        bound = binding(self._key, records=records, about=public)
        return PrivateRows(path, slots=private.count, row_bytes=question.row_bytes, binding=bound)

    def _probe(self, question: Question) -> None:
        """A remote role that fails on a blank fails here, in public and before any record: whatever the records are."""
        if self._role.advance is not None:
            self._role.now.send([question.request(question.blank)])

    def _width(self, blank: Image | str) -> int:
        """How many features a record has, from a public blank."""
        reply = self._role.now.send([EmbedRequest(content=blank)])[0]
        if isinstance(reply, Refusal):
            raise AdapterError(
                f"{self._role.name!r} refuses to embed a blank, so its width is unknown; use another adapter"
            )
        return len(reply)


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


def _opened_for_replay(role: str, config: AdapterConfig, location: Location) -> Adapter[Any, Any]:
    """A local adapter may still see what no shared file holds: private records, and what is cheap to compute."""
    adapter = None if location is Location.REMOTE else config.open()
    if adapter is None or isinstance(adapter, AsyncAdapter):
        raise OperationalError(f'replay: {role!r} would have to be asked; run with performance.cache_mode = "live"')
    return adapter


@dataclass(frozen=True, kw_only=True)
class _Role:
    """One role, opened: its adapter without a cache, and the public face with one."""

    name: str
    config: AdapterConfig
    adapter: Retrying | RetryingAsync
    public: Adapter[Any, Any]
    now: Adapter[Any, Any]
    """The same without a wait for batches: for the public requests that go before private ones."""
    identity: ModelIdentity
    location: Location
    tally: _Tally
    advance: Advance | None = None
    """Who pays for private records, where they may cost money."""
    model: object | None = None
    """The adapter itself, without wrappers; None where nothing but kept replies is read."""

    def pay(self, largest: Any, slots: int) -> None:
        if self.advance is not None:
            self.advance.pay(largest, slots)


class _Tally:
    """Counts of one role, and its line of progress."""

    def __init__(self, role: str, progress: Progress | None) -> None:
        self._role = role
        self._progress = progress
        self._lock = threading.Lock()
        self._asked = self._sent = self._refused = 0

    def heard(self, replies: Sequence[Any], /, *, fresh: bool, done: int, total: int) -> None:
        with self._lock:
            self._asked += len(replies)
            self._sent += len(replies) if fresh else 0
            self._refused += sum(isinstance(reply, Refusal) for reply in replies)
        self._show(done, total)

    def slots(self, fresh: int, among: int, done: int, *, total: int) -> None:
        """Slots of a private set: never what came of them."""
        with self._lock:
            self._asked += among
            self._sent += fresh
        self._show(done, total)

    def counts(self) -> Counts:
        with self._lock:
            return Counts(
                asked=self._asked, from_cache=self._asked - self._sent, sent=self._sent, refused=self._refused
            )

    def _show(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(self._role, done, total)


def _content(content: np.ndarray[Any, Any] | str) -> Image | str:
    return content if isinstance(content, str) else Image(content)


def _raw(content: Image | str) -> np.ndarray[Any, Any] | str:
    return content if isinstance(content, str) else content.pixels


def _vector_row(reply: Any, *, width: int) -> npt.NDArray[np.uint8] | None:
    """Float32 bytes of a finite vector of the public width; anything else is no answer."""
    if not isinstance(reply, np.ndarray):
        return None
    vector = cast("np.ndarray[Any, np.dtype[Any]]", reply)
    if vector.shape != (width,) or vector.dtype != np.float32 or not bool(np.isfinite(vector).all()):
        return None
    return np.ascontiguousarray(vector, dtype="<f4").view(np.uint8)


def _caption_row(reply: Any) -> npt.NDArray[np.uint8] | None:
    if not isinstance(reply, str):
        return None
    text = reply.encode("utf-8", "replace")[: CAPTION_BYTES - 4].decode("utf-8", "ignore").encode()
    return np.frombuffer((len(text).to_bytes(4, "little") + text).ljust(CAPTION_BYTES, b"\0"), dtype=np.uint8)


def _caption(row: npt.NDArray[np.uint8]) -> str:
    data = row.tobytes()
    return data[4 : 4 + int.from_bytes(data[:4], "little")].decode()


def _image_row(reply: Any, *, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8] | None:
    if not isinstance(reply, Image) or reply.pixels.shape != shape:
        return None
    return np.ascontiguousarray(reply.pixels).reshape(-1)


def _anything(_request: Any, _reply: Any) -> str:
    """A private reply of a wrong form is a ghost, not an error."""
    return ""


def _derived(
    private: PrivateSet,
    records: Private[Records],
    *,
    size: tuple[int, int] | None,
    channels: int,
    text_bytes: int = 0,
) -> PrivateSet:
    return PrivateSet(
        name=private.name,
        partition=private.partition,
        records=records,
        count=private.count,
        classes=private.classes,
        size=size,
        channels=channels,
        text_bytes=text_bytes,
        declaration=private.declaration,
    )


def _config(configs: Mapping[str, AdapterConfig], role: str) -> AdapterConfig:
    if role not in configs:
        raise RoleError(f"this job needs an adapter for the role {role!r}; [adapters] names {_listed(configs)}.")
    return configs[role]


def _check_names(trust: Collection[str], configs: Mapping[str, AdapterConfig]) -> None:
    for role in trust:
        if role not in configs:
            raise RoleError(f"`trust` names {role!r}, which is no role. The roles: {_listed(configs)}.")


def _check_answers(role: str, config: AdapterConfig, requests: Sequence[type]) -> None:
    lacking = [request.__name__ for request in requests if not issubclass(request, config.answers)]
    if lacking:
        answers = ", ".join(kind.__name__ for kind in config.answers) or "nothing"
        raise RoleError(
            f"{role!r} is a {config.kind!r} adapter and does not answer {' or '.join(lacking)}, which this job asks of it. "
            f"It answers {answers}. Choose another kind for {role!r}."
        )


def _check_trust(role: str, config: AdapterConfig, location: Location, trust: Collection[str]) -> None:
    if location is Location.LOCAL or role in trust:
        return
    what = "is a remote adapter" if registry.is_ours(config) else "comes from outside privolve, so counts as remote"
    raise TrustError(f"{role!r} {what} and may not see private data. Use a local one, or add {role!r} to `trust`.")


def _listed(configs: Mapping[str, AdapterConfig]) -> str:
    return ", ".join(sorted(configs)) or "none"
