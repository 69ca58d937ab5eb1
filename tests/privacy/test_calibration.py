"""Calibration meets its target from below, alone and beside other releases, under every relation."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
from dp_accounting.pld import privacy_loss_distribution

from privolve.privacy.accounting import AccountingError, epsilon, gaussian_noise_multiplier
from privolve.privacy.mechanism import (
    CalibrationError,
    Cost,
    DiscreteGaussian,
    PrivacyTarget,
    PureEpsilon,
    Relation,
    SampledGaussian,
    ZeroConcentrated,
    calibrate,
)


@dataclass(frozen=True)
class Noisy:
    cost: Cost


@dataclass(frozen=True, kw_only=True)
class Votes:
    cells: int = 1

    def with_noise(self, noise_multiplier: float, /) -> Noisy:
        return Noisy(DiscreteGaussian.of(noise_multiplier, cells=self.cells))


@dataclass(frozen=True, kw_only=True)
class Training:
    probability: float
    steps: int

    def with_noise(self, noise_multiplier: float, /) -> Noisy:
        return Noisy(SampledGaussian(probability=self.probability, noise_multiplier=noise_multiplier, steps=self.steps))


class Selection:
    def with_noise(self, noise_multiplier: float, /) -> Noisy:
        return Noisy(PureEpsilon(epsilon=1 / noise_multiplier))


class Weighted:
    def with_noise(self, noise_multiplier: float, /) -> Noisy:
        return Noisy(ZeroConcentrated(rho=1 / (2 * noise_multiplier**2)))


def target(eps: float, delta: float = 1e-5, relation: Relation = Relation.ZERO_OUT) -> PrivacyTarget:
    return PrivacyTarget(epsilon=eps, delta=delta, unit="image", relation=relation)


def multiplier(noisy: Noisy) -> float:
    assert isinstance(noisy.cost, DiscreteGaussian)
    return noisy.cost.noise_multiplier


@pytest.mark.parametrize("relation", [Relation.ZERO_OUT, Relation.REPLACE_ONE])
@pytest.mark.parametrize("cells", [1, 5])
@pytest.mark.parametrize("uses", [1, 10, 20])
@pytest.mark.parametrize("eps", [0.1, 0.5, 1, 2, 4, 7.89, 10])
def test_the_target_is_met_from_below_near_the_closed_form(
    eps: float, uses: int, cells: int, relation: Relation
) -> None:
    found = calibrate(Votes(cells=cells), target(eps, relation=relation), uses=uses)
    spent = epsilon([found.cost] * uses, 1e-5, relation)
    assert eps - 1e-3 <= spent <= eps
    change = multiplier(found) / gaussian_noise_multiplier(eps, 1e-5, uses * relation.contributions) - 1
    if uses * cells > 1:
        assert -0.02 <= change <= 0.006
    else:  # a single change: the steps of one discrete Gaussian show, either way
        assert -0.08 <= change <= 0.01


@pytest.mark.parametrize("eps", [0.1, 0.5, 1, 2, 4, 7.89, 10])
def test_dp_accounting_finds_the_same_epsilon_for_a_single_release(eps: float) -> None:
    found = calibrate(Votes(), target(eps))
    assert isinstance(found.cost, DiscreteGaussian)
    loss = privacy_loss_distribution.from_discrete_gaussian_mechanism(
        found.cost.scale, value_discretization_interval=1e-6 if eps < 1 else 1e-5
    )
    assert loss.get_epsilon_for_delta(1e-5) == pytest.approx(eps, rel=2e-5)


@pytest.mark.parametrize(
    ("eps", "uses", "delta"), [(0.01, 20, 1e-5), (0.001, 2, 1e-6), (100, 1, 1e-5), (1000, 10, 1e-5), (1, 10, 1e-14)]
)
@pytest.mark.parametrize("cells", [1, 5])
def test_very_large_and_very_small_noise_is_calibrated_too(eps: float, uses: int, delta: float, cells: int) -> None:
    found = calibrate(Votes(cells=cells), target(eps, delta), uses=uses)
    assert eps - 1e-3 * min(eps, 1) <= epsilon([found.cost] * uses, delta) <= eps


def test_calibration_is_quick() -> None:
    start = time.process_time()
    for eps in (0.1, 1.0, 10.0):
        calibrate(Votes(), target(eps), uses=10)
    calibrate(Votes(), target(1.0), uses=10, beside=[DiscreteGaussian(scale=100.0)])
    assert time.process_time() - start < 4


def test_a_label_histogram_beside_ten_histograms_costs_them_little_noise() -> None:
    alone = multiplier(calibrate(Votes(), target(1.0), uses=10))
    labels = DiscreteGaussian(scale=100.0)
    beside = calibrate(Votes(), target(1.0), uses=10, beside=[labels])
    assert multiplier(beside) / alone - 1 == pytest.approx(0.0007, abs=1e-4)  # +0.07 %
    assert 1 - 1e-3 <= epsilon([labels, *[beside.cost] * 10], 1e-5) <= 1
    stronger = calibrate(Votes(), target(1.0), uses=10, beside=[DiscreteGaussian(scale=50.0)])
    assert multiplier(stronger) / alone - 1 == pytest.approx(0.0028, abs=1e-4)


@pytest.mark.parametrize("relation", list(Relation))
def test_calibration_beside_a_pure_selection_leaves_it_its_epsilon(relation: Relation) -> None:
    pick = PureEpsilon(epsilon=0.1)
    found = calibrate(Votes(), target(1.0, relation=relation), uses=4, beside=[pick])
    assert 1 - 1e-3 <= epsilon([pick, *[found.cost] * 4], 1e-5, relation) <= 1


def test_replace_one_needs_the_noise_of_twice_the_changes() -> None:
    one = multiplier(calibrate(Votes(), target(1.0, relation=Relation.REPLACE_ONE), uses=10))
    twice = multiplier(calibrate(Votes(), target(1.0), uses=20))
    assert one == pytest.approx(twice, rel=1e-8)


@pytest.mark.parametrize("config", [Training(probability=0.1, steps=100), Selection(), Weighted()])
@pytest.mark.parametrize("relation", [Relation.ZERO_OUT, Relation.REPLACE_ONE])
def test_every_kind_of_cost_is_calibrated(config, relation: Relation) -> None:
    found = calibrate(config, target(2.0, relation=relation), uses=2)
    assert 2 - 1e-3 <= epsilon([found.cost] * 2, 1e-5, relation) <= 2


def test_no_room_beside_other_releases_is_refused() -> None:
    with pytest.raises(CalibrationError, match="already cost epsilon 1 "):
        calibrate(Votes(), target(1.0), beside=[DiscreteGaussian(scale=3.0)])


def test_an_epsilon_that_means_nothing_is_refused_in_one_line() -> None:
    with pytest.raises((CalibrationError, AccountingError)) as caught:
        calibrate(Votes(), target(1e9))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("eps", [0.0, -1.0, math.inf, math.nan])
def test_no_epsilon_is_no_target(eps: float) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        target(eps)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_no_delta_is_no_target(delta: float) -> None:
    with pytest.raises(ValueError, match="delta"):
        target(1.0, delta)


@pytest.mark.parametrize("uses", [0, -1, 1.5])
def test_a_mechanism_is_used_a_whole_number_of_times(uses) -> None:
    with pytest.raises(ValueError, match="uses"):
        calibrate(Votes(), target(1.0), uses=uses)


def test_mechanisms_and_randomness_load_without_the_accountant_or_opendp() -> None:
    code = (
        "import sys, privolve.privacy.mechanism, privolve.privacy.randomness, privolve.privacy.accounting\n"
        "print([m for m in ('dp_accounting', 'scipy', 'opendp', 'torch') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
