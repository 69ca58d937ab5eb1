"""Empirical checks of a mechanism that sums clipped vectors over Poisson samples: DP-SGD, noisy class sums.

On stand-in data: never on a private set. Masks and noise are given to it and frozen, so that the clean sums can be computed
back from what it releases: a neighbour may move them by what the cost declares, noise must lie on every coordinate at the
accounted scale, divided by a public constant, and nothing else may change. Audits by lower bounds catch one mutant in
thirteen; these conformance checks catch all. False alarms are rarer than 1e-9 a check.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from .accounting import epsilon
from .audit import SIGMAS, AuditReport, AuditRow, Neighbour, seeds_row
from .lattice import RESOLUTION
from .mechanism import CalibratedMechanism, SampledGaussian
from .randomness import PublicRng, SecretRng, SystemRng

D = TypeVar("D")
Output = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float64]

SLACK = 1e-3
"""What the rounding of released float32 numbers may add to a distance, in sensitivities."""


@dataclass(frozen=True, kw_only=True)
class Subject(Generic[D]):
    """What is audited. `mechanism(steps)` makes a fresh one of so many steps; `data` and `neighbours` are stand-ins.

    `sums` computes back, from what a mechanism released, the noisy sums of all its steps together, flat, in sensitivities:
    it divides by what the public normaliser should be. `additive`: steps do not depend on one another's outcomes, so that
    this holds for several steps; if not, for one. `data` holds a ghost, so that it can be told from N.
    """

    mechanism: Callable[[int], CalibratedMechanism[D]]
    data: Callable[[], D]
    slots: int
    neighbours: Sequence[Neighbour[D]]
    sums: Callable[[Output], Floats]
    additive: bool = True
    steps: int = 3
    """1 for a mechanism that has one step by its nature."""


def audit_sampled(
    subject: Subject[D],
    *,
    secret: Callable[[], SecretRng] = SystemRng,
    samples: int = 100_000,
    runs: int = 20_000,
    delta: float = 1e-5,
) -> AuditReport:
    """Try a Poisson-sampled Gaussian mechanism on stand-in data and its neighbours.

    `samples` noise values at least are drawn through the mechanism (100,000 tell 3 % apart), and `runs` a side of the
    many-run test are drawn beside it.
    """
    steps = subject.steps
    cost = subject.mechanism(steps).cost
    if not isinstance(cost, SampledGaussian) or cost.steps != steps:
        raise ValueError(f"this audit knows {steps} steps of a sampled Gaussian, not {cost}")
    try:
        rows = [_draws_row(subject, cost)]
        if rows[0].passed:
            rows += _noise_enters_rows(subject, cost, steps if subject.additive else 1)
            if sampled := _draws_masks(subject):
                rows += _mask_rows(subject)
            rows += [_replay_row(subject, neighbour, sampled=sampled) for neighbour in subject.neighbours]
            rows += _fresh_rows(subject, cost, secret(), samples)
            rows += _many_runs_rows(subject, cost, secret(), runs=runs, delta=delta)
    except _Misused as error:
        rows = [AuditRow(name="draws", passed=False, detail=str(error))]
    return AuditReport(rows=tuple(rows))


class _Misused(Exception):
    """The mechanism asked for what it has no business with."""


class _Given:
    """Gives these masks and this noise (in noise multipliers), one after the other; keeps what it was asked for."""

    def __init__(self, masks: Callable[[int, int], NDArray[np.bool_]], noise: Callable[[int, int], Floats]) -> None:
        self._masks = masks
        self._noise = noise
        self.calls: list[tuple[Any, ...]] = []
        self.given: list[Floats] = []

    def mask(self, n: int, probability: float) -> NDArray[np.bool_]:
        self.calls.append(("mask", n, probability))
        return self._masks(sum(call[0] == "mask" for call in self.calls) - 1, n)

    def gaussian(self, shape: tuple[int, ...], scale: float) -> Floats:
        self.calls.append(("gaussian", shape, scale))
        noise = self._noise(len(self.given), math.prod(shape)) * scale
        self.given.append(np.rint(noise) / RESOLUTION)
        return noise.reshape(shape)

    def discrete_gaussian(self, counts: NDArray[np.int64], scale: float) -> NDArray[np.int64]:
        self._refuse()

    def noisy_max(self, counts: NDArray[np.int64], epsilon: float) -> int:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise _Misused("other noise is drawn than the cost states")


def _everybody(step: int, n: int) -> NDArray[np.bool_]:
    return np.ones(n, dtype=np.bool_)


def _nobody(step: int, n: int) -> NDArray[np.bool_]:
    return np.zeros(n, dtype=np.bool_)


def _half(step: int, n: int) -> NDArray[np.bool_]:
    return PublicRng(0).at("audit", "half", step).random(n) < 0.5


def _silence(step: int, size: int) -> Floats:
    return np.zeros(size)


def _some_noise(step: int, size: int) -> Floats:
    return PublicRng(0).at("audit", "noise", step).normal(size=size)


def _tried(subject: Subject[D], steps: int, source: _Given, data: D | None = None) -> Floats:
    return subject.sums(subject.mechanism(steps)(source, subject.data() if data is None else data))


# --- what is drawn ----------------------------------------------------------------------------------------------------


def _draws_row(subject: Subject[D], cost: SampledGaussian) -> AuditRow:
    """A mask over all slots and then one noise a step, as accounted; an empty batch is a step like any other."""
    wanted: list[tuple[Any, ...]] = []
    for masks in (_everybody, _half, _nobody):
        source = _Given(masks, _silence)
        _tried(subject, cost.steps, source)
        shapes = {call[1] for call in source.calls if call[0] == "gaussian"}
        wanted = [
            ("mask", subject.slots, cost.probability),
            ("gaussian", next(iter(shapes), ()), cost.noise_multiplier * RESOLUTION),
        ] * cost.steps
        # Without sampling nobody needs to be drawn.
        if cost.probability == 1 and not any(call[0] == "mask" for call in source.calls):
            wanted = wanted[1::2]
        if source.calls != wanted:
            said = ", ".join(f"{call[0]}{call[1:]}" for call in source.calls[:3]) or "nothing"
            return AuditRow(
                name="draws", passed=False, detail=f"{len(source.calls)} draws for {len(wanted)}, beginning {said}"
            )
    return AuditRow(name="draws", passed=True, detail=f"{len(wanted)} draws for {cost.steps} steps, as accounted")


def _draws_masks(subject: Subject[D]) -> bool:
    """False for a query of all records, which need not be drawn."""
    source = _Given(_everybody, _silence)
    _tried(subject, 1, source)
    return any(call[0] == "mask" for call in source.calls)


def _noise_enters_rows(subject: Subject[D], cost: SampledGaussian, steps: int) -> list[AuditRow]:
    """The released sums differ from the clean ones by exactly the drawn noise, whoever was drawn: scale and normaliser."""
    rows: list[AuditRow] = []
    for name, masks in (("a few drawn", _half), ("nobody drawn", _nobody)):
        source = _Given(masks, _some_noise)
        difference = _tried(subject, steps, source) - _tried(subject, steps, _Given(masks, _silence))
        wanted = np.sum([noise.ravel() for noise in source.given], axis=0)
        error = float(np.abs(difference - wanted).max(initial=0.0)) if difference.shape == wanted.shape else math.inf
        # Rounding of float32 outputs grows with what is released.
        allowed = SLACK * (1 + float(np.abs(wanted).max(initial=0.0)))
        rows.append(
            AuditRow(
                name=f"noise and normaliser: {name}",
                passed=wanted.size > 0 and error <= allowed,
                detail=f"the noise in the release is off by {error:.2g} sensitivities at most; rounding explains {allowed:.2g}",
            )
        )
    return rows


def _mask_rows(subject: Subject[D]) -> list[AuditRow]:
    """Who is not drawn adds nothing, and what is added is the same whoever else is drawn."""
    empty = float(np.abs(_tried(subject, 1, _Given(_nobody, _silence))).max(initial=0.0))
    left = PublicRng(0).at("audit", "left").random(subject.slots) < 0.5

    def part(mask: NDArray[np.bool_]) -> Floats:
        return _tried(subject, 1, _Given(lambda step, n: mask, _silence))

    whole = part(np.ones(subject.slots, dtype=np.bool_))
    error = float(np.abs(whole - part(left) - part(~left)).max(initial=0.0))
    allowed = SLACK * (1 + float(np.abs(whole).max(initial=0.0)))
    return [
        AuditRow(
            name="the empty batch", passed=empty <= SLACK, detail=f"its clean sum is {empty:.2g} sensitivities at most"
        ),
        AuditRow(
            name="records apart",
            passed=error <= allowed and bool(np.abs(whole).max(initial=0.0) > SLACK),
            detail=f"two halves of the records add up to all, but for {error:.2g}; rounding explains {allowed:.2g}",
        ),
    ]


# --- replay -----------------------------------------------------------------------------------------------------------


def _replay_row(subject: Subject[D], neighbour: Neighbour[D], *, sampled: bool) -> AuditRow:
    """Equal masks, equal noise, one slot changed: how far the sum of a step moves."""
    name = f"replay: {neighbour.name}"
    worst = 0.0
    for masks in (_everybody, _half, _nobody):
        before, after = _Given(masks, _some_noise), _Given(masks, _some_noise)
        try:
            moved = _tried(subject, 1, before) - _tried(subject, 1, after, neighbour.change(subject.data()))
        except Exception as error:  # noqa: BLE001  whatever it raises is a finding
            return AuditRow(name=name, passed=False, detail=f"the neighbour raised {type(error).__name__}")
        if before.calls != after.calls:
            return AuditRow(name=name, passed=False, detail="the neighbour changed what is drawn")
        distance = float(np.linalg.norm(moved))
        worst = max(worst, distance if math.isfinite(distance) else math.inf)
        if masks is _nobody and sampled and distance > SLACK:
            return AuditRow(name=name, passed=False, detail="a record counts that was not drawn")
    if neighbour.contributions is None:
        return AuditRow(name=name, passed=math.isfinite(worst), detail="same draws, same shapes")
    return AuditRow(
        name=name,
        passed=worst <= neighbour.contributions + SLACK,
        detail=f"the sum moves by {worst:.4g} of {neighbour.contributions} sensitivities",
    )


# --- real noise -------------------------------------------------------------------------------------------------------


def _fresh_rows(subject: Subject[D], cost: SampledGaussian, source: SecretRng, samples: int) -> list[AuditRow]:
    """The noise of real steps on nobody, taken from the releases: its scale, its freshness, and what seeds do to it."""
    drawn = _Drawn(source)
    clean = _tried(subject, 1, _Given(_nobody, _silence))

    def noise() -> Floats:
        return subject.sums(subject.mechanism(1)(drawn, subject.data())) - clean

    first = noise()
    repeats = max(math.ceil(samples / max(first.size, 1)), 2)
    values = np.stack([first, *(noise() for _ in range(repeats - 1))])
    whole, scale = values.ravel(), cost.noise_multiplier
    spread = SIGMAS * math.sqrt(2 / whole.size)

    def fits(scale: float) -> bool:
        return abs(float(np.mean(whole**2)) / scale**2 - 1) <= spread and bool(
            abs(float(np.mean(whole))) <= SIGMAS * scale / math.sqrt(whole.size)
        )

    alike = 0.0
    for shift in {1, first.size}:
        one, other = whole[shift:], whole[:-shift]
        alike = max(alike, abs(float(np.mean(one * other))) / scale**2 * math.sqrt(one.size) / 8)
    rows = [
        AuditRow(
            name="noise scale",
            passed=fits(scale),
            detail=f"{whole.size} values have standard deviation {float(np.std(whole)):.4g}; accounted {scale:.4g}",
        ),
        AuditRow(
            name="noise is fresh",
            passed=alike <= 1,
            detail=f"correlation within and between steps is {alike:.2f} of what chance allows",
        ),
        seeds_row(noise),
    ]
    if spread < 0.0294:  # else too few values to tell
        near = [factor for factor in (0.97, 1.03) if fits(scale * factor)]
        rows.append(
            AuditRow(
                name="noise scale, 3 % off",
                passed=not near,
                detail="a scale 3 % smaller or larger is rejected" if not near else f"also fits {scale * near[0]:g}",
            )
        )
    return rows


class _Drawn:
    """Real noise over empty batches."""

    def __init__(self, source: SecretRng) -> None:
        self._source = source

    def mask(self, n: int, probability: float) -> NDArray[np.bool_]:
        return np.zeros(n, dtype=np.bool_)

    def gaussian(self, shape: tuple[int, ...], scale: float) -> Floats:
        return self._source.gaussian(shape, scale)

    def discrete_gaussian(self, counts: NDArray[np.int64], scale: float) -> NDArray[np.int64]:
        raise _Misused("other noise is drawn than the cost states")

    def noisy_max(self, counts: NDArray[np.int64], epsilon: float) -> int:
        raise _Misused("other noise is drawn than the cost states")


# --- many runs --------------------------------------------------------------------------------------------------------


def sampled_lower_bound(
    present: Floats, absent: Floats, *, thresholds: Sequence[float], delta: float, confidence: float = 1 - 1e-9
) -> float:
    """An epsilon below which these outcomes are impossible, but with probability 1 - `confidence`; 0 if they tell nothing.

    Clopper-Pearson on both error rates of each test "present from the threshold upward". The thresholds are fixed without a
    look at the outcomes, and share the confidence. No shape is assumed: a mixture over samples is not a Gaussian.
    """
    from scipy.special import betaincinv

    doubt = (1 - confidence) / (2 * len(thresholds))

    def upper(events: int, trials: int) -> float:
        return 1.0 if events >= trials else float(betaincinv(events + 1, trials - events, 1 - doubt))

    best = 0.0
    for threshold in thresholds:
        missed = upper(int(np.count_nonzero(present < threshold)), present.size)
        alarmed = upper(int(np.count_nonzero(absent >= threshold)), absent.size)
        for right, wrong in ((1 - missed, alarmed), (1 - alarmed, missed)):
            if right > delta and wrong > 0:
                best = max(best, math.log((right - delta) / wrong))
    return best


def _many_runs_rows(
    subject: Subject[D], cost: SampledGaussian, source: SecretRng, *, runs: int, delta: float
) -> list[AuditRow]:
    """The canary: a record's own direction, watched over all steps of many runs with and without it.

    What the mechanism draws was recorded, and that its release is the clean sums and this noise was shown above; so the runs
    are drawn at these scales, on the one direction that the record moves.
    """
    neighbour = next((one for one in subject.neighbours if one.contributions == 1), None)
    if neighbour is None or runs < 1:
        return []
    moved = _tried(subject, 1, _Given(_everybody, _silence)) - _tried(
        subject, 1, _Given(_everybody, _silence), neighbour.change(subject.data())
    )
    length = float(np.linalg.norm(moved))
    if length < 0.5:
        return [AuditRow(name="many runs", passed=False, detail="the first neighbour moves nothing: choose a canary")]
    lower = canary_lower_bound(cost, source, length=length, runs=runs, delta=delta)
    claimed = epsilon([cost], delta)
    return [
        AuditRow(
            name="many runs",
            passed=lower <= claimed,
            detail=f"epsilon is at least {lower:.3g} by {runs} runs a side; accounted {claimed:.3g} at delta {delta:g}",
        )
    ]


def canary_lower_bound(
    cost: SampledGaussian,
    source: SecretRng,
    *,
    length: float = 1.0,
    runs: int,
    delta: float,
    noise_multiplier: float | None = None,
) -> float:
    """A lower bound on epsilon by a record that adds a vector of `length` sensitivities whenever it is drawn.

    `noise_multiplier`: what is really drawn, if not what the cost says.
    """
    scale = cost.noise_multiplier if noise_multiplier is None else noise_multiplier
    present, absent = np.zeros(runs), np.zeros(runs)
    for _ in range(cost.steps):
        present += source.mask(runs, cost.probability) * length
        present += source.gaussian((runs,), scale)
        absent += source.gaussian((runs,), scale)
    spread = scale * math.sqrt(cost.steps)
    mean = cost.probability * cost.steps * length
    thresholds = [0.5 * length, *(mean / 2 + spread * at for at in (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0))]
    return sampled_lower_bound(present, absent, thresholds=thresholds, delta=delta)
