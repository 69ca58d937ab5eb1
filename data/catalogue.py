"""The published sets that privolve knows: facts with their sources, a TOML file a set in `sets/`.

What stands there was written from the publishers' pages and papers; `unverified` says which addresses were never tried.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, PositiveInt, model_validator

from .. import plugins
from .errors import UnknownKind

_FACTS = resources.files("privolve.data").joinpath("sets")

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Checksum = Annotated[str, Field(pattern=r"^(md5:[0-9a-f]{32}|sha1:[0-9a-f]{40}|sha256:[0-9a-f]{64})$")]
Address = Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]+)?/\S*$")]


class Asset(BaseModel, frozen=True, extra="forbid"):
    """One file of a set as its publisher has it.

    mirrors        where it lies, tried in this order; none where a person must fetch it
    redirects      hosts besides the mirrors' own that a redirect may lead to; `*.example.org` for all below
    size           of the file in bytes, where the publisher states it
    at_most        a larger file is not taken
    checksum       as the publisher states it, and `stated` where; else it is recorded at the first download
    unpack         the folder to unpack it into, and `unpacked_at_most` how many bytes that may become
    """

    name: FileName
    mirrors: tuple[Address, ...] = ()
    redirects: tuple[str, ...] = ()
    size: PositiveInt | None = None
    at_most: PositiveInt
    checksum: Checksum | None = None
    stated: str | None = None
    unpack: FileName | None = None
    unpacked_at_most: PositiveInt | None = None

    @model_validator(mode="after")
    def _whole(self) -> Asset:
        if (self.checksum is None) != (self.stated is None):
            raise ValueError("a checksum needs its source, and a source its checksum")
        if (self.unpack is None) != (self.unpacked_at_most is None):
            raise ValueError("unpack needs unpacked_at_most")
        return self


class ClassFile(BaseModel, frozen=True, extra="forbid"):
    """A list of classes that the publisher ships: one a line, `form` being how a line is written."""

    name: str
    form: Literal["places365", "map_clsloc"]


class Entry(BaseModel, frozen=True, extra="forbid"):
    """What is known of one published set.

    train, test     how many records the official parts have; test = 0 where there is no official test part
    split           what the official split is, or how ours is made
    inside          where below `path` the set lies once fetched; the first that is there
    read            settings of the source that reads it, by that source's kind; names that end in `_path` are below `path`
    holdout         the part held out by keyed hash where there is no official one
    by_hand         what a person must do first: a licence to accept, a login
    unverified      what could not be tried when this was written
    """

    name: FileName
    title: str
    holds: Literal["images", "texts"]
    classes: tuple[str, ...] = ()
    class_file: ClassFile | None = None
    size: tuple[PositiveInt, PositiveInt] | None = None
    channels: Literal[1, 3] | None = None
    train: PositiveInt | None = None
    test: int | None = Field(default=None, ge=0)
    split: str
    holdout: float = Field(default=0.0, ge=0.0, lt=1.0)
    licence: str
    citation: str
    citation_url: Address
    page: Address
    files: tuple[Asset, ...] = ()
    inside: tuple[str, ...] = ()
    read: dict[str, dict[str, Any]] = Field(default_factory=dict)
    by_hand: str | None = None
    unverified: str | None = None

    @property
    def to_fetch(self) -> int | None:
        """Bytes to fetch, where every file's size is stated."""
        sizes = [asset.size for asset in self.files]
        return None if None in sizes or not sizes else sum(size for size in sizes if size is not None)


@cache
def names() -> tuple[str, ...]:
    """The sets there are facts on, sorted."""
    found = (each.name for each in _FACTS.iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml")))


@cache
def entry(name: str) -> Entry:
    """The facts on a set."""
    if name not in names():
        hint = plugins.meant(name, names())
        raise UnknownKind(f"{name!r} is no published set that privolve knows; {hint}it knows {', '.join(names())}")
    text = _FACTS.joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return Entry.model_validate({"name": name, **tomllib.loads(text)})
