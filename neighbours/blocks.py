"""How a search is cut so that it fits: every block is bounded before it is made.

Beside its inputs, a search by numpy holds one float32 copy of the database (two while it is prepared), and per thread the
blocks below. `threads` keeps the sum under `WORKSPACE`, so that 300,000 x 14,000 x 2,048 (2.4 GiB of input) needs less
than 4 GiB.
"""

from __future__ import annotations

from collections.abc import Iterator

WORKSPACE = 1 << 30
SCAN_ROWS = 512
SCAN_TILE = 1024
PREPARED_ROWS = 1024
SETTLED_TILE = 256
SETTLED_SCORES = 1 << 18
"""Float64 scores that one thread settles at once."""
REFERENCE_BYTES = 1 << 22


def blocks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(count, start + size)) for start in range(0, count, size))


def settled_rows(candidates: int) -> int:
    return max(1, min(256, SETTLED_SCORES // max(1, candidates)))


def reference_pairs(dimensions: int) -> int:
    return max(1, REFERENCE_BYTES // (8 * dimensions))


def fixed_bytes(candidates: int, dimensions: int) -> int:
    """The distinct usable rows, their scaled points, and the points with offsets: three float32 copies at the worst moment."""
    return 3 * 4 * candidates * (dimensions + 1) + 3 * 8 * PREPARED_ROWS * dimensions


def thread_bytes(candidates: int, dimensions: int) -> int:
    """One thread at its worst, either scanning or settling."""
    scanning = SCAN_ROWS * dimensions * (3 * 8 + 3 * 4) + 3 * 4 * SCAN_ROWS * SCAN_TILE
    pairs = settled_rows(candidates) * candidates
    settling = 3 * 8 * settled_rows(candidates) * dimensions + 3 * 8 * SETTLED_TILE * dimensions
    settling += 9 * 8 * pairs + 4 * REFERENCE_BYTES
    return max(scanning, settling)


def threads(candidates: int, dimensions: int, available: int) -> int:
    """As many of the `available` threads as fit, at least one."""
    room = WORKSPACE - fixed_bytes(candidates, dimensions)
    return max(1, min(available, room // thread_bytes(candidates, dimensions)))
