"""`glyphs`: an image model that is a simulator; it draws characters with the fonts of matplotlib and Pillow.

The kind of API of Sim-PE (Lin et al. 2025, arXiv 2502.05505): a random image is random parameters of the renderer, a
variation moves the parameters that the image was drawn with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

import numpy as np
from pydantic import AfterValidator, Field

from ..contract import (
    AdapterConfig,
    AdapterUnavailable,
    Image,
    ImageRequest,
    ImageVariationRequest,
    Location,
    ModelIdentity,
    Refusal,
)
from .characters import character_of
from .draws import key_of, uniforms
from .glyph_drawing import NUMBERS, Centre, Glyph, Ink, draw, glyph_of
from .identity import identity_of


def _ordered(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"a range goes from low to high, not from {ends[0]} to {ends[1]}")
    return ends


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]


class GlyphsConfig(AdapterConfig):
    """Each range bounds one parameter of `glyph_drawing.Glyph`, where its meaning is told; equal ends fix it."""

    answers: ClassVar[tuple[type, ...]] = (ImageRequest, ImageVariationRequest)
    location: ClassVar[Location] = Location.LOCAL
    cheap: ClassVar[bool] = True

    kind: str = Field(default="glyphs", pattern="^glyphs$")
    fonts: tuple[str, ...] | None = None
    """Faces to draw with, by file name without its ending; every usable one if not given."""
    font_change: float = Field(default=1.0, ge=0, le=1)
    """The probability that a variation of degree 1 has another font; in proportion for smaller degrees."""
    step: float = Field(default=0.3, gt=0)
    """Standard deviation of a parameter's move at degree 1, as a share of its range."""
    ink: Ink = "white"
    centre: Centre = "box"
    """What is put in the middle before the offset: the drawn box, or the centre of mass as in MNIST."""

    size: Range = (0.64, 0.96)
    weight: Range = (0.03, 0.1)
    stretch: Range = (0.6, 1.3)
    slant: Range = (-15.0, 35.0)
    rotation: Range = (-15.0, 15.0)
    stroke: Range = (0.0, 1.0)
    bend: Range = (-0.12, 0.12)
    wave: Range = (-0.08, 0.08)
    taper: Range = (-0.3, 0.3)
    waist: Range = (-0.1, 0.1)
    x: Range = (-0.04, 0.04)
    y: Range = (-0.04, 0.04)
    blur: Range = (0.0, 0.05)

    def open(self) -> Glyphs:
        return Glyphs(self)


class Glyphs:
    """Answers requests for a class name's character, and for variations of what it drew."""

    location = Location.LOCAL

    def __init__(self, config: GlyphsConfig) -> None:
        from .fonts import faces, faces_with

        unknown = sorted(set(config.fonts or ()) - set(faces()))
        if unknown or config.fonts == ():
            what = ", ".join(unknown) or "to draw with"
            raise AdapterUnavailable(f"glyphs has no font {what}; it has: {', '.join(faces())}")
        self.config = config
        self.identity: ModelIdentity = identity_of(config)
        self._faces_with = faces_with
        ranges = np.array([getattr(config, name) for name in NUMBERS], dtype=np.float64)
        self._low, self._high = ranges[:, 0], ranges[:, 1]

    def send(self, requests: Sequence[ImageRequest | ImageVariationRequest], /) -> list[Image | Refusal]:
        """Random glyphs and variations; a Refusal for a prompt without a character or an image drawn elsewhere."""
        replies: dict[int, Image | Refusal] = {}
        wanted: dict[tuple[int, int, int], list[tuple[int, Glyph]]] = {}
        for row, glyph in self._planned(requests):
            if isinstance(glyph, Refusal):
                replies[row] = glyph
            else:
                wanted.setdefault(_format(requests[row]), []).append((row, glyph))
        for (width, height, channels), places in wanted.items():
            images = draw(
                [glyph for _, glyph in places],
                size=(width, height),
                channels=channels,
                ink=self.config.ink,
                centre=self.config.centre,
            )
            replies.update((row, image) for (row, _), image in zip(places, images, strict=True))
        return [replies[row] for row in range(len(requests))]

    def _planned(
        self, requests: Sequence[ImageRequest | ImageVariationRequest]
    ) -> Iterator[tuple[int, Glyph | Refusal]]:
        new = [(row, request) for row, request in enumerate(requests) if isinstance(request, ImageRequest)]
        yield from zip([row for row, _ in new], self._random([request for _, request in new]), strict=True)
        old = [(row, request) for row, request in enumerate(requests) if isinstance(request, ImageVariationRequest)]
        yield from zip([row for row, _ in old], self._varied([request for _, request in old]), strict=True)

    def _random(self, requests: Sequence[ImageRequest]) -> list[Glyph | Refusal]:
        keys = [key_of("random", request.prompt, request.draw) for request in requests]
        chances = uniforms(keys, 1 + len(NUMBERS))
        values = self._low + chances[:, 1:] * (self._high - self._low)
        glyphs: list[Glyph | Refusal] = []
        for request, chance, numbers in zip(requests, chances[:, 0].tolist(), values.tolist(), strict=True):
            character = character_of(request.prompt)
            fonts = self._fonts(character) if character is not None else ()
            if character is None or not fonts:
                glyphs.append(
                    Refusal(f"{request.prompt!r} names no character of the fonts; say for example '3' or 'letter A'")
                )
                continue
            font = fonts[int(chance * len(fonts))]
            glyphs.append(Glyph(character=character, font=font, **dict(zip(NUMBERS, numbers, strict=True))))
        return glyphs

    def _varied(self, requests: Sequence[ImageVariationRequest]) -> list[Glyph | Refusal]:
        from scipy.special import ndtri

        keys = [key_of("vary", request.image.recipe, request.degree, request.draw) for request in requests]
        chances = uniforms(keys, 3 + len(NUMBERS))
        degrees = np.array([min(max(request.degree, 0.0), 1.0) for request in requests])
        moves = ndtri(chances[:, 3:]) * (self.config.step * degrees[:, None]) * (self._high - self._low)
        glyphs: list[Glyph | Refusal] = []
        for row, request in enumerate(requests):
            parent = glyph_of(request.image.recipe)
            if parent is None:
                glyphs.append(Refusal("this image has no recipe of a glyph, so its parameters cannot be varied"))
                continue
            old = np.array([getattr(parent, name) for name in NUMBERS])
            # A parent that lies outside the ranges (drawn by another model) may stay where it is.
            new = np.clip(old + moves[row], np.minimum(self._low, old), np.maximum(self._high, old)).tolist()
            font = parent.font
            if chances[row, 0] < self.config.font_change * degrees[row]:
                fonts = [name for name in self._fonts(parent.character) if name != font] or [font]
                font = fonts[int(chances[row, 1] * len(fonts))]
            glyphs.append(replace(parent, font=font, **dict(zip(NUMBERS, new, strict=True))))
        return glyphs

    def _fonts(self, character: str) -> tuple[str, ...]:
        allowed = self.config.fonts
        return tuple(font for font in self._faces_with(character) if allowed is None or font in allowed)


def _format(request: ImageRequest | ImageVariationRequest) -> tuple[int, int, int]:
    """Width, height and channels of the reply."""
    if isinstance(request, ImageRequest):
        return (*request.size, request.channels)
    height, width, channels = request.image.pixels.shape
    return width, height, channels
