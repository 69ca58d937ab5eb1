"""Selection: as DPSDA computes it where that is defined, and a clear error where DPSDA fails or keeps silent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from privolve.pe_engine.selection import (
    BARRED,
    EmptiedLabel,
    PoolTooSmall,
    Rank,
    Sample,
    Selection,
    Uniform,
    barred,
    select_all_labels,
)
from privolve.privacy.randomness import PublicRng

VOTES = np.array([5, 1, 3, 0, 40, -7, 2])
LABELS = np.array([0, 0, 0, 0, 1, 1, 1])


def at(seed: int = 0) -> Callable[[int], np.random.Generator]:
    return lambda label: PublicRng(seed).at("select", label)


def test_rank_takes_the_most_voted_of_each_label_in_order() -> None:
    assert Rank().select(VOTES, LABELS, [2, 2], at()).tolist() == [0, 2, 4, 6]
    assert Rank().select(VOTES, LABELS, [4, 3], at()).tolist() == [0, 2, 1, 3, 4, 6, 5]


def test_rank_breaks_ties_at_random_and_the_same_way_again() -> None:
    votes, labels = np.zeros(50, np.int64), np.zeros(50, np.int64)
    ranked = [tuple(Rank().select(votes, labels, [5], at(seed)).tolist()) for seed in range(30)]
    assert len(set(ranked)) > 20
    assert ranked[3] == tuple(Rank().select(votes, labels, [5], at(3)).tolist())
    winner = votes.copy()
    winner[17] = 1
    assert all(Rank().select(winner, labels, [5], at(seed))[0] == 17 for seed in range(10))


def test_rank_asked_for_more_than_there_are_is_an_error_not_fewer() -> None:
    with pytest.raises(PoolTooSmall, match="5 candidates of label 0 were to be selected, and its pool has 4") as error:
        Rank().select(VOTES, LABELS, [5, 1], at())
    assert (error.value.label, error.value.asked, error.value.pool) == (0, 5, 4)


def test_sample_draws_with_replacement_in_proportion_to_votes_above_the_threshold() -> None:
    # By hand: 5, 1, 3, 0 less 2 and clipped are 3, 0, 1, 0.
    rows = Sample(threshold=2).select(VOTES, LABELS, [40_000, 0], at())
    assert set(rows.tolist()) == {0, 2}
    # Standard error 0.0022: eight of them.
    assert abs((rows == 0).mean() - 0.75) < 0.018


def test_sample_without_a_threshold_clips_negative_votes_at_zero() -> None:
    rows = Sample().select(VOTES, LABELS, [0, 40_000], at())
    assert set(rows.tolist()) == {4, 6}
    assert abs((rows == 4).mean() - 40 / 42) < 0.009


@pytest.mark.parametrize("rule", [Rank(threshold=5), Sample(threshold=5), Sample(threshold=6.5)])
def test_a_threshold_that_empties_a_label_is_an_error_that_says_so(rule: Any) -> None:
    with pytest.raises(
        EmptiedLabel, match=r"label 0 is above the threshold (5|6\.5): its largest noisy vote is 5"
    ) as error:
        rule.select(VOTES, LABELS, [1, 1], at())
    assert (error.value.label, error.value.largest) == (0, 5)


def test_sample_of_votes_that_are_all_negative_is_an_error_not_nan() -> None:
    with pytest.raises(EmptiedLabel, match="threshold 0: its largest noisy vote is -3"):
        Sample().select(np.array([-3, -8]), np.array([0, 0]), [1], at())


def test_a_label_without_candidates_is_an_error_if_any_are_wanted() -> None:
    assert Sample().select(VOTES, LABELS, [0, 1, 0], at()).tolist() == [4]
    for rule in (Rank(), Uniform(), Uniform(replace=True)):
        with pytest.raises(PoolTooSmall, match="label 2"):
            rule.select(VOTES, LABELS, [1, 1, 1], at())
    with pytest.raises(EmptiedLabel, match=r"label 2.*no candidates that could be scored"):
        Sample().select(VOTES, LABELS, [1, 1, 1], at())


def test_a_rank_threshold_does_not_change_the_order() -> None:
    assert Rank(threshold=2).select(VOTES, LABELS, [3, 0], at()).tolist() == [0, 2, 1]


def test_uniform_does_not_look_at_the_votes() -> None:
    a = Uniform().select(VOTES, LABELS, [3, 2], at(4))
    b = Uniform().select(-VOTES, LABELS, [3, 2], at(4))
    np.testing.assert_array_equal(a, b)
    assert len(set(a.tolist())) == 5
    rows = np.concatenate([Uniform().select(VOTES, LABELS, [1, 0], at(seed)) for seed in range(4000)])
    # Four rows, 1,000 times each; standard error 27.
    assert np.abs(np.bincount(rows, minlength=4) - 1000).max() < 220
    assert len(Uniform(replace=True).select(VOTES, LABELS, [9, 0], at())) == 9


def test_each_label_has_its_own_randomness() -> None:
    one = Sample().select(VOTES, LABELS, [0, 6], at())
    both = Sample().select(VOTES, LABELS, [6, 6], at())
    np.testing.assert_array_equal(both[6:], one)


def test_a_candidate_that_could_not_be_scored_is_never_selected() -> None:
    embeddings = np.zeros((7, 2), np.float32)
    embeddings[0, 1] = np.nan
    votes = barred(VOTES, embeddings)
    assert votes[0] == BARRED
    assert votes[1:].tolist() == VOTES[1:].tolist()
    assert 0 not in Rank().select(votes, LABELS, [3, 1], at())
    assert 0 not in Sample().select(votes, LABELS, [99, 1], at())
    assert 0 not in Uniform().select(votes, LABELS, [3, 1], at())
    with pytest.raises(PoolTooSmall, match="its pool has 3"):
        Rank().select(votes, LABELS, [4, 1], at())


def test_rules_are_parsed_by_kind_and_unknown_options_refused() -> None:
    parse = TypeAdapter(Selection).validate_python
    assert parse({"kind": "sample", "threshold": 2}) == Sample(threshold=2)
    assert parse({"kind": "rank"}) == Rank()
    for wrong in ({"kind": "best"}, {"kind": "rank", "cap": 3}):
        with pytest.raises(ValueError, match=r"best|cap"):
            parse(wrong)


def test_a_label_that_its_threshold_empties_goes_on_without_one_but_not_if_all_are_emptied() -> None:
    votes, labels = np.array([9, 8, 1, 0]), np.array([0, 0, 1, 1])
    rows, emptied = select_all_labels(Rank(threshold=5), votes, labels, [1, 1], at())
    assert rows.tolist() == [0, 2]
    assert [error.label for error in emptied] == [1]
    rows, emptied = select_all_labels(Sample(threshold=8), votes, labels, [3, 3], at())
    assert rows[:3].tolist() == [0, 0, 0]
    assert set(rows[3:].tolist()) <= {2, 3}
    with pytest.raises(EmptiedLabel):
        select_all_labels(Rank(threshold=50), votes, labels, [1, 1], at())
