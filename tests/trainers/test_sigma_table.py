"""The noise of published settings: privacy loss distributions by our calibration, Renyi DP by dp-accounting beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from dp_accounting import dp_event
from dp_accounting.privacy_accountant import NeighboringRelation
from dp_accounting.rdp import RdpAccountant

from privolve.privacy.accounting import epsilon
from privolve.privacy.mechanism import (
    CalibrationError,
    Cost,
    DiscreteGaussian,
    PrivacyTarget,
    SampledGaussian,
    calibrate,
)
from privolve.trainers.dp_sgd import DPSGD

MNIST = {"slots": 55_000, "sampling_probability": 1 / 14, "steps": 2100}
CIFAR = {"slots": 45_000, "sampling_probability": 1 / 11, "steps": 1650}

ALONE = {(55_000, 1): 13.5396, (55_000, 10): 1.8979, (45_000, 1): 15.0989}
ALONE_BY_RENYI = {(55_000, 1): 14.55, (55_000, 10): 1.994, (45_000, 1): 16.25}


def delta_of(slots: int) -> float:
    return 1 / (slots * math.log(slots))


def calibrated(setting: dict, eps: float, beside: Sequence[Cost] = ()) -> float:
    """The noise multiplier of DP-SGD beside a history."""
    config = DPSGD(steps=setting["steps"], sampling_probability=setting["sampling_probability"])
    target = PrivacyTarget(epsilon=eps, delta=delta_of(setting["slots"]), unit="image")
    found = calibrate(config, target, beside=beside)
    spent = epsilon([found.cost, *beside], target.delta)
    assert eps - 1e-3 * max(eps, 1) <= spent <= eps
    return found.noise_multiplier


def by_renyi(setting: dict, sigma: float, beside: Sequence[SampledGaussian] = ()) -> float:
    """Epsilon by Renyi DP, which claims more than it must: never used for a claim."""
    accountant = RdpAccountant(neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE)
    own = SampledGaussian(probability=setting["sampling_probability"], noise_multiplier=sigma, steps=setting["steps"])
    for cost in (own, *beside):
        event = dp_event.PoissonSampledDpEvent(cost.probability, dp_event.GaussianDpEvent(cost.noise_multiplier))
        accountant.compose(event, cost.steps)
    return accountant.get_epsilon(delta_of(setting["slots"]))


def feta(setting: dict, sigma: float = 5.0) -> SampledGaussian:
    return SampledGaussian(probability=6000 / setting["slots"], noise_multiplier=sigma, steps=5)


def once(sigma: float) -> SampledGaussian:
    return SampledGaussian(probability=1.0, noise_multiplier=sigma)


@pytest.mark.parametrize(
    "setting, eps, renyi, distribution",
    [
        (MNIST, 1, 14.55, 13.58),
        (MNIST, 10, 1.994, 1.898),
        pytest.param(CIFAR, 1, 16.25, 15.13, marks=pytest.mark.slow),
        pytest.param(CIFAR, 10, 2.206, 2.096, marks=pytest.mark.slow),
        ({"slots": 55_000, "sampling_probability": 1.0, "steps": 1}, 1, 4.43, 4.12),
        ({"slots": 55_000, "sampling_probability": 1.0, "steps": 1}, 10, 0.561, 0.532),
    ],
)
def test_published_settings_need_the_published_noise(setting: dict, eps: float, renyi: float, distribution: float):
    assert calibrated(setting, eps) == pytest.approx(distribution, rel=0.01)
    assert by_renyi(setting, renyi * 1.01) <= eps < by_renyi(setting, renyi * 0.99)


@pytest.mark.parametrize(
    "setting, eps, beside, renyi, alone",
    [
        (MNIST, 1, [feta(MNIST)], 14.94, 0.237),
        pytest.param(CIFAR, 1, [feta(CIFAR)], 16.90, 0.287, marks=pytest.mark.slow),
        (MNIST, 1, [once(50.0)], 14.61, 0.077),
        pytest.param(CIFAR, 1, [once(50.0)], 16.31, 0.077, marks=pytest.mark.slow),
        pytest.param(MNIST, 1, [feta(MNIST, 20.0), once(26.6)], 14.78, 0.156, marks=pytest.mark.slow),
        pytest.param(MNIST, 10, [feta(MNIST)], 2.00, 0.237, marks=pytest.mark.slow),
        pytest.param(MNIST, 10, [feta(MNIST, 5.0), once(7.4)], 1.999, 0.622, marks=pytest.mark.slow),
    ],
    ids=["feta", "feta-cifar", "privimage", "privimage-cifar", "feta-pro", "feta-10", "feta-pro-10"],
)
def test_a_history_of_queries_needs_more_noise(setting: dict, eps: float, beside: list, renyi: float, alone: float):
    assert by_renyi(setting, renyi * 1.01, beside) <= eps < by_renyi(setting, renyi * 0.99, beside)
    # By privacy loss distributions less, by about as much as without the queries; and more than without them.
    noise, without = calibrated(setting, eps, beside), ALONE[setting["slots"], eps]
    assert without * 1.00005 < noise < renyi
    assert noise / without == pytest.approx(renyi / ALONE_BY_RENYI[setting["slots"], eps], rel=0.02)
    # The published figures of the queries alone are by Renyi DP, ours are no larger.
    assert epsilon(beside, delta_of(setting["slots"])) <= alone * 1.01


def test_a_semantic_query_on_integers_costs_what_its_sampled_twin_costs():
    """PrivImage counts k = 5 classes a record: exact noise of 50 sqrt(5) on five cells, or a vector of norm 1 at 50."""
    exact = calibrated(MNIST, 1, [DiscreteGaussian.of(50.0, cells=5)])
    assert exact == pytest.approx(calibrated(MNIST, 1, [once(50.0)]), rel=2e-3)


def test_what_a_history_leaves_nothing_of_is_refused_in_one_line():
    with pytest.raises(CalibrationError, match="already cost epsilon") as refused:
        calibrated(MNIST, 1, [once(0.5)])
    assert "\n" not in str(refused.value)
