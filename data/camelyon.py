"""Camelyon17 as WILDS cuts and splits it: patches of lymph nodes from five hospitals (Bandi et al., 2018; Koh et al., 2021).

`path` is WILDS' folder `camelyon17_v1.0`, with `metadata.csv` and `patches/`. A slot is a row of the metadata. The split is
the official one: hospital 1 is for validation and hospital 2 for tests, and of the others the column `split` keeps some.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt, field_validator

from .config import ImageDataConfig
from .encoded import EncodedImages
from .errors import Damaged
from .files import MEBIBYTE, open_container
from .labels import from_numbers
from .slots import Listing
from .tree import FileBlobs

METADATA = "metadata.csv"
COLUMNS = ("patient", "node", "x_coord", "y_coord", "tumor", "center", "split")
VALIDATION_CENTER, TEST_CENTER = "1", "2"
Part = Literal["train", "id_val", "val", "test"]


class CamelyonConfig(ImageDataConfig, frozen=True):
    """`kind = "camelyon17-files"`: the reader behind `kind = "camelyon17"`.

    parts, tests  which of WILDS' parts vote, and which never do
    """

    kind: Literal["camelyon17-files"] = "camelyon17-files"
    path: Path
    classes: tuple[str, ...] = ("normal", "tumor")
    parts: tuple[Part, ...] = ("train",)
    tests: tuple[Part, ...] = ("test",)
    resize: Literal["refuse", "fit"] = "fit"
    max_bytes: PositiveInt = 32 * MEBIBYTE

    @field_validator("classes")
    @classmethod
    def _two(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(classes) != 2:
            raise ValueError("there are two classes: without and with tumour")
        return classes

    def listing(self) -> Listing:
        rows = self._rows()
        tests = [row for row in rows if row[0] in self.tests and row[0] not in self.parts]
        return Listing(
            voters=self._slots([row for row in rows if row[0] in self.parts]),
            test=self._slots(tests) if tests else None,
        )

    def survey(self) -> dict[str, Any]:
        return {"classes": self.classes, "size": (96, 96), "channels": 3}

    def _slots(self, rows: Sequence[tuple[str, str, int]]) -> EncodedImages:
        names = [name for _, name, _ in rows]
        labels = from_numbers([label for _, _, label in rows], self.classes)
        return EncodedImages(
            FileBlobs(self.path, names, max_bytes=self.max_bytes), labels, ids=names, rules=self.rules()
        )

    def _rows(self) -> list[tuple[str, str, int]]:
        """Part, file name and label of every patch."""
        with open_container(self.path / METADATA, max_bytes=512 * MEBIBYTE, where=self.where) as file:
            reader = csv.DictReader(io.StringIO(file.read().decode("utf-8", "replace"), newline=""))
        if not set(COLUMNS) <= set(reader.fieldnames or ()):
            raise Damaged(f"{self.where}: {METADATA} lacks one of the columns {', '.join(COLUMNS)}; fetch it again")
        return [self._row(row) for row in reader]

    def _row(self, row: dict[str, str | None]) -> tuple[str, str, int]:
        patient, node, x, y, tumor, center, split = (row[column] or "" for column in COLUMNS)
        if not all(re.fullmatch(r"[0-9]{1,9}", value) for value in (patient, node, x, y, tumor, center, split)):
            raise Damaged(f"{self.where}: {METADATA} has a row whose fields are not whole numbers; fetch it again")
        # Written as by pandas from text: a patient is 004 and not 4.
        folder = f"patient_{patient.zfill(3)}_node_{node}"
        name = f"patches/{folder}/patch_{folder}_x_{x}_y_{y}.png"
        part = {VALIDATION_CENTER: "val", TEST_CENTER: "test"}.get(center) or ("train" if split == "0" else "id_val")
        return part, name, int(tumor) if tumor in ("0", "1") else -1
