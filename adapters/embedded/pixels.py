"""`pixels`: an image's features are its pixels, from 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ..contract import AdapterConfig, EmbedRequest, Image, Location, ModelIdentity, Refusal
from .identity import identity_of

Side = Annotated[int, Field(ge=1)]


class PixelsConfig(AdapterConfig):
    answers: ClassVar[tuple[type, ...]] = (EmbedRequest,)
    location: ClassVar[Location] = Location.LOCAL
    cheap: ClassVar[bool] = True

    kind: str = Field(default="pixels", pattern="^pixels$")
    size: tuple[Side, Side] | None = None
    """Width and height to which images are resized first, by averages over areas; as they are if not given."""

    def open(self) -> Pixels:
        return Pixels(self)


class Pixels:
    """float32 (height x width x channels), row by row."""

    location = Location.LOCAL

    def __init__(self, config: PixelsConfig) -> None:
        self.config = config
        self.identity: ModelIdentity = identity_of(config)

    def send(self, requests: Sequence[EmbedRequest], /) -> list[np.ndarray | Refusal]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: EmbedRequest) -> np.ndarray | Refusal:
        if not isinstance(request.content, Image):
            return Refusal("pixels reads images, not text")
        return resized(request.content.pixels, self.config.size).reshape(-1) / np.float32(255)


def resized(pixels: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """The uint8 image at `size` (width, height), each new pixel the average of the area that it covers."""
    height, width, channels = pixels.shape
    if size is None or size == (width, height):
        return pixels
    from PIL import Image as Pillow

    planes = [Pillow.fromarray(np.ascontiguousarray(pixels[:, :, channel])) for channel in range(channels)]
    return np.stack([np.asarray(plane.resize(size, Pillow.Resampling.BOX)) for plane in planes], axis=2)
