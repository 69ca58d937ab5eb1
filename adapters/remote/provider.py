"""Provider: what the remote adapters have in common: settings, one deadline, and failures told as the contract wants.

An exception that leaves an adapter is made anew, after the SDK's own was let go: no request, header or body hangs on it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict, Field

from ..contract import (
    AdapterConfig,
    AdapterError,
    AdapterUnavailable,
    Cause,
    Location,
    Request,
    Stopped,
    Transient,
    Usage,
)
from ..models import Facts, Price, warning
from .egress import EgressError, Elsewhere, find
from .endpoint import KeyName
from .errors import MALFORMED_TRIES, Origin

T = TypeVar("T")

CONNECT_S = 10.0
FIRST_CONTACT_TRIES = 3
"""How often to knock at a server that never answered in this run: a wrong address should not take a night to show."""


class RemoteConfig(AdapterConfig):
    """The settings of every remote adapter."""

    model_config = ConfigDict(hide_input_in_errors=True)

    location: ClassVar[Location] = Location.REMOTE
    cannot_change_replies: ClassVar[frozenset[str]] = frozenset(
        {"api_key_env", "deadline_s", "max_response_bytes", "price"}
    )

    model: str = Field(min_length=1)
    api_key_env: KeyName = ""
    """The name of the environment variable that holds the key; never the key."""
    max_tokens: int = Field(default=1024, ge=1)
    """The bound of a text whose request names none, so that what a call can cost is known before it."""
    image_size: str = Field(default="", pattern=r"^([1-9]\d{0,4}x[1-9]\d{0,4})?$")
    """The size to paint at, such as "1024x1024", in place of the nearest that the model is known to take."""
    deadline_s: float = Field(default=180.0, gt=0)
    """Seconds of one call, from its start to the last byte."""
    max_response_bytes: int = Field(default=64 * 2**20, ge=1024)
    price: Price | None = None
    """Dollars per million tokens or per image, where the model is not in models.toml or costs you something else."""

    @property
    def facts(self) -> Facts:
        """What is known of the model at this provider, with the price of these settings."""
        raise NotImplementedError

    def estimate(self, request: Request, /) -> Usage:
        """The most that the request can consume at this model: no network, no key, nothing opened."""
        return self.bound(request, self.facts)

    def bound(self, request: Request, facts: Facts) -> Usage:
        """The same by facts that were looked up before."""
        raise NotImplementedError

    def notices(self, today: date) -> tuple[str, ...]:
        facts = self.facts
        unpriced = f"the price of {facts.model} ({facts.provider}) is not known; set `price` to count money"
        return tuple(line for line in (warning(facts, today), "" if facts.price else unpriced) if line)


def refuse_shut_down(kind: str, facts: Facts, today: date) -> None:
    """A model that its provider has shut down cannot be opened."""
    if facts.is_shut_down(today):
        instead = f"use {facts.replacement!r}, which the provider names instead" if facts.replacement else "use another"
        raise AdapterUnavailable(
            f"{kind}: {facts.model!r} was shut down by its provider on {facts.shutdown}; {instead}, or name a `base_url` that still serves it"
        )


class Caller:
    """One deadline over a call, and what a call that breaks means."""

    def __init__(self, origin: Origin, *, deadline_s: float) -> None:
        self._origin = origin
        self._deadline_s = deadline_s
        self._reached = False

    @property
    def where(self) -> str:
        return self._origin.where

    def reached(self) -> None:
        """The server answered something: from now on, silence is a matter of patience."""
        self._reached = True

    def timed_out(self) -> Transient:
        return Transient(
            f"{self.where}: no whole reply within {self._deadline_s:g} s",
            cause=Cause.TIMEOUT,
            possibly_billed=True,
        )

    def broken(self, error: BaseException, *, unsent: tuple[type[BaseException], ...]) -> AdapterError:
        """What to raise for a call that brought no HTTP answer that can be read."""
        stopped = find(error, EgressError)
        if isinstance(stopped, Elsewhere):
            return Stopped(f"{self.where}: {stopped}; nothing was sent")
        if stopped is not None:
            return self._malformed(f"the server sent {stopped}")
        if any(find(error, kind) for kind in unsent):
            what = "its name is not known" if find(error, socket.gaierror) else "cannot be reached"
            return Transient(
                f"{self.where}: {what}; check `base_url` and the network",
                cause=Cause.CONNECTION,
                tries=None if self._reached else FIRST_CONTACT_TRIES,
            )
        if find(error, ValueError) or find(error, TypeError) or find(error, KeyError):
            return self._malformed("a reply that is no answer")
        return Transient(f"{self.where}: the connection broke off", cause=Cause.CONNECTION, possibly_billed=True)

    def _malformed(self, why: str) -> Transient:
        return Transient(f"{self.where}: {why}", cause=Cause.MALFORMED, possibly_billed=True, tries=MALFORMED_TRIES)


class PerLoop:
    """A client for the running event loop: one made on another loop does not work on this one."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Any = None

    def __call__(self) -> Any:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._client = self._make()
            self._loop = loop
        return self._client

    def forget(self) -> Any:
        """The client, if there is one of this loop, which is then closed by the caller."""
        client = self._client if self._loop is asyncio.get_running_loop() else None
        self._client = self._loop = None
        return client


@contextmanager
def without(*names: str) -> Iterator[None]:
    """The environment without these variables, for an import that would act on them."""
    saved = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(saved)


def counted(raw: Mapping[str, Any], *names: str) -> int | None:
    """The first of these counts that is there and is one."""
    for name in names:
        value = raw.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None


def sayable(text: str) -> str:
    """The text as UTF-8 can say it: a lone half of a surrogate pair, as replies may hold one, becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def unanswered(where: str, request: Request, way_out: str) -> Stopped:
    return Stopped(f"{where}: does not answer this {type(request).__name__}: {way_out}")
