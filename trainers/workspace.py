"""Where a private training works: its checkpoints, its private log, and what of the machine it uses.

A checkpoint is a safetensors file and a JSON header that names its SHA-256, its step and what it belongs to, under a keyed
digest: only what this ledger's owner stored, for this very release, is gone on with. The header is written last. Randomness
is no part of it: noise and masks are drawn afresh, and everything else is a function of public seed, step and slot.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np

from ..privacy.durable import sync_folder, write_bytes
from ..privacy.failpoint import failpoint
from ..privacy.ledger import Checkpoint
from ..privacy.ledger_chain import canonical, digest
from ..privacy.mechanism import JSON
from ..privacy.private import OperationalError
from .gradients import Kind

_FORMAT = 1
_NAME = "checkpoint-{:07}"

Arrays = Mapping[str, np.ndarray]


class CheckpointRefused(ValueError):
    """A checkpoint of something else, or not as it was stored; one line with the way out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """A training after `step` steps: flat float32 arrays, all of them post-processing of noisy sums."""

    step: int
    arrays: Arrays


@final
class Checkpoints:
    """The durable checkpoints of one release in `folder`; the newest alone is kept."""

    def __init__(self, folder: Path, *, key: bytes, belongs_to: Mapping[str, JSON]) -> None:
        self._folder = folder
        self._key = key
        self._belongs_to = digest(belongs_to)

    def newest(self) -> tuple[Checkpoint, State] | None:
        """The newest checkpoint; None if there is none.

        Raises CheckpointRefused for one of another release, plan or ledger, and for one that was changed.
        """
        from safetensors.numpy import load

        headers = self._headers()
        if not headers:
            return None
        path = headers[-1]
        try:
            header: dict[str, Any] = json.loads(path.read_bytes())
            mac, step, sha256 = str(header.pop("mac")), header["step"], header["sha256"]
            content = path.with_suffix(".safetensors").read_bytes()
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            raise _refused(path, "cannot be read") from None
        if not hmac.compare_digest(mac, self._mac(header)):
            raise _refused(path, "was not written for a ledger of this key, or was edited since")
        if header["belongs_to"] != self._belongs_to:
            raise _refused(path, "belongs to another plan, release, start or version of the code")
        if hashlib.sha256(content).hexdigest() != sha256:
            raise _refused(path, "was edited since it was stored")
        return Checkpoint(step=step, sha256=sha256), State(step=step, arrays=load(content))

    def save(self, state: State) -> Checkpoint:
        """Store the state durably; older checkpoints go once it is."""
        from safetensors.numpy import save

        older = self._headers()
        content = save({name: np.ascontiguousarray(array) for name, array in state.arrays.items()})
        sha256 = hashlib.sha256(content).hexdigest()
        header: dict[str, Any] = {
            "format": _FORMAT,
            "step": state.step,
            "belongs_to": self._belongs_to,
            "sha256": sha256,
        }
        path = self._folder / (_NAME.format(state.step) + ".json")
        try:
            write_bytes(path.with_suffix(".safetensors"), content, mode=0o600)
            failpoint("checkpoint-before-header")
            write_bytes(path, canonical({**header, "mac": self._mac(header)}), mode=0o600)
            failpoint("checkpoint-after-header")
            self._remove(one for one in older if one != path)
        except OSError as error:
            raise OperationalError(
                f"{self._folder}: a checkpoint could not be written ({error.strerror}); make room and give the same command "
                "again"
            ) from None
        return Checkpoint(step=state.step, sha256=sha256)

    def clear(self) -> None:
        """Remove all: what they were for is stored elsewhere."""
        self._remove(self._headers())

    def _headers(self) -> list[Path]:
        return sorted(self._folder.glob(_NAME.replace("{:07}", "*") + ".json"))

    def _remove(self, headers: Any) -> None:
        for path in headers:
            path.unlink(missing_ok=True)
            sync_folder(self._folder)
            path.with_suffix(".safetensors").unlink(missing_ok=True)

    def _mac(self, header: Mapping[str, Any]) -> str:
        return hmac.new(self._key, b"checkpoint" + canonical(header), hashlib.sha256).hexdigest()


def _refused(path: Path, why: str) -> CheckpointRefused:
    return CheckpointRefused(f"{path}: this checkpoint {why}; put the right one back, or begin a new run")


@dataclass(kw_only=True, eq=False)
class Workspace:
    """What a training may use of the machine, and whom it tells. Nothing here can change a released weight but by rounding.

    `progress` is told (step, steps), public numbers; `preview` gets the step and the averaged weights of a durable
    checkpoint, and what it shows is chained before. Losses and norms go to a log in `folder`, which is private (0700).
    """

    folder: Path
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`; `auto` takes the first GPU if there is one."""
    engine: Kind = "auto"
    micro_batch: int = 64
    """So many records at a time; halved, on public random input before the start, until it fits into memory."""
    chunk: int | None = None
    """So many gradients at a time; None: the engine's own number."""
    compiled: bool = False
    """Whether the gradients are compiled (`torch.compile`), where the engine can be."""
    checkpoint_every: int = 50
    preview_every: int = 0
    """A multiple of `checkpoint_every`; 0: no previews."""
    log_every: int = 10
    """Steps between lines of the private log; 0: no log."""
    progress: Callable[[int, int], None] | None = None
    preview: Callable[[int, Arrays], None] | None = None
    _checkpoints: Checkpoints | None = field(default=None, init=False)
    _resumed: State | None = field(default=None, init=False)
    _before_showing: Callable[[Checkpoint], None] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.micro_batch < 1 or self.checkpoint_every < 1:
            raise ValueError("micro_batch and checkpoint_every are whole numbers of at least 1")
        if self.preview_every % self.checkpoint_every:
            raise ValueError(
                f"preview_every = {self.preview_every} is no multiple of checkpoint_every = {self.checkpoint_every}: only "
                "checkpoints are shown"
            )
        self.device = chosen_device(self.device)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)

    def bind(
        self, *, key: bytes, belongs_to: Mapping[str, JSON], before_showing: Callable[[Checkpoint], None] | None = None
    ) -> Checkpoint | None:
        """Use the checkpoints of one release from here on; the newest, from which it will go on, or None.

        `before_showing` is told the checkpoint before a preview. Raises CheckpointRefused.
        """
        self._checkpoints = Checkpoints(self.folder, key=key, belongs_to=belongs_to)
        self._before_showing = before_showing
        found = self._checkpoints.newest()
        self._resumed = found[1] if found else None
        return found[0] if found else None

    @property
    def resumed(self) -> State | None:
        """What the training goes on from."""
        return self._resumed

    def reached(self, step: int, steps: int, arrays: Callable[[], Arrays], *, shown: Callable[[], Arrays]) -> None:
        """`step` of `steps` are done: keep a checkpoint where one is due, then tell, then show."""
        if self._checkpoints is not None and (step % self.checkpoint_every == 0 or step == steps):
            checkpoint = self._checkpoints.save(State(step=step, arrays=arrays()))
            if self.preview is not None and self.preview_every and step % self.preview_every == 0:
                if self._before_showing is not None:
                    self._before_showing(checkpoint)
                self._show(self.preview, step, shown())
        if self.progress is not None:
            self.progress(step, steps)

    def log(self, step: int, line: Mapping[str, Any]) -> None:
        """Append to the private log."""
        path = self.folder / "steps.jsonl"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "a") as file:
            file.write(json.dumps({"step": step, **line}) + "\n")

    def clear(self) -> None:
        """Remove the checkpoints of a release that is stored in the ledger."""
        if self._checkpoints is not None:
            self._checkpoints.clear()

    def _show(self, preview: Callable[[int, Arrays], None], step: int, weights: Arrays) -> None:
        """A preview is post-processing of a durable checkpoint: that it fails is no fact about a record."""
        try:
            preview(step, weights)
        except (KeyboardInterrupt, OperationalError):
            raise
        except Exception as error:  # noqa: BLE001  of public values
            raise OperationalError(f"the preview of step {step} failed ({type(error).__name__}: {error})") from None


def chosen_device(name: str) -> str:
    """The device by its name; `auto` is the first GPU, or else the CPU. Raises ValueError for one that is not there."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = name.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise ValueError(
            f"device {name!r} is not one of auto, cpu, cuda: sums are checked in 64 bits, which others lack"
        )
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r}: no GPU is there; use cpu or auto")
    return name
