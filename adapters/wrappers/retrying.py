"""Retrying: asks again after a `Transient` failure, and after nothing else. The only layer that retries.

The wait is the provider's own word if it gave one, else exponential with full jitter; one deadline bounds it all. Time
in a queue of ours does not count: a request may wait an hour for its turn and then has all its patience left.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..contract import Adapter, AsyncAdapter, Cause, Location, ModelIdentity, Transient

if TYPE_CHECKING:
    from tenacity import RetryCallState


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to go on. The jitter decides when a request is sent, never what it says: it needs no seed."""

    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    deadline_s: float = 600.0
    jitter: Callable[[], float] = random.random

    def wait(self, failure: Transient, *, failures: int) -> float:
        """Seconds until the next try, after `failures` failures."""
        if failure.wait_s is not None:
            return max(0.0, failure.wait_s)
        return self.jitter() * min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(failures - 1, 60))


class Deadline:
    """How much of the patience with one request is left; the clock stands while it waits in a queue of ours."""

    def __init__(self, patience: Patience, clock: Callable[[], float]) -> None:
        self._patience = patience
        self._clock = clock
        self._start = clock()
        self._stood = 0.0
        self.possibly_billed = 0
        """How many failed tries so far may cost money; counted by who pays."""

    @property
    def whole_s(self) -> float:
        return self._patience.deadline_s

    def left_s(self) -> float:
        return self._patience.deadline_s - (self._clock() - self._start - self._stood)

    @contextmanager
    def standing(self) -> Generator[None]:
        since = self._clock()
        try:
            yield
        finally:
            self._stood += self._clock() - since

    def wait(self, state: RetryCallState) -> float:
        return self._patience.wait(_failure(state), failures=state.attempt_number)

    def is_over(self, state: RetryCallState) -> bool:
        """Whether another try is not worth it, or would come too late."""
        tries = _failure(state).tries
        return (tries is not None and state.attempt_number >= tries) or state.upcoming_sleep >= self.left_s()


class Trying(Protocol):
    """One try at a request, within a deadline."""

    async def attempt(self, request: Any, deadline: Deadline, /) -> Any: ...


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
        from tenacity import Retrying as Again
        from tenacity import retry_if_exception_type

        deadline = Deadline(self._patience, self._clock)
        again = Again(
            retry=retry_if_exception_type(Transient),
            wait=deadline.wait,
            stop=deadline.is_over,
            sleep=self._sleep,
            reraise=True,
        )
        return again(self._adapter.send, requests)


class RetryingAsync:
    """The face of one request; the deadline cuts a reply that drips, too."""

    def __init__(
        self,
        adapter: AsyncAdapter[Any, Any],
        patience: Patience | None = None,
        *,
        trying: Trying | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._adapter = adapter
        self._trying = trying or Plain(adapter)
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
        deadline = Deadline(self._patience, self._clock)
        try:
            return await self._trying.attempt(request, deadline)
        except Transient as failure:
            return await self._answer_after(failure, request, deadline)

    async def _answer_after(self, failure: Transient, request: Any, deadline: Deadline) -> Any:
        """Go on after a first failure: only what fails pays for the machinery of retrying."""
        from tenacity import AsyncRetrying, retry_if_exception_type

        first = [failure]

        async def attempt() -> Any:
            if first:
                raise first.pop()
            return await self._trying.attempt(request, deadline)

        again = AsyncRetrying(
            retry=retry_if_exception_type(Transient),
            wait=deadline.wait,
            stop=deadline.is_over,
            sleep=self._sleep,
            reraise=True,
        )
        return await again(attempt)

    async def close(self) -> None:
        await self._adapter.close()


class Plain:
    """An adapter's `answer` as one try."""

    def __init__(self, adapter: AsyncAdapter[Any, Any]) -> None:
        self._adapter = adapter

    async def attempt(self, request: Any, deadline: Deadline, /) -> Any:
        return await within(deadline, self._adapter.answer(request))


async def within(deadline: Deadline, reply: Awaitable[Any]) -> Any:
    """The reply, or `Transient` when time is up: what was sent may have been done and billed."""
    limit = asyncio.timeout(deadline.left_s())
    try:
        async with limit:
            return await reply
    except TimeoutError:
        if not limit.expired():
            raise
        raise Transient(f"no reply within {deadline.whole_s:g} s", cause=Cause.TIMEOUT, possibly_billed=True) from None


def _failure(state: RetryCallState) -> Transient:
    error = state.outcome.exception() if state.outcome is not None else None
    assert isinstance(error, Transient)  # `retry` lets nothing else come here.
    return error
