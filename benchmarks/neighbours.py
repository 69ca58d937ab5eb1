"""Exact nearest neighbours against faiss IndexFlatL2, interleaved in one process; equal up to ties.

python benchmarks/neighbours.py                      100,000 x 10,000 x 384, needs privolve[faiss]
python benchmarks/neighbours.py --queries 20000      smaller
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from privolve.neighbours import BACKENDS, Distance, reference, search


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed, in turns")
    parser.add_argument("--backend", choices=BACKENDS, default="numpy")
    parser.add_argument("--most", type=float, help="fail if the median ratio is higher")
    asked = parser.parse_args()
    import faiss

    rng = np.random.default_rng(0)
    queries = rng.standard_normal((asked.queries, asked.dimensions), dtype=np.float32)
    database = rng.standard_normal((asked.candidates, asked.dimensions), dtype=np.float32)

    def theirs() -> np.ndarray:
        index = faiss.IndexFlatL2(asked.dimensions)
        index.add(database)  # type: ignore[call-arg]
        return index.search(queries, 1)[1][:, 0]  # type: ignore[call-arg]

    def ours() -> np.ndarray:
        return search(queries, database, backend=asked.backend)[:, 0]

    print(
        f"{asked.queries:,} x {asked.candidates:,} x {asked.dimensions} float32, {faiss.omp_get_max_threads()} threads"
    )
    ratios = []
    for round_ in range(asked.rounds):
        first, second = (theirs, ours) if round_ % 2 == 0 else (ours, theirs)
        times = {first: _timed(first), second: _timed(second)}
        (faiss_s, faiss_ids), (our_s, our_ids) = times[theirs], times[ours]
        ratios.append(our_s / faiss_s)
        worse, differing = _compare(queries, database, our_ids, faiss_ids)
        print(
            f"faiss {faiss_s:7.2f} s   {asked.backend} {our_s:7.2f} s   ratio {ratios[-1]:.3f}   differing rows {differing}"
        )
        if worse:
            print(f"{worse} rows have a neighbour that is farther than that of faiss", file=sys.stderr)
            return 1
    median = statistics.median(ratios)
    print(f"median ratio {median:.3f}; rows that differ are near-ties that float32 decided otherwise")
    if asked.most is not None and median > asked.most:
        print(f"the ratio is above {asked.most}", file=sys.stderr)
        return 1
    return 0


def _timed(run: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found


def _compare(queries: np.ndarray, database: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> tuple[int, int]:
    """How many of our neighbours are farther than theirs in float64, and how many differ at all."""
    rows = np.flatnonzero(ours != theirs)
    asked = queries[rows].astype(np.float64)
    mine, other = (database[ids[rows]].astype(np.float64) for ids in (ours, theirs))
    farther = reference(asked, mine, Distance.L2) > reference(asked, other, Distance.L2)
    return int(farther.sum()), len(rows)


if __name__ == "__main__":
    raise SystemExit(main())
