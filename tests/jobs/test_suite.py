"""Suites: every cell a run of its own, one judgement for all, and what becomes of cells that fail or are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from privolve.jobs import suite as suites
from privolve.jobs.job import InputError
from privolve.jobs.reserving import reserve
from privolve.jobs.run import Run
from privolve.privacy.accounting import epsilon
from privolve.privacy.ledger import Ledger, Plan, PlannedRelease
from privolve.privacy.ledger_book import Book
from privolve.privacy.ledger_store import read_entries
from privolve.privacy.mechanism import DiscreteGaussian, PrivacyTarget, Relation

COMMAND = Path(sys.executable).with_name("privolve")

SUITE = """
kind = "suite"
name = "small"
purpose = "benchmark"
epsilons = [10.0, 20.0]

[data.glyphs]
kind = "folder"
path = "data"
classes = ["0", "1"]
size = [8, 8]
channels = 1
holdout = 0.2
test = "public"

[methods.pe]
kind = "image-pe"
adapters = { painter = { kind = "glyphs" }, eye = { kind = "pixels" } }
evolution = { iterations = 1, count = 8, variations = 1 }

[methods.floor]
kind = "floor"

[methods.ceiling]
kind = "ceiling"
"""
PRIVATE = (
    SUITE.replace('purpose = "benchmark"\n', "").replace('test = "public"\n', "") + "\n[privacy]\njoint_epsilon = 40\n"
)


def write(work, text: str = SUITE, *changes: tuple[str, str]) -> Path:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = work.folder / "suite.toml"
    path.write_text(text, encoding="utf-8")
    return path


def folder_of(work) -> Path:
    (folder,) = (path.parent for path in (work.folder / "experiments").glob("*-suite-*/run.json"))
    return folder


def comparison(folder: Path, part: str = "release") -> dict:
    return json.loads((folder / part / "comparison.json").read_text(encoding="utf-8"))


def cells(folder: Path) -> dict[str, dict]:
    return {cell["name"].rsplit("-", 1)[0]: cell for group in comparison(folder)["groups"] for cell in group["cells"]}


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory, workplace, glyphs):
    """A finished suite of public data. Shared: leave it as it is."""
    place = workplace(tmp_path_factory.mktemp("suite"))
    shutil.copytree(glyphs, place.folder / "data")
    write(place)
    outcome = place("compare", "suite.toml")
    assert (outcome.code, outcome.err) == (0, "")
    return place, folder_of(place), outcome


def test_every_cell_is_a_run_of_its_own_that_verifies(benchmark) -> None:
    place, folder, _ = benchmark
    names = sorted(path.name.rsplit("-", 1)[0] for path in (folder / "cells").iterdir())
    assert names == [
        "ceiling-glyphs-seed0",
        "floor-glyphs-seed0",
        "pe-glyphs-eps10-seed0",
        "pe-glyphs-eps20-seed0",
    ]
    for run in (folder / "cells").glob("pe-*"):
        assert place("verify", run).code == 0


def test_the_tables_hold_floor_and_methods_and_only_the_private_copy_the_ceiling(benchmark) -> None:
    _, folder, outcome = benchmark
    for row in ("| floor | 0 |", "| pe | 10 |", "| pe | 20 |", "| ceiling | none |"):
        assert row in outcome.out
    public = (folder / "release" / "comparison.md").read_text()
    private = (folder / "private" / "comparison.md").read_text()
    assert "| pe | 20 |" in public and "| floor | 0 |" in public
    assert "ceiling" not in public and "seconds" not in public
    assert "| ceiling | none |" in private and "seconds †" in private
    assert (folder / "private").stat().st_mode & 0o077 == 0


def test_nothing_unprotected_is_in_the_public_data(benchmark) -> None:
    _, folder, _ = benchmark
    shown = comparison(folder)
    scores = [score for group in shown["groups"] for cell in group["cells"] for score in cell["scores"]]
    assert scores and all(score["protected"] for score in scores)
    assert all(cell["seconds"] is None for group in shown["groups"] for cell in group["cells"])
    assert all(curve["protected"] for group in shown["groups"] for curve in group["curves"])
    everything = [s for group in comparison(folder, "private")["groups"] for c in group["cells"] for s in c["scores"]]
    assert not all(score["protected"] for score in everything)


def test_tables_curves_and_grids_are_written_in_every_form(benchmark) -> None:
    _, folder, _ = benchmark
    names = {path.name for path in (folder / "release").iterdir()}
    assert {"comparison.md", "comparison.csv", "comparison.tex", "comparison.json", "glyphs-images.png"} <= names
    assert "glyphs-1.svg" in names
    group = comparison(folder)["groups"][0]
    assert {curve["x_label"] for curve in group["curves"]} == {"epsilon"}
    assert [front["names"] for front in group["fronts"]]


def test_the_same_command_runs_no_finished_cell_again(benchmark) -> None:
    place, folder, _ = benchmark
    before = {path: path.stat().st_mtime_ns for path in folder.glob("cells/*/run.json")}
    outcome = place("compare", "suite.toml")
    assert outcome.code == 0
    assert "[1/4]" not in outcome.out and "| pe | 20 |" in outcome.out
    assert {path: path.stat().st_mtime_ns for path in folder.glob("cells/*/run.json")} == before


def test_finished_runs_are_compared_without_their_suite(benchmark) -> None:
    place, folder, _ = benchmark
    runs = sorted((folder / "cells").glob("pe-*"))
    outcome = place("compare", *runs, "--out", "tables")
    assert (outcome.code, outcome.err) == (0, "")
    assert "| image-pe | 10 |" in outcome.out and "| image-pe | 20 |" in outcome.out
    assert (place.folder / "tables" / "release" / "comparison.csv").is_file()
    assert place("compare", folder).code == 0


def test_runs_on_other_splits_are_never_in_one_table(work) -> None:
    for holdout in ("0.2", "0.3"):
        data = f'{{ kind = "folder", path = "data", classes = ["0", "1"], size = [8, 8], channels = 1, holdout = {holdout} }}'
        work.job(data=data, purpose='"benchmark"', evolution="{ iterations = 1, count = 4, variations = 1 }")
        other = ("--set", f"privacy.ledger=ledgers/{holdout}", "--set", "privacy.declare_disjoint=a test")
        assert work("run", "job.toml", *other).code == 0
    outcome = work("compare", *work.runs)
    assert outcome.code == 0
    assert outcome.out.count(": summary") == 2
    assert "data, split " in outcome.out


# --- killed and resumed -----------------------------------------------------------------------------------------------


def start(work, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(COMMAND), "compare", "suite.toml"],
        cwd=work.folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_a_suite_that_was_killed_goes_on_and_draws_nothing_twice(work) -> None:
    write(work, PRIVATE)
    for point in ("suite-after-cell", "ledger-after-charge:2"):
        assert start(work, PRIVOLVE_FAILPOINT=point).returncode == -signal.SIGKILL, point
    write(work, PRIVATE, ("epsilons = [10.0, 20.0]", "epsilons = [10.0, 15.0]"))
    outcome = work("compare", "suite.toml", "--out", folder_of(work))
    assert outcome.code == 2, "a suite is fixed once its plan is reserved"
    assert "holds a run of another configuration" in outcome.line
    write(work, PRIVATE)
    outcome = work("compare", "suite.toml")
    assert (outcome.code, outcome.err) == (0, "")
    folder = folder_of(work)
    finished = [json.loads(path.read_text())["status"] for path in folder.glob("cells/*/run.json")]
    assert finished == ["finished"] * 4
    assert [entry.kind for entry in entries(work)].count("plan") == 1
    released = [entry.body["name"] for entry in entries(work) if entry.kind == "release"]
    assert len(released) == len(set(released)) == 2
    for run in (folder / "cells").glob("pe-*"):
        assert work("verify", run).code == 0


def entries(work, name: str = "data"):
    return read_entries(work.folder / "ledgers" / name)


# --- the joint plan ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def joint(tmp_path_factory, workplace, glyphs):
    """A finished suite of private data. Shared: leave it as it is."""
    place = workplace(tmp_path_factory.mktemp("joint"))
    shutil.copytree(glyphs, place.folder / "data")
    write(place, PRIVATE, ('path = "data"', 'path = "data"\nname = "joint"'))
    outcome = place("compare", "suite.toml")
    assert (outcome.code, outcome.err) == (0, "")
    return place, folder_of(place), outcome


def test_all_cells_of_a_private_set_are_in_one_plan_at_the_epsilon_of_all_their_releases(joint) -> None:
    place, suite, _ = joint
    book = Book(entries(place, "joint"))
    ((run, reserved),) = book.plans.items()
    plan = reserved.plan
    assert sorted(release.name.split("/")[1].rsplit("-", 1)[0] for release in plan.releases) == [
        "pe-glyphs-eps10-seed0",
        "pe-glyphs-eps20-seed0",
    ]
    costs = [release.cost for release in plan.releases]
    together = epsilon(costs, plan.share.delta, Relation.ZERO_OUT)
    assert plan.share.epsilon == pytest.approx(together, rel=1e-9)
    assert 20.0 < together < 30.0, "neither one cell's epsilon nor the sum of both"
    for folder in (suite / "cells").glob("pe-*"):
        certificate = json.loads((folder / "release" / "privacy.json").read_bytes())
        assert (certificate["run"], certificate["epsilon"]) == (run, pytest.approx(together, rel=1e-6))
        assert place("verify", folder).code == 0
    planned = [entry.seq for entry in entries(place, "joint") if entry.kind == "plan"]
    charged = [entry.seq for entry in entries(place, "joint") if entry.kind == "charge"]
    assert len(planned) == 1 and planned[0] < min(charged)


def test_figures_on_private_records_are_printed_nowhere(joint) -> None:
    _, suite, outcome = joint
    assert "classifier accuracy" not in outcome.out
    assert "classifier accuracy" not in (suite / "release" / "comparison.md").read_text()
    assert "classifier accuracy" in (suite / "private" / "comparison.md").read_text()


def test_a_joint_epsilon_that_does_not_suffice_releases_nothing(work) -> None:
    write(work, PRIVATE, ("joint_epsilon = 40", "joint_epsilon = 20"))
    outcome = work("compare", "suite.toml")
    assert outcome.code == 3
    assert "the 2 cells on 'glyphs' cost epsilon 2" in outcome.line and "more than the 20 stated" in outcome.line
    assert {entry.kind for entry in entries(work)} == {"created", "opened"}


def test_a_cell_releases_nothing_that_its_joint_plan_does_not_hold(tmp_path: Path) -> None:
    cost = DiscreteGaussian(scale=10.0)
    share = PrivacyTarget(epsilon=5.0, delta=1e-5, unit="image")
    release = PlannedRelease(name="suite-1/cell/histogram/001", cost=cost)
    ledger = Ledger.create_or_open(
        tmp_path / "ledgers" / "set", name="set", slots=100, unit="image", relation=Relation.ZERO_OUT
    )
    described = suites.parse(tomllib.loads(SUITE), where="suite", base=tmp_path).cells[1].config
    with ledger, Run.open(described, root=tmp_path, out=tmp_path / "cell", releases_as="suite-1/cell") as run:
        with pytest.raises(InputError, match=r"does not hold 'suite-1/cell/histogram/001'"):
            reserve(ledger, run, partition="train", share=share, releases=(release,))
        assert not ledger.book.plans, "a cell reserves no plan of its own"
        ledger.reserve(Plan(run="suite-1", partition="train", share=share, releases=(release,)))
        reserve(ledger, run, partition="train", share=share, releases=(release,))
        cheaper = PlannedRelease(name=release.name, cost=DiscreteGaussian(scale=5.0))
        for partition, wanted in (("train", cheaper), ("test", release)):
            with pytest.raises(InputError, match="does not hold"):
                reserve(ledger, run, partition=partition, share=share, releases=(wanted,))
        assert list(ledger.book.plans) == ["suite-1"]


def test_private_data_needs_a_joint_epsilon(work) -> None:
    write(work, PRIVATE, ("joint_epsilon = 40", ""))
    outcome = work("compare", "suite.toml")
    assert outcome.code == 2
    assert "privacy.joint_epsilon: say what all cells on one private set may cost together" in outcome.line
    assert work.entries == 0


# --- cells that do not end well ---------------------------------------------------------------------------------------


def test_a_cell_that_fails_loses_only_itself_and_says_why(work) -> None:
    broken = """
[methods.broken]
kind = "image-pe"
adapters = { painter = { kind = "glyphs", fonts = ["no such font"] }, eye = { kind = "pixels" } }
evolution = { iterations = 1, count = 8, variations = 1 }
"""
    write(work, SUITE + broken)
    outcome = work("compare", "suite.toml")
    assert (outcome.code, outcome.err) == (1, "")
    assert "failed: glyphs has no font no such font" in outcome.out
    assert "| pe | 20 |" in outcome.out and "| broken" not in outcome.out
    limits = comparison(folder_of(work))["limits"]
    assert len(limits) == 2 and all("broken on glyphs, epsilon" in line and "no such font" in line for line in limits)


def test_a_network_without_weights_stops_each_cell_before_it_costs_anything(work) -> None:
    write(work, SUITE, ("[methods.floor]", '[judge]\nkind = "inception"\nweights = "nowhere.pth"\n\n[methods.floor]'))
    outcome = work("compare", "suite.toml")
    assert (outcome.code, outcome.err) == (1, "")
    assert outcome.out.count("failed: ") == 4 and "nowhere.pth" in outcome.out
    assert len(comparison(folder_of(work))["limits"]) == 4
    assert not [entry for entry in entries(work) if entry.kind == "plan"]


def test_cells_that_the_time_limit_leaves_are_said_and_run_by_the_next_call(work) -> None:
    write(work, SUITE, ("epsilons", 'time_limit = "0s"\nepsilons'))
    outcome = work("compare", "suite.toml")
    assert outcome.code == 3
    assert "0 cells failed and 4 were left" in outcome.out
    assert "pe on glyphs, epsilon 10, seed 0: not started within the time limit of 0s" in outcome.out
    outcome = work("compare", "suite.toml", "--set", "time_limit=10m")
    assert outcome.code == 0, "the limit is no part of what a suite is"
    assert len(list((work.folder / "experiments").glob("*-suite-*"))) == 1


# --- refused before anything runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epsilons", "epsilon", "epsilon: unknown key; did you mean 'epsilons'?"),
        ("iterations = 1", "iteration = 1", "methods.pe: evolution.iteration: unknown key; did you mean 'iterations'?"),
        (
            'kind = "image-pe"',
            'kind = "image-ep"',
            "methods.pe: kind: 'image-ep' is no job kind; did you mean 'image-pe'?",
        ),
        ('kind = "floor"', 'kind = "floor"\nof = "dpdm"', "methods.floor: of = 'dpdm' is no method of this suite"),
        ('kind = "ceiling"', 'kind = "ceiling"\nof = "pe"', "methods.ceiling: 'of' is not a setting of a ceiling"),
        ('kind = "image-pe"', 'kind = "image-pe"\nseed = 3', "methods.pe: 'seed' is the suite's to set"),
        ('kind = "image-pe"', 'kind = "image-pe"\non = { mnist = {} }', "methods.pe.on: what differs on a set"),
        ("[methods.floor]", '[evaluation]\nmetrics = ["frechett"]\n[methods.floor]', "no metric of kind 'frechett'"),
        ("[methods.floor]", '[judge]\nkind = "pixel"\n[methods.floor]', "no adapter of kind 'pixel'"),
        ("epsilons = [10.0, 20.0]", "epsilons = []", "epsilons"),
        ("epsilons = [10.0, 20.0]", "epsilons = [10.0, 10.0]", "a value is given twice"),
        ("epsilons = [10.0, 20.0]", 'epsilons = [1.0]\ntime_limit = "soon"', "'soon' is no time"),
        ("[methods.pe]", '[methods.pe]\njob = "nowhere.toml"', "nowhere.toml: cannot be read"),
    ],
)
def test_a_suite_that_cannot_be_is_refused_in_one_line(work, old: str, new: str, said: str) -> None:
    write(work, SUITE, (old, new))
    outcome = work("compare", "suite.toml")
    assert outcome.code == 2
    assert said in outcome.line
    assert not (work.folder / "experiments").exists()


def test_a_method_is_a_job_file_with_what_differs(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "pe.toml").write_text(
        'kind = "image-pe"\nseed = 7\ndata = { kind = "digits" }\nprivacy = { epsilon = 9.0 }\n'
        'adapters = { painter = { kind = "glyphs", step = 0.5 }, eye = { kind = "pixels" } }\n'
        "[evolution]\niterations = 4\ncount = 100\n"
    )
    table = {
        "kind": "suite",
        "purpose": "benchmark",
        "epsilons": [1.0],
        "seeds": [0, 1],
        "data": {"a": {"kind": "digits"}, "b": {"kind": "digits", "name": "other"}},
        "methods": {
            "pe": {
                "job": "jobs/pe.toml",
                "evolution": {"iterations": 2},
                "on": {"b": {"evolution": {"count": 50}, "adapters": {"painter": {"kind": "glyph-painter"}}}},
            }
        },
    }
    suite = suites.parse(table, where="suite", base=tmp_path)
    assert [(cell.data, cell.seed) for cell in suite.cells] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    first, last = suite.cells[0].config, suite.cells[-1].config
    assert (first.seed, first.privacy.epsilon, first.evolution.iterations, first.evolution.count) == (0, 1.0, 2, 100)
    assert first.adapters["painter"].step == 0.5
    assert (last.evolution.count, last.adapters["painter"].kind) == (50, "glyph-painter")
    assert {cell.config.adapters["judge"].kind for cell in suite.cells} == {"pixels"}
    assert len({cell.name for cell in suite.cells}) == 4


def test_two_sets_of_one_ledger_are_refused(tmp_path: Path) -> None:
    table = {
        "kind": "suite",
        "purpose": "benchmark",
        "epsilons": [1.0],
        "data": {"a": {"kind": "digits"}, "b": {"kind": "digits"}},
        "methods": {},
    }
    with pytest.raises(InputError, match="one `name`, and so one ledger"):
        suites.parse({**table, "methods": {"pe": {"kind": "image-pe"}}}, where="suite", base=tmp_path)


# --- what is wrong with one cell --------------------------------------------------------------------------------------


def test_too_few_images_for_a_metric_lose_that_metric_of_that_cell_alone(work) -> None:
    few = """
[methods.few]
kind = "image-pe"
adapters = { painter = { kind = "glyphs" }, eye = { kind = "pixels" } }
evolution = { iterations = 1, count = 2, variations = 1 }

[evaluation]
metrics = ["precision-recall"]
"""
    write(work, SUITE + few, ("epsilons = [10.0, 20.0]", "epsilons = [10.0]"))
    outcome = work("compare", "suite.toml")
    assert (outcome.code, outcome.err) == (0, "")
    lost = [line for line in outcome.out.splitlines() if line.startswith("not in these tables: few-glyphs-eps10-seed0")]
    assert len(lost) == 1 and "not measured: " in lost[0] and "2" in lost[0]
    found = {name: {score["name"] for score in cell["scores"]} for name, cell in cells(folder_of(work)).items()}
    assert found["few-glyphs-eps10-seed0"] == {"classifier accuracy"}
    assert {"precision (k = 3)", "recall (k = 3)"} <= found["pe-glyphs-eps10-seed0"]


@pytest.mark.parametrize("name", ["private/scores.json", "release/samples.npz", "release/privacy.json"])
def test_a_damaged_run_is_left_out_of_a_comparison_and_said(benchmark, tmp_path: Path, name: str) -> None:
    place, folder, _ = benchmark
    whole, other = sorted((folder / "cells").glob("pe-*"))
    copy = Path(shutil.copytree(other, tmp_path / "copy"))
    (copy / name).write_bytes(b"PK no more")
    outcome = place("compare", whole, copy)
    assert (outcome.code, outcome.err) == (0, "")
    assert "| image-pe | 10 |" in outcome.out and "| image-pe | 20 |" not in outcome.out
    assert "not in these tables: copy: a file of it is damaged" in outcome.out
    alone = place("compare", copy)
    assert alone.code == 2 and "copy: a file of it is damaged" in alone.line


@pytest.mark.parametrize("ending", ["md", "csv", "tex", "json", "html"])
def test_evidence_on_privacy_is_in_the_private_copy_alone(benchmark, ending: str) -> None:
    _, folder, _ = benchmark
    public = (folder / "release" / f"comparison.{ending}").read_text()
    private = (folder / "private" / f"comparison.{ending}").read_text()
    for name in ("nearest private record", "nearer than held-out records"):
        assert name in private and name not in public


def test_membership_stands_beside_epsilon_in_the_private_copy_alone(work) -> None:
    write(work, SUITE, ("holdout = 0.2", "holdout = 0.5"), ("epsilons = [10.0, 20.0]", "epsilons = [10.0]"))
    outcome = work("compare", "suite.toml", "--set", "methods.pe.evolution.count=40")
    assert (outcome.code, outcome.err) == (0, "")
    folder = folder_of(work)
    assert "membership AUC" in (folder / "private" / "comparison.md").read_text()
    assert "membership" not in (folder / "release" / "comparison.md").read_text()


# --- planned ----------------------------------------------------------------------------------------------------------


def test_the_plan_of_a_suite_adds_up_its_cells_and_makes_nothing(work) -> None:
    write(work)
    outcome = work("plan", "suite.toml")
    assert (outcome.code, outcome.err) == (0, "")
    lines = [" ".join(line.split()) for line in outcome.out.splitlines()]
    assert "pe on glyphs, epsilon 10, seed 0 epsilon 10.0000 alone, 1 release" in lines
    assert "painter 40" in lines, "16 of each cell, and the 8 first candidates of the floor"
    assert "eye 32 + 192 private" in lines
    assert "money: no remote model, so none" in lines
    assert not (work.folder / "experiments").exists() and work.entries == 0


def test_the_plan_of_a_private_suite_says_what_its_cells_cost_together(work) -> None:
    write(work, PRIVATE)
    said = work("plan", "suite.toml").out
    (line,) = [line for line in said.splitlines() if "together, in one plan" in line]
    planned = float(line.split("epsilon ")[1].split()[0])
    assert 20.0 < planned < 30.0 and line.endswith("of the 40 stated")
    assert work("compare", "suite.toml").code == 0
    (reserved,) = Book(entries(work)).plans.values()
    assert reserved.plan.share.epsilon == pytest.approx(planned, abs=1e-3)
    write(work, PRIVATE, ("joint_epsilon = 40", "joint_epsilon = 20"))
    assert "NOT ENOUGH" in work("plan", "suite.toml").out


def test_a_cell_that_cannot_run_is_said_by_the_plan_of_its_suite(work) -> None:
    write(work, SUITE, ("iterations = 1, count = 8", "iterations = 1, neighbours = 20, count = 8"))
    outcome = work("plan", "suite.toml")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.count("cannot run: [evolution] neighbours = 20") == 2


# --- a choice between sets --------------------------------------------------------------------------------------------

CHOOSING = ("variations = 1 }\n", 'variations = 1 }\nselection = { rule = "dp-validation", share = 0.25 }\n')


def test_a_joint_plan_holds_the_choices_of_its_cells_on_their_own_partition(work) -> None:
    write(work, PRIVATE, CHOOSING)
    outcome = work("compare", "suite.toml")
    assert (outcome.code, outcome.err) == (0, "")
    plans = {reserved.plan.partition: reserved.plan for reserved in Book(entries(work)).plans.values()}
    assert set(plans) == {"train", "validation"}
    assert len(plans["validation"].releases) == len(plans["train"].releases) == 2
    assert plans["validation"].share.epsilon <= plans["train"].share.epsilon
    for run in (folder_of(work) / "cells").glob("pe-*"):
        assert json.loads((run / "release" / "selection.json").read_text())["rule"] == "dp-validation"
        document = json.loads((run / "release" / "privacy.json").read_text())
        assert document["epsilon"] == document["maximum"]["epsilon"]
        assert 25.0 < document["epsilon"] <= 30.0
        assert work("verify", run).code == 0


def test_cells_of_a_joint_plan_that_set_other_slots_aside_are_refused(work) -> None:
    other = """
[methods.other]
kind = "image-pe"
adapters = { painter = { kind = "glyphs" }, eye = { kind = "pixels" } }
evolution = { iterations = 1, count = 8, variations = 1 }
"""
    text = PRIVATE.replace(*CHOOSING).replace("[methods.floor]", f"{other}\n[methods.floor]")
    write(work, text)
    outcome = work("compare", "suite.toml")
    assert outcome.code == 2
    assert "in a joint plan every method sets the same slots aside for validation" in outcome.line
    assert work.entries == 0
