"""A glyph as a handful of numbers, and its picture: what all the glyph models draw with.

A picture is one look-up per pixel in the distance field of the character (`fonts.py`): pixel centres are carried back
through placement, rotation, slant, stretch and warp, and the distance found there is compared with half the width of
the line. Only additions, products and comparisons are made on pixels, so that a picture is the same to the last bit
whatever is drawn beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Literal

import numpy as np

from ..contract import Image
from .fonts import GRID, REACH, faces_with, shape

Ink = Literal["white", "black"]
Centre = Literal["box", "mass"]

_CHUNK_PIXELS = 1 << 16
_STROKES = 4  # steps between the font's line and the pen's
_HAIRLINE = 0.35


@dataclass(frozen=True, kw_only=True)
class Glyph:
    """What is drawn. Lengths are shares of the image's shorter side where not said otherwise, angles are degrees."""

    character: str
    font: str
    size: float = 0.72
    """The longer side of the drawn box."""
    weight: float = 0.06
    """Half the width of the line, as a share of `size`."""
    stretch: float = 1.0
    """Width against height, as a multiple of the font's own."""
    slant: float = 0.0
    """How far it leans to the right."""
    rotation: float = 0.0
    """How far it is turned anticlockwise."""
    stroke: float = 0.0
    """0: thick and thin as in the font; 1: the even line of a pen."""
    bend: float = 0.0
    """Top and bottom moved to the right of the middle, as a share of the height."""
    wave: float = 0.0
    """Upper half moved to the right and lower half to the left, as a share of the height; the ends stay."""
    taper: float = 0.0
    """How much wider than the middle the top is, and how much narrower the bottom."""
    waist: float = 0.0
    """How far the middle is raised, as a share of the height."""
    x: float = 0.0
    """Offset to the right."""
    y: float = 0.0
    """Offset downwards."""
    blur: float = 0.0
    """Width of the soft edge."""


NUMBERS = tuple(field.name for field in fields(Glyph) if field.name not in ("character", "font"))
"""The parameters that are numbers, in the order of the dataclass."""


def recipe(glyph: Glyph) -> str:
    """The glyph as canonical JSON; `glyph_of` reads it."""
    numbers = {name: round(float(getattr(glyph, name)), 4) + 0.0 for name in NUMBERS}
    return json.dumps({"character": glyph.character, "font": glyph.font} | numbers, separators=(",", ":"))


def glyph_of(recipe: str) -> Glyph | None:
    """The glyph of a recipe, or None where it is no recipe of this module."""
    try:
        table = dict(json.loads(recipe))
        character, font = table.pop("character"), table.pop("font")
        glyph = Glyph(character=character, font=font, **{name: float(value) for name, value in table.items()})
    except (ValueError, TypeError, KeyError):
        return None
    if not isinstance(character, str) or len(character) != 1 or font not in faces_with(character):
        return None
    return glyph if all(math.isfinite(getattr(glyph, name)) for name in NUMBERS) else None


def draw(
    glyphs: Sequence[Glyph],
    *,
    size: tuple[int, int],
    channels: int,
    ink: Ink = "white",
    centre: Centre = "box",
) -> list[Image]:
    """The pictures of `glyphs`, each with its recipe; numbers count to four decimals, as the recipe tells them."""
    width, height = size
    detail = 4 if min(size) < 20 else 1
    recipes = [recipe(glyph) for glyph in glyphs]
    chunk = max(_CHUNK_PIXELS // (width * height * detail**2), 1)
    images: list[Image] = []
    for first in range(0, len(glyphs), chunk):
        some = slice(first, first + chunk)
        grey = _ink(glyphs[some], width, height, detail, centre)
        pixels = grey if ink == "white" else 255 - grey
        images += [
            Image(np.repeat(picture[:, :, None], channels, axis=2), text)
            for picture, text in zip(pixels, recipes[some], strict=True)
        ]
    return images


def _ink(glyphs: Sequence[Glyph], width: int, height: int, detail: int, centre: Centre) -> np.ndarray:
    """How much ink covers each pixel: uint8 (glyphs, height, width)."""
    shapes = [shape(glyph.font, glyph.character) for glyph in glyphs]
    values = np.round(np.array([[getattr(glyph, name) for name in NUMBERS] for glyph in glyphs], dtype=np.float64), 4)
    p = dict(zip(NUMBERS, values.T, strict=True))
    side = min(width, height)
    stretch = np.maximum(p["stretch"], 0.05)
    slant, cosine, sine = _angles(p["slant"], p["rotation"])

    # Where the hull of the centre line comes to lie before scaling, to first order in the warp.
    hull = np.stack([item.landmarks for item in shapes])
    x, y = hull[:, :, 0], hull[:, :, 1]
    back_x, back_y = _warped(x, y, p)
    x, y = (2 * x - back_x) * stretch[:, None], 2 * y - back_y
    x = x - slant[:, None] * y
    x, y = cosine[:, None] * x + sine[:, None] * y, cosine[:, None] * y - sine[:, None] * x
    low_x, high_x, low_y, high_y = x[:, :-1].min(1), x[:, :-1].max(1), y[:, :-1].min(1), y[:, :-1].max(1)
    extent = np.maximum(np.maximum(high_x - low_x, high_y - low_y), 1e-3)

    # Pixels for one unit of the shape, and where the shape's origin lies in the image.
    line = np.clip(p["weight"], 0.005, 0.4) * p["size"] * side
    scale = np.maximum(p["size"] * side - 2 * line, 1.0) / extent
    middle_x, middle_y = ((low_x + high_x) / 2, (low_y + high_y) / 2) if centre == "box" else (x[:, -1], y[:, -1])
    left = width / 2 + p["x"] * side - scale * middle_x
    top = height / 2 + p["y"] * side - scale * middle_y

    # From pixel centres back to the shape.
    columns = ((np.arange(width * detail) + 0.5) / detail).astype(np.float32)
    rows = ((np.arange(height * detail) + 0.5) / detail).astype(np.float32)
    f = {name: value.astype(np.float32)[:, None, None] for name, value in p.items()}
    per_pixel = (1 / scale).astype(np.float32)
    u = (columns - left.astype(np.float32)[:, None]) * per_pixel[:, None]
    v = (rows - top.astype(np.float32)[:, None]) * per_pixel[:, None]
    c, s = cosine.astype(np.float32)[:, None, None], sine.astype(np.float32)[:, None, None]
    y32 = s * u[:, None, :] + c * v[:, :, None]
    x32 = c * u[:, None, :] - s * v[:, :, None]
    x32 += slant.astype(np.float32)[:, None, None] * y32
    x32 /= stretch.astype(np.float32)[:, None, None]
    x32, y32 = _warped(x32, y32, f)

    # The distance found there, the line around it, and its soft edge.
    distance = _looked_up(glyphs, x32, y32)
    wide = np.sqrt(stretch) * scale
    edge = (1 / detail + np.maximum(p["blur"], 0) * side) / wide
    distance += (line / wide).astype(np.float32)[:, None, None]
    distance *= (1 / edge).astype(np.float32)[:, None, None]
    distance += np.float32(0.5)
    cover = np.clip(distance, 0, 1, out=distance)
    blurred = (p["blur"] > 0)[:, None, None]
    cover = np.where(blurred, cover * cover * (3 - 2 * cover), cover)
    if detail > 1:
        parts = [cover[:, i::detail, j::detail] for i in range(detail) for j in range(detail)]
        cover = sum(parts[1:], start=parts[0]) / np.float32(detail**2)
    return (cover * 255 + np.float32(0.5)).astype(np.uint8)


def _angles(slant: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """tan(slant), cos(rotation), sin(rotation), one number at a time: vector loops of numpy differ in the last bit."""
    lean = np.array([math.tan(math.radians(max(min(angle, 75.0), -75.0))) for angle in slant.tolist()])
    turns = [math.radians(angle) for angle in rotation.tolist()]
    return lean, np.array([math.cos(turn) for turn in turns]), np.array([math.sin(turn) for turn in turns])


def _warped(x: np.ndarray, y: np.ndarray, p: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Points of the drawn shape carried back to the font's."""
    bend, wave, taper, waist = (
        p[name] if p[name].ndim == x.ndim else p[name][:, None] for name in ("bend", "wave", "taper", "waist")
    )
    square = y * y * 4
    moved_y = y + waist * np.maximum(1 - square, 0)
    # 2.6 makes the cubic's largest value 1.
    moved_x = x + taper * 2 * y * x - bend * (square - 0.5) + wave * 2 * 2.6 * y * np.maximum(1 - square, 0)
    return moved_x, moved_y


def _looked_up(glyphs: Sequence[Glyph], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The field of each glyph's line at its points, between cells by bilinear interpolation."""
    lines = [(glyph.font, glyph.character, _stroke_step(glyph.stroke)) for glyph in glyphs]
    index = {line: row for row, line in enumerate(dict.fromkeys(lines))}
    atlas = np.concatenate([_line(*line).reshape(-1) for line in index])
    offset = np.array([index[line] for line in lines], dtype=np.int32)[:, None, None] * (GRID * GRID)
    cells = np.float32(GRID / (2 * REACH))
    x = np.clip(x * cells + np.float32(GRID / 2 - 0.5), 0, GRID - 1.001)
    y = np.clip(y * cells + np.float32(GRID / 2 - 0.5), 0, GRID - 1.001)
    column, row = x.astype(np.int32), y.astype(np.int32)
    x -= column
    y -= row
    at = offset + row * GRID + column
    upper, lower = atlas.take(at), atlas.take(at + GRID)
    upper += x * (atlas.take(at + 1) - upper)
    lower += x * (atlas.take(at + GRID + 1) - lower)
    return upper + y * (lower - upper)


def _stroke_step(stroke: float) -> int:
    return min(max(round(round(stroke, 4) * _STROKES), 0), _STROKES)


@cache
def _line(font: str, character: str, step: int) -> np.ndarray:
    """The field between the font's line (step 0) and the pen's (step _STROKES)."""
    item, even = shape(font, character), step / _STROKES
    mixed = (1 - even) * item.outline + even * item.centreline
    # However thin the line is drawn, hairlines of the font do not break.
    return np.maximum(mixed, item.centreline - _HAIRLINE * item.half_width).astype(np.float32)
