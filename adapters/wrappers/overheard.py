"""Overheard: a paid adapter whose usage somebody wants to hear, answer by answer: the server, to tell its clients."""

from __future__ import annotations

from typing import Any, Protocol

from ..contract import Answered, AsyncAdapter, Location, MeteredAdapter, ModelIdentity, Usage


class Billed(Protocol):
    """Hears what an answered public request took; called on the gateway's thread."""

    def __call__(self, role: str, request: Any, usage: Usage, /) -> None: ...


class Overheard:
    """Answers as `adapter` does."""

    def __init__(self, adapter: MeteredAdapter[Any, Any], *, role: str, billed: Billed) -> None:
        self._adapter = adapter
        self._role = role
        self._billed = billed

    @property
    def location(self) -> Location:
        return self._adapter.location

    @property
    def identity(self) -> ModelIdentity:
        return self._adapter.identity

    def estimate(self, request: Any, /) -> Usage:
        return self._adapter.estimate(request)

    async def answer(self, request: Any, /) -> Any:
        return (await self.answer_metered(request)).reply

    async def answer_metered(self, request: Any, /) -> Answered[Any]:
        answered = await self._adapter.answer_metered(request)
        self._billed(self._role, request, answered.usage)
        return answered

    async def close(self) -> None:
        await self._adapter.close()


def overheard(adapter: AsyncAdapter[Any, Any], *, role: str, billed: Billed | None) -> AsyncAdapter[Any, Any]:
    """`adapter`, heard by `billed` if it knows what its answers take and somebody listens."""
    if billed is None or not isinstance(adapter, MeteredAdapter):
        return adapter
    return Overheard(adapter, role=role, billed=billed)
