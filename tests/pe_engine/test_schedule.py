"""Schedules: one value for all iterations, or one for each, and nothing in between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from privolve.pe_engine.schedule import Schedule, Stages
from privolve.pe_engine.selection import Rank, Sample, Uniform


def stages(**changes: Any) -> Stages:
    settings: dict[str, Any] = {"iterations": 3, "classes": ("a", "b"), "shares": np.array([0.75, 0.25]), "count": 8}
    return Stages(**(settings | changes))


def test_a_single_value_holds_throughout_and_a_list_has_one_for_each() -> None:
    assert [Schedule.of(7, name="count", first=1, last=3).at(i) for i in (1, 2, 3)] == [7, 7, 7]
    assert [Schedule.of([1, 2], name="count", first=0, last=1).at(i) for i in (0, 1)] == [1, 2]


def test_a_list_of_another_length_is_an_error_that_says_how_many() -> None:
    with pytest.raises(ValueError, match=r"`degree` lists 3 values, and the iterations 0 to 3 are 4"):
        stages(degree=[0.5, 0.4, 0.3])
    with pytest.raises(ValueError, match=r"`threshold` lists 4 values, and the iterations 1 to 3 are 3"):
        stages(threshold=[1, 2, 3, 4])
    with pytest.raises(ValueError, match="set for the iterations 1 to 2, not for 3"):
        Schedule.of(1, name="count", first=1, last=2).at(3)


def test_every_setting_can_change_by_iteration() -> None:
    plan = stages(
        count=[16, 8, 8, 4],
        folds=[2, 1, 1, 0],
        degree=[1.0, 0.8, 0.4, 0.2],
        selection=[Sample(), Sample(), Rank()],
        threshold=[4.0, 2.0, None],
        keep_selected=[False, True, True],
    )
    assert [plan(i).counts for i in range(4)] == [(12, 4), (6, 2), (6, 2), (3, 1)]
    assert [plan(i).folds for i in range(4)] == [2, 1, 1, 0]
    assert [plan(i).degree for i in range(4)] == [1.0, 0.8, 0.4, 0.2]
    assert [plan(i).selection for i in (1, 2, 3)] == [Sample(threshold=4), Sample(threshold=2), Rank()]
    assert [plan(i).keep_selected for i in (1, 2, 3)] == [False, True, True]


def test_settings_that_cannot_work_are_errors_when_the_plan_is_made() -> None:
    for wrong, message in [
        ({"count": 2, "shares": np.array([0.9, 0.1])}, r"leave none for \['b'\]"),
        ({"count": 0}, "`count` is 0 at iteration 0"),
        ({"folds": -1}, "`folds` is -1"),
        ({"degree": 1.5}, "`degree` is 1.5"),
        ({"iterations": -1}, "`iterations` is -1"),
        ({"folds": [1, 1, 0, 1], "keep_selected": False}, "iteration 2 leaves no candidates"),
        ({"selection": Rank(threshold=1), "threshold": 2}, "set it in one place"),
        ({"selection": Uniform(), "threshold": 2}, "set it in one place"),
    ]:
        with pytest.raises(ValueError, match=message):
            stages(**wrong)


def test_no_iterations_leave_the_first_candidates() -> None:
    assert stages(iterations=0)(0).counts == (6, 2)
