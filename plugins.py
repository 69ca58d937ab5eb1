"""Plug-ins by name: the entry points of a group, of which nothing is imported by looking.

Adapters, data sources and metrics are registered so, ours among them. Which class a kind may name, and what is said where
it names another, is each registry's own.
"""

from __future__ import annotations

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


def _distribution(point: EntryPoint) -> str:
    return point.dist.name.lower() if point.dist else ""
