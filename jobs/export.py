"""Copy what may leave: what the certificate covers, the certificate, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ..privacy.ledger_book import Book
from ..privacy.ledger_store import read_entries
from ..privacy.statement import FILE
from .job import InputError
from .published import publishable
from .run import read_manifest
from .verify import problems

NOTE = "exported.json"


def export(run: Path, folder: Path) -> int:
    """Copy the publishable files of a run whose certificate holds into the new or empty `folder`; return how many.

    `exported.json` says how often unprotected figures of the voters were shown before (rule 21 of the guarantee).
    """
    manifest = read_manifest(run)
    if manifest["status"] != "finished":
        raise InputError(f"{run}: is not finished, so it has no certificate to go with it; run its job again first")
    if wrong := problems(run):
        raise InputError(f"{run}: {wrong[0]}; nothing was copied, see `privolve verify {run}`")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty; name a new folder")
    files = publishable(run)
    for path in files:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / path, target)
    partition = json.loads((run / "release" / FILE).read_bytes())["partition"]
    shown = Book(read_entries(Path(manifest["ledger"]))).figures_shown(partition)
    note = {"how often unprotected figures of the voters were shown before this export": shown}
    (folder / NOTE).write_text(json.dumps(note) + "\n", encoding="utf-8")
    return len(files)
