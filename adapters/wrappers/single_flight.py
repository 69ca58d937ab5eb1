"""Single flight: equal requests that come at the same time are asked once, and all hear the reply.

Within the process by a shared task, here; between processes by the lease of an attempt (`cache/money.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from ...cache.keys import Address
from ..contract import Stopped

Place = tuple[str, str, int]


@dataclass(eq=False)
class Asked:
    """A request with its place in the cache. `is_sent` from the moment that it may cost money."""

    request: Any
    address: Address
    is_sent: bool = False


@dataclass(eq=False)
class _Flight:
    task: asyncio.Task[Any]
    leader: Asked
    waiting: int = 0


class Flights:
    """What is being asked now, by place. For one event loop."""

    def __init__(self) -> None:
        self._flights: dict[Place, _Flight] = {}
        self._closed = False

    async def reply(self, asked: Asked, ask: Callable[[Asked], Coroutine[Any, Any, Any]]) -> Any:
        """`ask(asked)`, or what an equal request that is under way gets.

        A caller that is cancelled stops waiting; the request goes on if it was sent or if others wait for it.
        """
        if self._closed:
            raise Stopped("the gateway is closed; nothing more is asked")
        place = asked.address.place
        flight = self._flights.get(place)
        if flight is None:
            task = asyncio.get_running_loop().create_task(ask(asked))
            flight = self._flights[place] = _Flight(task=task, leader=asked)
            task.add_done_callback(lambda done: self._landed(place, done))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            if flight.waiting == 1 and not flight.leader.is_sent:
                self._forget(place, flight.task)
                flight.task.cancel()
            raise
        finally:
            flight.waiting -= 1

    async def finish(self, *, within_s: float) -> None:
        """What was sent is paid for, so it may end; what was not is given up."""
        self._closed = True
        tasks = [flight.task for flight in self._flights.values()]
        for flight in list(self._flights.values()):
            if not flight.leader.is_sent:
                flight.task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=within_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1.0)

    def _landed(self, place: Place, task: asyncio.Task[Any]) -> None:
        self._forget(place, task)
        if not task.cancelled():
            task.exception()  # Heard here, if nobody waits any more.

    def _forget(self, place: Place, task: asyncio.Task[Any]) -> None:
        if place in self._flights and self._flights[place].task is task:
            del self._flights[place]
