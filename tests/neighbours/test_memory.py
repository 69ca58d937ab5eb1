"""A search fits: by the arithmetic of its blocks, and measured."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from privolve.neighbours import Distance, search
from privolve.neighbours.blocks import WORKSPACE, blocks, fixed_bytes, settled_rows, thread_bytes, threads

GIB = 1 << 30


@pytest.mark.parametrize("available", [1, 2, 16, 256])
def test_three_hundred_thousand_by_fourteen_thousand_by_2048_fits_into_four_gib(available: int) -> None:
    inputs = 4 * (300_000 + 14_000) * 2048
    found = 300_000 * (8 + 8 + 1)
    used = threads(14_000, 2048, available)
    assert min(available, 8) <= used <= available
    workspace = fixed_bytes(14_000, 2048) + used * thread_bytes(14_000, 2048)
    assert workspace <= WORKSPACE
    assert inputs + found + workspace < 4 * GIB


def test_a_thread_settles_fewer_queries_of_a_larger_database() -> None:
    assert settled_rows(100) == 256 > settled_rows(14_000) > 1
    assert settled_rows(10**9) == 1
    assert thread_bytes(10**6, 384) < GIB


def test_blocks_cover_everything_once() -> None:
    covered = [i for block in blocks(1003, 100) for i in range(block.start, block.stop)]
    assert covered == list(range(1003))


@pytest.mark.parametrize("distance", list(Distance))
def test_the_peak_stays_within_the_arithmetic(distance: Distance) -> None:
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((20_000, 64), dtype=np.float32)
    database = rng.standard_normal((3000, 64), dtype=np.float32)
    queries[::4] = (database[:2500] + database[500:])[np.arange(5000) % 2500] / 2
    tracemalloc.start()
    try:
        search(queries, database, distance=distance, backend="numpy")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    full_matrix = 4 * len(queries) * len(database)
    index_of_rows = 400 * len(database)  # digests and lists that find equal rows
    allowed = fixed_bytes(3000, 64) + threads(3000, 64, 2) * thread_bytes(3000, 64) + 64 * len(queries) + index_of_rows
    assert peak < allowed < full_matrix


def test_mass_ties_stay_within_the_arithmetic() -> None:
    corners = np.float32([[int(bit) for bit in f"{number:010b}"] for number in range(1024)])
    queries = np.full((600, 10), 0.5, dtype=np.float32)
    tracemalloc.start()
    try:
        found = search(queries, corners, backend="numpy")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found == 0).all()
    assert peak < fixed_bytes(1024, 10) + 2 * thread_bytes(1024, 10)
