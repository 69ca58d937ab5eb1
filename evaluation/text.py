"""Texts as items: one text a row, as metrics of texts look at them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from ..privacy.randomness import PublicRng
from .metric import Items, MetricError

_TOKEN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def text_items(name: str, texts: Sequence[str], labels: np.ndarray | None = None, *, protected: bool = False) -> Items:
    """Items whose values are texts: an array of objects (n, 1)."""
    return Items(name=name, values=column(texts), labels=labels, protected=protected)


def column(texts: Iterable[str]) -> np.ndarray:
    """Texts as the values of items."""
    listed = list(texts)
    values = np.empty((len(listed), 1), dtype=object)
    values[:, 0] = listed
    return values


def are_texts(items: Items) -> bool:
    return items.values.dtype.kind == "O"


def texts_of(items: Items) -> list[str]:
    """The texts; MetricError for items of another kind."""
    if not are_texts(items):
        raise MetricError(f"{items.name}: a metric of texts needs texts, not items of shape {items.values.shape[1:]}")
    return items.values[:, 0].tolist()


def tokens(text: str) -> list[str]:
    """Words, with their apostrophes, and marks of punctuation, in lower case.

    >>> tokens("It's a cat, isn't it?")
    ["it's", 'a', 'cat', ',', "isn't", 'it', '?']
    """
    return _TOKEN.findall(text.lower())


def some_of(texts: Sequence[str], count: int | None, *, seed: int) -> list[str]:
    """`count` of the texts, a random choice; all if there are no more. Measures of variety depend on how many are looked at."""
    if count is None or len(texts) <= count:
        return list(texts)
    chosen = np.sort(PublicRng(seed).at("texts").permutation(len(texts))[:count])
    return [texts[int(row)] for row in chosen]
