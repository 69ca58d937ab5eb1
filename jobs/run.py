"""A run: its folder, manifest, journal and lock, and the rule that the same command resumes.

experiments/2026-11-22-dpiti-digits-3fa9/
  run.json  journal.jsonl      internal
  iterations/  release/        public
  private/                     mode 0700
"""

from __future__ import annotations

import datetime as dt
import errno
import fcntl
import json
import os
import platform
import secrets
import shutil
import subprocess
from collections.abc import Collection, Mapping
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from .. import __version__
from ..privacy import durable
from ..privacy.private import OperationalError
from .job import InputError


class Described(Protocol):
    """What a run is of: a job, a suite, an evaluation."""

    @property
    def kind(self) -> str: ...

    @property
    def subject(self) -> str:
        """What it is about, in the folder's name."""
        ...

    def resolved(self) -> dict[str, Any]:
        """Every setting that can change the result, as JSON."""
        ...

    def digest(self) -> str:
        """Equal for equal results."""
        ...


class Event(StrEnum):
    """All that a journal can say. No entry carries the text of an exception."""

    STARTED = "started"
    RESUMED = "resumed"
    PLANNED = "planned"
    RELEASED = "released"
    DISCLOSED = "disclosed"
    SELECTED = "selected"
    SAVED = "saved"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    FINISHED = "finished"


class Run:
    """One run of one job, held by one process. Use as a context manager: leaving it gives up the lock."""

    def __init__(self, folder: Path, manifest: dict[str, Any], lock: int, *, is_resumed: bool) -> None:
        self.folder = folder
        self.is_resumed = is_resumed
        self._manifest = manifest
        self._lock = lock

    @classmethod
    def open(
        cls,
        config: Described,
        *,
        root: Path,
        out: Path | None = None,
        reuse: str | None = None,
        releases_as: str | None = None,
    ) -> Self:
        """The run of `config` under `root` (or in `out`): an unfinished or finished one if there is one, else a new one.

        `reuse` names the answers to share with other runs of that name; a run keeps to the name it began with.
        `releases_as` is `PLAN/CELL` where the run is a cell of a suite whose joint plan PLAN holds its releases.

        Raises InputError when `out` holds something else, when it cannot be written, or when another process has the run.
        """
        digest = config.digest()
        folder = out if out is not None else find(root, config, digest) or _new_folder(root, config, digest)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / ".lock").exists():
                _before(folder, config, digest)  # Leave nothing in a folder that is not ours.
            lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unwritable(folder, error) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise InputError(f"{folder}: another process is running this run; wait for it, or stop it first") from None
        try:
            before = _before(folder, config, digest)
            if before is not None and reuse not in (None, before.get("reuse")):
                raise InputError(f"--reuse {reuse}: {folder} began with other answers; name another folder with --out")
            if before is not None and releases_as != before.get("releases_as"):
                raise InputError(f"{folder}: belongs to another plan; name another folder with --out")
            chosen = {"reuse": reuse, "releases_as": releases_as}
            manifest = before or {
                **_manifest(folder, config, digest),
                **{key: value for key, value in chosen.items() if value},
            }
            run = cls(folder, manifest, lock, is_resumed=before is not None)
            run._prepare()
        except BaseException:
            os.close(lock)
            raise
        return run

    @property
    def id(self) -> str:
        """The name of this run in the ledger: the folder's name and a random part, so that no two runs share it."""
        return self._manifest["id"]

    @property
    def releases_as(self) -> str:
        """How the names of its releases begin: its id, or in a suite with a joint plan `PLAN/CELL`."""
        return self._manifest.get("releases_as", self.id)

    @property
    def planned_by(self) -> str:
        """Whose plan in the ledger holds its releases: its own, or its suite's."""
        return self.releases_as.partition("/")[0]

    @property
    def namespace(self) -> str:
        """Whose answers it reads and keeps: its own, unless it shares on purpose."""
        reuse = self._manifest.get("reuse")
        return f"shared:{reuse}" if reuse else self.id

    @property
    def manifest(self) -> Mapping[str, Any]:
        return self._manifest

    @property
    def is_finished(self) -> bool:
        return self._manifest["status"] == "finished"

    @property
    def iterations(self) -> Path:
        return self.folder / "iterations"

    @property
    def release(self) -> Path:
        return self.folder / "release"

    @property
    def private(self) -> Path:
        return self.folder / "private"

    def record(self, **facts: Any) -> None:
        """Set facts of the manifest, durably."""
        self._manifest.update(facts)
        content = json.dumps(self._manifest, indent=2, ensure_ascii=False).encode() + b"\n"
        durable.write_bytes(self.folder / "run.json", content, mode=0o600)

    def check_unchanged(self, what: str, now: Any, before: Any) -> None:
        """Refuse to go on with a run whose `what` is not what it began with."""
        if before is not None and json.loads(json.dumps(now)) != before:
            raise InputError(
                f"{self.folder}: this run began with another {what}; put it back, or begin a new run with another --out"
            )

    def journal(self, event: Event, **facts: str | int | float) -> None:
        """Append one entry. Facts are public values or names of types, never the text of an exception."""
        line = json.dumps({"at": _now(), "event": event.value, **facts}, ensure_ascii=False) + "\n"
        descriptor = os.open(self.folder / "journal.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def disclosed(self, *, partition: str, why: str) -> None:
        """`Journal`: a private value of `partition` is about to be opened for `why`."""
        self.journal(Event.DISCLOSED, partition=partition, why=why)

    def private_log(self, line: str) -> None:
        """Append a line to `private/log.txt`: the one place where a record may be named."""
        descriptor = os.open(self.private / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, f"{line}\n".encode())
        finally:
            os.close(descriptor)

    def finish(self) -> None:
        self.record(status="finished")
        self.journal(Event.FINISHED)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        try:
            if kind is not None and self._manifest["status"] != "finished":
                event = Event.INTERRUPTED if issubclass(kind, KeyboardInterrupt) else Event.FAILED
                self.journal(event, type=kind.__name__)
        except OSError:
            pass  # A full disk must not hide the error that is already on its way.
        finally:
            os.close(self._lock)

    def _prepare(self) -> None:
        try:
            if not self.is_resumed:
                self.record()
            for folder in (self.iterations, self.release):
                folder.mkdir(exist_ok=True)
            self.private.mkdir(mode=0o700, exist_ok=True)
            self.private.chmod(0o700)
            if not self.is_finished:
                # Every version of the code that had a part in the run.
                known = self._manifest.get("commits", [])
                self.record(commits=[*dict.fromkeys([*known, *filter(None, [code_commit()])])])
            for unfinished in list(self.folder.rglob(".*.tmp")):  # Left by a process that was killed while it wrote.
                if unfinished.is_dir():
                    shutil.rmtree(unfinished)
                else:
                    unfinished.unlink(missing_ok=True)
            if not self.is_finished:
                self.journal(Event.RESUMED if self.is_resumed else Event.STARTED, version=__version__)
        except OSError as error:
            raise _unwritable(self.folder, error) from None


def _unwritable(folder: Path, error: OSError) -> InputError | OperationalError:
    """What to raise when a run's folder takes no writing."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OperationalError(f"{folder}: no space left; nothing is lost: free some, and run the same command again")
    return InputError(f"{folder}: cannot be written ({error.strerror}); name another folder with --out")


def heads_seen(ledger: Path, identity: str, roots: Collection[Path]) -> set[str]:
    """The heads that runs in folders under `roots` saw in this ledger: one that lacks any of them was rolled back.

    By its place, so that one made anew in the place of a lost one is noticed, and by its id, so that it may be moved.
    """
    heads: set[str] = set()
    found = (path for root in roots for pattern in ("*/run.json", "*/cells/*/run.json") for path in root.glob(pattern))
    for path in {path.resolve() for path in found}:
        try:
            manifest = read_manifest(path.parent)
        except InputError:
            continue  # A damaged manifest stops its own run alone.
        known = manifest.get("ledger") == str(ledger) or manifest.get("ledger_id") == identity
        if known and "ledger_head" in manifest:
            heads.add(manifest["ledger_head"])
    return heads


def find(root: Path, config: Described, digest: str) -> Path | None:
    """The folder of an earlier run of the same settings."""
    for path in sorted(root.glob(f"*-{config.kind}-{config.subject}-{digest[:4]}*/run.json")):
        if read_manifest(path.parent).get("config_digest") == digest:
            return path.parent
    return None


def _new_folder(root: Path, config: Described, digest: str) -> Path:
    name = f"{dt.date.today().isoformat()}-{config.kind}-{config.subject}-{digest[:4]}"
    folder, again = root / name, 1
    while (folder / "run.json").exists():
        again += 1
        folder = root / f"{name}-{again}"
    return folder


MANIFEST = frozenset({"id", "status", "kind", "started", "config_digest", "config", "commit", "versions"})
"""What every `run.json` says from its start."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """`run.json` of a run's folder. Raises InputError when there is none or it is damaged."""
    path = folder / "run.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or not set(manifest) >= MANIFEST:
            raise ValueError(path)
        return manifest
    except FileNotFoundError:
        raise InputError(f"{folder}: holds no run (no run.json); name a run's folder") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise InputError(f"{path}: damaged; restore it, or start a new run with another --out") from None


def _before(folder: Path, config: Described, digest: str) -> dict[str, Any] | None:
    """The manifest of the run that `folder` holds; None if it holds none yet.

    A command that was refused before its plan was reserved leaves no run: the corrected one takes its folder over.
    """
    if not (folder / "run.json").exists():
        if any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise InputError(f"{folder}: is not empty and holds no run; name another --out")
        return None
    manifest = read_manifest(folder)
    if manifest["config_digest"] == digest:
        return manifest
    if "ledger_head" not in manifest:
        return None
    place = _difference(manifest["config"], config.resolved())
    raise InputError(
        f"{folder}: holds a run of another configuration ({place} differs); name another --out, or undo the change"
    )


def _manifest(folder: Path, config: Described, digest: str) -> dict[str, Any]:
    return {
        "format": 1,
        "id": f"{folder.name}-{secrets.token_hex(4)}",
        "status": "running",
        "kind": config.kind,
        "started": _now(),
        "config_digest": digest,
        "config": config.resolved(),
        "commit": code_commit(),
        "commits": [],
        "versions": versions(),
    }


def _difference(before: Any, after: Any, place: str = "") -> str:
    """The dotted name of the first setting in which two configurations differ."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            if before.get(key) != after.get(key):
                return _difference(before.get(key), after.get(key), f"{place}.{key}" if place else str(key))
    return place or "everything"


def versions() -> dict[str, str]:
    """What the result may depend on: ours, Python's and the libraries' versions."""
    names = (
        "numpy",
        "scipy",
        "scikit-learn",
        "pillow",
        "matplotlib",
        "opendp",
        "dp-accounting",
        "cryptography",
        "faiss-cpu",
        "torch",
    )
    found = {"privolve": __version__, "python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def code_commit() -> str:
    """The commit of the code that runs, with "+" if it was changed since; "" outside a checkout."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return ""
    try:
        commit = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10
        )
        state = subprocess.run(
            ["git", "-C", str(here), "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return commit.stdout.strip() + ("+" if state.stdout.strip() else "") if commit.returncode == 0 else ""


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
