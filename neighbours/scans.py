"""What proposes neighbours: a scan gives the best few float32 scores of every query, by numpy, faiss or torch.

A scan may order near-ties as it likes; `index.py` decides them. Each holds the database once, in float32.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from .blocks import SCAN_ROWS, SCAN_TILE
from .points import Distance

MASKED_PASSES = 8
"""Up to so many best scores, repeated argmax is faster than a partition."""


class Scan(Protocol):
    """`expanded` as in `bounds.band`; `rows` is how many queries one call should get, `threads` how many calls at once."""

    expanded: bool
    rows: int
    threads: int

    def best(self, queries: np.ndarray, many: int) -> tuple[np.ndarray, np.ndarray]:
        """The `many` highest scores of each query, highest first, float32, and their columns, int64."""
        ...


class NumpyScan:
    """Tiles of one matrix product, each read for its best scores while it is in the cache. Calls run side by side."""

    expanded = True
    rows = SCAN_ROWS
    tile = SCAN_TILE

    def __init__(self, points: np.ndarray, offsets: np.ndarray, *, threads: int) -> None:
        self.threads = threads
        # The offset is one more product, so that a score is one sum: (q, 1) . (d, -|d|^2/2).
        self._points = np.empty((len(points), points.shape[1] + 1), dtype=np.float32)
        self._points[:, :-1] = points
        self._points[:, -1] = offsets

    def best(self, queries: np.ndarray, many: int) -> tuple[np.ndarray, np.ndarray]:
        count = len(queries)
        extended = np.empty((count, queries.shape[1] + 1), dtype=np.float32)
        extended[:, :-1] = queries
        extended[:, -1] = 1
        scores = np.full((count, many), -np.inf, dtype=np.float32)
        columns = np.zeros((count, many), dtype=np.int64)
        for start in range(0, len(self._points), self.tile):
            some = extended @ self._points[start : start + self.tile].T
            new_scores, new_columns = _highest(some, min(many, some.shape[1]))
            scores = np.concatenate([scores, new_scores], axis=1)
            columns = np.concatenate([columns, new_columns + start], axis=1)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :many]
            scores = np.take_along_axis(scores, order, axis=1)
            columns = np.take_along_axis(columns, order, axis=1)
        return scores, columns


def _highest(scores: np.ndarray, many: int) -> tuple[np.ndarray, np.ndarray]:
    """The highest `many` of each row, in some order. Overwrites `scores`."""
    if many > MASKED_PASSES:
        columns = np.argpartition(scores, scores.shape[1] - many, axis=1)[:, scores.shape[1] - many :]
        return np.take_along_axis(scores, columns, axis=1), columns
    rows = np.arange(len(scores))
    found = np.empty((len(scores), many), dtype=np.float32)
    columns = np.empty((len(scores), many), dtype=np.int64)
    for place in range(many):
        if place:
            scores[rows, columns[:, place - 1]] = -np.inf
        columns[:, place] = scores.argmax(axis=1)
        found[:, place] = scores[rows, columns[:, place]]
    return found, columns


class FaissScan:
    """A flat index of faiss."""

    expanded = False
    rows = 16384
    threads = 1

    def __init__(self, faiss: Any, points: np.ndarray, distance: Distance) -> None:
        inner = distance is Distance.INNER_PRODUCT
        self._sign = np.float32(1.0 if inner else -0.5)
        self._index = faiss.IndexFlatIP(points.shape[1]) if inner else faiss.IndexFlatL2(points.shape[1])
        self._index.add(np.ascontiguousarray(points))

    def best(self, queries: np.ndarray, many: int) -> tuple[np.ndarray, np.ndarray]:
        found, columns = self._index.search(np.ascontiguousarray(queries), many)
        return found * self._sign, columns.astype(np.int64, copy=False)


class TorchScan:
    """Matrix products and topk of torch, on a GPU where there is one."""

    expanded = True
    rows = 4096
    tile = 16384
    threads = 1

    def __init__(self, torch: Any, points: np.ndarray, offsets: np.ndarray) -> None:
        self._torch = torch
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._points = torch.from_numpy(np.ascontiguousarray(points)).to(self._device)
        self._offsets = torch.from_numpy(np.ascontiguousarray(offsets)).to(self._device)

    def best(self, queries: np.ndarray, many: int) -> tuple[np.ndarray, np.ndarray]:
        torch = self._torch
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")  # TF32 and bfloat16 break the bound
        try:
            with torch.inference_mode():
                asked = torch.from_numpy(np.ascontiguousarray(queries)).to(self._device)
                scores: Any = None
                columns: Any = None
                for start in range(0, len(self._points), self.tile):
                    some = asked @ self._points[start : start + self.tile].T
                    some += self._offsets[start : start + self.tile]
                    new_scores, new_columns = some.topk(min(many, some.shape[1]), dim=1)
                    if scores is None:
                        scores, columns = new_scores, new_columns
                    else:
                        both = torch.cat([scores, new_scores], dim=1)
                        scores, order = both.topk(min(many, both.shape[1]), dim=1)
                        columns = torch.cat([columns, new_columns + start], dim=1).gather(1, order)
                return scores.cpu().numpy(), columns.cpu().numpy()
        finally:
            torch.set_float32_matmul_precision(precision)
