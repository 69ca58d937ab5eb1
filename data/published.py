"""A published set by its name: classes, sizes and split as its publisher gives them, in whatever format it lies at `path`.

The facts are in `sets/NAME.toml`. The format is told from the files, and read by the source of that format: MNIST as the
publisher's IDX files, as an .npz, as parquet or as a folder of images is one set.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from . import registry
from .catalogue import ClassFile, Entry, entry
from .config import DataConfig
from .errors import Damaged, Undeclared, Unreadable
from .files import MEBIBYTE, open_container
from .formats import READ, kind_of
from .image_set import MEGAPIXEL
from .slots import Listing


class PublishedConfig(DataConfig, frozen=True):
    """`kind` is the set's name; `path` the folder that `privolve data get NAME` filled, or a file or folder of your own.

    format      the source that reads it, where the names of the files do not tell
    options     settings of that source, over the set's own
    resize      as for every source of images: "fit" scales and crops, and converts between grey and colour
    max_pixels  an image with more is never decoded
    """

    kind: str
    path: Path
    format: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    resize: Literal["refuse", "fit"] = "fit"
    max_pixels: PositiveInt = 16 * MEGAPIXEL

    @model_validator(mode="before")
    @classmethod
    def _as_published(cls, table: Any) -> Any:
        """What the job does not declare is as published; the ledger's name of the set is its published one."""
        if not isinstance(table, dict) or not isinstance(table.get("kind"), str):
            return table
        facts = entry(table["kind"])
        known = {"name": facts.name, "classes": facts.classes, "size": facts.size, "channels": facts.channels}
        return {**known, "holdout": facts.holdout, **table}

    def resolved(self, base: Path) -> Self:
        """Also takes the class list from the publisher's own file, where it is fetched with the set."""
        located = super().resolved(base)
        if located.classes or self.facts.class_file is None:
            return located
        classes = located._listed(self.facts.class_file)
        return located.model_copy(update={"classes": classes}) if classes else located

    @property
    def facts(self) -> Entry:
        """What is known of the set."""
        return entry(self.kind)

    @property
    def text_bytes(self) -> int:
        return 4 * int(self.options.get("max_chars", 20_000)) if self.facts.holds == "texts" else 0

    def listing(self) -> Listing:
        return self._reader().listing()

    def survey(self) -> dict[str, Any]:
        known = {"classes": self.classes, "size": self.size, "channels": self.channels}
        return (
            known if self.classes else {**self._reader().survey(), **{key: each for key, each in known.items() if each}}
        )

    def declaration(self) -> str:
        settings = json.dumps(self.facts.read, sort_keys=True)
        return sha256(f"{super().declaration()}\n{settings}".encode()).hexdigest()

    def _reader(self) -> DataConfig:
        place = self._place()
        kind = self.format or kind_of(place)
        if kind is None:
            raise Unreadable(f"{self.where}: nothing reads {place}; give {READ}, or say which by format")
        if kind == self.kind or (kind not in ("digits",) and kind not in registry.names()):
            raise Unreadable(f"{self.where}: {kind!r} is no format; leave format out, or name a general source")
        chosen = registry.config_class(kind)
        settings = dict(self.facts.read.get(kind, {}))
        for name in [name for name in settings if name.endswith("_path")]:
            beside = self.path / str(settings.pop(name))
            if self.path.is_dir() and beside.exists():
                settings[name] = str(beside)
        settings |= self.options
        table = {
            "name": self.name,
            "classes": self.classes,
            "resize": self.resize,
            "max_pixels": self.max_pixels,
            **({} if self.size is None else {"size": self.size}),
            **({} if self.channels is None else {"channels": self.channels}),
        }
        table = {field: value for field, value in table.items() if field in chosen.model_fields}
        return registry.parse({"kind": kind, **table, **settings, "path": str(place)})

    def _place(self) -> Path:
        """Where the set lies: `path`, or what `privolve data get` left below it."""
        if not self.path.exists():
            raise Unreadable(
                f"{self.where}: {self.path} does not exist; fetch the set: privolve data get {self.kind} --to {self.path}"
            )
        found = (self.path / name for name in self.facts.inside)
        return next((place for place in found if self.path.is_dir() and place.exists()), self.path)

    def _listed(self, file: ClassFile) -> tuple[str, ...]:
        place = self.path / file.name
        if not place.is_file():
            return ()
        with open_container(place, max_bytes=MEBIBYTE, where=self.where) as opened:
            lines = [line.split() for line in opened.read().decode("utf-8", "replace").splitlines() if line.strip()]
        try:
            classes = _places(lines) if file.form == "places365" else _synsets(lines)
        except (IndexError, ValueError):
            raise Damaged(f"{self.where}: {place} is no list of classes; fetch it again") from None
        if len(set(classes)) != len(classes):
            raise Undeclared(f"{self.where}: {place} names a class twice; declare the classes in the job file")
        return classes


def _places(lines: list[list[str]]) -> tuple[str, ...]:
    """`/a/apartment_building/outdoor 8` is the folder `apartment_building-outdoor`, class 8."""
    ordered = sorted(lines, key=lambda words: int(words[1]))
    return tuple("-".join(words[0].split("/")[2:]) for words in ordered)


def _synsets(lines: list[list[str]]) -> tuple[str, ...]:
    """`n02119789 1 kit_fox` is class 1; of two classes of one name each is told apart by its synset."""
    ordered = sorted(lines, key=lambda words: int(words[1]))
    named = [words[2] for words in ordered]
    return tuple(
        name if named.count(name) == 1 else f"{name}-{words[0]}" for name, words in zip(named, ordered, strict=True)
    )
