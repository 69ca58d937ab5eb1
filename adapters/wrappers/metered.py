"""Metered: one paid try, from its reservation to its kept answer.

    wait for the limits -> reserve, lease and mark as sent -> wait for a turn -> send -> settle and keep

each of the two writes in one transaction, many requests to a transaction. A reply is durable before it is returned and
before its turn is over, so that a crash loses no more replies than may be under way. What a try cost is what the provider reported; where it reported
nothing, or nobody knows whether it was billed, all that was reserved.

Requests for private records are paid in advance, a chunk of slots at a time, by public figures: `Advance`. Of their tries
nothing is written: no amount, no number of rows and no refusal depends on a record.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ...cache import money
from ...cache.keys import Address
from ...cache.money import Charge, Money, Outcome, dollars
from ...cache.store import Saved
from ..contract import (
    AdapterError,
    Answered,
    AsyncAdapter,
    EmbedRequest,
    ImageRequest,
    ImageVariationRequest,
    MeteredAdapter,
    Stopped,
    Transient,
    Usage,
    wrong_with,
)
from .cached import decode, encode
from .clock import Clock
from .limited import Gate, Passage
from .retrying import Deadline, within
from .single_flight import Asked
from .writes import done

FIRST_LOOK_S = 0.02
LONGEST_LOOK_S = 0.5
LONGEST_WAIT_S = 1800.0
"""For how long another process may hold a question, or the budget, before we give up."""

RECORD_TRIES = 2
BLANK_TRIES = 1
PRIVATE_TRIES = RECORD_TRIES + BLANK_TRIES
"""How many tries that may be billed are paid for each slot of a private set: its record's, and those of a blank beside it."""


class MoneyExceeded(Stopped):
    """The budget cannot pay for the next request. What finished is kept."""


@dataclass(frozen=True, kw_only=True)
class Pricing:
    """What usage costs in millionths of a dollar, None where nobody knows, and by which price list."""

    cost: Callable[[Usage], int | None]
    version: str


FREE = Pricing(cost=lambda _: 0, version="free")
UNKNOWN = Pricing(cost=lambda _: None, version="unknown")


@dataclass(frozen=True, kw_only=True)
class Spending:
    """The rules of a run's money. `max_cost` in millionths of a dollar; None: counted, not capped."""

    max_cost: int | None = None
    allow_unknown_prices: bool = False
    images_again: bool = True
    """Send an image request again whose reply was lost: it may be paid twice, within the budget."""


class _AnsweredBefore(Exception):
    """Another was first; its reply."""

    def __init__(self, saved: Saved) -> None:
        super().__init__()
        self.saved = saved


class _HeldByOthers(Exception):
    """Another process asks the same question, or the budget waits for what others have reserved."""


class Metered:
    """One role's adapter as tries (`retrying.Trying`), for public requests. `fresh`: whatever answer is kept."""

    def __init__(
        self,
        adapter: AsyncAdapter[Any, Any],
        *,
        role: str,
        money: Money,
        gate: Gate,
        pricing: Pricing,
        spending: Spending,
        clock: Clock,
        fresh: bool = False,
    ) -> None:
        self._adapter = accounting(adapter)
        self.role = role
        self._money = money
        self._gate = gate
        self._pricing = pricing
        self._spending = spending
        self._clock = clock
        self._fresh = fresh
        self._width: int | None = None

    async def attempt(self, asked: Any, deadline: Deadline, /) -> Any:
        request, place = (asked.request, asked.address) if isinstance(asked, Asked) else (asked, None)
        most = self._adapter.estimate(request)
        amount = _amount(self.role, self._adapter, most, self._pricing, self._spending)
        until, look_s = self._clock.now() + LONGEST_WAIT_S, FIRST_LOOK_S
        while True:
            try:
                return await self._try(asked, request, place, most, amount, deadline)
            except _AnsweredBefore as found:
                return decode(found.saved)
            except _HeldByOthers:
                if self._clock.now() >= until:
                    raise Transient(
                        f"{self.role!r}: another process has held this question for too long", tries=1
                    ) from None
            with deadline.standing():
                await self._clock.sleep(look_s)
            look_s = min(LONGEST_LOOK_S, 1.5 * look_s)

    async def _try(
        self, asked: Any, request: Any, place: Address | None, most: Usage, amount: int, deadline: Deadline
    ) -> Any:
        attempt: int | None = None
        is_sent = ended = False

        async def begin() -> None:
            nonlocal attempt
            attempt = await self._begin(request, amount, place)

        try:
            async with AsyncExitStack() as inside:
                with deadline.standing():
                    passage = await inside.enter_async_context(self._gate.entered(most, begin=begin))
                assert attempt is not None
                is_sent = True
                if isinstance(asked, Asked):
                    asked.is_sent = True
                answered, failure = await _send(self._adapter, request, deadline, passage)
                ended = True
                if isinstance(answered, Answered):
                    return await self._kept(attempt, request, place, answered, most, amount)
                await self.failed(attempt, failure)
                assert failure is not None
                raise failure
        finally:
            if attempt is not None and not ended:
                # Cancelled, or an error that says nothing of the bill: as far as it came.
                (self._money.lose if is_sent else self._money.refund)(attempt)

    async def _kept(
        self, attempt: int, request: Any, place: Address | None, answered: Answered[Any], most: Usage, amount: int
    ) -> Any:
        """Charge the answer and keep it; one of a wrong form is paid for and not kept."""
        charge = self._charge(answered.usage, amount, most)
        wrong = wrong_with(request, answered.reply) or self._wrong_width(request, answered.reply)
        if wrong or place is None:
            await done(self._money.settle(attempt, charge))
            if wrong:
                raise AdapterError(f"{self.role!r} gave no usable reply: {wrong}")
            return answered.reply
        ours = encode(answered.reply)
        _, kept = await done(self._money.settle(attempt, charge, [(place, ours)], replace=self._fresh))
        return answered.reply if kept[0] is ours else decode(kept[0])

    def _wrong_width(self, request: Any, reply: Any) -> str:
        """A vector is as wide as the role's first."""
        if not isinstance(request, EmbedRequest) or not isinstance(reply, np.ndarray):
            return ""
        width = len(cast("np.ndarray[Any, np.dtype[Any]]", reply))
        if self._width is None:
            self._width = width
        return "" if width == self._width else f"an embedding of {width} numbers, not {self._width}"

    async def failed(self, attempt: int, failure: Transient | Stopped | None) -> None:
        """Charge what a failure may have cost."""
        if isinstance(failure, Transient) and failure.usage is not None:
            await done(self._money.settle(attempt, self._charge(failure.usage, 0)))
        elif isinstance(failure, Transient) and failure.possibly_billed:
            await done(self._money.lose(attempt))
        else:
            await done(self._money.refund(attempt))

    def reserve(self, asked: Asked, *, sent: bool = False) -> Future[Outcome]:
        """Reserve the place and the most that the request can cost."""
        most = self._adapter.estimate(asked.request)
        amount = _amount(self.role, self._adapter, most, self._pricing, self._spending)
        return self._reserve(asked.request, amount, asked.address, sent=sent)

    async def settled(self, attempt: int, asked: Asked, answered: Answered[Any]) -> Any:
        """Keep an answer that came otherwise than by a try, and charge it."""
        most = self._adapter.estimate(asked.request)
        amount = _amount(self.role, self._adapter, most, self._pricing, self._spending)
        return await self._kept(attempt, asked.request, asked.address, answered, most, amount)

    async def refund(self, attempt: int) -> None:
        await done(self._money.refund(attempt))

    def now_ms(self) -> int:
        return self._money.now_ms()

    def _reserve(self, request: Any, amount: int, place: Address | None, *, sent: bool) -> Future[Outcome]:
        is_image = isinstance(request, ImageRequest | ImageVariationRequest)
        again = self._spending.images_again or not is_image
        return self._money.reserve(self.role, amount, place=place, again=again, fresh=self._fresh, sent=sent)

    async def _begin(self, request: Any, amount: int, place: Address | None) -> int:
        """Reserve the money and the place, as sent: durable before it is. Raises where there is nothing to send now."""
        future = self._reserve(request, amount, place, sent=True)
        try:
            outcome = await done(future)
        except asyncio.CancelledError:
            future.add_done_callback(self.forgotten)
            raise
        if isinstance(outcome, money.Reserved):
            return outcome.attempt
        if isinstance(outcome, money.Answered):
            raise _AnsweredBefore(outcome.saved)
        if isinstance(outcome, money.Busy | money.Later):
            raise _HeldByOthers
        raise self._stop(amount, outcome)

    def stopped_by(self, asked: Asked, outcome: Outcome) -> Stopped:
        """Why a request is not sent."""
        most = self._adapter.estimate(asked.request)
        return self._stop(_amount(self.role, self._adapter, most, self._pricing, self._spending), outcome)

    def _stop(self, amount: int, outcome: Outcome) -> Stopped:
        if isinstance(outcome, money.UsedUp):
            return MoneyExceeded(_used_up(self.role, amount, outcome.totals))
        if isinstance(outcome, money.InBatch):
            return Stopped(
                f"{self.role!r}: a request was sent in a batch whose answers were not fetched; "
                'set mode = "batch" for this role and run the same command to fetch them'
            )
        return Stopped(
            f"{self.role!r}: an image that was sent before has no reply here and may have been billed; "
            'look at your account, and set budget.lost_images = "again" to ask for it again'
        )

    def forgotten(self, future: Future[Outcome]) -> None:
        """Give back a reservation that was granted when nobody waited for it any more."""
        if not future.exception():
            outcome = future.result()
            if isinstance(outcome, money.Reserved):
                self._money.refund(outcome.attempt)

    def _charge(self, usage: Usage, amount: int, most: Usage | None = None) -> Charge:
        """`most`: what had been counted before it was sent, beside which plans see what such calls take."""
        cost = self._pricing.cost(usage) if usage.reported else None
        return Charge(
            micro=amount if cost is None else cost,
            price_version=self._pricing.version,
            model=usage.resolved_model or self._adapter.identity.model,
            usage={
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "images": usage.images,
                "reported": usage.reported,
                **({} if most is None else {"most_input_tokens": most.input_tokens}),
                "raw": dict(usage.raw),
            },
            request_id=usage.request_id,
        )


@dataclass(frozen=True, eq=False)
class Probe:
    """A public request that is asked beside a private one, to tell whose fault a failure is."""

    request: Any


class Prepaid:
    """One role's adapter as tries (`retrying.Trying`) for private records; `Advance` has paid for them."""

    def __init__(self, adapter: AsyncAdapter[Any, Any], *, gate: Gate) -> None:
        self._adapter = accounting(adapter)
        self._gate = gate

    async def attempt(self, asked: Any, deadline: Deadline, /) -> Any:
        request, tries = (asked.request, BLANK_TRIES) if isinstance(asked, Probe) else (asked, RECORD_TRIES)
        async with AsyncExitStack() as inside:
            with deadline.standing():
                most = self._adapter.estimate(request)
                passage = await inside.enter_async_context(self._gate.entered(most, breaker=False))
            answered, failure = await _send(self._adapter, request, deadline, passage)
        if answered is not None:
            return answered.reply
        assert failure is not None
        if isinstance(failure, Transient) and (failure.possibly_billed or failure.usage is not None):
            deadline.possibly_billed += 1
            if deadline.possibly_billed >= tries:
                failure.tries = 1
        raise failure


@dataclass(frozen=True, kw_only=True)
class Advance:
    """Pays for private requests before any of them is sent: one row a chunk, and what it costs stays spent."""

    adapter: AsyncAdapter[Any, Any]
    role: str
    money: Money
    pricing: Pricing
    spending: Spending

    def pay(self, largest: Any, slots: int) -> None:
        """The most that so many requests can cost, of which `largest`, a public one, costs the most.

        Raises MoneyExceeded, whose words hold public figures alone.
        """
        most = accounting(self.adapter).estimate(largest)
        amount = slots * PRIVATE_TRIES * _amount(self.role, self.adapter, most, self.pricing, self.spending)
        until, look_s = time.monotonic() + LONGEST_WAIT_S, FIRST_LOOK_S
        while time.monotonic() < until:
            outcome = self.money.reserve(self.role, amount, place=None).result()
            if isinstance(outcome, money.Reserved):
                self.money.settle(outcome.attempt, Charge(micro=amount, usage={"slots": slots})).result()
                return
            if isinstance(outcome, money.UsedUp):
                raise MoneyExceeded(_used_up(self.role, amount, outcome.totals, what=f"the next {slots} private slots"))
            time.sleep(look_s)
            look_s = min(LONGEST_LOOK_S, 1.5 * look_s)
        raise Transient(f"{self.role!r}: another process has held the budget for too long", tries=1)


def accounting(adapter: AsyncAdapter[Any, Any]) -> MeteredAdapter[Any, Any]:
    """The adapter's face that accounts for calls; one that has none knows nothing of what they take."""
    return adapter if isinstance(adapter, MeteredAdapter) else _Unaccounted(adapter)


class _Unaccounted:
    def __init__(self, adapter: AsyncAdapter[Any, Any]) -> None:
        self._adapter = adapter
        self.location = adapter.location
        self.identity = adapter.identity

    def estimate(self, _request: Any, /) -> Usage:
        return Usage(reported=False)

    async def answer(self, request: Any, /) -> Any:
        return await self._adapter.answer(request)

    async def answer_metered(self, request: Any, /) -> Answered[Any]:
        return Answered(await self._adapter.answer(request), Usage(reported=False))

    async def close(self) -> None:
        await self._adapter.close()


def unpriced(role: str, model: str) -> str:
    """Why a role without a price cannot be used under a budget."""
    return (
        f"{role!r}: the price of {model!r} is unknown, so budget.max_cost cannot be kept; give its price in a file named "
        "by PRIVOLVE_MODELS, or set budget.allow_unknown_prices = true"
    )


async def _send(
    adapter: MeteredAdapter[Any, Any], request: Any, deadline: Deadline, passage: Passage
) -> tuple[Answered[Any] | None, Transient | Stopped | None]:
    try:
        answered: Answered[Any] = await within(deadline, adapter.answer_metered(request))
    except Transient as failure:
        passage.failed(failure)
        return None, failure
    except Stopped as failure:
        passage.stopped(failure)
        return None, failure
    passage.succeeded(answered.usage, answered.rate)
    return answered, None


def _amount(role: str, adapter: AsyncAdapter[Any, Any], most: Usage, pricing: Pricing, spending: Spending) -> int:
    """The most that a try can cost. What has no price counts nothing where that is allowed."""
    amount = pricing.cost(most)
    if amount is None and spending.max_cost is not None and not spending.allow_unknown_prices:
        raise Stopped(unpriced(role, adapter.identity.model))
    return amount or 0


def _used_up(role: str, amount: int, totals: money.Totals, *, what: str = "the next request") -> str:
    possible = f", {dollars(totals.possible)} of it only possibly billed" if totals.possible else ""
    return (
        f"the budget of {dollars(totals.cap or 0)} is used up: {dollars(totals.spent)} spent{possible}, and {what} "
        f"of {role!r} may cost {dollars(amount)}; what finished is kept: raise budget.max_cost and run the same command again"
    )
