"""`glyph-captioner`: image to text; the caption, of a bank that the painter draws, whose picture is nearest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from ..contract import AdapterConfig, CaptionRequest, Image, ImageRequest, Location, ModelIdentity, Refusal
from .characters import name_of
from .draws import Stream
from .glyph_drawing import Centre, Ink
from .identity import identity_of

_LARGEST = 32  # pixels; beyond this, more detail does not change which picture is nearest


class GlyphCaptionerConfig(AdapterConfig):
    answers: ClassVar[tuple[type, ...]] = (CaptionRequest,)
    location: ClassVar[Location] = Location.LOCAL

    kind: str = Field(default="glyph-captioner", pattern="^glyph-captioner$")
    characters: str = Field(default="0123456789", min_length=1)
    """The characters that it knows."""
    per_character: int = Field(default=300, ge=1)
    """Captions in the bank for each."""
    ink: Ink = "white"
    centre: Centre = "box"

    def open(self) -> GlyphCaptioner:
        return GlyphCaptioner(self)


class GlyphCaptioner:
    """Looks for the nearest picture by squared distance of pixels, the first of equals.

    Distances are whole numbers below 2^53, so that they are exact however a batch is computed. Colour counts as grey.
    The bank is drawn when the first image of a size arrives, and kept.
    """

    location = Location.LOCAL

    def __init__(self, config: GlyphCaptionerConfig) -> None:
        from .glyph_painter import GlyphPainterConfig
        from .lexicon import LexiconConfig

        self.config = config
        self.identity: ModelIdentity = identity_of(config)
        self._lexicon = LexiconConfig().open()
        self._painter = GlyphPainterConfig(jitter=0, ink=config.ink, centre=config.centre).open()
        self._captions: tuple[str, ...] = ()
        self._drawn: dict[tuple[int, int], np.ndarray] = {}

    def send(self, requests: Sequence[CaptionRequest], /) -> list[str | Refusal]:
        replies: list[str | Refusal] = [""] * len(requests)
        by_size: dict[tuple[int, int], list[int]] = {}
        greys = [_grey(request.image) for request in requests]
        for row, grey in enumerate(greys):
            by_size.setdefault((grey.shape[1], grey.shape[0]), []).append(row)
        for size, rows in by_size.items():
            bank = self._bank(size)
            images = np.stack([greys[row].reshape(-1) for row in rows]).astype(np.float64)
            distances = (bank * bank).sum(axis=1) - 2 * (images @ bank.T)
            for row, nearest in zip(rows, distances.argmin(axis=1).tolist(), strict=True):
                replies[row] = self._captions[nearest]
        return replies

    def _bank(self, size: tuple[int, int]) -> np.ndarray:
        """The pictures of all captions at a size, flat: float64 (captions, pixels)."""
        if not self._captions:
            self._captions = tuple(self._written())
        if size not in self._drawn:
            asked = [ImageRequest(prompt=words, draw=0, size=size, channels=1) for words in self._captions]
            images = [image for image in self._painter.send(asked) if isinstance(image, Image)]
            self._drawn[size] = np.stack([image.pixels.reshape(-1) for image in images]).astype(np.float64)
        return self._drawn[size]

    def _written(self) -> list[str]:
        from .fonts import faces_with

        known = [character for character in self.config.characters if faces_with(character)]
        return [
            self._lexicon.write(character, Stream("bank", name_of(character), number))
            for character in known
            for number in range(self.config.per_character)
        ]


def _grey(image: Image) -> np.ndarray:
    """The image as uint8 (height, width), no side longer than `_LARGEST`."""
    from PIL import Image as Pillow

    pixels = image.pixels
    grey = pixels[:, :, 0] if pixels.shape[2] == 1 else (pixels.astype(np.uint16).sum(axis=2) // 3).astype(np.uint8)
    height, width = grey.shape
    scale = _LARGEST / max(height, width)
    if scale >= 1:
        return grey
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return np.asarray(Pillow.fromarray(grey).resize(size, Pillow.Resampling.BOX))
