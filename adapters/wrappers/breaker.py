"""Breaker: a provider that is down is asked by one request at a time; an account that is closed, by none.

Failures of the server or of the connection, `THRESHOLD` in a row, open it: everybody waits, then one request probes.
What only a person can mend (a key, a bill, a model that is gone) opens it until the program is started anew. Private
roles go without: whether a request for a record is sent must not depend on what came of another's.
"""

from __future__ import annotations

import asyncio

from ..contract import Cause, Stopped, Transient
from .clock import Clock

THRESHOLD = 5
FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 60.0


class Breaker:
    """`outage_s`: for how long a provider may be down before requests fail instead of waiting."""

    def __init__(self, *, clock: Clock, outage_s: float = 600.0) -> None:
        self._clock = clock
        self._outage_s = outage_s
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._down_since: float | None = None
        self._until = 0.0
        self._probing = False
        self._last: Transient | None = None
        self._stopped: Stopped | None = None
        self._changed = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return self._down_since is not None or self._stopped is not None

    async def passed(self) -> bool:
        """Return when a request may be sent, and whether it is the probe: then it must end in one of the calls below.

        Raises what stopped the account, or what has failed for too long.
        """
        while True:
            if self._stopped is not None:
                raise Stopped(str(self._stopped))
            if self._down_since is None:
                return False
            now = self._clock.now()
            if self._probing:
                self._changed.clear()
                await self._changed.wait()
            elif now - self._down_since >= self._outage_s and self._last is not None:
                raise Transient(str(self._last), cause=self._last.cause, tries=1)
            elif now < self._until:
                await self._clock.sleep(self._until - now)
            else:
                self._probing = True
                return True

    def succeeded(self) -> None:
        """The provider answered, be it with a refusal or with a limit: it is there."""
        self._failures, self._down_since, self._pause_s = 0, None, FIRST_PAUSE_S
        self._probing = False
        self._changed.set()

    def failed(self, failure: Transient, *, probe: bool) -> None:
        if failure.cause in (Cause.RATE, Cause.MALFORMED):
            self.succeeded()
            return
        # A server that never answered is no outage but a wrong address: its requests give up by themselves, and soon.
        if failure.cause in (Cause.SERVER, Cause.CONNECTION) and failure.tries is None:
            self._failures += 1
            self._last = failure
        # Requests that were under way when it opened say nothing new: only the probe lengthens the pause.
        if probe or (self._failures >= THRESHOLD and self._down_since is None):
            now = self._clock.now()
            self._down_since = now if self._down_since is None else self._down_since
            self._until = now + self._pause_s
            self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)
        if probe:
            self.abandoned()

    def stopped(self, error: Stopped) -> None:
        self._stopped = error
        self.abandoned()

    def abandoned(self) -> None:
        """The probe ended; the next may go when the pause is over."""
        self._probing = False
        self._changed.set()
