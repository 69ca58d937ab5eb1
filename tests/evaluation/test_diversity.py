from __future__ import annotations

import numpy as np
import pytest

from privolve.evaluation.diversity import VendiScore, vendi_score
from privolve.evaluation.metric import Items, MetricError


def by_definition(rows: np.ndarray) -> float:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(unit @ unit.T / len(unit))
    values = values[values > 1e-14]
    return float(np.exp(-(values * np.log(values)).sum()))


@pytest.mark.parametrize(("n", "dimensions"), [(30, 50), (50, 30), (300, 5), (40, 40)])
def test_either_side_of_the_matrix_gives_the_definition(n: int, dimensions: int) -> None:
    rows = np.random.default_rng(0).normal(0.5, 1, (n, dimensions))
    assert vendi_score(rows) == pytest.approx(by_definition(rows), rel=1e-9)


def test_so_many_orthogonal_kinds_are_so_many_and_copies_count_once() -> None:
    kinds = np.eye(7)[:4] * 3.0
    assert vendi_score(kinds) == pytest.approx(4.0)
    assert vendi_score(np.tile(kinds, (10, 1))) == pytest.approx(4.0)
    assert vendi_score(np.tile(kinds[:1], (10, 1))) == pytest.approx(1.0)
    uneven = np.concatenate([np.tile(kinds[:1], (3, 1)), kinds[1:2]])
    assert vendi_score(uneven) == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))


def test_blank_items_are_one_kind_of_their_own() -> None:
    rows = np.concatenate([np.tile(np.eye(3)[:1], (5, 1)), np.zeros((5, 3))])
    assert vendi_score(rows) == pytest.approx(2.0)
    assert vendi_score(np.zeros((5, 3))) == pytest.approx(1.0)


def test_order_rotation_and_scale_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(1, 1, (80, 6))
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    for same in (rng.permutation(rows), rows @ rotation, rows * rng.uniform(0.1, 9, (80, 1))):
        assert vendi_score(same) == pytest.approx(vendi_score(rows), rel=1e-9)


def test_the_score_sees_the_synthetic_items_alone() -> None:
    final = Items(name="final", values=np.eye(4), network="pixels", protected=True)
    score = VendiScore()(Items(name="voters", values=np.zeros((1, 4))), final)
    assert score.protected and score.reference == "" and score.n == 4 and score.value == pytest.approx(4.0)
    with pytest.raises(MetricError, match="none: a Vendi score needs at least 1 items, not 0"):
        VendiScore().of(Items(name="none", values=np.zeros((0, 4))))
