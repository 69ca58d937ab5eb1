"""The audit passes the right mechanism and fails each mutant of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from privolve.privacy.accounting import epsilon, gaussian_epsilon
from privolve.privacy.audit import AuditReport, Neighbour, audit, gdp_lower_bound, noise_rows
from privolve.privacy.mechanism import JSON, DiscreteGaussian, PureEpsilon
from privolve.privacy.randomness import SecretRng, SystemRng

CELLS = 40


@dataclass(frozen=True, eq=False)
class Marks:
    """Stand-in voters on a line: a record votes for its nearest whole numbers. A ghost is not valid."""

    at: np.ndarray
    valid: np.ndarray

    def parts(self) -> Iterator[bytes]:
        yield self.at.tobytes() + self.valid.tobytes()


def stand_in() -> Marks:
    at = np.random.default_rng(5).uniform(0, CELLS - 1, 200)
    return Marks(at, np.ones(200, dtype=bool))


def changed(marks: Marks, slot: int, *, at: float, valid: bool = True) -> Marks:
    places, valids = marks.at.copy(), marks.valid.copy()
    places[slot], valids[slot] = at, valid
    return Marks(places, valids)


NEIGHBOURS = (
    Neighbour[Marks](name="ghost", change=lambda m: changed(m, 7, at=0.0, valid=False), contributions=1),
    Neighbour[Marks](name="NaN", change=lambda m: changed(m, 7, at=math.nan), contributions=1),
    Neighbour[Marks](name="infinite", change=lambda m: changed(m, 11, at=math.inf), contributions=1),
    Neighbour[Marks](name="replace", change=lambda m: changed(m, 7, at=1.0), contributions=2),
    Neighbour[Marks](name="duplicate", change=lambda m: changed(m, 7, at=float(m.at[60])), contributions=2),
    Neighbour[Marks](name="empty", change=lambda m: Marks(m.at, np.zeros(len(m.at), dtype=bool)), contributions=None),
)


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """The right mechanism: k distinct votes a usable record."""

    scale: float = 3.0
    neighbours: int = 1

    @property
    def cost(self) -> DiscreteGaussian:
        return DiscreteGaussian(scale=self.scale, cells=self.neighbours)

    def describe(self) -> Mapping[str, JSON]:
        return {}

    def votes(self, data: Marks) -> np.ndarray:
        at = data.at[data.valid & np.isfinite(data.at)]
        nearest = np.argsort(np.abs(at[:, None] - np.arange(CELLS)), axis=1, kind="stable")[:, : self.neighbours]
        return np.bincount(nearest.ravel(), minlength=CELLS).astype(np.int64)

    def __call__(self, secret: SecretRng, data: Marks, /) -> Mapping[str, np.ndarray]:
        return {"histogram": secret.discrete_gaussian(self.votes(data), self.scale)}


def run(make: Callable[[], Any], **options: Any) -> AuditReport:
    return audit(make, stand_in, NEIGHBOURS, **{"samples": 10_000, "runs": 2_000, **options})


def failures(report: AuditReport) -> set[str]:
    return {row.name for row in report.rows if not row.passed}


@pytest.mark.parametrize("neighbours", [1, 5])
def test_the_right_mechanism_passes(neighbours: int) -> None:
    report = run(lambda: Histogram(neighbours=neighbours))
    assert report.passed, str(report)
    assert {row.name for row in report.rows} >= {
        "replay: ghost",
        "replay: NaN",
        "noise scale",
        "noise is fresh",
        "many runs",
    }
    assert "holds" in str(report) and "FAILS" not in str(report)


def test_a_mechanism_with_next_to_no_noise_passes_if_that_is_what_it_costs() -> None:
    assert run(lambda: Histogram(scale=0.2), runs=0).passed


# --- mutants ----------------------------------------------------------------------------------------------------------


class HalvedAtTheSource(Histogram):
    def __call__(self, secret: SecretRng, data: Marks, /) -> Mapping[str, np.ndarray]:
        return {"histogram": secret.discrete_gaussian(self.votes(data), self.scale / 2)}


class HalvedAfterwards(Histogram):
    def __call__(self, secret: SecretRng, data: Marks, /) -> Mapping[str, np.ndarray]:
        votes = self.votes(data)
        return {"histogram": votes + (secret.discrete_gaussian(votes, self.scale) - votes) // 2}


class Missing(Histogram):
    def __call__(self, secret: SecretRng, data: Marks, /) -> Mapping[str, np.ndarray]:
        return {"histogram": self.votes(data)}


class DrawnButNotAdded(Histogram):
    def __call__(self, secret: SecretRng, data: Marks, /) -> Mapping[str, np.ndarray]:
        secret.discrete_gaussian(self.votes(data), self.scale)
        return {"histogram": self.votes(data)}


class Seeded(Histogram):
    def __call__(self, secret: SecretRng, data: Marks, /) -> Mapping[str, np.ndarray]:
        noise = np.random.default_rng(0).normal(0, self.scale, CELLS)
        return {"histogram": self.votes(data) + np.rint(noise).astype(np.int64)}


class GloballySeeded(Histogram):
    def __call__(self, secret: SecretRng, data: Marks, /) -> Mapping[str, np.ndarray]:
        votes = self.votes(data)
        secret.discrete_gaussian(votes, self.scale)
        return {"histogram": votes + np.rint(np.random.normal(0, self.scale, CELLS)).astype(np.int64)}


class TwoVotes(Histogram):
    """Sensitivity 2: a record votes twice for its cell."""

    def votes(self, data: Marks) -> np.ndarray:
        return 2 * super().votes(data)


class UnaccountedNeighbours(Histogram):
    """Five votes a record, accounted as one."""

    def votes(self, data: Marks) -> np.ndarray:
        return replace(Histogram(), neighbours=5).votes(data)


class LastCellForNaN(Histogram):
    """A NaN has no nearest cell, which an index of -1 turns into the last one."""

    def votes(self, data: Marks) -> np.ndarray:
        counts = super().votes(data)
        lost = int((data.valid & ~np.isfinite(data.at)).sum())
        counts[-1] += lost
        return counts


class LastCellOverwritten(Histogram):
    def votes(self, data: Marks) -> np.ndarray:
        counts = super().votes(data)
        lost = int((data.valid & ~np.isfinite(data.at)).sum())
        if lost:
            counts[-2:] = lost
        return counts


class CleanCountsSaved(Histogram):
    def __call__(self, secret: SecretRng, data: Marks, /) -> Mapping[str, np.ndarray]:
        votes = self.votes(data)
        return {"histogram": secret.discrete_gaussian(votes, self.scale), "clean": votes}


class DividedByTheRecords(Histogram):
    def __call__(self, secret: SecretRng, data: Marks, /) -> Mapping[str, np.ndarray]:
        noisy = secret.discrete_gaussian(self.votes(data), self.scale)
        return {"histogram": noisy / max(int(data.valid.sum()), 1)}


class NoiseByTheRecords(Histogram):
    """sigma from the decodable records: differs in the 7th digit, and tells."""

    def __call__(self, secret: SecretRng, data: Marks, /) -> Mapping[str, np.ndarray]:
        return {"histogram": secret.discrete_gaussian(self.votes(data), self.scale * (1 + 1e-9 * data.valid.sum()))}


class NoDrawWhenEmpty(Histogram):
    def __call__(self, secret: SecretRng, data: Marks, /) -> Mapping[str, np.ndarray]:
        if not data.valid.any():
            return {"histogram": np.zeros(CELLS, dtype=np.int64)}
        return super().__call__(secret, data)


class StopsAtNaN(Histogram):
    def votes(self, data: Marks) -> np.ndarray:
        if not np.isfinite(data.at[data.valid]).all():
            raise ValueError("NaN")
        return super().votes(data)


class Averaged(Histogram):
    """Two looks at the same votes for the price of one."""

    def __call__(self, secret: SecretRng, data: Marks, /) -> Mapping[str, np.ndarray]:
        votes = self.votes(data)
        first, second = (secret.discrete_gaussian(votes, self.scale) for _ in range(2))
        return {"first": first, "second": second}


@pytest.mark.parametrize(
    ("mutant", "caught_by"),
    [
        (HalvedAtTheSource, {"noise as accounted", "noise scale", "many runs"}),
        (HalvedAfterwards, {"noise scale", "replay: empty"}),
        (Missing, {"noise as accounted", "noise scale", "replay: ghost", "many runs"}),
        (DrawnButNotAdded, {"noise scale", "replay: ghost"}),
        (Seeded, {"noise as accounted", "noise scale", "replay: ghost"}),
        (GloballySeeded, {"noise ignores seeds", "replay: ghost"}),
        (TwoVotes, {"replay: ghost", "replay: replace"}),
        (UnaccountedNeighbours, {"replay: ghost"}),
        (LastCellForNaN, {"replay: NaN", "replay: infinite"}),
        (LastCellOverwritten, {"replay: NaN"}),
        (CleanCountsSaved, {"replay: ghost"}),
        (DividedByTheRecords, {"replay: ghost"}),
        (NoiseByTheRecords, {"replay: ghost", "noise as accounted"}),
        (NoDrawWhenEmpty, {"replay: empty"}),
        (StopsAtNaN, {"replay: NaN"}),
        (Averaged, {"replay: ghost"}),
    ],
)
def test_a_mutant_fails(mutant: type[Histogram], caught_by: set[str]) -> None:
    report = run(mutant, samples=1_500, runs=8_000 if "many runs" in caught_by else 0)
    assert caught_by <= failures(report), str(report)


class Source:
    """A `SecretRng` whose exact noise comes from a function of the counts' shape and the scale."""

    def __init__(self, noise: Callable[[tuple[int, ...], float], np.ndarray]) -> None:
        self._noise, self._true = noise, SystemRng()

    def discrete_gaussian(self, counts: np.ndarray, scale: float) -> np.ndarray:
        return counts + self._noise(counts.shape, scale)

    def gaussian(self, shape: tuple[int, ...], scale: float) -> np.ndarray:
        return self._true.gaussian(shape, scale)

    def mask(self, n: int, probability: float) -> np.ndarray:
        return self._true.mask(n, probability)

    def noisy_max(self, counts: np.ndarray, eps: float) -> int:
        return self._true.noisy_max(counts, eps)


def exact(shape: tuple[int, ...], scale: float) -> np.ndarray:
    return SystemRng().discrete_gaussian(np.zeros(shape, np.int64), scale)


def repeated() -> Source:
    kept = exact((CELLS,), 3.0)
    return Source(lambda shape, scale: kept)


@pytest.mark.parametrize(
    ("source", "samples", "caught_by"),
    [
        (lambda: Source(lambda shape, scale: exact(shape, scale / 2)), 4_000, "noise scale"),
        (lambda: Source(lambda shape, scale: exact(shape, scale * 0.97)), 100_000, "noise scale"),
        pytest.param(
            lambda: Source(lambda shape, scale: exact(shape, scale * 1.03)),
            100_000,
            "noise scale",
            marks=pytest.mark.slow,
        ),
        (lambda: Source(lambda shape, scale: np.zeros(shape, np.int64)), 4_000, "noise scale"),
        (repeated, 4_000, "noise is fresh"),
        (lambda: Source(lambda shape, scale: np.full(shape, exact((1,), scale)[0])), 4_000, "noise is fresh"),
        (
            lambda: Source(lambda shape, scale: np.rint(SystemRng().gaussian(shape, 1) * 3).astype(int) + 1),
            9_000,
            "noise scale",
        ),
    ],
)
def test_a_bad_source_of_noise_fails(source: Callable[[], Any], samples: int, caught_by: str) -> None:
    report = run(Histogram, secret=source, samples=samples, runs=0)
    assert caught_by in failures(report), str(report)


def test_noise_of_another_shape_fails_at_an_equal_variance() -> None:
    uniform = SystemRng().mask(200_000, 0.5) * 6.0 - 3.0
    assert np.mean(uniform**2) == 9.0
    assert not noise_rows(uniform, 3.0, width=100)[0].passed


# --- many runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [1.0, 4.0, 10.0])
def test_the_lower_bound_comes_close_to_the_epsilon_of_a_gaussian_and_does_not_pass_it(eps: float) -> None:
    """With 100,000 runs a side: from both sides, so that too much noise is seen as well."""
    from privolve.privacy.accounting import gaussian_noise_multiplier

    sigma, secret = gaussian_noise_multiplier(eps, 1e-5), SystemRng()
    present, absent = secret.gaussian((100_000,), sigma) + 1, secret.gaussian((100_000,), sigma)
    lower = gdp_lower_bound(present, absent, threshold=0.5, delta=1e-5)
    assert 0.68 * eps < lower <= eps
    halved = gdp_lower_bound((present - 1) / 2 + 1, absent / 2, threshold=0.5, delta=1e-5)
    assert halved > 1.3 * eps


def test_the_lower_bound_says_nothing_about_equal_outcomes() -> None:
    draws = SystemRng().gaussian((2, 10_000), 1.0)
    assert gdp_lower_bound(draws[0], draws[1], threshold=0.0, delta=1e-5) < gaussian_epsilon(0.1, 1e-5)


def test_many_runs_of_a_histogram_bound_its_epsilon_from_both_sides() -> None:
    """The noise is drawn for all runs at once, as independent cells of one release; each run asks about one cell."""
    histogram, secret = Histogram(scale=1.0812), SystemRng()
    runs = 20_000
    absent = secret.discrete_gaussian(np.zeros(runs, np.int64), histogram.scale)
    present = secret.discrete_gaussian(np.ones(runs, np.int64), histogram.scale)
    lower = gdp_lower_bound(present, absent, threshold=0.5, delta=1e-5)
    assert 0.6 * epsilon([histogram.cost], 1e-5) < lower < epsilon([histogram.cost], 1e-5) * 1.02


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_mechanism_of_another_kind_is_refused() -> None:
    class Selection(Histogram):
        @property
        def cost(self) -> Any:
            return PureEpsilon(epsilon=1.0)

    with pytest.raises(ValueError, match="PureEpsilon"):
        run(Selection)


def test_a_mechanism_that_raises_fails_without_showing_its_message() -> None:
    class Broken(Histogram):
        def votes(self, data: Marks) -> np.ndarray:
            raise RuntimeError("record 7 is a cat")

    report = run(Broken)
    assert not report.passed and "cat" not in str(report)


def test_auditing_leaves_the_global_generators_as_they_were() -> None:
    np.random.seed(123)
    expected = np.random.random(3)
    np.random.seed(123)
    run(Histogram, samples=2_000, runs=0)
    assert np.array_equal(np.random.random(3), expected)
