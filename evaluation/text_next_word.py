"""How often the next word of a real text is foretold by a model that read synthetic texts alone.

Aug-PE fine-tunes small BERT models for this figure (Xie et al. 2024, section 5). Ours is smaller: the commonest word after
the longest context that was read, by n-grams with backoff (Katz 1987, without discounts, since only the first guess counts).
It needs no weights and no accelerator, and is no estimate of theirs: compare within a table alone. A word that was never
read cannot be foretold and counts as wrong.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from ..privacy.randomness import PublicRng
from .intervals import RESAMPLES, Interval, percentiles
from .metric import SHARE, Items, MetricError, Score
from .metric_config import Judge, LooksAt, MetricConfig, References, at_least, score
from .text import texts_of, tokens

START = ""
"""Stands before the first word; no token is empty."""

Context = tuple[str, ...]


class NextWord:
    """The commonest word after each context of up to `order` - 1 words; of equally common ones the commoner word."""

    def __init__(self, texts: Sequence[Sequence[str]], *, order: int) -> None:
        counts: defaultdict[Context, Counter[str]] = defaultdict(Counter)
        for words in texts:
            padded = [START] * (order - 1) + list(words)
            for place in range(order - 1, len(padded)):
                for length in range(order):
                    counts[tuple(padded[place - length : place])][padded[place]] += 1
        common = counts[()]
        self._order = order
        self._guesses = {
            context: max(after, key=lambda word, after=after: (after[word], common[word], word))
            for context, after in counts.items()
            if after
        }

    def hits(self, words: Sequence[str]) -> int:
        """How many of the words are foretold by those before them."""
        padded = [START] * (self._order - 1) + list(words)
        return sum(self._guess(padded, place) == padded[place] for place in range(self._order - 1, len(padded)))

    def _guess(self, words: Sequence[str], place: int) -> str | None:
        for length in range(self._order - 1, -1, -1):
            guess = self._guesses.get(tuple(words[place - length : place]))
            if guess is not None:
                return guess
        return None


class NextWordAccuracy(MetricConfig):
    """The share of words of real texts that are foretold; the interval is a bootstrap over real texts."""

    kind: str = Field(default="next-word", pattern="^next-word$")
    looks_at: ClassVar[LooksAt] = "texts"
    order: int = Field(default=4, ge=1, le=8)
    """Words in an n-gram."""

    def judge(self, references: References) -> Judge:
        real = references.test
        at_least(1, "next-word accuracy", real)
        asked = [words for words in (tokens(text) for text in texts_of(real)) if words]
        if not asked:
            raise MetricError(f"{real.name}: next-word accuracy needs a text with a word")
        sizes = np.array([len(words) for words in asked], dtype=np.float64)

        def accuracy(synthetic: Items) -> tuple[Score, ...]:
            at_least(1, "next-word accuracy", synthetic)
            model = NextWord([tokens(text) for text in texts_of(synthetic)], order=self.order)
            hits = np.array([model.hits(words) for words in asked], dtype=np.float64)
            found = score(
                f"next-word accuracy ({self.order}-grams)",
                float(hits.sum() / sizes.sum()),
                synthetic,
                real,
                better="higher",
                unit=SHARE,
                interval=_ratio_interval(hits, sizes),
            )
            return (found,)

        return accuracy


def _ratio_interval(hits: np.ndarray, sizes: np.ndarray) -> Interval:
    rng = PublicRng(0).at("interval", "next word")
    ratios = np.empty(RESAMPLES)
    for resample in range(RESAMPLES):
        rows = rng.integers(len(hits), size=len(hits))
        ratios[resample] = hits[rows].sum() / sizes[rows].sum()
    return percentiles(ratios)
