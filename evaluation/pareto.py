"""Pareto fronts: the points that no other point beats in one respect without losing in another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Direction = Literal["lower", "higher"]


def front(points: Sequence[Sequence[float]], directions: Sequence[Direction]) -> tuple[int, ...]:
    """The indices of the points on the front, by the first coordinate, best first; equal points are all on it.

    A point with NaN or without an order (infinite both ways) is on no front.

    >>> front([(1.0, 70.0), (3.0, 75.0), (3.0, 60.0)], ("lower", "higher"))
    (0, 1)
    """
    signed = [
        tuple(value if way == "lower" else -value for value, way in zip(point, directions, strict=True))
        for point in points
    ]
    known = [row for row, point in enumerate(signed) if not any(math.isnan(value) for value in point)]
    kept = [row for row in known if not any(_beats(signed[other], signed[row]) for other in known)]
    return tuple(sorted(kept, key=lambda row: signed[row]))


def _beats(first: Sequence[float], second: Sequence[float]) -> bool:
    """At least as good in every respect, and better in one."""
    return all(one <= other for one, other in zip(first, second, strict=True)) and tuple(first) != tuple(second)


@dataclass(frozen=True, kw_only=True)
class Front:
    """The methods that nobody beats, over two respects: names with their points, best x first."""

    title: str
    x_label: str
    y_label: str
    protected: bool
    names: tuple[str, ...]
    points: tuple[tuple[float, float], ...]
