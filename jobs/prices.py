"""What a job will cost in money and time, from its settings, dated facts and earlier bills: no network, no key, no model opened.

An estimate has two ends. The worst is what the budget reserves: a caption as long as its limit, every token of a
prompt counted high. The expected takes typical lengths, or those of earlier calls where the cache holds any. Time takes
typical delays, and the account's limits where known.

Slots of a private set are paid for in advance, each at the most that it can cost: the largest request, as often as one
may be billed. So that is their worst, and it is what they take from the budget even if all goes well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..adapters import models, registry
from ..adapters.contract import AdapterConfig, Location, Request, Usage
from ..adapters.models import Facts
from ..adapters.pricing import Estimating, facts_of, limits_of
from ..adapters.wrappers.limited import Limits
from ..adapters.wrappers.metered import PRIVATE_TRIES
from ..cache.money import dollars
from ..cache.upkeep import Habit
from .job import Budget, Performance

TYPICAL_OUTPUT_TOKENS = 90
"""Of a caption or of a rewritten one."""
TYPICAL_SHARE_OF_INPUT = 0.75
"""Of the input that is counted high: four bytes a token instead of three."""
TEXT_S, IMAGE_S = (1.5, 8.0), (12.0, 60.0)
"""Delays of one call: typical, and on a bad day."""


@dataclass(frozen=True, kw_only=True)
class Use:
    """What one role is asked."""

    role: str
    config: AdapterConfig
    calls: int
    """Left to be asked: what is kept already is taken off."""
    kept: int
    typical: Request
    slots: int = 0
    """Of the private set, left to be paid for."""
    largest: Request | None = None
    """About a slot; no record's request costs more."""
    habit: Habit | None = None
    """What such calls took before."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One role's tokens, images, money (millionths of a dollar, None: unknown) and seconds; each expected and worst."""

    expected: Usage
    worst: Usage
    money: tuple[int, int] | None
    advance: int
    """What the slots take from the budget more than they are expected to cost."""
    batch: tuple[int, int] | None
    seconds: tuple[float, float]
    facts: Facts | None


def cost(use: Use, performance: Performance) -> Cost | None:
    """None where calls cost nothing, or nothing of their size is known."""
    if registry.location(use.config) is Location.LOCAL or not isinstance(use.config, Estimating):
        return None
    most = use.config.estimate(use.typical)
    usual = _usual(most, use.habit)
    most_private = _times(use.config.estimate(use.largest or use.typical), PRIVATE_TRIES)
    facts = facts_of(use.config)
    own = performance.limits.get(use.role)
    limits = limits_of(use.config) if own is None else Limits(**vars(own))
    expected, worst = [(use.calls + use.slots, usual)], [(use.calls, most), (use.slots, most_private)]
    money = _money(facts, expected, worst, batch=False)
    slots = _money(facts, [(use.slots, usual)], [(use.slots, most_private)], batch=False)
    return Cost(
        expected=_total(expected),
        worst=_total(worst),
        money=money,
        advance=0 if slots is None else slots[1] - slots[0],
        batch=None if use.slots else _money(facts, expected, worst, batch=True),
        seconds=(
            _seconds(use.calls + use.slots, usual, limits, performance.concurrency, bad_day=False),
            _seconds(use.calls, most, limits, performance.concurrency, bad_day=True)
            + PRIVATE_TRIES * _seconds(use.slots, most, limits, performance.concurrency, bad_day=True),
        ),
        facts=facts,
    )


def lines(uses: list[Use], performance: Performance, budget: Budget, *, spent: int) -> list[str]:
    """The plan's part on money, for a reader; empty where no role costs any."""
    remote = [use for use in uses if registry.location(use.config) is Location.REMOTE]
    if not remote:
        return ["money and time: no remote model, so none"]
    found = [(use, cost(use, performance)) for use in remote]
    text = [f"money and time, expected to worst (prices of {models.catalogue().version})"]
    for use, each in found:
        text += _role(use, each)
    known = [each for _, each in found if each is not None]
    prices = [each.money for each in known if each.money is not None]
    seconds = tuple(sum(each.seconds[end] for each in known) for end in (0, 1))
    missing = len(found) - len(prices)
    but = f", and {missing} of {len(found)} remote roles at unknown prices" if missing else ""
    text.append(
        f"  together   {_span([sum(each[end] for each in prices) for end in (0, 1)])}{but}; "
        f"{_duration(seconds[0])} to {_duration(seconds[1])}"
    )
    if spent:
        text.append(f"  spent      {dollars(spent)} by this run so far")
    if budget.micro is not None:
        left = budget.micro - spent
        worst = sum(each[1] for each in prices)
        taken = sum(each[0] for each in prices) + sum(each.advance for each in known)
        hoped = "enough if all goes as expected" if taken <= left else "not enough"
        enough = "enough" if worst <= left else hoped
        text.append(f"  budget     {dollars(budget.micro)}: {enough}")
    return text


def together(uses: list[Use], performance: Performance) -> tuple[tuple[int, int], int]:
    """Of some cells' roles: money, expected and worst, in millionths of a dollar; and how many are of unknown price."""
    remote = [use for use in uses if registry.location(use.config) is Location.REMOTE]
    found = [cost(use, performance) for use in remote]
    known = [each.money for each in found if each is not None and each.money is not None]
    return (sum(each[0] for each in known), sum(each[1] for each in known)), len(found) - len(known)


def _role(use: Use, each: Cost | None) -> list[str]:
    kept = f" ({use.kept:,} more are kept)" if use.kept else ""
    if each is None:
        return [f"  {use.role:10} {use.calls:,} calls{kept}; nothing is known of their size and price"]
    pictures = f", {each.worst.images:,} images" if each.worst.images else ""
    tokens = f"{each.expected.input_tokens:,} to {each.worst.input_tokens:,} tokens in, "
    tokens += f"{each.expected.output_tokens:,} to {each.worst.output_tokens:,} out"
    model = f"{each.facts.provider} {each.facts.model}" if each.facts is not None else use.config.kind
    slots = f" and {use.slots:,} private slots" if use.slots else ""
    text = [f"  {use.role:10} {model}: {use.calls:,} calls{slots}{kept}, {tokens}{pictures}"]
    price = "price unknown" if each.money is None else _span(each.money)
    batch = "" if each.batch is None else f"; as a batch {_span(each.batch)}"
    text.append(f"  {'':10} {price}{batch}; {_duration(each.seconds[0])} to {_duration(each.seconds[1])}")
    if use.habit is not None:
        text.append(f"  {'':10} expected as its last {use.habit.calls:,} calls of this kind went")
    if each.advance:
        text.append(f"  {'':10} the slots are paid in advance at the worst, {PRIVATE_TRIES} tries each: it stays spent")
    return text


def _usual(most: Usage, habit: Habit | None) -> Usage:
    """What a call is expected to consume that can consume so much; never more than that."""
    share = TYPICAL_SHARE_OF_INPUT if habit is None else min(1.0, habit.share_of_input)
    output = TYPICAL_OUTPUT_TOKENS if habit is None else round(habit.output_tokens)
    return replace(
        most,
        input_tokens=round(share * most.input_tokens),
        output_tokens=most.output_tokens if most.images else min(output, most.output_tokens),
    )


def _money(
    facts: Facts | None, expected: list[tuple[int, Usage]], worst: list[tuple[int, Usage]], *, batch: bool
) -> tuple[int, int] | None:
    """Both ends of what (calls, usage of one) cost together."""
    if facts is None or (batch and facts.batch_discount is None):
        return None
    ends: list[int] = []
    for parts in (expected, worst):
        costs = [(calls, facts.cost(usage, batch=batch)) for calls, usage in parts if calls]
        if any(one is None for _, one in costs):
            return None
        ends.append(sum(calls * (one or 0) for calls, one in costs))
    return ends[0], ends[1]


def _seconds(calls: int, each: Usage, limits: Limits, concurrency: int, *, bad_day: bool) -> float:
    delay = (IMAGE_S if each.images else TEXT_S)[bad_day]
    tokens = each.input_tokens + each.output_tokens
    paces = [calls * delay / min(concurrency, max(1, calls))]
    for limit, amount in ((limits.requests, 1), (limits.tokens, tokens), (limits.images, each.images)):
        if limit:
            paces.append(calls * amount / limit * 60.0)
    return max(paces)


def _times(each: Usage, calls: int) -> Usage:
    return Usage(
        input_tokens=each.input_tokens * calls, output_tokens=each.output_tokens * calls, images=each.images * calls
    )


def _total(parts: list[tuple[int, Usage]]) -> Usage:
    every = [_times(usage, calls) for calls, usage in parts]
    return Usage(
        input_tokens=sum(each.input_tokens for each in every),
        output_tokens=sum(each.output_tokens for each in every),
        images=sum(each.images for each in every),
    )


def _span(ends: tuple[int, int] | list[int]) -> str:
    return f"{dollars(ends[0])} to {dollars(ends[1])}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
