"""What an evaluation says, and whether it may be said: `Items` go into a `Metric`, a `Score` comes out.

Whether a score may be published is carried by its inputs, not decided by who prints it: a score is protected only
if everything that it was computed from is. Protected means a function of released values, or of records that are
declared public; everything else is unprotected and stays in the private copy (rule 21 of the guarantee).

    MetricError (ValueError)      a metric cannot be computed on these items: one line that says why
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Protocol

import numpy as np

SHARE = "share"
"""The unit of a score in [0, 1] that a reader expects as a percentage."""

Better = Literal["higher", "lower", ""]


class MetricError(ValueError):
    """The items do not allow this metric; the message names the items and the way out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Items:
    """What a metric looks at: one row an item, in one feature space, with labels where there are any.

    `values` is images (n, height, width, channels), features (n, dimensions), finite, or texts (n, 1), an array of objects;
    `labels` are class indices >= 0.
    `name` is how a reader knows the items ("final population", "held-out test"); `network` and `network_hash` the
    feature space. `protected` is False unless the caller can say why not.
    """

    name: str
    values: np.ndarray
    labels: np.ndarray | None = None
    network: str = ""
    network_hash: str = ""
    protected: bool = False

    def __post_init__(self) -> None:
        if self.values.ndim < 2:
            raise MetricError(f"{self.name}: items are rows of an array, not an array of shape {self.values.shape}")
        wrong = len(self.values) - int(_finite(self.values).sum())
        if wrong:
            raise MetricError(
                f"{self.name}: {wrong} of {len(self.values)} items hold NaN or infinity; leave them out first"
            )
        if self.labels is not None and (len(self.labels) != len(self.values) or self.labels.ndim != 1):
            raise MetricError(f"{self.name}: {self.labels.shape} labels for {len(self.values)} items")
        if self.labels is not None and len(self.labels) and int(self.labels.min()) < 0:
            raise MetricError(f"{self.name}: a label is negative; take records with ghosts through Items.of_records")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def rows(self) -> np.ndarray:
        """The values with one row an item."""
        return self.values.reshape(len(self.values), math.prod(self.values.shape[1:]))

    @classmethod
    def of_records(
        cls,
        *,
        name: str,
        values: np.ndarray,
        labels: np.ndarray | None = None,
        valid: np.ndarray | None = None,
        network: str = "",
        network_hash: str = "",
        protected: bool = False,
    ) -> Items:
        """Items from disclosed records: slots that hold a ghost (not valid, label -1, NaN) are silently left out.

        No message depends on them, because a private record may not change one (rule 2).
        """
        keep = _finite(values)
        if valid is not None:
            keep &= valid.astype(bool)
        if labels is not None:
            keep &= labels >= 0
        return cls(
            name=name,
            values=values[keep],
            labels=None if labels is None else labels[keep],
            network=network,
            network_hash=network_hash,
            protected=protected,
        )


@dataclass(frozen=True, kw_only=True)
class Score:
    """One figure, with what a reader needs to compare it and what a publisher needs to withhold it.

    `subject` is what was judged, on `n` items; `reference` the split it was judged against, of `reference_n` items.
    `interval` is a 95 % confidence interval: over `repeats` seeds, or over the items where there is one repeat.
    `least` and `most` are what the figure lies between by definition, where anything bounds it; a share needs neither.
    """

    name: str
    subject: str
    value: float
    protected: bool
    better: Better = ""
    unit: str = ""
    network: str = ""
    network_hash: str = ""
    reference: str = ""
    n: int = 0
    reference_n: int = 0
    interval: tuple[float, float] | None = None
    repeats: int = 1
    least: float | None = None
    most: float | None = None

    def __post_init__(self) -> None:
        figures = (self.value, *(self.interval or ()))
        if not all(math.isfinite(figure) for figure in figures):
            raise MetricError(f"{self.name} of {self.subject} is {self.value}, which is no figure")
        if self.interval is not None and self.interval[0] > self.interval[1]:
            raise MetricError(f"{self.name} of {self.subject}: the interval {self.interval} is upside down")

    @property
    def column(self) -> tuple[str, ...]:
        """Scores may stand in one column only if these are equal: name, feature space, reference, unit."""
        return (self.name, self.network, self.network_hash, self.reference, self.unit, self.better)

    def within(self, low: float, high: float) -> tuple[float, float]:
        """An interval cut to what the figure can be. It covers as often as before: no value outside could be the true one."""
        least, most = (0.0, 1.0) if self.unit == SHARE else (self.least, self.most)
        least, most = -math.inf if least is None else least, math.inf if most is None else most
        return min(max(low, least), most), min(max(high, least), most)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Score:
        """The score that `to_json` wrote, after a round through JSON text too."""
        unknown = set(written) - {field.name for field in fields(cls)}
        if unknown:
            raise MetricError(f"a score has no field {sorted(unknown)[0]!r}; it was written by another version")
        interval = written.get("interval")
        try:
            return cls(**{**written, "interval": None if interval is None else (interval[0], interval[1])})
        except (TypeError, IndexError):
            raise MetricError(f"not a score: {sorted(written)}") from None


class Metric(Protocol):
    """Judges synthetic items by real ones. The score is protected only if both are; the feature spaces must agree."""

    def __call__(self, real: Items, synthetic: Items, /) -> Score: ...


def same_network(first: Items, second: Items) -> None:
    """Refuse to compare features of two networks."""
    if (first.network, first.network_hash) != (second.network, second.network_hash):
        raise MetricError(
            f"{first.name} is measured by {first.network or 'no network'} and {second.name} by "
            f"{second.network or 'no network'}; figures of two networks cannot be compared"
        )
    if first.values.shape[1:] != second.values.shape[1:]:
        raise MetricError(
            f"{first.name} has items of shape {first.values.shape[1:]} and {second.name} of {second.values.shape[1:]}"
        )


def _finite(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind != "f":
        return np.ones(len(values), dtype=bool)
    return np.asarray(np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
