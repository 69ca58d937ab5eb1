"""Images as data URIs: exact where they are tiny, thumbnails where they are not, so that a page stays small."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

TINY = 64
"""Up to this edge an image is kept pixel by pixel and drawn enlarged without smoothing."""

THUMBNAIL = 144
"""The longest edge of anything larger."""

SHOWN_EDGE = 52
"""A tiny image is enlarged by the least whole number that makes its width at least this."""


@dataclass(frozen=True)
class Encoded:
    """An image for the page: its data URI, and the size in CSS pixels at which it is shown."""

    uri: str
    width: int
    height: int
    tiny: bool


def encode(pixels: np.ndarray) -> Encoded:
    """One image."""
    height, width = pixels.shape[:2]
    if max(height, width) <= TINY:
        scale = -(-SHOWN_EDGE // width)
        return Encoded(_uri(_flat(pixels), "PNG"), width * scale, height * scale, True)
    image = Image.fromarray(_flat(pixels))
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return Encoded(_uri(image, "JPEG"), image.width, image.height, False)


def montage(images: Sequence[np.ndarray], *, columns: int, edge: int = 28) -> Encoded:
    """Several images as one, row by row, with a gap of one pixel, each at least `edge` wide; only the first if not tiny."""
    if max(max(image.shape[:2]) for image in images) > TINY:
        first = encode(images[0])
        return Encoded(first.uri, -(-first.width // 2), -(-first.height // 2), False)
    height = max(image.shape[0] for image in images)
    width = max(image.shape[1] for image in images)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    colour = any(image.ndim == 3 and image.shape[2] == 3 for image in images)
    sheet = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, 4 if colour else 2), dtype=np.uint8)
    for place, image in enumerate(images):
        top, left = place // columns * (height + 1), place % columns * (width + 1)
        cell = sheet[top : top + image.shape[0], left : left + image.shape[1]]
        cell[..., :-1] = image if image.ndim == 3 else image[..., None]
        cell[..., -1] = 255
    scale = max(1, -(-edge // width))
    return Encoded(_uri(sheet, "PNG"), sheet.shape[1] * scale, sheet.shape[0] * scale, True)


def _flat(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels


def _uri(image: np.ndarray | Image.Image, kind: str) -> str:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(np.ascontiguousarray(image))
    buffer = io.BytesIO()
    if kind == "PNG":
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=85)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
