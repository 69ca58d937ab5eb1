"""Registry: adapters by name, from the entry points `privolve.adapters`, imported only when used.

Anybody may register an adapter; where its input goes is a claim that only ours may make: a config class from outside
privolve counts as REMOTE.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from typing import Any

from pydantic import ValidationError

from .. import plugins
from .contract import AdapterConfig, AdapterUnavailable, Location

GROUP = "privolve.adapters"


class AdapterConfigError(ValueError):
    """An `[adapters]` table names no adapter of ours or a setting that it does not have."""


def names() -> tuple[str, ...]:
    """The kinds that are installed, sorted; nothing is imported."""
    return tuple(sorted(_found()))


def config_class(kind: str) -> type[AdapterConfig]:
    """The config class of a kind; imports its module, and no other adapter's."""
    found = _found()
    if kind not in found:
        raise AdapterConfigError(
            f"there is no adapter of kind {kind!r}; {plugins.meant(kind, found)}known kinds: {', '.join(sorted(found)) or 'none'}."
        )
    try:
        loaded = found[kind].load()
    except (ImportError, AttributeError) as error:
        raise AdapterUnavailable(f"the adapter {kind!r} ({found[kind].value}) cannot be imported: {error}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, AdapterConfig)):
        raise AdapterUnavailable(f"the entry point {kind!r} ({found[kind].value}) names no AdapterConfig")
    return loaded


def parse(table: Mapping[str, Any], *, role: str = "") -> AdapterConfig:
    """The config that a table `{ kind = "...", ... }` describes."""
    where = f"adapters.{role}" if role else "adapters"
    kind = table.get("kind")
    if not isinstance(kind, str):
        raise AdapterConfigError(f"{where}: `kind` must name an adapter. Known kinds: {', '.join(names()) or 'none'}.")
    try:
        chosen = config_class(kind)
    except AdapterConfigError as error:
        raise AdapterConfigError(f"{where}: {error}") from None
    try:
        return chosen.model_validate(dict(table))
    except ValidationError as error:
        raise AdapterConfigError(_first_problem(where, kind, chosen, error)) from None


def is_ours(config: AdapterConfig) -> bool:
    """Whether privolve itself defines the config, and so may say where its input goes."""
    return type(config).__module__.partition(".")[0] == plugins.OURS


def location(config: AdapterConfig) -> Location:
    """Where the input of this adapter goes, as far as we can vouch for it."""
    return config.location if is_ours(config) else Location.REMOTE


def _found() -> dict[str, EntryPoint]:
    try:
        return plugins.points(GROUP)
    except plugins.ClaimedTwice as error:
        raise AdapterConfigError(
            f"two packages register an adapter {error.kind!r}: {error.packages}. Uninstall one."
        ) from None


def _first_problem(where: str, kind: str, chosen: type[AdapterConfig], error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        settings = sorted(set(chosen.model_fields) - {"kind"})
        return (
            f"{where}: {field!r} is not a setting of kind {kind!r}; {plugins.meant(field, settings)}"
            f"its settings: {', '.join(settings) or 'none'}."
        )
    return f"{where}.{field}: {problem['msg']} (kind {kind!r})"
