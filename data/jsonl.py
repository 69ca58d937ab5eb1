"""Texts as JSON lines: an object a line, as Hugging Face and most crawls write them. A line is a slot, whatever it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt, field_validator

from .captions import JOINT
from .config import DataConfig
from .errors import Undeclared
from .files import MEBIBYTE, open_container
from .slots import Listing
from .text_set import Caption, Captions


class JsonLinesConfig(DataConfig, frozen=True):
    """`kind = "jsonl"`.

    text       the key of the text in each object
    label      the key of its label, or a list of several, joined by " | "; without one every text is of the one class
    test_path  a second file of the same keys, whose records never vote
    max_chars  a longer text is a ghost
    max_bytes  of a file
    """

    kind: Literal["jsonl"] = "jsonl"
    path: Path
    test_path: Path | None = None
    text: str = "text"
    label: str | tuple[str, ...] | None = None
    max_chars: PositiveInt = 20_000
    max_bytes: PositiveInt = 512 * MEBIBYTE

    @property
    def text_bytes(self) -> int:
        return 4 * self.max_chars

    @field_validator("size", "channels")
    @classmethod
    def _of_images_only(cls, value: object) -> object:
        if value is not None:
            raise ValueError("a set of texts has no size and no channels; drop it")
        return value

    def listing(self) -> Listing:
        if self.label is None and len(self.classes) != 1:
            raise Undeclared(
                f"{self.where}: no label and {len(self.classes)} classes; name its key by label, or declare one class"
            )
        test = None if self.test_path is None else self._slots(self.test_path, "test")
        return Listing(voters=self._slots(self.path, "line"), test=test)

    def survey(self) -> dict[str, Any]:
        if self.label is None:
            return {"classes": (self.name,)}
        return {"classes": tuple(sorted({row.label for row in self._rows(self.path) if row.label}))}

    def _slots(self, path: Path, ids: str) -> Captions:
        return Captions(
            self._rows(path),
            ids=ids,
            classes=self.classes,
            labelled=self.label is not None,
            max_chars=self.max_chars,
        )

    def _rows(self, path: Path) -> list[Caption]:
        with open_container(path, max_bytes=self.max_bytes, where=self.where) as file:
            lines = file.read().removeprefix(b"\xef\xbb\xbf").split(b"\n")
        if lines and not lines[-1]:
            lines.pop()  # the end of the last line begins no other
        return [self._row(line) for line in lines]

    def _row(self, line: bytes) -> Caption:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            return Caption(text=None)
        text = found.get(self.text)
        keys = (self.label,) if isinstance(self.label, str) else self.label or ()
        parts = [found.get(key) for key in keys]
        whole = bool(parts) and all(isinstance(part, str | int) for part in parts)
        return Caption(
            text=text if isinstance(text, str) else None,
            label=JOINT.join(str(part).strip() for part in parts) if whole else None,
        )
