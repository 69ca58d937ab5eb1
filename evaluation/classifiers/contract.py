"""What a classifier is to the evaluation: fitted once, from labelled images and a seed, and then asked for probabilities."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..metric import Items


class Fitted(Protocol):
    """A trained classifier. Its answer on an image is a function of that image alone."""

    def probabilities(self, images: np.ndarray, /) -> np.ndarray:
        """float64 (n, classes) with rows that sum to 1, for images (n, height, width[, channels]), uint8 or in [0, 1].

        A class without a training image has probability 0, so it is never predicted.
        """
        ...


class Classifier(Protocol):
    """A classifier with its recipe, before training. `name` is the column that its figures stand in."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> int: ...

    @property
    def seeded(self) -> bool:
        """Whether `fit` depends on its seed."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that fixes the training but images, classes and seed, as JSON: figures of two identities are not compared."""
        ...

    def fit(self, training: Items, *, seed: int) -> Fitted: ...


def recipe_hash(judges: Sequence[Classifier]) -> str:
    """16 hex digits of the SHA-256 of the recipes that a figure came by: figures of two recipes have two columns."""
    identities = [dict(judge.identity) for judge in judges]
    return hashlib.sha256(json.dumps(identities, sort_keys=True).encode()).hexdigest()[:16]
