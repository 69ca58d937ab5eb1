"""Points and what is near: the float64 reference that decides every near-tie, whoever found it.

A row's point and the reference of a pair depend on that row and that pair alone: not on the batch, its order or its
size. So a neighbour is a function of one query and the database, whatever library proposed it.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from .blocks import PREPARED_ROWS


class Distance(StrEnum):
    """How two embeddings are compared. Under `COSINE` a zero row has no direction and counts as non-finite."""

    L2 = "l2"
    COSINE = "cosine"
    INNER_PRODUCT = "inner-product"


def exact(rows: np.ndarray, distance: Distance) -> np.ndarray:
    """The points of float32 rows as float64; on the unit sphere under cosine, where L2 orders as the cosine does."""
    points = np.array(rows, dtype=np.float64, order="C")
    if distance is Distance.COSINE:
        with np.errstate(all="ignore"):
            points /= np.sqrt((points * points).sum(axis=1))[:, None]
    return points


def usable(rows: np.ndarray, distance: Distance) -> np.ndarray:
    """Which rows are points at all: finite, and with a direction where one is needed."""
    found = np.empty(len(rows), dtype=np.bool_)
    for start in range(0, len(rows), PREPARED_ROWS):
        some = np.asarray(rows[start : start + PREPARED_ROWS])
        good = np.isfinite(some).all(axis=1)
        if distance is Distance.COSINE:
            good &= (some != 0).any(axis=1)
        found[start : start + PREPARED_ROWS] = good
    return found


def reference(queries: np.ndarray, points: np.ndarray, distance: Distance) -> np.ndarray:
    """The float64 distance of query i to point i, lower is nearer: squared L2, or minus the inner product.

    Both are rows that `exact` made. Each sum runs over one contiguous row, so that its rounding is the pair's own.
    """
    if distance is Distance.INNER_PRODUCT:
        return -(queries * points).sum(axis=1)
    difference = queries - points
    difference *= difference
    return difference.sum(axis=1)
