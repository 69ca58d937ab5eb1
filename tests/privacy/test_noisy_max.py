"""Selection by private data is OpenDP's noisy max on whole counts, at the epsilon that the ledger is told."""

from __future__ import annotations

import math

import numpy as np
import pytest

from privolve.privacy.accounting import epsilon
from privolve.privacy.mechanism import PrivacyTarget, PureEpsilon, Relation, calibrate
from privolve.privacy.noisy_max import CalibratedNoisyMax, NoisyMax, Verdicts
from privolve.privacy.randomness import SystemRng

TWO = ("ours", "theirs")


def share_of_second(right: np.ndarray, eps: float, runs: int = 1500) -> float:
    mechanism, secret = CalibratedNoisyMax(candidates=TWO, epsilon=eps), SystemRng()
    return float(np.mean([mechanism(secret, Verdicts(right))["selected"][0] for _ in range(runs)]))


def test_the_better_candidate_is_selected_as_often_as_exponential_noise_allows() -> None:
    """Lead g, noise of scale 1/eps on both: the worse one wins with probability e^(-g eps) / 2."""
    right = np.zeros((10, 2), dtype=bool)
    right[:3, 1] = True
    bound = 6.5 * math.sqrt(0.25 / 1500)
    assert abs(share_of_second(right, 0.5) - (1 - math.exp(-1.5) / 2)) < bound
    assert abs(share_of_second(right, 0.1) - (1 - math.exp(-0.3) / 2)) < bound
    assert abs(share_of_second(right, 0.5) - (1 - math.exp(-0.3) / 2)) > bound  # the test tells scales apart


def test_one_record_changes_the_odds_by_at_most_epsilon() -> None:
    """The worst case, a tie that one record breaks, at both ends of the interval that sampling allows."""
    eps, runs = 1.0, 3_000
    tie, broken = np.zeros((4, 2), dtype=bool), np.zeros((4, 2), dtype=bool)
    broken[0, 0] = True
    before, after = share_of_second(tie, eps, runs), share_of_second(broken, eps, runs)
    slack = 6.5 * math.sqrt(0.25 / runs)
    assert abs(before - 0.5) < slack and abs(after - math.exp(-eps) / 2) < slack
    assert (before - slack) <= math.exp(eps) * (after + slack)


def test_whatever_a_record_holds_it_counts_once_or_not_at_all() -> None:
    class Seen:
        counts: list[list[int]]

        def noisy_max(self, counts: np.ndarray, eps: float) -> int:
            assert counts.dtype == np.int64 and eps == 2.0
            self.counts = counts.tolist()
            return 0

    seen = Seen()
    wild = np.array([[1.0, np.nan], [np.inf, 1.0], [1e9, -5.0], [1.0, 0.0], [0.5, 1.0]])
    CalibratedNoisyMax(candidates=TWO, epsilon=2.0)(seen, Verdicts(wild))  # type: ignore[arg-type]
    assert seen.counts == [2, 2]


def test_the_cost_is_pure_epsilon_and_twice_that_for_replace_one() -> None:
    mechanism = NoisyMax(candidates=TWO).with_noise(4.0)
    assert mechanism.cost == PureEpsilon(epsilon=0.25)
    assert epsilon([mechanism.cost], 1e-5) == 0.25
    assert epsilon([mechanism.cost], 1e-5, Relation.REPLACE_ONE) == 0.5
    assert mechanism.describe() == {"mechanism": "noisy-max", "candidates": ["ours", "theirs"], "epsilon": 0.25}


def test_it_can_be_calibrated() -> None:
    target = PrivacyTarget(epsilon=0.5, delta=1e-6, unit="image", relation=Relation.REPLACE_ONE)
    assert calibrate(NoisyMax(candidates=TWO), target).epsilon == pytest.approx(0.25, rel=1e-6)


def test_a_selection_without_candidates_or_with_another_number_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        NoisyMax(candidates=())
    with pytest.raises(ValueError, match="candidates"):
        CalibratedNoisyMax(candidates=TWO, epsilon=1.0)(SystemRng(), Verdicts(np.zeros((3, 5))))


def test_every_byte_that_selects_is_in_the_digest() -> None:
    one = b"".join(Verdicts(np.eye(3, dtype=bool)).parts())
    assert one != b"".join(Verdicts(np.zeros((3, 3), dtype=bool)).parts())
    assert one != b"".join(Verdicts(np.eye(3, dtype=np.int8)).parts())


@pytest.mark.parametrize("eps", [0.0, -1.0, math.inf, math.nan])
def test_the_source_refuses_no_epsilon(eps: float) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        SystemRng().noisy_max(np.zeros(2, np.int64), eps)


@pytest.mark.parametrize("eps", [1e-6, 0.1, 1 / 3, 1.0, 7.0, 60.0])
def test_opendps_own_map_never_says_more_than_the_ledger_is_told(eps: float) -> None:
    from privolve.privacy.randomness import _noisy_max

    assert _noisy_max(eps).map(1) <= eps
    assert _noisy_max(eps).map(1) == pytest.approx(eps, rel=1e-9)
