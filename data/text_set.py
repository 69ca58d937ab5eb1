"""Texts as records: one caption a slot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from .private_set import Record
from .slots import Unusable


@dataclass(frozen=True)
class Caption:
    """A row as stored; None for a field that the row does not have. `label` is None where the set has no labels."""

    text: str | None
    label: str | None = None


@final
class Captions:
    """Slots that are rows of text. Undecodable bytes arrive as lone surrogates and make a ghost."""

    def __init__(
        self, rows: Sequence[Caption], *, ids: str, classes: tuple[str, ...], labelled: bool, max_chars: int
    ) -> None:
        self._rows = rows
        self._classes = {name: index for index, name in enumerate(classes)}
        self._labelled = labelled
        self._max_chars = max_chars
        self.ids = [f"{ids}/{row}" for row in range(len(rows))]

    def read(self, rows: Sequence[int]) -> Sequence[Record | Unusable]:
        return [self._record(self._rows[row]) for row in rows]

    def raw(self, row: int) -> bytes:
        stored = self._rows[row]
        return json.dumps([stored.label, stored.text]).encode("ascii")

    def _record(self, stored: Caption) -> Record | Unusable:
        if self._labelled and stored.label is None:
            return Unusable("its row has too few fields")
        label = self._classes.get((stored.label or "").strip()) if self._labelled else 0
        return caption_record(stored, label, max_chars=self._max_chars)


def caption_record(stored: Caption, label: int | None, *, max_chars: int) -> Record | Unusable:
    """The record of a text whose label is known; None is a label that is not declared."""
    if stored.text is None:
        return Unusable("its row has too few fields")
    text = stored.text.strip()
    if not text:
        return Unusable("its text is empty")
    if len(text) > max_chars:
        return Unusable(f"its text has {len(text)} characters, more than max_chars = {max_chars}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        return Unusable("its text is not UTF-8")
    if label is None:
        return Unusable("its label is not declared")
    return Record(text, label)
