"""Models: dated facts on cloud models from `models.toml`: prices, limits, what they accept, when they stop.

Facts age, so a person may override them: the file named by PRIVOLVE_MODELS has the same form and wins, field by field.
An unknown model is no error: its price is unknown, and whoever needs it says so.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_CEILING, Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .contract import Usage

OVERRIDES = "PRIVOLVE_MODELS"
Dollars = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]


class ModelsError(ValueError):
    """A file of facts cannot be read; the message is one line."""


class Price(BaseModel):
    """US dollars per million tokens, which is micro-dollars a token, or per image. None is unknown.

    Cached input is a part of the input, image tokens are a part of input and output: each part has its own price.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Dollars | None = None
    cached_input: Dollars | None = None
    cache_write: Dollars | None = None
    output: Dollars | None = None
    image_input: Dollars | None = None
    image_output: Dollars | None = None
    per_image: Dollars | None = None

    def micro_dollars(self, usage: Usage) -> int | None:
        """What the usage costs, rounded up; None where a part of it has no price.

        Where the usage does not say what a token was, the dearer price of its side counts.
        """
        cost = Decimal(0)
        if usage.images and self.per_image is not None:
            cost += self.per_image * 1_000_000 * usage.images
            return int(cost.to_integral_value(ROUND_CEILING))
        details = _details(usage.raw, "input_tokens_details", "prompt_tokens_details")
        cached = min(details.get("cached_tokens", 0), usage.input_tokens)
        written = min(details.get("cache_write_tokens", 0), usage.input_tokens - cached)
        rest = usage.input_tokens - cached - written
        if self.image_input is not None and {"text_tokens", "image_tokens"} <= details.keys():
            images = min(details["image_tokens"], rest)
        else:
            images = rest if (self.image_input or 0) > (self.input or 0) else 0
        drawn = usage.output_tokens if self.image_output is not None else 0
        for tokens, price in (
            (cached, self.input if self.cached_input is None else self.cached_input),
            (written, self.input if self.cache_write is None else self.cache_write),
            (images, self.image_input),
            (rest - images, self.input),
            (drawn, self.image_output),
            (usage.output_tokens - drawn, self.output),
        ):
            if tokens and price is None:
                return None
            cost += tokens * (price or Decimal(0))
        if usage.images and not (usage.input_tokens or usage.output_tokens):
            return None
        return int(cost.to_integral_value(ROUND_CEILING))


class Limits(BaseModel):
    """What an account may do in a minute, where it is known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rpm: int | None = Field(default=None, ge=1)
    tpm: int | None = Field(default=None, ge=1)
    ipm: int | None = Field(default=None, ge=1)


class Vision(BaseModel):
    """Input tokens of an image that is cut into tiles of 512 pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: int
    base: int
    tile: int


class Facts(BaseModel):
    """What is known of one model. The defaults are those of a server that keeps to the protocol."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: str
    model: str
    region: str = ""
    known: bool = True
    """False for a model that no file names: nothing here was read anywhere."""

    price: Price | None = None
    batch_discount: Decimal | None = Field(default=None, gt=0, le=1)
    limits: Limits = Limits()
    shutdown: date | None = None
    replacement: str = ""
    source: str = ""
    as_of: date | None = None

    temperature: bool = True
    max_tokens_parameter: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    reasoning_effort: str | None = None
    """Sent with every request to this model unless the job says otherwise."""
    enable_thinking: bool | None = None
    """The same for DashScope."""
    vision: Vision | None = None
    image_sizes: tuple[str, ...] = ("1024x1024", "1536x1024", "1024x1536")
    image_tokens: Mapping[str, int] = Field(default_factory=dict)
    image_quality: bool = True
    image_format: Literal["b64_json"] | None = None
    """The `response_format` to ask for; models of today refuse the parameter."""
    variation: Literal["edit", "variations", "none"] = "edit"
    one_shot: bool = False
    """DashScope: the image comes with the reply and no task is polled."""

    def cost(self, usage: Usage, *, batch: bool = False) -> int | None:
        """Micro-dollars, rounded up; None where the price is unknown."""
        if self.price is None:
            return None
        cost = self.price.micro_dollars(usage)
        if cost is None or not batch:
            return cost
        if self.batch_discount is None:
            return None
        return int((cost * self.batch_discount).to_integral_value(ROUND_CEILING))

    def is_shut_down(self, today: date) -> bool:
        return self.shutdown is not None and self.shutdown <= today

    def days_left(self, today: date) -> int | None:
        return None if self.shutdown is None else (self.shutdown - today).days


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """All facts, and the version to store beside a price."""

    version: str
    entries: Mapping[tuple[str, str, str], Mapping[str, Any]]

    def facts(self, provider: str, model: str, *, region: str = "") -> Facts:
        """Facts of a region over those of every region; a model that is not listed is `known=False`."""
        merged = {**self.entries.get((provider, model, ""), {}), **self.entries.get((provider, model, region), {})}
        about = {"provider": provider, "model": model, "region": region, "known": bool(merged)}
        return Facts.model_validate({**merged, **about})

    def near_shutdown(self, today: date, *, within_days: int = 60) -> tuple[Facts, ...]:
        """Models that stop within so many days or have stopped, soonest first."""
        found = [self.facts(provider, model, region=region) for provider, model, region in self.entries]
        stopping = [one for one in found if one.shutdown and (one.shutdown - today).days <= within_days]
        return tuple(sorted(stopping, key=lambda one: (one.shutdown or date.max, one.provider, one.model)))


def facts(provider: str, model: str, *, region: str = "") -> Facts:
    """What is known of a model now."""
    return catalogue().facts(provider, model, region=region)


def near_shutdown(today: date, *, within_days: int = 60) -> tuple[Facts, ...]:
    """Every listed model that stops within so many days or has stopped, soonest first."""
    return catalogue().near_shutdown(today, within_days=within_days)


def warning(one: Facts, today: date, *, within_days: int = 60) -> str:
    """One line on a model that stops soon or has stopped; "" if it does not."""
    left = one.days_left(today)
    if left is None or left > within_days:
        return ""
    when = f"was shut down on {one.shutdown}" if left <= 0 else f"shuts down on {one.shutdown} ({left} days)"
    instead = f"; its provider names {one.replacement} instead" if one.replacement else ""
    return f"{one.model} ({one.provider}) {when}{instead} [{one.source}, {one.as_of}]"


def catalogue() -> Catalogue:
    """Our facts, with the overrides that the environment names."""
    named = os.environ.get(OVERRIDES, "")
    paths = [Path(__file__).with_name("models.toml")]
    if named:
        paths.append(Path(named))
    try:
        stamps = tuple((str(path), path.stat().st_mtime_ns) for path in paths)
    except OSError as error:
        raise ModelsError(f"{error.filename} (named by {OVERRIDES}) cannot be read: {error.strerror}") from None
    return _loaded(stamps)


@cache
def _loaded(stamps: tuple[tuple[str, int], ...]) -> Catalogue:
    return load([Path(path) for path, _ in stamps])


def load(paths: Sequence[Path]) -> Catalogue:
    """Facts of several files: a later file wins, field by field."""
    entries: dict[tuple[str, str, str], dict[str, Any]] = {}
    versions: list[str] = []
    for path in paths:
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ModelsError(f"{path}: the facts on models cannot be read: {error}") from None
        versions.append(str(table.get("version", path.name)))
        for number, row in enumerate(table.get("model", [])):
            _take(entries, path, number, dict(row))
    return Catalogue(version="+".join(versions), entries=entries)


def _take(entries: dict[tuple[str, str, str], dict[str, Any]], path: Path, number: int, row: dict[str, Any]) -> None:
    where = f"{path}: model {number + 1}"
    provider, names, region = row.pop("provider", ""), row.pop("names", []), row.pop("region", "")
    if not (isinstance(provider, str) and provider and isinstance(names, list) and names and isinstance(region, str)):
        raise ModelsError(f"{where}: an entry needs `provider` and a list `names`")
    for name in names:
        merged = {**entries.get((provider, name, region), {}), **row}
        try:
            Facts.model_validate({**merged, "provider": provider, "model": name, "region": region})
        except ValidationError as error:
            problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
            field = ".".join(str(part) for part in problem["loc"])
            raise ModelsError(f"{where} ({name}): {field}: {problem['msg']}") from None
        entries[provider, name, region] = merged


def _details(raw: Mapping[str, Any], *names: str) -> dict[str, int]:
    """The parts that a provider reports of one side of a usage."""
    for name in names:
        details = raw.get(name)
        if isinstance(details, Mapping):
            return {key: value for key, value in details.items() if isinstance(value, int) and value >= 0}
    return {}
