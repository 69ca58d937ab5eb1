from __future__ import annotations

import numpy as np
import pytest

from privolve.evaluation.metric import Items, MetricError
from privolve.evaluation.nearest_records import nearest_records

Digits = tuple[np.ndarray, np.ndarray]


def items(name: str, values: np.ndarray, *, protected: bool = True) -> Items:
    return Items(
        name=name, values=values.reshape(len(values), 64).astype(np.float32), network="pixels", protected=protected
    )


def test_distances_equal_brute_force(digits: Digits) -> None:
    images = digits[0].reshape(len(digits[0]), -1).astype(np.float64)
    private, held_out, synthetic = images[:900], images[900:1000], images[1000:1150]
    found = nearest_records(
        private=items("voters", private), held_out=items("held-out test", held_out), synthetic=items("final", synthetic)
    )
    for distances, rows in ((found.synthetic, synthetic), (found.held_out, held_out)):
        brute = np.array([np.sqrt(((private - row) ** 2).sum(axis=1).min()) for row in rows])
        np.testing.assert_allclose(distances, brute, rtol=1e-12)


def test_copies_of_private_records_are_noticed_and_fresh_ones_are_not(digits: Digits) -> None:
    images = np.random.default_rng(5).permutation(digits[0])
    voters, held_out, fresh = items("voters", images[:900]), items("held-out", images[900:1300]), images[1300:1700]
    copied = nearest_records(private=voters, held_out=held_out, synthetic=items("final population", images[:300]))
    assert copied.synthetic.max() == 0.0
    values = {(score.name, score.subject): score.value for score in copied.scores()}
    assert values["share nearer than held-out records", "final population"] > 0.99
    honest = nearest_records(private=voters, held_out=held_out, synthetic=items("final population", fresh))
    assert honest.scores()[-1].value == pytest.approx(0.5, abs=0.15)


def test_each_figure_has_an_interval_around_it(digits: Digits) -> None:
    images = np.random.default_rng(5).permutation(digits[0])
    found = nearest_records(
        private=items("voters", images[:900]),
        held_out=items("held-out", images[900:1300]),
        synthetic=items("final population", images[1300:1700]),
    )
    for score in found.scores():
        assert score.interval is not None and score.interval[0] < score.value < score.interval[1]
    share = found.scores()[-1].interval
    assert share is not None and share[1] - share[0] < 0.1


def test_no_figure_of_it_is_ever_protected(digits: Digits) -> None:
    rows = items("any", digits[0][:50], protected=True)
    assert not any(score.protected for score in nearest_records(private=rows, held_out=rows, synthetic=rows).scores())


def test_equal_distances_count_half(digits: Digits) -> None:
    rows = items("any", digits[0][:50])
    assert nearest_records(private=rows, held_out=rows, synthetic=rows).scores()[-1].value == 0.5


def test_empty_sets_and_other_networks_are_refused(digits: Digits) -> None:
    rows = items("any", digits[0][:5])
    with pytest.raises(MetricError, match="none: nearest records need"):
        nearest_records(private=rows, held_out=rows, synthetic=items("none", digits[0][:0]))
    other = Items(name="other", values=rows.values, network="gradients")
    with pytest.raises(MetricError, match="two networks"):
        nearest_records(private=rows, held_out=other, synthetic=rows)
