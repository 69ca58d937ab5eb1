"""Retrying: asks again after a `Transient` failure, and after nothing else. The only layer that retries.

The wait is the provider's own word if it gave one, else exponential with full jitter; one deadline bounds it all.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..contract import Adapter, AsyncAdapter, Location, ModelIdentity, Transient


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to go on. The jitter decides when a request is sent, never what it says: it needs no seed."""

    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    deadline_s: float = 600.0
    jitter: Callable[[], float] = random.random

    def wait(self, failure: Transient, *, failures: int, elapsed_s: float) -> float:
        """Seconds until the next try, after `failures` failures; raises `failure` if that would pass the deadline."""
        if failure.wait_s is not None:
            wait_s = max(0.0, failure.wait_s)
        else:
            wait_s = self.jitter() * min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(failures - 1, 60))
        if elapsed_s + wait_s >= self.deadline_s:
            raise failure
        return wait_s


class Retrying:
    """The batch face: a batch that failed is asked again whole."""

    def __init__(
        self,
        adapter: Adapter[Any, Any],
        patience: Patience | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._adapter = adapter
        self._patience = patience or Patience()
        self._clock = clock
        self._sleep = sleep

    @property
    def location(self) -> Location:
        return self._adapter.location

    @property
    def identity(self) -> ModelIdentity:
        return self._adapter.identity

    def send(self, requests: Sequence[Any], /) -> Sequence[Any]:
        start, failures = self._clock(), 0
        while True:
            try:
                return self._adapter.send(requests)
            except Transient as failure:
                failures += 1
                wait_s = self._patience.wait(failure, failures=failures, elapsed_s=self._clock() - start)
            self._sleep(wait_s)


class RetryingAsync:
    """The face of one request; the deadline cuts a reply that drips, too."""

    def __init__(
        self,
        adapter: AsyncAdapter[Any, Any],
        patience: Patience | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._adapter = adapter
        self._patience = patience or Patience()
        self._clock = clock
        self._sleep = sleep

    @property
    def location(self) -> Location:
        return self._adapter.location

    @property
    def identity(self) -> ModelIdentity:
        return self._adapter.identity

    async def answer(self, request: Any, /) -> Any:
        start, failures = self._clock(), 0
        while True:
            try:
                return await self._once(request, self._patience.deadline_s - (self._clock() - start))
            except Transient as failure:
                failures += 1
                wait_s = self._patience.wait(failure, failures=failures, elapsed_s=self._clock() - start)
            await self._sleep(wait_s)

    async def close(self) -> None:
        await self._adapter.close()

    async def _once(self, request: Any, left_s: float) -> Any:
        limit = asyncio.timeout(left_s)
        try:
            async with limit:
                return await self._adapter.answer(request)
        except TimeoutError:
            if not limit.expired():
                raise
            raise Transient(f"no reply within {self._patience.deadline_s:g} s") from None
