"""Batches of small images as rows of planes: CIFAR's binary and Python versions, and ImageNet at 32 x 32 or 64 x 64.

A row is width x height values of red, then of green, then of blue (Krizhevsky, 2009; Chrabaszcz et al., 2017). The Python
version is a pickle: it is read by a parser of its own that knows this one structure and calls nothing.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from . import pickled
from .config import ImageDataConfig
from .errors import Damaged, Unreadable
from .files import GIBIBYTE, open_container
from .image_set import ArrayImages
from .joined import Joined
from .labels import from_numbers
from .npz import Archive
from .slots import Listing, Slots

LAYOUTS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (tuple(f"data_batch_{number}.bin" for number in range(1, 6)), ("test_batch.bin",)),
    (("train.bin",), ("test.bin",)),
    (tuple(f"data_batch_{number}" for number in range(1, 6)), ("test_batch",)),
    (tuple(f"train_data_batch_{number}.npz" for number in range(1, 11)), ("val_data.npz",)),
    (tuple(f"train_data_batch_{number}" for number in range(1, 11)), ("val_data",)),
    (("train",), ("test",)),
)
"""File names of voters and of the test part that are tried, in this order."""


class BatchesConfig(ImageDataConfig, frozen=True):
    """`kind = "batches"`: `path` is the folder of the files.

    train, tests  file names of the voters and of the test part; by default the first of `LAYOUTS` that the folder holds
    label_bytes   how many bytes stand before each row of a .bin file; the last of them is the label
    label_key     the key of the labels in a Python or npz version
    first_label   the number of the first class: ImageNet's begin at 1
    max_bytes     of one file
    """

    kind: Literal["batches"] = "batches"
    path: Path
    train: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    size: tuple[PositiveInt, PositiveInt] | None = (32, 32)
    channels: Literal[1, 3] | None = 3
    stored: tuple[PositiveInt, PositiveInt] | None = None
    """Width and height as stored; by default `size`. They differ where `resize = "fit"`."""
    label_bytes: PositiveInt = 1
    label_key: str = "labels"
    first_label: int = Field(default=0, ge=0)
    max_bytes: PositiveInt = 32 * GIBIBYTE

    @model_validator(mode="after")
    def _file_names(self) -> BatchesConfig:
        for name in (*self.train, *self.tests):
            if Path(name).name != name or name in (".", ".."):
                raise ValueError(f"{name!r} is no file name; files lie directly in `path`")
        return self

    def listing(self) -> Listing:
        train, tests = self._names()
        return Listing(voters=self._slots(train), test=self._slots(tests) if tests else None)

    def survey(self) -> dict[str, Any]:
        found = (set(self._labels_of(name)) for name in self._names()[0])
        numbers = sorted(number - self.first_label for number in set().union(*found))
        return {
            "classes": tuple(str(number) for number in range(numbers[-1] + 1)),
            "size": self.size,
            "channels": self.channels,
        }

    def _names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if self.train:
            return self.train, self.tests
        for train, tests in LAYOUTS:
            if all((self.path / name).is_file() for name in train):
                return train, self.tests or (tests if all((self.path / name).is_file() for name in tests) else ())
        raise Unreadable(
            f"{self.where}: {self.path} has no batches of a usual name, such as {LAYOUTS[0][0][0]}; check `path`, or name "
            "them by train and tests"
        )

    def _slots(self, names: tuple[str, ...]) -> Slots:
        parts = [self._images(name) for name in names]
        return parts[0] if len(parts) == 1 else Joined(parts)

    def _images(self, name: str) -> ArrayImages:
        pixels, numbers = self._arrays(name)
        return ArrayImages(
            pixels,
            from_numbers((numbers - self.first_label).tolist(), self.classes),
            ids=name.partition(".")[0],
            rules=self.rules(),
            where=f"{self.where}, {name}",
            channels_first=True,
        )

    def _labels_of(self, name: str) -> list[int]:
        return self._arrays(name)[1].tolist()

    def _arrays(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (rows, channels, height, width) uint8, in memory only where they must be unpacked, and labels int64."""
        if self.size is None or self.channels is None:
            self.rules()  # says what is missing
        assert self.size is not None and self.channels is not None
        width, height = self.stored or self.size
        shape = (self.channels, height, width)
        path = self.path / name
        if path.suffix == ".bin":
            return self._binary(path, shape)
        if path.suffix == ".npz":
            with Archive(path, max_bytes=self.max_bytes, where=self.where) as archive:
                labels = archive.array(archive.known(self.label_key))
                pixels = archive.mapped(archive.known("data"))
        else:
            with open_container(path, max_bytes=min(self.max_bytes, 2 * GIBIBYTE), where=self.where) as file:
                table = pickled.read(file.read(), where=f"{self.where}: {path}")
            if "data" not in table or self.label_key not in table:
                known = ", ".join(sorted(table)[:20])
                raise Damaged(f"{self.where}: {path} has no key 'data' and {self.label_key!r}; it holds {known}")
            pixels, labels = table["data"], _numbers(table[self.label_key])
        if not isinstance(pixels, np.ndarray):
            raise Damaged(f"{self.where}: 'data' in {path} is no array; fetch it again")
        if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != math.prod(shape):
            raise Damaged(
                f"{self.where}: 'data' in {path} is {pixels.dtype} of shape {pixels.shape}; rows of {math.prod(shape)} "
                f"bytes are needed for {width} x {height} x {self.channels}"
            )
        if labels.dtype.kind not in "iu" or labels.shape != (len(pixels),):
            raise Damaged(f"{self.where}: {self.label_key!r} in {path} holds no whole number for each of its rows")
        return pixels.reshape(-1, *shape), labels.astype(np.int64)

    def _binary(self, path: Path, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        row = self.label_bytes + math.prod(shape)
        with open_container(path, max_bytes=self.max_bytes, where=self.where) as file:
            size = file.seek(0, 2)
            if size == 0 or size % row:
                raise Damaged(
                    f"{self.where}: {path} has {size} bytes, no whole number of rows of {row}; fetch it again, or check "
                    "size, channels and label_bytes"
                )
            rows = np.memmap(file, dtype=np.uint8, mode="r", shape=(size // row, row))
        labels = rows[:, self.label_bytes - 1].astype(np.int64)
        return rows[:, self.label_bytes :].reshape(-1, *shape), labels


def _numbers(listed: object) -> np.ndarray:
    """A list of whole numbers as an array; anything else as an array of objects, which is refused."""
    if isinstance(listed, list) and all(isinstance(label, int) and abs(label) < 2**31 for label in listed):
        return np.array(listed, dtype=np.int64)
    return np.array([], dtype=object)
