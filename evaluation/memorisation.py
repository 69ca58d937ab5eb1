"""Whether synthetic items are copies of training items: the memorised share, and authenticity.

    memorised    the nearest training item is nearer than a third of the way to the second nearest
                 Yoon et al. (2023), section 3, with c = 1/3
    authentic    the nearest training item has another training item that is as near as the synthetic one, or nearer
                 Alaa et al. (2022), section 4.3

Both look at training items: their figures are unprotected wherever those are private. The same figure of held-out items,
judged as if they were synthetic, is what innocence looks like.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from ..neighbours import Distance, reference, search
from ..neighbours.blocks import blocks, reference_pairs
from .metric import SHARE, Items, Score, same_network
from .metric_config import Judge, MetricConfig, References, at_least, score, train_of


def memorised(train: np.ndarray, synthetic: np.ndarray, *, ratio: float = 1 / 3) -> np.ndarray:
    """Which synthetic rows are memorised; an exact copy is, whatever the second nearest."""
    known, asked = _float32(train), _float32(synthetic)
    found = search(asked, known, k=2)
    first, second = (_squares(asked, known[found[:, place]]) for place in (0, 1))
    return (first < ratio * ratio * second) | (first == 0)


def authentic(train: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
    """Which synthetic rows are no nearer to their nearest training item than its nearest fellow is."""
    known, asked = _float32(train), _float32(synthetic)
    nearest = search(asked, known, k=1)[:, 0]
    looked_at, place = np.unique(nearest, return_inverse=True)
    # The first of the two is the item itself, or an equal one.
    fellows = search(known[looked_at], known, k=2)[:, 1]
    return _squares(asked, known[nearest]) >= _squares(known[looked_at], known[fellows])[place]


class MemorisedShare(MetricConfig):
    """The share of synthetic items that are memorised."""

    kind: str = Field(default="memorised", pattern="^memorised$")
    needs_train: ClassVar[bool] = True
    ratio: float = Field(default=1 / 3, gt=0, le=1)

    def __call__(self, real: Items, synthetic: Items, /) -> Score:
        """By `real`, the training items."""
        same_network(real, synthetic)
        at_least(2, "the memorised share", real)
        at_least(1, "the memorised share", synthetic)
        value = float(memorised(real.rows, synthetic.rows, ratio=self.ratio).mean())
        return score("memorised share", value, synthetic, real, better="lower", unit=SHARE)

    def judge(self, references: References) -> Judge:
        train = train_of("the memorised share", references)
        return lambda synthetic: (self(train, synthetic),)


class Authenticity(MetricConfig):
    """The share of synthetic items that are authentic: about a half for fresh ones, 0 for copies."""

    kind: str = Field(default="authenticity", pattern="^authenticity$")
    needs_train: ClassVar[bool] = True

    def __call__(self, real: Items, synthetic: Items, /) -> Score:
        """By `real`, the training items."""
        same_network(real, synthetic)
        at_least(2, "authenticity", real)
        at_least(1, "authenticity", synthetic)
        value = float(authentic(real.rows, synthetic.rows).mean())
        return score("authenticity", value, synthetic, real, better="higher", unit=SHARE)

    def judge(self, references: References) -> Judge:
        train = train_of("authenticity", references)
        return lambda synthetic: (self(train, synthetic),)


def _float32(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows, dtype=np.float32)


def _squares(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Square distances of pairs of rows, in float64."""
    found = np.empty(len(first))
    for block in blocks(len(first), reference_pairs(first.shape[1])):
        found[block] = reference(first[block].astype(np.float64), second[block].astype(np.float64), Distance.L2)
    return found
