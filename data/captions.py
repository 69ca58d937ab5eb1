"""A CSV file of texts: one a row, with a header or with columns that the job names."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt, field_validator

from .config import DataConfig
from .errors import Damaged, Undeclared
from .files import MEBIBYTE, open_container
from .slots import Listing
from .text_set import Caption, Captions

JOINT = " | "
"""Between the parts of a label that is made of several columns."""


class CsvConfig(DataConfig, frozen=True):
    """`kind = "csv"`.

    text_column   the header of the column of texts
    label_column  that of the labels, or a list of several, joined by " | "; without one every text is of the one
                  declared class
    columns       names of the columns, for a file whose first row is already a record
    delimiter     a comma, or a tab by default where the name ends in .tsv or .txt
    quoted        whether double quotes enclose fields that hold delimiters or line ends
    test_path     a second file of the same columns, whose records never vote
    max_chars     a longer text is a ghost
    max_bytes     of a file

    A row is a slot, an empty one too: numbers of rows do not depend on what they hold.
    """

    kind: Literal["csv"] = "csv"
    path: Path
    test_path: Path | None = None
    text_column: str = "text"
    label_column: str | tuple[str, ...] | None = None
    columns: tuple[str, ...] = ()
    delimiter: Literal[",", ";", "\t", "|"] | None = None
    quoted: bool = True
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
        if self.label_column is None and len(self.classes) != 1:
            raise Undeclared(
                f"{self.where}: no label_column and {len(self.classes)} classes; name the column, or declare one class"
            )
        test = None if self.test_path is None else self._slots(self.test_path, "test")
        return Listing(voters=self._slots(self.path, "row"), test=test)

    def survey(self) -> dict[str, Any]:
        if self.label_column is None:
            return {"classes": (self.name,), **self._bare()}
        labels = {(row.label or "").strip() for row in self._rows(self.path)}
        return {"classes": tuple(sorted(label for label in labels if label))}

    def _bare(self) -> dict[str, Any]:
        """For a .txt of texts and nothing else, one a line: that the first is a record too, and its quotes its own."""
        if self.path.suffix.lower() != ".txt" or self.columns:
            return {}
        with open_container(self.path, max_bytes=self.max_bytes, where=self.where) as file:
            first = file.readline().removeprefix(b"\xef\xbb\xbf").strip()
        is_header = b"\t" in first or first.strip(b'"') == self.text_column.encode()
        return {} if is_header else {"columns": (self.text_column,), "quoted": False}

    def _slots(self, path: Path, ids: str) -> Captions:
        return Captions(
            self._rows(path),
            ids=ids,
            classes=self.classes,
            labelled=self.label_column is not None,
            max_chars=self.max_chars,
        )

    def _rows(self, path: Path) -> list[Caption]:
        with open_container(path, max_bytes=self.max_bytes, where=self.where) as file:
            content = file.read().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        reader = csv.reader(
            io.StringIO(content, newline=""),
            delimiter=self.delimiter or ("\t" if path.suffix.lower() in (".tsv", ".txt") else ","),
            quoting=csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE,
        )
        usual_limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # max_chars makes a ghost of a long one
        try:
            header = list(self.columns) or next(reader, [])
            text = self._column(header, self.text_column, path)
            named = (self.label_column,) if isinstance(self.label_column, str) else self.label_column or ()
            labels = [self._column(header, name, path) for name in named]
            return [_caption(row, text, labels) for row in reader]
        except csv.Error:
            raise Damaged(f"{self.where}: {path} cannot be read as CSV; check delimiter and quoted") from None
        finally:
            csv.field_size_limit(usual_limit)

    def _column(self, header: list[str], name: str, path: Path) -> int:
        if header.count(name) != 1:
            known = ", ".join(repr(column) for column in header[:20]) or "none"
            problem = "no" if name not in header else "more than one"
            raise Damaged(
                f"{self.where}: {path} has {problem} column {name!r}; its columns are {known}; name the one that is meant, "
                "or list `columns` where the first row is a record"
            )
        return header.index(name)


def _caption(row: list[str], text: int, labels: list[int]) -> Caption:
    label = None
    if labels and max(labels) < len(row):
        label = JOINT.join(row[place].strip() for place in labels)
    return Caption(text=row[text] if text < len(row) else None, label=label)
