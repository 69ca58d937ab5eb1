"""The faces that come with matplotlib and Pillow, and the shape of a character in each as two distance fields.

From distances a line of any thickness and softness is drawn by one comparison, so a character is rasterised once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

BUILT_IN = "Aileron"
"""The face inside Pillow."""

GRID = 72
"""Cells along each side of a field."""

REACH = 0.75
"""A field covers [-REACH, REACH] in both directions; the longer side of the character's box is [-0.5, 0.5]."""

_BOX = GRID / (2 * REACH)  # cells along the longer side of the box
_OVERSAMPLING = 2
_FONT_SIZE = 120
_FAR = -1.0
# Symbol fonts, fragments of brackets and the font of last resort have digits' codes, but not digits' shapes.
_NO_TEXT = ("Siz", "NonUni", "Display", "LastResort", "cmsy", "cmex")


@dataclass(frozen=True, kw_only=True, eq=False)
class Shape:
    """A character in a face. Coordinates: x to the right, y downwards, the centre of its box at 0.

    `outline`, `centreline`: float32 (GRID, GRID), positive within the line. Both are 0 where the line's centre is and
    fall with the distance from the drawn edge or from the centre line; add a half-width to get the inside of a line.
    `landmarks`: points (n, 2) that span the convex hull of the centre line; the last one is the centre of mass.
    """

    outline: np.ndarray
    centreline: np.ndarray
    half_width: float
    landmarks: np.ndarray


@cache
def faces() -> dict[str, Path | None]:
    """Usable faces by name, in a fixed order; the path is None for the face inside Pillow."""
    # The folder of `matplotlib.get_data_path()`, without the time that importing matplotlib takes.
    package = find_spec("matplotlib")
    assert package is not None and package.origin is not None  # A dependency of ours.
    folder = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf"
    files = sorted(path for path in folder.glob("*.ttf") if not any(part in path.stem for part in _NO_TEXT))
    return {path.stem: path for path in files} | {BUILT_IN: None}


@cache
def faces_with(character: str) -> tuple[str, ...]:
    """The faces that have the character."""
    return tuple(name for name in faces() if _raster(name, character) is not None)


@cache
def shape(face: str, character: str) -> Shape:
    """The character's shape in the face; ValueError where the face lacks it."""
    from scipy.ndimage import distance_transform_edt

    raster = _raster(face, character)
    if raster is None:
        raise ValueError(
            f"the face {face!r} has no character {character!r}; faces that have it: {faces_with(character)}"
        )
    ink = _placed(raster)
    line = _thinned(ink)
    unit = _BOX * _OVERSAMPLING
    inside = np.asarray(distance_transform_edt(ink))
    outside = np.asarray(distance_transform_edt(~ink))
    from_line = np.asarray(distance_transform_edt(~line))
    edge = np.where(ink, inside - 0.5, 0.5 - outside) / unit
    half_width = float(np.median(edge[line]))
    return Shape(
        outline=_field(edge - half_width),
        centreline=_field(-from_line / unit),
        half_width=half_width,
        landmarks=np.concatenate([_hull(line), _coordinates(np.argwhere(ink)).mean(axis=0, keepdims=True)]),
    )


@cache
def _font(face: str) -> Any:
    from PIL import ImageFont

    path = faces()[face]
    return ImageFont.load_default(_FONT_SIZE) if path is None else ImageFont.truetype(str(path), _FONT_SIZE)


@cache
def _raster(face: str, character: str) -> np.ndarray | None:
    """The character's grey raster, cut to its box; None where the face has no such character or an empty one."""
    pixels = _pixels(face, character)
    missing = _pixels(face, "\uffff")
    if pixels is None or (missing is not None and np.array_equal(pixels, missing)):
        return None
    return pixels


@cache
def _pixels(face: str, character: str) -> np.ndarray | None:
    mask = _font(face).getmask(character, mode="L")
    if 0 in mask.size:
        return None
    pixels = np.frombuffer(bytes(mask), dtype=np.uint8).reshape(mask.size[1], mask.size[0])
    rows, columns = np.flatnonzero(pixels.max(1) > 127), np.flatnonzero(pixels.max(0) > 127)
    if not len(rows):
        return None
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _placed(raster: np.ndarray) -> np.ndarray:
    """The raster scaled so that its longer side has the length of the box, in the middle of an oversampled grid."""
    from PIL import Image

    unit = int(_BOX * _OVERSAMPLING)
    height, width = raster.shape
    scale = unit / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    scaled = np.asarray(Image.fromarray(raster).resize(size, Image.Resampling.BILINEAR)) > 127
    side = GRID * _OVERSAMPLING
    ink = np.zeros((side, side), dtype=bool)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    ink[top : top + size[1], left : left + size[0]] = scaled
    return ink


def _thinned(ink: np.ndarray) -> np.ndarray:
    """The centre line: thinning by Zhang and Suen (1984)."""
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    line = ink[rows[0] - 1 : rows[-1] + 2, columns[0] - 1 : columns[-1] + 2].astype(np.uint8)
    inner = line[1:-1, 1:-1]
    height, width = inner.shape
    left = -1
    while left != (left := int(inner.sum())):
        for removed in _removal_tables():
            around = np.zeros_like(inner)
            for bit, (down, right) in enumerate(_AROUND):
                around |= line[1 + down : 1 + down + height, 1 + right : 1 + right + width] << bit
            inner &= removed[around]
    thin = np.zeros_like(ink)
    thin[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = inner
    return thin


_AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
"""The eight neighbours (down, right), clockwise from the one above."""


@cache
def _removal_tables() -> tuple[np.ndarray, np.ndarray]:
    """For each of the two half-steps and each pattern of neighbours: 0 where the cell goes, 1 where it stays."""
    tables = np.ones((2, 256), dtype=np.uint8)
    for pattern in range(256):
        around = [pattern >> bit & 1 for bit in range(8)]
        rises = sum(around[i] < around[(i + 1) % 8] for i in range(8))
        above, right, below, left = around[0], around[2], around[4], around[6]
        if 2 <= sum(around) <= 6 and rises == 1:
            tables[0, pattern] = bool(above and right and below) or bool(right and below and left)
            tables[1, pattern] = bool(above and right and left) or bool(above and below and left)
    return tables[0], tables[1]


def _field(values: np.ndarray) -> np.ndarray:
    side = GRID * _OVERSAMPLING
    mean = (
        values.reshape(GRID, _OVERSAMPLING, side // _OVERSAMPLING, _OVERSAMPLING).mean(axis=(1, 3)).astype(np.float32)
    )
    # What lies beyond the field reads its border.
    mean[[0, -1], :] = mean[:, [0, -1]] = _FAR
    return mean


def _coordinates(cells: np.ndarray) -> np.ndarray:
    """Cells (row, column) of the oversampled grid as points (x, y)."""
    return ((cells[:, ::-1] + 0.5) / (_BOX * _OVERSAMPLING) - REACH).astype(np.float64)


def _hull(line: np.ndarray) -> np.ndarray:
    points = _coordinates(np.argwhere(line))
    angles = np.arange(16) * (2 * np.pi / 16)
    reach = points @ np.stack([np.cos(angles), np.sin(angles)])
    return points[reach.argmax(axis=0)]
