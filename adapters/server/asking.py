"""How the server asks: many clients, one gateway whose adapters answer in threads, and which draw a client gets.

A local model is asked by one thread, with all that waits as one batch: it need not be safe to share, and its batches
fill up by themselves under load. A remote role is asked by as many threads as there are requests, up to a limit; the
gateway's own limits hold behind it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from ...cache.keys import request_key
from ..contract import Adapter, AdapterError, Location

LARGEST_BATCH = 64
_SEEDED = 1 << 62


class Draws:
    """Which sample of an equal question is meant: `seed` says it, else it is the next that the run did not have yet.

    Counted from 0 for each run's name, so that a program that runs again under a server that was started again finds
    its answers in the cache, and equal questions of one run never get one answer.
    """

    def __init__(self) -> None:
        self._asked: Counter[bytes] = Counter()

    def of(self, role: str, request: Any, *, count: int, run: str = "", seed: int | None = None) -> list[int]:
        if seed is not None:
            return [_SEEDED + _hash(f"{seed}/{index}", bits=61) for index in range(count)]
        start = _hash(run, bits=29) + 1 << 32 if run else 0
        place = blake2b(f"{run}/{request_key(role, request)}".encode(), digest_size=16).digest()
        first = self._asked[place]
        self._asked[place] += count
        return [start + first + index for index in range(count)]


@dataclass
class _Waiting:
    requests: Sequence[Any]
    answered: asyncio.Future[Sequence[Any]]


class Asking:
    """One role, asked from an event loop; `at_once` bounds the threads of a remote one."""

    def __init__(self, adapter: Adapter[Any, Any], *, at_once: int) -> None:
        self._adapter = adapter
        self._alone = adapter.location is Location.LOCAL
        self._pool = ThreadPoolExecutor(1 if self._alone else at_once, thread_name_prefix="privolve-serve")
        self._waiting: list[_Waiting] = []
        self._worker: asyncio.Task[None] | None = None

    async def ask(self, requests: Sequence[Any]) -> Sequence[Any]:
        """The replies, in order. A client that goes away cancels its wait, not what is already asked."""
        if not self._alone:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._adapter.send, requests)
        waiting = _Waiting(requests, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await waiting.answered

    def close(self) -> None:
        """Wait for what is already asked: it is paid for."""
        self._pool.shutdown(wait=True)

    async def _work(self) -> None:
        while self._waiting:
            batch = [self._waiting.pop(0)]
            while self._waiting and sum(len(each.requests) for each in batch) < LARGEST_BATCH:
                batch.append(self._waiting.pop(0))
            try:
                await self._answer(batch)
            except AdapterError as error:
                # One bad request must not fail those that happened to wait beside it.
                for each in batch if len(batch) > 1 else ():
                    try:
                        await self._answer([each])
                    except Exception as own:  # noqa: BLE001  handed to whoever asked
                        _fail([each], own)
                _fail(batch, error)
            except Exception as error:  # noqa: BLE001  handed to whoever asked
                _fail(batch, error)

    async def _answer(self, batch: Sequence[_Waiting]) -> None:
        requests = [request for each in batch for request in each.requests]
        replies = await asyncio.get_running_loop().run_in_executor(self._pool, self._adapter.send, requests)
        start = 0
        for each in batch:
            if not each.answered.done():
                each.answered.set_result(replies[start : start + len(each.requests)])
            start += len(each.requests)


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    for each in batch:
        if not each.answered.done():
            each.answered.set_exception(error)


def _hash(text: str, *, bits: int) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()) >> (64 - bits)
