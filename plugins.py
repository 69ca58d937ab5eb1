"""Plug-ins by name: the entry points of a group, of which nothing is imported by looking.

Adapters, data sources and metrics are registered so, ours among them. Which class a kind may name, and what is said where
it names another, is each registry's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points

OURS = __name__.partition(".")[0]


class ClaimedTwice(Exception):
    """Two other packages register one kind, and neither can be preferred."""

    def __init__(self, kind: str, first: str, second: str) -> None:
        super().__init__(kind)
        self.kind = kind
        self.packages = f"{first} and {second}"


def points(group: str) -> dict[str, EntryPoint]:
    """One entry point a kind: ours before others'. Raises ClaimedTwice."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        other = found.get(point.name)
        if other is None or _distribution(point) == OURS:
            found[point.name] = point
        elif _distribution(other) != OURS and other.value != point.value:
            raise ClaimedTwice(point.name, _distribution(other), _distribution(point))
    return found


def meant(word: str, known: Iterable[str]) -> str:
    """What to ask about a name that there is not: the known one most like it, or nothing.

    >>> meant("lexcion", ["hashing", "lexicon"]), meant("x", ["lexicon"])
    ("did you mean 'lexicon'? ", '')
    """
    close = get_close_matches(word, known, n=1, cutoff=0.7)
    return f"did you mean {close[0]!r}? " if close else ""


def _distribution(point: EntryPoint) -> str:
    return point.dist.name.lower() if point.dist else ""
