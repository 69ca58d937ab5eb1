"""Registry: metrics by name, from the entry points `privolve.metrics`, imported only when used.

Anybody may register a metric: a subclass of `metric_config.MetricConfig`. It sees items that somebody else disclosed, and its
scores are protected only as far as their inputs are, so that no metric can weaken the guarantee.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from typing import Any

from pydantic import ValidationError

from .. import plugins
from .metric import MetricError
from .metric_config import MetricConfig

GROUP = "privolve.metrics"


class MetricConfigError(MetricError):
    """A table names no metric that is installed, or a setting that it does not have."""


def names() -> tuple[str, ...]:
    """The kinds that are installed, sorted; nothing is imported."""
    return tuple(sorted(_found()))


def config_class(kind: str) -> type[MetricConfig]:
    """The class of a kind; imports its module, and no other metric's."""
    found = _found()
    if kind not in found:
        raise MetricConfigError(
            f"there is no metric of kind {kind!r}; {plugins.meant(kind, found)}known kinds: {', '.join(sorted(found)) or 'none'}."
        )
    try:
        loaded = found[kind].load()
    except (ImportError, AttributeError) as error:
        raise MetricConfigError(f"the metric {kind!r} ({found[kind].value}) cannot be imported: {error}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, MetricConfig)):
        raise MetricConfigError(f"the entry point {kind!r} ({found[kind].value}) names no MetricConfig")
    return loaded


def parse(table: Mapping[str, Any] | str) -> MetricConfig:
    """The metric that a table `{ kind = "...", ... }` describes, or the name of one with its default settings."""
    table = {"kind": table} if isinstance(table, str) else table
    kind = table.get("kind")
    if not isinstance(kind, str):
        raise MetricConfigError(f"`kind` must name a metric. Known kinds: {', '.join(names()) or 'none'}.")
    chosen = config_class(kind)
    try:
        return chosen.model_validate(dict(table))
    except ValidationError as error:
        raise MetricConfigError(_first_problem(kind, chosen, error)) from None


def _found() -> dict[str, EntryPoint]:
    try:
        return plugins.points(GROUP)
    except plugins.ClaimedTwice as error:
        raise MetricConfigError(
            f"two packages register a metric {error.kind!r}: {error.packages}. Uninstall one."
        ) from None


def _first_problem(kind: str, chosen: type[MetricConfig], error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        settings = sorted(set(chosen.model_fields) - {"kind"})
        return (
            f"metric {kind!r}: {field!r} is not one of its settings; {plugins.meant(field, settings)}"
            f"its settings: {', '.join(settings) or 'none'}."
        )
    return f"metric {kind!r}: {field}: {problem['msg']}"
