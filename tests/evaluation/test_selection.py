from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from privolve.evaluation.metric import Items, MetricError, Score
from privolve.evaluation.selection import (
    CalibratedDPValidation,
    Candidate,
    DPValidation,
    by_oracle,
    by_synthetic,
    by_validation,
    hold_out,
    is_oracle,
    last,
)
from privolve.privacy.accounting import epsilon
from privolve.privacy.ledger import Ledger, Plan, PlannedRelease
from privolve.privacy.mechanism import PrivacyTarget, PureEpsilon, Relation, calibrate
from privolve.privacy.private import Private
from privolve.privacy.randomness import SystemRng


@dataclass(frozen=True, eq=False)
class Slots:
    """Images of one value: the value of the first pixel is what the candidates below look at."""

    pixels: np.ndarray
    labels: np.ndarray
    valid: np.ndarray

    def parts(self) -> Iterator[bytes]:
        yield from (self.pixels.tobytes(), self.labels.tobytes(), self.valid.tobytes())


def slots(values: list[int], labels: list[int], ghosts: tuple[int, ...] = ()) -> Slots:
    valid = np.ones(len(values), dtype=np.bool_)
    valid[list(ghosts)] = False
    pixels = np.asarray(values, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), dtype=np.uint8)
    return Slots(pixels, np.where(valid, np.asarray(labels, dtype=np.int64), -1), valid)


def says(name: str, classify) -> Candidate:
    """A candidate that puts each image, by its first pixel, into one of three classes."""

    def scores(images: np.ndarray) -> np.ndarray:
        return np.eye(3)[[classify(int(image[0, 0, 0])) for image in images]]

    return Candidate(name=name, digest=f"digest of {name}", classify=scores)


RIGHT = says("right", lambda value: value % 3)
ZERO = says("zero", lambda value: 0)
TWO = (ZERO, RIGHT)


class Seen:
    """A source without noise that shows what it was asked."""

    def __init__(self) -> None:
        self.counts: list[list[int]] = []

    def noisy_max(self, counts: np.ndarray, eps: float) -> int:
        assert counts.dtype == np.int64
        self.counts.append(counts.tolist())
        return int(np.argmax(counts))


def counted(data: Slots, candidates: tuple[Candidate, ...] = TWO, batch: int = 4) -> list[int]:
    seen = Seen()
    DPValidation(candidates=candidates, batch=batch).with_noise(1.0)(seen, data)  # type: ignore[arg-type]
    return seen.counts[0]


def test_each_candidate_is_counted_where_it_is_right() -> None:
    assert counted(slots([0, 1, 2, 3, 4], [0, 1, 2, 0, 0])) == [3, 4]


def test_a_ghost_counts_for_no_candidate_whatever_is_left_in_its_row() -> None:
    """A blank would be class 0, which both candidates would be right about if a ghost had a label."""
    values = [0, 1, 2, 3, 4]
    assert counted(slots(values, [0, 1, 2, 0, 1], ghosts=(0, 3))) == [0, 3]
    stale = slots(values, [0, 1, 2, 0, 1])
    left = Slots(stale.pixels, stale.labels, np.array([False, True, True, False, True]))
    assert counted(left) == [0, 3]


def test_what_the_ghost_was_is_shown_to_no_candidate() -> None:
    shown: list[int] = []
    spy = says("spy", lambda value: shown.append(value) or 0)
    counted(slots([7, 200, 9], [1, 1, 1], ghosts=(1,)), (spy,))
    assert 200 not in shown and {7, 9} <= set(shown)


@pytest.mark.parametrize("neighbour", range(6))
def test_one_slot_moves_each_count_by_one_at_most_and_only_down_when_it_becomes_a_ghost(neighbour: int) -> None:
    values, labels = [0, 1, 2, 3, 4, 5], [0, 1, 2, 2, 1, 0]
    whole, without = (counted(slots(values, labels, ghosts)) for ghosts in ((), (neighbour,)))
    assert all(0 <= a - b <= 1 for a, b in zip(whole, without, strict=True))
    assert whole != without or labels[neighbour] not in (0, values[neighbour] % 3)


def test_every_batch_has_the_same_public_shape_and_the_size_of_a_batch_changes_nothing() -> None:
    shapes: set[tuple[int, ...]] = set()

    def classify(images: np.ndarray) -> np.ndarray:
        shapes.add(images.shape)
        return np.eye(3)[images[:, 0, 0, 0] % 3]

    spy = Candidate(name="spy", digest="d", classify=classify)
    data = slots(list(range(11)), [0, 1, 2] * 3 + [0, 2], ghosts=(10,))
    assert counted(data, (spy,), batch=4) == counted(data, (spy,), batch=11) == [10]
    assert shapes == {(4, 4, 4, 1), (11, 4, 4, 1)}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_answer_that_is_not_finite_is_wrong(bad: float) -> None:
    def classify(images: np.ndarray) -> np.ndarray:
        scores = np.eye(3)[images[:, 0, 0, 0] % 3]
        scores[images[:, 0, 0, 0] == 1, 1] = bad  # argmax alone would find NaN and infinity at the right class
        scores[images[:, 0, 0, 0] == 2, 0] = bad
        return scores

    assert counted(slots([0, 1, 2], [0, 1, 2]), (Candidate(name="bad", digest="d", classify=classify),)) == [1]


def test_nothing_but_the_winners_index_leaves() -> None:
    released = DPValidation(candidates=TWO).with_noise(0.01)(SystemRng(), slots([0, 1, 2] * 50, [0, 1, 2] * 50))
    assert list(released) == ["selected"]
    assert released["selected"].dtype == np.int64 and released["selected"].tolist() == [1]


def test_the_winner_is_noisy_as_its_epsilon_says() -> None:
    """Leads of 0 and of 3 at epsilon 0.5: the worse of two wins with probability e^(-lead epsilon) / 2."""
    secret, runs = SystemRng(), 1000
    mechanism = DPValidation(candidates=(ZERO, RIGHT), batch=8).with_noise(2.0)

    def share(data: Slots) -> float:
        return float(np.mean([mechanism(secret, data)["selected"][0] for _ in range(runs)]))

    bound = 6.5 * math.sqrt(0.25 / runs)
    ahead = share(slots([0, 1, 1, 1], [0, 1, 1, 1]))
    assert abs(ahead - (1 - math.exp(-1.5) / 2)) < bound
    assert abs(ahead - 1) > 0.05 and abs(ahead - (1 - math.exp(-0.3) / 2)) > bound
    assert abs(share(slots([0, 0], [0, 0])) - 0.5) < bound


def test_its_cost_is_pure_epsilon_and_twice_that_for_replace_one() -> None:
    mechanism = DPValidation(candidates=TWO).with_noise(4.0)
    assert mechanism.cost == PureEpsilon(epsilon=0.25)
    assert epsilon([mechanism.cost], 1e-6, Relation.REPLACE_ONE) == 0.5
    target = PrivacyTarget(epsilon=0.5, delta=1e-6, unit="image")
    assert calibrate(DPValidation(candidates=TWO), target).epsilon == pytest.approx(0.5, rel=1e-3)


def test_the_question_binds_names_order_and_digests() -> None:
    question = DPValidation(candidates=TWO).question
    other = Candidate(name="right", digest="another", classify=RIGHT.classify)
    assert (
        len({question, DPValidation(candidates=TWO[::-1]).question, DPValidation(candidates=(ZERO, other)).question})
        == 3
    )
    assert DPValidation(candidates=TWO).with_noise(2.0).describe() == {
        "mechanism": "dp-validation",
        "candidates": ["zero", "right"],
        "batch": 256,
        "epsilon": 0.5,
    }


def test_the_ledger_charges_it_on_the_validation_partition_and_gives_the_same_winner_again(tmp_path: Path) -> None:
    config = DPValidation(candidates=TWO)
    data = slots([0, 1, 2] * 60, [0, 1, 2] * 60)
    with Ledger.create_or_open(
        tmp_path / "ledger", name="set", slots=180, unit="image", relation=Relation.ZERO_OUT, total=(4.0, 1e-4)
    ) as ledger:
        target = PrivacyTarget(epsilon=2.0, delta=1e-6, unit="image")
        mechanism = calibrate(config, target)
        planned = PlannedRelease(name="run/selection", cost=mechanism.cost)
        plan = Plan(run="run", partition="validation", share=target, releases=(planned,))
        ledger.reserve(plan)
        answers = [
            ledger.release(mechanism, Private(data), name="run/selection", question=config.question) for _ in range(2)
        ]
        choice = by_validation(config, answers[0])
        assert (choice.index, choice.name, choice.rule) == (1, "right", "dp-validation")
        assert answers[0]["selected"].tolist() == answers[1]["selected"].tolist()
        assert ledger.spent("validation").epsilon == 2.0 and ledger.spent("voting").epsilon == 0.0


@pytest.mark.parametrize("candidates", [(), (RIGHT, RIGHT)])
def test_candidates_are_at_least_one_and_of_different_names(candidates: tuple[Candidate, ...]) -> None:
    with pytest.raises(ValueError, match="name"):
        DPValidation(candidates=candidates)


# --- the other rules --------------------------------------------------------------------------------------------------


def items(name: str, *, protected: bool = True) -> Items:
    data = slots([0, 1, 2, 4], [0, 1, 2, 1])
    return Items(name=name, values=data.pixels, labels=data.labels, protected=protected)


def test_last_takes_the_last_and_synthetic_the_most_accurate_and_the_first_of_equals() -> None:
    again = says("again", lambda value: value % 3)
    assert last((RIGHT, ZERO)).name == "zero"
    assert by_synthetic((ZERO, RIGHT, again), items("samples, held out")).name == "right"
    for rule in (last, lambda none: by_synthetic(none, items("x"))):
        with pytest.raises(MetricError, match="nothing to select"):
            rule(())


def test_selection_by_images_that_were_not_released_is_not_called_free() -> None:
    with pytest.raises(MetricError, match="dp-validation"):
        by_synthetic(TWO, items("private records", protected=False))


def test_a_figure_of_an_oracle_is_marked_unprotected_and_never_in_anothers_column() -> None:
    score = Score(name="classifier accuracy", subject="final", value=0.9, protected=True)
    choice = by_oracle(TWO, items("held-out test"))
    marked = choice.marked(score)
    assert choice.name == "right" and is_oracle(marked) and not is_oracle(score)
    assert not marked.protected and marked.column != score.column
    assert last(TWO).marked(score) == score


def test_held_out_synthetic_items_are_a_public_random_part() -> None:
    whole = Items(name="samples", values=np.arange(200).reshape(100, 2), labels=np.arange(100), protected=True)
    training, held_out = hold_out(whole, share=0.25, seed=3)
    assert (training.name, held_out.name, len(held_out)) == ("samples", "samples, held out", 25)
    assert training.labels is not None and held_out.labels is not None
    assert sorted([*training.labels, *held_out.labels]) == list(range(100)) and held_out.protected
    assert np.array_equal(held_out.values[:, 0] // 2, held_out.labels)
    assert np.array_equal(hold_out(whole, share=0.25, seed=3)[1].values, held_out.values)
    assert not np.array_equal(hold_out(whole, share=0.25, seed=4)[1].values, held_out.values)
    with pytest.raises(MetricError, match="empty"):
        hold_out(whole, share=0.001, seed=0)


def test_a_fitted_classifier_is_a_candidate() -> None:
    from privolve.evaluation.classifiers.logistic import LogisticRegression

    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = (rng.integers(0, 80, (60, 4, 4, 1)) + 150 * labels[:, None, None, None]).astype(np.uint8)
    fitted = LogisticRegression(classes=2).fit(Items(name="samples", values=images, labels=labels))
    candidate = Candidate(name="regression", digest="d", classify=fitted.probabilities)
    data = Slots(images, labels.astype(np.int64), np.ones(60, dtype=np.bool_))
    assert counted(data, (candidate,), batch=16) == [60]


def test_it_is_a_calibrated_mechanism_in_the_ledgers_sense() -> None:
    mechanism = DPValidation(candidates=TWO).with_noise(1.0)
    assert isinstance(mechanism, CalibratedDPValidation)
    assert not callable(DPValidation(candidates=TWO))
