"""Precision and recall by nearest neighbours, density and coverage: is it realistic, and is all of it there?

The ball of an item reaches to its k-th nearest neighbour of its own set, itself not counted. Balls are closed, and what
lies on the edge is decided by exact distances, so that copies of real items count as what they are.

    precision   the share of synthetic items inside some real ball        Kynkaanniemi et al. (2019), equation 1
    recall      the share of real items inside some synthetic ball        Kynkaanniemi et al. (2019), equation 2
    density     real balls that a synthetic item is inside, over k        Naeem et al. (2020), equation 5
    coverage    the share of real balls with a synthetic item inside      Naeem et al. (2020), equation 6

Decision: distances are made in tiles of float32 products. A pair whose computed distance differs from a radius by no more
than the proven error of such a product is measured again, alone, in float64. Memory does not depend on n x m.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from ..neighbours import Distance, reference, search
from ..neighbours.blocks import blocks, reference_pairs
from ..neighbours.bounds import SLACK, UNIT32, gamma
from .metric import SHARE, Items, MetricError, Score, same_network
from .metric_config import Judge, MetricConfig, References, at_least, score

ROWS = 1024
COLUMNS = 2048
"""Real and synthetic items of one tile."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Balls:
    """Float32 `points` (n, d), and the float64 square of each one's distance to its k-th neighbour."""

    points: np.ndarray
    squares: np.ndarray
    k: int

    @classmethod
    def of(cls, features: np.ndarray, k: int) -> Balls:
        """Around rows of features, of which there must be more than k."""
        points = np.ascontiguousarray(features, dtype=np.float32)
        if not 1 <= k < len(points):
            raise MetricError(f"{len(points)} items have no {k}-th neighbour beside themselves")
        # The nearest of the k + 1 is the item itself, or an equal one.
        farthest = np.ascontiguousarray(search(points, points, k=k + 1)[:, k])
        squares = np.empty(len(points))
        for block in blocks(len(points), reference_pairs(points.shape[1])):
            squares[block] = _squares(points[block], points[farthest[block]])
        return cls(points=points, squares=squares, k=k)


@dataclass(frozen=True, kw_only=True)
class Manifolds:
    """The four figures of one synthetic set; density may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def compare(real: Balls, synthetic: Balls) -> Manifolds:
    """Both with the same k and dimensions."""
    if real.k != synthetic.k or real.points.shape[1] != synthetic.points.shape[1]:
        raise MetricError("two sets of balls are compared only with equal k and dimensions")
    centre = real.points.mean(axis=0, dtype=np.float64)
    around = np.zeros(len(synthetic.points), dtype=np.int64)
    covered = np.zeros(len(real.points), dtype=np.bool_)
    recalled = np.zeros(len(real.points), dtype=np.bool_)
    for columns in blocks(len(synthetic.points), COLUMNS):
        theirs = _Tile.of(synthetic, columns, centre)
        for rows in blocks(len(real.points), ROWS):
            ours = _Tile.of(real, rows, centre)
            in_real, in_synthetic = _inside(ours, theirs)
            around[columns] += in_real.sum(axis=0)
            covered[rows] |= in_real.any(axis=1)
            recalled[rows] |= in_synthetic.any(axis=1)
    return Manifolds(
        precision=float((around > 0).mean()),
        recall=float(recalled.mean()),
        density=float(around.mean() / real.k),
        coverage=float(covered.mean()),
    )


class PrecisionRecall(MetricConfig):
    """Precision, recall, density and coverage, each with its k in its name."""

    kind: str = Field(default="precision-recall", pattern="^precision-recall$")
    k: int = Field(default=3, ge=1)

    def scores(self, real: Items, synthetic: Items) -> tuple[Score, ...]:
        return self.judge(References(test=real))(synthetic)

    def judge(self, references: References) -> Judge:
        real = references.test
        balls: list[Balls] = []

        def figures(synthetic: Items) -> tuple[Score, ...]:
            same_network(real, synthetic)
            at_least(self.k + 1, f"the neighbour {self.k} of an item", real, synthetic, instead="lower `k`")
            if not balls:
                balls.append(Balls.of(real.rows, self.k))
            found = compare(balls[0], Balls.of(synthetic.rows, self.k))
            figures = {
                "precision": (found.precision, SHARE),
                "recall": (found.recall, SHARE),
                "density": (found.density, ""),
                "coverage": (found.coverage, SHARE),
            }
            return tuple(
                score(f"{name} (k = {self.k})", value, synthetic, real, better="higher", unit=unit, least=0.0)
                for name, (value, unit) in figures.items()
            )

        return figures


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tile:
    """Some items of a set of balls: as they are, and centred, with norms."""

    points: np.ndarray
    squares: np.ndarray
    centred: np.ndarray
    norms: np.ndarray

    @classmethod
    def of(cls, balls: Balls, some: slice, centre: np.ndarray) -> _Tile:
        centred = (balls.points[some] - centre).astype(np.float32)
        norms = np.sqrt(np.einsum("ij,ij->i", centred, centred, dtype=np.float64))
        return cls(points=balls.points[some], squares=balls.squares[some], centred=centred, norms=norms)


def _inside(ours: _Tile, theirs: _Tile) -> tuple[np.ndarray, np.ndarray]:
    """Which of their points are in our balls, and which of ours are in theirs; both (ours, theirs)."""
    distances = ours.centred @ theirs.centred.T
    distances *= np.float32(-2)
    distances += (ours.norms**2).astype(np.float32)[:, None]
    distances += (theirs.norms**2).astype(np.float32)
    # As bounds.band, for a square distance: products, centring, rounding of the points and of both norms.
    relative = SLACK * (gamma(ours.points.shape[1] + 6, UNIT32) + 12 * UNIT32)
    our_error = relative * (ours.norms + theirs.norms.max(initial=0.0)) ** 2
    their_error = relative * (theirs.norms + ours.norms.max(initial=0.0)) ** 2
    in_ours = _decided(distances, ours.squares[:, None], our_error[:, None], ours, theirs)
    in_theirs = _decided(distances, theirs.squares, their_error, ours, theirs)
    return in_ours, in_theirs


def _decided(distances: np.ndarray, squares: np.ndarray, error: np.ndarray, ours: _Tile, theirs: _Tile) -> np.ndarray:
    """`distance <= square` of each pair; `squares` and `error` have one number a row or a column."""
    # Rounded away from the square, so that float32 limits are no narrower than the float64 ones.
    low = np.nextafter((squares - error).astype(np.float32), np.float32(-np.inf))
    high = np.nextafter((squares + error).astype(np.float32), np.float32(np.inf))
    inside = distances <= high
    rows, columns = np.nonzero(inside & (distances > low))
    exact = np.broadcast_to(squares, distances.shape)
    for block in blocks(len(rows), reference_pairs(ours.points.shape[1])):
        row, column = rows[block], columns[block]
        inside[row, column] = _squares(ours.points[row], theirs.points[column]) <= exact[row, column]
    return inside


def _squares(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Square distances of pairs of float32 points; equal pairs in either order give equal numbers."""
    return reference(first.astype(np.float64), second.astype(np.float64), Distance.L2)
