"""The witness: what this user's machine remembers of every ledger, kept apart from the ledgers themselves.

A ledger that was put back from an older copy, or made a second time in another place under the same name, looks whole from
within. The witness remembers where each ledger lies and its last head, so that both are noticed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path

from .durable import write_bytes
from .ledger_errors import LedgerError, LedgerWriteError, RolledBack


def folder() -> Path:
    """`PRIVOLVE_STATE`, or `privolve` where the user's programs keep their state."""
    if given := os.environ.get("PRIVOLVE_STATE"):
        return Path(given)
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "privolve"


def remember(ledger: str, *, name: str, directory: Path, head: str) -> None:
    """Write down, durably, that the ledger of this id lies in `directory` and ends with `head`."""
    path = _file(ledger)
    content = json.dumps({"name": name, "directory": str(directory.resolve()), "head": head})
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_bytes(path, content.encode(), mode=0o600)
    except OSError as error:
        raise LedgerWriteError(
            f"{path.parent}: cannot be written ({error.strerror}), and what ledgers were last seen with is kept there. "
            "Name another folder in PRIVOLVE_STATE."
        ) from None


def check(ledger: str, *, directory: Path, heads: Collection[str]) -> None:
    """Refuse a ledger without the head that it was last seen with."""
    known = _read(_file(ledger))
    if known is not None and known["head"] not in heads:
        raise RolledBack(
            f"{directory}: the ledger does not hold entry {known['head'][:12]}, with which it was last seen. It is an older "
            "copy; put the newest one back."
        )


def check_name(name: str, *, directory: Path) -> None:
    """Refuse to make a ledger where another of the same name still lies in another place."""
    for path in sorted((folder() / "ledgers").glob("*.json")):
        known = _read(path)
        if known is None or known["name"] != name:
            continue
        other = Path(known["directory"])
        if other != directory.resolve() and (other / "ledger.sqlite").exists():
            raise LedgerError(
                f"{directory}: a ledger of {name!r} lies in {other} already, and a second one would not add up with it. Name "
                f"that folder in [privacy] ledger, or give this set a [data] name of its own if its records are others."
            )


def _file(ledger: str) -> Path:
    return folder() / "ledgers" / f"{ledger}.json"


def _read(path: Path) -> dict[str, str] | None:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {key: str(known[key]) for key in ("name", "directory", "head")}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise LedgerError(
            f"{path}: cannot be read, and it tells with which head a ledger was last seen. Restore it, or remove it if you "
            "are sure that no ledger was rolled back."
        ) from None
