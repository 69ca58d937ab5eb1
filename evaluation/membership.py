"""Membership inference on a released set: can its reader tell the private records from held-out ones of the same source?

Two attacks that need no shadow models, each a score by which members should be the larger ones:

    distance   minus the distance to the nearest synthetic item (Chen et al., 2020, GAN-Leaks, equation 5)
    density    log of the synthetic density over a reference density at the record, by kernels of one width in the items'
               feature space (van Breugel et al., 2023, DOMIAS, equation 2); the reference is half of the held-out records

Evidence, no guarantee: an attack that fails proves nothing, and each figure is computed from private records exactly, so
none is ever protected (rule 21).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..neighbours import search
from ..privacy.randomness import PublicRng
from .intervals import Interval, area_interval, area_under_curve, share_interval
from .metric import SHARE, Items, MetricError, Score, same_network

FEWEST = 20
"""Records of each kind, below which an attack says nothing."""
FALSE_POSITIVE_RATES = (0.01, 0.001)


@dataclass(frozen=True, kw_only=True, eq=False)
class Attack:
    """What an attack says of each member and of each held-out record that is no member: larger is likelier a member."""

    name: str
    members: np.ndarray
    others: np.ndarray

    def area(self) -> tuple[float, Interval]:
        """Area under the ROC curve, 0.5 if the attack knows nothing; bootstrap interval."""
        return area_under_curve(self.members, self.others), area_interval(self.members, self.others)

    def found(self, rate: float) -> tuple[float, Interval] | None:
        """The share of members above the lowest threshold with at most `rate` of the others above it (Carlini et al., 2022).

        Clopper-Pearson interval at that threshold. None where there are fewer than 1 / rate others: they cannot show it.
        """
        if len(self.others) * rate < 1:
            return None
        allowed = int(len(self.others) * rate + 1e-9)
        threshold = np.sort(self.others)[len(self.others) - allowed - 1]
        hits = int(np.sum(self.members > threshold))
        return hits / len(self.members), share_interval(hits, len(self.members))

    def balanced_accuracy(self) -> tuple[float, Interval]:
        """The mean of the shares of members and of others that a threshold tells rightly, 0.5 if the attack knows nothing.

        The threshold is chosen on one half of the records and counted on the other, both ways, so that it is not flattered.
        The interval joins two of Clopper and Pearson, at 97.5 % each.
        """
        hits, passes = 0, 0
        for half in (0, 1):
            threshold = _best_threshold(self.members[half::2], self.others[half::2])
            hits += int(np.sum(self.members[1 - half :: 2] > threshold))
            passes += int(np.sum(self.others[1 - half :: 2] <= threshold))
        bounds = [
            share_interval(hits, len(self.members), level=0.975),
            share_interval(passes, len(self.others), level=0.975),
        ]
        value = (hits / len(self.members) + passes / len(self.others)) / 2
        return value, (sum(low for low, _ in bounds) / 2, sum(high for _, high in bounds) / 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class Membership:
    """The attacks on one released set."""

    attacks: tuple[Attack, ...]
    subject: str
    reference: str
    network: str
    network_hash: str
    n: int

    def scores(self) -> tuple[Score, ...]:
        """Area, balanced accuracy and shares found at small false positive rates of each attack, with 95 % intervals."""
        return tuple(self._scores())

    def _scores(self) -> Iterator[Score]:
        for attack in self.attacks:
            yield self._score(f"membership AUC by {attack.name}", attack.area(), attack)
            yield self._score(f"membership balanced accuracy by {attack.name}", attack.balanced_accuracy(), attack)
            for rate in FALSE_POSITIVE_RATES:
                found = attack.found(rate)
                if found is not None:
                    yield self._score(f"members found at {rate:.1%} false alarms by {attack.name}", found, attack)

    def _score(self, name: str, figure: tuple[float, Interval], attack: Attack) -> Score:
        value, interval = figure
        return Score(
            name=name,
            subject=self.subject,
            value=value,
            interval=interval,
            protected=False,
            unit=SHARE,
            network=self.network,
            network_hash=self.network_hash,
            reference=self.reference,
            n=self.n,
            reference_n=len(attack.members),
        )


def membership(*, members: Items, held_out: Items, synthetic: Items, seed: int = 0) -> Membership:
    """Both attacks, in the items' feature space. `members` are the private records, `held_out` others of their source.

    A public split by `seed` gives one half of `held_out` to the reference density; the other half is attacked. Raises
    MetricError for fewer than 20 members, 40 held-out records or 2 synthetic items.
    """
    for items in (held_out, synthetic):
        same_network(members, items)
    for items, least in ((members, FEWEST), (held_out, 2 * FEWEST), (synthetic, 2)):
        if len(items) < least:
            raise MetricError(f"{items.name}: membership inference needs at least {least} items, not {len(items)}")
    inside, outside, released = (_rows(items) for items in (members, held_out, synthetic))
    order = PublicRng(seed).at("membership").permutation(len(outside))
    others, reference = outside[order[::2]], outside[order[1::2]]
    # Members in a random order too: the halves of the balanced accuracy must be alike.
    inside = inside[PublicRng(seed).at("membership", "members").permutation(len(inside))]
    return Membership(
        attacks=(
            Attack(
                name="distance",
                members=-nearest_distances(inside, released),
                others=-nearest_distances(outside[order], released),
            ),
            density_ratio(members=inside, others=others, synthetic=released, reference=reference),
        ),
        subject=synthetic.name,
        reference=members.name,
        network=members.network,
        network_hash=members.network_hash,
        n=len(synthetic),
    )


def density_ratio(*, members: np.ndarray, others: np.ndarray, synthetic: np.ndarray, reference: np.ndarray) -> Attack:
    """log p_synthetic - log p_reference at each record, both by Gaussian kernels.

    The width is the median distance between nearest neighbours within `reference`, over the square root of the dimensions:
    about where the density of the reference leaves each of its own records likeliest. No member moves it.
    """
    width = _kernel_width(reference)
    return Attack(
        name="density",
        members=_log_density(members, synthetic, width) - _log_density(members, reference, width),
        others=_log_density(others, synthetic, width) - _log_density(others, reference, width),
    )


def nearest_distances(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Exact search, then each distance measured directly in float64: near zero is where its digits matter."""
    nearest = search(queries, rows, k=1)[:, 0]
    return np.linalg.norm(queries.astype(np.float64) - rows[nearest], axis=1)


def _kernel_width(reference: np.ndarray) -> float:
    nearest = search(reference, reference, k=2)
    # A row's own place is among its two nearest unless two others equal it.
    neighbour = np.where(nearest[:, 0] == np.arange(len(reference)), nearest[:, 1], nearest[:, 0])
    distances = np.linalg.norm(reference.astype(np.float64) - reference[neighbour], axis=1)
    width = (float(np.median(distances)) or float(distances.max())) / math.sqrt(reference.shape[1])
    if width == 0:
        raise MetricError("membership inference needs held-out records that differ; they are all the same")
    return width


def _log_density(queries: np.ndarray, rows: np.ndarray, width: float) -> np.ndarray:
    """Up to a constant that is the same for every set of rows: log mean exp(-|q - r|^2 / (2 width^2)), in bounded memory."""
    rows = rows.astype(np.float64)
    squares = np.square(rows).sum(axis=1)
    chunk = max(_CELLS // len(rows), 1)
    found = np.empty(len(queries))
    for start in range(0, len(queries), chunk):
        some = queries[start : start + chunk].astype(np.float64)
        distances = squares - 2 * (some @ rows.T) + np.square(some).sum(axis=1)[:, None]
        exponents = np.maximum(distances, 0) / (-2 * width**2)
        largest = exponents.max(axis=1)
        found[start : start + chunk] = largest + np.log(np.mean(np.exp(exponents - largest[:, None]), axis=1))
    return found


_CELLS = 4_000_000


def _best_threshold(members: np.ndarray, others: np.ndarray) -> float:
    """The value above which a record is called a member, of highest balanced accuracy; the lowest of equals."""
    values = np.unique(np.concatenate([members, others]))
    found = 1 - np.searchsorted(np.sort(members), values, side="right") / len(members)
    passed = np.searchsorted(np.sort(others), values, side="right") / len(others)
    return float(values[np.argmax(found + passed)])


def _rows(items: Items) -> np.ndarray:
    return items.rows.astype(np.float32)
