"""Copy what may leave, by allow-list: `release/` and `iterations/`, and of these only the kinds of files we write there."""

from __future__ import annotations

import shutil
from pathlib import Path

from .job import InputError
from .run import read_manifest

ALLOWED = (
    "release/privacy.json",
    "release/privacy.txt",
    "release/ledger.jsonl",
    "release/report.html",
    "release/scores.json",
    "release/samples.npz",
    "release/samples.jsonl",
    "release/label_counts.json",
    "release/lineages.jsonl",
    "release/lineages.npz",
    "release/images.sha256",
    "release/images/*.png",
    "iterations/*/population.jsonl",
    "iterations/*/images.npz",
    "iterations/*/histogram.npy",
    "iterations/*/selected.npy",
    "iterations/*/winners_?.npy",
    "iterations/*/first_?.npy",
)


def publishable(run: Path) -> list[Path]:
    """The files of a run that may be published, relative to it, in a fixed order; links are never followed."""
    return sorted(
        path.relative_to(run)
        for pattern in ALLOWED
        for path in run.glob(pattern)
        if path.is_file() and not path.is_symlink()
    )


def export(run: Path, folder: Path) -> int:
    """Copy the publishable files of `run` into the new or empty `folder`; return how many."""
    manifest = read_manifest(run)
    if manifest.get("status") != "finished":
        raise InputError(f"{run}: is not finished, so it has no certificate to go with it; run its job again first")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty; name a new folder")
    files = publishable(run)
    for path in files:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / path, target)
    return len(files)
