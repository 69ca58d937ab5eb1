"""Blanks for the fill-in-the-blanks prompts, and how long the filled text should be."""

from __future__ import annotations

import re

import numpy as np

BLANK = "_"
_WORD = re.compile(r"\w(?:[\w'’-]*\w)?")


def mask(text: str, probability: float, rng: np.random.Generator) -> str:
    """The text with each word turned into a blank with this probability, independently; punctuation stays.

    >>> mask("A small, bold 3.", 1.0, np.random.default_rng())
    '_ _, _ _.'
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"the probability of a blank lies between 0 and 1, not at {probability}")
    return _WORD.sub(lambda word: BLANK if rng.random() < probability else word[0], text)


def word_count(text: str) -> int:
    """Words of the text, however they are punctuated."""
    return len(_WORD.findall(text))


def word_target(text: str, rng: np.random.Generator, *, spread: float = 0.0, least: int = 1) -> int:
    """How many words a variation of the text should have: about as many, with a normal deviation of `spread`."""
    return max(least, word_count(text) + round(float(rng.normal(0.0, spread))))
