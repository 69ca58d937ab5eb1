"""`privolve ledger`: what a ledger holds, of runs that ended and of runs that did not."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest


@pytest.fixture
def kept(finished, tmp_path: Path) -> Path:
    """A copy of the ledgers beside a finished run."""
    shutil.copytree(finished[0].folder / "ledgers", tmp_path / "ledgers")
    return tmp_path / "ledgers"


def test_the_ledger_of_a_finished_run_is_shown_by_its_folder_or_the_one_above(finished) -> None:
    work, folder = finished
    run = json.loads((folder / "run.json").read_text())["id"]
    outcome = work("ledger", "ledgers/data")
    assert (outcome.code, outcome.err) == (0, "")
    for words in (
        "everything its 1 run may release together is (",
        "the owner set no total",
        f"  {run}: (20, 1e-05) of train, 2 releases\n",
        f"  {run}/histogram/002: discrete-gaussian (cells ",
        "Unprotected figures of partition train were shown ",
        "The chain holds",
    ):
        assert words in outcome.out
    assert "(no output)" not in outcome.out and "reserved" not in outcome.out
    assert work("ledger", "ledgers").out == outcome.out


def test_a_run_that_was_killed_before_its_first_release_has_reserved_its_share(work) -> None:
    work.job(privacy="{ epsilon = 20.0, total_epsilon = 50.0, total_delta = 1e-3 }")
    command = [sys.executable, "-m", "privolve.cli", "run", "job.toml"]
    environment = {**os.environ, "PRIVOLVE_FAILPOINT": "ledger-before-charge"}
    killed = subprocess.run(command, cwd=work.folder, env=environment, capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr
    outcome = work("ledger", "ledgers/data")
    assert (outcome.code, outcome.err) == (0, "")
    assert "of train, 2 releases (reserved, nothing released)" in outcome.out
    assert outcome.out.count("(no output)") == 2
    assert "Left for further runs: (30, 0.00099)." in outcome.out
    assert work("run", "job.toml").code == 0
    assert "reserved" not in work("ledger", "ledgers/data").out


def test_a_broken_chain_is_one_line_and_a_check_that_did_not_hold(finished, kept: Path) -> None:
    with closing(sqlite3.connect(kept / "data" / "ledger.sqlite")) as database, database:
        database.execute("UPDATE entries SET line = CAST(replace(line, '20.0', '10.0') AS BLOB)")
    for path in (kept / "data", kept):
        outcome = finished[0]("ledger", path)
        assert (outcome.code, outcome.err) == (1, "")
        (said,) = outcome.out.splitlines()
        assert said.startswith(f"does not hold: {kept / 'data'}: the ledger is damaged (line ")


@pytest.mark.parametrize("content", [b"", b"no ledger", b"SQLite format 3\0"])
def test_a_file_that_is_no_ledger_is_not_taken_for_one(work, content: bytes) -> None:
    (work.folder / "ledgers" / "data").mkdir(parents=True)
    (work.folder / "ledgers" / "data" / "ledger.sqlite").write_bytes(content)
    outcome = work("ledger", "ledgers/data")
    assert (outcome.code, outcome.err, len(outcome.out.splitlines())) == (bool(content), "", 1)


def test_several_ledgers_are_a_line_each(finished, kept: Path) -> None:
    shutil.copytree(kept / "data", kept / "other")
    outcome = finished[0]("ledger", kept)
    assert (outcome.code, outcome.err) == (0, "")
    assert [said.split(": ")[0] for said in outcome.out.splitlines()] == [str(kept / "data"), str(kept / "other")]
    assert "1 run, shares of at most (20, 1e-05)" in outcome.out
    (kept / "other" / "ledger.sqlite").write_bytes(b"no ledger")
    outcome = finished[0]("ledger", kept)
    assert outcome.code == 1
    assert outcome.out.splitlines()[1].startswith(f"does not hold: {kept / 'other'}: ")


@pytest.mark.parametrize("name", ["", "missing", "job.toml", "data"])
def test_a_folder_without_a_ledger_is_wrong_input(work, name: str) -> None:
    work.job()
    before = sorted(work.folder.rglob("*"))
    outcome = work("ledger", work.folder / name)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.line.startswith(f"{work.folder / name}: holds no ledger; name a ledger's folder")
    assert sorted(work.folder.rglob("*")) == before
