"""What a person sees while a job runs: bars with rates and time left on a terminal, elsewhere a line a minute."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

LINE_EVERY_S = 60.0
"""Where there is no terminal: a line so often, so that the log of a long run shows that it moves, and none of a short one."""


class Bars:
    """A bar a role, by iteration. Counts are requests or slots: public numbers."""

    figures: Callable[[], str] = staticmethod(lambda: "")
    """What has been spent so far, of privacy and of money, for the end of each line."""

    def __init__(self) -> None:
        self._said, self._said_at = "", float("-inf")
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._stage = ""
        self._line_at = time.monotonic()
        self._began: tuple[str, float, int] = ("", 0.0, 0)
        """Of what the next line is about: its name, and when it was first seen with how much done."""

    def __enter__(self) -> Self:
        self._line_at = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            # All of it fits 80 columns.
            self._bars = Progress(
                TextColumn("{task.description:21}"),
                BarColumn(bar_width=8),
                TextColumn("{task.fields[count]:>13}"),
                TextColumn("{task.fields[rate]:>9}"),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[figures]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def stage(self, name: str) -> None:
        """What the run does now; the bars of what it did before go away."""
        self._stage = name
        if self._bars is not None:
            for task in self._tasks.values():
                self._bars.remove_task(task)
        self._tasks.clear()

    def __call__(self, role: str, done: int, total: int, /) -> None:
        name = f"{self._stage}: {role}"
        if self._bars is None:
            self._line(name, done, total)
            return
        task = self._tasks.get(name)
        if task is None or done < self._bars.tasks[self._bars.task_ids.index(task)].completed:
            if task is not None:
                self._bars.remove_task(task)
            task = self._tasks[name] = self._bars.add_task(name, total=total, count="", rate="", figures="")
        speed = self._bars.tasks[self._bars.task_ids.index(task)].speed
        self._bars.update(
            task,
            completed=done,
            total=total,
            count=f"{done:,}/{total:,}",
            rate=_rate(speed) if speed else "",
            figures=self._spent(),
        )

    def _line(self, name: str, done: int, total: int) -> None:
        now = time.monotonic()
        before, since, first = self._began
        if name != before or done < first:
            self._began = before, since, first = name, now, done
        if now - self._line_at < LINE_EVERY_S:
            return
        self._line_at = now
        said = [f"{name} {done:,}/{total:,}"]
        if done > first and now > since:
            speed = (done - first) / (now - since)
            said += [_rate(speed), f"about {math.ceil((total - done) / speed / 60):,} min left"]
        print(", ".join([*said, *filter(None, [self._spent()])]), file=sys.stderr, flush=True)

    def _spent(self) -> str:
        """The figures, looked up at most once a second: they come from two databases."""
        now = time.monotonic()
        if now - self._said_at >= 1.0:
            self._said, self._said_at = self.figures(), now
        return self._said


def _rate(speed: float) -> str:
    """
    >>> _rate(1234.5), _rate(0.7321), _rate(9.99)
    ('1,234/s', '0.73/s', '10/s')
    """
    return f"{speed:,.0f}/s" if speed >= 9.95 else f"{speed:.2g}/s"
