"""Store: where replies lie, by address. One put is one durable transaction.

StoreError
├── StoreTooNew      written by a newer privolve
├── StoreBusy        another process holds it for longer than we wait
├── StoreFull        no space left; what was put before is safe
└── StoreDamaged     not a store, or a reply that no longer matches its checksum
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .keys import Address


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


class Store(Protocol):
    """Replies by address. Safe to call from several threads."""

    def get(self, addresses: Sequence[Address], /) -> list[Saved | None]:
        """The reply at each address, or None; a stored question that differs under an equal key is an error."""
        ...

    def put(self, answers: Sequence[tuple[Address, Saved]], /) -> list[Saved]:
        """Keep them all, durably, or none. What now lies at each address: one that was taken keeps its first reply."""
        ...

    def close(self) -> None: ...


class MemoryStore:
    """A store that ends with the process."""

    def __init__(self) -> None:
        self._saved: dict[tuple[str, str, int], tuple[str, Saved]] = {}

    def get(self, addresses: Sequence[Address], /) -> list[Saved | None]:
        found: list[Saved | None] = []
        for address in addresses:
            canonical, saved = self._saved.get(address.place, ("", None))
            if saved is not None:
                compare(canonical, address)
            found.append(saved)
        return found

    def put(self, answers: Sequence[tuple[Address, Saved]], /) -> list[Saved]:
        return [self._saved.setdefault(address.place, (address.canonical, saved))[1] for address, saved in answers]

    def close(self) -> None:
        pass


def compare(canonical: str, address: Address) -> None:
    """Refuse a hit whose stored question is not the one asked."""
    if canonical != address.canonical:
        raise StoreDamaged(f"the cache holds another question under the key {address.key}; move it away and run again")
