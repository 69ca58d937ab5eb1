"""Batched: a role whose public requests wait for the provider's batch, at the batch's price.

    reserve -> keep the intent -> upload -> create -> keep the id -> look now and then -> settle line by line

Each arrow may be where the process dies. Before the batch is created nothing was billed; a batch whose id was not kept
is found by the token that it carries; answers that were not settled are fetched again, and settled once. What expired,
failed or was cancelled before its turn is asked again, in the next batch.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from ...cache import batches, money
from ...cache.batches import Place
from ...cache.keys import canonical_json
from ...cache.store import Store
from ...privacy.failpoint import failpoint
from ..contract import Answered, Cause, Stopped, Transient
from .cached import decode
from .clock import Clock
from .metered import FIRST_LOOK_S, LONGEST_WAIT_S, Metered
from .retrying import Patience
from .single_flight import Asked
from .streaming import EventLoop, Finished, Stream, groups
from .writes import done

T = TypeVar("T")

MARK = "privolve"
"""The name of our mark in the provider's record of a batch."""
MOST_LINES, MOST_PICTURES, MOST_BYTES = 20_000, 200, 100 * 2**20
"""Of one batch. Providers take 50,000 lines and 200 MB; the pictures of one come back in one file."""
MOST_TRIES = 4
"""How many batches a request may be in."""


class Progress(StrEnum):
    WAITS = "waits"
    DONE = "done"
    """Over, with whatever was done until then."""
    FAILED = "failed"
    """Not accepted: nothing of it was done."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A request as a line of a batch file. One batch has one endpoint."""

    endpoint: str
    text: bytes
    paints: bool


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the provider says of a batch. `again`: a batch that failed may be accepted later."""

    remote: str
    progress: Progress
    files: tuple[str, ...] = ()
    why: str = ""
    again: bool = False


class BatchFace(Protocol):
    """A provider's batches on the wire; every call may raise Transient or Stopped."""

    def line(self, request: Any, custom_id: str, /) -> Line | None:
        """None for a request that cannot be in a batch."""
        ...

    async def upload(self, content: bytes, /) -> str: ...

    async def create(self, file: str, /, *, endpoint: str, token: str) -> Look: ...

    async def look(self, remote: str, /) -> Look: ...

    async def find(self, token: str, /) -> Look | None: ...

    async def lines(self, look: Look, /) -> list[tuple[str, Any]]: ...

    async def read(self, request: Any, line: Any, /) -> Answered[Any]: ...


def custom_id(place: Place) -> str:
    """A place in the cache as a provider's identifier: 48 hexadecimal digits."""
    return blake2b(canonical_json(place).encode(), digest_size=24).hexdigest()


@dataclass(eq=False)
class _Wanted:
    index: int
    asked: Asked
    tries: int = 0


@dataclass(frozen=True)
class _Begun:
    """A request of a new batch: reserved."""

    wanted: _Wanted
    attempt: int
    line: Line


_active: set[str] = set()
"""Tokens of the batches that this process looks after now."""


class Batched:
    """A role's public stream. `live` answers what cannot be in a batch."""

    def __init__(
        self,
        face: BatchFace,
        *,
        live: Stream,
        metered: Metered,
        store: Store,
        loop: Callable[[], EventLoop],
        clock: Clock,
        patience: Patience,
        poll_s: float,
    ) -> None:
        self._face = face
        self._live = live
        self._metered = metered
        self._batches = batches.Batches(store)
        self._loop = loop
        self._clock = clock
        self._patience = patience
        self._poll_s = poll_s

    def stream(self, requests: Sequence[Asked], /) -> Iterator[Finished]:
        lines = [self._face.line(each.request, custom_id(each.address.place)) for each in requests]
        at_once = [index for index, line in enumerate(lines) if line is None]
        for group in self._live.stream([requests[index] for index in at_once]):
            yield [(at_once[position], reply) for position, reply in group]
        wanted = [_Wanted(index, requests[index]) for index, line in enumerate(lines) if line is not None]
        if not wanted:
            return
        finished: SimpleQueue[tuple[int, Any] | None] = SimpleQueue()
        failures: list[Exception] = []

        async def work() -> None:
            try:
                await self._answered({each.asked.address.place: each for each in wanted}, finished.put)
            except Exception as error:  # noqa: BLE001  raised below, after what finished is yielded
                failures.append(error)

        future: Future[None] = self._loop().start(work())
        future.add_done_callback(lambda _: finished.put(None))
        try:
            yield from groups(finished)
            future.result()
        finally:
            future.cancel()
        if failures:
            raise failures[0]

    async def _answered(self, left: dict[Place, _Wanted], finish: Callable[[tuple[int, Any]], None]) -> None:
        """Batch after batch, until nothing is left."""

        def settled(place: Place, reply: Any) -> None:
            wanted = left.pop(place, None)
            if wanted is not None:
                finish((wanted.index, reply))

        until = self._clock.now() + LONGEST_WAIT_S
        while left:
            begun, resumed, spent = await self._reserved(left, settled)
            if not begun and not resumed:
                if spent is not None:
                    raise spent
                if left and self._clock.now() >= until:
                    raise Transient(
                        f"{self._metered.role!r}: another process has held a question for too long", tries=1
                    )
                if left:
                    await self._clock.sleep(FIRST_LOOK_S * 10)
                continue
            work = [self._resume(batch, left, settled) for batch in sorted(resumed)]
            work += [self._begin(part, left, settled) for part in _parts(begun)]
            ended = await asyncio.gather(*work, return_exceptions=True)
            for error in ended:
                if isinstance(error, BaseException):
                    raise error
            until = self._clock.now() + LONGEST_WAIT_S

    async def _reserved(
        self, left: dict[Place, _Wanted], settled: Callable[[Place, Any], None]
    ) -> tuple[list[_Begun], set[int], Stopped | None]:
        """What can be in a new batch, which batches have the rest, and why no more can be paid, if so."""
        begun: list[_Begun] = []
        resumed: set[int] = set()
        spent: Stopped | None = None
        asked = [(each, self._metered.reserve(each.asked)) for each in left.values()]
        try:
            for wanted, future in asked:
                outcome = await done(future)
                if isinstance(outcome, money.Reserved):
                    line = self._face.line(wanted.asked.request, custom_id(wanted.asked.address.place))
                    assert line is not None
                    begun.append(_Begun(wanted, outcome.attempt, line))
                elif isinstance(outcome, money.Answered):
                    settled(wanted.asked.address.place, decode(outcome.saved))
                elif isinstance(outcome, money.InBatch):
                    resumed.add(outcome.batch)
                elif not isinstance(outcome, money.Busy | money.Later):
                    spent = spent or self._metered.stopped_by(wanted.asked, outcome)
        except BaseException:
            for _, future in asked:
                future.add_done_callback(self._metered.forgotten)
            raise
        return begun, resumed, spent

    # One batch.

    async def _begin(
        self, part: Sequence[_Begun], left: dict[Place, _Wanted], settled: Callable[[Place, Any], None]
    ) -> None:
        token, endpoint = secrets.token_hex(16), part[0].line.endpoint
        attempts = {each.wanted.asked.address.place: each.attempt for each in part}
        _active.add(token)
        try:
            opened = self._batches.open(
                token=token,
                endpoint=endpoint,
                attempts=[*attempts.values()],
                now_ms=self._metered.now_ms(),
            )
            batch = (await done(opened))[0]
            failpoint("batch-opened")
            try:
                file = await self._patiently(lambda: self._face.upload(b"".join(each.line.text for each in part)))
                failpoint("batch-uploaded")
                look = await self._created(file, endpoint=endpoint, token=token)
            except Stopped:
                await self._give_up(batch, attempts)
                raise
            failpoint("batch-created")
            await done(self._batches.created(batch, look.remote))
            failpoint("batch-id-kept")
            await self._fetch(batch, look.remote, attempts, left, settled)
        finally:
            _active.discard(token)

    async def _created(self, file: str, *, endpoint: str, token: str) -> Look:
        """Create the batch once: a call that failed may have made it all the same."""

        async def create() -> Look:
            try:
                return await self._face.create(file, endpoint=endpoint, token=token)
            except Transient as failure:
                found = None if failure.cause is Cause.RATE else await self._patiently(lambda: self._face.find(token))
                if found is None:
                    raise
                return found

        return await self._patiently(create)

    async def _resume(self, batch: int, left: dict[Place, _Wanted], settled: Callable[[Place, Any], None]) -> None:
        """Go on with a batch of a process that is gone, or of an earlier try of this one."""
        kept = (await done(self._batches.take(batch)))[0]
        if kept is None or kept.token in _active:
            await self._clock.sleep(self._poll_s)
            return
        _active.add(kept.token)
        try:
            remote = kept.remote
            if not remote:
                found = await self._patiently(lambda: self._face.find(kept.token))
                if found is None:
                    await self._give_up(batch, kept.attempts)
                    return
                remote = found.remote
                await done(self._batches.created(batch, remote))
            await self._fetch(batch, remote, kept.attempts, left, settled)
        finally:
            _active.discard(kept.token)

    async def _fetch(
        self,
        batch: int,
        remote: str,
        attempts: dict[Place, int],
        left: dict[Place, _Wanted],
        settled: Callable[[Place, Any], None],
    ) -> None:
        """Wait until the batch is over, and settle what it brought."""
        while True:
            look = await self._patiently(lambda: self._face.look(remote))
            if look.progress is not Progress.WAITS:
                break
            await self._clock.sleep(self._poll_s)
        if look.progress is Progress.FAILED:
            await self._give_up(batch, attempts)
            if not look.again:
                raise Stopped(look.why)
            await self._clock.sleep(self._poll_s)
            return
        lines: dict[str, Any] = {}
        for name, line in await self._patiently(lambda: self._face.lines(look)):
            lines.setdefault(name, line)
        failpoint("batch-fetched")
        # A place that nobody wants now keeps its attempt: whoever asks for it again fetches its line.
        work = [
            self._settle(left[place], attempt, lines.get(custom_id(place)), settled)
            for place, attempt in attempts.items()
            if place in left
        ]
        ended = await asyncio.gather(*work, return_exceptions=True)
        failpoint("batch-settled")
        await done(self._batches.close(batch))
        for error in ended:
            if isinstance(error, BaseException):
                raise error

    async def _settle(self, wanted: _Wanted, attempt: int, line: Any, settled: Callable[[Place, Any], None]) -> None:
        place = wanted.asked.address.place
        try:
            if line is None:
                raise Transient(f"{self._metered.role!r}: a batch ended without an answer to a request")
            answered = await self._face.read(wanted.asked.request, line)
        except (Transient, Stopped) as failure:
            await self._metered.failed(attempt, failure)
            wanted.tries += 1
            if isinstance(failure, Stopped) or wanted.tries >= (failure.tries or MOST_TRIES):
                raise
            return
        reply = await self._metered.settled(attempt, wanted.asked, answered)
        failpoint("batch-settling")
        settled(place, reply)

    async def _give_up(self, batch: int, attempts: dict[Place, int]) -> None:
        """The batch was not made, or nothing of it was done."""
        await asyncio.gather(*(self._metered.refund(attempt) for attempt in attempts.values()))
        await done(self._batches.close(batch))

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """A call that is free and may be made again."""
        since, failures = self._clock.now(), 0
        while True:
            try:
                return await call()
            except Transient as failure:
                failures += 1
                wait_s = self._patience.wait(failure, failures=failures)
                late = self._clock.now() + wait_s - since >= self._patience.deadline_s
                if late or (failure.tries is not None and failures >= failure.tries):
                    raise
                await self._clock.sleep(wait_s)


def _parts(begun: Sequence[_Begun]) -> list[list[_Begun]]:
    """By endpoint, and not too large."""
    kinds: dict[str, list[_Begun]] = defaultdict(list)
    for each in begun:
        kinds[each.line.endpoint].append(each)
    parts: list[list[_Begun]] = []
    for kind in kinds.values():
        size = 0
        for each in kind:
            most = MOST_PICTURES if each.line.paints else MOST_LINES
            if each is kind[0] or len(parts[-1]) >= most or size + len(each.line.text) > MOST_BYTES:
                parts.append([])
                size = 0
            parts[-1].append(each)
            size += len(each.line.text)
    return parts
