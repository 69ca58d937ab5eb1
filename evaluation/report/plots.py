"""Curves as coordinates: ticks, paths and markers, which the template draws as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .content import Curve
from .wording import figure

WIDTH, HEIGHT = 420.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 12.0, 46.0


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Line:
    name: str
    path: str
    points: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True)
class Plot:
    """A drawn curve. `rows` is the same as a table: x, then one text a series."""

    curve: Curve
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
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
    xs, ys = sorted({x for x, _ in points}), [y for _, y in points]
    x_low, x_high = _widened(xs[0], xs[-1])
    y_marks = ticks(*_widened(min(ys), max(ys)), count=5)
    y_low, y_high = min(y_marks[0], min(ys)), max(y_marks[-1], max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        up = TOP + (y_high - y) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)
        return round(across, 1), round(up, 1)

    lines: list[Line] = []
    for series in curve.series:
        dots: list[tuple[float, float, str]] = []
        path: list[str] = []
        pen = "M"
        for x, y in series.points:
            if not _finite(x, y):
                pen = "M"
                continue
            across, up = place(x, y)
            path.append(f"{pen}{across} {up}")
            dots.append((across, up, f"{series.name}: {figure(y)} at {figure(x)}"))
            pen = "L"
        lines.append(Line(series.name, "".join(path), tuple(dots)))
    known = [dict(series.points) for series in curve.series]
    return Plot(
        curve=curve,
        x_ticks=tuple(Tick(place(x, y_low)[0], figure(x)) for x in _x_marks(xs, x_low, x_high)),
        y_ticks=tuple(Tick(place(x_low, y)[1], figure(y)) for y in y_marks),
        lines=tuple(lines),
        rows=tuple(
            (figure(x), tuple(figure(line[x]) if _finite(line.get(x, math.nan)) else "" for line in known)) for x in xs
        ),
    )


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


def _x_marks(xs: Sequence[float], low: float, high: float) -> Sequence[float]:
    if len(xs) <= 8:
        return xs
    return [x for x in ticks(low, high, count=6) if low <= x <= high]


def _widened(low: float, high: float) -> tuple[float, float]:
    """An interval of some width around one value."""
    if high - low > 1e-12 * max(abs(low), abs(high), 1e-300):
        return low, high
    margin = abs(low) / 2 or 1.0
    return low - margin, high + margin


def _finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)
