from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from privolve.evaluation.inception_score import InceptionScore, inception_score, log_softmax
from privolve.evaluation.metric import Items, MetricError


def items(rows: np.ndarray) -> Items:
    return Items(name="final", values=rows, network="a classifier", protected=True)


@pytest.mark.parametrize(("n", "splits"), [(500, 10), (503, 7), (90, 1)])
def test_it_is_torch_fidelitys(torch_fidelity: SimpleNamespace, n: int, splits: int) -> None:
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(0).normal(0, 3, (n, 12))
    theirs = torch_fidelity.isc.isc_features_to_metric(torch.from_numpy(logits), splits, True, 2020)
    mean, deviation = inception_score(log_softmax(logits), splits=splits)
    assert mean == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert deviation == pytest.approx(theirs["inception_score_std"], rel=1e-6, abs=1e-9)


def test_sure_and_even_is_the_number_of_classes_and_unsure_is_one() -> None:
    certain = np.tile(np.eye(5), (40, 1))
    assert InceptionScore(splits=1).of(items(certain)).value == pytest.approx(5.0)
    assert InceptionScore(splits=1).of(items(certain[::5])).value == pytest.approx(1.0)
    assert InceptionScore(splits=1).of(items(np.full((40, 5), 0.2))).value == pytest.approx(1.0)


def test_huge_logits_are_no_trouble() -> None:
    logits = 1e4 * np.tile(np.eye(4), (10, 1))
    assert inception_score(log_softmax(logits), splits=1)[0] == pytest.approx(4.0)


def test_without_splits_order_does_not_matter_and_classes_have_no_order() -> None:
    rng = np.random.default_rng(1)
    logs = log_softmax(rng.normal(size=(200, 6)))
    once = inception_score(logs, splits=1)[0]
    assert inception_score(rng.permutation(logs), splits=1)[0] == pytest.approx(once, rel=1e-12)
    assert inception_score(logs[:, ::-1], splits=1)[0] == pytest.approx(once, rel=1e-12)
    assert inception_score(log_softmax(logs + 100.0), splits=1)[0] == pytest.approx(once, rel=1e-12)


@pytest.mark.parametrize("wrong", [np.full((20, 3), 0.5), np.tile([1.5, -0.5], (20, 1))])
def test_what_is_no_probability_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(MetricError, match="final: an Inception Score needs class probabilities"):
        InceptionScore().of(items(wrong))


def test_fewer_items_than_splits_are_refused() -> None:
    with pytest.raises(MetricError, match="final: an Inception Score needs at least 10 items, not 3; lower `splits`"):
        InceptionScore().of(items(np.eye(3)))


def test_it_has_no_reference_and_is_protected_as_its_items_are() -> None:
    private = Items(name="voters", values=np.eye(3))
    score = InceptionScore(splits=1)(private, items(np.eye(3)))
    assert (score.reference, score.reference_n, score.protected, score.better) == ("", 0, True, "higher")
