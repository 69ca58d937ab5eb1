"""Pricing: what an adapter's calls cost and how many a minute are allowed, by the facts that its config names."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol, runtime_checkable

from . import models
from .contract import AdapterConfig, Location, Request, Usage
from .models import Facts
from .wrappers.batched import BatchFace
from .wrappers.limited import Limits
from .wrappers.metered import FREE, UNKNOWN, Pricing


@runtime_checkable
class HasFacts(Protocol):
    """A config that knows which model it names, and so its price."""

    @property
    def facts(self) -> Facts: ...


@runtime_checkable
class Estimating(Protocol):
    """A config that knows the most that a request to its model can consume, without opening it."""

    def estimate(self, request: Request, /) -> Usage: ...


@runtime_checkable
class Batching(Protocol):
    """A config whose public requests may wait for a batch, at the batch's price."""

    @property
    def is_batch(self) -> bool: ...

    @property
    def batch_poll_s(self) -> float: ...

    def batches(self, adapter: Any, /) -> BatchFace:
        """The batches of an adapter that this config opened."""
        ...


def is_batch(config: AdapterConfig) -> bool:
    return isinstance(config, Batching) and config.is_batch


def facts_of(config: AdapterConfig) -> Facts | None:
    return config.facts if isinstance(config, HasFacts) else None


def has_price(config: AdapterConfig, location: Location) -> bool:
    """Whether it is known what a call costs. What runs here costs no money."""
    if location is Location.LOCAL:
        return True
    facts = facts_of(config)
    return facts is not None and facts.price is not None and (facts.batch_discount is not None or not is_batch(config))


def pricing_of(config: AdapterConfig, location: Location, *, batch: bool = False) -> Pricing:
    if location is Location.LOCAL:
        return FREE
    facts = facts_of(config)
    return (
        UNKNOWN
        if facts is None or facts.price is None
        else Pricing(cost=partial(facts.cost, batch=batch), version=models.catalogue().version)
    )


def limits_of(config: AdapterConfig) -> Limits:
    facts = facts_of(config)
    if facts is None:
        return Limits()
    return Limits(requests=facts.limits.rpm, tokens=facts.limits.tpm, images=facts.limits.ipm)
