from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from privolve.evaluation.metric import Items, MetricError, Score, same_network
from privolve.evaluation.seeds import mean_score, paired_difference

SCORE = Score(
    name="Frechet distance",
    subject="final population",
    value=31.4,
    protected=False,
    better="lower",
    network="gradients",
    network_hash="9f86",
    reference="held-out test",
    n=1000,
    reference_n=597,
    interval=(30.0, 32.8),
    repeats=5,
)


def test_a_score_survives_a_round_through_json_text() -> None:
    assert Score.from_json(json.loads(json.dumps(SCORE.to_json()))) == SCORE
    plain = dataclasses.replace(SCORE, interval=None)
    assert Score.from_json(json.loads(json.dumps(plain.to_json()))) == plain


def test_a_score_with_an_unknown_field_or_too_few_is_refused() -> None:
    with pytest.raises(MetricError, match="no field 'colour'"):
        Score.from_json({**SCORE.to_json(), "colour": "red"})
    with pytest.raises(MetricError, match="not a score"):
        Score.from_json({"name": "Frechet distance"})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_is_a_number(value: float) -> None:
    with pytest.raises(MetricError):
        dataclasses.replace(SCORE, value=value)
    with pytest.raises(MetricError):
        dataclasses.replace(SCORE, interval=(0.0, value))


def test_whoever_does_not_say_that_items_are_protected_has_unprotected_ones() -> None:
    assert not Items(name="some", values=np.zeros((2, 3))).protected


def test_items_with_nan_are_refused_by_name_and_number() -> None:
    values = np.zeros((5, 3), dtype=np.float32)
    values[3, 1] = np.nan
    with pytest.raises(MetricError, match="final population: 1 of 5 items hold NaN"):
        Items(name="final population", values=values)


def test_ghosts_among_disclosed_records_are_left_out_without_a_word() -> None:
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    values[4, 0] = np.inf
    items = Items.of_records(
        name="voters",
        values=values,
        labels=np.array([0, 1, -1, 1, 0, 0]),
        valid=np.array([True, True, True, False, True, True]),
    )
    assert items.values[:, 1].tolist() == [1.0, 3.0, 11.0]
    assert items.labels is not None and items.labels.tolist() == [0, 1, 0]


def test_labels_must_fit_the_items() -> None:
    with pytest.raises(MetricError):
        Items(name="some", values=np.zeros((3, 2)), labels=np.zeros(2, dtype=np.int64))
    with pytest.raises(MetricError, match="of_records"):
        Items(name="some", values=np.zeros((2, 2)), labels=np.array([0, -1]))


def test_features_of_two_networks_are_never_compared() -> None:
    here = Items(name="a", values=np.zeros((2, 3)), network="gradients", network_hash="1")
    with pytest.raises(MetricError, match="two networks"):
        same_network(here, Items(name="b", values=np.zeros((2, 3)), network="gradients", network_hash="2"))
    with pytest.raises(MetricError, match="shape"):
        same_network(here, Items(name="b", values=np.zeros((2, 4)), network="gradients", network_hash="1"))


def test_a_paired_difference_is_known_by_hand() -> None:
    result = paired_difference([0.5, 0.7, 0.6], [0.4, 0.5, 0.5])
    assert result.mean == pytest.approx(0.4 / 3)
    assert result.standard_error == pytest.approx(np.std([0.1, 0.2, 0.1], ddof=1) / math.sqrt(3))
    assert result.is_clear and result.pairs == 3
    assert not paired_difference([0.5, 0.3], [0.4, 0.5]).is_clear
    with pytest.raises(MetricError):
        paired_difference([0.5], [0.4])


def test_a_mean_over_seeds_has_a_t_interval_and_the_least_protection() -> None:
    one, two = (dataclasses.replace(SCORE, value=v, interval=None, protected=p) for v, p in ((0.0, True), (2.0, False)))
    mean = mean_score([one, two])
    assert (mean.value, mean.repeats, mean.protected) == (1.0, 2, False)
    assert mean.interval == pytest.approx((1 - 12.7062, 1 + 12.7062), rel=1e-4)
    assert mean_score([one]).interval is None
    with pytest.raises(MetricError):
        mean_score([one, dataclasses.replace(two, network="pixels")])
