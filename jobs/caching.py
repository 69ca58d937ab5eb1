"""`privolve cache`: what the answers already paid for are, what may go, and a copy of them to share."""

from __future__ import annotations

import math
import time
from contextlib import closing
from pathlib import Path

from ..cache import upkeep
from ..cache.money import dollars
from ..cache.sqlite import SqliteStore
from .gateways import CACHE_FILE
from .job import InputError


def stats(folder: Path) -> str:
    path = _found(folder)
    with closing(SqliteStore(path)) as store:
        kept, spent = upkeep.kept(store), upkeep.spent(store)
    database, files = upkeep.sizes(path)
    lines = [f"{path}: {sum(each.answers for each in kept):,} answers, {_bytes(database)} and {_bytes(files)} in files"]
    for each in kept:
        name = each.namespace or "(shared by all runs)"
        newest = time.strftime("%Y-%m-%d", time.gmtime(each.newest_ms / 1000))
        refused = f", {each.refusals:,} of them refusals" if each.refusals else ""
        lines.append(f"  {name:48} {each.answers:>10,} answers{refused}, the newest of {newest}")
    if spent:
        lines.append("spent on remote models")
        for each in spent:
            lost = f", {each.lost:,} with their replies lost" if each.lost else ""
            slots = f", {each.slots:,} private slots in advance" if each.slots else ""
            lines.append(
                f"  {each.scope:48} {each.role:10} {dollars(each.micro):>10}, {each.settled:,} calls{slots}{lost}"
            )
    return "\n".join(lines)


def prune(folder: Path, *, namespace: str | None, older_than_days: float | None) -> str:
    path = _found(folder)
    if older_than_days is not None and not 0 <= older_than_days < math.inf:
        raise InputError(f"--older-than {older_than_days:g}: give a number of days, 0 or more")
    before_ms = None if older_than_days is None else int((time.time() - older_than_days * 86_400) * 1000)
    answers, size = upkeep.prune(path, namespace=namespace, before_ms=before_ms)
    return f"{path}: removed {answers:,} answers and {_bytes(max(0, size))}"


def export(folder: Path, target: Path, *, public: bool, namespace: str | None) -> str:
    count = upkeep.export(_found(folder), target, public=public, namespace=namespace)
    return f"{target}: {count:,} answers; to use it, put it into a folder as {CACHE_FILE} and name that as performance.cache"


def _found(folder: Path) -> Path:
    path = folder / CACHE_FILE
    if not path.is_file():
        raise InputError(f"{path}: there is no cache; name its folder with --cache")
    return path


def _bytes(size: int) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:,.0f} {unit}"
        size = size // 1000 if unit != "bytes" else -(-size // 1000)
    return f"{size:,} GB"
