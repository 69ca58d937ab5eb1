"""How far a computed score can lie from the true one: what counts as a near-tie.

The score of a pair is `q.d - |d|^2/2` (`q.d` for the inner product) of centred points: higher is nearer, and for one query
it differs from `-|q - d|^2 / 2` by a constant. A sum of n products in any order, fused or not, errs by at most
`gamma(n) * sum |x_i y_i|` with `gamma(n) = n u / (1 - n u)` (Higham 2002, section 3.1), and `sum |x_i y_i| <= |x| |y|`.

Rule: if two candidates' computed scores differ by more than `band`, the higher one is nearer by the float64 reference too.
Proof: let S, s and R be a candidate's computed score, its true score and minus its reference in the unit of s. |S - s| <= e
and |R - s| <= r for every candidate (up to the constant of the query), and band >= 2 e + 2 r; then S_i - S_j > band gives
R_i - R_j > 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .points import Distance

UNIT32 = 2.0**-24
UNIT64 = 2.0**-53
SLACK = 1.02
"""Covers the rounding of the norms and of the bound itself, which are far below one per cent."""
SMALLEST = 2.0**-120
"""More than what a flushed subnormal (2^-126) can cost in one operation."""


def gamma(terms: int, unit: float) -> float:
    return terms * unit / (1 - terms * unit)


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Norms that bound a database: `centred` of the points after centring, `plain` before it, in one unit."""

    dimensions: int
    centred: float
    plain: float


def band(norms: np.ndarray, extent: Extent, distance: Distance, *, unit: float, expanded: bool) -> np.ndarray:
    """The near-tie band of each query, whose centred points have `norms`, for scores computed in precision `unit`.

    `expanded`: the score was computed as one sum of d + 1 products; otherwise (faiss) as `-(|q|^2 + |d|^2 - 2 q.d) / 2` or as
    the sum of squared differences, both of which err by no more than the whole square `(|q| + |d|)^2` allows.
    """
    far, terms = extent.centred, extent.dimensions + 6
    norms = norms.astype(np.float64) * SLACK + SMALLEST
    whole = (norms + far) ** 2 / 2
    if distance is Distance.INNER_PRODUCT:
        size = norms * far
        settling = gamma(terms, UNIT64) * norms * extent.plain
    else:
        size = norms * far + far * far / 2 if expanded else whole
        settling = gamma(terms, UNIT64) * 2 * whole
    # Four units a coordinate for centring and for rounding the points themselves, in both factors.
    relative = gamma(terms, unit) + 10 * unit
    # Flushed subnormals, in float32 only: float64 has room for every product of two float32 numbers.
    floor = terms * SMALLEST * (1 + far + norms) if unit == UNIT32 else 0.0
    return 2 * SLACK * (relative * size + settling + floor)
