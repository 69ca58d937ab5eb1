"""`glyph-painter`: text to image for captions of glyphs; it draws what the words of `wording` say, and only that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from ..contract import AdapterConfig, Image, ImageRequest, Location, ModelIdentity, Refusal
from .draws import key_of, uniforms
from .glyph_drawing import NUMBERS, Centre, Glyph, Ink, draw
from .identity import identity_of
from .wording import BY_PARAMETER, FONT_FAMILIES, Attributes, read


class GlyphPainterConfig(AdapterConfig):
    answers: ClassVar[tuple[type, ...]] = (ImageRequest,)
    location: ClassVar[Location] = Location.LOCAL
    cheap: ClassVar[bool] = True

    kind: str = Field(default="glyph-painter", pattern="^glyph-painter$")
    jitter: float = Field(default=0.3, ge=0, le=1)
    """How far the draw moves a value from the one that the words mean, as a share of the way to the next words."""
    ink: Ink = "white"
    centre: Centre = "box"

    def open(self) -> GlyphPainter:
        return GlyphPainter(self)


class GlyphPainter:
    """Draws captions. What a caption leaves open is as usual; unknown words say nothing.

    A caption that names no character, or one that no font has, is refused: a blank image would be a candidate that
    blank records vote for.
    """

    location = Location.LOCAL

    def __init__(self, config: GlyphPainterConfig) -> None:
        self.config = config
        self.identity: ModelIdentity = identity_of(config)

    def send(self, requests: Sequence[ImageRequest], /) -> list[Image | Refusal]:
        replies: list[Image | Refusal] = [_NO_CHARACTER] * len(requests)
        chances = uniforms([key_of("paint", request.prompt, request.draw) for request in requests], 1 + len(NUMBERS))
        wanted: dict[tuple[tuple[int, int], int], list[tuple[int, Glyph]]] = {}
        for row, request in enumerate(requests):
            character, said = read(request.prompt)
            glyph = glyph_said(character, said, chances[row].tolist(), self.config.jitter) if character else None
            if glyph is not None:
                wanted.setdefault((request.size, request.channels), []).append((row, glyph))
        for (size, channels), places in wanted.items():
            glyphs = [glyph for _, glyph in places]
            images = draw(glyphs, size=size, channels=channels, ink=self.config.ink, centre=self.config.centre)
            for (row, _), image in zip(places, images, strict=True):
                replies[row] = image
        return replies


_NO_CHARACTER = Refusal("the caption names no character that a font has; say for example 'digit 3' or 'letter A'")


def glyph_said(character: str, said: Attributes, chances: Sequence[float], jitter: float) -> Glyph | None:
    """The glyph that a caption means, moved by `jitter` as `chances` decide; None where no font has the character."""
    from .fonts import faces_with

    known = faces_with(character)
    family = FONT_FAMILIES[said.get("font", BY_PARAMETER["font"].usual)]
    fonts = [font for font in family if font in known] or known
    if not fonts:
        return None
    numbers: dict[str, float] = {}
    for parameter, chance in zip(NUMBERS, chances[1:], strict=True):
        levels = [level.value for level in BY_PARAMETER[parameter].levels]
        level = said.get(parameter, BY_PARAMETER[parameter].usual)
        towards = levels[min(level + 1, len(levels) - 1)] if chance > 0.5 else levels[max(level - 1, 0)]
        numbers[parameter] = levels[level] + (towards - levels[level]) * abs(2 * chance - 1) * jitter
    return Glyph(character=character, font=fonts[int(chances[0] * len(fonts))], **numbers)
