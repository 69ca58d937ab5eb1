"""Kernel distances: the squared maximum mean discrepancy of two sets of features, KID and CMMD.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)      Gretton et al. (2012), lemma 6

Unbiased: no item is compared with itself, so that equal distributions give zero on average at any n, and a little less or
more in each case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from ..neighbours.blocks import blocks
from .metric import Items, Score, same_network
from .metric_config import Judge, MetricConfig, References, at_least, score
from .statistics import unit_rows

ROWS = 256
"""Rows of a Gram matrix that exist at once."""
PARTS, PART = 10, 10
"""An interval is taken over so many disjoint parts, of at least so many items each."""

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Rows (n, d) and (m, d), float64, to (n, m)."""


@dataclass(frozen=True, kw_only=True)
class KernelDistance:
    """`value`; the standard deviation over subsets, where there are any; and a 95 % confidence interval of the value."""

    value: float
    deviation: float = 0.0
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Polynomial:
    """(gamma x.y + offset)^degree, with gamma = 1/dimensions."""

    degree: int = 3
    offset: float = 1.0

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        base = x @ (y.T / x.shape[1])
        base += self.offset
        power = base.copy()
        for _ in range(self.degree - 1):  # many times faster than **
            power *= base
        return power


@dataclass(frozen=True, kw_only=True)
class GaussianLessOne:
    """exp(-|x - y|^2 / (2 width^2)) - 1: the same distance as without the 1, and digits left where all is near 1."""

    width: float

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        exponents = x @ (y.T / self.width**2)
        exponents -= (x * x).sum(axis=1)[:, None] / (2 * self.width**2)
        exponents -= (y * y).sum(axis=1) / (2 * self.width**2)
        np.minimum(exponents, 0.0, out=exponents)
        np.exp(exponents, out=exponents)
        exponents -= 1
        return exponents


def mmd(kernel: Kernel, x: np.ndarray, y: np.ndarray, *, biased: bool = False) -> float:
    """MMD^2 of two sets of rows: the unbiased estimate, or the biased one, which compares items with themselves too."""
    return float(_mmds(kernel, x, y, np.ones((len(x), 1)), np.ones((len(y), 1)), biased=biased)[0])


def subset_mmds(kernel: Kernel, x: np.ndarray, y: np.ndarray, *, subsets: int, size: int, seed: int) -> np.ndarray:
    """The unbiased MMD^2 of `subsets` random subsets of `size` items of each set, the draws being torch-fidelity's."""
    rng = np.random.RandomState(seed)
    chosen = [tuple(rng.choice(len(rows), size, replace=False) for rows in (x, y)) for _ in range(subsets)]
    if len(x) * len(x) + len(y) * len(y) > 2 * subsets * size * size:
        return np.array([mmd(kernel, x[some], y[others]) for some, others in chosen])
    # Every pair is in several subsets: one Gram matrix serves all.
    members = [np.zeros((len(rows), subsets)) for rows in (x, y)]
    for subset, pair in enumerate(chosen):
        for member, rows in zip(members, pair, strict=True):
            member[rows, subset] = 1.0
    return _mmds(kernel, x, y, members[0], members[1], biased=False)


def interval_of(kernel: Kernel, x: np.ndarray, y: np.ndarray, *, value: float, seed: int) -> tuple[float, float] | None:
    """A 95 % t interval around `value`, from the unbiased MMD^2 of disjoint random parts (Zaremba et al. 2013).

    Parts are independent, subsets that overlap are not. It is on the safe side: an estimate from all pairs varies less than
    the mean over parts does. None where there are too few items for three parts.
    """
    from scipy.stats import t

    parts = min(PARTS, len(x) // PART, len(y) // PART)
    if parts < 3:
        return None
    rng = np.random.default_rng(seed)
    split = [np.array_split(rng.permutation(len(rows)), parts) for rows in (x, y)]
    found = [mmd(kernel, x[some], y[others]) for some, others in zip(*split, strict=True)]
    half = float(t.ppf(0.975, parts - 1) * np.std(found, ddof=1) / np.sqrt(parts))
    return value - half, value + half


class KernelInceptionDistance(MetricConfig):
    """KID of Binkowski et al. (2018): the cubic polynomial kernel, the mean over subsets, as torch-fidelity computes it.

    Its expectation is the same at any size of a subset; `subset_size` is by default 1,000, or half of the smaller set.
    """

    kind: str = Field(default="kid", pattern="^kid$")
    subsets: int = Field(default=100, ge=1)
    subset_size: int | None = Field(default=None, ge=2)
    seed: int = 2020

    def __call__(self, real: Items, synthetic: Items, /) -> Score:
        same_network(real, synthetic)
        at_least(self.subset_size or 4, "KID", real, synthetic, instead="lower `subset_size`")
        found = self.distance(real.rows, synthetic.rows)
        return score("KID", found.value, synthetic, real, better="lower", interval=found.interval)

    def distance(self, real: np.ndarray, synthetic: np.ndarray) -> KernelDistance:
        """Of features (n, d) and (m, d)."""
        x, y = (np.asarray(rows, dtype=np.float64) for rows in (synthetic, real))
        kernel, size = Polynomial(), self.subset_size or min(1000, len(x) // 2, len(y) // 2)
        found = subset_mmds(kernel, x, y, subsets=self.subsets, size=size, seed=self.seed)
        value = float(found.mean())
        interval = interval_of(kernel, x, y, value=value, seed=self.seed)
        return KernelDistance(value=value, deviation=float(found.std()), interval=interval)

    def judge(self, references: References) -> Judge:
        return lambda synthetic: (self(references.test, synthetic),)


class ClipMaximumMeanDiscrepancy(MetricConfig):
    """CMMD of Jayasumana et al. (2024): a Gaussian kernel of width 10 on unit-norm embeddings, times 1,000.

    Meant for CLIP's embeddings; the score names the network that was used. `unbiased` is equation 5 of the paper, `biased`
    what its published code computes, and so its published figures: larger by about 10/n.
    """

    kind: str = Field(default="cmmd", pattern="^cmmd$")
    estimate: Literal["unbiased", "biased"] = "unbiased"
    width: float = Field(default=10.0, gt=0)
    factor: float = Field(default=1000.0, gt=0)
    seed: int = 0

    def __call__(self, real: Items, synthetic: Items, /) -> Score:
        same_network(real, synthetic)
        at_least(2, "CMMD", real, synthetic)
        found = self.distance(real.rows, synthetic.rows)
        # The biased estimate is a squared norm; the unbiased one, as KID, may be below zero.
        name, least = ("CMMD", None) if self.estimate == "unbiased" else ("CMMD (biased)", 0.0)
        return score(name, found.value, synthetic, real, better="lower", interval=found.interval, least=least)

    def distance(self, real: np.ndarray, synthetic: np.ndarray) -> KernelDistance:
        """Of features (n, d) and (m, d) of any length."""
        x, y, kernel = unit_rows(real), unit_rows(synthetic), GaussianLessOne(width=self.width)
        value = mmd(kernel, x, y, biased=self.estimate == "biased")
        interval = interval_of(kernel, x, y, value=value, seed=self.seed)
        scaled = None if interval is None else (self.factor * interval[0], self.factor * interval[1])
        return KernelDistance(value=self.factor * value, interval=scaled)

    def judge(self, references: References) -> Judge:
        return lambda synthetic: (self(references.test, synthetic),)


def _mmds(
    kernel: Kernel, x: np.ndarray, y: np.ndarray, in_x: np.ndarray, in_y: np.ndarray, *, biased: bool
) -> np.ndarray:
    """MMD^2 of each column's members, from one pass over the Gram matrices; `in_x` (n, subsets) and `in_y` are 0 or 1."""
    n, m = in_x.sum(axis=0), in_y.sum(axis=0)
    within_x, within_y = (
        _within(kernel, rows, members, without_self=not biased) / (count * (count - (not biased)))
        for rows, members, count in ((x, in_x, n), (y, in_y, m))
    )
    return within_x + within_y - 2 * _between(kernel, x, y, in_x, in_y) / (n * m)


def _within(kernel: Kernel, x: np.ndarray, members: np.ndarray, *, without_self: bool) -> np.ndarray:
    """sum k(x_i, x_j) over the members of each subset; each pair is computed once and counted twice."""
    total = np.zeros(members.shape[1])
    for block in blocks(len(x), ROWS):
        gram = kernel(x[block], x[block.start :])
        own = np.arange(len(gram))
        if without_self:
            gram[own, own] = 0.0
        gram[:, len(gram) :] *= 2
        total += ((gram @ members[block.start :]) * members[block]).sum(axis=0)
    return total


def _between(kernel: Kernel, x: np.ndarray, y: np.ndarray, in_x: np.ndarray, in_y: np.ndarray) -> np.ndarray:
    """sum k(x_i, y_j) over the members of each subset."""
    total = np.zeros(in_x.shape[1])
    for block in blocks(len(x), ROWS):
        total += ((kernel(x[block], y) @ in_y) * in_x[block]).sum(axis=0)
    return total
