"""Gaussian noise for sums of real vectors, on a lattice: clip, truncate, sum in integers, add rounded noise.

Formal guarantee: each contribution is cut to L2 norm at most C (checked in integers), so a record moves the sum by at most
C. The sum is a vector of integers, so adding noise rounded to integers gives what rounding the sum plus real Gaussian noise
would give: post-processing of the ideal Gaussian mechanism. What remains is the sampler: 64-bit tails, computational security.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from .mechanism import MOST_NOISE
from .randomness import SecretRng

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESOLUTION = 2**20
"""Lattice points in one clip norm: the lattice is the multiples of C / RESOLUTION."""

SHRINK = 1 - 1e-5
"""Taken from every clipping factor, so that rounding in the norm can never lift a contribution above C."""


def on_lattice(rows: NDArray[Any], clip_norm: float) -> NDArray[np.int64]:
    """Each row clipped to L2 norm `clip_norm` and cut toward zero to the lattice, in units of `clip_norm / RESOLUTION`.

    A row that holds a non-finite number contributes zero. Row i of the result depends on row i alone.
    """
    if not 0 < clip_norm < math.inf:
        raise ValueError(f"the clip norm is {clip_norm}; it must be a finite number above 0")
    flat = np.array(rows.reshape(len(rows), math.prod(rows.shape[1:])), dtype=np.float64, order="C")
    usable = np.isfinite(flat).all(axis=1)
    flat[~usable] = 0.0
    largest = np.abs(flat).max(axis=1, initial=0.0)
    largest[largest == 0.0] = 1.0
    unit = flat / largest[:, None]
    # In units of the largest entry, so that nothing overflows; a sum by rows, whose order knows nothing of other rows.
    norms = np.sqrt(np.square(unit).sum(axis=1))
    with np.errstate(over="ignore", divide="ignore"):
        factor = np.minimum(largest / clip_norm, 1 / np.maximum(norms, 1e-300)) * (SHRINK * RESOLUTION)
    points = np.trunc(unit * factor[:, None]).astype(np.int64)
    points[np.square(points).sum(axis=1) > RESOLUTION**2] = 0
    return points.reshape(rows.shape)


def noisy(
    total: NDArray[np.int64], *, clip_norm: float, noise_multiplier: float, secret: SecretRng
) -> NDArray[np.float64]:
    """A sum of lattice rows with noise of standard deviation `noise_multiplier * clip_norm` on every coordinate."""
    if total.dtype != np.int64:
        raise TypeError(f"lattice noise is for int64 sums, not {total.dtype}")
    if not noise_multiplier <= MOST_NOISE:
        raise ValueError(f"noise of {noise_multiplier:g} clip norms overflows 64-bit integers; at most {MOST_NOISE:g}")
    noise = np.rint(secret.gaussian(total.shape, noise_multiplier * RESOLUTION)).astype(np.int64)
    return np.multiply(total + noise, clip_norm / RESOLUTION, dtype=np.float64)


def lattice_sum(
    batches: Iterable[NDArray[Any]],
    *,
    shape: tuple[int, ...],
    clip_norm: float,
    noise_multiplier: float,
    secret: SecretRng,
) -> NDArray[np.float64]:
    """The noisy sum of all rows of all batches, of `shape` a row: the same whatever the batches are cut into."""
    total = np.zeros(shape, dtype=np.int64)
    for rows in batches:
        total += on_lattice(rows, clip_norm).sum(axis=0, dtype=np.int64)
    return noisy(total, clip_norm=clip_norm, noise_multiplier=noise_multiplier, secret=secret)
