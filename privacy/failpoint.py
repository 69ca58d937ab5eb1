"""Named points at which a test may kill the process: `PRIVOLVE_FAILPOINT=name` or `name:3` for the third passage."""

from __future__ import annotations

import os
import signal

_passages: dict[str, int] = {}


def failpoint(name: str) -> None:
    """Die by SIGKILL if the environment names this point; otherwise do nothing."""
    wanted = os.environ.get("PRIVOLVE_FAILPOINT")
    if not wanted:
        return
    target, _, count = wanted.partition(":")
    if target != name:
        return
    _passages[name] = _passages.get(name, 0) + 1
    if _passages[name] >= int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
