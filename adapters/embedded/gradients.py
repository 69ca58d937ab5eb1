"""`gradients`: histograms of oriented gradients (Dalal and Triggs, 2005), for images of any size.

The image is divided into a grid of cells; each cell holds how strong the gradients of each orientation are, shared
smoothly between neighbouring cells; each block of 2 x 2 cells is scaled to length 1. All is sums and products in a
fixed order, with the images along the last axis: an image's features do not depend on its neighbours in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from ..contract import AdapterConfig, EmbedRequest, Image, Location, ModelIdentity, Refusal
from .identity import identity_of
from .pixels import Side, resized

_CHUNK_PIXELS = 1 << 15
_FLAT = 0.1
"""Added to the length of a block, so that a block without gradients stays near 0."""


class GradientsConfig(AdapterConfig):
    answers: ClassVar[tuple[type, ...]] = (EmbedRequest,)
    location: ClassVar[Location] = Location.LOCAL
    cheap: ClassVar[bool] = True

    kind: str = Field(default="gradients", pattern="^gradients$")
    size: tuple[Side, Side] | None = None
    """Width and height to which images are resized first; as they are if not given."""
    cells: int = Field(default=4, ge=2)
    """Cells along each side."""
    orientations: int = Field(default=8, ge=2)
    """Directions that are told apart, between 0 and 180 degrees."""

    def open(self) -> Gradients:
        return Gradients(self)


class Gradients:
    """float32 ((cells - 1)^2 x 4 x orientations): the same length whatever the image's size and channels."""

    location = Location.LOCAL

    def __init__(self, config: GradientsConfig) -> None:
        self.config = config
        self.identity: ModelIdentity = identity_of(config)

    def send(self, requests: Sequence[EmbedRequest], /) -> list[np.ndarray | Refusal]:
        replies: list[np.ndarray | Refusal] = [_NO_IMAGE] * len(requests)
        by_shape: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
        for row, request in enumerate(requests):
            if isinstance(request.content, Image):
                pixels = resized(request.content.pixels, self.config.size)
                by_shape.setdefault(pixels.shape, []).append((row, pixels))
        for (height, width, channels), places in by_shape.items():
            chunk = max(_CHUNK_PIXELS // (height * width * channels), 1)
            for first in range(0, len(places), chunk):
                some = places[first : first + chunk]
                features = describe(
                    np.stack([pixels for _, pixels in some]), self.config.cells, self.config.orientations
                )
                for (row, _), vector in zip(some, features, strict=True):
                    replies[row] = vector
        return replies


_NO_IMAGE = Refusal("gradients reads images, not text")


def describe(images: np.ndarray, cells: int, orientations: int) -> np.ndarray:
    """The features of uint8 images (n, height, width, channels): float32 (n, (cells - 1)^2 * 4 * orientations)."""
    light = np.ascontiguousarray(np.moveaxis(images, 0, -1)).astype(np.float32) / np.float32(255)
    right, down = _strongest(light)
    strength = np.sqrt(right * right + down * down)
    histograms = np.stack([_pooled(_along(right, down, strength, k, orientations), cells) for k in range(orientations)])
    blocks = [_scaled(histograms[:, i : i + 2, j : j + 2]) for i in range(cells - 1) for j in range(cells - 1)]
    return np.ascontiguousarray(np.concatenate(blocks).T)


def _strongest(light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Central differences to the right and downwards; where there are channels, those of the steepest one."""
    padded = np.pad(light, ((1, 1), (1, 1), (0, 0), (0, 0)), mode="edge")
    rights = padded[1:-1, 2:] - padded[1:-1, :-2]
    downs = padded[2:, 1:-1] - padded[:-2, 1:-1]
    right, down = rights[:, :, 0], downs[:, :, 0]
    for channel in range(1, light.shape[2]):
        other_right, other_down = rights[:, :, channel], downs[:, :, channel]
        steeper = other_right * other_right + other_down * other_down > right * right + down * down
        right, down = np.where(steeper, other_right, right), np.where(steeper, other_down, down)
    return right, down


def _along(right: np.ndarray, down: np.ndarray, strength: np.ndarray, k: int, orientations: int) -> np.ndarray:
    """How strong the gradient is in the k-th orientation: all at its own angle, nothing beyond its neighbours'."""
    angle, step = k * math.pi / orientations, math.pi / orientations
    along = np.abs(right * np.float32(math.cos(angle)) + down * np.float32(math.sin(angle)))
    least = np.float32(math.cos(step))
    return np.maximum(along - strength * least, 0) / (1 - least)


def _pooled(values: np.ndarray, cells: int) -> np.ndarray:
    """(height, width, n) summed into (cells, cells, n), each pixel shared between the cells nearest to it."""
    return _pooled_rows(np.swapaxes(_pooled_rows(values, cells), 0, 1), cells).swapaxes(0, 1)


def _pooled_rows(values: np.ndarray, cells: int) -> np.ndarray:
    length = values.shape[0]
    pooled = np.zeros((cells, *values.shape[1:]), dtype=np.float32)
    for row in range(length):
        place = (row + 0.5) / length * cells - 0.5
        lower = math.floor(place)
        for cell, share in ((lower, lower + 1 - place), (lower + 1, place - lower)):
            if 0 <= cell < cells and share > 0:
                pooled[cell] += np.float32(share) * values[row]
    return pooled * np.float32(cells / length)


def _scaled(block: np.ndarray) -> np.ndarray:
    """A block (orientations, 2, 2, n) as (features, n), each column of length at most 1."""
    flat = block.reshape(-1, block.shape[-1])
    square = np.zeros(flat.shape[1], dtype=np.float32)
    for values in flat:
        square += values * values
    return flat / np.sqrt(square + np.float32(_FLAT * _FLAT))
