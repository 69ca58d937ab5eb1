"""The `[data]` table of a job: which set, and what its owner declares about it.

Whatever is declared here is public. What a set holds beyond it stays private: a slot that does not fit the declaration
is a ghost. What contradicts the declaration as a whole is an error before the slots are counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, PositiveInt, field_validator, model_validator

from ..privacy.private import Private
from .errors import Undeclared
from .image_set import MEGAPIXEL, ImageRules
from .private_set import PrivateSet, Split
from .slots import Listing, PrivateLog, SlotRecords, Slots, partition
from .validation import validation_split

PROPOSED = ("classes", "size", "channels", "range", "columns", "quoted")
SAFE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


class DataConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Abstract: a kind implements `listing` and `survey`.

    name      the ledger's name of the set; by default the stem of `path`, or the kind where there is no path
    classes   the class list; a record with another label is a ghost
    size      (width, height) of the images; channels 1 (grey) or 3 (colour)
    count     the number of voters N, with those that a job sets aside for validation; another number is refused
    slots     [start, stop): the slots that take part, of all that the source lists
    holdout   fraction of these slots that never vote, chosen by a keyed hash of the slot ids
    test      whether the test part is public; its scores are unprotected otherwise
    """

    kind: str
    name: str = Field(default="", pattern=f"^{SAFE_NAME}$")
    classes: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    size: tuple[PositiveInt, PositiveInt] | None = None
    channels: Literal[1, 3] | None = None
    count: PositiveInt | None = None
    slots: tuple[Annotated[int, Field(ge=0)], PositiveInt] | None = None
    holdout: float = Field(default=0.0, ge=0.0, lt=1.0)
    test: Literal["public", "private"] = "private"

    @model_validator(mode="before")
    @classmethod
    def _named(cls, table: Any) -> Any:
        """The default of `name` depends on the other fields, and a frozen model cannot fill it in later."""
        if not isinstance(table, dict) or "name" in table:
            return table
        default = str(table.get("kind", cls.model_fields["kind"].default))
        if "path" in table:
            default = Path(str(table["path"])).stem or default
        return {**table, "name": re.sub(r"[^A-Za-z0-9._-]", "-", default).lstrip("._-")[:64] or "data"}

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(classes)) != len(classes):
            raise ValueError("a class is declared twice")
        return classes

    @field_validator("slots")
    @classmethod
    def _ascending(cls, slots: tuple[int, int] | None) -> tuple[int, int] | None:
        if slots is not None and slots[0] >= slots[1]:
            raise ValueError("slots = [start, stop] needs start < stop")
        return slots

    def resolved(self, base: Path) -> Self:
        """The same config with every relative path taken from `base`, the folder of the job file."""
        paths = {field: value for field, value in self if isinstance(value, Path)}
        return self.model_copy(update={field: base / value.expanduser() for field, value in paths.items()})

    def listing(self) -> Listing:
        """The slots of the source, in a fixed order. Raises `DataError` for what concerns the source as a whole."""
        raise NotImplementedError

    def survey(self) -> dict[str, Any]:
        """Fields of this table that the files suggest. Looks at private data."""
        raise NotImplementedError

    def load(self, *, private_log: PrivateLog | None = None, validation: float = 0.0) -> Split:
        """The partitions of the set. `private_log` gets one line for each ghost, when it is first read.

        `validation`: the share of the voters' slots that choose between models instead of voting.
        """
        if not self.classes:
            raise Undeclared(
                f'{self.where}: declare the classes, as in classes = ["cat"]; `privolve init` proposes them'
            )
        listing = self.listing()
        voters, held_out = self._parts(listing)
        if self.count is not None and len(voters) != self.count:
            raise Undeclared(
                f"{self.where}: count = {self.count} voters are declared and the set holds {len(voters)}; "
                f"declare count = {len(voters)}, or restore the set that was meant"
            )
        test: PrivateSet | None = None
        if listing.test is not None:
            test = self._partition("test", listing.test, range(len(listing.test.ids)), private_log)
        elif held_out:
            test = self._partition("test", listing.voters, held_out, private_log)
        test_is_public = test is not None and self.test == "public"
        whole = self._partition("train", listing.voters, voters, private_log)
        if not validation:
            return Split(train=whole, test=test, test_is_public=test_is_public)
        training, validating = validation_split(
            [listing.voters.ids[row] for row in voters], share=validation, where=self.where
        )
        train, chooses = (
            self._partition(name, listing.voters, [voters[slot] for slot in slots], private_log, validation)
            for name, slots in (("train", training), ("validation", validating))
        )
        return Split(train=train, test=test, test_is_public=test_is_public, validation=chooses, whole=whole)

    def propose(self) -> dict[str, Any]:
        """What the owner might declare: classes, size, channels and count, as file names and headers suggest.

        Formal guarantee: none. This looks at private data; what it returns becomes public only when the owner, who
        sees it, writes it into the job file.
        """
        surveyed = self.survey()
        if not surveyed:
            raise Undeclared(f"{self.where}: the set is empty: it has no slot; check `path`")
        found = {**surveyed, **{field: value for field, value in self if field in self.model_fields_set}}
        found = {field: found[field] for field in PROPOSED if found.get(field) not in (None, ())}
        declared = type(self).model_validate({**dict(self), **found, "count": None})
        voters, _ = declared._parts(declared.listing())
        plain = {field: list(value) if isinstance(value, tuple) else value for field, value in found.items()}
        return {**plain, "count": len(voters)}

    @property
    def where(self) -> str:
        """How messages name the set: by the operator's own words."""
        return f"[data] {self.name!r}"

    @property
    def text_bytes(self) -> int:
        """The most UTF-8 that a text of the set holds; 0 where it holds none."""
        return 0

    def declaration(self) -> str:
        """A digest of this table without paths: a set may move, and what is declared of it stays."""
        paths = {field for field, value in self if isinstance(value, Path)}
        table = self.model_dump(mode="json", exclude=paths, exclude_none=True)
        return sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()

    def _parts(self, listing: Listing) -> tuple[Sequence[int], Sequence[int]]:
        if not listing.voters.ids:
            raise Undeclared(f"{self.where}: the set is empty: it has no slot; check `path`")
        if listing.test is not None and self.holdout:
            raise Undeclared(f"{self.where}: the source has a test part of its own; drop holdout = {self.holdout}")
        return partition(listing.voters.ids, slots=self.slots, holdout=self.holdout, where=self.where)

    def _partition(
        self, name: str, source: Slots, rows: Sequence[int], log: PrivateLog | None, validation: float = 0.0
    ) -> PrivateSet:
        records = SlotRecords(source, rows, where=f"{self.name}/{name}", private_log=log)
        declaration = self.declaration()
        if validation:  # The rows of a partition are others then.
            declaration = sha256(f"{declaration}\nvalidation {validation!r}".encode()).hexdigest()
        return PrivateSet(
            name=self.name,
            partition=name,
            records=Private(records),
            count=len(rows),
            classes=self.classes,
            size=self.size,
            channels=self.channels or 0,
            text_bytes=self.text_bytes,
            declaration=declaration,
        )


class ImageDataConfig(DataConfig, frozen=True):
    """Abstract: a set of images.

    resize      what becomes of an image that is not of the declared size and channels: "refuse" makes it a ghost,
                "fit" scales it to cover the size, crops the centre, and converts between grey and colour
    max_pixels  an image with more is never decoded
    """

    resize: Literal["refuse", "fit"] = "refuse"
    max_pixels: PositiveInt = 16 * MEGAPIXEL

    def rules(self) -> ImageRules:
        """What an image must be, from the declaration. Raises `Undeclared` where that is incomplete."""
        if self.size is None or self.channels is None:
            missing = "size, as in size = [64, 64]" if self.size is None else "channels: 1 for grey, 3 for colour"
            raise Undeclared(f"{self.where}: declare the images' {missing}; `privolve init` proposes it")
        return ImageRules(size=self.size, channels=self.channels, resize=self.resize, max_pixels=self.max_pixels)
