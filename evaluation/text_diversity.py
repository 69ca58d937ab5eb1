"""How varied texts are: distinct n-grams, and self-BLEU.

    distinct-n    different n-grams over all n-grams             Li et al. (2016), section 5
    self-BLEU     the mean BLEU of each text by all the others   Zhu et al. (2018, Texygen), section 3.2

Both fall and rise with the number of texts, so that a choice of equal size is looked at everywhere; n says how many. They see
no real text; the real training set, judged in the same way, says what is usual.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import ClassVar

from pydantic import Field, PositiveInt

from .metric import SHARE, Items, Score
from .metric_config import Judge, LooksAt, MetricConfig, References, at_least, score
from .text import some_of, text_items, texts_of, tokens

Grams = Counter[tuple[str, ...]]


def ngrams(words: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    return (tuple(words[start : start + length]) for start in range(len(words) - length + 1))


def distinct(texts: Sequence[Sequence[str]], length: int) -> float:
    """Different n-grams over all n-grams of tokenised texts; 0 where there is none."""
    every: Grams = Counter()
    for words in texts:
        every.update(ngrams(words, length))
    return len(every) / every.total() if every else 0.0


def self_bleu(texts: Sequence[Sequence[str]], *, longest: int = 4) -> float:
    """The mean over the texts of BLEU by all the others as references (Papineni et al. 2002), of n-grams up to `longest`.

    Linear in the number of texts: the largest count among the others is the largest of all, or the second largest where the
    text itself has that. An n-gram length without a match counts as a tenth of one (Chen and Cherry 2014, smoothing 1).
    """
    counts = [[Counter(ngrams(words, length)) for words in texts] for length in range(1, longest + 1)]
    logs = [[0.0] * len(texts) for _ in range(longest)]
    for length, of_texts in enumerate(counts):
        two = _two_largest(of_texts)
        for row, grams in enumerate(of_texts):
            matches = sum(
                min(count, two[gram][1] if two[gram][2] == row else two[gram][0]) for gram, count in grams.items()
            )
            total = grams.total()
            # A text that is too short for such n-grams has none to be judged by.
            logs[length][row] = math.log((matches or 0.1) / total) if total else math.nan
    sizes = [len(words) for words in texts]
    ordered = sorted(sizes)
    scores: list[float] = []
    for row, size in enumerate(sizes):
        known = [log[row] for log in logs if not math.isnan(log[row])]
        if not known:
            scores.append(0.0)
            continue
        nearest = _nearest_other(ordered, size)
        brevity = 1.0 if size >= nearest else math.exp(1 - nearest / size)
        scores.append(brevity * math.exp(sum(known) / len(known)))
    return sum(scores) / len(scores)


class DistinctNgrams(MetricConfig):
    """distinct-1 to distinct-`longest`, of at most `texts` texts."""

    kind: str = Field(default="distinct-n", pattern="^distinct-n$")
    looks_at: ClassVar[LooksAt] = "texts"
    longest: int = Field(default=3, ge=1, le=8)
    texts: PositiveInt | None = 1000
    seed: int = 0

    def judge(self, references: References) -> Judge:
        del references

        def shares(synthetic: Items) -> tuple[Score, ...]:
            at_least(1, "distinct n-grams", synthetic)
            chosen = _chosen(synthetic, self.texts, self.seed)
            words = [tokens(text) for text in texts_of(chosen)]
            return tuple(
                score(f"distinct-{length}", distinct(words, length), chosen, better="higher", unit=SHARE)
                for length in range(1, self.longest + 1)
            )

        return shares


class SelfBleu(MetricConfig):
    """Self-BLEU of n-grams up to `longest`, of at most `texts` texts: 1 where all texts are alike."""

    kind: str = Field(default="self-bleu", pattern="^self-bleu$")
    looks_at: ClassVar[LooksAt] = "texts"
    longest: int = Field(default=4, ge=1, le=8)
    texts: PositiveInt | None = 1000
    seed: int = 0

    def judge(self, references: References) -> Judge:
        del references

        def bleu(synthetic: Items) -> tuple[Score, ...]:
            at_least(2, "self-BLEU", synthetic)
            chosen = _chosen(synthetic, self.texts, self.seed)
            value = self_bleu([tokens(text) for text in texts_of(chosen)], longest=self.longest)
            return (score(f"self-BLEU-{self.longest}", value, chosen, better="lower", unit=SHARE),)

        return bleu


def _chosen(items: Items, count: int | None, seed: int) -> Items:
    return text_items(items.name, some_of(texts_of(items), count, seed=seed), protected=items.protected)


def _two_largest(of_texts: Sequence[Grams]) -> dict[tuple[str, ...], tuple[int, int, int]]:
    """For each n-gram its largest count in a text, the largest in another text, and the row of the first."""
    found: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for row, grams in enumerate(of_texts):
        for gram, count in grams.items():
            largest, second, at = found.get(gram, (0, 0, -1))
            found[gram] = (count, largest, row) if count > largest else (largest, max(second, count), at)
    return found


def _nearest_other(ordered: Sequence[int], size: int) -> int:
    """The length nearest to `size` among all but one of that size; the shorter of two."""
    place = bisect_left(ordered, size)
    around = [ordered[at] for at in (place - 1, place + 1) if 0 <= at < len(ordered)]
    return min(around, key=lambda other: (abs(other - size), other))
