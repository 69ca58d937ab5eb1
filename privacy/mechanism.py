"""What a mechanism is, what it costs, and how noise is calibrated to a target.

A config holds public parameters and cannot be called. `calibrate` turns it into a calibrated mechanism, which can.
How far one unit can move a query, under each relation, is said here once; noise and ledger both read it here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    import numpy as np

    from .randomness import SecretRng

JSON = None | bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"]
In = TypeVar("In", contravariant=True)
M = TypeVar("M", covariant=True)


class CalibrationError(ValueError):
    """No noise meets the target; the message is one line that says why."""


class Relation(StrEnum):
    """Which two private sets count as neighbours."""

    ZERO_OUT = "zero-out"
    ADD_OR_REMOVE = "add-or-remove"
    REPLACE_ONE = "replace-one"

    @property
    def contributions(self) -> int:
        """How many records' contributions differ between neighbours: one vanishes, or one vanishes and one appears."""
        return 2 if self is Relation.REPLACE_ONE else 1


@dataclass(frozen=True, kw_only=True)
class PrivacyTarget:
    """(epsilon, delta) for one unit under one relation."""

    epsilon: float
    delta: float
    unit: str
    relation: Relation = Relation.ZERO_OUT

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf:
            raise ValueError(f"epsilon is {self.epsilon}; it must be a finite number above 0")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta is {self.delta}; it must lie between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class DiscreteGaussian:
    """Exact discrete Gaussian noise of parameter `scale` on integer counts, of which a unit changes `cells` by at most 1.

    Accounted as the scalar pair at `scale`, composed `cells * copies` times (twice that for replace-one).
    """

    scale: float
    cells: int = 1
    copies: int = 1

    def __post_init__(self) -> None:
        _require_positive("scale", self.scale)
        _require_count("cells", self.cells)
        _require_count("copies", self.copies)

    @classmethod
    def of(cls, noise_multiplier: float, *, cells: int = 1, copies: int = 1) -> DiscreteGaussian:
        """The cost whose scale is `noise_multiplier` times the L2 sensitivity, sqrt(cells)."""
        return cls(scale=noise_multiplier * math.sqrt(cells), cells=cells, copies=copies)

    @property
    def noise_multiplier(self) -> float:
        """The scale in units of the L2 sensitivity under zero-out."""
        return self.scale / math.sqrt(self.cells)

    def pairs(self, relation: Relation) -> int:
        """How many scalar pairs (noise, noise moved by 1) a unit's effect on all copies is made of."""
        return self.cells * self.copies * relation.contributions


MOST_NOISE = 2.0**38
"""The most noise on a lattice of 2^20 points a sensitivity: its tails, 9.2 standard deviations, fit 64-bit integers."""


@dataclass(frozen=True, kw_only=True)
class SampledGaussian:
    """`steps` Poisson-sampled Gaussian queries (lattice noise): PoissonSampled(probability, Gaussian(noise_multiplier))."""

    probability: float
    noise_multiplier: float
    steps: int = 1

    def __post_init__(self) -> None:
        _require_positive("noise_multiplier", self.noise_multiplier)
        _require_count("steps", self.steps)
        if self.noise_multiplier > MOST_NOISE:
            raise ValueError(
                f"noise_multiplier is {self.noise_multiplier:g}; above {MOST_NOISE:g} noise does not fit the integers it is "
                "added in, and an overflow would hide nothing; leave the query out instead"
            )
        if not 0 < self.probability <= 1:
            raise ValueError(f"probability is {self.probability}; it must be above 0 and at most 1")


@dataclass(frozen=True, kw_only=True)
class PureEpsilon:
    """A mechanism of pure `epsilon` under zero-out (twice that under replace-one), `copies` times."""

    epsilon: float
    copies: int = 1

    def __post_init__(self) -> None:
        _require_positive("epsilon", self.epsilon)
        _require_count("copies", self.copies)

    def total(self, relation: Relation) -> float:
        """The epsilon of all copies; pure epsilons add."""
        return self.epsilon * self.copies * relation.contributions


@dataclass(frozen=True, kw_only=True)
class ZeroConcentrated:
    """A rho-zCDP mechanism (weighted votes), `copies` times. A plan that holds one is accounted by zCDP throughout."""

    rho: float
    copies: int = 1

    def __post_init__(self) -> None:
        _require_positive("rho", self.rho)
        _require_count("copies", self.copies)

    def total(self, relation: Relation) -> float:
        """The rho of all copies: it grows with the square of the distance, which replace-one at most doubles."""
        return self.rho * self.copies * relation.contributions**2


Cost = DiscreteGaussian | SampledGaussian | PureEpsilon | ZeroConcentrated


class PrivateInput(Protocol):
    """What a mechanism reads; `parts` yields all of it as bytes, in an order of its own, for the keyed digest."""

    def parts(self) -> Iterator[bytes]: ...


class CalibratedMechanism(Protocol[In]):
    """A private query with its noise: all public parameters are bound, one private argument remains."""

    @property
    def cost(self) -> Cost: ...

    def describe(self) -> Mapping[str, JSON]:
        """The mechanism's name and every public parameter that fixes its distribution, as JSON."""
        ...

    def __call__(self, secret: SecretRng, data: In, /) -> Mapping[str, np.ndarray]: ...


class Costed(Protocol):
    @property
    def cost(self) -> Cost: ...


CostedM = TypeVar("CostedM", bound=Costed, covariant=True)


class MechanismConfig(Protocol[M]):
    """Public parameters only; has no `__call__`."""

    def with_noise(self, noise_multiplier: float, /) -> M: ...


def calibrate(
    config: MechanismConfig[CostedM], target: PrivacyTarget, *, uses: int = 1, beside: Sequence[Cost] = ()
) -> CostedM:
    """The mechanism with the least noise whose `uses` releases, together with the costs `beside` them, meet the target.

    The result never costs more than the target's epsilon at its delta, and at most a thousandth less.
    """
    from .accounting import delta, epsilon, gaussian_noise_multiplier

    _require_count("uses", uses)

    def costs(noise_multiplier: float) -> list[Cost]:
        return [*beside, *[config.with_noise(noise_multiplier).cost] * uses]

    def excess(noise_multiplier: float) -> float:
        """log(delta spent / delta allowed): at most 0 where the target is met."""
        spent = delta(costs(noise_multiplier), target.epsilon, target.relation)
        return math.log(spent / target.delta) if spent > 0 else -800.0

    if beside and epsilon(beside, target.delta, target.relation) >= target.epsilon:
        raise CalibrationError(
            f"the releases beside this one already cost epsilon {target.epsilon:g} at delta {target.delta:g}; "
            "give them more noise, or raise epsilon"
        )
    guess = gaussian_noise_multiplier(target.epsilon, target.delta, uses=uses * target.relation.contributions)
    low, high = _bracket(excess, guess)
    noise_multiplier = _least(excess, low, high)
    step = 1e-10
    while epsilon(costs(noise_multiplier), target.delta, target.relation) > target.epsilon:
        noise_multiplier *= 1 + step
        step *= 2
        if step > 0.01:
            raise CalibrationError(
                f"no noise was found that meets epsilon {target.epsilon:g} at delta {target.delta:g}"
            )
    return config.with_noise(noise_multiplier)


_WIDEST = 2.0**40  # how far from the closed form's guess a bracket is looked for


def _bracket(excess: _Excess, guess: float) -> tuple[float, float]:
    """Noise multipliers (too little, enough) around `guess`, which is near for a histogram and far for sampled queries."""
    low, high, factor = guess * 0.995, guess * 1.005, 1.05
    while excess(high) > 0:
        low, high, factor = high, high * factor, factor * factor
        if high > guess * _WIDEST:
            raise CalibrationError("no amount of noise meets the target: what lies beside this release is too costly")
    while excess(low) <= 0:
        high, low, factor = low, low / factor, factor * factor
        if low < guess / _WIDEST:
            raise CalibrationError("the target is met without noise: epsilon is too large to mean anything here")
    return low, high


def _least(excess: _Excess, low: float, high: float) -> float:
    """The least noise multiplier in [low, high] that is enough, to nine digits: Illinois steps in logarithms."""
    left, right = math.log(low), math.log(high)
    at_left, at_right = excess(low), excess(high)
    side = 0
    for _ in range(200):
        if right - left < 1e-9:
            break
        steps = at_left - at_right
        middle = left + (right - left) * at_left / steps if 0 < steps < 200 else (left + right) / 2
        middle = min(max(middle, left + (right - left) * 1e-3), right - (right - left) * 1e-3)
        value = excess(math.exp(middle))
        if value > 0:
            left, at_left = middle, value
            at_right = at_right / 2 if side == -1 else at_right
            side = -1
        else:
            right, at_right = middle, value
            at_left = at_left / 2 if side == 1 else at_left
            side = 1
    return math.exp(right)


class _Excess(Protocol):
    def __call__(self, noise_multiplier: float, /) -> float: ...


def _require_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}; it must be a finite number above 0")


def _require_count(name: str, value: int) -> None:
    if value < 1 or value != int(value):
        raise ValueError(f"{name} is {value}; it must be a whole number of at least 1")
