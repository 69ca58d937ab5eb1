"""A run that is killed, anywhere and often, and given again ends as if nothing had been."""

from __future__ import annotations

import json
import random
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest


def _harness():
    name = "privolve_kill_harness"
    if name not in sys.modules:
        spec = spec_from_file_location(name, Path(__file__).with_name("kill_harness.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


harness = _harness()

IN_ORDER = (
    "ledger-during-opening",
    # The label histogram: two of its three free attempts are lost.
    "ledger-before-charge",
    "ledger-during-charge",
    "ledger-after-charge",
    "ledger-before-save",
    "cache-before-put:2",
    "cache-after-put",
    "run-before-save",
    "run-after-save",
    # The first histogram.
    "ledger-during-save",
    "ledger-after-save",
    "statement-after-entry",
    "statement-after-chain",
    "run-before-report",
)
"""Each failpoint once, in the order in which a run comes to them, so that no kill is for nothing."""
LATER = (
    "ledger-during-opening",
    "cache-before-put",
    "cache-after-put:2",
    "run-after-save",
    "ledger-before-charge:2",
    "ledger-after-charge",
    "ledger-after-save",
    "run-before-save",
    "statement-after-chain",
)
"""For a second run on the same private set; `:2` lies in the next iteration."""


ELSEWHERE = {
    "test_suite.py": {"suite-after-cell"},
    "test_kill_training.py": {
        "checkpoint-after-header",
        "checkpoint-before-header",
        "dp-sgd-after-mask",
        "dp-sgd-after-noise",
        "stage-after-checkpoint",
        "stage-after-save",
        "stage-before-save",
        "training-after-samples",
        "training-before-samples",
        "training-before-scores",
        "training-during-model",
    },
    "../adapters/test_batch.py": {
        "batch-created",
        "batch-fetched",
        "batch-id-kept",
        "batch-opened",
        "batch-settled",
        "batch-settling",
        "batch-uploaded",
    },
}
"""What other files kill at; each name must be in its file."""


def test_every_failpoint_of_the_source_is_killed_at():
    for place, points in ELSEWHERE.items():
        text = Path(__file__).parent.joinpath(place).read_text(encoding="utf-8")
        assert not [point for point in points if point not in text], place
    elsewhere = set[str]().union(*ELSEWHERE.values())
    assert {point.partition(":")[0] for point in IN_ORDER} == harness.failpoints() - elsewhere


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_killed_at_every_failpoint_ends_as_if_undisturbed(tmp_path):
    place = harness.Place(tmp_path, harness.IMAGES)
    for point in IN_ORDER:
        place.killed_at(point)
        place.check()
        if point == "run-before-save":
            leave_half_an_iteration(place.run)
    place.finish()
    assert place.kills == len(IN_ORDER)
    place.check()
    place.check_finished(place.run)
    assert place.check_noise() == 2
    place.check_replay(place.run)


def leave_half_an_iteration(run: Path) -> None:
    """What a kill in the middle of a save leaves; `check_finished` sees that it went."""
    half = run / "iterations" / ".000.tmp"
    half.mkdir()
    (half / ".population.jsonl.1.tmp").write_text("{")
    (run / "release" / ".privacy.json.1.tmp").write_text("{")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_four_runs_killed_fifty_times_at_failpoints_at_changes_of_files_and_at_random_end_as_if_undisturbed(tmp_path):
    place = harness.Place(tmp_path, harness.IMAGES)
    captions = tmp_path / "captions.toml"
    captions.write_text(harness.CAPTIONS)
    generator = random.Random()
    jobs = [("run", str(place.job), "--set", f"seed={seed}") for seed in range(2)]
    jobs += [("run", str(captions), "--set", f"seed={seed}") for seed in range(2)]
    wanted = (len(IN_ORDER), 24, 38, 50)
    for number, (command, kills) in enumerate(zip(jobs, wanted, strict=True)):
        if number == 0:
            for point in IN_ORDER:
                place.killed_at(point, *command)
                place.check()
        if number == 2:
            for point in LATER:
                place.killed_at(point, *command)
                place.check()
        ended_before = 0
        while place.kills < kills and ended_before < 3:
            # A fresh process makes about 100 changes of files, one that has little left to do about 30.
            if generator.random() < 0.6:
                died = place.killed_at_change(generator.randint(1, 60), *command)
            else:
                died = place.killed_after(harness.some_delay(generator), *command)
            place.check()
            if not died:
                # It ended first: only its last steps are left to be killed in.
                ended_before += 1
                undo_the_end(place)
        place.finish(*command)
        place.check()
    assert place.kills >= 50
    assert len(place.runs()) == 4
    for run in place.runs():
        place.check_finished(run)
    assert place.check_noise() == 4
    # The four shares are the whole budget.
    assert "total" in place.refused(3, "run", str(place.job), "--set", "seed=7")
    place.check()
    for command, run in zip(jobs, runs_in_order(place, jobs), strict=True):
        place.check_replay(run, *command)


def undo_the_end(place) -> None:
    """Set the run that ended last back to before its evaluation, so that its last steps are done again."""
    run = max(place.runs(), key=lambda each: (each / "run.json").stat().st_mtime)
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(manifest | {"status": "running"}))
    (run / "private" / "scores.json").unlink()


def runs_in_order(place, jobs) -> list[Path]:
    found = {}
    for run in place.runs():
        config = json.loads((run / "run.json").read_text())["config"]
        found[config["kind"], config["seed"]] = run
    return [found[kind, seed] for kind in ("image-pe", "dpiti") for seed in range(2)]


@pytest.mark.slow
def test_a_release_whose_three_attempts_were_lost_is_refused_and_the_line_says_the_way_out(tmp_path):
    place = harness.Place(tmp_path, harness.CAPTIONS)
    place.killed_at("ledger-after-charge")
    place.killed_at("ledger-before-save")
    place.killed_at("ledger-after-charge")
    spent = harness.kinds(place.entries())["charge"]
    line = place.refused(3)
    assert "attempted 3 times" in line
    assert "seed" in line
    place.check()
    assert harness.kinds(place.entries())["charge"] == spent
    # The way out: another run, with what is left.
    place.finish("run", str(place.job), "--set", "seed=1")
    place.check()
