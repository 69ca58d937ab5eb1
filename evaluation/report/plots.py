"""Curves as coordinates: ticks, paths and markers, which the template draws as inline SVG."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..metric import SHARE
from .content import Curve, Look, Series
from .wording import figure, percent

WIDTH, HEIGHT = 420.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 12.0, 46.0
APART = 30.0
"""Two labels of the x axis are at least so far from each other."""

MARGIN = 0.04

MARKS = (
    "M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0-6.8 0Z",
    "M-3.1-3.1H3.1V3.1H-3.1Z",
    "M0-4.2L3.9 2.9H-3.9Z",
    "M0-4.4L4.4 0L0 4.4L-4.4 0Z",
    "M0 4.2L3.9-2.9H-3.9Z",
    "M-4.2-1.4H-1.4V-4.2H1.4V-1.4H4.2V1.4H1.4V4.2H-1.4V1.4H-4.2Z",
)
"""Circle, square, triangle, diamond, triangle downwards, plus: series differ by shape and dashes, not by colour alone."""
RING, CROSS = "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z", "M-3.6-3.6L3.6 3.6M3.6-3.6L-3.6 3.6"

LEVELS = 4
"""So many levels have dashes of their own: two floors and a ceiling must be told apart."""


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """A drawn series: `points` are x, y and what is said of it; `whiskers` x, top and bottom of an interval.

    `place` counts the series of its own kind of look: its colour, its dashes and its mark.
    """

    name: str
    path: str
    points: tuple[tuple[float, float, str], ...]
    look: Look = "line"
    place: int = 0
    mark: str = MARKS[0]
    whiskers: tuple[tuple[float, float, float], ...] = ()

    @property
    def style(self) -> str:
        """Its class in the stylesheet."""
        kinds = LEVELS if self.look == "level" else 2
        return f"line-{min(self.place, 7)}" if self.look == "line" else f"{self.look} {self.look}-{self.place % kinds}"


@dataclass(frozen=True)
class Plot:
    """A drawn curve. `rows` is the same as a table under `head`."""

    curve: Curve
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    head: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    logarithmic: bool
    spec: str = ""
    """What the interactive plot is made of, as JSON; "" for none."""
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


def plot(curve: Curve) -> Plot | None:
    """The curve drawn, or None if it has no finite point."""
    points = [point for series in curve.series for point in series.points if _finite(*point)]
    if not points:
        return None
    xs = sorted({x for x, _ in points})
    logarithmic = curve.logarithmic and xs[0] > 0 and xs[-1] > xs[0]
    ends = [end for series in curve.series for end in (*series.low, *series.high) if _finite(end)]
    ys = [*(y for _, y in points), *ends]
    x_low, x_high = _margined(*_widened(xs[0], xs[-1]), logarithmic)
    y_marks = ticks(*_widened(min(ys), max(ys)), count=5)
    y_low, y_high = min(y_marks[0], min(ys)), max(y_marks[-1], max(ys))
    room = MARGIN * (y_high - y_low)
    y_low -= room if min(ys) < y_low + room else 0.0
    y_high += room if max(ys) > y_high - room else 0.0

    def across(x: float) -> float:
        share = math.log(x / x_low) / math.log(x_high / x_low) if logarithmic else (x - x_low) / (x_high - x_low)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def up(y: float) -> float:
        return round(TOP + (y_high - y) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM), 1)

    places: Counter[Look] = Counter()
    lines: list[Line] = []
    for series in curve.series:
        place = places[series.look]
        places[series.look] += 1
        dots: list[tuple[float, float, str]] = []
        path: list[str] = []
        whiskers: list[tuple[float, float, float]] = []
        pen = "M"
        for x, y, label, low, high in _sorted(series):
            if not _finite(x, y):
                pen = "M"
                continue
            if series.look == "front" and pen == "L":
                path.append(f"H{across(x)}V{up(y)}")
            elif series.look not in ("rings", "crosses"):
                path.append(f"{pen}{across(x)} {up(y)}")
            dots.append((across(x), up(y), said(label, x, y, low, high, curve.unit)))
            if low < high:
                whiskers.append((across(x), up(high), up(low)))
            pen = "L"
        mark = {"rings": RING, "crosses": CROSS}.get(series.look, MARKS[place % len(MARKS)])
        lines.append(Line(series.name, "".join(path), tuple(dots), series.look, place, mark, tuple(whiskers)))
    head, rows = _table(curve)
    return Plot(
        curve=curve,
        x_ticks=_x_ticks(xs, x_low, x_high, across, logarithmic),
        y_ticks=tuple(Tick(up(y), shown(y, curve.unit)) for y in y_marks),
        lines=tuple(lines),
        head=head,
        rows=rows,
        x_range=(x_low, x_high),
        y_range=(y_low, y_high),
        logarithmic=logarithmic,
    )


def said(label: str, x: float, y: float, low: float, high: float, unit: str) -> str:
    """A point in words."""
    interval = f" ({shown(low, unit)} to {shown(high, unit)})" if low < high else ""
    return f"{label}: {shown(y, unit)}{interval} at {figure(x)}"


def shown(y: float, unit: str) -> str:
    return percent(y) if unit == SHARE else figure(y)


def ticks(low: float, high: float, *, count: int) -> tuple[float, ...]:
    """About `count` round numbers that cover [low, high], steps of 1, 2 or 5 times a power of ten.

    >>> ticks(0.31, 0.87, count=5)
    (0.2, 0.4, 0.6, 0.8, 1.0)
    """
    rough = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(float(f"{number * step:.12g}") for number in range(first, last + 1))


def points_of(series: Series) -> list[tuple[float, float, str, float, float]]:
    """x, y, label, low and high of every finite point, by x."""
    return [point for point in _sorted(series) if _finite(*point[:2])]


def _sorted(series: Series) -> list[tuple[float, float, str, float, float]]:
    nothing = [math.nan] * len(series.x)
    columns = (series.labels or [series.name] * len(series.x), series.low or nothing, series.high or nothing)
    points = [(float(x), float(y), *rest) for x, y, *rest in zip(series.x, series.y, *columns, strict=True)]
    return sorted(points, key=lambda point: point[:2])  # type: ignore[arg-type,return-value]


def _table(curve: Curve) -> tuple[tuple[str, ...], tuple[tuple[str, tuple[str, ...]], ...]]:
    """A row an x and a column a series; where a series has two values at one x, or names its points, a row a point."""
    several = [series for series in curve.series if series.look != "front"]
    unique = all(len(set(series.x)) == len(series.x) for series in several)
    if unique and not any(series.labels or series.low for series in several):
        known = [dict(series.points) for series in several]
        xs = sorted({x for series in several for x, y in series.points if _finite(x, y)})
        return (curve.x_label, *(series.name for series in several)), tuple(
            (
                figure(x),
                tuple(shown(line[x], curve.unit) if _finite(line.get(x, math.nan)) else "" for line in known),
            )
            for x in xs
        )
    rows = []
    for series in several:
        for x, y, label, low, high in points_of(series):
            interval = f"{shown(low, curve.unit)} to {shown(high, curve.unit)}" if low < high else ""
            rows.append((label, (figure(x), shown(y, curve.unit), interval)))
    return ("Of", curve.x_label, curve.y_label, "95 % interval"), tuple(rows)


def _x_ticks(xs: Sequence[float], low: float, high: float, across, logarithmic: bool) -> tuple[Tick, ...]:
    """The values themselves where they are few; never two labels on each other."""
    chosen = list(xs)
    if len(xs) > 8:
        chosen = [x for x in ticks(low, high, count=6) if low <= x <= high]
        if logarithmic:
            powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            chosen = [10.0**power * step for power in powers for step in (1, 2, 5) if low <= 10.0**power * step <= high]
    kept: list[Tick] = []
    for x in chosen:
        text = figure(x)
        if not kept or across(x) - kept[-1].at >= max(APART, 4.0 * (len(text) + len(kept[-1].text))):
            kept.append(Tick(across(x), text))
    return tuple(kept)


def _widened(low: float, high: float) -> tuple[float, float]:
    """An interval of some width around one value."""
    if high - low > 1e-12 * max(abs(low), abs(high), 1e-300):
        return low, high
    margin = abs(low) / 2 or 1.0
    return low - margin, high + margin


def _margined(low: float, high: float, logarithmic: bool) -> tuple[float, float]:
    """A little more on both sides, so that no mark lies on the edge."""
    if logarithmic:
        factor = (high / low) ** MARGIN
        return low / factor, high * factor
    return low - MARGIN * (high - low), high + MARGIN * (high - low)


def _finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)
