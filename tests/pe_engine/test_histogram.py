"""The histogram: what it counts, and that one record changes no more than its cost says."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privolve.data.voters import Voters
from privolve.pe_engine.histogram import LabelHistogram, NearestNeighbourHistogram, question
from privolve.privacy.mechanism import DiscreteGaussian, Relation
from privolve.privacy.randomness import SystemRng

Make = Callable[..., Voters]
CANDIDATES = np.float32([[0], [1], [2], [10], [11], [12]])
LABELS = np.array([0, 0, 0, 1, 1, 1])


class Quiet:
    """No noise; for tests alone."""

    def discrete_gaussian(self, counts: np.ndarray, scale: float) -> np.ndarray:
        return counts.copy()

    def gaussian(self, shape: tuple[int, ...], scale: float) -> np.ndarray:
        raise NotImplementedError

    def mask(self, n: int, probability: float) -> np.ndarray:
        raise NotImplementedError

    def noisy_max(self, counts: np.ndarray, epsilon: float) -> int:
        raise NotImplementedError


def count(voters: Voters, candidates: Any = CANDIDATES, labels: Any = LABELS, **options: Any) -> np.ndarray:
    noisy = NearestNeighbourHistogram(**options).with_noise(1.0)
    found = noisy.over(np.asarray(candidates, np.float32), np.asarray(labels))(Quiet(), voters)
    assert list(found) == ["histogram"]
    return found["histogram"]


def test_a_record_votes_for_the_nearest_candidate_of_its_own_label(voters: Make) -> None:
    found = count(voters([0.1, 1.9, 11.2, 0.1], [0, 0, 1, 1]))
    assert found.tolist() == [1, 0, 1, 1, 1, 0]
    assert found.dtype == np.int64


def test_a_record_votes_for_k_distinct_candidates(voters: Make) -> None:
    assert count(voters([0.2, 0.9], [0, 0]), neighbours=2).tolist() == [2, 2, 0, 0, 0, 0]
    assert count(voters([0.0]), np.float32([[3], [3], [3], [9]]), [0, 0, 0, 0], neighbours=2).tolist() == [1, 1, 0, 0]


def test_ghosts_and_rows_that_are_not_finite_vote_for_nobody(voters: Make) -> None:
    for neighbours in (1, 3):
        found = count(
            voters([0.1, np.nan, np.inf, 0.1, 12], [0, 0, 1, -1, 1], [False, True, True, False, True]),
            neighbours=neighbours,
        )
        assert found.sum() == neighbours
        assert found[:3].sum() == 0
    assert count(voters([np.nan, np.nan], [0, 1])).tolist() == [0] * 6


def test_a_missing_label_on_a_valid_row_and_a_label_without_candidates_vote_for_nobody(voters: Make) -> None:
    assert count(voters([0.1, 0.1, 0.1], [-1, 2, 99])).tolist() == [0] * 6


def test_a_label_without_voters_and_no_voters_at_all_give_zeros(voters: Make) -> None:
    assert count(voters([0.1], [0])).tolist() == [1, 0, 0, 0, 0, 0]
    assert count(voters(np.empty((0, 1)))).tolist() == [0] * 6


def test_nobody_votes_for_a_candidate_that_could_not_be_scored(voters: Make) -> None:
    candidates = CANDIDATES.copy()
    candidates[[0, 3, 4, 5]] = np.nan
    found = count(voters([0.0, 0.0, 11.0], [0, 0, 1]), candidates)
    assert found.tolist() == [0, 2, 0, 0, 0, 0]


def test_no_candidates_give_an_empty_histogram(voters: Make) -> None:
    assert count(voters([1.0]), np.empty((0, 1)), np.empty(0, np.int64)).shape == (0,)


def test_more_neighbours_than_candidates_of_a_label_is_an_error_before_any_record_is_read() -> None:
    noisy = NearestNeighbourHistogram(neighbours=4).with_noise(1.0)
    with pytest.raises(ValueError, match="label 0 has 3 candidates that can be voted for, and each record votes for 4"):
        noisy.over(CANDIDATES, LABELS)


def test_a_label_of_candidates_that_are_all_unusable_is_like_one_without_candidates(voters: Make) -> None:
    candidates = CANDIDATES.copy()
    candidates[:3] = np.nan
    assert count(voters([0.0, 10.0], [0, 1]), candidates, neighbours=2).tolist() == [0, 0, 0, 1, 1, 0]


# --- what one record can change ---------------------------------------------------------------------------------------

value = st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 7.0, -0.0, 1e30, -1e30, 3e38, 1e-40, math.nan, math.inf, -math.inf])
record = st.tuples(st.tuples(value, value), st.integers(-1, 3), st.booleans(), st.integers(0, 3))


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    usable = st.sampled_from([0.0, 0.5, 1.0, 2.0, 7.0, 1e30, math.nan])
    candidates = draw(st.lists(st.tuples(st.tuples(usable, usable), st.integers(0, 2)), min_size=0, max_size=9))
    return {
        "points": np.array([point for point, _ in candidates], dtype=np.float32).reshape(-1, 2),
        "labels": np.array([label for _, label in candidates], dtype=np.int64),
        "records": draw(st.lists(record, min_size=1, max_size=7)),
        "changed": draw(record),
        "place": draw(st.integers(0, 6)),
        "neighbours": draw(st.integers(1, 3)),
        "distance": draw(st.sampled_from(["l2", "cosine", "inner-product"])),
    }


def cast(records: list[Any], *, units: bool = False) -> Voters:
    return Voters(
        embeddings=np.array([point for point, *_ in records], dtype=np.float32).reshape(-1, 2),
        labels=np.array([label for _, label, *_ in records], dtype=np.int64),
        valid=np.array([valid for _, _, valid, _ in records], dtype=np.bool_),
        units=np.array([unit for *_, unit in records], dtype=np.int64) if units else None,
    )


GHOST = ((0.0, 0.0), -1, False, 0)


@settings(max_examples=250, deadline=None)
@given(case=cases())
def test_one_record_changes_at_most_the_declared_cells_each_by_at_most_one(case: dict[str, Any]) -> None:
    config = NearestNeighbourHistogram(neighbours=case["neighbours"], distance=case["distance"])
    try:
        mechanism = config.with_noise(1.0).over(case["points"], case["labels"])
    except ValueError as error:
        assert "can be voted for" in str(error)
        return
    records, place = list(case["records"]), case["place"] % len(case["records"])

    def with_record(other: Any) -> np.ndarray:
        return mechanism(Quiet(), cast([*records[:place], other, *records[place + 1 :]]))["histogram"]

    with_ghost = with_record(GHOST)
    for other in (records[place], case["changed"], ((math.nan, 1.0), 0, True, 0)):
        difference = with_record(other) - with_ghost
        assert set(difference.tolist()) <= {0, 1}
        assert difference.sum() in (0, config.neighbours)
        assert difference.sum() <= mechanism.cost.cells
    swapped = with_record(records[place]) - with_record(case["changed"])
    assert np.abs(swapped).max(initial=0) <= 1
    assert np.abs(swapped).sum() <= 2 * mechanism.cost.cells


@settings(max_examples=150, deadline=None)
@given(case=cases(), most=st.integers(1, 3))
def test_one_unit_with_many_records_changes_at_most_the_declared_cells(case: dict[str, Any], most: int) -> None:
    config = NearestNeighbourHistogram(neighbours=case["neighbours"], distance=case["distance"], cells_per_unit=most)
    try:
        mechanism = config.with_noise(1.0).over(case["points"], case["labels"])
    except ValueError:
        return
    everybody = mechanism(Quiet(), cast(case["records"], units=True))["histogram"]
    for unit in range(4):
        others = [GHOST if record[3] == unit else record for record in case["records"]]
        difference = everybody - mechanism(Quiet(), cast(others, units=True))["histogram"]
        assert set(difference.tolist()) <= {0, 1}
        assert difference.sum() <= most == mechanism.cost.cells


def test_a_unit_votes_for_the_cells_that_most_of_its_records_name(voters: Make) -> None:
    found = count(voters([2, 2, 2, 0, 1, 1, 0], [0] * 7, units=[5, 5, 5, 5, 5, 5, 8]), cells_per_unit=2)
    assert found.tolist() == [1, 1, 1, 0, 0, 0]


def test_units_need_cells_per_unit_and_the_reverse(voters: Make) -> None:
    with pytest.raises(ValueError, match="`cells_per_unit`"):
        count(voters([1.0], units=[0]))
    with pytest.raises(ValueError, match="`cells_per_unit`"):
        count(voters([1.0]), cells_per_unit=1)


@settings(max_examples=100, deadline=None)
@given(case=cases(), seed=st.integers(0, 1000))
def test_renaming_the_labels_renames_nothing_else(case: dict[str, Any], seed: int) -> None:
    names = np.random.default_rng(seed).permutation(4)
    config = NearestNeighbourHistogram(neighbours=1, distance=case["distance"]).with_noise(1.0)
    voters = cast(case["records"])
    renamed = Voters(
        embeddings=voters.embeddings,
        labels=np.where(voters.labels >= 0, names[voters.labels], -1),
        valid=voters.valid,
    )
    before = config.over(case["points"], case["labels"])(Quiet(), voters)["histogram"]
    after = config.over(case["points"], names[case["labels"]])(Quiet(), renamed)["histogram"]
    np.testing.assert_array_equal(before, after)


def test_all_backends_count_the_same(voters: Make) -> None:
    rng = np.random.default_rng(0)
    candidates, labels = rng.integers(0, 4, (90, 3)).astype(np.float32), rng.integers(0, 3, 90)
    everybody = voters(rng.integers(0, 4, (400, 3)), rng.integers(-1, 4, 400))
    noisy = NearestNeighbourHistogram(neighbours=3).with_noise(1.0)
    counts = [
        noisy.over(candidates, labels, backend=name)(Quiet(), everybody)["histogram"] for name in ("auto", "numpy")
    ]
    for name in ("faiss", "torch"):
        pytest.importorskip(name)
        counts.append(noisy.over(candidates, labels, backend=name)(Quiet(), everybody)["histogram"])
    for other in counts[1:]:
        np.testing.assert_array_equal(other, counts[0])


# --- noise, cost, description -----------------------------------------------------------------------------------------


def test_the_noise_is_the_multiplier_times_the_root_of_the_cells_and_the_cost_names_both(
    silent: Any, voters: Make
) -> None:
    for neighbours in (1, 2, 3):
        noisy = NearestNeighbourHistogram(neighbours=neighbours).with_noise(4.0)
        mechanism = noisy.over(CANDIDATES, LABELS)
        mechanism(silent, voters([1.0]))
        expected = DiscreteGaussian(scale=4.0 * math.sqrt(neighbours), cells=neighbours)
        assert noisy.cost == mechanism.cost == expected
        assert silent.scales[-1] == expected.scale
    by_unit = NearestNeighbourHistogram(neighbours=1, cells_per_unit=9).with_noise(4.0)
    assert by_unit.cost == DiscreteGaussian(scale=12.0, cells=9)


def test_the_cost_of_five_neighbours_is_five_scalar_pairs() -> None:
    from privolve.privacy import accounting

    five = NearestNeighbourHistogram(neighbours=5).with_noise(3.0).cost
    pairs = [DiscreteGaussian(scale=3.0 * math.sqrt(5))] * 5
    mine, theirs = accounting.epsilon([five], 1e-5), accounting.epsilon(pairs, 1e-5)
    assert mine == pytest.approx(theirs, rel=1e-6)
    as_one_cell = accounting.epsilon([DiscreteGaussian(scale=3.0 * math.sqrt(5))], 1e-5)
    assert as_one_cell < mine / 1.5, "accounting one of five cells would print this"
    replaced = accounting.epsilon([five], 1e-5, relation=Relation.REPLACE_ONE)
    assert replaced > mine


def test_noise_is_added_to_every_cell_and_is_fresh(voters: Make) -> None:
    mechanism = (
        NearestNeighbourHistogram().with_noise(50.0).over(np.zeros((400, 1), np.float32), np.zeros(400, np.int64))
    )
    nobody = voters(np.full((3, 1), np.nan))
    first, second = (mechanism(SystemRng(), nobody)["histogram"] for _ in range(2))
    assert first.dtype == np.int64
    assert (first != second).mean() > 0.8
    # 400 cells of standard deviation 50: the mean square is within 60 % of 2,500, but for 1e-15.
    assert 1000 < np.mean(first.astype(float) ** 2) < 4000


def test_impossible_settings_are_errors() -> None:
    with pytest.raises(ValueError, match="`neighbours` is 0"):
        NearestNeighbourHistogram(neighbours=0)
    with pytest.raises(ValueError, match="`cells_per_unit` is 0"):
        NearestNeighbourHistogram(cells_per_unit=0)
    with pytest.raises(ValueError, match="unknown distance 'hamming'"):
        NearestNeighbourHistogram(distance="hamming")
    for multiplier in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="noise multiplier"):
            NearestNeighbourHistogram().with_noise(multiplier)
    noisy = NearestNeighbourHistogram().with_noise(1.0)
    with pytest.raises(ValueError, match="one row and one label each"):
        noisy.over(CANDIDATES, LABELS[:2])
    with pytest.raises(ValueError, match="labels count from 0"):
        noisy.over(CANDIDATES, LABELS - 1)


def test_the_description_is_json_and_fixes_the_distribution() -> None:
    noisy = NearestNeighbourHistogram(neighbours=2).with_noise(1.5)
    one = noisy.over(CANDIDATES, LABELS).describe()
    assert json.loads(json.dumps(one)) == one
    assert one == noisy.over(CANDIDATES.copy(), LABELS.copy(), backend="numpy").describe()
    moved = CANDIDATES.copy()
    moved[0] += 1e-6
    others = [
        noisy.over(moved, LABELS),
        noisy.over(CANDIDATES, LABELS[::-1].copy()),
        NearestNeighbourHistogram(neighbours=2).with_noise(1.6).over(CANDIDATES, LABELS),
        NearestNeighbourHistogram(neighbours=1).with_noise(1.5).over(CANDIDATES, LABELS),
        NearestNeighbourHistogram(neighbours=2, distance="cosine").with_noise(1.5).over(CANDIDATES + 1, LABELS),
    ]
    assert all(other.describe() != one for other in others)
    assert one["question"] == question(CANDIDATES, LABELS)


def test_a_bound_question_does_not_follow_later_changes_of_the_arrays(voters: Make) -> None:
    candidates, labels = CANDIDATES.copy(), LABELS.copy()
    mechanism = NearestNeighbourHistogram().with_noise(1.0).over(candidates, labels)
    candidates[:], labels[:] = 99, 0
    assert mechanism(Quiet(), voters([0.0]))["histogram"].tolist() == [1, 0, 0, 0, 0, 0]
    assert mechanism.question == question(CANDIDATES, LABELS)


def test_the_question_is_the_shape_the_bits_and_the_labels() -> None:
    flat = np.zeros((2, 3), np.float32)
    assert question(flat, np.zeros(2, np.int64)) != question(flat.reshape(3, 2), np.zeros(3, np.int64))
    assert question(flat, np.zeros(2, np.int64)) != question(flat, np.ones(2, np.int64))


# --- labels -----------------------------------------------------------------------------------------------------------


def test_a_label_histogram_counts_usable_records_and_each_once(voters: Make) -> None:
    everybody = voters([1, 1, np.nan, 1, 1, 1], [0, 2, 2, -1, 5, 2], [True, True, True, False, True, False])
    mechanism = LabelHistogram(classes=3).with_noise(2.0)
    found = mechanism(Quiet(), everybody)["labels"]
    assert found.tolist() == [1, 0, 1]
    assert found.dtype == np.int64
    assert mechanism.cost == DiscreteGaussian(scale=2.0, cells=1)
    assert json.loads(json.dumps(mechanism.describe()))["classes"] == 3
    with pytest.raises(ValueError, match="at least 1 class"):
        LabelHistogram(classes=0)


@settings(max_examples=100, deadline=None)
@given(records=st.lists(record, min_size=1, max_size=6), place=st.integers(0, 5), other=record)
def test_one_record_changes_one_label_count_by_one(records: list[Any], place: int, other: Any) -> None:
    mechanism = LabelHistogram(classes=3).with_noise(1.0)
    place %= len(records)

    def with_record(record: Any) -> np.ndarray:
        return mechanism(Quiet(), cast([*records[:place], record, *records[place + 1 :]]))["labels"]

    difference = with_record(other) - with_record(GHOST)
    assert set(difference.tolist()) <= {0, 1}
    assert difference.sum() <= 1


def test_every_cell_gets_noise_of_its_own() -> None:
    """Of 64 values at scale 30, fewer than ten different ones would be a chance in 1e40."""
    nobody = Voters(
        embeddings=np.zeros((1, 2), dtype=np.float32),
        labels=np.full(1, -1, dtype=np.int64),
        valid=np.zeros(1, dtype=np.bool_),
    )
    candidates = np.arange(128, dtype=np.float32).reshape(64, 2)
    histogram = NearestNeighbourHistogram().with_noise(30.0).over(candidates, np.zeros(64, dtype=np.int64))
    assert len(np.unique(histogram(SystemRng(), nobody)["histogram"])) >= 10
    labels = LabelHistogram(classes=64).with_noise(30.0)
    assert len(np.unique(labels(SystemRng(), nobody)["labels"])) >= 10
