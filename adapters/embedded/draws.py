"""Randomness of the embedded models: a function of the words that describe a request, and of nothing else.

Every number comes from SHAKE-128 of those words, so that a reply is the same in every process, on every machine and
with every release of numpy, and that no reply depends on which requests were sent beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

_BLOCK = 64


def uniforms(keys: Sequence[str], count: int) -> np.ndarray:
    """`count` independent numbers in the open interval (0, 1) for each key: float64 (keys, count)."""
    raw = b"".join(hashlib.shake_128(key.encode()).digest(4 * count) for key in keys)
    return (np.frombuffer(raw, dtype="<u4").reshape(len(keys), count) + 0.5) / 2.0**32


def key_of(*parts: object) -> str:
    """The words by which a request is known to `uniforms`: equal parts, equal key."""
    return json.dumps(parts, ensure_ascii=True, separators=(",", ":"), default=str)


class Stream:
    """The same randomness, one decision at a time, for what cannot be drawn in one block."""

    def __init__(self, *parts: object) -> None:
        self._key = key_of(*parts)
        self._block = 0
        self._left: list[float] = []

    def uniform(self) -> float:
        """A number in the open interval (0, 1)."""
        if not self._left:
            self._left = uniforms([f"{self._key}#{self._block}"], _BLOCK)[0].tolist()[::-1]
            self._block += 1
        return self._left.pop()

    def chance(self, probability: float) -> bool:
        return self.uniform() < probability

    def pick(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """One of `options`, each equally likely or as likely as its weight says."""
        if weights is None:
            return options[int(self.uniform() * len(options))]
        left = self.uniform() * sum(weights)
        for option, weight in zip(options, weights, strict=True):
            left -= weight
            if left < 0:
                return option
        return options[-1]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order."""
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = int(self.uniform() * (last + 1))
            order[last], order[other] = order[other], order[last]
        return order
