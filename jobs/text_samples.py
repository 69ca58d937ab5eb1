"""Synthetic texts from anywhere: a run's folder, a .csv, .jsonl or .txt file, or a folder of .txt files.

Whoever names them takes them for released: what is wrong with them is said in full, and no text is left out in silence.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .job import InputError

COLUMNS = ("text", "caption")
"""Where a text may stand, in a header or under a key."""
LABEL = "label"
MAX_BYTES = 1 << 30

Rows = list[tuple[str, str | None]]


@dataclass(frozen=True, kw_only=True, eq=False)
class TextSamples:
    """`texts` and `labels`, which index the classes that were asked for."""

    name: str
    texts: tuple[str, ...]
    labels: np.ndarray

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps([self.texts, self.labels.tolist()]).encode()).hexdigest()


def read_texts(path: Path, classes: Sequence[str]) -> TextSamples:
    """The texts at `path` with labels of `classes`. Raises InputError, one line."""
    if (path / "release" / "samples.jsonl").is_file():
        rows = _json_lines(path / "release" / "samples.jsonl")
    elif path.is_dir():
        rows = _folder(path)
    elif not path.is_file():
        raise InputError(
            f"{path}: does not exist; name a run's folder, a .csv, .jsonl or .txt file, or a folder of texts"
        )
    elif path.suffix == ".jsonl":
        rows = _json_lines(path)
    elif path.suffix == ".csv":
        rows = _table(path)
    elif path.suffix == ".txt":
        rows = [(line, None) for line in _content(path).splitlines() if line.strip()]
    else:
        raise InputError(f"{path}: is none of a run's folder, a .csv, .jsonl or .txt file, and a folder of texts")
    if not rows:
        raise InputError(f"{path}: holds no text")
    for number, (text, _) in enumerate(rows, 1):
        if not text.strip():
            raise InputError(f"{path}: text {number} is empty; leave it out first")
    labels = np.array([_label(name, classes, path) for _, name in rows], dtype=np.int64)
    return TextSamples(
        name=path.name if path.is_dir() else path.stem, texts=tuple(text.strip() for text, _ in rows), labels=labels
    )


def _label(name: str | None, classes: Sequence[str], path: Path) -> int:
    if name is None and len(classes) == 1:
        return 0
    if name is None:
        raise InputError(f"{path}: holds no labels, and the data has {len(classes)} classes; add a column {LABEL!r}")
    if name in classes:
        return classes.index(name)
    if len(classes) == 1:
        return 0
    shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    raise InputError(f"{path}: {name!r} is no class of the data; its classes are {shown}")


def _json_lines(path: Path) -> Rows:
    rows: Rows = []
    for number, line in enumerate(_content(path).splitlines(), 1):
        try:
            found = json.loads(line)
            text = next(found[key] for key in COLUMNS if isinstance(found.get(key), str))
        except (ValueError, AttributeError, StopIteration):
            raise InputError(f"{path}: line {number} holds no text under {' or '.join(map(repr, COLUMNS))}") from None
        label = found.get(LABEL)
        rows.append((text, None if label is None else str(label).strip()))
    return rows


def _table(path: Path) -> Rows:
    reader = csv.DictReader(io.StringIO(_content(path), newline=""))
    header = reader.fieldnames or ()
    column = next((name for name in COLUMNS if name in header), None)
    if column is None:
        raise InputError(f"{path}: its header has no column {' or '.join(map(repr, COLUMNS))}")
    return [(row[column] or "", (row[LABEL] or "").strip() if LABEL in header else None) for row in reader]


def _folder(path: Path) -> Rows:
    """A text a file: in subfolders by class, or of the one class that there is."""
    files = sorted(each for each in path.rglob("*.txt") if not each.name.startswith("."))
    return [(_content(file), file.parent.name if file.parent != path else None) for file in files]


def _content(path: Path) -> str:
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: is larger than {MAX_BYTES:,} bytes; split it")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8; convert it first") from None
