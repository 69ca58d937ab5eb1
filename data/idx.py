"""The files of MNIST and its relatives: IDX, with or without gzip, a pair for voters and often a pair for tests."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, PositiveInt

from .config import ImageDataConfig
from .errors import Damaged, Unreadable
from .files import GIBIBYTE, MEBIBYTE, open_container
from .image_set import ArrayImages
from .labels import from_array
from .slots import Listing

UNSIGNED_BYTE = 0x08
GZIP_MAGIC = b"\x1f\x8b"


class IdxConfig(ImageDataConfig, frozen=True):
    """`kind = "idx"`: `path` is the folder of the files.

    images, labels             file names of the voters; by default MNIST's, `train-images-idx3-ubyte` and so on,
                               with a dot or a hyphen before `idx`, with or without `.gz`
    test_images, test_labels   file names of the test part; by default MNIST's `t10k-...`, where the folder has them
    first_label                the number of the first class: those of EMNIST's letters begin at 1
    transposed                 whether images are stored by columns, as EMNIST's are
    max_bytes                  of one file, and of what it unpacks to
    """

    kind: Literal["idx"] = "idx"
    path: Path
    images: str | None = None
    labels: str | None = None
    test_images: str | None = None
    test_labels: str | None = None
    first_label: int = Field(default=0, ge=0)
    transposed: bool = False
    max_bytes: PositiveInt = 4 * GIBIBYTE

    def listing(self) -> Listing:
        voters = self._slots("train", self.images, self.labels)
        wanted = self.test_images is not None or self.test_labels is not None
        has_test = wanted or self._usual("t10k", "images-idx3") is not None
        return Listing(
            voters=voters, test=self._slots("t10k", self.test_images, self.test_labels) if has_test else None
        )

    def survey(self) -> dict[str, Any]:
        images = self._array(self._file("train", "images-idx3", self.images), dimensions=3)
        labels = self._array(self._file("train", "labels-idx1", self.labels), dimensions=1)
        height, width = images.shape[:0:-1] if self.transposed else images.shape[1:]
        return {
            "classes": tuple(str(label - self.first_label) for label in np.unique(labels).tolist()),
            "size": (width, height),
            "channels": 1,
        }

    def _slots(self, part: str, images: str | None, labels: str | None) -> ArrayImages:
        pixels = self._array(self._file(part, "images-idx3", images), dimensions=3)
        named = self._array(self._file(part, "labels-idx1", labels), dimensions=1)
        if self.first_label:
            named = named.astype(np.int64) - self.first_label
        return ArrayImages(
            pixels.transpose(0, 2, 1) if self.transposed else pixels,
            from_array(named, self.classes, count=len(pixels), where=f"{self.where}, {part}"),
            ids=part,
            rules=self.rules(),
            where=f"{self.where}, {part}",
        )

    def _file(self, part: str, what: str, name: str | None) -> Path:
        if name is not None:
            if Path(name).name != name or name in (".", ".."):
                raise Unreadable(f"{self.where}: {name!r} is no file name; files lie directly in `path`")
            return self.path / name
        found = self._usual(part, what)
        if found is None:
            raise Unreadable(
                f"{self.where}: {self.path} has no {part}-{what}-ubyte, with or without .gz; check `path`, or name the "
                "files by images and labels"
            )
        return found

    def _usual(self, part: str, what: str) -> Path | None:
        names = [
            f"{part}-{spelled}-ubyte{packed}" for spelled in (what, what.replace("-", ".")) for packed in ("", ".gz")
        ]
        return next(
            (self.path / name for name in names if (self.path / name).is_symlink() or (self.path / name).exists()), None
        )

    def _array(self, path: Path, *, dimensions: int) -> np.ndarray:
        with open_container(path, max_bytes=self.max_bytes, where=self.where) as file:
            packed = file.read(2) == GZIP_MAGIC
            file.seek(0)
            try:
                if packed:
                    with gzip.open(file) as unpacked:
                        return self._parsed(unpacked, path, dimensions)  # type: ignore[arg-type]
                return self._parsed(file, path, dimensions)
            except (gzip.BadGzipFile, zlib.error, EOFError, OSError):
                raise Damaged(f"{self.where}: {path} cannot be unpacked, or is cut short; fetch it again") from None

    def _parsed(self, file: Any, path: Path, dimensions: int) -> np.ndarray:
        start = file.read(4 + 4 * dimensions)
        if len(start) < 4 + 4 * dimensions or start[:4] != bytes([0, 0, UNSIGNED_BYTE, dimensions]):
            raise Damaged(
                f"{self.where}: {path} is no IDX file of {dimensions}-dimensional bytes; check the file names"
            )
        shape = tuple(int.from_bytes(start[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(dimensions))
        size = math.prod(shape)
        if size > self.max_bytes:
            raise Damaged(f"{self.where}: {path} would unpack to {size} bytes, more than max_bytes = {self.max_bytes}")
        data = bytearray()
        while len(data) <= size and (block := file.read(min(MEBIBYTE, size + 1 - len(data)))):
            data += block
        if len(data) != size:
            raise Damaged(
                f"{self.where}: {path} holds more or less than the {size} bytes its header names; fetch it again"
            )
        return np.frombuffer(data, dtype=np.uint8).reshape(shape)
