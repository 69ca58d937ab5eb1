"""Public stages of trainings, kept by content: a pre-training that two jobs have in common is done once.

A stage's folder is named by its key, which holds all that its result depends on, the trainers' own code among it. It is
finished when `done.npz` is there; before that it holds what a stopped stage goes on from.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .. import trainers
from ..privacy import arrays, durable
from ..privacy.failpoint import failpoint
from .job import canonical


class Stages:
    """The stages under one folder. Two processes that need the same stage do it once: the other waits."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(
        self, name: str, key: Mapping[str, Any], make: Callable[[Path], Mapping[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """The result of the stage `name` with this key, from an earlier run or made now."""
        digest = hashlib.sha256(canonical({"stage": name, "key": key, "code": code()}).encode()).hexdigest()
        folder = self._folder / f"{name}-{digest[:24]}"
        folder.mkdir(parents=True, exist_ok=True)
        done = folder / "done.npz"
        with _alone(folder):
            if not done.exists():
                content = arrays.npz(make(folder))
                failpoint("stage-before-save")
                durable.write_bytes(done, content)
                failpoint("stage-after-save")
            for left in folder.iterdir():  # What the stage needed to go on from is needed no more.
                if left.name not in ("done.npz", ".lock"):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
        return arrays.unpacked(done.read_bytes())


@cache
def code() -> str:
    """A digest of the trainers' source: what another version made is not taken for this one's."""
    whole = hashlib.sha256()
    root = Path(trainers.__file__).parent
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        whole.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
