"""What the page of a run says, before it is a page.

Everything here is either public (released values, counts of slots, settings) or marked, and `ReportData.public()` is the
one place that leaves out what is marked: unprotected scores and curves, how many private records a model answered or
refused, what that cost, and how long the run took (rules 19 and 21 of the guarantee).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ..metric import Score


class ReportError(ValueError):
    """The content cannot be shown; one line that says what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What may be claimed. `text` is the certificate's own wording; `note` what a reader must know beside epsilon."""

    text: str
    epsilon: float
    delta: float
    replace_one: float
    unit: str = "record"
    assumptions: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """One candidate: its image (height x width, or x 1 or 3 channels, uint8), its caption, or both."""

    pixels: np.ndarray | None = None
    caption: str = ""

    def __post_init__(self) -> None:
        if self.pixels is None:
            return
        shape = self.pixels.shape
        if (
            self.pixels.dtype != np.uint8
            or len(shape) not in (2, 3)
            or 0 in shape
            or (len(shape) == 3 and shape[2] not in (1, 3))
        ):
            raise ReportError(
                f"a picture is uint8 (height, width) or (height, width, 1 or 3), not {self.pixels.dtype} {shape}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Gallery:
    """The population at one point of the run, by label. The pages show the first few of each label."""

    title: str
    pictures: Mapping[str, Sequence[Picture]]

    @classmethod
    def of(
        cls,
        title: str,
        *,
        classes: Sequence[str],
        labels: np.ndarray,
        images: Sequence[np.ndarray] | np.ndarray | None = None,
        captions: Sequence[str] | None = None,
    ) -> Gallery:
        """From parallel arrays: item i has label index `labels[i]`, pixels `images[i]` and caption `captions[i]`."""
        for name, column in (("images", images), ("captions", captions)):
            if column is not None and len(column) != len(labels):
                raise ReportError(f"{title}: {len(column)} {name} for {len(labels)} labels")
        pictures: dict[str, list[Picture]] = {name: [] for name in classes}
        for row, label in enumerate(labels):
            pixels = None if images is None else images[row]
            pictures[classes[int(label)]].append(
                Picture(pixels=pixels, caption="" if captions is None else captions[row])
            )
        return cls(title=title, pictures=pictures)


Look = Literal["line", "level", "front", "rings", "crosses"]
"""How a series is drawn: points on a line; a height to compare with; a staircase of what nobody beats; figures published
elsewhere; and those of them whose privacy claim does not hold."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a curve; a point whose y is NaN is a gap.

    Where given, `labels` names each point and `low` and `high` are its interval (equal ends: none).
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    labels: Sequence[str] = ()
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    look: Look = "line"

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ReportError(f"series {self.name!r} has {len(self.x)} x and {len(self.y)} y")
        for name, column in (("labels", self.labels), ("low", self.low), ("high", self.high)):
            if column and len(column) != len(self.x):
                raise ReportError(f"series {self.name!r} has {len(column)} {name} for {len(self.x)} points")

    @property
    def points(self) -> list[tuple[float, float]]:
        """By x."""
        return sorted(zip(map(float, self.x), map(float, self.y), strict=True))


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Lines over one x axis. The first series is the subject, the others what it is compared with."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    protected: bool
    description: str = ""
    unit: str = ""
    """Of y, as in a score."""
    logarithmic: bool = False
    """The x axis; ignored where an x is not positive."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """One release of the run: what was asked, the noise in words, and the epsilon it would have alone at the run's delta."""

    name: str
    kind: Literal["query", "training"]
    noise: str
    alone: float
    paid: int = 1


@dataclass(frozen=True, kw_only=True)
class SignalRow:
    """Signal against noise of one release (or of one label in it), from public numbers alone."""

    name: str
    expected_votes: float
    noise_scale: float
    noise_share: float
    advice: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ancestor:
    """One step of a lineage: when it was made ("Initial", "Iteration 2") and what it looked like or said."""

    when: str
    picture: Picture


@dataclass(frozen=True, kw_only=True, eq=False)
class Lineage:
    """How one final item came about, oldest ancestor first."""

    label: str
    steps: tuple[Ancestor, ...]


def ancestry(parents: Mapping[str, str], item: str) -> tuple[str, ...]:
    """The ids from the oldest known ancestor to `item`, by `parents` (id to parent id, "" for none).

    >>> ancestry({"2/0": "1/3", "1/3": "0/8", "0/8": ""}, "2/0")
    ('0/8', '1/3', '2/0')
    """
    line = [item]
    while (parent := parents.get(line[-1], "")) and parent not in line:
        line.append(parent)
    return tuple(reversed(line))


@dataclass(frozen=True, kw_only=True)
class ModelUse:
    """What one role asked of its model. `saw_private` where requests held private records: then only `asked` is public."""

    role: str
    kind: str
    model: str
    location: str
    saw_private: bool
    asked: int
    from_cache: int | None = None
    sent: int | None = None
    refused: int | None = None
    cost: str = ""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Where the figures come from. `date` is a day; how long it took is shown in the private copy alone."""

    run: str = ""
    date: str = ""
    commit: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    duration_s: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportData:
    """All of one run's page; what is empty is left out of the page."""

    title: str
    subtitle: str = ""
    claim: Claim | None = None
    galleries: tuple[Gallery, ...] = ()
    curves: tuple[Curve, ...] = ()
    releases: tuple[Release, ...] = ()
    training: Mapping[str, str] = field(default_factory=dict)
    """Public settings of a training, by what they are called."""
    signal: tuple[SignalRow, ...] = ()
    lineages: tuple[Lineage, ...] = ()
    models: tuple[ModelUse, ...] = ()
    scores: tuple[Score, ...] = ()
    facts: RunFacts = field(default_factory=RunFacts)
    verify: str = ""

    def public(self) -> ReportData:
        """What may leave: nothing of the result depends on what was left out."""
        return dataclasses.replace(
            self,
            curves=tuple(curve for curve in self.curves if curve.protected),
            scores=tuple(score for score in self.scores if score.protected),
            models=tuple(_slots_only(use) if use.saw_private else use for use in self.models),
            facts=dataclasses.replace(self.facts, duration_s=None),
        )


def _slots_only(use: ModelUse) -> ModelUse:
    return dataclasses.replace(use, from_cache=None, sent=None, refused=None, cost="")
