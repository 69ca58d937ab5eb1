"""Empirical checks of a mechanism, on stand-in data: never on a private set.

Gray-box replay is the gate: with masks and noisy outputs frozen, a neighbour may change the clean query by what the cost
declares and nothing else at all. Noise statistics and freshness look at real draws. The lower bound on epsilon from many
runs (f-DP for the Gaussian: Nasr et al., 2023) is the smoke alarm. False alarms are rarer than 1e-9 a check.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from .accounting import epsilon, gaussian_epsilon
from .mechanism import CalibratedMechanism, DiscreteGaussian
from .randomness import SecretRng, SystemRng

D = TypeVar("D")
Output = Mapping[str, NDArray[Any]]

SIGMAS = 6.5
"""How many standard deviations a mean or a variance may lie off: a false alarm in 1e10."""


@dataclass(frozen=True, kw_only=True)
class Neighbour(Generic[D]):
    """Stand-in data changed in one slot.

    `contributions` is 1 where a record lost its effect (ghost, NaN), 2 where another came in its place (replace, duplicate),
    None where nothing bounds the difference (empty): then only the control flow is compared.
    """

    name: str
    change: Callable[[D], D]
    contributions: int | None


@dataclass(frozen=True, kw_only=True)
class AuditRow:
    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    rows: tuple[AuditRow, ...]

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)

    def __str__(self) -> str:
        width = max((len(row.name) for row in self.rows), default=0)
        return "\n".join(
            f"{'holds' if row.passed else 'FAILS'}  {row.name:<{width}}  {row.detail}" for row in self.rows
        )


def audit(
    mechanism: Callable[[], CalibratedMechanism[D]],
    data: Callable[[], D],
    neighbours: Sequence[Neighbour[D]],
    *,
    secret: Callable[[], SecretRng] = SystemRng,
    samples: int = 100_000,
    runs: int = 20_000,
    delta: float = 1e-5,
) -> AuditReport:
    """Try a mechanism with discrete Gaussian noise on stand-in data and its neighbours.

    `mechanism` and `data` make a fresh one at each call; a question of 1,000 cells or more saves calls. `samples` noise
    values (100,000 tell 3 % apart) and `runs` a side of the many-run test set the time: about 15 microseconds a value.
    """
    cost = mechanism().cost
    if not isinstance(cost, DiscreteGaussian):
        raise ValueError(f"audit knows discrete Gaussian noise, not {type(cost).__name__}; see audit_sampled")
    replay = _Replay(secret())
    try:
        output = mechanism()(replay, data())
    except Exception as error:  # noqa: BLE001  whatever it raises is a finding
        return AuditReport(rows=(AuditRow(name="runs", passed=False, detail=f"raised {type(error).__name__}"),))
    rows = [_noise_row(replay, cost)]
    rows += [_replay_row(mechanism, data, neighbour, replay, output, cost) for neighbour in neighbours]

    def noise() -> NDArray[np.float64]:
        return _flat(mechanism()(source, data())) - clean

    source = secret()
    clean = _flat(mechanism()(_Silent(), data()))
    if clean.size == 0:
        return AuditReport(rows=(*rows, AuditRow(name="noise scale", passed=False, detail="nothing is released")))
    drawn = np.concatenate([noise() for _ in range(max(math.ceil(samples / clean.size), 2))])
    rows += noise_rows(drawn, cost.scale, width=clean.size)
    rows.append(seeds_row(noise))
    vanishing = next((neighbour for neighbour in neighbours if neighbour.contributions == 1), None)
    if vanishing is not None and runs > 0:
        rows.append(_many_runs_row(mechanism, data, vanishing, source, cost, runs=runs, delta=delta))
    return AuditReport(rows=tuple(rows))


# --- replay -----------------------------------------------------------------------------------------------------------


class _Silent:
    """A `SecretRng` without noise: what a mechanism then releases is its clean query."""

    def discrete_gaussian(self, counts: NDArray[np.int64], scale: float) -> NDArray[np.int64]:
        return counts.copy()

    def gaussian(self, shape: tuple[int, ...], scale: float) -> NDArray[np.float64]:
        return np.zeros(shape)

    def mask(self, n: int, probability: float) -> NDArray[np.bool_]:
        return np.zeros(n, dtype=np.bool_)

    def noisy_max(self, counts: NDArray[np.int64], epsilon: float) -> int:
        return int(np.argmax(counts))


class _Replay:
    """Draws as a real source does at first; after `again`, gives the same results to the same calls, whatever the counts.

    What a mechanism asked for is kept: the clean queries, and its calls as far as neighbours may not change them.
    """

    def __init__(self, source: SecretRng) -> None:
        self._source = source
        self._given: list[Any] = []
        self._replayed: list[Any] | None = None
        self.queries: list[NDArray[np.int64]] = []
        self.calls: list[tuple[Any, ...]] = []

    def again(self) -> _Replay:
        other = _Replay(self._source)
        other._replayed = list(self._given)
        return other

    def discrete_gaussian(self, counts: NDArray[np.int64], scale: float) -> NDArray[np.int64]:
        self.queries.append(counts.copy())
        call = ("discrete_gaussian", counts.shape, counts.dtype.str, scale)
        return self._answer(call, lambda: self._source.discrete_gaussian(counts, scale))

    def gaussian(self, shape: tuple[int, ...], scale: float) -> NDArray[np.float64]:
        return self._answer(("gaussian", shape, scale), lambda: self._source.gaussian(shape, scale))

    def mask(self, n: int, probability: float) -> NDArray[np.bool_]:
        return self._answer(("mask", n, probability), lambda: self._source.mask(n, probability))

    def noisy_max(self, counts: NDArray[np.int64], epsilon: float) -> int:
        return self._answer(("noisy_max", counts.shape, epsilon), lambda: self._source.noisy_max(counts, epsilon))

    def _answer(self, call: tuple[Any, ...], draw: Callable[[], Any]) -> Any:
        self.calls.append(call)
        place = len(self._given)
        frozen = self._replayed is not None and place < len(self._replayed)
        value = self._replayed[place] if frozen and self._replayed is not None else draw()
        self._given.append(value)
        return value.copy() if isinstance(value, np.ndarray) else value


def _noise_row(replay: _Replay, cost: DiscreteGaussian) -> AuditRow:
    scales = {call[3] for call in _draws(replay)}
    other = sorted({call[0] for call in replay.calls} - {"discrete_gaussian", "mask"})
    passed = scales == {cost.scale} and not other
    detail = (
        f"noise is drawn at the accounted scale {cost.scale:g}"
        if passed
        else f"accounted: discrete Gaussian at {cost.scale!r}; drawn: {sorted(scales) or 'none'} {' '.join(other)}".strip()
    )
    return AuditRow(name="noise as accounted", passed=passed, detail=detail)


def _replay_row(
    mechanism: Callable[[], CalibratedMechanism[D]],
    data: Callable[[], D],
    neighbour: Neighbour[D],
    replay: _Replay,
    output: Output,
    cost: DiscreteGaussian,
) -> AuditRow:
    name = f"replay: {neighbour.name}"
    again = replay.again()
    try:
        changed = mechanism()(again, neighbour.change(data()))
    except Exception as error:  # noqa: BLE001  whatever it raises is a finding
        return AuditRow(name=name, passed=False, detail=f"the neighbour raised {type(error).__name__}")
    if again.calls != replay.calls:
        return AuditRow(name=name, passed=False, detail="the neighbour changed what noise is drawn")
    if not _same(output, changed):
        return AuditRow(name=name, passed=False, detail="the output depends on the data beyond its noisy counts")
    if neighbour.contributions is None:
        return AuditRow(name=name, passed=True, detail="same draws, same shapes")
    pairs = zip(replay.queries, again.queries, strict=True)
    moved = np.concatenate([np.abs(before - after).ravel() for before, after in pairs] or [np.zeros(0, np.int64)])
    most, cells = int(moved.max(initial=0)), int(np.count_nonzero(moved))
    allowed = cost.cells * cost.copies * neighbour.contributions
    detail = f"{cells} of {allowed} cells moved, by at most {most}"
    return AuditRow(name=name, passed=most <= 1 and cells <= allowed, detail=detail)


def _same(one: Output, other: Output) -> bool:
    return set(one) == set(other) and all(
        one[key].dtype == other[key].dtype
        and one[key].shape == other[key].shape
        and one[key].tobytes() == other[key].tobytes()
        for key in one
    )


def _flat(output: Output) -> NDArray[np.float64]:
    parts = [np.asarray(output[key], dtype=np.float64).ravel() for key in sorted(output)]
    return np.concatenate(parts) if parts else np.zeros(0)


# --- noise ------------------------------------------------------------------------------------------------------------


def noise_rows(noise: NDArray[np.float64], scale: float, *, width: int) -> list[AuditRow]:
    """Is this noise, `width` values a release, discrete Gaussian of parameter `scale`, and fresh in every value?"""
    problems = _misfit(noise, scale)
    rows = [
        AuditRow(
            name="noise scale",
            passed=not problems,
            detail=problems or f"{noise.size} values fit a discrete Gaussian at {scale:g}",
        )
    ]
    variance, spread = _moments(scale, noise.size)
    if 0.05 * variance > 2 * SIGMAS * spread:  # else too few values to tell
        near = [factor for factor in (0.97, 1.03) if not _misfit(noise, scale * factor)]
        rows.append(
            AuditRow(
                name="noise scale, 3 % off",
                passed=not near,
                detail="a scale 3 % smaller or larger is rejected" if not near else f"also fits {scale * near[0]:g}",
            )
        )
    repeats = max(_correlation(noise[lag:], noise[:-lag]) for lag in {1, width} if lag < noise.size)
    rows.append(
        AuditRow(
            name="noise is fresh",
            passed=repeats <= 1,
            detail=f"correlation within and between releases is {repeats:.2f} of what chance allows",
        )
    )
    return rows


def _misfit(noise: NDArray[np.float64], scale: float) -> str:
    """Why the values cannot be discrete Gaussian noise of this scale; "" if they can."""
    if not np.array_equal(noise, np.rint(noise)):
        return "the noise is not whole"
    count = noise.size
    variance, spread = _moments(scale, count)
    mean, measured = float(noise.mean()), float(np.mean(noise**2))
    if abs(mean) > SIGMAS * math.sqrt(variance / count) + 30 / count:
        return f"the noise has mean {mean:.4g}"
    if abs(measured - variance) > SIGMAS * spread + 30 / count:
        ratio = math.sqrt(measured / variance)
        return f"the noise is {ratio:.4f} times as wide as at the accounted scale {scale:g}"
    points, masses = _pmf(scale)
    cumulative = np.cumsum(masses)
    empirical = np.searchsorted(np.sort(noise), points, side="right") / count
    distance = float(np.abs(empirical - cumulative).max())
    if distance > math.sqrt(math.log(2e10) / (2 * count)):  # Dvoretzky, Kiefer, Wolfowitz, Massart
        return f"the noise has another shape: its distribution function is off by {distance:.4f}"
    return ""


def _moments(scale: float, count: int) -> tuple[float, float]:
    """The variance, and the standard deviation of its estimate from `count` values."""
    points, masses = _pmf(scale)
    variance = float(masses @ points**2)
    return variance, math.sqrt(max(float(masses @ points**4) - variance**2, 0.0) / count)


def _pmf(scale: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    reach = math.ceil(12 * scale) + 2
    points = np.arange(-reach, reach + 1, dtype=np.float64)
    masses = np.exp(-0.5 * (points / scale) ** 2)
    return points, masses / masses.sum()


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The correlation as a share of what chance allows (8 deviations: products have long tails): above 1 is no chance."""
    size = min(one.size, other.size)
    one, other = one[:size], other[:size]
    power = math.sqrt(float(np.mean(one**2)) * float(np.mean(other**2)))
    if power == 0.0:
        return 0.0
    return abs(float(np.mean(one * other))) / power * math.sqrt(size) / 8


def seeds_row(noise: Callable[[], NDArray[np.float64]]) -> AuditRow:
    """Seeding every global generator before two series of releases must not make their noise alike."""
    series: list[NDArray[np.float64]] = []
    for _ in range(2):
        restore = _seed_global_generators()
        try:
            values = noise()
            while values.size < 1000:
                values = np.concatenate([values, noise()])
        finally:
            restore()
        series.append(values)
    alike = _correlation(*series)
    return AuditRow(
        name="noise ignores seeds",
        passed=alike <= 1,
        detail=f"after equal global seeds, correlation is {alike:.2f} of what chance allows",
    )


def _seed_global_generators() -> Callable[[], None]:
    """Seed Python's, NumPy's and, if loaded, torch's global generator; gives what puts them back."""
    python_state: Any = random.getstate()
    numpy_state: Any = np.random.get_state()
    torch: Any = sys.modules.get("torch")
    torch_state: Any = torch.get_rng_state() if torch is not None else None

    def restore() -> None:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        if torch is not None:
            torch.set_rng_state(torch_state)

    random.seed(0)
    np.random.seed(0)
    if torch is not None:
        torch.manual_seed(0)
    return restore


# --- many runs --------------------------------------------------------------------------------------------------------


def gdp_lower_bound(
    present: NDArray[np.float64],
    absent: NDArray[np.float64],
    *,
    threshold: float,
    delta: float,
    confidence: float = 1 - 1e-9,
) -> float:
    """An epsilon that a Gaussian mechanism with these outcomes exceeds with `confidence`: 0 if they tell nothing.

    `threshold`, fixed without looking at the outcomes, decides for `present` from itself upward.
    """
    mu = _quantile_gap(
        int(np.count_nonzero(absent >= threshold)), absent.size, int(np.count_nonzero(present < threshold)), present.size,
        confidence,
    )  # fmt: skip
    return gaussian_epsilon(mu, delta)


def _quantile_gap(false_alarms: int, absent: int, misses: int, present: int, confidence: float) -> float:
    """Phi^-1(1 - false alarm rate) - Phi^-1(miss rate), each rate at its Clopper-Pearson upper end."""
    from scipy.special import betaincinv, ndtri

    def upper(events: int, trials: int) -> float:
        level = 1 - (1 - confidence) / 2
        return 1.0 if events >= trials else float(betaincinv(events + 1, trials - events, level))

    return max(float(-ndtri(upper(false_alarms, absent)) - ndtri(upper(misses, present))), 0.0)


def _many_runs_row(
    mechanism: Callable[[], CalibratedMechanism[D]],
    data: Callable[[], D],
    neighbour: Neighbour[D],
    source: SecretRng,
    cost: DiscreteGaussian,
    *,
    runs: int,
    delta: float,
) -> AuditRow:
    """The matched filter on the cells that the neighbour moves, over many runs with and without the record.

    The output is a function of the noisy counts (the replay says so), so the runs are drawn there: one search, much noise.
    """
    present, absent = _Replay(source), _Replay(source)
    mechanism()(present, data())
    mechanism()(absent, neighbour.change(data()))
    if not present.queries or [query.shape for query in present.queries] != [query.shape for query in absent.queries]:
        return AuditRow(name="many runs", passed=False, detail="no noise is drawn, or not for every neighbour")
    before = np.concatenate([query.ravel() for query in present.queries])
    after = np.concatenate([query.ravel() for query in absent.queries])
    moved = np.flatnonzero(before != after)
    if not moved.size:
        return AuditRow(name="many runs", passed=False, detail="the neighbour changes nothing: choose another record")
    direction = (before - after)[moved]
    scales = np.concatenate(
        [np.full(query.size, call[3]) for query, call in zip(present.queries, _draws(present), strict=True)]
    )
    scale = float(scales[moved].min())

    def outcomes(counts: NDArray[np.int64]) -> NDArray[np.float64]:
        noisy = source.discrete_gaussian(np.tile(counts[moved], (runs, 1)), scale)
        return ((noisy - after[moved]) @ direction).astype(np.float64)

    shift = float(direction @ direction)
    lower = gdp_lower_bound(outcomes(before), outcomes(after), threshold=shift / 2, delta=delta)
    claimed = epsilon([cost], delta)
    return AuditRow(
        name="many runs",
        passed=lower <= claimed,
        detail=f"epsilon is at least {lower:.3g} by {runs} runs a side; accounted {claimed:.3g} at delta {delta:g}",
    )


def _draws(replay: _Replay) -> list[tuple[Any, ...]]:
    return [call for call in replay.calls if call[0] == "discrete_gaussian"]
