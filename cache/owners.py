"""Owners: which processes have a store open, so that what a killed one left half done can be told from what is under way.

Each process holds a lock on a file of its own; the operating system lets go of it however the process ends. No clock
decides who is alive.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from contextlib import suppress
from pathlib import Path


class Owners:
    """The lock files in `folder`; made only when a name is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = ""
        self._pid = 0
        self._descriptor = -1
        self._lock = threading.Lock()

    def own(self) -> str:
        """This process's name, alive until `close` or its end. A forked child has one of its own."""
        with self._lock:
            if self._pid != os.getpid():
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._name, self._pid = f"{os.getpid()}-{secrets.token_hex(6)}", os.getpid()
                # Locked under another name first: a file that others can see is always locked by its owner.
                hidden = self._folder / f".{self._name}"
                self._descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
                hidden.rename(self._folder / self._name)
            return self._name

    def is_alive(self, owner: str) -> bool:
        if owner == self._name and self._pid == os.getpid():
            return True
        path = self._folder / owner
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            path.unlink(missing_ok=True)
            return False
        finally:
            os.close(descriptor)

    def close(self) -> None:
        with self._lock:
            if self._pid == os.getpid():
                with suppress(OSError):
                    (self._folder / self._name).unlink(missing_ok=True)
                os.close(self._descriptor)
                self._pid = 0
