"""Canary exposure: are records that were planted among the private ones nearer to what was released than their like?

The exposure of a planted canary is log2 of the number of canaries that could have been planted, less log2 of its rank among
them by distance to the nearest synthetic item (Carlini et al., 2019, definition 2): about 1.44 bits on average where
nothing is remembered, and at most log2(references + 1). Planting changes the private set, so the run with canaries is one
of its own, on stand-in or public data. No figure is ever protected (rule 21).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..privacy.randomness import PublicRng
from .intervals import RESAMPLES, Interval, area_interval, area_under_curve, percentiles, share_interval
from .membership import nearest_distances
from .metric import SHARE, Items, MetricError, Score, same_network

FEWEST_REFERENCES = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Exposure:
    """Distances to the nearest synthetic item, of canaries that were planted and of reference canaries that were not."""

    planted: np.ndarray
    references: np.ndarray
    subject: str
    reference: str
    network: str
    network_hash: str
    n: int

    @property
    def exposures(self) -> np.ndarray:
        """In bits, one a planted canary."""
        return _exposures(self.planted, self.references)

    @property
    def largest_possible(self) -> float:
        """What a canary has that is nearer than all references: more cannot be seen with so few."""
        return float(np.log2(len(self.references) + 1))

    @property
    def expected_of_nothing(self) -> float:
        """The mean exposure of canaries that were never planted: every rank is as likely."""
        return float(np.mean(self.largest_possible - np.log2(np.arange(1, len(self.references) + 2))))

    def scores(self) -> tuple[Score, ...]:
        """Mean exposure and that of no memory; the largest exposure; the share of pairs in which the planted one is nearer."""
        return (
            self._score("mean canary exposure", float(np.mean(self.exposures)), self._mean_interval()),
            self._score("mean canary exposure", self.expected_of_nothing, None, subject="canaries never planted"),
            self._score("largest canary exposure", float(np.max(self.exposures)), self._largest_interval()),
            self._score(
                "canaries nearer than references",
                area_under_curve(-self.planted, -self.references),
                area_interval(-self.planted, -self.references),
                unit=SHARE,
            ),
        )

    def _mean_interval(self) -> Interval:
        """Bootstrap over canaries and references."""
        rng = PublicRng(0).at("interval", "exposure")
        means = [
            np.mean(
                _exposures(
                    self.planted[rng.integers(len(self.planted), size=len(self.planted))],
                    self.references[rng.integers(len(self.references), size=len(self.references))],
                )
            )
            for _ in range(RESAMPLES)
        ]
        return percentiles(np.asarray(means))

    def _largest_interval(self) -> Interval:
        """From an exact interval of the share of references that are nearer, for all canaries at once (Bonferroni)."""
        nearer = int(np.sum(self.references <= self.planted.min()))
        level = 1 - 0.05 / len(self.planted)
        low, high = share_interval(nearer, len(self.references), level=level)
        bits = [
            min(float(-np.log2(share)), self.largest_possible) if share else self.largest_possible
            for share in (high, low)
        ]
        # The figure itself counts the canary among its like, which is a little less than the share says.
        value = float(np.max(self.exposures))
        return min(bits[0], value), max(bits[1], value)

    def _score(
        self, name: str, value: float, interval: Interval | None, *, subject: str = "", unit: str = "bits"
    ) -> Score:
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
            n=self.n,
            reference_n=len(self.planted),
            least=0.0,
        )


def exposure(*, planted: Items, references: Items, synthetic: Items) -> Exposure:
    """In the items' feature space. `references` are canaries of the same making that were not planted, 10 or more."""
    for items in (references, synthetic):
        same_network(planted, items)
    for items, least in ((planted, 1), (references, FEWEST_REFERENCES), (synthetic, 1)):
        if len(items) < least:
            raise MetricError(f"{items.name}: canary exposure needs at least {least} items, not {len(items)}")
    released = synthetic.rows.astype(np.float32)
    return Exposure(
        planted=nearest_distances(planted.rows.astype(np.float32), released),
        references=nearest_distances(references.rows.astype(np.float32), released),
        subject=synthetic.name,
        reference=planted.name,
        network=planted.network,
        network_hash=planted.network_hash,
        n=len(synthetic),
    )


def _exposures(planted: np.ndarray, references: np.ndarray) -> np.ndarray:
    """A canary ranks behind every reference that is as near."""
    rank = 1 + np.searchsorted(np.sort(references), planted, side="right")
    return np.log2(len(references) + 1) - np.log2(rank)
