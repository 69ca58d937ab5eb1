"""Scripted: a function as an adapter. The test double and the dry run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from pydantic import ConfigDict, Field

from .contract import (
    Adapter,
    AdapterConfig,
    AsyncAdapter,
    CaptionRequest,
    EmbedRequest,
    ImageRequest,
    ImageVariationRequest,
    Location,
    ModelIdentity,
    TextRequest,
)


def named_after(answer: Callable[..., Any]) -> ModelIdentity:
    """The identity of a function: its name. Functions of one name that answer differently need identities of their own."""
    name = getattr(answer, "__qualname__", type(answer).__qualname__)
    return ModelIdentity(provider="scripted", model=name)


class Scripted:
    """Answers each request by `answer(request)`, in order; what it raises is raised."""

    def __init__(
        self,
        answer: Callable[[Any], Any],
        *,
        location: Location = Location.LOCAL,
        identity: ModelIdentity | None = None,
    ) -> None:
        self._answer = answer
        self._location = location
        self._identity = identity or named_after(answer)

    @property
    def location(self) -> Location:
        return self._location

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    def send(self, requests: Sequence[Any], /) -> list[Any]:
        return [self._answer(request) for request in requests]


class ScriptedAsync:
    """The same as a remote model: one request at a time, `answer(request)` awaited."""

    def __init__(
        self,
        answer: Callable[[Any], Awaitable[Any]],
        *,
        location: Location = Location.REMOTE,
        identity: ModelIdentity | None = None,
    ) -> None:
        self._answer = answer
        self._location = location
        self._identity = identity or named_after(answer)

    @property
    def location(self) -> Location:
        return self._location

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    async def answer(self, request: Any, /) -> Any:
        return await self._answer(request)

    async def close(self) -> None:
        pass


class ScriptedConfig(AdapterConfig):
    """Puts an adapter that exists already into a gateway. Made in code: it has no name in job files."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    kind: str = "scripted"
    adapter: Any = Field(exclude=True, repr=False)
    answers: ClassVar[tuple[type, ...]] = (
        TextRequest,
        CaptionRequest,
        ImageRequest,
        ImageVariationRequest,
        EmbedRequest,
    )
    location: ClassVar[Location] = Location.LOCAL

    def open(self) -> Adapter[Any, Any] | AsyncAdapter[Any, Any]:
        return self.adapter
