"""GroupCommit: the writes of many callers in few durable transactions.

Whatever arrives while one transaction commits goes into the next, together: a disk that syncs eighty times a second
still takes thousands of writes a second, and each caller learns of its own write only when it is durable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any


@dataclass(frozen=True, eq=False)
class Job:
    """One caller's write, and where its result goes."""

    work: Any
    result: Future[Any]


class GroupCommit:
    """A thread that hands groups of jobs to `commit`, which resolves each one's result, or raises for all of them."""

    def __init__(self, commit: Callable[[Sequence[Job]], None], *, most: int = 512) -> None:
        self._commit = commit
        self._most = most
        self._waiting: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def submit(self, work: Any) -> Future[Any]:
        job = Job(work, Future())
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="privolve-cache", daemon=True)
                self._thread.start()
            self._waiting.put(job)
        return job.result

    def close(self) -> None:
        """Write what waits, and end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._waiting.put(None)
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            job = self._waiting.get()
            group: list[Job] = []
            try:
                while job is not None:
                    group.append(job)
                    if len(group) >= self._most:
                        break
                    job = self._waiting.get_nowait()
            except Empty:
                pass
            if group:
                self._write(group)
            if job is None:
                return

    def _write(self, group: Sequence[Job]) -> None:
        # A caller that went away (its future cancelled) has its write all the same: it may be of a paid answer.
        try:
            self._commit(group)
        except BaseException as error:  # noqa: BLE001  every caller of the group hears it
            for job in group:
                if not job.result.done():
                    job.result.set_exception(error)
