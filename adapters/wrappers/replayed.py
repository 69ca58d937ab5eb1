"""Replayed: no model is asked. What is not kept is an error that says what differs from what is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...cache.keys import Address
from ...cache.nearest import difference
from ...cache.store import Store
from ..contract import Adapter, AdapterError, Location, ModelIdentity
from .single_flight import Asked
from .streaming import Finished


class ReplayMiss(AdapterError):
    """A replay needs an answer that is not kept."""


class Missing:
    """The stream behind a store in replay: it has nothing to add."""

    def __init__(self, store: Store, *, role: str) -> None:
        self._store = store
        self._role = role

    def stream(self, requests: Sequence[Any], /) -> Iterator[Finished]:
        if not requests:
            return
        asked = requests[0]
        assert isinstance(asked, Asked)
        more = f" (and {len(requests) - 1:,} more)" if len(requests) > 1 else ""
        raise ReplayMiss(
            f"replay: no answer of {self._role!r} is kept for a request{more}: {self._why(asked.address)}; "
            'run with performance.cache_mode = "live" to ask for it'
        )
        yield  # A generator, as the other streams are.

    def _why(self, address: Address) -> str:
        places = self._store.places(address.key)
        if any(namespace == address.namespace for namespace, _ in places):
            return f"the question is kept, but not draw {address.draw}"
        if places:
            kept = sorted({namespace for namespace, _ in places})
            return f"the question is kept for {', '.join(kept[:3])}, and this is {address.namespace!r}: name it with --reuse"
        return difference(address.canonical, self._store.questions()) or "the cache is empty"


class Unopened:
    """An adapter that is opened when it is first asked, if ever."""

    def __init__(self, open_: Callable[[], Adapter[Any, Any]], *, identity: ModelIdentity, location: Location) -> None:
        self._open = open_
        self._adapter: Adapter[Any, Any] | None = None
        self._identity = identity
        self._location = location

    @property
    def location(self) -> Location:
        return self._location

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    def send(self, requests: Sequence[Any], /) -> Sequence[Any]:
        if self._adapter is None:
            self._adapter = self._open()
        return self._adapter.send(requests)
