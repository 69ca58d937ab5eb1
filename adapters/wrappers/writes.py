"""Writes: how the event loop waits for what the cache's thread makes durable.

One transaction keeps the writes of many; the loop is woken once for all of them, not once for each.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")


async def done(future: Future[T]) -> T:
    """Wait for a write. A caller that is cancelled stops waiting; the write is done all the same."""
    loop = asyncio.get_running_loop()
    landings = _landings.get(loop)
    if landings is None:
        landings = _landings.setdefault(loop, _Landings(loop))
    waiter: asyncio.Future[None] = loop.create_future()
    future.add_done_callback(lambda _: landings.landed(waiter))
    await waiter
    return future.result()


class _Landings:
    """The waiters of one loop whose writes are done."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._call_soon = loop.call_soon_threadsafe
        self._ready: deque[asyncio.Future[None]] = deque()
        self._is_called = False

    def landed(self, waiter: asyncio.Future[None]) -> None:
        """From the cache's thread, or from the loop itself where the write was done at once."""
        self._ready.append(waiter)
        if not self._is_called:
            self._is_called = True
            # A loop that is closed has nobody who waits.
            with suppress(RuntimeError):
                self._call_soon(self._wake)

    def _wake(self) -> None:
        # Before the look: whoever lands after it calls again.
        self._is_called = False
        while self._ready:
            waiter = self._ready.popleft()
            if not waiter.done():
                waiter.set_result(None)


_landings: WeakKeyDictionary[Any, _Landings] = WeakKeyDictionary()
