"""Errors: what each provider's failures mean, as data, and how they reach the gateway.

The same word means opposite things: `insufficient_quota` is an empty account at OpenAI, where waiting is useless, and a
throttle of tokens per minute at DashScope, which clears by itself. So failures are judged by the provider's own
table, never by a word alone. The first rule that fits decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import NoReturn

from pydantic import SecretStr

from ..contract import Cause, Refusal, Rejected, Stopped, Transient, Usage

MALFORMED_TRIES = 2
SHOWN_CHARACTERS = 300


class Meaning(StrEnum):
    RATE = "rate"
    QUOTA = "quota"
    REFUSED = "refused"
    AUTH = "auth"
    GONE = "gone"
    TRANSIENT = "transient"
    INVALID = "invalid"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A provider's own account of a failure. `code` and `type` as they came, `message` for people."""

    status: int
    code: str = ""
    type: str = ""
    message: str = ""
    headers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Fits a failure whose status is listed (or any) and one of whose words is listed (or any).

    Words are compared with `code` and `type` in small letters; `data*` fits every word that begins so, `*data` every one that
    ends so. `says` is a part of the message.
    """

    meaning: Meaning
    statuses: tuple[int, ...] = ()
    words: tuple[str, ...] = ()
    says: str = ""

    def fits(self, failure: Failure) -> bool:
        if self.statuses and failure.status not in self.statuses:
            return False
        if self.words:
            said = (failure.code.lower(), failure.type.lower())
            if not any(_alike(word, one) for word in self.words for one in said):
                return False
        return self.says.lower() in failure.message.lower()


# An answer of a server that speaks HTTP, whoever it is.
BY_STATUS = (
    Rule(meaning=Meaning.AUTH, statuses=(401, 403)),
    Rule(meaning=Meaning.GONE, statuses=(404, 410)),
    Rule(meaning=Meaning.QUOTA, statuses=(402,)),
    Rule(meaning=Meaning.RATE, statuses=(429,)),
    Rule(meaning=Meaning.REFUSED, statuses=(413,)),
    Rule(meaning=Meaning.TRANSIENT, statuses=(408, 409, 425, *range(500, 600))),
    Rule(meaning=Meaning.INVALID),
)

OPENAI = (
    Rule(
        meaning=Meaning.QUOTA,
        words=(
            "insufficient_quota",
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            "billing_hard_limit_reached",
            "billing_not_active",
        ),
    ),
    Rule(
        meaning=Meaning.REFUSED,
        statuses=(200, 400, 403, 422),
        words=("moderation_blocked", "content_policy_violation", "content_filter", "responsibleaipolicyviolation"),
    ),
    # The prompt is too long for the model: no other prompt suffers, and asking again is useless.
    Rule(
        meaning=Meaning.REFUSED, statuses=(200, 400, 413), words=("context_length_exceeded", "string_above_max_length")
    ),
    Rule(meaning=Meaning.AUTH, words=("invalid_api_key", "account_deactivated")),
    Rule(meaning=Meaning.GONE, words=("model_not_found", "deploymentnotfound", "model_deprecated")),
    Rule(meaning=Meaning.RATE, words=("rate_limit_exceeded", "slow_down", "server_is_overloaded")),
    *BY_STATUS,
)

DASHSCOPE = (
    Rule(meaning=Meaning.QUOTA, words=("arrearage", "*allocationquota.freetieronly")),
    Rule(meaning=Meaning.QUOTA, words=("*allocationquota", "insufficient_quota"), says="free allocated quota exceeded"),
    Rule(
        meaning=Meaning.REFUSED,
        words=("*datainspectionfailed", "data_inspection_failed", "ipinfringementsuspect"),
    ),
    Rule(
        meaning=Meaning.RATE,
        words=("throttling*", "limit_requests", "insufficient_quota", "limit_burst_rate", "rate_limit*"),
    ),
    Rule(meaning=Meaning.AUTH, words=("invalidapikey", "invalid_api_key", "accessdenied*", "access_denied*")),
    Rule(meaning=Meaning.GONE, words=("modelnotfound", "model.notexist", "model_not_found", "model_not_supported")),
    Rule(
        meaning=Meaning.TRANSIENT,
        words=(
            "requesttimeout",
            "internalerror*",
            "internal_error*",
            "serviceunavailable*",
            "gatewaytimeout",
            "systemerror",
        ),
    ),
    *BY_STATUS,
)

TABLES: Mapping[str, tuple[Rule, ...]] = {
    "openai": OPENAI,
    "azure": OPENAI,
    "dashscope": DASHSCOPE,
    "compatible": OPENAI,
}
"""`compatible` is any other server of OpenAI's protocol, which copies its words."""


def meaning(provider: str, failure: Failure) -> Meaning:
    return next(rule.meaning for rule in TABLES[provider] if rule.fits(failure))


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a failure came from, for the line that a person reads."""

    kind: str
    provider: str
    model: str
    endpoint: str
    key_name: str
    key: SecretStr | None = None
    replacement: str = ""

    @property
    def where(self) -> str:
        return f"{self.kind} {self.model!r} at {self.endpoint}"

    def shown(self, text: str) -> str:
        """A server's words on one short line, without the key, should it have sent that back."""
        line = " ".join(text.split())
        if self.key is not None:
            line = line.replace(self.key.get_secret_value(), "[key]")
        return line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]}..."


def settle(origin: Origin, failure: Failure, *, possibly_billed: bool = False) -> Refusal:
    """The refusal that the failure is; raises Transient or Stopped if it is another thing.

    The provider's own words are passed on where they help a person, except about a key, which they may quote.
    `possibly_billed`: the work may have been done, and charged, in spite of the failure.
    """
    what = meaning(origin.provider, failure)
    word = origin.shown(failure.code or failure.type or f"HTTP {failure.status}")
    where = origin.where
    said = origin.shown(failure.message)
    if what is Meaning.REFUSED:
        return Refusal(word)
    if what is Meaning.RATE:
        raise Transient(f"{where}: too many requests ({word})", wait_s=wait_s(failure.headers), cause=Cause.RATE)
    if what is Meaning.TRANSIENT:
        raise Transient(
            f"{where}: the server failed ({failure.status}, {word})",
            wait_s=wait_s(failure.headers),
            possibly_billed=possibly_billed,
        )
    if what is Meaning.QUOTA:
        raise Stopped(f"{where}: the account has no money or quota left ({word}); top it up, then run the same command")
    if what is Meaning.AUTH:
        key = f"; check the key in {origin.key_name}, its project and its region" if origin.key_name else ""
        raise Stopped(f"{where}: access denied ({failure.status}, {word}){key}")
    if what is Meaning.GONE:
        instead = f"; its provider names {origin.replacement} instead" if origin.replacement else ""
        raise Stopped(f"{where}: there is no such model or path ({failure.status}, {word}); check `model`{instead}")
    raise Rejected(f"{where}: the request is not accepted ({failure.status}, {word}){': ' if said else ''}{said}")


def malformed(where: str, why: str, *, usage: Usage | None = None) -> NoReturn:
    """A reply that is no answer although the server calls it one: worth one more try, and probably paid for."""
    reported = usage if usage is not None and usage.reported else None
    raise Transient(
        f"{where}: {why}", cause=Cause.MALFORMED, possibly_billed=True, usage=reported, tries=MALFORMED_TRIES
    )


def wait_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """The provider's own word on when to ask again: `retry-after-ms`, else `retry-after` in seconds or as a date."""
    milliseconds = _seconds(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000.0
    after = headers.get("retry-after", "")
    seconds = _seconds(after)
    if seconds is not None or not after:
        return seconds
    try:
        when = parsedate_to_datetime(after)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _alike(word: str, said: str) -> bool:
    if word.endswith("*"):
        return said.startswith(word[:-1])
    if word.startswith("*"):
        return said.endswith(word[1:])
    return said == word
