"""Refusals: how often a role declined, by class. A class that is refused more often than others is worse covered.

All of it is public: the requests are made of released votes, and no role here sees a record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence


class Refusals:
    """Counts by (role, label)."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, int]] = Counter()

    def add(self, role: str, label: int) -> None:
        self._counts[role, label] += 1

    def taken(self, classes: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        """By role and class name, since this was last asked."""
        counts, self._counts = self._counts, Counter()
        named: dict[str, dict[str, int]] = {}
        for (role, label), count in sorted(counts.items()):
            named.setdefault(role, {})[classes[label]] = count
        return named
