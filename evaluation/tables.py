"""A comparison as tables: Markdown for a reader, CSV for a spreadsheet, LaTeX for a paper.

Each column holds one metric in one network against one split; an arrow says which way is better. Marks: † unprotected,
not for publication; ‡ published by others; ¶ published, and its privacy claim does not hold.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .comparison import Cell, Column, Comparison, Group, Row, in_unit, label
from .metric import SHARE, Score
from .published import Published
from .report.wording import figure

UNPROTECTED, ELSEWHERE, UNSUPPORTED = "†", "‡", "¶"
NOTHING = ""
ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Texts in rows, and notes beneath."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        lines = [
            f"### {self.title}",
            "",
            _bar(map(_escaped, self.head)),
            _bar(["---"] + ["---:"] * (len(self.head) - 1)),
        ]
        lines += [_bar(map(_escaped, row)) for row in self.rows]
        return "\n".join([*lines, *(["", *(f"{note}  " for note in self.notes)] if self.notes else []), ""])

    def latex(self) -> str:
        """For `booktabs`."""
        body = [" & ".join(map(_tex, row)) + r" \\" for row in self.rows]
        return "\n".join(
            [
                f"% {self.title}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.head) - 1)}}}",
                r"\toprule",
                " & ".join(map(_tex, self.head)) + r" \\",
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
                *(f"% {note}" for note in self.notes),
                "",
            ]
        )


def tables(group: Group) -> tuple[Table, ...]:
    """The main table with costs, then all figures of utility, of fidelity and of privacy evidence, where there are more."""
    found = [_table(f"{group.title}: summary", group, group.headlines, costs=True)]
    parts = {
        "utility": [each for each in group.columns if each.is_utility],
        "fidelity": [each for each in group.columns if not each.is_utility and not each.is_evidence],
        "evidence on privacy": [each for each in group.columns if each.is_evidence],
    }
    for name, columns in parts.items():
        if any(column.key not in [each.key for each in group.headlines] for column in columns):
            found.append(_table(f"{group.title}: {name}", group, columns, costs=False))
    return tuple(table for table in found if table.rows)


def markdown(comparison: Comparison, *, grids: Sequence[str] = (), plots: Sequence[str] = ()) -> str:
    """The whole comparison as one document. `grids` and `plots` are paths of pictures beside it."""
    lines = [f"# {comparison.title}", ""]
    for group in comparison.groups:
        lines += [f"## {group.title}", "", group.description, ""]
        lines += [group.claim, ""] if group.claim else []
        for table in tables(group):
            lines += [table.markdown()]
        for each in group.fronts():
            names = "; ".join(each.names)
            lines += [f"Nobody beats, on {each.title}: {names}.", ""]
    for path in [*plots, *grids]:
        lines += [f"![{path}]({path})", ""]
    if comparison.limits:
        lines += ["## Not in these tables", "", *(f"- {line}" for line in comparison.limits), ""]
    return "\n".join(lines)


def latex(comparison: Comparison) -> str:
    return "\n".join(table.latex() for group in comparison.groups for table in tables(group))


def as_csv(comparison: Comparison) -> str:
    """One line a score of a cell, and one a published figure beside it: long form, nothing rounded."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for group in comparison.groups:
        for cell in group.cells:
            for score in cell.scores:
                writer.writerow(_csv_row(group, cell, score))
        for column, each in group.published():
            writer.writerow(_csv_published(group, column.first, each))
    return stream.getvalue()


CSV_HEAD = (
    *("set", "method", "kind", "epsilon", "delta", "seed", "metric", "network", "network_hash", "reference", "value"),
    *("low", "high", "unit", "better", "n", "reference_n", "protected", "claim_holds", "source"),
)


def _csv_row(group: Group, cell: Cell, score: Score) -> list[object]:
    low, high = score.interval or ("", "")
    return [
        *(group.title, cell.method, cell.kind, _none(cell.epsilon), _none(cell.delta), cell.seed, score.name),
        *(score.network, score.network_hash, score.reference, score.value, low, high, score.unit, score.better),
        *(score.n, score.reference_n, score.protected, "", cell.folder),
    ]


def _csv_published(group: Group, like: Score, each: Published) -> list[object]:
    return [
        *(group.title, each.method, "published", _none(each.epsilon), each.delta, "", each.metric),
        *(each.network, "", like.reference, each.value, "", "", each.unit, like.better),
        *("", "", "", each.claim_holds, each.source),
    ]


def _table(title: str, group: Group, columns: Sequence[Column], *, costs: bool) -> Table:
    rows = [row for row in group.rows if any(row.score(column) for column in columns)]
    beside = [(column, each) for column, each in group.published() if column.key in [one.key for one in columns]]
    priced = costs and any(row.mean("micro_dollars") for row in rows)
    priced_all = costs and any(row.mean("all_micro_dollars") for row in rows)
    timed = costs and any(row.mean("seconds") is not None for row in rows)
    called = costs and any(row.mean("calls") is not None for row in rows)
    head = ["method", "epsilon", *(f"{label(column.first)}{ARROWS[column.first.better]}" for column in columns)]
    head += ["dollars"] * priced + [f"dollars in all {UNPROTECTED}"] * priced_all
    head += ["model calls"] * called + [f"seconds {UNPROTECTED}"] * timed
    body: list[tuple[str, ...]] = []
    for row in rows:
        line = [row.method, _epsilon(row), *(_text(row.score(column)) for column in columns)]
        line += [_money(row.mean("micro_dollars"))] * priced + [_money(row.mean("all_micro_dollars"))] * priced_all
        line += [_count(row.mean("calls"))] * called + [_seconds(row.mean("seconds"))] * timed
        body.append(tuple(line))
    empty = (NOTHING,) * (priced + priced_all + called + timed)
    for method, epsilon, figures in _by_method(beside):
        mark = ELSEWHERE if all(each.claim_holds for _, each in figures) else UNSUPPORTED
        values = {column.key: each for column, each in figures}
        line = [f"{method} {mark}", _none(epsilon)]
        line += [_published(values.get(column.key)) for column in columns]
        body.append((*line, *empty))
    return Table(title=title, head=tuple(head), rows=tuple(body), notes=tuple(_notes(rows, columns, beside, timed)))


def _by_method(
    beside: Sequence[tuple[Column, Published]],
) -> list[tuple[str, float | None, list[tuple[Column, Published]]]]:
    found: dict[tuple[str, float | None], list[tuple[Column, Published]]] = {}
    for column, each in beside:
        found.setdefault((each.method, each.epsilon), []).append((column, each))
    return [(method, epsilon, figures) for (method, epsilon), figures in found.items()]


def _notes(
    rows: Sequence[Row], columns: Sequence[Column], beside: Sequence[tuple[Column, Published]], timed: bool
) -> Iterable[str]:
    seeds = {len(row.cells) for row in rows}
    if max(seeds, default=1) > 1:
        yield "Means over seeds, ± half of a 95 % confidence interval."
    for column in columns:
        first = column.first
        counts = sorted({score.n for row in rows if (score := row.score(column)) is not None})
        network = f"; {first.network}" if first.network else ""
        digest = f" [{first.network_hash}]" if first.network_hash else ""
        against = f"; against {first.reference} (n = {first.reference_n:,})" if first.reference else ""
        spread = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}" if counts else "0"
        yield f"{first.name}{network}{digest}{against}; n = {spread}."
    scores = [score for row in rows for column in columns if (score := row.score(column)) is not None]
    if timed or not all(score.protected for score in scores):
        yield f"{UNPROTECTED} computed from private records, or timed while they were read: not for publication."
    for source in dict.fromkeys(each.source for _, each in beside):
        yield f"{ELSEWHERE} {source}."
    for method, why in dict.fromkeys((each.method, each.why_not) for _, each in beside if not each.claim_holds):
        yield f"{UNSUPPORTED} {method}: its privacy claim does not hold: {why}."
    for text in dict.fromkeys(text for _, each in beside for text in (each.protocol, each.caveat) if text):
        yield f"{ELSEWHERE} measured otherwise, or to be known: {text}."


def _epsilon(row: Row) -> str:
    if row.epsilon is not None:
        return f"{row.epsilon:g}"
    return {"floor": "0", "ceiling": "none", "method": NOTHING}[row.kind]


def _text(score: Score | None) -> str:
    if score is None:
        return NOTHING
    mark = NOTHING if score.protected else f" {UNPROTECTED}"
    value = in_unit(score.value, score)
    text = f"{value:.1f}" if score.unit == SHARE else figure(value)
    if score.interval is not None and score.repeats > 1:
        # An end that was cut to what the figure can be is nearer than half of the interval.
        half = max(abs(in_unit(end, score) - value) for end in score.interval)
        text += f" ± {half:.1f}" if score.unit == SHARE else f" ± {figure(half)}"
    return f"{text}{' %' if score.unit == SHARE else ''}{mark}"


def _published(each: Published | None) -> str:
    if each is None:
        return NOTHING
    return f"{100 * each.value:.1f} %" if each.unit == SHARE else figure(each.value)


def _money(micro: float | None) -> str:
    return NOTHING if micro is None else f"{micro / 1e6:.2f}"


def _count(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f}"


def _seconds(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.1f}"


def _none(value: object) -> str:
    return NOTHING if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _bar(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


_TEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "¶": r"$^\P$",
    "−": "$-$",
    "×": r"$\times$",
    "∞": r"$\infty$",
}
_SUPERSCRIPTS = {character: f"$^{plain}$" for character, plain in zip("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789", strict=True)}


def _tex(text: str) -> str:
    return "".join(_TEX.get(character) or _SUPERSCRIPTS.get(character, character) for character in text)
