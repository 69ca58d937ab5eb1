"""`privolve data`: the sources of data that are installed, the published sets, and fetching one."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

from ..data import catalogue, registry
from ..data.catalogue import Entry
from ..privacy.words import counted

WIDTH = 100
DEFAULT = Path("datasets")


def listing() -> str:
    """Every kind of source without importing one, and every published set: size, split, licence, and what was not tried."""
    places = {point.name: point.value for point in entry_points(group=registry.GROUP)}
    general = [name for name in registry.names() if name not in catalogue.names()]
    lines = ['sources, as kind = "NAME" with path = "..." in [data]']
    lines += [f"  {name:20} {places[name]}" for name in general]
    lines += ["", 'published sets, as kind = "NAME" with path = "..."; `privolve data get NAME` fetches one']
    for name in catalogue.names():
        lines += _described(catalogue.entry(name))
    return "\n".join(lines) + "\n"


def get(name: str, folder: Path | None, *, note: Callable[[str], None]) -> str:
    """Fetch a set, and say how a job names it."""
    from ..data import download

    entry = catalogue.entry(name)
    into = folder or DEFAULT / name
    download.get(entry, into, note=note)
    return f'{_wrapped(f"licence: {entry.licence}; cite: {entry.citation}", "")}\n[data]\nkind = "{name}"\npath = "{into.resolve()}"\n'


def _described(entry: Entry) -> list[str]:
    return [
        f"  {entry.name:20} {entry.title}: {_count(entry)}",
        _wrapped(f"licence: {entry.licence}", " " * 23),
        _wrapped(f"split: {entry.split}", " " * 23),
        _wrapped(f"fetched: {_fetched(entry)}", " " * 23),
        *([_wrapped(f"not tried: {entry.unverified}", " " * 23)] if entry.unverified else []),
    ]


def _count(entry: Entry) -> str:
    parts = " + ".join(f"{count:,}" for count in (entry.train, entry.test) if count)
    form = "" if entry.size is None else f" of {entry.size[0]} x {entry.size[1]} x {entry.channels}"
    classes = len(entry.classes)
    known = counted(classes, "class") if classes else "classes as the publisher's file lists them"
    return f"{parts or 'a number not stated here of'} {entry.holds}{form}, {known}"


def _fetched(entry: Entry) -> str:
    if entry.by_hand is not None:
        return f"by hand: {entry.by_hand} ({entry.page})"
    size = f"{entry.to_fetch / 1e6:,.1f} MB" if entry.to_fetch else "a size its publisher does not state"
    stated = sum(asset.checksum is not None for asset in entry.files)
    if stated == len(entry.files):
        return f"{size}; every checksum is the publisher's"
    known = f"{stated} of {len(entry.files)} checksums are" if stated else "no checksum is"
    return f"{size}; {known} the publisher's: what is missing is recorded at the first download"


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
