"""The chain: ledger entries that hold one another by hash, one canonical JSON line each.

What a public copy must not carry (keyed digests, fingerprints, times) is bound by a salted commitment instead, so the
same chain can be recomputed from a public copy and still betrays any change of the private part to who holds it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

START = "0" * 64
"""What the first entry holds in place of a hash."""


class ChainBroken(ValueError):
    """A line is not what was chained. `line` counts from 1."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line} {why}")
        self.line = line


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry: public body, commitment to the private part ("" if there is none), and the link to the entry before."""

    seq: int
    prev: str
    kind: str
    run: str
    body: dict[str, Any]
    private: str
    hash: str


def canonical(value: Any) -> bytes:
    """The one way to write a JSON value: keys sorted, no spaces, ASCII, floats as Python prints them, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def digest(value: Any) -> str:
    """sha256 of the canonical JSON."""
    return hashlib.sha256(canonical(value)).hexdigest()


def commitment(salt: bytes, private: Any) -> str:
    """Binds `private` without telling it: sha256(salt, canonical JSON), with 32 secret random bytes of salt."""
    if len(salt) != 32:
        raise ValueError("a commitment needs 32 bytes of salt")
    return hashlib.sha256(salt + canonical(private)).hexdigest()


def link(previous: Entry | None, *, kind: str, run: str, body: dict[str, Any], private: str = "") -> Entry:
    """The entry that follows `previous`, with its hash."""
    fields: dict[str, Any] = {
        "seq": previous.seq + 1 if previous else 1,
        "prev": previous.hash if previous else START,
        "kind": kind,
        "run": run,
        # As it will be read back: tuples become lists, and what is no JSON fails here.
        "body": json.loads(canonical(body)),
        "private": private,
    }
    return Entry(**fields, hash=digest(fields))


def line(entry: Entry) -> bytes:
    """The entry as it is stored and published, newline included."""
    return canonical(vars(entry)) + b"\n"


def read(content: bytes, previous: Sequence[Entry] = ()) -> list[Entry]:
    """The entries of a chain from its start, or from `previous` on; raises `ChainBroken` at the first wrong line.

    Every byte counts: a line that says the same in other words is a wrong line.
    """
    entries = list(previous)
    if content and not content.endswith(b"\n"):
        raise ChainBroken(len(entries) + content.count(b"\n") + 1, "is not complete")
    for raw in content.split(b"\n")[:-1]:
        number = len(entries) + 1
        try:
            value: dict[str, Any] = json.loads(raw)
            wanted = link(
                entries[-1] if entries else None,
                kind=value["kind"],
                run=value["run"],
                body=value["body"],
                private=value["private"],
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ChainBroken(number, "cannot be read") from None
        if line(wanted) != raw + b"\n":
            raise ChainBroken(number, "does not match its hash or the line before it")
        entries.append(wanted)
    return entries
