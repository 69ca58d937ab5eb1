"""A role: the name by which a job asks for a model. Which adapter may play it, and what is known of one that does.

    GatewayError
    ├── RoleError     a role is missing, or its adapter does not answer what the job asks
    └── TrustError    an adapter that may be remote was given a private role without trust

Trust is the operator's word, by role. The checks open nothing, so that a job can be refused before anything is made or
charged.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from . import registry
from .contract import Adapter, AdapterConfig, Location, ModelIdentity, Refusal
from .wrappers.metered import Advance
from .wrappers.retrying import Retrying, RetryingAsync


class GatewayError(ValueError):
    """The job's adapters cannot do what it asks; the message is one line."""


class RoleError(GatewayError):
    """A role is missing or answers something else."""


class TrustError(GatewayError):
    """A role may not see private data."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a role was asked. For private records these count slots."""

    asked: int = 0
    from_cache: int = 0
    sent: int = 0
    refused: int = 0


class Progress(Protocol):
    def __call__(self, role: str, done: int, total: int, /) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Role:
    """One role, opened: its adapter without a cache, and the public face with one."""

    name: str
    config: AdapterConfig
    adapter: Retrying | RetryingAsync
    public: Adapter[Any, Any]
    now: Adapter[Any, Any]
    """The same without a wait for batches: for the public requests that go before private ones."""
    identity: ModelIdentity
    location: Location
    tally: Tally
    advance: Advance | None = None
    """Who pays for private records, where they may cost money."""
    model: object | None = None
    """The adapter itself, without wrappers; None where nothing but kept replies is read."""

    def pay(self, largest: Any, slots: int) -> None:
        if self.advance is not None:
            self.advance.pay(largest, slots)


class Tally:
    """Counts of one role, and its line of progress."""

    def __init__(self, role: str, progress: Progress | None) -> None:
        self._role = role
        self._progress = progress
        self._lock = threading.Lock()
        self._asked = self._sent = self._refused = 0

    def heard(self, replies: Sequence[Any], /, *, fresh: bool, done: int, total: int) -> None:
        with self._lock:
            self._asked += len(replies)
            self._sent += len(replies) if fresh else 0
            self._refused += sum(isinstance(reply, Refusal) for reply in replies)
        self._show(done, total)

    def slots(self, fresh: int, among: int, done: int, *, total: int) -> None:
        """Slots of a private set: never what came of them."""
        with self._lock:
            self._asked += among
            self._sent += fresh
        self._show(done, total)

    def counts(self) -> Counts:
        with self._lock:
            return Counts(
                asked=self._asked, from_cache=self._asked - self._sent, sent=self._sent, refused=self._refused
            )

    def _show(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(self._role, done, total)


def check(
    configs: Mapping[str, AdapterConfig],
    *,
    trust: Collection[str] = (),
    asked: Mapping[str, Sequence[type]],
    private: Collection[str] = (),
) -> None:
    """Refuse adapters that cannot answer what is `asked` of each role, or may not see the `private` roles' records.

    Opens nothing.
    """
    check_names(trust, configs)
    for role, requests in asked.items():
        check_answers(role, role_config(configs, role), requests)
    for role in private:
        config = role_config(configs, role)
        check_trust(role, config, registry.location(config), trust)


def role_config(configs: Mapping[str, AdapterConfig], role: str) -> AdapterConfig:
    """The adapter that the job names for the role."""
    if role not in configs:
        raise RoleError(f"this job needs an adapter for the role {role!r}; [adapters] names {_listed(configs)}.")
    return configs[role]


def check_names(trust: Collection[str], configs: Mapping[str, AdapterConfig]) -> None:
    for role in trust:
        if role not in configs:
            raise RoleError(f"`trust` names {role!r}, which is no role. The roles: {_listed(configs)}.")


def check_answers(role: str, config: AdapterConfig, requests: Sequence[type]) -> None:
    lacking = [request.__name__ for request in requests if not issubclass(request, config.answers)]
    if lacking:
        answers = ", ".join(kind.__name__ for kind in config.answers) or "nothing"
        raise RoleError(
            f"{role!r} is a {config.kind!r} adapter and does not answer {' or '.join(lacking)}, which this job asks of it. "
            f"It answers {answers}. Choose another kind for {role!r}."
        )


def check_trust(role: str, config: AdapterConfig, location: Location, trust: Collection[str]) -> None:
    if location is Location.LOCAL or role in trust:
        return
    what = "is a remote adapter" if registry.is_ours(config) else "comes from outside privolve, so counts as remote"
    raise TrustError(f"{role!r} {what} and may not see private data. Use a local one, or add {role!r} to `trust`.")


def _listed(configs: Mapping[str, AdapterConfig]) -> str:
    return ", ".join(sorted(configs)) or "none"
