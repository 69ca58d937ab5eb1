"""A metric as a table `{ kind = "..." }` names it: its settings, what it looks at, and how it judges.

A `Judge` gives the scores of one synthetic set; a metric makes it from `References` once, so that what is fitted to real
items is fitted once however many sets are judged. Metrics of one figure are callables `Metric(real, synthetic)` too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from .metric import Better, Items, MetricError, Score

LooksAt = Literal["features", "probabilities", "images", "texts"]
"""What the items hold: features of a network; its class probabilities, which are >= 0 and sum to 1; pixels; or texts."""

Judge = Callable[[Items], tuple[Score, ...]]


@dataclass(frozen=True, kw_only=True, eq=False)
class References:
    """What synthetic items are judged by: held-out real items, and the training items where they may be looked at.

    `classes` names the labels, where anybody knows their names.
    """

    test: Items
    train: Items | None = None
    classes: tuple[str, ...] = ()


class MetricConfig(BaseModel):
    """The base of every metric that the entry points `privolve.metrics` name. Subclasses have a `kind` with a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str
    looks_at: ClassVar[LooksAt] = "features"
    needs_train: ClassVar[bool] = False
    """Whether `References.train` must be given. Such a figure is unprotected wherever the training items are private."""
    needs_labels: ClassVar[bool] = False

    def judge(self, references: References) -> Judge:
        """Raises MetricError, here or when it judges, where the items do not allow the metric."""
        raise NotImplementedError


def train_of(metric: str, references: References) -> Items:
    if references.train is None:
        raise MetricError(f"{metric} needs the training items beside {references.test.name}; leave it out or give them")
    return references.train


def at_least(needed: int, metric: str, *sets: Items, instead: str = "") -> None:
    """Refuse sets with fewer than `needed` items; `instead` is the way out beside giving more."""
    for items in sets:
        if len(items) < needed:
            way_out = f"; {instead}" if instead else ""
            raise MetricError(f"{items.name}: {metric} needs at least {needed} items, not {len(items)}{way_out}")


def score(
    name: str,
    value: float,
    synthetic: Items,
    *references: Items,
    better: Better,
    unit: str = "",
    interval: tuple[float, float] | None = None,
    least: float | None = None,
    most: float | None = None,
) -> Score:
    """The score of `synthetic` by `references`, the first of which is counted. Protected only if all of them are.

    Give `least` and `most` where the definition of the figure bounds it, and `interval` as it was computed: it is cut there.
    """
    found = Score(
        name=name,
        subject=synthetic.name,
        value=value,
        protected=all(items.protected for items in (synthetic, *references)),
        better=better,
        unit=unit,
        network=synthetic.network,
        network_hash=synthetic.network_hash,
        reference=" and ".join(items.name for items in references),
        n=len(synthetic),
        reference_n=len(references[0]) if references else 0,
        least=least,
        most=most,
    )
    return found if interval is None else replace(found, interval=found.within(*interval))
