"""The script of a stub: which requests meet which fault, as TOML or a dict, reproducible at any concurrency.

    seed = 1
    latency_s = 0.05

    [[rules]]
    path = "*/chat/completions"
    probability = 0.1
    fault = "rate-limited"
    retry_after_s = 1

The first rule that fits a request is its fate. What a rule's `probability` decides depends on the seed, on the
request and on how often the same request came before, never on the order in which different requests arrive.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from fnmatch import fnmatchcase
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class ScriptError(ValueError):
    """A script that cannot be followed; the message is one line."""


class Fault(StrEnum):
    """What can befall a request, beside being answered."""

    # Refused by the provider, in the words of the protocol that was spoken.
    RATE_LIMITED = "rate-limited"
    SLOW_DOWN = "slow-down"
    TOKENS_LIMITED = "tokens-limited"
    NO_MONEY = "no-money"
    FREE_TIER_ONLY = "free-tier-only"
    BAD_KEY = "bad-key"
    FORBIDDEN = "forbidden"
    MODEL_GONE = "model-gone"
    BAD_REQUEST = "bad-request"
    MODERATED = "moderated"
    MODERATED_ANSWER = "moderated-answer"
    CONFLICT = "conflict"
    TOO_LATE = "too-late"
    SERVER_ERROR = "server-error"
    BAD_GATEWAY = "bad-gateway"
    UNAVAILABLE = "unavailable"
    OVERLOADED = "overloaded"
    GATEWAY_TIMEOUT = "gateway-timeout"
    REDIRECT = "redirect"
    # Answered with status 200, but with no answer.
    NO_CONTENT = "no-content"
    NO_CHOICES = "no-choices"
    TOO_MANY_CHOICES = "too-many-choices"
    SAME_ANSWER = "same-answer"
    BAD_IMAGE = "bad-image"
    ERROR_IN_BODY = "error-in-body"
    WRONG_JSON = "wrong-json"
    TRUNCATED_JSON = "truncated-json"
    EMPTY = "empty"
    HTML = "html"
    # Broken on the wire.
    SILENCE = "silence"
    DRIP = "drip"
    DROP = "drop"
    RESET = "reset"
    DUPLICATE = "duplicate"


class BatchEnd(StrEnum):
    """What becomes of a batch."""

    COMPLETED = "completed"
    TWICE = "twice"
    """Completed, with each line of its output twice."""
    EXPIRED = "expired"
    """With every second line done, and the rest in the file of errors."""
    CANCELLED = "cancelled"
    """With every second line done, and nothing said of the rest."""
    FAILED = "failed"
    """Not accepted: the file is wrong."""
    QUEUE_FULL = "queue-full"
    """Not accepted now: too many tokens wait."""
    LOST_REPLY = "lost-reply"
    """Created, and completed later, but the response to its creation is an error of the server."""


class Rule(BaseModel):
    """Requests that fit every condition given meet `fault`, after `latency_s`; without a fault they are only late."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    path: str = "*"
    """A pattern as of file names: `*/chat/completions`."""
    model: str = "*"
    contains: str | None = None
    """Text that the body holds."""
    nth: int | tuple[int, ...] | None = None
    """Which of the requests that fit path, model and `contains`, counted from 1."""
    every: int | None = Field(default=None, gt=0)
    first: int | None = Field(default=None, gt=0)
    """Only the first so many of them."""
    attempt: int | None = Field(default=None, gt=0)
    """Only the so manieth time that an equal request comes: 1 spares what is sent again."""
    probability: float = Field(default=1.0, ge=0, le=1)

    fault: Fault | None = None
    latency_s: float | None = Field(default=None, ge=0)
    """None: the script's own."""
    status: int | None = Field(default=None, ge=200, le=599)
    """Another status for a fault that has one, or, without a fault, an error of this status."""
    retry_after_s: float | None = Field(default=None, ge=0)
    location: str | None = None
    """Where `redirect` points: a URL without a path keeps the request's."""
    pace_s: float = Field(default=0.1, gt=0)
    """Between the pieces of `drip`."""
    pieces: int = Field(default=40, gt=0)

    @model_validator(mode="after")
    def _redirect_needs_a_place(self) -> Self:
        if self.fault is Fault.REDIRECT and not self.location:
            raise ValueError("a redirect needs a `location`")
        return self


class Model(BaseModel):
    """One entry of the models list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    shutdown_date: str | None = None


class Script(BaseModel):
    """What a stub answers and when. Without rules it is a provider on a good day."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seed: int = 0
    latency_s: float = Field(default=0.0, ge=0)
    jitter_s: float = Field(default=0.0, ge=0)
    """Up to so much is added to the latency, by the same dice as a rule's probability."""
    at_once: int | None = Field(default=None, gt=0)
    """More requests than these at once are rate-limited, without Retry-After."""
    keys: tuple[str, ...] = ()
    """The keys that are accepted; empty: any, but one."""
    models: tuple[Model, ...] = ()
    """The models list; empty: a few of today's names. A model beyond a given list is gone."""
    fresh: bool = True
    """An equal request asked again gets another sample, as at a provider; False: the same answer for ever."""
    polls: int = Field(default=1, ge=0)
    """How often an asynchronous task says that it runs before it is done."""
    batches: tuple[BatchEnd, ...] = ()
    """How the first, second, ... batch ends; those after the last are completed."""
    headers: dict[str, str] = {}
    """Added to every answer: rate-limit headers."""
    rules: tuple[Rule, ...] = ()

    @classmethod
    def of(cls, source: Script | Mapping[str, Any] | Path | str | None) -> Script:
        """A script from a file's path, a table, or itself; None is the empty script."""
        if isinstance(source, Script):
            return source
        if source is None or isinstance(source, Mapping):
            return _parsed(dict(source or {}), "script")
        path = Path(source)
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ScriptError(f"{path}: cannot be read: {reason}; name a TOML file, or leave --script out") from None
        except tomllib.TOMLDecodeError as error:
            raise ScriptError(f"{path}: not valid TOML: {error}") from None
        return _parsed(table, str(path))


class Fate:
    """Follows a script: which rule, if any, a request meets. It counts, so one belongs to one stub."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._fitting: Counter[int] = Counter()
        self._seen: Counter[bytes] = Counter()

    def of(self, *, path: str, model: str, body: bytes, essence: bytes) -> tuple[Rule | None, float]:
        """The rule that this request meets and its latency. `essence` is equal for equal requests."""
        script = self.script
        self._seen[essence] += 1
        attempt = self._seen[essence]
        latency_s = script.latency_s
        if script.jitter_s:
            latency_s += script.jitter_s * self._dice("jitter", essence, attempt)
        for index, rule in enumerate(script.rules):
            if not _fits(rule, path, model, body):
                continue
            self._fitting[index] += 1
            if _is_meant(rule, self._fitting[index], attempt) and (
                rule.probability >= 1 or self._dice(f"rule {index}", essence, attempt) < rule.probability
            ):
                return rule, latency_s if rule.latency_s is None else rule.latency_s
        return None, latency_s

    def _dice(self, purpose: str, essence: bytes, attempt: int) -> float:
        text = f"{self.script.seed}/{purpose}/{attempt}/".encode()
        return int.from_bytes(blake2b(text + essence, digest_size=7).digest()) / 2**56


def _fits(rule: Rule, path: str, model: str, body: bytes) -> bool:
    return (
        (rule.path == "*" or fnmatchcase(path, rule.path))
        and (rule.model == "*" or fnmatchcase(model, rule.model))
        and (rule.contains is None or rule.contains.encode() in body)
    )


def _is_meant(rule: Rule, count: int, attempt: int) -> bool:
    if rule.nth is not None and count not in (rule.nth if isinstance(rule.nth, tuple) else (rule.nth,)):
        return False
    if rule.every is not None and count % rule.every:
        return False
    if rule.first is not None and count > rule.first:
        return False
    return rule.attempt is None or attempt == rule.attempt


def _parsed(table: dict[str, Any], where: str) -> Script:
    try:
        return Script.model_validate(table)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        known = ", ".join(Rule.model_fields if "rules" in problem["loc"] else Script.model_fields)
        hint = f"; known here: {known}" if problem["type"] == "extra_forbidden" else ""
        raise ScriptError(f"{where}: {field}: {problem['msg'].removeprefix('Value error, ')}{hint}") from None
