"""What stops a run from outside loses nothing: Ctrl-C, a second process, a full or closed disk, an older ledger."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
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


@pytest.fixture
def place(tmp_path):
    return harness.Place(tmp_path, harness.CAPTIONS)


# --- stopped by a person, or another process --------------------------------------------------------------------------


@pytest.mark.slow
def test_control_c_leaves_a_run_that_the_same_command_goes_on_with_and_says_so(place):
    process = place.start(environment={"COUNTING_PAUSE_S": "0.1"})
    place.wait_until_asked(process, 47)  # The private set is embedded, captions are being written.
    process.send_signal(signal.SIGINT)
    code, _, errors = harness.ended(process)
    assert code == 130, errors
    assert len(errors.splitlines()) == 1
    assert f"privolve run {place.job}" in errors
    assert '"interrupted"' in (place.run / "journal.jsonl").read_text()
    place.check()
    assert "going on with" in place.finish()
    place.check()
    place.check_finished(place.run)


@pytest.mark.slow
def test_control_c_at_any_time_leaves_a_run_that_the_same_command_goes_on_with(place):
    import random
    import time

    for _ in range(6):
        process = place.start(environment={"COUNTING_PAUSE_S": "0.02"})
        place.wait_until_at_work(process)
        time.sleep(harness.some_delay(random.Random()))
        process.send_signal(signal.SIGINT)
        code, _, errors = harness.ended(process)
        assert code in (0, 130), errors
        assert len(errors.splitlines()) == (code == 130)
        place.check()
    place.finish()
    place.check_finished(place.run)
    place.check_replay(place.run)


@pytest.mark.slow
def test_a_second_process_on_a_run_or_on_its_ledger_is_refused_and_disturbs_neither(place):
    first = place.start(environment={"COUNTING_PAUSE_S": "0.15"})
    place.wait_until_asked(first, 1)
    assert "another process is running this run" in place.refused(2)
    assert "the ledger is in use by process" in place.refused(2, "run", str(place.job), "--set", "seed=1")
    code, _, errors = harness.ended(first)
    assert (code, errors) == (0, "")
    place.check()


# --- another plan, an older ledger ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_another_plan_under_the_same_run_is_refused(place):
    place.killed_at("run-after-save", "run", str(place.job), "--out", "here")
    before = place.entries()
    line = place.refused(2, "run", str(place.job), "--out", "here", "--set", "privacy.epsilon=1.5")
    assert "privacy.epsilon" in line
    assert place.entries() == before
    place.finish("run", str(place.job), "--out", "here")


@pytest.mark.slow
def test_a_ledger_from_a_backup_is_refused_by_the_run_that_it_forgot_and_by_a_new_one(place):
    backup = place.folder / "backup"
    place.killed_at("run-after-save")
    shutil.copytree(place.work / "ledgers", backup)
    place.killed_at("run-after-save")
    newest = place.folder / "newest"
    replace(place.work / "ledgers", by=backup, keep=newest)
    # The run has a first iteration that this ledger knows nothing of.
    assert "does not hold entry" in place.refused(2)
    replace(place.work / "ledgers", by=newest)
    place.finish()
    finished = place.run
    place.check_finished(finished)
    replace(place.work / "ledgers", by=backup, keep=newest)
    line = place.refused(2, "run", str(place.job), "--set", "seed=1")
    assert "does not hold entry" in line
    code, output, _ = place.call("verify", str(finished.relative_to(place.work)), "--ledger")
    assert code == 1
    assert "rolled back" in output
    # With the newest ledger back the new run is taken up.
    replace(place.work / "ledgers", by=newest)
    place.finish("run", str(place.job), "--set", "seed=1")
    place.check()


def replace(folder: Path, *, by: Path, keep: Path | None = None) -> None:
    if keep is not None:
        shutil.rmtree(keep, ignore_errors=True)
        shutil.copytree(folder, keep)
    shutil.rmtree(folder)
    shutil.copytree(by, folder)


# --- the disk ---------------------------------------------------------------------------------------------------------


Sized = Callable[[str], None]


@pytest.fixture
def small_disk(tmp_path) -> Iterator[tuple[Path, Sized]]:
    """A folder on a disk of its own, and how to mount it anew with other options: "size=100k", "ro"."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "none", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("this machine lets the test mount no disk of its own")

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)

    try:
        yield folder, remount
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def filled(tmp_path: Path, small_disk: tuple[Path, Sized], sizes: list[int]) -> None:
    """Give the command on a disk that is full sooner or later, then with more room, until it ends."""
    folder, remount = small_disk
    place = harness.Place(tmp_path / "place", harness.IMAGES, work=folder)
    for size in sizes:
        remount(f"size={size}k")
        line = place.refused(3)
        assert "space" in line or "room" in line or "full" in line, line
        place.check()
    remount("size=32m")
    place.finish()
    place.check()
    place.check_finished(place.run)


@pytest.mark.slow
def test_on_a_full_disk_a_run_stops_with_one_line_and_the_same_command_goes_on_when_there_is_room(tmp_path, small_disk):
    filled(tmp_path, small_disk, [160])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_on_a_disk_that_is_full_at_any_step_a_run_loses_nothing(tmp_path, small_disk):
    filled(tmp_path, small_disk, [4, 12, 16, 32, 64, 96, 128, 192, 256, 384, 512, 640, 768])


@pytest.mark.slow
def test_where_nothing_can_be_written_a_run_is_refused_and_lost_nothing(tmp_path, small_disk):
    folder, remount = small_disk
    remount("size=32m")
    place = harness.Place(tmp_path / "place", harness.CAPTIONS, work=folder)
    remount("ro")
    assert "cannot be written" in place.refused(2)
    remount("rw")
    place.killed_at("run-after-save")
    remount("ro")
    assert "cannot be written" in place.refused(2)
    remount("rw")
    place.finish()
    place.check_finished(place.run)


def test_where_a_file_stands_in_the_way_of_a_folder_the_line_names_it(place):
    for name in ("experiments", "ledgers"):
        blocked = place.work / name
        blocked.write_text("not a folder")
        assert name in place.refused(2)
        blocked.unlink()
    place.check()
