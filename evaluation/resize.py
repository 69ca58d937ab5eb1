"""The resize of clean-fid: bicubic with antialiasing, each channel in floats, never rounded to bytes.

What a library calls bicubic may skip antialiasing or round, which moves a Frechet distance by more than most methods
differ (Parmar et al. 2022, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..neighbours.blocks import blocks

INCEPTION = (299, 299)
"""Width and height that Inception wants."""


def clean_resize(image: np.ndarray, size: tuple[int, int] = INCEPTION) -> np.ndarray:
    """An image (height, width, channels) of values 0 to 255 as float32 (height, width, channels) of `size` (width, height)."""
    from PIL import Image as Pillow

    planes = [Pillow.fromarray(np.ascontiguousarray(plane, dtype=np.float32)) for plane in np.moveaxis(image, 2, 0)]
    resized = [np.asarray(plane.resize(size, Pillow.Resampling.BICUBIC)) for plane in planes]
    return np.stack(resized, axis=2).clip(0, 255)


def clean_resized(
    images: np.ndarray, size: tuple[int, int] = INCEPTION, *, chunk: int = 64, channels: int = 3
) -> Iterator[np.ndarray]:
    """Images (n, height, width, channels) in parts of at most `chunk`, grey ones repeated to `channels`."""
    for block in blocks(len(images), chunk):
        part = np.stack([clean_resize(image, size) for image in images[block]])
        yield np.repeat(part, channels, axis=3) if part.shape[3] == 1 else part
