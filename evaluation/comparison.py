"""Several methods side by side: cells with their scores and costs, and what a page shows of them.

What may leave is decided in one place, `Comparison.public()`: unprotected scores, whatever private roles cost, and how
long a run took. Decision on time: a run's wall time holds its private stages, which reading and embedding the records
take as long as the records make them (rule 19), so seconds stay in the private copy. The public measure of compute is how
often models were asked about public values: a function of settings and released values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from .harness import VOTERS
from .metric import SHARE, Score
from .pareto import Direction, Front, front
from .published import Published
from .report.content import Curve, Series
from .seeds import mean_score
from .selection import ORACLE, is_oracle

Kind = Literal["method", "floor", "ceiling"]
Status = Literal["done", "failed", "skipped"]
UTILITY = ("classifier accuracy", "worst-class accuracy", "expected calibration error", "Brier score")
WIDE = 8.0
"""An axis is logarithmic if its largest value is so many times its smallest."""
PICTURES = 10
"""Of a method in a grid without classes, or of the classes in one with many."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """What a cell released: uint8 (n, height, width, channels) and class indices."""

    pixels: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One method on one private set at one epsilon from one seed. `scores` are of its own set of images alone.

    `calls` and `micro_dollars` count what was asked of models about public values; `all_micro_dollars` and `seconds` what
    the whole run took, which may not leave.
    """

    name: str
    method: str
    kind: Kind
    epsilon: float | None
    delta: float | None
    seed: int
    status: Status = "done"
    why: str = ""
    scores: tuple[Score, ...] = ()
    calls: int | None = None
    micro_dollars: int | None = None
    all_micro_dollars: int | None = None
    seconds: float | None = None
    folder: str = ""
    samples: Samples | None = None

    def to_json(self) -> dict[str, Any]:
        plain = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {**plain, "scores": [score.to_json() for score in self.scores], "samples": None}


@dataclass(frozen=True, kw_only=True)
class Column:
    """Scores that may stand together; see `Score.column`. `reference_n` too: another number of real images is another split."""

    first: Score

    @property
    def key(self) -> tuple[object, ...]:
        return column_key(self.first)

    @property
    def is_utility(self) -> bool:
        return self.first.name.removesuffix(ORACLE) in UTILITY

    @property
    def is_evidence(self) -> bool:
        return VOTERS in self.first.reference


def column_key(score: Score) -> tuple[object, ...]:
    return (*score.column, score.reference_n)


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """The cells of one method at one epsilon, over seeds: means with intervals."""

    method: str
    kind: Kind
    epsilon: float | None
    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        return self.method if self.epsilon is None else f"{self.method}, epsilon {self.epsilon:g}"

    def score(self, column: Column) -> Score | None:
        """The mean over seeds; of one seed its own score."""
        found = [score for cell in self.cells for score in cell.scores if column_key(score) == column.key]
        if not found:
            return None
        return found[0] if len(found) == 1 else mean_score([dataclasses.replace(each, subject="") for each in found])

    def mean(self, field_name: Literal["calls", "micro_dollars", "all_micro_dollars", "seconds"]) -> float | None:
        values = [getattr(cell, field_name) for cell in self.cells]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known and len(known) == len(values) else None


@dataclass(frozen=True, kw_only=True, eq=False)
class GridRow:
    """One method's pictures, in the order of the grid's labels; None where it has none of a label."""

    name: str
    pictures: tuple[np.ndarray | None, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """All methods side by side: a row a method, a column a class."""

    title: str
    labels: tuple[str, ...]
    rows: tuple[GridRow, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """What may be compared: cells on one private set with one split. `names` is what the set is known by elsewhere."""

    title: str
    description: str
    classes: tuple[str, ...]
    names: tuple[str, ...]
    cells: tuple[Cell, ...]
    claim: str = ""

    @property
    def rows(self) -> tuple[Row, ...]:
        """Floors first, then methods by name and epsilon, ceilings last; cells that are done alone."""
        order = {"floor": 0, "method": 1, "ceiling": 2}
        kept: dict[tuple[Any, ...], list[Cell]] = {}
        for cell in self.cells:
            if cell.status == "done":
                kept.setdefault((cell.method, cell.kind, cell.epsilon), []).append(cell)
        rows = [Row(method=key[0], kind=key[1], epsilon=key[2], cells=tuple(each)) for key, each in kept.items()]
        first = {method: place for place, method in reversed([*enumerate(cell.method for cell in self.cells)])}
        return tuple(sorted(rows, key=lambda row: (order[row.kind], first[row.method], row.epsilon or 0.0)))

    @property
    def columns(self) -> tuple[Column, ...]:
        """In the order in which their kinds first appear."""
        found: dict[tuple[object, ...], Column] = {}
        for cell in self.cells:
            for score in cell.scores:
                found.setdefault(column_key(score), Column(first=score))
        return tuple(found.values())

    @property
    def headlines(self) -> tuple[Column, ...]:
        """The two that a reader looks at first: the accuracy over all classifiers, and the first distance of features.

        Never a figure of what the test set chose.
        """
        accuracies = [each for each in self.columns if each.first.name == UTILITY[0]]
        chosen = [each for each in accuracies if each.first.network.startswith("mean of")] or accuracies
        fidelity = [
            each for each in self.columns if not each.is_utility and not each.is_evidence and not is_oracle(each.first)
        ]
        return (*chosen[:1], *fidelity[:1])

    def published(self) -> tuple[tuple[Column, Published], ...]:
        """The published figures that stand beside ours: same set, metric and network (or classifier)."""
        from .published import figures

        return tuple(
            (column, figure)
            for column in self.columns
            for figure in figures()
            if figure.compares_with(column.first, self.names)
        )

    def curves(self) -> tuple[Curve, ...]:
        """Utility and fidelity against epsilon, money, calls and seconds; methods with one point are dots."""
        return tuple(curve for axis in AXES for column in self.headlines if (curve := self._curve(axis, column)))

    def fronts(self) -> tuple[Front, ...]:
        return tuple(found for axis in AXES for column in self.headlines if (found := self._front(axis, column)))

    def grid(self) -> Grid | None:
        """One picture of each class and row of the tables, of the first seed that has samples."""
        rows: list[GridRow] = []
        labels = [round(place) for place in np.linspace(0, len(self.classes) - 1, min(len(self.classes), PICTURES))]
        for row in self.rows:
            samples = next((cell.samples for cell in row.cells if cell.samples is not None), None)
            if samples is None:
                continue
            if len(self.classes) == 1:
                pictures: list[np.ndarray | None] = [*samples.pixels[:PICTURES]]
            else:
                places = [np.flatnonzero(samples.labels == label) for label in labels]
                pictures = [samples.pixels[place[0]] if len(place) else None for place in places]
            name = "real, held out" if row.kind == "ceiling" else row.name
            rows.append(GridRow(name=name, pictures=tuple(pictures)))
        if not rows:
            return None
        names = tuple(self.classes[label] for label in labels) if len(self.classes) > 1 else self.classes * PICTURES
        return Grid(title=self.title, labels=names, rows=tuple(rows))

    def _points(self, axis: Axis, column: Column) -> list[tuple[Row, float, Score]]:
        points: list[tuple[Row, float, Score]] = []
        for row in self.rows:
            x, score = axis.of(row), row.score(column)
            if x is not None and score is not None and row.kind == "method":
                points.append((row, x, score))
        return points

    def _curve(self, axis: Axis, column: Column) -> Curve | None:
        points = self._points(axis, column)
        methods = list(dict.fromkeys(row.method for row, _, _ in points))
        series = [_series(method, [each for each in points if each[0].method == method]) for method in methods]
        xs = sorted({x for _, x, _ in points})
        if len(xs) < 2:
            return None
        level = [(row, row.score(column)) for row in self.rows if row.kind != "method"]
        series += [
            Series(name=row.name, x=[xs[0], xs[-1]], y=[score.value, score.value], look="level")
            for row, score in level
            if score is not None
        ]
        shown = [score for _, _, score in points] + [score for _, score in level if score is not None]
        return Curve(
            title=f"{label(column.first)} against {axis.label}",
            x_label=axis.label,
            y_label=label(column.first),
            protected=axis.is_public and all(score.protected for score in shown),
            series=tuple(series),
            unit=column.first.unit,
            logarithmic=xs[0] > 0 and xs[-1] / xs[0] >= WIDE,
        )

    def _front(self, axis: Axis, column: Column) -> Front | None:
        points = self._points(axis, column)
        better = column.first.better
        if len(points) < 2 or not better or len({x for _, x, _ in points}) < 2:
            return None
        directions: tuple[Direction, Direction] = ("lower", better)
        best = front([(x, score.value) for _, x, score in points], directions)
        return Front(
            title=f"{label(column.first)} against {axis.label}",
            x_label=axis.label,
            y_label=label(column.first),
            protected=axis.is_public and all(score.protected for _, _, score in points),
            names=tuple(points[place][0].name for place in best),
            points=tuple((points[place][1], points[place][2].value) for place in best),
        )


@dataclass(frozen=True)
class Axis:
    """What a figure is drawn against."""

    label: str
    field: Literal["epsilon", "calls", "micro_dollars", "all_micro_dollars", "seconds"]
    is_public: bool = True

    def of(self, row: Row) -> float | None:
        if self.field == "epsilon":
            return row.epsilon
        value = row.mean(self.field)
        if value is None or self.field not in ("micro_dollars", "all_micro_dollars"):
            return value
        return value / 1e6


AXES = (
    Axis("epsilon", "epsilon"),
    Axis("dollars, for public requests", "micro_dollars"),
    Axis("dollars in all", "all_micro_dollars", is_public=False),
    Axis("model calls", "calls"),
    Axis("seconds", "seconds", is_public=False),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """All of it, as data. `limits` says what was not run or not read, a line each."""

    title: str
    purpose: Literal["private", "benchmark"]
    groups: tuple[Group, ...]
    limits: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)

    def public(self) -> Comparison:
        """What may leave: nothing of the result depends on what was left out."""
        return dataclasses.replace(self, groups=tuple(_public(group) for group in self.groups))

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(cell for group in self.groups for cell in group.cells)

    def to_json(self) -> dict[str, Any]:
        """Everything but pixels."""
        return {
            "format": 1,
            "title": self.title,
            "purpose": self.purpose,
            "limits": list(self.limits),
            "facts": self.facts,
            "groups": [
                {
                    "title": group.title,
                    "description": group.description,
                    "claim": group.claim,
                    "classes": list(group.classes),
                    "names": list(group.names),
                    "cells": [cell.to_json() for cell in group.cells],
                    "rows": [_row_to_json(row, group.columns) for row in group.rows],
                    "curves": [dataclasses.asdict(curve) for curve in group.curves()],
                    "fronts": [dataclasses.asdict(each) for each in group.fronts()],
                    "published": [dataclasses.asdict(figure) for _, figure in group.published()],
                }
                for group in self.groups
            ],
        }


def label(score: Score) -> str:
    """A score's column in words: its name, and whose figure it is."""
    network = "mean over classifiers" if score.network.startswith("mean of ") else score.network
    return f"{score.name} ({network})" if network else score.name


def in_unit(value: float, score: Score) -> float:
    """Shares as percentages."""
    return value * 100 if score.unit == SHARE else value


def _series(method: str, points: Sequence[tuple[Row, float, Score]]) -> Series:
    """A method's points, each with its name and, over seeds, its interval."""
    intervals = [score.interval or (score.value, score.value) for _, _, score in points]
    return Series(
        name=method,
        x=[x for _, x, _ in points],
        y=[score.value for _, _, score in points],
        labels=[row.name for row, _, _ in points],
        low=[low for low, _ in intervals],
        high=[high for _, high in intervals],
    )


def _row_to_json(row: Row, columns: Sequence[Column]) -> dict[str, Any]:
    scores = [score.to_json() for column in columns if (score := row.score(column)) is not None]
    return {
        "method": row.method,
        "kind": row.kind,
        "epsilon": row.epsilon,
        "seeds": [cell.seed for cell in row.cells],
        "scores": scores,
        **{name: row.mean(name) for name in ("calls", "micro_dollars", "all_micro_dollars", "seconds")},
    }


def _public(group: Group) -> Group:
    """Without unprotected figures, and without what a run measured beside itself if only these are of it: whether they
    could be computed depends on private records."""
    return dataclasses.replace(
        group,
        cells=tuple(
            dataclasses.replace(
                cell,
                scores=tuple(score for score in cell.scores if score.protected),
                all_micro_dollars=None,
                seconds=None,
            )
            for cell in group.cells
            if cell.folder in ("", cell.name) or any(score.protected for score in cell.scores)
        ),
    )
