"""WebDataset shards: tar files in which the members `key.png`, `key.cls`, ... of one key make a record.

A slot is a key, in the order of the shards' names and of the members within them. Headers are read when the set is listed;
an image and its label when their slot is read.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal, cast, final

from pydantic import PositiveInt

from .careful_file import CarefulFile
from .config import ImageDataConfig
from .encoded import name_of
from .errors import Damaged, Undeclared, Unreadable
from .files import GIBIBYTE, MEBIBYTE, READ_FILE, open_container, open_folder
from .image_set import ImageRules, shape_of
from .private_set import Record
from .slots import Listing, ReadFailed, Unusable

IMAGES = ("png", "jpg", "jpeg", "webp")
MAX_LABEL = 64 * 1024
SURVEYED = 200


class WebDatasetConfig(ImageDataConfig, frozen=True):
    """`kind = "webdataset"`: `path` is a shard, or a folder of shards.

    pattern, test_pattern  which files of the folder are shards of the voters, and of the test part; without `test_path`
                           a shard that both match is of the test part
    test_path              a shard or a folder of shards, whose records never vote
    label                  the extension of the member with the label: a number or a name
    label_key              where that member is JSON: the key of the label in it
    max_bytes              a larger image is never decoded
    max_shard              a larger shard is refused
    """

    kind: Literal["webdataset"] = "webdataset"
    path: Path
    test_path: Path | None = None
    pattern: str = "*.tar"
    test_pattern: str | None = None
    label: str = "cls"
    label_key: str | None = None
    resize: Literal["refuse", "fit"] = "fit"
    max_bytes: PositiveInt = 32 * MEBIBYTE
    max_shard: PositiveInt = 1024 * GIBIBYTE

    def listing(self) -> Listing:
        tests: list[Path] = []
        if self.test_path is not None:
            tests = self._shards(self.test_path, self.test_pattern or "*.tar")
        elif self.test_pattern is not None:
            tests = self._shards(self.path, self.test_pattern)
        shards = [shard for shard in self._shards(self.path, self.pattern) if shard not in tests]
        if not shards:
            raise Undeclared(f"{self.where}: every shard of {self.path} is of the test part; check test_pattern")
        return Listing(voters=self._slots(shards), test=self._slots(tests) if tests else None)

    def survey(self) -> dict[str, Any]:
        shards = self._shards(self.path, self.pattern)
        samples = [sample for shard, path in enumerate(shards) for sample in self._samples(shard, path)]
        reader = _Reader(shards)
        names, shapes = set(), Counter()
        with reader:
            for sample in samples:
                if (name := self.label_of(reader, sample)) is not None:
                    names.add(name)
            for sample in samples[:: max(1, len(samples) // SURVEYED)]:
                content = reader.content(sample.image, self.max_bytes) if sample.image else Unusable("")
                if not isinstance(content, Unusable) and (shape := shape_of(content)) is not None:
                    shapes[shape] += 1
        classes = tuple(sorted(names, key=lambda name: (len(name), name) if name.isdecimal() else (99, name)))
        found: dict[str, Any] = {"classes": classes or (self.name,)}
        if shapes:
            (width, height, channels), _ = shapes.most_common(1)[0]
            found |= {"size": (width, height), "channels": channels}
        return found

    def _shards(self, path: Path, pattern: str) -> list[Path]:
        if not path.is_dir():
            return [path]
        os.close(open_folder(path, where=self.where))
        found = sorted((each for each in path.iterdir() if fnmatch(each.name, pattern)), key=lambda each: each.name)
        if not found:
            raise Unreadable(f"{self.where}: {path} holds no shard of the form {pattern!r}; check path and pattern")
        return found

    def _slots(self, shards: Sequence[Path]) -> _Samples:
        samples = [sample for shard, path in enumerate(shards) for sample in self._samples(shard, path)]
        return _Samples(self, shards, samples, self.rules())

    def _samples(self, shard: int, path: Path) -> list[Sample]:
        found: list[Sample] = []
        with open_container(path, max_bytes=self.max_shard, where=self.where) as file:
            try:
                with tarfile.TarFile(fileobj=cast(Any, CarefulFile(file))) as archive:
                    while (member := archive.next()) is not None:
                        archive.members = []  # tarfile keeps every header otherwise  # type: ignore[assignment]
                        if not member.isdir():
                            self._add(found, member, shard, path.stem)
                    end = os.fstat(file.fileno()).st_size
            except (tarfile.TarError, OSError, ValueError, OverflowError, EOFError):
                raise Damaged(f"{self.where}: {path} is no tar file, or is cut short; fetch it again") from None
        if any(place.end > end for sample in found for place in (sample.image, sample.label) if place is not None):
            raise Damaged(f"{self.where}: {path} is cut short; fetch it again")
        return found

    def _add(self, found: list[Sample], member: tarfile.TarInfo, shard: int, stem: str) -> None:
        """The member into the sample of its key: the last one, or a new one."""
        folder, _, last = member.name.rpartition("/")
        if last.startswith("."):
            return
        base, _, extension = last.partition(".")
        key = f"{folder}/{base}" if folder else base
        if not found or found[-1].key != key:
            found.append(Sample(key=key, id=f"{stem}/{key}"))
        place = _Place(shard, member.offset_data, member.size) if member.isreg() and not member.issparse() else None
        if extension.lower() in IMAGES and found[-1].image is None:
            found[-1].image = place
        elif extension == self.label:
            found[-1].label = place

    def label_of(self, reader: _Reader, sample: Sample) -> str | None:
        """The label of a sample as text, if it has one. Raises OSError."""
        content = reader.content(sample.label, MAX_LABEL) if sample.label else Unusable("")
        if isinstance(content, Unusable):
            return None
        try:
            if self.label_key is None:
                return content.decode("utf-8").strip()
            label = json.loads(content)[self.label_key]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        return str(label) if isinstance(label, str | int) else None


@dataclass(frozen=True, slots=True)
class _Place:
    shard: int
    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(slots=True)
class Sample:
    """A key of a shard, and where its image and its label lie."""

    key: str
    id: str
    image: _Place | None = field(default=None)
    label: _Place | None = field(default=None)


class _Reader:
    """The shards, opened when they are first read. Raises OSError."""

    def __init__(self, shards: Sequence[Path]) -> None:
        self._shards = shards
        self._open: dict[int, int] = {}
        self._closing = ExitStack()

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def content(self, place: _Place, limit: int) -> bytes | Unusable:
        if place.size > limit:
            return Unusable(f"it has more than {limit} bytes")
        if place.shard not in self._open:
            descriptor = os.open(self._shards[place.shard], READ_FILE)
            self._closing.callback(os.close, descriptor)
            self._open[place.shard] = descriptor
        return os.pread(self._open[place.shard], place.size, place.start)


@final
class _Samples:
    """Slots that are keys of shards."""

    def __init__(
        self, config: WebDatasetConfig, shards: Sequence[Path], samples: Sequence[Sample], rules: ImageRules
    ) -> None:
        self._config = config
        self._shards = shards
        self._samples = samples
        self._rules = rules
        self._known = {name: index for index, name in enumerate(config.classes)}
        if not all(name.isdecimal() for name in config.classes):
            self._known |= {str(index): index for index in range(len(config.classes)) if str(index) not in self._known}
        self.ids = [sample.id for sample in samples]

    def read(self, rows: Sequence[int]) -> Sequence[Record | Unusable]:
        answers: list[Record | Unusable] = []
        with _Reader(self._shards) as reader:
            for row in rows:
                try:
                    answers.append(self._record(reader, self._samples[row]))
                except OSError as error:
                    raise ReadFailed(row, name_of(error)) from None
        return answers

    def raw(self, row: int) -> bytes:
        sample = self._samples[row]
        try:
            with _Reader(self._shards) as reader:
                parts = [
                    reader.content(place, self._config.max_bytes) if place else b""
                    for place in (sample.label, sample.image)
                ]
        except OSError as error:
            raise ReadFailed(row, name_of(error)) from None
        return b"\0".join(b"" if isinstance(part, Unusable) else part for part in parts)

    def _record(self, reader: _Reader, sample: Sample) -> Record | Unusable:
        if sample.image is None:
            return Unusable("it has no image")
        label: int | None = 0
        if len(self._config.classes) > 1:
            name = self._config.label_of(reader, sample)
            label = self._known.get(name) if name is not None else None
        if label is None:
            return Unusable("it has no label that is declared")
        content = reader.content(sample.image, self._config.max_bytes)
        pixels = content if isinstance(content, Unusable) else self._rules.decode(content)
        return pixels if isinstance(pixels, Unusable) else Record(pixels, label)
