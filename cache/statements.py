"""Statements: many rows in one statement.

A statement waits for the interpreter each time it has run; beside a busy thread that wait is most of what it costs. So
rows are bound together, in statements of which SQLite takes thousands of values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MOST_TOGETHER = 512
"""Rows of one statement: SQLite binds 32,766 values."""


def values(rows: Sequence[Sequence[Any]]) -> str:
    """The placeholders of some rows.

    >>> values([("a", 1), ("b", 2)])
    '(?,?),(?,?)'
    """
    row = f"({','.join('?' * len(rows[0]))})" if rows else "(null,null,null,null)"
    return ",".join([row] * max(1, len(rows)))


def flat(rows: Sequence[Sequence[Any]]) -> list[Any]:
    """What is bound to them."""
    return [value for row in rows for value in row]
