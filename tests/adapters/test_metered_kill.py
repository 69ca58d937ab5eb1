"""A night's work, killed again and again: no paid answer is lost, none is paid twice but what was under way."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("paying.py")


def start(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), str(folder), *(str(each) for each in arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def log(folder: Path) -> list[tuple[str, int, int]]:
    """What the provider saw: s sent, a answered, l did the work in vain; by request, and what it billed."""
    path = folder / "sent"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(kind, int(draw), int(cost)) for kind, draw, cost in (line.split() for line in lines)]


def kept(folder: Path) -> set[int]:
    with sqlite3.connect(folder / "cache.db", timeout=30) as cache:
        tables = {name for (name,) in cache.execute("select name from sqlite_master")}
        return {draw for (draw,) in cache.execute("select draw from samples")} if "samples" in tables else set()


def killed_five_times(folder: Path, count: int, concurrency: int) -> None:
    cap = 70 * count
    for number in range(1, 6):
        process = start(folder, count, concurrency, cap, 0.1, number)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if sum(kind == "a" for kind, _, _ in log(folder)) >= number * count // 7:
                break
            time.sleep(0.005)
        process.kill()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, errors
        before = kept(folder)
        seen = len(log(folder))
        # Nothing that is kept is ever sent again: looked at below, by the end of the next round.
        if number > 1:
            again = {draw for kind, draw, _ in log(folder)[previous:seen] if kind == "s"}
            assert not again & kept_before
        previous, kept_before = seen, before
    process = start(folder, count, concurrency, cap, 0.1, 6)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    replies = output.splitlines()

    assert len(replies) == count
    assert kept(folder) == set(range(count))
    for draw, reply in enumerate(replies):
        assert reply.startswith(f"reply {draw} ") or (draw % 100 == 99 and "unsafe" in reply)
    events = log(folder)
    assert not {draw for kind, draw, _ in events[previous:] if kind == "s"} & kept_before
    # Answered twice: only what was under way when it was killed.
    answered = Counter(draw for kind, draw, _ in events if kind == "a")
    assert sum(times - 1 for times in answered.values()) <= 5 * concurrency
    # Nothing is left under way, and the books cover what the provider billed, within the cap.
    with sqlite3.connect(folder / "cache.db") as cache:
        live = cache.execute("select count(*) from attempts where state in ('reserved', 'sent')").fetchone()[0]
        reserved, spent, possible = cache.execute("select reserved, spent, possible from budgets").fetchone()
        settled = cache.execute(
            "select count(*) from attempts where state = 'settled' and usage like '%completion_tokens%'"
        ).fetchone()[0]
    assert (live, reserved) == (0, 0)
    assert sum(cost for _, _, cost in events) <= spent <= cap
    assert 0 < possible < spent
    assert settled == count


def test_five_kills_lose_nothing_repeat_only_what_was_under_way_and_keep_the_budget(tmp_path):
    killed_five_times(tmp_path, 1500, 64)


@pytest.mark.slow
def test_ten_thousand_requests_with_five_kills(tmp_path):
    killed_five_times(tmp_path, 10_000, 64)


def test_processes_that_share_a_cache_ask_each_question_once_and_stop_together_at_the_budget(tmp_path):
    processes = [start(tmp_path, 300, 32, 10_000_000, 0.0, number) for number in range(3)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert len({output for output, _ in outputs}) == 1
    assert Counter(draw for kind, draw, _ in log(tmp_path) if kind == "s") == Counter(range(300))


def test_a_used_up_budget_stops_with_everything_kept_that_was_paid(tmp_path):
    cap = 5000
    processes = [start(tmp_path, 400, 64, cap, 0.0, number) for number in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "MoneyExceeded: the budget of $0.005 is used up" in errors
    paid = {draw: cost for kind, draw, cost in log(tmp_path) if kind == "a"}
    assert sum(paid.values()) <= cap
    assert kept(tmp_path) == set(paid)
    assert cap - sum(paid.values()) < 50
