"""A database that is searched exactly, in three steps of falling speed.

1. A scan (numpy, faiss or torch) gives each query's best float32 scores. Where the k best stand clear of the next one by
   more than the proven error (`bounds.py`), the set of neighbours is settled.
2. The other queries are scored again in float64, which leaves only candidates within a band 10^9 times narrower.
3. What is still within the band is compared by the float64 reference of `points.py`, and equal ones by the lowest index.

So every backend, block size and batch gives the same rows. Equal database rows are scored once: a population of
duplicates costs no more than its distinct members.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from .blocks import PREPARED_ROWS, SETTLED_TILE, blocks, reference_pairs, settled_rows, threads
from .bounds import UNIT32, UNIT64, Extent, band
from .points import Distance, exact, reference, usable
from .scans import FaissScan, NumpyScan, Scan, TorchScan

BACKENDS = ("auto", "numpy", "faiss", "torch")
NOBODY = -1
"""The neighbour of a query that is no point."""
WILD = 2.0**40
"""A query so much farther out than the database that float32 could overflow: settled in float64."""
ABSENT = np.iinfo(np.int64).max


def search(
    queries: np.ndarray,
    database: np.ndarray,
    *,
    k: int = 1,
    distance: str = Distance.L2,
    backend: str = "auto",
) -> np.ndarray:
    """Row indices of the `k` nearest database rows of each query, nearest first, int64; -1 for a query that is no point.

    Values are taken as float32. Non-finite database rows are nobody's neighbour.

    >>> search(np.float32([[0.9], [np.nan]]), np.float32([[0], [1], [1]]), k=2).tolist()
    [[1, 2], [-1, -1]]
    """
    return Index(database, distance=distance, backend=backend).search(queries, k=k)


class Index:
    """The prepared database. `candidates` is how many of its rows can be anybody's neighbour."""

    def __init__(self, database: np.ndarray, *, distance: str = Distance.L2, backend: str = "auto") -> None:
        rows = _matrix("database", database)
        if backend not in BACKENDS:
            raise ValueError(f"unknown backend {backend!r}; known: {', '.join(BACKENDS)}")
        try:
            self._distance = Distance(distance)
        except ValueError:
            raise ValueError(f"unknown distance {distance!r}; known: {', '.join(Distance)}") from None
        good = np.flatnonzero(usable(rows, self._distance))
        self.candidates = len(good)
        self._members = _equal_rows(rows, good)
        first = np.array([indices[0] for indices in self._members], dtype=np.int64)
        self._rows = rows if len(first) == len(rows) else rows[first]
        self._dimensions = rows.shape[1]
        self._centre = _mean(self._rows, self._distance)
        self._build_scan(backend)

    def search(self, queries: np.ndarray, *, k: int = 1) -> np.ndarray:
        """As the function `search`."""
        queries = _matrix("queries", queries)
        if queries.shape[1] != self._dimensions:
            raise ValueError(f"queries have {queries.shape[1]} dimensions and the database {self._dimensions}")
        if not 1 <= k <= self.candidates:
            raise ValueError(
                f"{k} neighbours were asked of {self.candidates} candidates; k must lie between 1 and that"
            )
        distinct = min(k, len(self._rows))
        chosen = np.full((len(queries), distinct), NOBODY, dtype=np.int64)
        settled = np.zeros(len(queries), dtype=np.bool_)

        def scan(block: slice) -> None:
            chosen[block], settled[block] = self._scanned(queries[block], distinct)

        def settle(rows: np.ndarray) -> None:
            chosen[rows] = self._settled(queries[rows], distinct)

        self._each(scan, blocks(len(queries), self._scan.rows))
        open_rows = np.flatnonzero(~settled)
        parts = [open_rows[block] for block in blocks(len(open_rows), settled_rows(len(self._rows)))]
        self._each(settle, iter(parts))
        found = np.full((len(queries), k), NOBODY, dtype=np.int64)
        duplicates = self._duplicates(k)
        for block in blocks(len(queries), PREPARED_ROWS):
            found[block] = self._named(queries[block], chosen[block], k, duplicates)
        return found

    def _build_scan(self, backend: str) -> None:
        count, dimensions = self._rows.shape
        points = np.empty((count, dimensions), dtype=np.float32)
        norms = np.empty(count)
        plain = largest = 0.0
        for block in blocks(count, PREPARED_ROWS):
            some = exact(self._rows[block], self._distance)
            plain = max(plain, float(np.sqrt((some * some).sum(axis=1)).max()))
            some -= self._centre
            largest = max(largest, float(np.abs(some).max(initial=0.0)))
        # A power of two, so that scaling is exact: the largest coordinate lies in [1/2, 1), or as near as float32 has room.
        self._scale = 2.0 ** -int(np.clip(np.frexp(largest)[1], -100, 100))
        for block in blocks(count, PREPARED_ROWS):
            some = (exact(self._rows[block], self._distance) - self._centre) * self._scale
            points[block] = some
            norms[block] = (some * some).sum(axis=1)
        centred = float(np.sqrt(norms.max(initial=0.0)))
        self._extent32 = Extent(dimensions=dimensions, centred=centred, plain=plain * self._scale)
        self._extent64 = Extent(dimensions=dimensions, centred=centred / self._scale, plain=plain)
        inner = self._distance is Distance.INNER_PRODUCT
        offsets = np.zeros(count, dtype=np.float32) if inner else (-norms / 2).astype(np.float32)
        self._scan: Scan = _scan(backend, points, offsets, self._distance)

    def _centred32(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The queries as the scan wants them, and their norms; what is wild or no point becomes zero with an infinite norm."""
        points = np.empty(queries.shape, dtype=np.float32)
        norms = np.empty(len(queries))
        with np.errstate(all="ignore"):
            for block in blocks(len(queries), PREPARED_ROWS):
                some = exact(queries[block], self._distance)
                if self._distance is Distance.INNER_PRODUCT:
                    # A query's own scale does not change the order of its inner products.
                    some = np.ldexp(some, -np.frexp(np.abs(some).max(axis=1))[1][:, None])
                else:
                    some = (some - self._centre) * self._scale
                points[block] = some
                norms[block] = np.sqrt((some * some).sum(axis=1))
        wild = ~(norms <= WILD)
        points[wild] = 0
        norms[wild] = np.inf
        return points, norms

    def _scanned(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best of each query by float32, and whether that set is beyond doubt. A query that is no point is settled."""
        points, norms = self._centred32(queries)
        columns = np.full((len(queries), k), NOBODY, dtype=np.int64)
        many = min(k + 1, len(self._rows))
        scores, best = self._scan.best(points, many)
        if many > k:
            gap = scores[:, k - 1].astype(np.float64) - scores[:, k].astype(np.float64)
            clear = gap > band(norms, self._extent32, self._distance, unit=UNIT32, expanded=self._scan.expanded)
        else:
            clear = np.ones(len(queries), dtype=np.bool_)
        columns[clear] = best[clear, :k]
        nobody = ~usable(queries, self._distance)
        columns[nobody] = NOBODY
        return columns, clear | nobody

    def _settled(self, queries: np.ndarray, k: int) -> np.ndarray:
        """The k nearest of each query by float64 scores, and among near-ties by the reference and the lowest index."""
        plain = exact(queries, self._distance)
        centred = plain if self._distance is Distance.INNER_PRODUCT else plain - self._centre
        scores = np.empty((len(queries), len(self._rows)))
        for block in blocks(len(self._rows), SETTLED_TILE):
            points = exact(self._rows[block], self._distance) - self._centre
            np.matmul(centred, points.T, out=scores[:, block])
            if self._distance is not Distance.INNER_PRODUCT:
                scores[:, block] -= (points * points).sum(axis=1) / 2
        norms = np.sqrt((centred * centred).sum(axis=1))
        width = band(norms, self._extent64, self._distance, unit=UNIT64, expanded=True)
        last = scores.shape[1] - k
        floor = (scores.max(axis=1) if k == 1 else np.partition(scores, last, axis=1)[:, last]) - width
        rows, columns = np.nonzero(scores >= floor[:, None])
        near = self._references(plain, rows, columns)
        order = np.lexsort((columns, near, rows))
        rows, columns = rows[order], columns[order]
        starts = np.searchsorted(rows, np.arange(len(queries)))
        return columns[starts[:, None] + np.arange(k)]

    def _references(self, points: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        near = np.empty(len(rows))
        for block in blocks(len(rows), reference_pairs(self._dimensions)):
            near[block] = reference(
                points[rows[block]], exact(self._rows[columns[block]], self._distance), self._distance
            )
        return near

    def _duplicates(self, k: int) -> np.ndarray:
        """Up to k database rows for each distinct one, ascending; `ABSENT` where there are fewer."""
        table = np.full((len(self._members), min(k, max(map(len, self._members)))), ABSENT, dtype=np.int64)
        for row, indices in enumerate(self._members):
            table[row, : len(indices)] = indices[: table.shape[1]]
        return table

    def _named(self, queries: np.ndarray, chosen: np.ndarray, k: int, duplicates: np.ndarray) -> np.ndarray:
        """Distinct points as database rows: nearest first, equal ones by the lowest index, duplicates each in their place.

        The k nearest rows are among the duplicates of the k nearest distinct points, a point standing at its lowest index.
        """
        nobody = chosen[:, 0] == NOBODY
        if k == 1:
            return np.where(nobody[:, None], NOBODY, duplicates[chosen[:, 0]])
        with np.errstate(all="ignore"):
            points = exact(queries, self._distance)
            rows = np.repeat(np.arange(len(queries)), chosen.shape[1])
            near = self._references(points, rows, chosen.reshape(-1)).reshape(chosen.shape)
        names = duplicates[chosen].reshape(len(queries), -1)
        near = np.repeat(near, duplicates.shape[1], axis=1)
        near[names == ABSENT] = np.inf
        near[nobody] = 0
        order = np.lexsort((names, near), axis=1)[:, :k]
        found = np.take_along_axis(names, order, axis=1)
        found[nobody] = NOBODY
        return found

    def _each(self, work: Callable[[Any], None], parts: Iterator[Any]) -> None:
        """`work` on every part, side by side where the scan profits from it, with one BLAS thread each."""
        todo = list(parts)
        if self._scan.threads == 1 or len(todo) < 2:
            for part in todo:
                work(part)
            return
        one_thread = functools.partial(_controller().limit, limits=1, user_api="blas")
        with _one_at_a_time, one_thread(), ThreadPoolExecutor(self._scan.threads) as pool:
            for _ in pool.map(work, todo):
                pass


_one_at_a_time = threading.Lock()


@functools.cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _blas_threads() -> int:
    """How many threads BLAS would use now, so that OMP_NUM_THREADS and threadpoolctl rule ours too."""
    counts = [library["num_threads"] for library in _controller().info() if library["user_api"] == "blas"]
    return max(counts, default=1)


def _scan(backend: str, points: np.ndarray, offsets: np.ndarray, distance: Distance) -> Scan:
    if backend == "auto":
        # The numpy scan is as fast as faiss on a CPU (benchmarks/neighbours.py); only a GPU that is in use already is faster.
        torch = sys.modules.get("torch")
        backend = "torch" if torch is not None and torch.cuda.is_available() else "numpy"
    if backend == "faiss":
        return FaissScan(_module("faiss", extra="faiss"), points, distance)
    if backend == "torch":
        return TorchScan(_module("torch", extra="local"), points, offsets)
    count, dimensions = points.shape
    return NumpyScan(points, offsets, threads=threads(count, dimensions, _blas_threads()))


def _module(name: str, *, extra: str) -> Any:
    try:
        return __import__(name)
    except (ImportError, RuntimeError, OSError) as error:  # faiss-gpu without its CUDA wheels raises RuntimeError
        raise ValueError(
            f"the neighbour backend {name!r} cannot be loaded ({error}). "
            f"Install privolve[{extra}], or use the backend 'numpy', which finds the same rows."
        ) from None


def _matrix(name: str, rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.shape[1] < 1 or not np.issubdtype(rows.dtype, np.floating):
        raise ValueError(f"{name} must be floats with a row an item, not {rows.dtype} of shape {rows.shape}")
    with np.errstate(over="ignore"):
        return rows.astype(np.float32, copy=False)


def _mean(rows: np.ndarray, distance: Distance) -> np.ndarray:
    """A float32-valued point in the middle of the database, as float64: centred points have smaller norms and narrower bands."""
    total = np.zeros(rows.shape[1])
    for block in blocks(len(rows), PREPARED_ROWS):
        total += exact(rows[block], distance).sum(axis=0)
    return (total / max(1, len(rows))).astype(np.float32).astype(np.float64)


def _equal_rows(rows: np.ndarray, good: np.ndarray) -> list[list[int]]:
    """The indices of each distinct row among `good`, ascending, in the order of their first."""
    seen: dict[bytes, list[int]] = {}
    for index in good.tolist():
        same = hashlib.blake2b((rows[index] + np.float32(0)).tobytes(), digest_size=32).digest()  # -0 equals 0
        seen.setdefault(same, []).append(index)
    return list(seen.values())
