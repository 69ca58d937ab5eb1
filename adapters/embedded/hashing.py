"""`hashing`: an embedder of texts without a vocabulary: words and pieces of words, counted at hashed places."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import ClassVar

import numpy as np
from pydantic import Field

from ..contract import AdapterConfig, EmbedRequest, Location, ModelIdentity, Refusal
from .identity import identity_of

_WORD = re.compile(r"\w+")


class HashingConfig(AdapterConfig):
    answers: ClassVar[tuple[type, ...]] = (EmbedRequest,)
    location: ClassVar[Location] = Location.LOCAL
    cheap: ClassVar[bool] = True

    kind: str = Field(default="hashing", pattern="^hashing$")
    dimensions: int = Field(default=512, ge=1)
    words: int = Field(default=2, ge=0)
    """Runs of up to so many words are counted."""
    letters: tuple[int, int] | None = (3, 4)
    """Runs of letters within a word, from the first length to the second, are counted too, at a third of the weight."""

    def open(self) -> Hashing:
        return Hashing(self)


class Hashing:
    """float32 of length 1, or 0 for a text without words; the same in every process."""

    location = Location.LOCAL

    def __init__(self, config: HashingConfig) -> None:
        self.config = config
        self.identity: ModelIdentity = identity_of(config)

    def send(self, requests: Sequence[EmbedRequest], /) -> list[np.ndarray | Refusal]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: EmbedRequest) -> np.ndarray | Refusal:
        if not isinstance(request.content, str):
            return Refusal("hashing reads text, not images")
        # Whole numbers, so that the order of the sums does not matter.
        sums = [0] * self.config.dimensions
        for (term, weight), count in Counter(self._terms(request.content)).items():
            place, sign = _place(term)
            sums[place % self.config.dimensions] += sign * weight * count
        length = math.sqrt(sum(value * value for value in sums))
        return (np.array(sums, dtype=np.float64) / (length or 1.0)).astype(np.float32)

    def _terms(self, text: str) -> Iterator[tuple[str, int]]:
        words = [word.lower() for word in _WORD.findall(text)]
        for length in range(1, self.config.words + 1):
            for start in range(len(words) - length + 1):
                yield " ".join(words[start : start + length]), 3
        shortest, longest = self.config.letters or (1, 0)
        for word in words:
            marked = f"<{word}>"
            for length in range(shortest, longest + 1):
                for start in range(len(marked) - length + 1):
                    yield "#" + marked[start : start + length], 1


@lru_cache(maxsize=1 << 17)
def _place(term: str) -> tuple[int, int]:
    """Where a term counts, and with which sign."""
    number = int.from_bytes(hashlib.blake2b(term.encode(), digest_size=8).digest(), "little")
    return number >> 1, 1 if number & 1 else -1
