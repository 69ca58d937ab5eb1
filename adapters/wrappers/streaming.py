"""Streaming: what a role's adapter has finished, group by group, so that it is kept before more is asked.

Two faces become one: a batch adapter answers chunk after chunk, an async adapter request beside request on the
gateway's event loop. Either way `stream` yields what finished before it raises what stopped.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

from ..contract import Adapter, AdapterError, AsyncAdapter, Location, ModelIdentity, wrong_with
from .single_flight import Asked

T = TypeVar("T")
Finished = list[tuple[int, Any]]


class Stream(Protocol):
    """Answers as they finish: groups of (index of the request, reply), each request once."""

    def stream(self, requests: Sequence[Any], /) -> Iterator[Finished]: ...


class Chunked:
    """A batch adapter, asked in chunks of `size`."""

    def __init__(self, adapter: Adapter[Any, Any], *, role: str, size: int) -> None:
        self._adapter = adapter
        self._role = role
        self._size = size

    def stream(self, requests: Sequence[Any], /) -> Iterator[Finished]:
        for start in range(0, len(requests), self._size):
            chunk = requests[start : start + self._size]
            replies = self._adapter.send(chunk)
            if len(replies) != len(chunk):
                raise AdapterError(f"{self._role!r} gave {len(replies)} replies to {len(chunk)} requests")
            for request, reply in zip(chunk, replies, strict=True):
                wrong = wrong_with(request, reply)
                if wrong:
                    raise AdapterError(f"{self._role!r} gave no usable reply: {wrong}")
            yield list(enumerate(replies, start))


class Heard(Protocol):
    """Is told of replies as they arrive: which, whether they were asked for just now, and how far the batch is."""

    def __call__(self, replies: Sequence[Any], /, *, fresh: bool, done: int, total: int) -> None: ...


class Direct:
    """A stream as an adapter that keeps nothing."""

    def __init__(self, stream: Stream, *, identity: ModelIdentity, location: Location, heard: Heard) -> None:
        self._stream = stream
        self._identity = identity
        self._location = location
        self._heard = heard

    @property
    def location(self) -> Location:
        return self._location

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    def send(self, requests: Sequence[Any], /) -> list[Any]:
        replies: dict[int, Any] = {}
        for group in self._stream.stream(requests):
            replies.update(group)
            self._heard([reply for _, reply in group], fresh=True, done=len(replies), total=len(requests))
        return [replies[index] for index in range(len(requests))]


class Bridged:
    """An async adapter on the gateway's event loop: at most `concurrency` requests are under way or not yet kept.

    A group counts as kept when the next is asked for; `kept_below`: whatever the adapter answers is kept already. After a
    failure no new request starts, and `Asked` ones that were not sent yet are given up; those under way are paid for, so
    they end and are yielded first. Whether a reply has the right form is for others to say: `metered.py` before a public
    one is kept, `trusted.py` for a private one, where it is no error.
    """

    def __init__(
        self,
        adapter: AsyncAdapter[Any, Any],
        *,
        loop: EventLoop,
        concurrency: int,
        kept_below: bool = False,
    ) -> None:
        self._adapter = adapter
        self._loop = loop
        self._concurrency = concurrency
        self._kept_below = kept_below

    def stream(self, requests: Sequence[Any], /) -> Iterator[Finished]:
        finished: SimpleQueue[tuple[int, Any] | None] = SimpleQueue()
        failures: list[Exception] = []
        waiting = iter(enumerate(requests))
        unkept = asyncio.Semaphore(self._concurrency)

        working: dict[asyncio.Task[None], Any] = {}

        async def work() -> None:
            me = asyncio.current_task()
            assert me is not None
            while await unkept.acquire():
                index, request = next(waiting, (-1, None))
                if index < 0 or failures:
                    unkept.release()
                    return
                working[me] = request
                try:
                    reply = await self._adapter.answer(request)
                except Exception as error:  # noqa: BLE001  raised below, after what finished is yielded
                    failures.append(error)
                    unkept.release()
                    give_up()
                    return
                finally:
                    del working[me]
                finished.put((index, reply))
                if self._kept_below:
                    unkept.release()

        def give_up() -> None:
            for task, request in working.items():
                if isinstance(request, Asked) and not request.is_sent:
                    task.cancel()

        async def work_all() -> None:
            workers = [work() for _ in range(min(self._concurrency, len(requests)))]
            for ended in await asyncio.gather(*workers, return_exceptions=True):
                if isinstance(ended, BaseException) and not isinstance(ended, asyncio.CancelledError):
                    raise ended

        if not requests:
            return
        future = self._loop.start(work_all())
        future.add_done_callback(lambda _: finished.put(None))
        try:
            for group in groups(finished):
                yield group
                if not self._kept_below:
                    self._loop.call(partial(_release, unkept, len(group)))
            future.result()
        except KeyboardInterrupt:
            future.cancel()
            yield from groups(finished)
            raise
        finally:
            future.cancel()
        if failures:
            raise failures[0]


class EventLoop:
    """One event loop in a thread of its own, for the life of a gateway; so it works under a running loop too."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="privolve-gateway", daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, function: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(function)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _release(permits: asyncio.Semaphore, count: int) -> None:
    for _ in range(count):
        permits.release()


def groups(finished: SimpleQueue[tuple[int, Any] | None]) -> Iterator[Finished]:
    """Everything that is there each time one waits, up to the end mark."""
    while True:
        item = finished.get()
        group: Finished = []
        try:
            while item is not None:
                group.append(item)
                item = finished.get_nowait()
        except Empty:
            yield group
            continue
        if group:
            yield group
        return
