"""A process that is killed loses at most what was under way, and what was answered is never asked again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("asking.py")
COUNT, CHUNK = 60, 6


def start(folder: Path, side: str, face: str, failpoint: str = "") -> subprocess.Popen[str]:
    environment = {**os.environ, "PRIVOLVE_FAILPOINT": failpoint, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(folder), side, face]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> list[str]:
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output.splitlines()


def killed(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


def lines(folder: Path) -> list[str]:
    """What was answered so far, in order."""
    path = folder / "answered"
    return path.read_text().split() if path.exists() else []


def answered(folder: Path) -> Counter[int]:
    """How often each request was answered; the public blank of a trusted role (-1) left out."""
    counts = Counter(int(line) for line in lines(folder))
    counts.pop(-1, None)
    return counts


@pytest.mark.parametrize("face", ["batch", "async"])
def test_a_kill_after_answers_are_kept_costs_nothing(tmp_path, face):
    killed(start(tmp_path, "public", face, "cache-after-put:3"))
    before = answered(tmp_path)
    replies = finish(start(tmp_path, "public", face))
    assert [reply.split()[1] for reply in replies] == [str(number) for number in range(COUNT)]
    again = {number for number, times in answered(tmp_path).items() if times > 1}
    # A batch adapter asks nothing between two puts; of an async one only what was under way may be lost.
    assert len(again) <= (0 if face == "batch" else CHUNK)
    assert sum(before.values()) >= 3


@pytest.mark.parametrize("face", ["batch", "async"])
def test_a_kill_before_answers_are_kept_costs_what_was_under_way(tmp_path, face):
    killed(start(tmp_path, "public", face, "cache-before-put:3"))
    finish(start(tmp_path, "public", face))
    counts = answered(tmp_path)
    assert len(counts) == COUNT
    assert max(counts.values()) <= 2
    assert 1 <= sum(times > 1 for times in counts.values()) <= CHUNK


@pytest.mark.parametrize(
    ("side", "face"), [("public", "batch"), ("public", "async"), ("trusted", "batch"), ("trusted", "async")]
)
def test_kills_at_any_time_lose_no_answer_that_was_kept(tmp_path, side, face):
    kept_before: set[int] = set()
    for _ in range(2):
        seen = len(lines(tmp_path))
        process = start(tmp_path, side, face)
        deadline = time.monotonic() + 30
        # Not before it works, then at random: a few answers later.
        target = seen + 1 + random.randrange(COUNT // 3)
        while process.poll() is None and time.monotonic() < deadline and len(lines(tmp_path)) < target:
            time.sleep(0.001)
        process.kill()
        process.communicate(timeout=60)
        assert not kept_before & {int(line) for line in lines(tmp_path)[seen:]}
        kept_before = kept(tmp_path, side)
    seen = len(lines(tmp_path))
    replies = finish(start(tmp_path, side, face))
    assert not kept_before & {int(line) for line in lines(tmp_path)[seen:]}
    assert len(replies) == COUNT
    assert finish(start(tmp_path, side, face)) == replies


def kept(folder: Path, side: str) -> set[int]:
    """The requests whose answer is on the disk."""
    if side == "public":
        import sqlite3

        with sqlite3.connect(folder / "cache.sqlite") as cache:
            tables = {name for (name,) in cache.execute("select name from sqlite_master")}
            return {draw for (draw,) in cache.execute("select draw from samples")} if "samples" in tables else set()
    chunks: set[int] = set()
    for path in (folder / "private").glob("*.rows"):
        done = path.read_bytes()[4096 : 4096 + COUNT]
        chunks |= {slot for slot in range(COUNT) if done[slot]}
    return chunks


def test_two_processes_may_share_a_cache_and_agree_on_every_answer(tmp_path):
    both = [start(tmp_path, "public", face) for face in ("batch", "async")]
    replies = [finish(process) for process in both]
    assert replies[0] == replies[1] == finish(start(tmp_path, "public", "batch"))
