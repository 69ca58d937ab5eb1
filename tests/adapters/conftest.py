from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from privolve.adapters.contract import AdapterConfig
from privolve.adapters.gateway import Gateway
from privolve.adapters.scripted import Scripted, ScriptedConfig
from privolve.adapters.wrappers.clock import Clock
from privolve.cache.sqlite import SqliteStore
from privolve.data.private_set import PrivateSet, Record
from privolve.privacy.private import Private

KEY = b"the ledger's private key, 32 byt"


class ListedRecords:
    """Records from a list; None is a ghost. An exception in the list is raised when its slot is read."""

    def __init__(self, records: Sequence[Record | Exception | None]) -> None:
        self.records = list(records)
        self.ids = [f"slot-{slot}" for slot in range(len(records))]

    def __len__(self) -> int:
        return len(self.records)

    def read(self, slot: int) -> Record | None:
        record = self.records[slot]
        if isinstance(record, Exception):
            raise record
        return record

    def read_many(self, start: int, stop: int) -> list[Record | None]:
        return [self.read(slot) for slot in range(start, stop)]

    def raw(self, slot: int) -> bytes:
        record = self.records[slot]
        if not isinstance(record, Record):
            return b""
        content = record.content
        return bytes([record.label]) + (content.encode() if isinstance(content, str) else content.tobytes())

    def parts(self) -> Iterator[bytes]:
        for slot in range(len(self)):
            yield self.raw(slot)


def pixels_of(number: int) -> np.ndarray:
    """A 4 x 4 grey image of its own."""
    return np.random.default_rng(number + 1).integers(1, 256, (4, 4, 1)).astype(np.uint8)


def some_records(count: int) -> list[Record | Exception | None]:
    return [Record(pixels_of(slot), slot % 3) for slot in range(count)]


@pytest.fixture
def images() -> Callable[..., PrivateSet]:
    def make(
        records: Sequence[Record | Exception | None] | int,
        *,
        classes: tuple[str, ...] = ("a", "b", "c"),
        declaration: str = "",
    ) -> PrivateSet:
        listed = ListedRecords(some_records(records) if isinstance(records, int) else records)
        return PrivateSet(
            name="pictures",
            partition="train",
            records=Private(listed),
            count=len(listed),
            classes=classes,
            size=(4, 4),
            channels=1,
            text_bytes=0,
            declaration=declaration,
        )

    return make


@pytest.fixture
def texts() -> Callable[..., PrivateSet]:
    def make(records: Sequence[Record | Exception | None], *, text_bytes: int = 100) -> PrivateSet:
        listed = ListedRecords(records)
        return PrivateSet(
            name="notes",
            partition="train",
            records=Private(listed),
            count=len(listed),
            classes=("a",),
            size=None,
            channels=0,
            text_bytes=text_bytes,
            declaration="",
        )

    return make


class SimulatedTime:
    """Time that passes only when everything waits: it jumps to whoever wakes first."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.now, sleep=self.sleep)

    async def sleep(self, wait_s: float) -> None:
        waking = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + max(0.0, wait_s), id(waking), waking))
        await waking

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        async def driven() -> Any:
            task = asyncio.ensure_future(work)
            for _ in range(1_000_000):
                for _ in range(20):  # Everybody who can go on does.
                    await asyncio.sleep(0)
                if task.done():
                    return await task
                assert self._sleepers, "everything waits, and nobody for a moment in time"
                at, _, waking = heapq.heappop(self._sleepers)
                self.now = max(self.now, at)
                if not waking.done():
                    waking.set_result(None)
            raise AssertionError("it never ends")

        return asyncio.run(driven())


@pytest.fixture
def simulated() -> SimulatedTime:
    return SimulatedTime()


@pytest.fixture
def gateway(tmp_path) -> Iterator[Callable[..., Gateway]]:
    """Opens gateways on one cache and one private folder; functions become scripted adapters."""
    store = SqliteStore(tmp_path / "shared" / "cache.sqlite")
    opened: list[Gateway] = []

    def open_gateway(roles: dict[str, object], **options) -> Gateway:
        configs = {
            role: config if isinstance(config, AdapterConfig) else ScriptedConfig(adapter=_adapter(config))
            for role, config in roles.items()
        }
        defaults = {"store": store, "private_dir": tmp_path / "private", "key": KEY, "namespace": "run", "chunk": 4}
        opened.append(Gateway(configs, **{**defaults, **options}))
        return opened[-1]

    yield open_gateway
    for gateway in opened:
        gateway.close()
    store.close()


def _adapter(role: object) -> object:
    return Scripted(role) if callable(role) else role
