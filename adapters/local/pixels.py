"""Pixels between a request, Pillow and a model: sizes, grey and colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..contract import Image

if TYPE_CHECKING:
    from PIL.Image import Image as Picture


def picture(image: Image, size: tuple[int, int] | None = None) -> Picture:
    """The image in colour, at `size` (width, height) if one is given."""
    from PIL import Image as Pillow

    pixels = np.repeat(image.pixels, 3, axis=2) if image.pixels.shape[2] == 1 else image.pixels
    colour = Pillow.fromarray(np.ascontiguousarray(pixels))
    return colour if size is None or size == colour.size else colour.resize(size, Pillow.Resampling.BICUBIC)


def image_of(picture: Picture, *, size: tuple[int, int], channels: int, recipe: str = "") -> Image:
    """The picture as a reply: `size` = (width, height), `channels` 1 or 3. Larger pictures are averaged, not sampled."""
    from PIL import Image as Pillow

    drawn = picture.convert("L" if channels == 1 else "RGB")
    if drawn.size != size:
        drawn = drawn.resize(size, Pillow.Resampling.BICUBIC)
    return Image(np.asarray(drawn).reshape(size[1], size[0], channels).copy(), recipe=recipe)
