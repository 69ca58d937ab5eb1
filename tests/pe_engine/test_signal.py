"""The signal monitor tells runs that can work from those that cannot, by public numbers alone."""

from __future__ import annotations

import pytest

from privolve.pe_engine.signal import signal


def test_dpitis_cat_run_cannot_work_and_seven_of_eight_winners_have_no_vote() -> None:
    cat = signal(voters=200, candidates=[1400], selected=[200], scale=7.8, iterations=9)
    assert cat.verdict == "cannot work"
    assert cat.voteless_share == pytest.approx(0.875, abs=0.03)
    assert cat.noise_share > 0.95
    assert cat.expected_votes == pytest.approx(1 / 7)
    assert "candidates instead of 1,400" in cat.advice
    assert "times the epsilon" in cat.advice


def test_dpitis_lsun_run_works() -> None:
    lsun = signal(voters=300_000, candidates=[14_000], selected=[2000], scale=11, iterations=9)
    assert lsun.expected_votes == pytest.approx(21.4, abs=0.1)
    assert lsun.verdict == "fine"
    assert lsun.voteless_share < 0.01
    assert "To help" not in lsun.advice


def test_many_votes_under_larger_noise_do_not_pass_for_a_signal() -> None:
    drowned = signal(voters=300_000, candidates=[14_000], selected=[2000], scale=1000)
    assert drowned.voteless_share < 0.05
    assert drowned.verdict == "cannot work"


def test_the_advice_works_when_it_is_followed() -> None:
    weak = signal(voters=1400, candidates=[40] * 10, selected=[10] * 10, scale=12, iterations=20)
    assert weak.verdict != "fine"
    wanted = int(weak.advice.split("make about ")[1].split()[0].replace(",", ""))
    followed = signal(voters=1400, candidates=[wanted // 10] * 10, selected=[max(1, wanted // 40)] * 10, scale=12)
    assert followed.verdict == "fine"
    factor = int(weak.advice.split("about ")[-1].split()[0])
    assert signal(voters=1400, candidates=[40] * 10, selected=[10] * 10, scale=12 / factor).verdict == "fine"


def test_more_noise_means_more_winners_by_noise() -> None:
    shares = [signal(voters=2000, candidates=[200], selected=[50], scale=s).noise_share for s in (0.5, 2, 8, 32, 128)]
    assert shares == sorted(shares)
    assert shares[0] < 0.1 < 0.9 < shares[-1]


def test_equal_numbers_give_equal_answers() -> None:
    again = [signal(voters=500, candidates=[60, 40], selected=[6, 4], scale=4, shares=[0.6, 0.4]) for _ in range(2)]
    assert again[0] == again[1]


def test_hopeless_numbers_are_called_so() -> None:
    hopeless = signal(voters=3, candidates=[14] * 10, selected=[4] * 10, scale=1e6)
    assert hopeless.verdict == "cannot work"
    assert "too few" in hopeless.advice


def test_a_run_without_selected_candidates_has_no_signal() -> None:
    with pytest.raises(ValueError, match="no label has candidates"):
        signal(voters=3, candidates=[14], selected=[0], scale=1)
