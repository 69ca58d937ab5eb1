"""Recompute a run's certificate and say what does not hold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ..privacy import statement
from .certify import MADE_AFTERWARDS
from .job import InputError
from .published import publishable
from .run import read_manifest


def verify(run: Path, *, live: bool = False) -> bool:
    """Print the claim and every problem found; True if there is none.

    As of the run's end this reads `release/` and `iterations/` only; with `live`, the ledger that `run.json` names too.
    """
    if not (run / "release").is_dir():
        raise InputError(f"{run}: holds no release; name a run's folder or an exported one")
    certified = (run / "release" / statement.FILE).exists()
    if not certified and (run / "run.json").exists() and read_manifest(run)["status"] != "finished":
        raise InputError(f"{run}: is not finished, so it has no certificate yet; run its job again first")
    found = problems(run)
    for problem in found:
        print(f"does not hold: {problem}")
    if found:
        return False
    print(statement.summary(run))
    if live:
        found, text = statement.verify_ledger(run, Path(read_manifest(run)["ledger"]))
        for problem in found:
            print(f"does not hold: {problem}")
        print(text)
    else:
        print("As of the run's end, by its own copy of the chain; `--ledger` compares it with the ledger as of now.")
    return not found


def problems(run: Path) -> list[str]:
    """Why the certificate of a run does not hold, from the published files alone; empty if it holds."""
    return [*statement.verify(run), *_changed_images(run), *_unlisted(run)]


def _unlisted(run: Path) -> list[str]:
    """Files beside the certified ones that a reader could take for them."""
    try:
        listed = set(json.loads((run / "release" / statement.FILE).read_bytes())["artefacts"])
    except (OSError, ValueError, LookupError, TypeError):
        return []  # Said by `statement.verify`.
    made = {f"release/{name}" for name in MADE_AFTERWARDS}
    found = {path.as_posix() for path in publishable(run) if path.parent.as_posix() != "release/images"}
    return [f"{name} is not part of what was certified" for name in sorted(found - listed - made)]


def _changed_images(run: Path) -> list[str]:
    """Released images that differ from the list that the certificate protects."""
    listing = run / "release" / "images.sha256"
    if not listing.exists():
        return []
    wrong: list[str] = []
    named = set()
    for line in listing.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        path = run / "release" / name
        named.add(name)
        if not path.is_file():
            wrong.append(f"release/{name} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            wrong.append(f"release/{name} was changed after it was certified")
    extra = {f"images/{path.name}" for path in publishable(run) if path.parent.as_posix() == "release/images"} - named
    wrong.extend(f"release/{name} is not part of what was certified" for name in sorted(extra))
    return wrong
