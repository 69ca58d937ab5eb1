"""An .npz file of images: read in place, member by member, without pickles and without trusting what it says of itself.

Everything that concerns the file as a whole (a missing key, a wrong type, a damaged member, sizes out of proportion) is an
error before the slots are counted. What concerns a row (a pixel that is no number) makes a ghost.
"""

from __future__ import annotations

import io
import math
import os
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import PositiveInt, field_validator

from .config import ImageDataConfig
from .errors import Damaged, Undeclared
from .files import GIBIBYTE, MEBIBYTE, open_container
from .image_set import ArrayImages
from .labels import Labels, from_array, unlabelled
from .slots import Listing

LAYOUTS = (("samples", "labels"), ("x", "y"), ("x_train", "y_train"))
"""Keys of images and labels that are tried, in this order: DPSDA's, DPImageBench's, the usual one of MNIST files."""
TEST_LAYOUTS = (("samples", "labels"), ("x", "y"), ("x_test", "y_test"))
"""The same for a test file; `x_test`, `y_test` are also looked for beside `x_train`, `y_train`."""

MAX_HEADER = 64 * 1024
LOCAL_HEADER = 30
"""Bytes of a zip member's own header before its name."""
MAX_MEMBERS = 1000
MAX_RATIO = 1100
"""Deflate packs at most 1032 to one; a directory that claims more is lying."""


class NpzConfig(ImageDataConfig, frozen=True):
    """`kind = "npz"`.

    images, labels             keys of the voters; by default the first of `LAYOUTS` that the file holds
    test_images, test_labels   keys of the test part
    test_path                  a second file, whose records never vote
    order                      "hwc": channels last; "chw": channels first; "auto": uint8 last, float first
    range                      what black and white are in a float array
    max_bytes                  of the file, and of one array in memory
    """

    kind: Literal["npz"] = "npz"
    path: Path
    test_path: Path | None = None
    images: str | None = None
    labels: str | None = None
    test_images: str | None = None
    test_labels: str | None = None
    order: Literal["auto", "hwc", "chw"] = "auto"
    range: tuple[float, float] = (0.0, 1.0)
    max_bytes: PositiveInt = 4 * GIBIBYTE

    @field_validator("range")
    @classmethod
    def _rising(cls, limits: tuple[float, float]) -> tuple[float, float]:
        if not (math.isfinite(limits[0]) and math.isfinite(limits[1]) and limits[0] < limits[1]):
            raise ValueError("range = [black, white] needs black < white")
        return limits

    def listing(self) -> Listing:
        with Archive(self.path, max_bytes=self.max_bytes, where=self.where) as archive:
            keys = self._keys(archive)
            voters = self._slots(archive, keys)
            test = None
            if self.test_path is None and (beside := self._keys_beside(archive, keys)):
                test = self._slots(archive, beside)
        if self.test_path is not None:
            with Archive(self.test_path, max_bytes=self.max_bytes, where=self.where) as archive:
                test = self._slots(archive, self._chosen(archive, self.test_images, self.test_labels, TEST_LAYOUTS))
        return Listing(voters=voters, test=test)

    def survey(self) -> dict[str, Any]:
        with Archive(self.path, max_bytes=self.max_bytes, where=self.where) as archive:
            images_key, labels_key = self._keys(archive)
            images = archive.array(images_key)
            labels = archive.array(labels_key) if labels_key is not None else None
        self._check_images(images, images_key)
        shape = images.shape[1:] if images.ndim == 4 else (1, *images.shape[1:])
        if images.ndim == 4 and not self._channels_first(images):
            shape = (shape[2], shape[0], shape[1])
        found: dict[str, Any] = {"channels": shape[0], "size": (shape[2], shape[1])}
        found["classes"] = (self.name,) if labels is None else tuple(str(label) for label in np.unique(labels).tolist())
        if images.dtype.kind == "f" and images.size:
            low, high = float(np.nanmin(images)), float(np.nanmax(images))
            found["range"] = (-1.0 if low < 0 else 0.0, 255.0 if high > 2 else 1.0)
        return found

    def _keys(self, archive: Archive) -> tuple[str, str | None]:
        return self._chosen(archive, self.images, self.labels, LAYOUTS)

    def _keys_beside(self, archive: Archive, voters: tuple[str, str | None]) -> tuple[str, str | None] | None:
        """The keys of a test part in the voters' own file, if it has one. Naming `images` means the voters alone."""
        if self.test_images is not None:
            return self._chosen(archive, self.test_images, self.test_labels, ())
        if voters[0] == "x_train" and self.images is None and "x_test" in archive.keys:
            return "x_test", "y_test" if "y_test" in archive.keys else None
        return None

    def _chosen(
        self, archive: Archive, images: str | None, labels: str | None, layouts: tuple[tuple[str, str], ...]
    ) -> tuple[str, str | None]:
        if images is not None:
            return archive.known(images), None if labels is None else archive.known(labels)
        for usual_images, usual_labels in layouts:
            if usual_images in archive.keys:
                beside = usual_labels if usual_labels in archive.keys else None
                return usual_images, beside if labels is None else archive.known(labels)
        tried = ", ".join(f"{images}/{labels}" for images, labels in layouts)
        raise Damaged(
            f"{self.where}: {archive.path} has none of the usual keys; tried {tried}; it holds {archive.holds}; "
            'name yours, as in images = "x", labels = "y"'
        )

    def _slots(self, archive: Archive, keys: tuple[str, str | None]) -> ArrayImages:
        images_key, labels_key = keys
        images = archive.array(images_key)
        self._check_images(images, images_key)
        where = f"{self.where}, {images_key!r}"
        return ArrayImages(
            images,
            self._labels(archive, labels_key, len(images)),
            ids=images_key,
            rules=self.rules(),
            where=where,
            channels_first=self._channels_first(images),
            limits=self.range,
        )

    def _labels(self, archive: Archive, key: str | None, count: int) -> Labels:
        if key is not None:
            return from_array(archive.array(key), self.classes, count=count, where=f"{self.where}, {key!r}")
        if len(self.classes) != 1:
            raise Undeclared(
                f"{self.where}: {archive.path} is read without labels and {len(self.classes)} classes are declared; "
                'name the key of the labels, as in labels = "y", or declare one class'
            )
        return unlabelled(count)

    def _check_images(self, images: np.ndarray, key: str) -> None:
        if images.dtype != np.uint8 and images.dtype.kind != "f":
            raise Damaged(f"{self.where}: {key!r} is of type {images.dtype}; images are uint8, or float (see `range`)")
        if images.ndim not in (3, 4):
            raise Damaged(
                f"{self.where}: {key!r} is of shape {images.shape}; images are rows x height x width, or with channels"
            )

    def _channels_first(self, images: np.ndarray) -> bool:
        if images.ndim == 3:
            return False
        return images.dtype.kind == "f" if self.order == "auto" else self.order == "chw"


@dataclass(frozen=True)
class _Header:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    column_major: bool
    length: int
    """Bytes before the data."""


class Archive:
    """The arrays of an .npz file, each read whole and only after what its headers claim was checked."""

    def __init__(self, path: Path, *, max_bytes: int, where: str) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._where = where
        self._file = open_container(path, max_bytes=max_bytes, where=where)
        try:
            self._zip = zipfile.ZipFile(self._file)
        except (zipfile.BadZipFile, ValueError, OSError, struct.error, OverflowError, NotImplementedError):
            self._file.close()
            raise Damaged(f"{where}: {path} is no .npz file; check `path` and `kind`") from None
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in self._zip.infolist():
            key = member.filename.removesuffix(".npy")
            if key == member.filename:
                continue  # whatever lies beside the arrays is not read
            if key in self._members or len(self._members) == MAX_MEMBERS:
                self._file.close()
                raise Damaged(
                    f"{where}: {path} holds an array twice, or more than {MAX_MEMBERS}; write it again by numpy"
                )
            self._members[key] = member

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()
        self._file.close()

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(self._members)

    @property
    def holds(self) -> str:
        return ", ".join(repr(key) for key in sorted(self._members)[:20]) or "no array"

    def known(self, key: str) -> str:
        """The key, if there is such an array."""
        if key not in self._members:
            raise Damaged(f"{self._where}: {self.path} has no key {key!r}; it holds {self.holds}")
        return key

    def array(self, key: str) -> np.ndarray:
        """One array. Its size is known to be what the file can hold before memory is taken for it."""
        member = self._members[self.known(key)]
        claimed = member.file_size
        packed = min(member.compress_size, os.fstat(self._file.fileno()).st_size)
        if claimed > self._max_bytes or claimed > MAX_RATIO * (packed + 64):
            raise Damaged(
                f"{self._where}: {key!r} in {self.path} would unpack to {claimed} bytes, more than max_bytes = "
                f"{self._max_bytes} or than it can hold; raise max_bytes if it is meant"
            )
        try:
            with self._zip.open(member) as stored:
                header = self._header(stored, key)  # type: ignore[arg-type]
                size = math.prod(header.shape) * header.dtype.itemsize
                if size != claimed - header.length:
                    raise self._damaged(key, "its header and its size do not agree")
                data = np.empty(size, dtype=np.uint8)
                view = memoryview(data)  # type: ignore[arg-type]
                filled = 0
                while filled < size:
                    if (got := stored.readinto(view[filled : filled + MEBIBYTE])) == 0:  # type: ignore[attr-defined]
                        raise self._damaged(key, "it is cut short")
                    filled += got
                stored.read(1)  # The checksum is compared at the end only.
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, struct.error):
            raise self._damaged(key, "it cannot be unpacked, or its checksum is wrong") from None
        array = data.view(header.dtype)
        if header.column_major:
            return np.ascontiguousarray(array.reshape(header.shape[::-1]).transpose())
        return array.reshape(header.shape)

    def mapped(self, key: str) -> np.ndarray:
        """Like `array`, but left on disk where the member is not packed; its checksum is then not compared."""
        member = self._members[self.known(key)]
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            return self.array(key)
        local = os.pread(self._file.fileno(), LOCAL_HEADER, member.header_offset)
        if len(local) < LOCAL_HEADER or local[:4] != b"PK\x03\x04":
            raise self._damaged(key, "the directory does not point to it")
        start = member.header_offset + LOCAL_HEADER + sum(struct.unpack("<HH", local[26:30]))
        with self._zip.open(member) as stored:
            header = self._header(stored, key)  # type: ignore[arg-type]
        size = math.prod(header.shape) * header.dtype.itemsize
        end = start + header.length + size
        if header.column_major or header.length + size != member.file_size or size == 0:
            return self.array(key)
        if end > os.fstat(self._file.fileno()).st_size:
            raise self._damaged(key, "it is cut short")
        return np.memmap(self._file, dtype=header.dtype, mode="r", offset=start + header.length, shape=header.shape)

    def _header(self, stored: io.BufferedIOBase, key: str) -> _Header:
        start = stored.read(8)
        if start[:6] != b"\x93NUMPY" or start[6:7] not in (b"\1", b"\2"):
            raise self._damaged(key, "it is no numpy array of version 1 or 2")
        version = start[6]
        width = 2 if version == 1 else 4
        length = int.from_bytes(prefix := stored.read(width), "little")
        if length > MAX_HEADER:
            raise self._damaged(key, f"its header claims {length} bytes")
        text = io.BytesIO(prefix + stored.read(length))
        read = np.lib.format.read_array_header_1_0 if version == 1 else np.lib.format.read_array_header_2_0
        try:
            shape, column_major, dtype = read(text, max_header_size=MAX_HEADER)
        except (ValueError, TypeError, SyntaxError, RecursionError, OverflowError, MemoryError, tokenize.TokenError):
            raise self._damaged(key, "its header cannot be read") from None
        if dtype.kind not in "biufU" or dtype.itemsize == 0:
            raise Damaged(
                f"{self._where}: {key!r} in {self.path} is of type {dtype}; numbers or text are needed, never objects"
            )
        if not shape or min(shape) < 0:
            raise self._damaged(key, "it has no rows")
        return _Header(dtype, shape, column_major, 8 + width + length)

    def _damaged(self, key: str, what: str) -> Damaged:
        return Damaged(f"{self._where}: {key!r} in {self.path} is damaged: {what}; write the file again")
