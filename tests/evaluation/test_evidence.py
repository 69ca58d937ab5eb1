"""What the harness shows of the records that took part: only where it may, never protected, and counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from privolve.evaluation.harness import (
    CANARIES,
    CEILING,
    FINAL,
    HELD_OUT,
    VOTERS,
    Canaries,
    Judged,
    judge,
)
from privolve.evaluation.metric import Items, Score
from privolve.evaluation.settings import Settings
from privolve.evaluation.text import text_items


class Heard(list[tuple[str, bool]]):
    def __call__(self, line: str, /, *, public: bool) -> None:
        self.append((line, public))


def features(name: str, rows: np.ndarray, *, protected: bool = False) -> Items:
    return Items(name=name, values=rows, network="net", network_hash="h", protected=protected)


def images(name: str, rows: np.ndarray, *, protected: bool = False) -> Judged:
    pixels = np.clip(rows[:, :4] * 20 + 128, 0, 255).astype(np.uint8).reshape(-1, 2, 2, 1)
    labels = np.arange(len(rows)) % 2
    return Judged(
        images=Items(name=name, values=pixels, labels=labels, protected=protected),
        features=features(name, rows, protected=protected),
    )


RNG = np.random.default_rng(0)
MEMBERS, OTHERS, FRESH = RNG.normal(size=(3, 120, 6))


def judged(
    released: np.ndarray, *, train: bool = True, heard: Heard | None = None, test_public: bool = True, **options: Any
) -> list[Score]:
    return judge(
        [images(FINAL, released, protected=True)],
        test=images(HELD_OUT, OTHERS, protected=test_public),
        train=images(CEILING, MEMBERS) if train else None,
        classes=2,
        settings=Settings(metrics=options.pop("metrics", ("frechet",))),
        lost=Heard() if heard is None else heard,
        **options,
    )


def by_name(scores: list[Score]) -> dict[str, Score]:
    return {score.name: score for score in scores if score.subject == FINAL}


def test_membership_stands_beside_the_nearest_records_and_copies_are_found() -> None:
    fresh, copied = by_name(judged(FRESH)), by_name(judged(MEMBERS + 0.01))
    for name, least in (("membership AUC by distance", 0.95), ("membership AUC by density", 0.8)):
        assert abs(fresh[name].value - 0.5) < 0.25 and copied[name].value > least
        assert fresh[name].reference == VOTERS and (fresh[name].network, fresh[name].network_hash) == ("net", "h")
    assert "share nearer than held-out records" in fresh


def test_no_evidence_is_protected_and_all_of_it_is_counted() -> None:
    canaries = Canaries(
        planted=features("planted", MEMBERS[:5], protected=True),
        references=features("references", FRESH[:20] + 4, protected=True),
    )
    evidence = [each for each in judged(FRESH, canaries=canaries) if VOTERS in each.reference]
    assert {each.reference for each in evidence} == {VOTERS, CANARIES}
    assert not any(each.protected for each in evidence)
    assert len([each for each in evidence if "membership" in each.name]) >= 4
    assert len([each for each in evidence if each.reference == CANARIES]) == 4


def test_without_the_private_records_there_is_no_evidence_even_of_canaries() -> None:
    canaries = Canaries(planted=features("planted", MEMBERS[:5]), references=features("references", FRESH[:20]))
    scores = judged(FRESH, train=False, canaries=canaries)
    assert scores and not any(VOTERS in each.reference for each in scores)
    assert all(each.protected for each in scores)


def test_canaries_that_were_remembered_are_exposed() -> None:
    canaries = Canaries(
        planted=features("planted", RNG.normal(size=(5, 6)) + 4),
        references=features("references", RNG.normal(size=(31, 6)) + 4),
    )
    forgotten = by_name(judged(FRESH, canaries=canaries))["mean canary exposure"].value
    remembered = np.concatenate([FRESH, canaries.planted.values])
    assert by_name(judged(remembered, canaries=canaries))["mean canary exposure"].value > max(4.9, forgotten + 1)


def test_why_an_attack_cannot_be_made_is_no_public_line() -> None:
    heard = Heard()
    few = judge(
        [images(FINAL, FRESH, protected=True)],
        test=images(HELD_OUT, OTHERS, protected=True),
        train=images(CEILING, MEMBERS[:10]),
        classes=2,
        settings=Settings(),
        lost=heard,
    )
    assert not any("membership" in score.name for score in few)
    assert heard == [("private records: membership inference needs at least 20 items, not 10", False)]


def test_an_inception_score_comes_from_the_judge_where_it_knows_classes() -> None:
    def known(each: Judged) -> Judged:
        assert each.features is not None
        shares = np.exp(each.features.values[:, :3])
        return replace(each, probabilities=replace(each.features, values=shares / shares.sum(axis=1, keepdims=True)))

    test, final = images(HELD_OUT, OTHERS), images(FINAL, FRESH, protected=True)
    options: dict[str, Any] = {
        "train": None,
        "classes": 2,
        "settings": Settings(metrics=("inception-score",)),
        "lost": Heard(),
    }
    own = by_name(judge([known(final)], test=known(test), **options))["Inception Score"]
    fitted = by_name(judge([final], test=test, **options))["Inception Score"]
    # A network's own classes were known before any record; a classifier that was fitted to private ones was not.
    assert (own.network, own.network_hash, own.protected) == ("net", "h", True)
    assert "logistic" in fitted.network and not fitted.protected


def test_texts_are_judged_as_texts_and_a_metric_of_the_other_kind_is_lost() -> None:
    heard = Heard()

    def texts(name: str, count: int, *, protected: bool) -> Judged:
        content = [("soup and salt" if row % 2 else "wheel and road") + f" {row % 7}" for row in range(count)]
        items = text_items(name, content, np.arange(count) % 2, protected=protected)
        return Judged(images=items, features=features(name, RNG.normal(size=(count, 4)), protected=protected))

    scores = judge(
        [texts(FINAL, 60, protected=True)],
        test=texts(HELD_OUT, 50, protected=True),
        train=texts(CEILING, 70, protected=False),
        classes=2,
        settings=Settings(metrics=("frechet", "text-length", "inception-score", "image-reward")),
        lost=heard,
    )
    found = by_name(scores)
    assert {"text classifier accuracy", "Frechet distance", "length distance", "membership AUC by distance"} <= set(
        found
    )
    assert found["text classifier accuracy"].value == 1 and found["text classifier accuracy"].protected
    assert [score.protected for score in scores if score.subject == CEILING and score.name == "mean words"] == [False]
    assert sorted(heard) == [
        ("an Inception Score of texts needs a judge with classes", True),
        ("image-reward looks at images, and these are none", True),
    ]
