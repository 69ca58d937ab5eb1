"""A zip of images: class folders, parts such as train/ and test/, or the dataset.json of StyleGAN and EDM.

A slot is a member whose name ends as an image's does; the archive is read where it lies.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import PositiveInt

from .archive import Member, ZipBlobs, members
from .config import ImageDataConfig
from .encoded import EncodedImages
from .errors import Damaged, Undeclared
from .files import GIBIBYTE, MEBIBYTE
from .image_set import shape_of
from .labels import from_names, from_numbers
from .slots import Listing, Unusable

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
LABELS_FILE = "dataset.json"
USUAL_PARTS = (("train/", "test/"), ("train/", "val/"), ("train/", "valid/"))
SURVEYED = 200


class ZipConfig(ImageDataConfig, frozen=True):
    """`kind = "zip"`.

    part, test_part  the beginnings of the names of voters and of the test part; by default `train/` with `test/` or `val/`
                     where the archive has them, else everything
    layout           "classes": the class is the folder that a file lies in; "names": the file name up to an underscore;
                     "one-class"; "dataset.json": that member's `labels`; "auto": dataset.json if it is there, else
                     one-class where one class is declared, else classes
    test_path        a second archive, whose records never vote
    max_bytes        a larger image is never unpacked
    max_archive      a larger archive is refused
    """

    kind: Literal["zip"] = "zip"
    path: Path
    test_path: Path | None = None
    part: str | None = None
    test_part: str | None = None
    layout: Literal["auto", "classes", "names", "one-class", "dataset.json"] = "auto"
    resize: Literal["refuse", "fit"] = "fit"
    max_bytes: PositiveInt = 32 * MEBIBYTE
    max_archive: PositiveInt = 1024 * GIBIBYTE

    def listing(self) -> Listing:
        found = members(self.path, max_bytes=self.max_archive, where=self.where)
        part, test_part = self._parts_of(found)
        test: EncodedImages | None = None
        if self.test_path is not None:
            other = members(self.test_path, max_bytes=self.max_archive, where=self.where)
            test = self._slots(self.test_path, other, self.test_part or "")
        elif test_part is not None:
            test = self._slots(self.path, found, test_part)
        return Listing(voters=self._slots(self.path, found, part), test=test)

    def survey(self) -> dict[str, Any]:
        found = members(self.path, max_bytes=self.max_archive, where=self.where)
        chosen = _images(found, self._parts_of(found)[0])
        folders = {member.name.rpartition("/")[0].rpartition("/")[2] for member in chosen}
        classes = sorted(folders) if len(folders) > 1 else [self.name]
        if any(member.name == LABELS_FILE for member in found):
            numbers = {label for label in self._json(self.path, found).values() if label >= 0}
            classes = [str(number) for number in sorted(numbers)] or [self.name]
        step = max(1, len(chosen) // SURVEYED)
        with ZipBlobs(self.path, chosen, max_bytes=self.max_bytes).opened() as content_of:
            contents = [content_of(row) for row in range(0, len(chosen), step)]
        shapes = Counter(
            shape for each in contents if not isinstance(each, Unusable) and (shape := shape_of(each)) is not None
        )
        if not shapes:
            return {"classes": tuple(classes)}
        (width, height, channels), _ = shapes.most_common(1)[0]
        return {"classes": tuple(classes), "size": (width, height), "channels": channels}

    def _parts_of(self, found: Sequence[Member]) -> tuple[str, str | None]:
        if self.part is not None or self.test_part is not None:
            return self.part or "", None if self.test_path is not None else self.test_part
        beginnings = {member.name.partition("/")[0] + "/" for member in found if "/" in member.name}
        for part, test_part in USUAL_PARTS:
            if {part, test_part} <= beginnings:
                return part, test_part
        return "", None

    def _slots(self, path: Path, found: Sequence[Member], beginning: str) -> EncodedImages:
        chosen = _images(found, beginning)
        if not chosen:
            raise Damaged(f"{self.where}: {path} holds no image whose name begins with {beginning!r}; check `part`")
        layout = self._layout(found)
        if layout == "dataset.json":
            by_name = self._json(path, found)
            labels = from_numbers([by_name.get(member.name, -1) for member in chosen], self.classes)
        else:
            labels = from_names([self._class(member.name, layout) for member in chosen], self.classes)
        blobs = ZipBlobs(path, chosen, max_bytes=self.max_bytes)
        return EncodedImages(blobs, labels, ids=[member.name for member in chosen], rules=self.rules())

    def _layout(self, found: Sequence[Member]) -> str:
        if self.layout == "one-class" and len(self.classes) != 1:
            raise Undeclared(f'{self.where}: layout = "one-class" needs one class; {len(self.classes)} are declared')
        if self.layout != "auto":
            return self.layout
        if len(self.classes) == 1:
            return "one-class"
        return "dataset.json" if any(member.name == LABELS_FILE for member in found) else "classes"

    def _class(self, name: str, layout: str) -> str:
        folder, _, last = name.rpartition("/")
        if layout == "one-class":
            return self.classes[0]
        return folder.rpartition("/")[2] if layout == "classes" else last.rpartition("_")[0]

    def _json(self, path: Path, found: Sequence[Member]) -> Mapping[str, int]:
        place = next((member for member in found if member.name == LABELS_FILE), None)
        with ZipBlobs(path, [place], max_bytes=512 * MEBIBYTE).opened() as content_of:
            content = content_of(0)
        try:
            assert not isinstance(content, Unusable)
            listed = json.loads(content)["labels"] or []
            return {str(name): int(np.int64(label)) for name, label in listed}
        except (AssertionError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            raise Damaged(f"{self.where}: {LABELS_FILE} in {path} holds no list `labels` of [name, number]") from None


def _images(found: Sequence[Member], beginning: str) -> list[Member]:
    return [member for member in found if member.name.startswith(beginning) and member.name.lower().endswith(SUFFIXES)]
