"""What an adapter is: one verb, typed requests, an identity, a location, and the errors it may raise.

    AdapterError
    ├── AdapterUnavailable     cannot be opened: missing extra, missing weights, unknown option
    ├── Transient              worth another try: 429, 5xx, time-outs, dropped connections
    └── Stopped                stops the role: wrong key, no money, model gone
        └── Rejected           the server does not accept this request; it may accept another

A refusal (a content filter, a safety block) is not an error but a reply: `Refusal`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, cast, runtime_checkable

import numpy as np
from pydantic import BaseModel, ConfigDict

Req = TypeVar("Req", contravariant=True)
Rep = TypeVar("Rep", covariant=True)
Answer = TypeVar("Answer", covariant=True)


class Location(StrEnum):
    """Where an adapter's input goes: a constant of its code."""

    LOCAL = "local"
    REMOTE = "remote"


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Which model answered: part of every cache key and of the manifest."""

    provider: str
    model: str
    revision: str = ""


class AdapterError(Exception):
    """An adapter could not answer; the message is one line that says where, what and the way out."""


class AdapterUnavailable(AdapterError):
    """The adapter cannot be opened as configured."""


class Cause(StrEnum):
    """Why a try failed: limits slow down on RATE, breakers count SERVER and CONNECTION."""

    RATE = "rate"
    SERVER = "server"
    CONNECTION = "connection"
    TIMEOUT = "timeout"
    MALFORMED = "malformed"


class Transient(AdapterError):
    """The same request may succeed later. `wait_s` is the provider's own word on when, if it gave one.

    `possibly_billed`: the provider may have done, and charged, the work; `usage` is what it reported, if it did.
    `tries`: how often the request is worth sending in all, None for as often as patience lasts.
    """

    def __init__(
        self,
        message: str,
        *,
        wait_s: float | None = None,
        cause: Cause = Cause.SERVER,
        possibly_billed: bool = False,
        usage: Usage | None = None,
        tries: int | None = None,
    ) -> None:
        super().__init__(message)
        self.wait_s = wait_s
        self.cause = cause
        self.possibly_billed = possibly_billed
        self.usage = usage
        self.tries = tries


class Stopped(AdapterError):
    """No request of this role can succeed until a person acts."""


class Rejected(Stopped):
    """The server does not accept this request, and would not if it were asked again.

    What a job asks in public is all alike, so it stops the role; a private record alone may be the cause.
    """


@dataclass(frozen=True, eq=False)
class Image:
    """Pixels, height x width x channels (1 or 3) uint8, and the recipe by which a simulator drew them ("" if none).

    A recipe is public text of the adapter's own; it comes back to it in `ImageVariationRequest.image`.
    """

    pixels: np.ndarray
    recipe: str = ""

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] not in (1, 3):
            raise ValueError(
                f"an image is uint8 of shape (height, width, 1 or 3), not {self.pixels.dtype} {self.pixels.shape}"
            )


@dataclass(frozen=True, kw_only=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True, kw_only=True)
class TextRequest:
    """Ask a writer. Reply: str."""

    messages: tuple[Message, ...]
    draw: int
    temperature: float | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class CaptionRequest:
    """Ask for words about an image. Reply: str."""

    image: Image
    prompt: str
    draw: int
    max_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """Ask for an image of what `prompt` says, `size` = (width, height), `channels` 1 or 3. Reply: Image."""

    prompt: str
    draw: int
    size: tuple[int, int]
    channels: int = 3


@dataclass(frozen=True, kw_only=True)
class ImageVariationRequest:
    """Ask for a variation of `image`; `degree` in [0, 1]: 0 changes as little as the model can, 1 as much.

    Reply: Image of the same size and channels.
    """

    image: Image
    prompt: str
    degree: float
    draw: int


@dataclass(frozen=True, kw_only=True)
class EmbedRequest:
    """Ask for the features of an image or a text. Reply: float32 vector, the same length for every request."""

    content: Image | str


Request = TextRequest | CaptionRequest | ImageRequest | ImageVariationRequest | EmbedRequest
Reply = str | Image | np.ndarray


@dataclass(frozen=True)
class Refusal:
    """A reply that is no answer: the model declined this request, and would decline it again."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one call consumed, as the provider reported it; or, as an estimate, the most that it can consume.

    `reported` is False where the provider said nothing: the figures are then the estimate's. `raw` is the provider's
    own account as it came, so that a cost can be recomputed.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    images: int = 0
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any])
    resolved_model: str = ""
    request_id: str = ""
    reported: bool = True


@dataclass(frozen=True, eq=False)
class Answered(Generic[Answer]):
    """A reply (or a Refusal) and what it took. `rate`: the headers by which the provider told its limits, if it did."""

    reply: Answer
    usage: Usage
    rate: Mapping[str, str] = field(default_factory=dict[str, str])


class Adapter(Protocol[Req, Rep]):
    """A model behind one verb.

    `send`: reply i answers request i, and depends on no other request, on no order and on no batch size;
    equal requests (their `draw` included) get equal replies where `deterministic`.
    """

    @property
    def location(self) -> Location: ...

    @property
    def identity(self) -> ModelIdentity: ...

    def send(self, requests: Sequence[Req], /) -> Sequence[Rep | Refusal]: ...


@runtime_checkable
class AsyncAdapter(Protocol[Req, Rep]):
    """A remote model: one request at a time, as many at once as its limits allow. Only the gateway sees this face."""

    @property
    def location(self) -> Location: ...

    @property
    def identity(self) -> ModelIdentity: ...

    async def answer(self, request: Req, /) -> Rep | Refusal: ...

    async def close(self) -> None:
        """Let go of connections; called once, on the event loop that asked."""
        ...


@runtime_checkable
class MeteredAdapter(AsyncAdapter[Req, Rep], Protocol[Req, Rep]):
    """A remote model that accounts for each call; its `answer` is the reply of `answer_metered`."""

    def estimate(self, request: Req, /) -> Usage:
        """The most that the request can consume: no network, no key."""
        ...

    async def answer_metered(self, request: Req, /) -> Answered[Rep | Refusal]: ...


@runtime_checkable
class Classifying(Protocol):
    """An embedder whose features a last layer turns into probabilities of classes."""

    def probabilities(self, features: np.ndarray[Any, np.dtype[Any]], /) -> np.ndarray[Any, np.dtype[Any]]:
        """Of features (n, dimensions): (n, classes), >= 0 with sum 1. Computed here, from nothing else."""
        ...


class AdapterConfig(BaseModel):
    """The table `{ kind = "...", ... }` of a job file; `open` imports what is heavy and builds the adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str
    answers: ClassVar[tuple[type, ...]] = ()
    """The request types that the adapter answers, known without opening it."""
    location: ClassVar[Location] = Location.REMOTE
    cheap: ClassVar[bool] = False
    """Replies are a function of the request that costs less to compute than to look up: the gateway keeps none."""
    knows_classes: ClassVar[bool] = False
    """The adapter is a `Classifying` one: its features lead on to probabilities of classes that it knows."""
    cannot_change_replies: ClassVar[frozenset[str]] = frozenset()
    """Fields left out of cache keys: time-outs, names of environment variables. Every other field counts."""

    def settings(self) -> dict[str, Any]:
        """What counts in a cache key beside the identity. None means not set, so a new option changes no old key."""
        return self.model_dump(mode="json", exclude=set(self.cannot_change_replies), exclude_none=True)

    def resolved(self, base: Path) -> Self:
        """The same config with its relative paths taken from `base`, the folder of the job file."""
        return self

    def notices(self, today: date) -> tuple[str, ...]:
        """What a person should know before a run, a line each: a model that stops soon, a price that nobody knows."""
        return ()

    def open(self) -> Adapter[Any, Any] | AsyncAdapter[Any, Any]:
        raise NotImplementedError


def wrong_with(request: Any, reply: Any) -> str:
    """What keeps `reply` from being an answer to `request`, without any of its content; "" if nothing does."""
    if isinstance(reply, Refusal):
        return ""
    if isinstance(request, TextRequest | CaptionRequest):
        return "" if isinstance(reply, str) else f"a str was expected, not {type(reply).__name__}"
    if isinstance(request, EmbedRequest):
        if isinstance(reply, np.ndarray) and _is_vector(cast("np.ndarray[Any, np.dtype[Any]]", reply)):
            return ""
        return "a float32 vector was expected"
    if isinstance(request, ImageRequest | ImageVariationRequest):
        if isinstance(request, ImageRequest):
            shape = (request.size[1], request.size[0], request.channels)
        else:
            shape = request.image.pixels.shape
        if isinstance(reply, Image) and reply.pixels.shape == shape:
            return ""
        return f"an image of (height, width, channels) = {shape} was expected"
    return f"{type(request).__name__} is not a kind of request"


def _is_vector(array: np.ndarray[Any, np.dtype[Any]]) -> bool:
    return array.dtype == np.float32 and array.ndim == 1 and array.size > 0
