"""`render`: a comparison of methods as one self-contained HTML page.

Figures of different networks, splits or sets are never in one column: the groups and columns of the comparison decide that.
Published figures are drawn only where `Group.published` says that they compare. What may leave is decided by
`Comparison.public`; what the test set chose is no headline (`Group.headlines`), and so in no summary and no plot.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..comparison import Column, Comparison, Grid, Group, Row, label
from ..metric import SHARE, Score
from ..pareto import Front
from ..published import Published
from ..tables import ELSEWHERE, UNPROTECTED, UNSUPPORTED, Table, tables
from . import pictures, shell, wording
from .content import Curve, Series
from .plots import Plot

ARROWS = {"higher": "↑ higher is better", "lower": "↓ lower is better", "": ""}
KINDS = {"floor": "no private data", "ceiling": "real data", "method": ""}


@dataclass(frozen=True)
class Value:
    """A figure of the summary; bar and interval in [0, 100] where there is a scale for them."""

    text: str
    interval: str = ""
    bar: float | None = None
    low: float = 0.0
    high: float = 0.0
    protected: bool = True
    best: bool = False


@dataclass(frozen=True)
class Line:
    """A row of the summary."""

    name: str
    kind: str
    note: str
    epsilon: str
    values: tuple[Value | None, ...]
    costs: tuple[str, ...] = ()
    unsupported: bool = False


@dataclass(frozen=True)
class Head:
    name: str
    network: str
    way: str


@dataclass(frozen=True)
class Cost:
    """A column of costs: `protected` if it may leave."""

    name: str
    protected: bool


@dataclass(frozen=True)
class Picture:
    image: pictures.Encoded | None
    words: str


@dataclass(frozen=True)
class Shown:
    """One group, ready for the template."""

    group: Group
    heads: tuple[Head, ...]
    costs: tuple[Cost, ...]
    lines: tuple[Line, ...]
    beside: tuple[Line, ...]
    sources: tuple[str, ...]
    notes: tuple[str, ...]
    unsupported: tuple[tuple[str, str], ...]
    curves: tuple[Plot, ...]
    fronts: tuple[Front, ...]
    grid: Grid | None
    pictures: tuple[tuple[str, tuple[Picture, ...]], ...]
    tables: tuple[Table, ...]


def render(comparison: Comparison, *, public_only: bool, library: str | None = None, again: str = "") -> str:
    """The page; as for one run. `again` is the command that makes it again."""
    content = comparison.public() if public_only else comparison
    groups = tuple(_shown(group, library) for group in content.groups)
    return shell.page(
        "comparison.jinja",
        curves=[curve for each in groups for curve in each.curves],
        library=library,
        data=content,
        public_only=public_only,
        groups=groups,
        again=again,
    )


def _shown(group: Group, library: str | None) -> Shown:
    columns = group.headlines
    rows = [row for row in group.rows if any(row.score(column) is not None for column in columns)]
    beside = _beside(group, columns)
    sources = list(dict.fromkeys(each.source for figures in beside.values() for _, each in figures))
    drawn = tables(group)
    summary = drawn[0] if drawn and rows else None
    costs, texts = _costs(rows)
    found = group.grid()
    return Shown(
        group=group,
        heads=tuple(_head(column) for column in columns),
        costs=costs,
        lines=tuple(
            Line(
                row.method,
                row.kind,
                KINDS[row.kind],
                _epsilon(row),
                tuple(_value(row.score(column), rows, column, beside) for column in columns),
                text,
            )
            for row, text in zip(rows, texts, strict=True)
        ),
        beside=tuple(_published(key, figures, columns, rows, beside, sources) for key, figures in beside.items()),
        sources=tuple(sources),
        notes=tuple(_notes(rows, () if summary is None else summary.notes, sources)),
        unsupported=tuple(
            dict.fromkeys(
                (each.method, each.why_not)
                for figures in beside.values()
                for _, each in figures
                if not each.claim_holds
            )
        ),
        curves=shell.drawn([_curve(curve, group, columns) for curve in group.curves()], library),
        fronts=group.fronts(),
        grid=found,
        pictures=() if found is None else tuple(_pictured(found)),
        tables=tuple(table for table in tables(group) if not table.title.endswith(": summary")),
    )


# --- the summary ------------------------------------------------------------------------------------------------------

Key = tuple[str, float | None]
Beside = dict[Key, list[tuple[Column, Published]]]


def _beside(group: Group, columns: Sequence[Column]) -> Beside:
    keys = {column.key for column in columns}
    found: Beside = {}
    for column, each in group.published():
        if column.key in keys:
            found.setdefault((each.method, each.epsilon), []).append((column, each))
    return found


def _head(column: Column) -> Head:
    first = column.first
    network = "mean over classifiers" if first.network.startswith("mean of ") else first.network
    return Head(first.name, network, ARROWS[first.better])


def _top(rows: Sequence[Row], column: Column, beside: Beside) -> float:
    """What a full bar is."""
    if column.first.unit == SHARE:
        return 1.0
    ours = [score for row in rows if (score := row.score(column)) is not None]
    theirs = [each.value for figures in beside.values() for own, each in figures if own.key == column.key]
    return max([*(max(score.value, *(score.interval or (0.0,))) for score in ours), *theirs], default=0.0)


def _value(score: Score | None, rows: Sequence[Row], column: Column, beside: Beside) -> Value | None:
    if score is None:
        return None
    values = [each.value for row in rows if row.kind == "method" and (each := row.score(column)) is not None]
    best = {"higher": max, "lower": min}.get(score.better)
    top = _top(rows, column, beside)
    low, high = score.interval or (score.value, score.value)
    return Value(
        text=wording.in_unit(score.value, score),
        interval="" if score.interval is None else " to ".join(wording.in_unit(end, score) for end in score.interval),
        bar=_length(score.value, top),
        low=_length(low, top) or 0.0,
        high=_length(high, top) or 0.0,
        protected=score.protected,
        best=best is not None and len(values) > 1 and score.value == best(values),
    )


def _length(value: float, top: float) -> float | None:
    return round(min(max(value / top, 0.0), 1.0) * 100, 2) if top > 0 and math.isfinite(value) else None


def _published(
    key: Key,
    figures: Sequence[tuple[Column, Published]],
    columns: Sequence[Column],
    rows: Sequence[Row],
    beside: Beside,
    sources: Sequence[str],
) -> Line:
    known = {column.key: each for column, each in figures}
    values: list[Value | None] = []
    for column in columns:
        each = known.get(column.key)
        top = _top(rows, column, beside)
        text = "" if each is None else wording.percent(each.value) if each.unit == SHARE else wording.figure(each.value)
        values.append(None if each is None else Value(text=text, bar=_length(each.value, top)))
    method, epsilon = key
    numbers = sorted({sources.index(each.source) + 1 for _, each in figures})
    unsupported = any(not each.claim_holds for _, each in figures)
    return Line(
        method,
        "published",
        ", ".join(map(str, numbers)),
        "" if epsilon is None else f"{epsilon:g}",
        tuple(values),
        unsupported=unsupported,
    )


def _notes(rows: Sequence[Row], said: Sequence[str], sources: Sequence[str]) -> Iterable[str]:
    """What the tables say beneath, less what this page says in another place."""
    seeds = sorted({len(row.cells) for row in rows if row.kind == "method"})
    if seeds and seeds[-1] > 1:
        spread = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        yield f"Means over {spread} seeds; beneath them 95 % confidence intervals."
    elsewhere = {f"{ELSEWHERE} {source}." for source in sources}
    for note in said:
        if note not in elsewhere and not note.startswith((UNSUPPORTED, "Means over seeds")):
            mark = {ELSEWHERE: "Published: ", UNPROTECTED: "Unprotected: "}.get(note[:1], "")
            yield f"{mark}{note.removeprefix(f'{note[:1]} ') if mark else note}"


def _epsilon(row: Row) -> str:
    if row.epsilon is not None:
        return f"{row.epsilon:g}"
    return {"floor": "0", "ceiling": "∞", "method": "0"}[row.kind]


def _costs(rows: Sequence[Row]) -> tuple[tuple[Cost, ...], list[tuple[str, ...]]]:
    """Money where any was spent, calls and seconds where they are known: heads, and a text each row."""
    columns: list[tuple[Cost, list[str]]] = []
    for name, field, protected, scale, form in (
        ("Dollars, public requests", "micro_dollars", True, 1e-6, "{:,.2f}"),
        ("Dollars in all", "all_micro_dollars", False, 1e-6, "{:,.2f}"),
        ("Model calls", "calls", True, 1.0, "{:,.0f}"),
        ("Seconds", "seconds", False, 1.0, "{:,.1f}"),
    ):
        values = [row.mean(field) for row in rows]  # type: ignore[arg-type]
        known = [value for value in values if value is not None]
        if known and (any(known) or "ollars" not in name):
            texts = ["–" if value is None else form.format(value * scale) for value in values]
            columns.append((Cost(name, protected), texts))
    return tuple(cost for cost, _ in columns), [
        tuple(texts[place] for _, texts in columns) for place in range(len(rows))
    ]


# --- plots and pictures -----------------------------------------------------------------------------------------------


def _curve(curve: Curve, group: Group, columns: Sequence[Column]) -> Curve:
    """The curve with what nobody beats and, against epsilon, with what others published."""
    series = list(curve.series)
    if curve.x_label == "epsilon":
        column = next(column for column in columns if label(column.first) == curve.y_label)
        series += _elsewhere(group, column)
    else:
        series += [
            Series(
                name="nobody does better for less",
                x=[x for x, _ in front.points],
                y=[y for _, y in front.points],
                look="front",
            )
            for front in group.fronts()
            if front.title == curve.title and len(front.points) > 1
        ]
    # What is compared with reaches over the whole width.
    xs = [x for each in series for x in each.x]
    wide = [dataclasses.replace(each, x=[min(xs), max(xs)]) if each.look == "level" else each for each in series]
    return dataclasses.replace(curve, series=tuple(wide))


def _elsewhere(group: Group, column: Column) -> list[Series]:
    found = [each for own, each in group.published() if own.key == column.key and each.epsilon is not None]
    made: list[Series] = []
    for holds, name, look in (
        (True, "published elsewhere", "rings"),
        (False, "published, its claim does not hold", "crosses"),
    ):
        some = [each for each in found if each.claim_holds is holds]
        if some:
            made.append(
                Series(
                    name=name,
                    x=[each.epsilon or 0.0 for each in some],
                    y=[each.value for each in some],
                    labels=[f"{each.method}, {name}" for each in some],
                    look=look,  # type: ignore[arg-type]
                )
            )
    return made


def _pictured(grid: Grid) -> Iterable[tuple[str, tuple[Picture, ...]]]:
    for row in grid.rows:
        yield (
            row.name,
            tuple(
                Picture(None if pixels is None else pictures.encode(pixels), f"{row.name}: {name}")
                for name, pixels in zip(grid.labels, row.pictures, strict=True)
            ),
        )
