from __future__ import annotations

import numpy as np
import pytest

from privolve.evaluation.classifier import CEILING, FINAL, ClassifierAccuracy, LogisticRegression, accuracies
from privolve.evaluation.metric import Items, MetricError

Digits = tuple[np.ndarray, np.ndarray]


def part(digits: Digits, rows: slice, *, name: str = FINAL, protected: bool = True) -> Items:
    return Items(name=name, values=digits[0][rows], labels=digits[1][rows], protected=protected)


@pytest.fixture(scope="module")
def test_set(digits: Digits) -> Items:
    return part(digits, slice(1200, None), name="held-out test")


def test_it_learns_digits_from_many_and_from_few(digits: Digits, test_set: Items) -> None:
    classifier = LogisticRegression(classes=10)
    assert classifier.accuracy(part(digits, slice(0, 1200)), test_set) > 0.88
    assert classifier.accuracy(part(digits, slice(0, 200)), test_set) > 0.80


def test_labels_without_meaning_teach_nothing(digits: Digits, test_set: Items) -> None:
    shuffled = Items(name=FINAL, values=digits[0][:1000], labels=np.random.default_rng(3).permutation(digits[1][:1000]))
    assert LogisticRegression(classes=10).accuracy(shuffled, test_set) < 0.35


def test_the_same_images_give_the_same_figure_as_bytes_and_as_floats_in_any_run(
    digits: Digits, test_set: Items
) -> None:
    training = part(digits, slice(0, 300))
    assert training.labels is not None
    floats = Items(name=FINAL, values=training.values.astype(np.float32) / np.float32(255), labels=training.labels)
    classifier = LogisticRegression(classes=10)
    assert len({classifier.accuracy(items, test_set) for items in (training, training, floats)}) == 1


def test_a_class_missing_in_the_synthetic_set_counts_as_errors(digits: Digits, test_set: Items) -> None:
    keep = digits[1][:1200] != 3
    training = Items(name=FINAL, values=digits[0][:1200][keep], labels=digits[1][:1200][keep])
    classifier = LogisticRegression(classes=10)
    assert test_set.labels is not None
    threes = Items(
        name="threes", values=test_set.values[test_set.labels == 3], labels=test_set.labels[test_set.labels == 3]
    )
    assert classifier.accuracy(training, threes) == 0.0
    assert 0.7 < classifier.accuracy(training, test_set) <= np.mean(test_set.labels != 3)


def test_a_single_class_and_constant_images_are_answered_without_a_crash(digits: Digits, test_set: Items) -> None:
    assert test_set.labels is not None
    classifier = LogisticRegression(classes=10)
    ones = Items(name=FINAL, values=digits[0][:7], labels=np.full(7, 1))
    assert classifier.accuracy(ones, test_set) == np.mean(test_set.labels == 1)
    flat = Items(name=FINAL, values=np.zeros((20, 8, 8), dtype=np.uint8), labels=np.arange(20) % 10)
    assert classifier.accuracy(flat, test_set) < 0.2


def test_a_score_is_protected_only_if_training_and_test_images_are(digits: Digits, test_set: Items) -> None:
    final, ceiling = accuracies(
        [part(digits, slice(0, 200)), part(digits, slice(200, 600), name=CEILING, protected=False)],
        test_set,
        classes=10,
    )
    assert final.protected and not ceiling.protected
    assert (final.subject, ceiling.subject, final.n, final.reference_n) == (FINAL, CEILING, 200, len(test_set))
    private_test = part(digits, slice(1200, None), name="held-out test", protected=False)
    assert not ClassifierAccuracy(classifier=LogisticRegression(classes=10))(
        private_test, part(digits, slice(0, 200))
    ).protected


@pytest.mark.parametrize(
    ("training", "words"),
    [
        (Items(name=FINAL, values=np.zeros((0, 8, 8), dtype=np.uint8), labels=np.zeros(0, dtype=np.int64)), "none"),
        (Items(name=FINAL, values=np.zeros((4, 8, 8), dtype=np.uint8)), "labelled"),
        (
            Items(name=FINAL, values=np.zeros((4, 8, 8), dtype=np.uint8), labels=np.array([0, 1, 2, 10])),
            "label 10 of only 10",
        ),
        (Items(name=FINAL, values=np.zeros((4, 8, 9), dtype=np.uint8), labels=np.arange(4)), "images of"),
        (Items(name=FINAL, values=np.full((4, 8, 8), 2.0), labels=np.arange(4)), r"\[0, 1\]"),
    ],
)
def test_what_cannot_train_is_refused_in_one_line(training: Items, words: str, test_set: Items) -> None:
    with pytest.raises(MetricError, match=words) as caught:
        LogisticRegression(classes=10).accuracy(training, test_set)
    assert FINAL in str(caught.value) and "\n" not in str(caught.value)
