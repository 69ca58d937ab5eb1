"""Costs become (epsilon, delta): closed forms to their printed digits, exact discrete accounting, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from hypothesis import given, settings
from hypothesis import strategies as st

from privolve.privacy.accounting import (
    AccountingError,
    check_delta,
    cost_from_json,
    cost_to_json,
    default_delta,
    delta,
    epsilon,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_noise_multiplier,
    rho,
    zcdp_delta,
    zcdp_epsilon,
)
from privolve.privacy.mechanism import (
    Cost,
    DiscreteGaussian,
    PureEpsilon,
    Relation,
    SampledGaussian,
    ZeroConcentrated,
)

# --- the closed form --------------------------------------------------------------------------------------------------

SIGMA = {  # delta = 1e-5: epsilon -> sigma for T = 1, 10, 20, as printed
    0.1: ("30.7496", "97.2387", "137.5162"),
    0.5: ("7.0318", "22.2366", "31.4473"),
    1: ("3.7306", "11.7973", "16.6839"),
    2: ("1.9938", "6.3050", "8.9166"),
    4: ("1.0812", "3.4189", "4.8351"),
    7.89: ("0.60715", "1.91998", "2.71526"),
    10: ("0.49989", "1.58079", "2.23557"),
}
CELLS = [(eps, uses, text) for eps, row in SIGMA.items() for uses, text in zip((1, 10, 20), row, strict=True)]


def printed(value: float, text: str) -> bool:
    """The value, rounded to as many places as the text has, reads as the text."""
    return f"{value:.{len(text.partition('.')[2])}f}" == text


@pytest.mark.parametrize(("eps", "uses", "text"), CELLS)
def test_the_closed_form_gives_the_21_noise_multipliers(eps: float, uses: int, text: str) -> None:
    sigma = gaussian_noise_multiplier(eps, 1e-5, uses)
    assert printed(sigma, text)
    assert gaussian_epsilon(math.sqrt(uses) / sigma, 1e-5) == pytest.approx(eps, rel=1e-11)


def rule(slots: int) -> float:
    return 1 / (slots * math.log(slots))


@pytest.mark.parametrize(
    ("eps", "chosen", "uses", "text"),
    [
        (1, rule(75_316), 10, "13.251"),
        (1, rule(8_396), 10, "11.600"),
        (1, rule(1_900_000), 10, "15.392"),
        (1, rule(10_240), 9, "11.15"),
        (10, rule(145_064), 7, "1.4563"),
        (10, rule(145_064), 6, "1.3482"),
        (10, rule(55_000), 4, "1.0644"),
        (1, 1e-5, 5, "8.342"),
    ],
)
def test_the_closed_form_gives_the_published_noise_multipliers(eps: float, chosen: float, uses: int, text: str) -> None:
    assert printed(gaussian_noise_multiplier(eps, chosen, uses), text)


@pytest.mark.parametrize(
    ("sigma", "uses", "chosen", "text"),
    [
        (5 * math.sqrt(2), 1, 1e-5, "0.497"),
        (5 * math.sqrt(2), 20, 1e-5, "2.594"),
        (10 * math.sqrt(2), 7, 1e-5, "0.674"),
        (2 * math.sqrt(2), 29, 3e-6, "9.921"),
        (2, 13, 1e-3, "6.62"),
        (2, 17, 1e-3, "7.890"),
        (0.05, 10, 1e-5, "2268.8"),
    ],
)
def test_the_closed_form_gives_the_published_epsilons(sigma: float, uses: int, chosen: float, text: str) -> None:
    assert printed(gaussian_epsilon(math.sqrt(uses) / sigma, chosen), text)


@pytest.mark.parametrize("eps", [1e-9, 1e-4, 0.01, 1, 100, 1e4, 1e7])
@pytest.mark.parametrize("chosen", [1e-300, 1e-16, 1e-5, 0.01, 0.6])
def test_the_closed_form_has_no_bracket_and_does_not_overflow(eps: float, chosen: float) -> None:
    sigma = gaussian_noise_multiplier(eps, chosen, 20)
    assert 0 < sigma < math.inf
    assert gaussian_delta(math.sqrt(20) / sigma, eps) == pytest.approx(chosen, rel=1e-6)


@pytest.mark.parametrize("eps", [0.0, 0.3, 1, 5])
@pytest.mark.parametrize("mu", [0.05, 0.5, 1, 3])
def test_the_closed_form_is_the_integral_of_the_privacy_loss(mu: float, eps: float) -> None:
    grid = np.linspace(-40, 40, 800_001)
    loss = mu * grid + mu * mu / 2
    density = np.exp(-grid * grid / 2) / math.sqrt(2 * math.pi)
    integral = np.trapezoid(density * np.maximum(-np.expm1(eps - loss), 0), grid)
    assert gaussian_delta(mu, eps) == pytest.approx(integral, rel=1e-6, abs=1e-14)


@pytest.mark.parametrize(
    ("sigma", "uses", "chosen"), [(30.7496, 1, 1e-5), (11.7973, 10, 1e-5), (2.2356, 20, 1e-8), (0.8, 3, 1e-5)]
)
def test_the_closed_form_agrees_with_the_gaussian_pld(sigma: float, uses: int, chosen: float) -> None:
    interval = 1e-4 * min(1.0, 3 / sigma)
    loss = pld.from_gaussian_mechanism(sigma, value_discretization_interval=interval).self_compose(uses)
    closed = gaussian_epsilon(math.sqrt(uses) / sigma, chosen)
    assert loss.get_epsilon_for_delta(chosen) == pytest.approx(closed, rel=1e-6)


def test_the_closed_form_agrees_with_the_gaussian_pld_at_a_huge_epsilon() -> None:
    loss = pld.from_gaussian_mechanism(0.05 / math.sqrt(10), value_discretization_interval=1e-2)
    assert loss.get_epsilon_for_delta(1e-5) == pytest.approx(gaussian_epsilon(math.sqrt(10) / 0.05, 1e-5), rel=1e-3)


def test_noise_enough_costs_nothing_at_a_large_delta() -> None:
    assert gaussian_epsilon(1e-6, 1e-3) == 0.0


# --- discrete Gaussians -----------------------------------------------------------------------------------------------


def noise_masses(scale: float) -> np.ndarray:
    points = np.arange(-math.ceil(14 * scale) - 3, math.ceil(14 * scale) + 4)
    masses = np.exp(-0.5 * (points / scale) ** 2)
    return masses / masses.sum()


def brute_delta(scale: float, pairs: int, eps: float) -> float:
    """By convolving the pair of distributions directly: the sum decides, as both have the same likelihood ratio."""
    masses = noise_masses(scale)
    total = np.array([1.0])
    for _ in range(pairs):
        total = np.convolve(total, masses)
    other = np.roll(np.pad(total, pairs), pairs)  # every pair moved by 1
    return float(np.maximum(np.pad(total, pairs) - math.exp(eps) * other, 0).sum())


@pytest.mark.parametrize("pairs", [1, 2, 5])
@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5, 3.99, 4.01, 9.0])
@pytest.mark.parametrize("eps", [0.0, 0.5, 3.0])
def test_delta_of_discrete_noise_is_what_direct_convolution_gives(scale: float, pairs: int, eps: float) -> None:
    exact = delta([DiscreteGaussian(scale=scale, cells=pairs)], eps)
    assert exact == pytest.approx(brute_delta(scale, pairs, eps), rel=1e-9, abs=1e-13)


@pytest.mark.parametrize(
    ("scale", "pairs", "chosen", "interval"),
    [
        (3.73, 1, 1e-5, 1e-5),
        (2.0, 20, 1e-6, 1e-4),
        (0.3, 10, 1e-5, 1e-3),
        (1.0, 10, 1e-10, 1e-4),
        (26.4, 50, 1e-5, 1e-5),
    ],
)
def test_discrete_accounting_agrees_with_dp_accounting(
    scale: float, pairs: int, chosen: float, interval: float
) -> None:
    loss = pld.from_discrete_gaussian_mechanism(scale, value_discretization_interval=interval, use_connect_dots=True)
    loss = loss.self_compose(pairs) if pairs > 1 else loss
    ours = epsilon([DiscreteGaussian(scale=scale, copies=pairs)], chosen)
    assert ours == pytest.approx(loss.get_epsilon_for_delta(chosen), rel=1e-5)


def test_releases_of_several_scales_agree_with_dp_accounting_and_are_pessimistic() -> None:
    plan: list[Cost] = [DiscreteGaussian(scale=7.0, cells=5), DiscreteGaussian(scale=0.5), DiscreteGaussian(scale=2.0)]
    loss = None
    for cost in plan:
        assert isinstance(cost, DiscreteGaussian)
        part = pld.from_discrete_gaussian_mechanism(
            cost.scale, value_discretization_interval=1e-4, use_connect_dots=True
        )
        part = part.self_compose(cost.cells) if cost.cells > 1 else part
        loss = part if loss is None else loss.compose(part)
    assert loss is not None
    assert epsilon(plan, 1e-6) == pytest.approx(loss.get_epsilon_for_delta(1e-6), rel=1e-6)


def test_the_grid_never_says_less_than_the_exact_lattice() -> None:
    for chosen in (1e-3, 1e-6, 1e-12):
        exact = epsilon([DiscreteGaussian(scale=11.8, copies=10)], chosen)
        two = [DiscreteGaussian(scale=11.8, copies=5), DiscreteGaussian(scale=11.8 * (1 + 1e-12), copies=5)]
        assert -1e-11 < epsilon(two, chosen) - exact < 1e-5


@pytest.mark.parametrize("chosen", [1e-5, 1e-12, 1e-20])
@pytest.mark.parametrize("two_scales", [False, True])
def test_small_deltas_keep_their_precision(chosen: float, two_scales: bool) -> None:
    """At a scale so wide that discrete and real noise cost the same."""
    plan: list[Cost] = [DiscreteGaussian(scale=300.0, copies=4)]
    plan += [DiscreteGaussian(scale=200.0, copies=3)] if two_scales else []
    mu = math.sqrt(4 / 300**2 + (3 / 200**2 if two_scales else 0))
    assert epsilon(plan, chosen) == pytest.approx(gaussian_epsilon(mu, chosen), rel=2e-5)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_k_votes_are_accounted_as_k_changes_and_not_by_a_ratio(k: int) -> None:
    """At a small scale, 'deviation over sensitivity' and k changes of one part; the ledger keeps to the second."""
    cost = DiscreteGaussian.of(0.5, cells=k)
    assert cost.scale == 0.5 * math.sqrt(k) and cost.noise_multiplier == pytest.approx(0.5)
    by_changes = brute_delta(cost.scale, k, 10.0)
    assert delta([cost], 10.0) == pytest.approx(by_changes, rel=1e-9)
    if k > 1:
        assert abs(delta([DiscreteGaussian(scale=0.5)], 10.0) / by_changes - 1) > 0.05


def test_replace_one_doubles_the_changes_and_zero_out_is_add_or_remove() -> None:
    cost = DiscreteGaussian(scale=11.7973, cells=3, copies=4)
    assert epsilon([cost], 1e-5, Relation.ADD_OR_REMOVE) == epsilon([cost], 1e-5)
    doubled = DiscreteGaussian(scale=11.7973, cells=6, copies=4)
    assert epsilon([cost], 1e-5, Relation.REPLACE_ONE) == epsilon([doubled], 1e-5)
    histogram = DiscreteGaussian(scale=11.7973, copies=10)
    assert epsilon([histogram], 1e-5, Relation.REPLACE_ONE) == pytest.approx(1.465, abs=5e-4)


def test_the_truncated_tails_are_added_to_delta() -> None:
    cost = DiscreteGaussian(scale=1.0, cells=5, copies=10)
    assert delta([cost], 1e6) == pytest.approx(50e-30)
    assert delta([cost], 1e6, Relation.REPLACE_ONE) == pytest.approx(100e-30)
    assert epsilon([cost], 4.9e-29) == math.inf
    assert epsilon([cost], 5.2e-29) < math.inf


@settings(max_examples=30, deadline=None)
@given(
    st.floats(0.3, 60), st.integers(1, 6), st.integers(1, 30), st.floats(1e-10, 1e-2), st.sampled_from(list(Relation))
)
def test_more_noise_costs_less_and_delta_and_epsilon_are_inverse(
    scale: float, cells: int, copies: int, chosen: float, relation: Relation
) -> None:
    cost = DiscreteGaussian(scale=scale, cells=cells, copies=copies)
    eps = epsilon([cost], chosen, relation)
    assert delta([cost], eps, relation) <= chosen
    if eps > 1e-6:
        assert delta([cost], eps * (1 - 1e-6), relation) > chosen * (1 - 1e-4)
    if scale > 3:  # below, a wider lattice distribution can cost more: its next outcome comes into reach of delta
        wider = DiscreteGaussian(scale=scale * 1.1, cells=cells, copies=copies)
        assert epsilon([wider], chosen, relation) <= eps


@settings(max_examples=6, deadline=None)
@given(st.permutations([DiscreteGaussian(scale=9.0), DiscreteGaussian(scale=20.0, copies=3), PureEpsilon(epsilon=0.1)]))
def test_the_order_of_releases_does_not_matter_and_each_costs_something(plan: list[Cost]) -> None:
    assert epsilon(plan, 1e-5) == pytest.approx(
        epsilon([DiscreteGaussian(scale=9.0), DiscreteGaussian(scale=20.0, copies=3), PureEpsilon(epsilon=0.1)], 1e-5),
        rel=1e-9,
    )
    assert all(epsilon(plan[:i], 1e-5) < epsilon(plan[: i + 1], 1e-5) for i in range(len(plan)))


def test_equal_releases_may_be_listed_or_counted() -> None:
    listed = [DiscreteGaussian(scale=12.0, cells=2)] * 7
    assert epsilon(listed, 1e-6) == epsilon([DiscreteGaussian(scale=12.0, cells=2, copies=7)], 1e-6)


def test_nothing_released_costs_nothing() -> None:
    assert epsilon([], 1e-5) == 0.0 and delta([], 0.0) == 0.0


@pytest.mark.parametrize("scale", [1e-4, 1e9])
def test_a_scale_beyond_accounting_is_refused_in_one_line(scale: float) -> None:
    with pytest.raises(AccountingError, match="scale") as caught:
        epsilon([DiscreteGaussian(scale=scale)], 1e-5)
    assert "\n" not in str(caught.value)


# --- Poisson-sampled releases -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("q", "sigma", "steps"), [(0.05, 1.0, 100), (0.2, 5.0, 100), (1.0, 5.0, 10)])
@pytest.mark.parametrize("relation", [Relation.ZERO_OUT, Relation.REPLACE_ONE])
def test_sampled_releases_agree_with_dp_accountings_accountant(
    q: float, sigma: float, steps: int, relation: Relation
) -> None:
    neighbours = {
        Relation.ZERO_OUT: dp_accounting.NeighboringRelation.REPLACE_SPECIAL,
        Relation.REPLACE_ONE: dp_accounting.NeighboringRelation.REPLACE_ONE,
    }[relation]
    accountant = dp_accounting.pld.PLDAccountant(neighbours)
    accountant.compose(dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma)), steps)
    ours = epsilon([SampledGaussian(probability=q, noise_multiplier=sigma, steps=steps)], 1e-5, relation)
    assert ours == pytest.approx(accountant.get_epsilon(1e-5), rel=2e-4)


def test_sampled_and_discrete_releases_compose_in_one_plan() -> None:
    trained = SampledGaussian(probability=0.02, noise_multiplier=2.0, steps=200)
    histogram = DiscreteGaussian(scale=15.0, copies=5)
    alone, other = epsilon([trained], 1e-5), epsilon([histogram], 1e-5)
    both = epsilon([trained, histogram], 1e-5)
    assert max(alone, other) < both < alone + other
    assert delta([trained, histogram], both) == pytest.approx(1e-5, rel=1e-3)
    unsampled = SampledGaussian(probability=1.0, noise_multiplier=15.0, steps=5)
    assert both == pytest.approx(epsilon([trained, unsampled], 1e-5), rel=1e-3)


# --- pure epsilon, zCDP -----------------------------------------------------------------------------------------------


def test_pure_epsilons_are_added_and_doubled_for_replace_one() -> None:
    histogram, chosen = DiscreteGaussian(scale=12.0, copies=5), PureEpsilon(epsilon=0.25, copies=2)
    alone = epsilon([histogram], 1e-5)
    assert epsilon([histogram, chosen], 1e-5) == pytest.approx(alone + 0.5, rel=1e-12)
    assert epsilon([chosen], 1e-5, Relation.REPLACE_ONE) == 1.0
    assert delta([histogram, chosen], alone + 0.5) == pytest.approx(1e-5, rel=1e-6)
    assert delta([chosen], 0.4) == 1.0 and delta([chosen], 0.5) == 0.0


def test_zcdp_conversion_is_the_published_one_and_no_better_than_the_truth() -> None:
    ours = zcdp_epsilon(1 / (2 * 3.7306**2), 1e-5)
    assert ours == pytest.approx(1.092, abs=5e-4)
    assert zcdp_delta(1 / (2 * 3.7306**2), ours) == pytest.approx(1e-5, rel=1e-6)
    for r in (1e-6, 1e-3, 0.1, 1, 50):
        for chosen in (1e-3, 1e-6, 1e-12):
            assert zcdp_epsilon(r, chosen) >= gaussian_epsilon(math.sqrt(2 * r), chosen)
            assert zcdp_epsilon(r, chosen) <= r + 2 * math.sqrt(r * math.log(1 / chosen)) + 1e-12


def test_a_plan_with_weighted_votes_is_accounted_by_zcdp_throughout() -> None:
    plan: list[Cost] = [
        ZeroConcentrated(rho=0.01, copies=2),
        DiscreteGaussian(scale=10.0, cells=4),
        PureEpsilon(epsilon=0.1),
    ]
    total = 0.02 + 4 / 200 + 0.005
    assert rho(plan) == pytest.approx(total)
    assert epsilon(plan, 1e-5) == pytest.approx(zcdp_epsilon(total, 1e-5))
    assert delta(plan, 1.0) == pytest.approx(zcdp_delta(total, 1.0))
    assert rho(plan, Relation.REPLACE_ONE) == pytest.approx(0.08 + 8 / 200 + 0.02)


def test_weighted_votes_refuse_sampled_company() -> None:
    with pytest.raises(AccountingError, match="sampled"):
        epsilon([ZeroConcentrated(rho=0.01), SampledGaussian(probability=0.1, noise_multiplier=1.0)], 1e-5)


# --- refusals and JSON ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SampledDiscreteGaussian:
    """What rule 13 forbids: its PLD would claim 3e-14 for 2e-4."""

    probability: float = 0.1
    scale: float = 1.0


@pytest.mark.parametrize(
    "ask", [lambda c: epsilon([c], 1e-5), lambda c: delta([c], 1.0), lambda c: rho([c]), cost_to_json]
)
def test_an_unknown_cost_such_as_a_sampled_histogram_is_refused(ask) -> None:
    with pytest.raises(AccountingError, match="unknown cost SampledDiscreteGaussian; known: DiscreteGaussian"):
        ask(SampledDiscreteGaussian())


@pytest.mark.parametrize(
    "make",
    [
        lambda: DiscreteGaussian(scale=0.0),
        lambda: DiscreteGaussian(scale=math.nan),
        lambda: DiscreteGaussian(scale=math.inf),
        lambda: DiscreteGaussian(scale=1.0, cells=0),
        lambda: DiscreteGaussian(scale=1.0, cells=1.5),  # type: ignore[arg-type]
        lambda: DiscreteGaussian(scale=1.0, copies=-1),
        lambda: SampledGaussian(probability=0.0, noise_multiplier=1.0),
        lambda: SampledGaussian(probability=1.1, noise_multiplier=1.0),
        lambda: SampledGaussian(probability=0.1, noise_multiplier=-1.0),
        lambda: PureEpsilon(epsilon=-0.1),
        lambda: ZeroConcentrated(rho=math.nan),
    ],
)
def test_an_impossible_cost_cannot_be_made(make) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()


COSTS = [
    DiscreteGaussian(scale=0.1 + 0.2, cells=5, copies=3),
    SampledGaussian(probability=1 / 3, noise_multiplier=math.pi, steps=7),
    PureEpsilon(epsilon=1e-17, copies=2),
    ZeroConcentrated(rho=5e-324),
]


@pytest.mark.parametrize("cost", COSTS)
def test_costs_survive_json_exactly(cost: Cost) -> None:
    assert cost_from_json(json.loads(json.dumps(cost_to_json(cost)))) == cost


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"kind": "laplace", "scale": 1.0},
        {"kind": "discrete-gaussian", "scale": 1.0},
        {"kind": "discrete-gaussian", "scale": 1.0, "cells": 1, "copies": 1, "more": 1},
        {"kind": "discrete-gaussian", "scale": "1.0", "cells": 1, "copies": 1},
        {"kind": "discrete-gaussian", "scale": 1.0, "cells": True, "copies": 1},
        {"kind": "discrete-gaussian", "scale": 0, "cells": 1, "copies": 1},
    ],
)
def test_json_that_is_no_cost_is_refused(value: dict) -> None:
    with pytest.raises(ValueError):
        cost_from_json(value)


def test_delta_comes_from_the_slots() -> None:
    assert default_delta(75_316) == pytest.approx(1 / (75_316 * math.log(75_316)))
    assert default_delta(100) == 1e-5 and default_delta(1) == 1e-5 and default_delta(2) == 1e-5
    for slots in (1, 2, 10, 1_000, 10**6):
        check_delta(default_delta(slots), slots)


@pytest.mark.parametrize(("chosen", "slots"), [(1e-3, 1000), (0.5, 2), (0.0, 10), (1.0, 10), (math.nan, 10)])
def test_a_delta_that_would_allow_publishing_a_record_is_refused(chosen: float, slots: int) -> None:
    with pytest.raises(ValueError, match="delta"):
        check_delta(chosen, slots)


@pytest.mark.parametrize("chosen", [0.0, 1.0, -1e-5, math.nan])
def test_epsilon_at_an_impossible_delta_is_refused(chosen: float) -> None:
    with pytest.raises(AccountingError, match="delta"):
        epsilon([DiscreteGaussian(scale=1.0)], chosen)
