"""Modes: what of a store a run reads, and what it writes.

live      reads what is kept, keeps what is new
record    the same, and also keeps what is cheaper to compute than to look up, so that the file replays by itself
replay    reads alone: a question that is not kept is an error
refresh   reads only what it has kept itself, and replaces what was kept before
off       neither reads nor keeps; equal questions of one process are still asked once

None changes what a run's result may be, so none is part of a run's identity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from enum import StrEnum
from typing import TypeVar

from .keys import Address
from .store import REFUSAL, Answers, MemoryStore, Saved, Store, Transaction

T = TypeVar("T")
_Place = tuple[str, str, int]


class Mode(StrEnum):
    LIVE = "live"
    RECORD = "record"
    REPLAY = "replay"
    REFRESH = "refresh"
    OFF = "off"


def view(store: Store, mode: Mode, *, retry_refused: bool = False) -> Store:
    """The store as a run in this mode sees it. Closing the view does not close the store.

    `retry_refused`: a kept refusal counts as no answer, once; the new reply takes its place.
    """
    if mode is Mode.REFRESH:
        return _Refreshing(store)
    if mode is Mode.OFF:
        return _Unkept(store)
    if mode is Mode.REPLAY:
        return _ReadOnly(store)
    return _Unrefused(store) if retry_refused else store


class _View:
    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def owner(self) -> str:
        return self._store.owner

    def is_alive(self, owner: str, /) -> bool:
        return self._store.is_alive(owner)

    def get(self, addresses: Sequence[Address], /) -> list[Saved | None]:
        return self._store.get(addresses)

    def put(self, answers: Answers, /, *, replace: bool = False) -> list[Saved]:
        return self._store.put(answers, replace=replace)

    def submit(
        self, work: Callable[[Transaction], T], /, answers: Answers = (), *, replace: bool = False
    ) -> Future[tuple[T, list[Saved]]]:
        return self._store.submit(work, answers, replace=replace)

    def questions(self) -> list[str]:
        return self._store.questions()

    def places(self, key: str, /) -> list[tuple[str, int]]:
        return self._store.places(key)

    def close(self) -> None:
        pass


class _ReadOnly(_View):
    def put(self, answers: Answers, /, *, replace: bool = False) -> list[Saved]:
        return [saved for _, saved in answers]


class _Refreshing(_View):
    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._renewed: set[_Place] = set()

    def get(self, addresses: Sequence[Address], /) -> list[Saved | None]:
        kept = [address for address in addresses if address.place in self._renewed]
        found = dict(zip((address.place for address in kept), self._store.get(kept), strict=True)) if kept else {}
        return [found.get(address.place) for address in addresses]

    def put(self, answers: Answers, /, *, replace: bool = False) -> list[Saved]:
        new = [(address, saved) for address, saved in answers if address.place not in self._renewed]
        if new:
            self._store.put(new, replace=True)
        self._renewed.update(address.place for address, _ in new)
        return self._store.put(answers)

    def submit(
        self, work: Callable[[Transaction], T], /, answers: Answers = (), *, replace: bool = False
    ) -> Future[tuple[T, list[Saved]]]:
        future = self._store.submit(work, answers, replace=True)
        places = [address.place for address, _ in answers]
        future.add_done_callback(lambda done: None if done.exception() else self._renewed.update(places))
        return future


class _Unrefused(_View):
    """All but the refusals of earlier processes."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._asked: set[_Place] = set()

    def get(self, addresses: Sequence[Address], /) -> list[Saved | None]:
        found = zip(addresses, self._store.get(addresses), strict=True)
        return [
            None if saved is not None and saved.kind == REFUSAL and address.place not in self._asked else saved
            for address, saved in found
        ]

    def put(self, answers: Answers, /, *, replace: bool = False) -> list[Saved]:
        self._asked.update(address.place for address, _ in answers)
        return self._store.put(answers, replace=True)

    def submit(
        self, work: Callable[[Transaction], T], /, answers: Answers = (), *, replace: bool = False
    ) -> Future[tuple[T, list[Saved]]]:
        future = self._store.submit(work, answers, replace=True)
        places = [address.place for address, _ in answers]
        future.add_done_callback(lambda done: None if done.exception() else self._asked.update(places))
        return future


class _Unkept(_View):
    """Attempts and budgets in the store, answers in memory."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._memory = MemoryStore()

    def get(self, addresses: Sequence[Address], /) -> list[Saved | None]:
        return self._memory.get(addresses)

    def put(self, answers: Answers, /, *, replace: bool = False) -> list[Saved]:
        return self._memory.put(answers, replace=replace)

    def submit(
        self, work: Callable[[Transaction], T], /, answers: Answers = (), *, replace: bool = False
    ) -> Future[tuple[T, list[Saved]]]:
        outer: Future[tuple[T, list[Saved]]] = Future()

        def done(inner: Future[tuple[T, list[Saved]]]) -> None:
            error = inner.exception()
            if error is not None:
                outer.set_exception(error)
            else:
                outer.set_result((inner.result()[0], self._memory.put(answers)))

        self._store.submit(work).add_done_callback(done)
        return outer
