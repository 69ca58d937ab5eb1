"""What a run may publish, by allow-list: of `release/` and `iterations/` the kinds of files that we write there."""

from __future__ import annotations

from pathlib import Path

ALLOWED = (
    "release/privacy.json",
    "release/privacy.txt",
    "release/ledger.jsonl",
    "release/report.html",
    "release/scores.json",
    "release/samples.npz",
    "release/samples.jsonl",
    "release/label_counts.json",
    "release/selection.json",
    "release/lineages.jsonl",
    "release/lineages.npz",
    "release/model.json",
    "release/model.npz",
    "release/pictures/*.npz",
    "release/images.sha256",
    "release/images/*.png",
    "iterations/[0-9][0-9][0-9]/population.jsonl",
    "iterations/[0-9][0-9][0-9]/images.npz",
    "iterations/[0-9][0-9][0-9]/preview.npz",
    "iterations/[0-9][0-9][0-9]/histogram.npy",
    "iterations/[0-9][0-9][0-9]/selected.npy",
    "iterations/[0-9][0-9][0-9]/winners_?.npy",
    "iterations/[0-9][0-9][0-9]/first_?.npy",
)


def publishable(run: Path) -> list[Path]:
    """The files of a run that may be published, relative to it, in a fixed order; nothing behind a link is one."""
    found = {path.relative_to(run) for pattern in ALLOWED for path in run.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not _linked(run, path))


def _linked(run: Path, path: Path) -> bool:
    return any((run / part).is_symlink() for part in (path, *path.parents[:-1]))
