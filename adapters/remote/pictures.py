"""Pictures: images as they travel, and as the contract wants them back.

A provider paints the sizes that it likes. The size asked of it is the nearest of its own that holds the wanted one; the
reply is cut to the wanted shape around its middle, then scaled down. Bytes and pixels of a reply are limited before
anything is decoded.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import re
import warnings
from collections.abc import Sequence

import numpy as np
import PIL.Image

from ..contract import Image

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 4096 * 4096


class NoPicture(ValueError):
    """The bytes are no image that is accepted; the message holds none of them."""


def png(image: Image) -> bytes:
    """The pixels exactly, without any metadata."""
    pixels = image.pixels[:, :, 0] if image.pixels.shape[2] == 1 else image.pixels
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG")
    return buffer.getvalue()


def data_url(image: Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"


def from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoPicture("an image that is not base64") from None


def fitted(data: bytes, size: tuple[int, int], channels: int) -> Image:
    """The image in `data`, cut to the shape of `size` (width, height) and scaled to it; grey if `channels` is 1."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise NoPicture(f"an image of {opened.width} x {opened.height} pixels, more than {MAX_PIXELS}")
                picture = _opaque(opened).convert("L" if channels == 1 else "RGB")
    except NoPicture:
        raise
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
        raise NoPicture("bytes that are no PNG, JPEG or WebP image") from None
    if picture.size != size:
        picture = _cut(picture, size[0] / size[1]).resize(size, PIL.Image.Resampling.LANCZOS)
    pixels = np.asarray(picture, dtype=np.uint8)
    return Image(pixels[:, :, None] if channels == 1 else pixels)


def nearest_size(sizes: Sequence[str], wanted: tuple[int, int]) -> tuple[int, int]:
    """Of the sizes that a model paints ("WxH"), the shape nearest to the wanted one, and of these the smallest that holds it.

    >>> nearest_size(["1024x1024", "1536x1024"], (64, 64))
    (1024, 1024)
    """
    offered = [parse_size(size) for size in sizes]
    shape = math.log(wanted[0] / wanted[1])
    nearest = min(abs(math.log(width / height) - shape) for width, height in offered)
    alike = [one for one in offered if abs(math.log(one[0] / one[1]) - shape) <= nearest + 1e-9]
    holding = [one for one in alike if one[0] >= wanted[0] and one[1] >= wanted[1]]
    return min(holding) if holding else max(alike)


def parse_size(text: str) -> tuple[int, int]:
    """The (width, height) of "WxH".

    >>> parse_size("1536x1024")
    (1536, 1024)
    """
    match = re.fullmatch(r"([1-9]\d{0,4})[x*]([1-9]\d{0,4})", text)
    if match is None:
        raise ValueError(f"{text!r} is no size such as '1024x1024'")
    return int(match[1]), int(match[2])


def _cut(picture: PIL.Image.Image, shape: float) -> PIL.Image.Image:
    """The largest middle part whose width is `shape` times its height; it is copied, so scaling sees nothing beyond it."""
    width = min(picture.width, max(1, round(picture.height * shape)))
    height = min(picture.height, max(1, round(picture.width / shape)))
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def _opaque(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Transparent parts become white."""
    if not picture.has_transparency_data:
        return picture
    layered = picture.convert("RGBA")
    white = PIL.Image.new("RGBA", layered.size, "white")
    return PIL.Image.alpha_composite(white, layered)
