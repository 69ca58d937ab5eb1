"""The harness: one judgement, and what becomes of a metric that cannot be computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from privolve.evaluation.harness import (
    CEILING,
    FINAL,
    HELD_OUT,
    INITIAL,
    VOTERS,
    Judged,
    judge,
    pixels_like,
)
from privolve.evaluation.metric import Items, Score
from privolve.evaluation.settings import Settings


def judged(name: str, *, count: int = 60, shift: float = 0.0, protected: bool = True, seed: int = 0) -> Judged:
    """Two classes that a line tells apart, the more surely the smaller `shift` is."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 2
    pixels = rng.integers(0, 80, size=(count, 4, 4, 1))
    pixels[labels == 1, :2] += round(100 * (1 - shift))
    pixels = pixels.astype(np.uint8)
    images = Items(name=name, values=pixels, labels=labels, protected=protected)
    features = Items(
        name=name,
        values=pixels.reshape(count, -1) / 255,
        labels=labels,
        network="test network",
        network_hash="1",
        protected=protected,
    )
    return Judged(images=images, features=features)


class Heard(list[tuple[str, bool]]):
    def __call__(self, line: str, /, *, public: bool) -> None:
        self.append((line, public))


def scores(
    *synthetic: Judged, heard: Heard | None = None, train: Judged | None = None, test: Judged | None = None, **kept: Any
):
    return judge(
        synthetic,
        test=test or judged(HELD_OUT, seed=1),
        train=train,
        classes=2,
        settings=Settings(**kept),
        lost=Heard() if heard is None else heard,
    )


def test_every_set_is_judged_by_the_same_figures_against_the_same_images() -> None:
    found = scores(judged(FINAL), judged(INITIAL, shift=1.0), metrics=("frechet", "kid"))
    for subject in (FINAL, INITIAL):
        assert [each.name for each in found if each.subject == subject] == [
            "classifier accuracy",
            "Frechet distance",
            "KID",
        ]
    assert {each.reference for each in found} == {HELD_OUT}
    accuracy = {each.subject: each.value for each in found if each.name == "classifier accuracy"}
    assert accuracy[FINAL] > 0.9 > 0.7 > accuracy[INITIAL]


def touches_voters(score: Score) -> bool:
    return score.subject == CEILING or VOTERS in score.reference


def test_whatever_depends_on_the_training_set_is_unprotected() -> None:
    train = judged(CEILING, protected=False, seed=2)
    found = scores(judged(FINAL), train=train)
    touched = [each for each in found if touches_voters(each)]
    assert touched and not any(each.protected for each in touched)
    assert all(each.protected for each in found if not touches_voters(each))
    assert {each.subject for each in touched} >= {CEILING, FINAL}
    assert any(each.reference == VOTERS for each in touched)
    assert not any(touches_voters(each) for each in scores(judged(FINAL)))


def test_on_private_held_out_images_nothing_is_protected() -> None:
    found = scores(judged(FINAL), test=judged(HELD_OUT, protected=False, seed=1))
    assert found and not any(each.protected for each in found)


def test_a_metric_that_cannot_be_computed_loses_only_itself() -> None:
    heard = Heard()
    found = scores(judged(FINAL, count=2), heard=heard, metrics=("precision-recall", "frechet"))
    assert {"classifier accuracy", "Frechet distance"} == {each.name for each in found}
    ((line, public),) = heard
    assert FINAL in line and public


def test_why_a_metric_was_lost_on_private_records_is_not_for_the_public() -> None:
    heard = Heard()
    scores(judged(FINAL), heard=heard, test=judged(HELD_OUT, count=2, protected=False), metrics=("precision-recall",))
    assert heard and not any(public for _, public in heard)


def test_a_metric_of_the_training_set_is_left_out_where_that_may_not_be_looked_at() -> None:
    heard = Heard()
    assert {each.name for each in scores(judged(FINAL), heard=heard, metrics=("memorised",))} == {"classifier accuracy"}
    assert heard == [("memorised looks at the real training set, which this evaluation does not", True)]
    train = judged(CEILING, protected=False, seed=2)
    found = scores(judged(FINAL), train=train, metrics=("memorised",))
    assert [each for each in found if "memoris" in each.name and not each.protected]


def test_the_inception_score_asks_a_classifier_of_these_classes() -> None:
    found = scores(judged(FINAL), metrics=("inception-score",))
    (score,) = [each for each in found if each.name == "Inception Score"]
    assert score.network == "logistic regression on pixels, trained on held-out test"
    assert 1.5 < score.value <= 2.0, "two classes, told apart surely"


def test_the_training_set_is_not_judged_itself_where_a_cell_of_its_own_does_it() -> None:
    train = judged(CEILING, protected=False, seed=2)
    found = judge(
        [judged(FINAL)],
        test=judged(HELD_OUT, seed=1),
        train=train,
        classes=2,
        settings=Settings(),
        lost=Heard(),
        ceiling=False,
    )
    assert CEILING not in {each.subject for each in found}
    assert any(each.reference == VOTERS for each in found)


@pytest.mark.parametrize(
    "table",
    [{"metrics": ["frechett"]}, {"metrics": [{"kind": "frechet", "k": 3}]}, {"profile": "huge"}, {"metric": []}],
)
def test_settings_that_there_are_not_are_refused(table: dict[str, Any]) -> None:
    with pytest.raises((ValidationError, ValueError)):
        Settings.model_validate(table)


def test_images_are_brought_to_the_size_and_channels_of_the_real_ones() -> None:
    images = np.full((3, 8, 6, 3), 100, dtype=np.uint8)
    assert pixels_like(images, (6, 8), 3) is images
    fitted = pixels_like(images, (4, 4), 1)
    assert fitted.shape == (3, 4, 4, 1) and fitted.dtype == np.uint8
    assert abs(int(fitted.mean()) - 100) <= 1
