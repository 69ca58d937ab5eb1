"""Listing: what a provider's own list says of a model, against our dated facts; for `privolve doctor`.

One free request that holds the model's name and nothing of a job's.
"""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Protocol, runtime_checkable

from .contract import AdapterConfig, AdapterError, AdapterUnavailable, Location, Stopped
from .models import Facts
from .pricing import facts_of

WAIT_S = 10.0


@runtime_checkable
class Listed(Protocol):
    """A remote adapter whose server lists its models."""

    async def listed_shutdown(self) -> date | None:
        """When the list says that the model stops, None if it names no day; raises Stopped if it is not listed."""
        ...

    async def close(self) -> None: ...


def compared(config: AdapterConfig) -> str:
    """One line on what the server's list says of the model of `config`; "" for a model that no server lists."""
    if config.location is Location.LOCAL:
        return ""
    try:
        adapter = config.open()
    except AdapterUnavailable as error:
        return f"not compared with the server's list: {error}"
    return asyncio.run(_asked(adapter, config)) if isinstance(adapter, Listed) else "its provider has no list to ask"


async def _asked(adapter: Listed, config: AdapterConfig) -> str:
    try:
        async with asyncio.timeout(WAIT_S):
            theirs = await adapter.listed_shutdown()
    except Stopped as error:
        return f"the server's list: {error}"
    except (AdapterError, TimeoutError) as error:
        return f"the server's list cannot be read: {error or f'no answer within {WAIT_S:g} s'}"
    finally:
        await adapter.close()
    return _difference(facts_of(config), theirs)


def _difference(facts: Facts | None, theirs: date | None) -> str:
    ours = None if facts is None else facts.shutdown
    if ours == theirs:
        return "the server's list agrees" + (f": it shuts down on {theirs}" if theirs else " that it goes on")
    said = f"shuts down on {theirs}" if theirs else "has no day on which it shuts down"
    known = "no such day" if facts is None or ours is None else f"{ours} [{facts.source}, {facts.as_of}]"
    return (
        f"the server's list says that it {said}, our facts say {known}: put it right in a file named by PRIVOLVE_MODELS"
    )
