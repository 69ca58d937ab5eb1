"""CelebA by one of its 40 attributes, in the official partition (Liu et al., ICCV 2015).

`path` holds the files of the publisher: `list_eval_partition.txt`, `list_attr_celeba.txt`, and the images as
`img_align_celeba.zip` or unpacked in `img_align_celeba/`. A slot is a line of the partition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from .archive import ZipBlobs, members
from .config import ImageDataConfig
from .encoded import EncodedImages
from .errors import Damaged, Unreadable
from .files import GIBIBYTE, MEBIBYTE, open_container
from .labels import from_numbers
from .slots import Listing
from .tree import FileBlobs

IMAGES = "img_align_celeba"
PARTITION = "list_eval_partition.txt"
ATTRIBUTES = "list_attr_celeba.txt"

Part = Annotated[int, Field(ge=0, le=2)]


class CelebAConfig(ImageDataConfig, frozen=True):
    """`kind = "celeba-files"`: the reader behind `kind = "celeba"`.

    attribute     the column that tells the two classes apart: -1 is the first, 1 the second
    parts, tests  which of the partition's parts vote and which never do: 0 train, 1 validation, 2 test
    """

    kind: Literal["celeba-files"] = "celeba-files"
    path: Path
    attribute: str = "Male"
    classes: tuple[Annotated[str, Field(min_length=1)], ...] = ("female", "male")
    parts: tuple[Part, ...] = (0,)
    tests: tuple[Part, ...] = (2,)
    resize: Literal["refuse", "fit"] = "fit"
    max_bytes: PositiveInt = 32 * MEBIBYTE

    def listing(self) -> Listing:
        part_of = self._partition_of()
        values = self._values()
        tests = [name for name, part in part_of.items() if part in self.tests and part not in self.parts]
        return Listing(
            voters=self._slots([name for name, part in part_of.items() if part in self.parts], values),
            test=self._slots(tests, values) if tests else None,
        )

    def survey(self) -> dict[str, Any]:
        return {"classes": self.classes, "size": (178, 218), "channels": 3}

    def _slots(self, names: Sequence[str], values: Mapping[str, int]) -> EncodedImages:
        labels = from_numbers([values.get(name, -1) for name in names], self.classes)
        packed = self.path / f"{IMAGES}.zip"
        if packed.is_file():
            by_name = {
                member.name.rpartition("/")[2]: member
                for member in members(packed, max_bytes=64 * GIBIBYTE, where=self.where)
            }
            blobs = ZipBlobs(packed, [by_name.get(name) for name in names], max_bytes=self.max_bytes)
        elif (self.path / IMAGES).is_dir():
            folder = self.path / IMAGES
            inner = folder / IMAGES
            blobs = FileBlobs(inner if inner.is_dir() else folder, names, max_bytes=self.max_bytes)
        else:
            raise Unreadable(f"{self.where}: {self.path} has neither {IMAGES}.zip nor {IMAGES}/; put the images there")
        return EncodedImages(blobs, labels, ids=names, rules=self.rules())

    def _partition_of(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for line in self._lines(PARTITION):
            words = line.split()
            if len(words) != 2 or words[1] not in ("0", "1", "2") or words[0] in found or "/" in words[0]:
                raise Damaged(
                    f"{self.where}: {PARTITION} has a line that is no new file name with 0, 1 or 2; fetch it again"
                )
            found[words[0]] = int(words[1])
        return found

    def _values(self) -> dict[str, int]:
        lines = self._lines(ATTRIBUTES)
        header = lines[1].split() if len(lines) > 1 else []
        if header.count(self.attribute) != 1:
            raise Damaged(
                f"{self.where}: {ATTRIBUTES} has no column {self.attribute!r}; check attribute, or fetch it again"
            )
        place = header.index(self.attribute) + 1
        rows = (line.split() for line in lines[2:])
        return {words[0]: {"-1": 0, "1": 1}.get(words[place], -1) for words in rows if len(words) == len(header) + 1}

    def _lines(self, name: str) -> list[str]:
        with open_container(self.path / name, max_bytes=512 * MEBIBYTE, where=self.where) as file:
            lines = file.read().decode("utf-8", "replace").splitlines()
        return [line for line in lines if line.strip()]
