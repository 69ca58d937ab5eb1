"""Costs into (epsilon, delta).

Discrete Gaussian releases are accounted exactly: the privacy loss of n scalar pairs at scale s is (n/2 + S)/s^2, where S
is the sum of n discrete Gaussians, so its distribution is known on its own lattice. Releases of several scales are put on
one grid by the pessimistic splitting of Connect the Dots (Doroshenko et al., 2022), once a scale and not once a release.
Poisson-sampled releases go through dp-accounting's PLD. The closed-form Gaussian (Balle and Wang, 2018) is the cross-check.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportPrivateImportUsage=false, reportUnnecessaryIsInstance=false

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .mechanism import (
    JSON,
    Cost,
    DiscreteGaussian,
    PureEpsilon,
    Relation,
    SampledGaussian,
    ZeroConcentrated,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class AccountingError(ValueError):
    """These costs cannot be accounted together; the message is one line that says why."""


TAIL_ALLOWANCE = 1e-30
"""Added to delta per scalar pair: what a truncated tail may hold."""


# --- what a ledger asks -----------------------------------------------------------------------------------------------


def epsilon(costs: Sequence[Cost], delta: float, relation: Relation = Relation.ZERO_OUT) -> float:
    """The least epsilon that is known to hold at `delta` for all `costs` together; infinite if none does."""
    if not 0 < delta < 1:
        raise AccountingError(f"delta is {delta}; it must lie between 0 and 1")
    plan = _Plan.of(costs, relation)
    if plan.is_zcdp:
        return zcdp_epsilon(plan.rho, delta)
    if not plan.pairs and not plan.sampled:
        return plan.pure
    if plan.sampled:
        found = plan.loss_distribution().epsilon(delta)
    else:
        high = max(gaussian_epsilon(plan.mu, delta), 1e-12)
        while plan.noisy_delta(high) > delta:
            high *= 1.1 if high < 1e6 else 2
            if high > 1e12:
                return math.inf
        found = _root(plan.noisy_delta, 0.0, high, delta) if plan.noisy_delta(0.0) > delta else 0.0
    return plan.pure + (found * (1 + 1e-9) + 1e-12 if found > 0 else 0.0)


def delta(costs: Sequence[Cost], epsilon: float, relation: Relation = Relation.ZERO_OUT) -> float:
    """The least delta that is known to hold at `epsilon` for all `costs` together."""
    if not epsilon >= 0:
        raise AccountingError(f"epsilon is {epsilon}; it must be at least 0")
    plan = _Plan.of(costs, relation)
    if plan.is_zcdp:
        return zcdp_delta(plan.rho, epsilon)
    if epsilon < plan.pure:
        return 1.0
    return plan.noisy_delta(epsilon - plan.pure)


def default_delta(slots: int) -> float:
    """min(1/(N ln N), 1e-5) for N slots."""
    if slots < 1:
        raise ValueError(f"a private set has at least one slot, not {slots}")
    return 1e-5 if slots < 3 else min(1 / (slots * math.log(slots)), 1e-5)


def check_delta(delta: float, slots: int) -> None:
    """Refuse a delta at which publishing one record picked at random would count as private."""
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}; it must lie between 0 and 1")
    if delta >= 1 / slots:
        raise ValueError(
            f"delta {delta:g} is not below 1/N = {1 / slots:g} for N = {slots} slots; choose a smaller delta"
        )


def rho(costs: Sequence[Cost], relation: Relation = Relation.ZERO_OUT) -> float:
    """The zCDP of all `costs` together (Bun and Steinke, 2016); refused where a cost has none that is of use."""
    return sum(_rho(cost, relation) for cost in costs)


# --- costs as JSON ----------------------------------------------------------------------------------------------------

_KINDS: Mapping[str, type[Any]] = {
    "discrete-gaussian": DiscreteGaussian,
    "sampled-gaussian": SampledGaussian,
    "pure-epsilon": PureEpsilon,
    "zero-concentrated": ZeroConcentrated,
}


def cost_to_json(cost: Cost) -> dict[str, JSON]:
    """The cost as an object with its `kind`; floats survive JSON exactly."""
    for kind, of in _KINDS.items():
        if type(cost) is of:
            return {"kind": kind, **asdict(cost)}
    raise AccountingError(_unknown(cost))


def cost_from_json(value: Mapping[str, Any]) -> Cost:
    """The cost that `cost_to_json` wrote; anything else is refused."""
    fields = dict(value)
    kind = fields.pop("kind", None)
    if kind not in _KINDS:
        raise AccountingError(f"unknown kind of cost {kind!r}; known: {', '.join(_KINDS)}")
    of = _KINDS[kind]
    if set(fields) != set(of.__dataclass_fields__):
        raise AccountingError(
            f"a cost of kind {kind!r} has {', '.join(of.__dataclass_fields__)}; this has {', '.join(fields)}"
        )
    for name, number in fields.items():
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise AccountingError(f"{name!r} of a cost is {number!r}, not a number")
    return of(**fields)


# --- the closed form --------------------------------------------------------------------------------------------------


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu): Theorem 8 of Balle and Wang (2018), without overflow."""
    return math.exp(_log_gaussian_delta(mu, epsilon))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The epsilon at which `gaussian_delta` is `delta`."""
    if mu <= 0 or gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    from scipy.special import ndtri

    high = mu * mu / 2 + mu * max(-float(ndtri(delta)), 0.0) + mu  # delta(eps) is at most Phi(mu/2 - eps/mu)
    return _root_of_log(lambda eps: _log_gaussian_delta(mu, eps), 0.0, high, math.log(delta))


def gaussian_noise_multiplier(epsilon: float, delta: float, uses: int = 1) -> float:
    """sigma for `uses` releases of L2 sensitivity 1 with real Gaussian noise to be (epsilon, delta)-DP together."""
    low = high = 1.0
    while gaussian_delta(high, epsilon) < delta:
        low, high = high, high * 2
    while gaussian_delta(low, epsilon) > delta:
        low, high = low / 2, low
    target = math.log(delta)
    log_mu = _root_of_log(lambda x: -_log_gaussian_delta(math.exp(x), epsilon), math.log(low), math.log(high), -target)
    return math.sqrt(uses) / math.exp(log_mu)


def _log_gaussian_delta(mu: float, epsilon: float) -> float:
    """With u = eps/mu - mu/2, v = eps/mu + mu/2 and e^eps phi(v) = phi(u): delta = phi(u) (Mills(u) - Mills(v))."""
    from scipy.special import erfcx, ndtr

    u, v = epsilon / mu - mu / 2, epsilon / mu + mu / 2
    half = math.sqrt(math.pi / 2)
    mills_v = half * float(erfcx(v / math.sqrt(2)))
    if u < -5:
        value = float(ndtr(-u)) - math.exp(-u * u / 2) / math.sqrt(2 * math.pi) * mills_v
        return math.log(value)
    difference = half * float(erfcx(u / math.sqrt(2))) - mills_v
    if difference <= 0:
        return -math.inf
    return -u * u / 2 - math.log(2 * math.pi) / 2 + math.log(difference)


# --- zero-concentrated DP ---------------------------------------------------------------------------------------------


def zcdp_epsilon(rho: float, delta: float) -> float:
    """The best epsilon over Renyi orders: Proposition 12 of Canonne, Kamath and Steinke (2020)."""

    def at(log_order_minus_one: float) -> float:
        less = math.exp(log_order_minus_one)
        order = 1 + less
        return rho * order + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / less

    return max(_minimum(at, math.log(math.sqrt(math.log(1 / delta) / rho) + 1e-300)), 0.0) * (1 + 1e-12)


def zcdp_delta(rho: float, epsilon: float) -> float:
    """The best delta over Renyi orders: Proposition 12 of Canonne, Kamath and Steinke (2020)."""

    def at(log_order_minus_one: float) -> float:
        less = math.exp(log_order_minus_one)
        order = 1 + less
        return less * (order * rho - epsilon) - math.log(less) + order * math.log1p(-1 / order)

    centre = (epsilon - rho) / (2 * rho)
    return math.exp(min(_minimum(at, math.log(max(centre, 1e-6))), 0.0)) * (1 + 1e-12)


def _minimum(fn: Callable[[float], float], start: float) -> float:
    """The least value found near `start`; every value is valid, so that a missed minimum only costs tightness."""
    from scipy.optimize import minimize_scalar

    low, high = max(start - 6, -14.0), min(start + 6, 300.0)
    found: Any = minimize_scalar(fn, bounds=(low, high), method="bounded", options={"xatol": 1e-10})
    return min(float(found.fun), fn(start))


def _rho(cost: Cost, relation: Relation) -> float:
    if isinstance(cost, ZeroConcentrated):
        return cost.total(relation)
    if isinstance(cost, DiscreteGaussian):
        return cost.pairs(relation) / (2 * cost.scale**2)
    if isinstance(cost, PureEpsilon):
        each = cost.epsilon * relation.contributions
        return cost.copies * each * each / 2
    if isinstance(cost, SampledGaussian):
        raise AccountingError(
            "Poisson-sampled releases have no useful zCDP: keep them out of a plan with weighted votes"
        )
    raise AccountingError(_unknown(cost))


# --- a plan: costs, sorted by how they are accounted ------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Scalar pairs by scale, Poisson-sampled releases, pure epsilon, or else one rho for all."""

    pairs: Mapping[float, int]
    sampled: Mapping[tuple[float, float], int]
    pure: float
    rho: float
    is_zcdp: bool
    relation: Relation

    @classmethod
    def of(cls, costs: Sequence[Cost], relation: Relation) -> _Plan:
        pairs: dict[float, int] = {}
        sampled: dict[tuple[float, float], int] = {}
        pure, is_zcdp = 0.0, False
        for cost in costs:
            if isinstance(cost, DiscreteGaussian):
                pairs[cost.scale] = pairs.get(cost.scale, 0) + cost.pairs(relation)
            elif isinstance(cost, SampledGaussian):
                key = (cost.probability, cost.noise_multiplier)
                sampled[key] = sampled.get(key, 0) + cost.steps
            elif isinstance(cost, PureEpsilon):
                pure += cost.total(relation)
            elif isinstance(cost, ZeroConcentrated):
                is_zcdp = True
            else:
                raise AccountingError(_unknown(cost))
        total = rho(costs, relation) if is_zcdp else 0.0
        return cls(pairs=pairs, sampled=sampled, pure=pure, rho=total, is_zcdp=is_zcdp, relation=relation)

    @property
    def mu(self) -> float:
        """About the standard deviation of the total privacy loss: a guess for brackets and grids, not a bound."""
        square = sum(count / scale / scale for scale, count in self.pairs.items())
        for (probability, noise_multiplier), steps in self.sampled.items():
            square += steps * _sampled_deviation(probability, noise_multiplier, self.relation) ** 2
        return math.sqrt(square)

    @property
    def allowance(self) -> float:
        return sum(self.pairs.values()) * TAIL_ALLOWANCE

    def noisy_delta(self, epsilon: float) -> float:
        """delta of all but the pure epsilons."""
        if self.sampled:
            value = self.loss_distribution().delta(epsilon)
        elif self.pairs:
            value = _discrete_delta(self.pairs, epsilon)
        else:
            return 0.0
        return min(value + self.allowance, 1.0)

    def loss_distribution(self) -> _LossDistribution:
        """All but the pure epsilons, composed by dp-accounting on one grid."""
        composed = _composed(tuple(self.pairs.items()), tuple(self.sampled.items()), self.relation, self.mu)
        return _LossDistribution(composed, self.allowance)


# --- discrete Gaussians, exactly --------------------------------------------------------------------------------------

_SMOOTH_FROM = 4.0
"""From this scale on the sum of discrete Gaussians is one at s sqrt(n), up to a factor 1 + n e^(-pi^2 s^2) < 1 + n 1e-68."""

_REACH = 12.5
"""Lattice points further than this many standard deviations are left out: less than 1e-33 of the mass."""

_WIDEST = 2e6
"""The largest s sqrt(n) whose lattice is summed."""

_NARROWEST = 1e-3
"""The smallest s: one release then costs about epsilon 500,000."""


def _discrete_delta(pairs: Mapping[float, int], epsilon: float) -> float:
    """delta at `epsilon` of scalar pairs by scale: E[(1 - e^(epsilon - loss))+].

    All distributions are tilted by e^(tilt loss), so that their mass lies where the expectation does and small deltas keep
    their relative precision in the Fourier transforms.
    """
    import numpy as np

    for scale, count in pairs.items():
        if scale < _NARROWEST:
            raise AccountingError(f"noise of scale {scale:g} is no noise; use a smaller epsilon")
        if scale * math.sqrt(count) > _WIDEST:
            raise AccountingError(
                f"noise of scale {scale:g} over {count} changes is beyond what is accounted exactly "
                f"(scale * sqrt(changes) up to {_WIDEST:g}); use a larger epsilon or fewer releases"
            )
    tilt = _tilt(pairs, epsilon)
    sums = [_LatticeSum.of(scale, count, tilt) for scale, count in pairs.items()]
    log_normaliser = sum(part.log_normaliser for part in sums)
    if len(sums) == 1:
        losses, masses = sums[0].losses, sums[0].masses
    else:
        interval = math.sqrt(sum(count / scale / scale for scale, count in pairs.items())) / 2000
        losses, masses = _convolved([_on_grid(part, interval, tilt) for part in sums], interval)
    over = losses - epsilon
    masses, over = masses[over > 0], over[over > 0]
    mean = float(np.sum(masses * np.exp(-tilt * over) * -np.expm1(-over)))
    return math.exp(min(math.log(mean) + log_normaliser - tilt * epsilon, 0.0)) if mean > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class _LatticeSum:
    """The tilted distribution of the total loss of n scalar pairs at one scale: masses e^(tilt loss) P(loss) / normaliser."""

    losses: Floats
    masses: Floats
    log_normaliser: float

    @classmethod
    def of(cls, scale: float, count: int, tilt: float) -> _LatticeSum:
        import numpy as np

        if scale >= _SMOOTH_FROM:
            deviation, centre = scale * math.sqrt(count), count * tilt
            sums = np.arange(
                math.floor(centre - _REACH * deviation), math.ceil(centre + _REACH * deviation) + 1, dtype=np.float64
            )
            masses = np.exp(-0.5 * ((sums - centre) / deviation) ** 2)
            masses /= masses.sum()
        else:
            points, single = _single(scale, tilt)
            centre = count * float(points @ single)
            reach = _REACH * max(scale, 0.5) * math.sqrt(count) + 3
            length = _fast_length(max(2 * math.ceil(reach) + 1, len(single)))
            first = math.floor(centre) - length // 2
            wrapped = np.fft.irfft(np.fft.rfft(single, length) ** count, length)
            masses = np.maximum(np.roll(wrapped, -((first - count * int(points[0])) % length)), 0.0)
            sums = np.arange(first, first + length, dtype=np.float64)
        losses = (count / 2 + sums) / scale**2
        return cls(losses=losses, masses=masses, log_normaliser=count * _log_moment(scale, tilt))


def _tilt(pairs: Mapping[float, int], epsilon: float) -> float:
    """The tilt, at least 0, under which the mean total loss is `epsilon`: the saddle point."""

    def mean(tilt: float) -> float:
        return sum(count * (0.5 + _mean(scale, tilt)) / scale**2 for scale, count in pairs.items())

    if mean(0.0) >= epsilon:
        return 0.0
    square = sum(count / scale / scale for scale, count in pairs.items())
    low, high = 0.0, max(2 * (epsilon / square - 0.5), 1.0)
    while mean(high) < epsilon:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle) < epsilon else (low, middle)
    return (low + high) / 2


def _single(scale: float, centre: float) -> tuple[Floats, Floats]:
    """One discrete Gaussian of parameter `scale` tilted to `centre`: its points and masses."""
    import numpy as np

    reach = math.ceil(_REACH * scale) + 2
    points = np.arange(-reach, reach + 1, dtype=np.float64) + round(centre)
    exponents = -0.5 * ((points - centre) / scale) ** 2
    masses = np.exp(exponents - exponents.max())
    return points, masses / masses.sum()


def _mean(scale: float, tilt: float) -> float:
    if scale >= _SMOOTH_FROM:
        return tilt
    points, masses = _single(scale, tilt)
    return float(points @ masses)


def _log_moment(scale: float, tilt: float) -> float:
    """log E[e^(tilt loss)] of one scalar pair."""
    exponent = tilt * (tilt + 1) / (2 * scale**2)
    return exponent if scale >= _SMOOTH_FROM else exponent + _log_theta(scale, tilt) - _log_theta(scale, 0.0)


def _log_theta(scale: float, centre: float) -> float:
    """log of the sum over the integers of e^(-(x - centre)^2 / 2 scale^2)."""
    import numpy as np

    reach = math.ceil(_REACH * scale) + 2
    points = np.arange(-reach, reach + 1, dtype=np.float64) + round(centre)
    return float(np.logaddexp.reduce(-0.5 * ((points - centre) / scale) ** 2))


def _on_grid(part: _LatticeSum, interval: float, tilt: float) -> tuple[int, Floats]:
    """Each loss split between its two neighbours on the grid, keeping its probability under both neighbours' data.

    That is Connect the Dots for a discrete loss: pessimistic, and wrong in the second order of `interval` only.
    Gives the index of the first grid point and the masses.
    """
    import numpy as np

    below = np.floor(part.losses / interval)
    rest = np.clip(part.losses - below * interval, 0.0, interval)
    to_lower = np.expm1(interval - rest) / math.expm1(interval)
    first = int(below[0])
    index = (below - first).astype(np.int64)
    length = int(index[-1]) + 2
    lower: Floats = part.masses * to_lower * np.exp(-tilt * rest)
    upper = part.masses * (1 - to_lower) * np.exp(tilt * (interval - rest))
    masses: Any = np.bincount(index, lower, length) + np.bincount(index + 1, upper, length)
    return first, masses


def _convolved(parts: Sequence[tuple[int, Floats]], interval: float) -> tuple[Floats, Floats]:
    """The sum of independent losses on one grid: its losses and masses."""
    import numpy as np

    length = sum(len(masses) for _, masses in parts)
    size = _fast_length(length)
    product: Any = 1
    for _, masses in parts:
        product = product * np.fft.rfft(masses, size)
    total: Floats = np.maximum(np.fft.irfft(product, size)[:length], 0.0)
    losses = (sum(first for first, _ in parts) + np.arange(length, dtype=np.float64)) * interval
    return losses, total


def _fast_length(length: int) -> int:
    """The next power of two."""
    return 1 << (length - 1).bit_length()


# --- Poisson-sampled releases, by dp-accounting -----------------------------------------------------------------------


@dataclass(frozen=True)
class _LossDistribution:
    """dp-accounting's privacy loss distribution of a plan."""

    composed: Any
    allowance: float

    def delta(self, epsilon: float) -> float:
        return float(self.composed.get_delta_for_epsilon(epsilon))

    def epsilon(self, delta: float) -> float:
        return (
            float(self.composed.get_epsilon_for_delta(delta - self.allowance)) if delta > self.allowance else math.inf
        )


@lru_cache(maxsize=32)
def _composed(
    pairs: tuple[tuple[float, int], ...],
    sampled: tuple[tuple[tuple[float, float], int], ...],
    relation: Relation,
    mu: float,
) -> Any:
    """A plan's PLD: sampled releases by dp-accounting, scalar pairs composed exactly and then put on its grid.

    It is kept, because calibration, ledger, certificate and page ask for the same one, and it takes a second to make.
    """
    from dp_accounting.pld import privacy_loss_distribution
    from dp_accounting.privacy_accountant import NeighboringRelation

    interval = min(_sampled_deviation(*key, relation) / 40 for key, _ in sampled)
    interval = max(min(interval, mu / 1000), 1e-6)
    neighbours = (
        NeighboringRelation.REPLACE_ONE if relation is Relation.REPLACE_ONE else NeighboringRelation.REPLACE_SPECIAL
    )
    composed: Any = None
    for (probability, noise_multiplier), steps in sampled:
        part: Any = privacy_loss_distribution.from_gaussian_mechanism(
            noise_multiplier,
            sampling_prob=probability,
            value_discretization_interval=interval,
            neighboring_relation=neighbours,
        )
        part = part.self_compose(steps)
        composed = part if composed is None else composed.compose(part)
    for scale, count in pairs:
        first, masses = _on_grid(_LatticeSum.of(scale, count, 0.0), interval, 0.0)
        by_index = {first + i: float(mass) for i, mass in enumerate(masses)}
        part = privacy_loss_distribution.PrivacyLossDistribution.create_from_rounded_probability(
            by_index, max(1 - float(masses.sum()), 0.0), interval
        )
        composed = composed.compose(part)
    return composed


def _sampled_deviation(probability: float, noise_multiplier: float, relation: Relation) -> float:
    """About the standard deviation of one step's privacy loss: q sqrt(e^(1/sigma^2) - 1) of the Gaussian limit."""
    distance = relation.contributions / noise_multiplier
    if distance > 1:
        return probability * distance * math.sqrt(math.e - 1)
    return probability * math.sqrt(math.expm1(distance**2))


# --- roots ------------------------------------------------------------------------------------------------------------


def _root(delta_at: Callable[[float], float], low: float, high: float, delta: float) -> float:
    """The upper end of a tiny interval around the epsilon in [low, high] at which the falling `delta_at` is `delta`."""

    def log_delta(epsilon: float) -> float:
        value = delta_at(epsilon)
        return math.log(value) if value > 0 else -800.0

    found = _root_of_log(log_delta, low, high, math.log(delta))
    step = max(found, 1e-12) * 1e-12
    while delta_at(found) > delta:
        found, step = found + step, step * 2
    return found


def _root_of_log(fn: Callable[[float], float], low: float, high: float, target: float) -> float:
    """Where the falling `fn` meets `target` in [low, high], to 12 digits."""
    from scipy.optimize import brentq

    def excess(x: float) -> float:
        return max(fn(x) - target, -800.0)

    if excess(high) >= 0:
        return high
    if excess(low) <= 0:
        return low
    return float(brentq(excess, low, high, xtol=1e-300, rtol=1e-13, maxiter=500))  # pyright: ignore[reportArgumentType]


def _unknown(cost: object) -> str:
    return f"unknown cost {type(cost).__name__}; known: {', '.join(of.__name__ for of in _KINDS.values())}"
