"""Where a model lies: a folder, or a commit of a repository of the Hugging Face hub in the local cache.

We find the folder ourselves, so that a missing model is one line at once, not a minute of tries to reach a network that
may not be there. Only a config that says `download = true` may fetch anything, and what it fetches is pinned.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..contract import AdapterUnavailable

WEIGHTS = ".safetensors"
"""The only form of weights that is read: a pickle can run code."""

_READ = (WEIGHTS, ".json", ".jinja", ".txt", ".model", ".tiktoken", ".vocab", ".vocabulary")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A model that is here. `name` says which without saying where; `revision` is the commit, or None for a plain folder."""

    path: Path
    name: str
    revision: str | None = None

    @property
    def fingerprint(self) -> str:
        """The commit, or else a digest of every file that a model is loaded from: equal weights, equal fingerprint."""
        return self.revision or f"sha256-{digest(self.path)[:32]}"


def located(model: str, *, kind: str, revision: str | None = None, download: bool = False) -> ModelFolder:
    """The folder of a model. Raises `AdapterUnavailable`, one line, if it is not here."""
    path = Path(model).expanduser()
    if path.is_dir():
        found = ModelFolder(path=path, name=path.resolve().name)
    elif path.is_file():
        raise AdapterUnavailable(f"{kind}: `model` is the file {model!r}; name the folder that holds the model")
    elif _looks_like_a_path(model):
        raise AdapterUnavailable(f"{kind}: there is no model folder {model!r}; check `model`")
    elif revision is None:
        raise AdapterUnavailable(
            f"{kind}: there is no folder {model!r}; if it is a model of the Hugging Face hub, pin its commit: "
            'revision = "<40 hexadecimal digits>"'
        )
    else:
        found = ModelFolder(path=_of_the_hub(model, revision, kind, download), name=model, revision=revision)
    if not any(found.path.rglob(f"*{WEIGHTS}")):
        raise AdapterUnavailable(
            f"{kind}: {model!r} holds no *{WEIGHTS} file, and pickled weights are not read; convert them, or choose a "
            "revision that has them"
        )
    return found


def digest(folder: Path) -> str:
    """SHA-256 of the names and bytes of the files that a model is loaded from, whatever else lies beside them."""
    total = hashlib.sha256()
    for path in _files(folder):
        with path.open("rb") as file:
            total.update(f"{path.relative_to(folder).as_posix()}\0".encode())
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    files = (path for path in folder.rglob("*") if path.suffix in _READ and path.is_file())
    return iter(sorted(path for path in files if not any(part[0] == "." for part in path.relative_to(folder).parts)))


def _looks_like_a_path(model: str) -> bool:
    return model.startswith(("/", ".", "~")) or not _HUB_ID.fullmatch(model)


def _of_the_hub(model: str, revision: str, kind: str, download: bool) -> Path:
    try:
        from huggingface_hub import constants, snapshot_download
    except ImportError:
        raise AdapterUnavailable(f"{kind} needs huggingface_hub: pip install 'privolve[local]'") from None
    if not download:
        snapshot = Path(constants.HF_HUB_CACHE, f"models--{model.replace('/', '--')}", "snapshots", revision)
        if snapshot.is_dir():
            return snapshot
        raise AdapterUnavailable(
            f"{kind}: {model!r} at {revision[:12]} is not on this machine; set download = true, or name a local folder"
        )
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=[f"*{suffix}" for suffix in _READ]))
    except Exception as error:  # noqa: BLE001  whatever the hub's client raises is one thing here
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise AdapterUnavailable(f"{kind}: {model!r} at {revision[:12]} cannot be downloaded: {reason[0]}") from None
