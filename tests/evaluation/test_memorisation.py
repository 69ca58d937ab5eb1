from __future__ import annotations

import numpy as np
import pytest

from privolve.evaluation.memorisation import Authenticity, MemorisedShare, authentic, memorised
from privolve.evaluation.metric import Items, MetricError
from privolve.evaluation.metric_config import References

LINE = np.array([[0.0], [4.0], [5.0], [100.0]])


def features(n: int, seed: int, dimensions: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dimensions))


def test_what_is_memorised_is_known_by_hand() -> None:
    # 0.9 is 0.9 from 0 and 3.1 from 4; 1.1 is 2.9 from 4; 5.2 lies 0.2 from 5 and 1.2 from 4; 4.5 lies between two.
    asked = np.array([[0.9], [1.1], [5.2], [4.5], [100.0]])
    assert memorised(LINE, asked).tolist() == [True, False, True, False, True]
    assert memorised(LINE, asked, ratio=0.5).tolist() == [True, True, True, False, True]


def test_a_copy_of_an_item_that_is_there_twice_is_memorised() -> None:
    assert memorised(np.array([[1.0], [1.0], [9.0]]), np.array([[1.0], [2.0]])).tolist() == [True, False]


def test_what_is_authentic_is_known_by_hand() -> None:
    # Nearest fellows lie 4, 1, 1 and 95 away.
    asked = np.array([[-3.0], [-5.0], [5.5], [6.5], [50.0], [0.0]])
    assert authentic(LINE, asked).tolist() == [False, True, False, True, True, False]


def test_authenticity_equals_the_definition_by_brute_force() -> None:
    train, synthetic = features(150, 1), features(130, 2)
    between = np.linalg.norm(synthetic[:, None] - train[None], axis=2)
    within = np.linalg.norm(train[:, None] - train[None], axis=2)
    np.fill_diagonal(within, np.inf)
    nearest = between.argmin(axis=1)
    expected = between.min(axis=1) >= within[nearest].min(axis=1)
    assert authentic(train, synthetic).tolist() == expected.tolist() and 0.2 < expected.mean() < 0.9
    ordered = np.sort(between, axis=1)
    assert memorised(train, synthetic, ratio=0.9).tolist() == (ordered[:, 0] < 0.9 * ordered[:, 1]).tolist()


def test_copies_are_found_and_fresh_items_are_not() -> None:
    train = Items(name="voters", values=features(300, 1))
    fresh, copies = (
        Items(name=name, values=rows) for name, rows in (("fresh", features(200, 2)), ("copies", features(300, 1)))
    )
    assert MemorisedShare()(train, copies).value == 1.0 and MemorisedShare()(train, fresh).value < 0.05
    assert Authenticity()(train, copies).value == 0.0 and Authenticity()(train, fresh).value > 0.3


def test_order_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    train, synthetic = features(100, 1), features(90, 2)
    for of in (memorised, authentic):
        assert of(rng.permutation(train), rng.permutation(synthetic)).sum() == of(train, synthetic).sum()


def test_they_judge_by_the_training_items_and_say_so() -> None:
    test = Items(name="held-out test", values=features(20, 3), protected=True)
    train = Items(name="voters", values=features(30, 1))
    final = Items(name="final", values=features(10, 2), protected=True)
    for metric in (MemorisedShare(), Authenticity()):
        (score,) = metric.judge(References(test=test, train=train))(final)
        assert (score.reference, score.reference_n, score.n, score.protected) == ("voters", 30, 10, False)
        with pytest.raises(MetricError, match="needs the training items beside held-out test"):
            metric.judge(References(test=test))
        with pytest.raises(MetricError, match=r"voters: .* needs at least 2 items, not 1"):
            metric(Items(name="voters", values=features(1, 1)), final)
