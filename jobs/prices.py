"""What a job will cost in money and time, from its settings and dated facts alone: no network, no key, no model opened.

An estimate has two ends. The worst is what the budget reserves: a caption as long as its limit, every token of a
prompt counted high. The expected takes typical lengths. Time takes typical delays, and the account's limits where known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..adapters import models, registry
from ..adapters.contract import AdapterConfig, Location, Request, Usage
from ..adapters.models import Facts
from ..adapters.pricing import Estimating, facts_of, limits_of
from ..adapters.wrappers.limited import Limits
from ..cache.money import dollars
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


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One role's tokens, images, money (millionths of a dollar, None: unknown) and seconds; each expected and worst."""

    expected: Usage
    worst: Usage
    money: tuple[int, int] | None
    batch: tuple[int, int] | None
    seconds: tuple[float, float]
    facts: Facts | None


def cost(use: Use, performance: Performance) -> Cost | None:
    """None where calls cost nothing, or nothing of their size is known."""
    if registry.location(use.config) is Location.LOCAL or not isinstance(use.config, Estimating):
        return None
    worst = use.config.estimate(use.typical)
    expected = replace(
        worst,
        input_tokens=round(TYPICAL_SHARE_OF_INPUT * worst.input_tokens),
        output_tokens=worst.output_tokens if worst.images else min(TYPICAL_OUTPUT_TOKENS, worst.output_tokens),
    )
    facts = facts_of(use.config)
    own = performance.limits.get(use.role)
    limits = limits_of(use.config) if own is None else Limits(**vars(own))
    return Cost(
        expected=_times(expected, use.calls),
        worst=_times(worst, use.calls),
        money=_money(facts, expected, worst, use.calls, batch=False),
        batch=_money(facts, expected, worst, use.calls, batch=True),
        seconds=(
            _seconds(use.calls, expected, limits, performance.concurrency, bad_day=False),
            _seconds(use.calls, worst, limits, performance.concurrency, bad_day=True),
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
        hoped = "enough if all goes as expected" if sum(each[0] for each in prices) <= left else "not enough"
        enough = "enough" if worst <= left else hoped
        text.append(f"  budget     {dollars(budget.micro)}: {enough}")
    return text


def _role(use: Use, each: Cost | None) -> list[str]:
    kept = f" ({use.kept:,} more are kept)" if use.kept else ""
    if each is None:
        return [f"  {use.role:10} {use.calls:,} calls{kept}; nothing is known of their size and price"]
    pictures = f", {each.worst.images:,} images" if each.worst.images else ""
    tokens = f"{each.expected.input_tokens:,} to {each.worst.input_tokens:,} tokens in, "
    tokens += f"{each.expected.output_tokens:,} to {each.worst.output_tokens:,} out"
    model = f"{each.facts.provider} {each.facts.model}" if each.facts is not None else use.config.kind
    text = [f"  {use.role:10} {model}: {use.calls:,} calls{kept}, {tokens}{pictures}"]
    price = "price unknown" if each.money is None else _span(each.money)
    batch = "" if each.batch is None else f"; as a batch {_span(each.batch)}"
    text.append(f"  {'':10} {price}{batch}; {_duration(each.seconds[0])} to {_duration(each.seconds[1])}")
    return text


def _money(facts: Facts | None, expected: Usage, worst: Usage, calls: int, *, batch: bool) -> tuple[int, int] | None:
    if facts is None or (batch and facts.batch_discount is None):
        return None
    ends = [facts.cost(usage, batch=batch) for usage in (expected, worst)]
    if ends[0] is None or ends[1] is None:
        return None
    return ends[0] * calls, ends[1] * calls


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


def _span(ends: tuple[int, int] | list[int]) -> str:
    return f"{dollars(ends[0])} to {dollars(ends[1])}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
