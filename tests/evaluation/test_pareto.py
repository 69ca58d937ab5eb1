"""Pareto fronts."""

from __future__ import annotations

import math

import numpy as np

from privolve.evaluation.pareto import front


def test_a_point_that_another_beats_is_not_on_the_front() -> None:
    points = [(1.0, 50.0), (1.0, 60.0), (3.0, 60.0), (3.0, 80.0), (2.0, 10.0)]
    assert front(points, ("lower", "higher")) == (1, 3)
    assert front(points, ("lower", "lower")) == (0, 4)


def test_equal_points_are_all_on_it_and_what_is_no_number_is_not() -> None:
    assert front([(1.0, 1.0), (1.0, 1.0), (math.nan, 9.0)], ("lower", "higher")) == (0, 1)
    assert front([], ("lower", "higher")) == ()


def test_the_front_is_what_a_search_over_all_pairs_leaves() -> None:
    points = np.random.default_rng(0).integers(0, 6, size=(60, 2)).astype(float)
    kept = front([tuple(point) for point in points], ("lower", "higher"))
    for row, (x, y) in enumerate(points):
        beaten = any(a <= x and b >= y and (a, b) != (x, y) for a, b in points)
        assert (row in kept) != beaten
