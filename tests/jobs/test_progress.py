"""Progress where there is no terminal: a line a minute, and none of what is done within one."""

from __future__ import annotations

import pytest

from privolve.jobs import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_a_long_stage_says_once_a_minute_how_far_it_is(clock, capsys) -> None:
    bars = progress.Bars()
    bars.figures = lambda: "epsilon 3"
    with bars:
        bars.stage("training")
        for step in range(1, 181):
            clock[0] += 2.0
            bars("steps", step, 600)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert lines[0] == "training: steps 30/600, 0.5/s, about 19 min left, epsilon 3"


def test_without_a_terminal_a_short_stage_says_nothing(clock, capsys) -> None:
    with progress.Bars() as bars:
        bars.stage("iteration 1")
        for done in range(100):
            clock[0] += 0.5
            bars("painter", done, 100)
    assert capsys.readouterr().err == ""
