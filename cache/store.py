"""Store: where replies lie, by address. One put is one durable transaction.

StoreError
├── StoreTooNew      written by a newer privolve
├── StoreBusy        another process holds it for longer than we wait
├── StoreFull        no space left; what was put before is safe
└── StoreDamaged     not a store, or a reply that no longer matches its checksum
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from .keys import Address

T = TypeVar("T")
Answers = Sequence[tuple[Address, "Saved"]]


REFUSAL = "refusal"
"""The kind of a saved reply that is a refusal."""


class StoreError(Exception):
    """The cache cannot be used; the message is one line that says where, what and the way out."""


class StoreTooNew(StoreError):
    """The file was written by a newer version."""


class StoreBusy(StoreError):
    """Another process kept the file locked."""


class StoreFull(StoreError):
    """The disk took no more."""


class StoreDamaged(StoreError):
    """What is stored is not what was put."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Saved:
    """One reply as bytes. `kind` says how to read `payload`; `about` is JSON with what the bytes do not tell."""

    kind: str
    payload: bytes
    about: str = "{}"


class Transaction(Protocol):
    """What the work of a `submit` sees: the tables of `schema.py`, and the replies as of now."""

    @property
    def connection(self) -> sqlite3.Connection: ...

    def find(self, addresses: Sequence[Address], /) -> list[Saved | None]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Together(Generic[T]):
    """Work that a transaction does once for all its callers: `do(transaction, items)` gives a result for each item.

    Statements, not rows, are what a transaction costs beside a busy thread. In one transaction lower `rank` comes first.
    Called by itself it does its own item alone.
    """

    do: Callable[[Transaction, Sequence[Any]], Sequence[T]]
    item: Any
    rank: int = 0

    def __call__(self, open_: Transaction) -> T:
        return self.do(open_, [self.item])[0]


class Store(Protocol):
    """Replies by address, and beside them the attempts that brought them. Safe to call from several threads."""

    def get(self, addresses: Sequence[Address], /) -> list[Saved | None]:
        """The reply at each address, or None; a stored question that differs under an equal key is an error."""
        ...

    def put(self, answers: Answers, /, *, replace: bool = False) -> list[Saved]:
        """Keep them all, durably, or none. What now lies at each address: one that was taken keeps its first reply.

        `replace`: the new reply is kept instead.
        """
        ...

    def submit(
        self, work: Callable[[Transaction], T], /, answers: Answers = (), *, replace: bool = False
    ) -> Future[tuple[T, list[Saved]]]:
        """Do `work`, then put the answers, in one durable transaction that others may share. Returns at once.

        Work that is `Together` is done first, for all callers at once. The future has what `work` gave and what now lies at each address. If `work` raises, nothing of it stays.
        """
        ...

    def questions(self) -> list[str]:
        """The canonical JSON of every question that has an answer."""
        ...

    def places(self, key: str, /) -> list[tuple[str, int]]:
        """The (namespace, draw) of every answer to one question."""
        ...

    def is_alive(self, owner: str, /) -> bool:
        """Whether the process that wrote under this name still has the store open."""
        ...

    @property
    def owner(self) -> str:
        """This process, to others that share the store."""
        ...

    def close(self) -> None: ...


class MemoryStore:
    """A store that ends with the process."""

    owner = "here"

    def __init__(self) -> None:
        self._saved: dict[tuple[str, str, int], tuple[str, Saved]] = {}
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    def get(self, addresses: Sequence[Address], /) -> list[Saved | None]:
        found: list[Saved | None] = []
        for address in addresses:
            canonical, saved = self._saved.get(address.place, ("", None))
            if saved is not None:
                compare(canonical, address)
            found.append(saved)
        return found

    def put(self, answers: Answers, /, *, replace: bool = False) -> list[Saved]:
        if replace:
            self._saved.update({address.place: (address.canonical, saved) for address, saved in answers})
        return [self._saved.setdefault(address.place, (address.canonical, saved))[1] for address, saved in answers]

    def submit(
        self, work: Callable[[Transaction], T], /, answers: Answers = (), *, replace: bool = False
    ) -> Future[tuple[T, list[Saved]]]:
        future: Future[tuple[T, list[Saved]]] = Future()
        with self._lock:
            try:
                done = work(self)
                kept = [] if not answers else self.put(answers, replace=True) if replace else self.put(answers)
                future.set_result((done, kept))
            except Exception as error:  # noqa: BLE001  the caller's own, by its future
                future.set_exception(error)
        return future

    def questions(self) -> list[str]:
        return [canonical for canonical, _ in self._saved.values()]

    def places(self, key: str, /) -> list[tuple[str, int]]:
        return [(namespace, draw) for kept, namespace, draw in self._saved if kept == key]

    def find(self, addresses: Sequence[Address], /) -> list[Saved | None]:
        return self.get(addresses)

    def is_alive(self, owner: str, /) -> bool:
        return owner == self.owner

    @property
    def connection(self) -> sqlite3.Connection:
        if self._connection is None:
            from . import schema

            self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            schema.migrate(self._connection)
        return self._connection

    def close(self) -> None:
        pass


def compare(canonical: str, address: Address) -> None:
    """Refuse a hit whose stored question is not the one asked."""
    if canonical != address.canonical:
        raise StoreDamaged(f"the cache holds another question under the key {address.key}; move it away and run again")
