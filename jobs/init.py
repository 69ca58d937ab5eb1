"""`privolve init`: a commented job file to start from, with a proposal for its `[data]` table."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from .. import plugins
from ..data import formats, registry
from ..trainers import registry as methods
from .job import InputError, kinds

STARTERS = ("dpiti", "image-pe")
DIGITS = """[data]
kind = "digits"                 # your own: kind = "folder", path = "...", classes = [...], size = [w, h], channels = 1 or 3
"""
NOTE = "# Proposed by a look at the data. What stands here is public from now on: check that it may be.\n"


def starter(kind: str, path: Path | None) -> str:
    """The text of a job file. With `path`, a look at the data there proposes what its owner might declare."""
    if kind not in STARTERS:
        if kind in kinds() or kind in ("suite", *methods.METHODS):
            raise InputError(
                f"there is no starter for {kind!r}: copy a file of it from examples/digits; there is one for "
                f"{', '.join(STARTERS)}"
            )
        hint = plugins.meant(kind, STARTERS)
        raise InputError(f"{kind!r} is no job kind; {hint}use one of {', '.join(STARTERS)}")
    text = resources.files("privolve.jobs").joinpath("starters", f"{kind}.toml").read_text(encoding="utf-8")
    return text.replace("@DATA@\n", (DIGITS if path is None else _proposed(path)) + "\n")


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{path}: exists already; name another file") from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); name another file, in a folder that is there"
        ) from None


def _proposed(path: Path) -> str:
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder; check --data")
    table: dict[str, Any] = {"kind": _kind(path), "path": str(path.resolve())}
    config = registry.parse(table)
    found = {**table, **config.propose()}
    lines = [f"{key} = {_toml(value)}\n" for key, value in found.items() if value is not None]
    return NOTE + "[data]\n" + "".join(lines)


def _kind(path: Path) -> str:
    kind = formats.kind_of(path)
    if kind is None:
        raise InputError(f"{path}: no source reads this; give {formats.READ}")
    return kind


def _toml(value: Any) -> str:
    """JSON writes texts, numbers, truth values and lists of them as TOML does."""
    return json.dumps(value, ensure_ascii=False)
