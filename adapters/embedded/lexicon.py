"""`lexicon`: a writer of captions of glyphs that is a grammar, for the same prompts as a language model.

It reads the last message of the user. What follows the last "Text:" is a sample: with blanks, written `_`, it is filled
in; without, it is said in other words. A message without a sample asks for a new caption of the character it names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from ..contract import AdapterConfig, Location, ModelIdentity, Refusal, TextRequest
from .characters import character_in
from .draws import Stream
from .identity import identity_of
from .wording import ATTRIBUTES, BY_PARAMETER, Attributes, any_level, compose, fill, read

SAMPLE_MARKER = "Text:"


class LexiconConfig(AdapterConfig):
    answers: ClassVar[tuple[type, ...]] = (TextRequest,)
    location: ClassVar[Location] = Location.LOCAL
    cheap: ClassVar[bool] = True

    kind: str = Field(default="lexicon", pattern="^lexicon$")
    detail: float = Field(default=0.5, ge=0, le=1)
    """The probability that a new caption speaks of an attribute."""
    drift: float = Field(default=0.12, ge=0, le=1)
    """The probability that a rephrased attribute is said one level higher or lower, or is left out or brought in."""

    def open(self) -> Lexicon:
        return Lexicon(self)


class Lexicon:
    """Captions in the vocabulary of `wording`; a function of the messages and the draw."""

    location = Location.LOCAL

    def __init__(self, config: LexiconConfig) -> None:
        self.config = config
        self.identity: ModelIdentity = identity_of(config)

    def send(self, requests: Sequence[TextRequest], /) -> list[str | Refusal]:
        """A caption for each; a Refusal where neither sample nor instruction names a character."""
        return [self._answer(request) for request in requests]

    def write(self, character: str, stream: Stream) -> str:
        """A new caption of the character."""
        return compose(character, self._new(stream), stream)

    def _answer(self, request: TextRequest) -> str | Refusal:
        asked = next((message.content for message in reversed(request.messages) if message.role == "user"), "")
        stream = Stream("lexicon", [(message.role, message.content) for message in request.messages], request.draw)
        instruction, marker, sample = asked.rpartition(SAMPLE_MARKER)
        if not marker:
            character, said = character_in(asked), self._new(stream)
        elif re.search(r"(?<!\w)_+(?!\w)", sample):
            character, said = fill(sample, stream)
        else:
            character, said = read(sample)
            said = self._drifted(said, stream)
        # The instruction says what the caption must be of; the sample may have lost it.
        character = character_in(instruction) or character
        if character is None:
            return Refusal("the request names no character, such as 'digit 3' or 'letter A', to write a caption of")
        words = compose(character, said, stream)
        if request.max_tokens is not None:
            while said and len(words.split()) > request.max_tokens:
                said = dict(list(said.items())[:-1])
                words = compose(character, said, stream)
        return words

    def _new(self, stream: Stream) -> dict[str, int]:
        chosen = [attribute for attribute in ATTRIBUTES if stream.chance(self.config.detail)]
        return {attribute.parameter: any_level(attribute, stream) for attribute in chosen}

    def _drifted(self, said: Attributes, stream: Stream) -> dict[str, int]:
        kept: dict[str, int] = {}
        for parameter, level in said.items():
            highest = len(BY_PARAMETER[parameter].levels) - 1
            if stream.chance(self.config.drift):
                level += 1 if stream.chance(0.5) else -1
            if 0 <= level <= highest and not stream.chance(self.config.drift / 4):
                kept[parameter] = level
        unsaid = [attribute for attribute in ATTRIBUTES if attribute.parameter not in said]
        if unsaid and stream.chance(self.config.drift * 2):
            attribute = stream.pick(unsaid)
            kept[attribute.parameter] = any_level(attribute, stream)
        return kept
