"""Limited: as many requests at once, and as many requests, tokens and images a minute, as the account allows.

Buckets start empty and refill continuously: providers count bursts at the start as abuse. What a request may need is
taken before it is sent; what it did not use comes back. A request larger than the bucket goes alone, when it is full.
The number at once halves when the provider is overloaded and grows by one for each round of successes (AIMD).
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ..contract import Cause, Stopped, Transient, Usage
from .breaker import Breaker
from .clock import Clock

MINUTE_S = 60.0
BURST_S = 6.0
"""A bucket holds this much of its rate: more would let a pause end in a burst."""
LEARNING_RATE = 0.1
LEAST_SHARE = 0.02
"""Of an estimate: a few calls that used next to nothing must not open the bucket."""
WINDOW_S = 5.0
"""The number at once halves at most once in this time: failures of one moment are one sign."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an account may ask for in a minute; None where nothing is known."""

    requests: float | None = None
    tokens: float | None = None
    images: float | None = None


class Bucket:
    """`rate` a minute, continuously. None: without limit."""

    def __init__(self, rate: float | None, *, clock: Clock) -> None:
        self._clock = clock
        self._rate = rate
        self._level = 0.0
        self._at = clock.now()
        self._turn = asyncio.Lock()

    @property
    def rate(self) -> float | None:
        return self._rate

    async def take(self, amount: float) -> None:
        """Wait for `amount`, in turn. More than the bucket holds is taken from a full one, and leaves a debt."""
        async with self._turn:
            while self._rate is not None:
                self._refill()
                missing = min(amount, self._size()) - self._level
                # Not for the last bit: a wait shorter than the clock's grain would never end.
                if missing <= 1e-9 * self._size():
                    self._level -= amount
                    return
                await self._clock.sleep(missing / self._rate * MINUTE_S)

    def give_back(self, amount: float) -> None:
        """What was taken and not used; less than zero where more was used."""
        if self._rate is not None:
            self._refill()
            self._level = min(self._size(), self._level + amount)

    def set_rate(self, rate: float) -> None:
        if rate > 0 and rate != self._rate:
            self._refill()
            self._rate = rate
            self._level = min(self._level, self._size())

    def _size(self) -> float:
        return max(1.0, (self._rate or 0.0) * BURST_S / MINUTE_S)

    def _refill(self) -> None:
        now = self._clock.now()
        if self._rate is not None:
            self._level = min(self._size(), self._level + (now - self._at) * self._rate / MINUTE_S)
        self._at = now


class Correction:
    """How much of an estimate, which is a bound, is used: an exponentially weighted mean of used / estimated.

    For the pace alone: what the provider counts is what is used. Money is reserved by the bound itself.
    """

    def __init__(self) -> None:
        self._share = 1.0

    def of(self, estimate: int) -> float:
        return estimate * self._share

    def learn(self, estimate: int, used: int) -> None:
        if estimate > 0:
            share = min(1.0, max(LEAST_SHARE, used / estimate))
            self._share += LEARNING_RATE * (share - self._share)


class Slots:
    """How many requests may be under way: additive increase, multiplicative decrease, first come first served."""

    def __init__(self, most: int, *, clock: Clock) -> None:
        self._most = most
        self._clock = clock
        self._limit = float(most)
        self._used = 0
        self._successes = 0
        self._cut_at = float("-inf")
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        return max(1, int(self._limit))

    async def take(self) -> None:
        if self._used < self.limit and not self._waiting:
            self._used += 1
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self.give_back()  # It was granted in the same moment.
            else:
                self._waiting.remove(mine)
            raise

    def give_back(self) -> None:
        self._used -= 1
        self._grant()

    def succeeded(self) -> None:
        self._successes += 1
        if self._successes >= self.limit:
            self._successes = 0
            self._limit = min(float(self._most), self._limit + 1)
            self._grant()

    def overloaded(self) -> None:
        now = self._clock.now()
        if now - self._cut_at >= WINDOW_S:
            self._cut_at = now
            self._successes = 0
            self._limit = max(1.0, self._limit / 2)

    def _grant(self) -> None:
        while self._waiting and self._used < self.limit:
            following = self._waiting.popleft()
            if not following.done():
                self._used += 1
                following.set_result(None)


def written_ahead(concurrency: int) -> int:
    """How many requests may be written as sent before their turn comes."""
    return max(1, concurrency // 2)


class Gate:
    """What stands between the roles that share an account and model, and the provider."""

    def __init__(
        self, *, concurrency: int, limits: Limits | None = None, clock: Clock | None = None, outage_s: float = 600.0
    ) -> None:
        self._clock = clock or Clock()
        limits = limits or Limits()
        self._declared = limits
        self.slots = Slots(concurrency, clock=self._clock)
        self.requests = Bucket(limits.requests, clock=self._clock)
        self.tokens = Bucket(limits.tokens, clock=self._clock)
        self.images = Bucket(limits.images, clock=self._clock)
        self.breaker = Breaker(clock=self._clock, outage_s=outage_s)
        self.correction = Correction()
        self._paused_until = float("-inf")
        # Requests that are written down or under way.
        self.written = Slots(concurrency + written_ahead(concurrency), clock=self._clock)

    @asynccontextmanager
    async def entered(
        self, most: Usage, *, breaker: bool = True, begin: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncGenerator[Passage]:
        """Wait for room for a request that takes at most `most`; leaving makes room for the next.

        `begin` writes down that it goes: when the limits let it, and before its turn among those under way comes, so that
        the provider is not kept waiting for our disk. Few are between the two: `written_ahead`.
        """
        passage = Passage(self, most, breaker=breaker)
        try:
            await self.written.take()
            passage.is_written = True
            await self._let(passage, most)
            if begin is not None:
                try:
                    await begin()
                except BaseException:
                    self._give_back(passage, most)
                    raise
            await self.slots.take()
            passage.has_slot = True
            await self._unpaused()
            if breaker:
                passage.is_probe = await self.breaker.passed()
            yield passage
        finally:
            if passage.is_probe and not passage.is_over:
                self.breaker.abandoned()
            passage.left()

    async def _let(self, passage: Passage, most: Usage) -> None:
        await self.requests.take(1)
        passage.tokens = self.correction.of(_tokens(most))
        await self.tokens.take(passage.tokens)
        await self.images.take(most.images)
        await self._unpaused()

    async def _unpaused(self) -> None:
        while self._paused_until > self._clock.now():
            await self._clock.sleep(self._paused_until - self._clock.now())

    def _give_back(self, passage: Passage, most: Usage) -> None:
        self.requests.give_back(1)
        self.tokens.give_back(passage.tokens)
        self.images.give_back(most.images)

    def pause(self, wait_s: float) -> None:
        """Nobody asks for so long: the provider said so to one, and meant all."""
        self._paused_until = max(self._paused_until, self._clock.now() + wait_s)

    def learn(self, limits: Limits) -> None:
        """The provider's own word on limits, where none was declared."""
        for bucket, declared, told in (
            (self.requests, self._declared.requests, limits.requests),
            (self.tokens, self._declared.tokens, limits.tokens),
            (self.images, self._declared.images, limits.images),
        ):
            if declared is None and told is not None:
                # Headers of requests at once lag behind each other, always to the lower side.
                bucket.set_rate(max(told, bucket.rate or 0.0))


class Passage:
    """One request's way through a gate: it says in the end what came of it."""

    def __init__(self, gate: Gate, most: Usage, *, breaker: bool) -> None:
        self._gate = gate
        self._most = most
        self._breaker = breaker
        self.is_probe = False
        self.is_over = False
        self.is_written = self.has_slot = False
        self.tokens = 0.0
        """Taken of the bucket."""

    def left(self) -> None:
        """Its turn is over."""
        if self.has_slot:
            self.has_slot = False
            self._gate.slots.give_back()
        if self.is_written:
            self.is_written = False
            self._gate.written.give_back()

    def succeeded(self, usage: Usage, rate: Mapping[str, str] | None = None) -> None:
        self.is_over = True
        self._gate.slots.succeeded()
        self._gate.written.succeeded()
        if usage.reported:
            self._gate.tokens.give_back(self.tokens - _tokens(usage))
            self._gate.correction.learn(_tokens(self._most), _tokens(usage))
        if rate:
            self._gate.learn(told(rate))
        if self._breaker:
            self._gate.breaker.succeeded()

    def failed(self, failure: Transient) -> None:
        self.is_over = True
        if failure.cause in (Cause.RATE, Cause.TIMEOUT):
            self._gate.slots.overloaded()
            self._gate.written.overloaded()
        if failure.cause is Cause.RATE and failure.wait_s:
            self._gate.pause(failure.wait_s)
        if self._breaker:
            self._gate.breaker.failed(failure, probe=self.is_probe)

    def stopped(self, error: Stopped) -> None:
        self.is_over = True
        if self._breaker:
            self._gate.breaker.stopped(error)


def told(headers: Mapping[str, str]) -> Limits:
    """Limits by the headers `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, where they say something.

    `reset` is the time until all of the limit is there again, so that (limit - remaining) / reset is the true rate: the
    limit itself may be of a day. Zeros and -1 are what servers say that do not know.

    >>> told({"x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "490", "x-ratelimit-reset-requests": "1s"})
    Limits(requests=600.0, tokens=None, images=None)
    """
    named = {name.lower(): value for name, value in headers.items()}
    return Limits(requests=_told(named, "requests"), tokens=_told(named, "tokens"))


def _told(headers: Mapping[str, str], what: str) -> float | None:
    try:
        limit = float(headers[f"x-ratelimit-limit-{what}"])
        remaining = float(headers[f"x-ratelimit-remaining-{what}"])
    except (KeyError, ValueError):
        return None
    reset_s = _seconds(headers.get(f"x-ratelimit-reset-{what}", ""))
    # Of little use the rate is known badly.
    if not 0 <= remaining < limit or reset_s is None or reset_s < 0.1:
        return None
    return (limit - remaining) / reset_s * MINUTE_S


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(duration: str) -> float | None:
    """`6m0s`, `12ms`, `1.5s`, or plain seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", duration)
    if parts and "".join(number + unit for number, unit in parts) == duration:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    return float(duration) if re.fullmatch(r"\d+(?:\.\d+)?", duration) else None


def _tokens(usage: Usage) -> int:
    return usage.input_tokens + usage.output_tokens
