"""Comparisons as tables: what may share a column, what is marked, what leaves."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from privolve.evaluation.comparison import Cell, Comparison, Group, Samples
from privolve.evaluation.drawings import png, svg
from privolve.evaluation.metric import SHARE, Score
from privolve.evaluation.tables import CSV_HEAD, as_csv, latex, markdown, tables


def accuracy(value: float, *, protected: bool = True, network: str = "WRN-40-4", reference_n: int = 100) -> Score:
    return Score(
        name="classifier accuracy",
        subject="x",
        value=value,
        protected=protected,
        better="higher",
        unit=SHARE,
        network=network,
        reference="held-out test",
        n=1000,
        reference_n=reference_n,
    )


def cell(method: str, epsilon: float | None, *scores: Score, seed: int = 0, **more) -> Cell:
    given = {"kind": "method", "delta": 1e-5, **more}
    return Cell(name=f"{method}-{seed}", method=method, epsilon=epsilon, seed=seed, scores=scores, **given)


def group(*cells: Cell, names: tuple[str, ...] = ("toys",)) -> Group:
    return Group(title="toys", description="Toys.", classes=("a", "b"), names=names, cells=cells)


def test_figures_of_two_networks_or_splits_never_share_a_column() -> None:
    shown = group(
        cell("one", 1.0, accuracy(0.5)),
        cell("two", 1.0, accuracy(0.6, network="another network")),
        cell("three", 1.0, accuracy(0.7, reference_n=50)),
    )
    table = next(each for each in tables(shown) if each.title.endswith("utility"))
    assert len(table.head) == 2 + 3
    filled = [[place for place, text in enumerate(row[2:]) if text] for row in table.rows]
    assert filled == [[0], [1], [2]]


def test_seeds_become_a_mean_with_an_interval() -> None:
    shown = group(*(cell("pe", 1.0, accuracy(value), seed=seed) for seed, value in enumerate((0.5, 0.6, 0.7))))
    (table,) = tables(shown)
    assert table.rows[0][:3] == ("pe", "1", "60.0 ± 24.8 %")


def test_half_an_interval_is_that_of_the_end_that_was_not_cut() -> None:
    distances = [
        Score(name="Frechet distance", subject="x", value=value, protected=True, least=0.0) for value in (0.01, 0.03)
    ]
    (table,) = tables(group(*(cell("pe", 1.0, each, seed=seed) for seed, each in enumerate(distances))))
    assert table.rows[0][2] == "0.02 ± 0.1271"


def test_rows_are_floor_methods_by_epsilon_and_ceiling() -> None:
    shown = group(
        cell("real", None, accuracy(0.9, protected=False), kind="ceiling"),
        cell("pe", 3.0, accuracy(0.7)),
        cell("pe", 1.0, accuracy(0.6)),
        cell("nothing", None, accuracy(0.3), kind="floor"),
        cell("lost", 1.0, status="failed", why="no reason"),
    )
    (table,) = tables(shown)
    assert [row[:2] for row in table.rows] == [("nothing", "0"), ("pe", "1"), ("pe", "3"), ("real", "none")]
    assert table.rows[-1][2] == "90.0 % †"
    assert any(note.startswith("† computed from private records") for note in table.notes)


def test_published_figures_stand_beside_comparable_ones_alone_and_say_what_does_not_hold() -> None:
    (table,) = tables(group(cell("pe", 1.0, accuracy(0.5)), names=("mnist",)))
    named = {row[0]: row for row in table.rows}
    assert named["DPDM ‡"][2] == "97.7 %" or named["DPDM ‡"][1] == "1"
    assert "DP-LoRA ¶" in named
    assert any("DP-LoRA: its privacy claim does not hold: its 8 copies" in note for note in table.notes)
    assert any("DPImageBench" in note for note in table.notes)
    (other,) = tables(group(cell("pe", 1.0, accuracy(0.5, network="logistic regression on pixels")), names=("mnist",)))
    assert [row[0] for row in other.rows] == ["pe"]


def test_what_may_not_leave_is_left_out_in_one_place() -> None:
    whole = Comparison(
        title="t",
        purpose="private",
        groups=(
            group(
                cell("pe", 1.0, accuracy(0.5, protected=False), seconds=12.5, micro_dollars=100, all_micro_dollars=900),
                cell("pe", 3.0, accuracy(0.61), seconds=13.5, micro_dollars=100, all_micro_dollars=900),
            ),
        ),
    )
    public = whole.public()
    for text in (markdown(public), latex(public), as_csv(public), json.dumps(public.to_json())):
        assert "0.5," not in text and "50.0" not in text and "12.5" not in text and "900" not in text
    assert "61.0" in markdown(public) and "50.0 % †" in markdown(whole) and "12.5" in markdown(whole)
    assert [curve for curve in whole.groups[0].curves() if not curve.protected]
    assert all(curve.protected for curve in public.groups[0].curves())


def test_curves_and_fronts_are_drawn_against_epsilon_calls_and_money() -> None:
    shown = group(
        cell("pe", 1.0, accuracy(0.5), calls=100, micro_dollars=10, all_micro_dollars=10),
        cell("pe", 3.0, accuracy(0.7), calls=200, micro_dollars=20, all_micro_dollars=20),
        cell("other", 3.0, accuracy(0.6), calls=300, micro_dollars=30, all_micro_dollars=30),
        cell("nothing", None, accuracy(0.2), kind="floor"),
    )
    curves = {curve.x_label: curve for curve in shown.curves()}
    assert set(curves) == {"epsilon", "dollars, for public requests", "dollars in all", "model calls"}
    assert [series.name for series in curves["epsilon"].series] == ["pe", "other", "nothing"]
    fronts = {front.x_label: front.names for front in shown.fronts()}
    assert fronts["epsilon"] == ("pe, epsilon 1", "pe, epsilon 3")
    drawn = svg(curves["epsilon"])
    assert drawn is not None and drawn.startswith("<svg") and "nothing" in drawn


def test_a_grid_holds_a_picture_of_each_class_and_method() -> None:
    pixels = np.zeros((4, 8, 8, 1), dtype=np.uint8)
    samples = Samples(pixels=pixels, labels=np.array([0, 0, 1, 1]))
    lacking = Samples(pixels=pixels, labels=np.array([0, 0, 0, 0]))
    grid = group(
        cell("pe", 1.0, accuracy(0.5), samples=samples), cell("other", 1.0, accuracy(0.5), samples=lacking)
    ).grid()
    assert grid is not None and grid.labels == ("a", "b")
    assert [[picture is not None for picture in row.pictures] for row in grid.rows] == [[True, True], [True, False]]
    assert png(grid).startswith(b"\x89PNG")
    assert group(cell("pe", 1.0, accuracy(0.5))).grid() is None


def test_names_with_characters_of_a_markup_stay_names() -> None:
    shown = Comparison(title="t", purpose="private", groups=(group(cell("a|b_c & 5%", 1.0, accuracy(0.5))),))
    assert "| a\\|b_c & 5% |" in markdown(shown)
    assert r"a|b\_c \& 5\%" in latex(shown)
    rows = list(csv.reader(io.StringIO(as_csv(shown))))
    assert tuple(rows[0]) == CSV_HEAD and rows[1][1] == "a|b_c & 5%" and {len(row) for row in rows} == {len(CSV_HEAD)}


@pytest.mark.parametrize("names", [("mnist",), ("toys",)])
def test_csv_and_json_hold_every_figure_unrounded(names: tuple[str, ...]) -> None:
    shown = Comparison(title="t", purpose="private", groups=(group(cell("pe", 1.0, accuracy(1 / 3)), names=names),))
    assert repr(1 / 3) in as_csv(shown)
    assert json.loads(json.dumps(shown.to_json()))["groups"][0]["rows"][0]["scores"][0]["value"] == 1 / 3
    assert ("DPDM" in as_csv(shown)) == (names == ("mnist",))
    assert {len(row) for row in csv.reader(io.StringIO(as_csv(shown)))} == {len(CSV_HEAD)}
