"""Registry: sources of private sets by name, from the entry points `privolve.data`, imported only when used."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

from .. import plugins
from .errors import DataError, UnknownKind

if TYPE_CHECKING:
    from .config import DataConfig

GROUP = "privolve.data"


def names() -> tuple[str, ...]:
    """The kinds that are installed, sorted; nothing of them is imported."""
    return tuple(sorted(_found()))


def config_class(kind: str) -> type[DataConfig]:
    """The config class of a kind; imports its module, and no other source's."""
    from .config import DataConfig

    found = _found()
    if kind not in found:
        hint = plugins.meant(kind, found)
        raise UnknownKind(f"there is no data of kind {kind!r}; {hint}known kinds: {', '.join(sorted(found)) or 'none'}")
    try:
        loaded = found[kind].load()
    except (ImportError, AttributeError) as error:
        raise UnknownKind(f"data of kind {kind!r} ({found[kind].value}) cannot be imported: {error}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, DataConfig)):
        raise UnknownKind(
            f"data of kind {kind!r}: {found[kind].value} is no DataConfig; correct its package's entry point"
        )
    return loaded


def parse(table: Mapping[str, Any]) -> DataConfig:
    """The config that a `[data]` table describes."""
    from pydantic import ValidationError

    kind = table.get("kind")
    if not isinstance(kind, str):
        raise UnknownKind(f"[data]: `kind` must name a source; known kinds: {', '.join(names()) or 'none'}")
    chosen = config_class(kind)
    try:
        return chosen.model_validate(dict(table))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in problem["loc"]) or "kind"
        if problem["type"] == "extra_forbidden":
            known = sorted(chosen.model_fields)
            hint = plugins.meant(field, known)
            raise DataError(
                f"[data]: {kind!r} has no setting {field!r}; {hint}its settings are {', '.join(known)}"
            ) from None
        if problem["type"] == "missing":
            raise DataError(f"[data]: {field}: missing; it has no default") from None
        message = problem["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
        raise DataError(
            f"[data]: {field}: {message[:1].lower()}{message[1:]}, not {repr(problem['input'])[:80]}"
        ) from None


def _found() -> dict[str, EntryPoint]:
    try:
        return plugins.points(GROUP)
    except plugins.ClaimedTwice as error:
        raise UnknownKind(
            f"two packages register data of kind {error.kind!r}: {error.packages}; uninstall one"
        ) from None
