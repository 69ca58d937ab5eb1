"""How near synthetic records lie to the private ones, beside how near held-out records lie to them.

Held-out records come from the same source but never voted: if synthetic records lie nearer than they do, something was
memorised. Evidence, no guarantee: every figure is computed from private records exactly, so none is ever protected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .intervals import Interval, area_interval, area_under_curve, median_interval
from .membership import nearest_distances
from .metric import SHARE, Items, MetricError, Score, same_network


@dataclass(frozen=True, kw_only=True, eq=False)
class NearestRecords:
    """Distance from each synthetic and each held-out item to the nearest private record."""

    synthetic: np.ndarray
    held_out: np.ndarray
    subject: str
    reference: str
    network: str
    network_hash: str
    records: int

    def scores(self) -> tuple[Score, ...]:
        """Median distances, and the share of pairs in which the synthetic item is the nearer one (0.5 if it is no nearer).

        The intervals are of 95 %: exact for medians, a bootstrap over both kinds of items for the share.
        """
        name = "median distance to the nearest private record"
        return (
            self._score(name, float(np.median(self.synthetic)), median_interval(self.synthetic)),
            self._score(
                name, float(np.median(self.held_out)), median_interval(self.held_out), subject="held-out records"
            ),
            self._score(
                "share nearer than held-out records",
                area_under_curve(-self.synthetic, -self.held_out),
                area_interval(-self.synthetic, -self.held_out),
                unit=SHARE,
            ),
        )

    def _score(self, name: str, value: float, interval: Interval, *, subject: str = "", unit: str = "") -> Score:
        return Score(
            name=name,
            subject=subject or self.subject,
            value=value,
            interval=interval,
            protected=False,
            unit=unit,
            network=self.network,
            network_hash=self.network_hash,
            reference=self.reference,
            n=len(self.held_out if subject else self.synthetic),
            reference_n=self.records,
            least=0.0,
        )


def nearest_records(*, private: Items, held_out: Items, synthetic: Items) -> NearestRecords:
    """Exact Euclidean distances in the items' feature space."""
    for items in (held_out, synthetic):
        same_network(private, items)
    for items in (private, held_out, synthetic):
        if not len(items):
            raise MetricError(f"{items.name}: nearest records need at least one item")
    return NearestRecords(
        synthetic=_distances(synthetic, private),
        held_out=_distances(held_out, private),
        subject=synthetic.name,
        reference=private.name,
        network=private.network,
        network_hash=private.network_hash,
        records=len(private),
    )


def _distances(items: Items, private: Items) -> np.ndarray:
    return nearest_distances(items.rows.astype(np.float32), private.rows.astype(np.float32))
