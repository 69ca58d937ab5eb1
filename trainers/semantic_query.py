"""The semantic query of PrivImage (Li et al. 2024, USENIX Security, Algorithm 1): which public classes look like the private.

Every private record adds 1 to the k public classes that a public classifier finds likeliest for it, in the row of its own
label. The noisy histogram says which part of the public set is worth pre-training on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..data.training_records import TrainingRecords
from ..privacy.mechanism import JSON, DiscreteGaussian
from ..privacy.randomness import SecretRng
from .contract import Shape, TrainerError

_ROWS_AT_ONCE = 512

Scores = Callable[[np.ndarray], np.ndarray]
"""Pixels uint8 (n, height, width, channels) to scores (n, public classes); row i depends on image i alone."""


@dataclass(frozen=True, kw_only=True)
class SemanticQuery:
    """The config: each record votes for `votes` = k distinct ones of `public_classes`, all in the row of its label."""

    shape: Shape
    public_classes: int
    votes: int

    def __post_init__(self) -> None:
        if not 1 <= self.votes <= self.public_classes:
            raise TrainerError(
                f"semantic query: a record votes for {self.votes} of {self.public_classes} public classes; "
                "give a public set of more classes, or a larger ratio"
            )

    def with_noise(self, noise_multiplier: float) -> NoisySemanticQuery:
        return NoisySemanticQuery(config=self, noise_multiplier=noise_multiplier)


@dataclass(frozen=True, kw_only=True)
class NoisySemanticQuery:
    """The mechanism, once `over` bound the public classifier."""

    config: SemanticQuery
    noise_multiplier: float

    @property
    def cost(self) -> DiscreteGaussian:
        return DiscreteGaussian.of(self.noise_multiplier, cells=self.config.votes)

    def over(self, scores: Scores) -> SemanticHistogram:
        """The query with the public classifier that it asks."""
        return SemanticHistogram(mechanism=self, scores=scores)


@dataclass(frozen=True, kw_only=True)
class SemanticHistogram:
    """Returns {"histogram": int64 (private classes, public classes)}.

    Formal guarantee: a record adds 1 to at most `votes` distinct cells, by its own content and label alone, and a ghost to
    none; the counts carry exact discrete Gaussian noise of parameter noise_multiplier * sqrt(votes). The number of votes
    is a public setting, never the number of classes that were found.
    """

    mechanism: NoisySemanticQuery
    scores: Scores

    @property
    def cost(self) -> DiscreteGaussian:
        return self.mechanism.cost

    def describe(self) -> Mapping[str, JSON]:
        config = self.mechanism.config
        return {
            "mechanism": "semantic-query",
            "classes": len(config.shape.classes),
            "public_classes": config.public_classes,
            "votes": config.votes,
            "slots": config.shape.slots,
            "scale": self.cost.scale,
        }

    def __call__(self, secret: SecretRng, data: TrainingRecords, /) -> Mapping[str, np.ndarray]:
        config = self.mechanism.config
        counts = np.zeros((len(config.shape.classes), config.public_classes), dtype=np.int64)
        for start in range(0, len(data), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            scores = np.asarray(self.scores(data.pixels[rows]), dtype=np.float64)
            usable = data.valid[rows] & np.isfinite(scores).all(axis=1)
            for label, row in zip(data.labels[rows][usable], scores[usable], strict=True):
                counts[label, np.argsort(-row, kind="stable")[: config.votes]] += 1
        return {"histogram": secret.discrete_gaussian(counts, self.cost.scale)}


def select_disjoint(histogram: np.ndarray, votes: int) -> tuple[tuple[int, ...], ...]:
    """For each private class its `votes` public classes of most noisy votes, no public class twice. Post-processing.

    Private classes choose in turn, one public class at a time, so that the first does not take all that the second needs.
    """
    classes, public = histogram.shape
    if classes * votes > public:
        raise TrainerError(
            f"{classes} private classes of {votes} public ones each are more than the {public} public classes"
        )
    free = np.ones(public, dtype=bool)
    chosen: list[list[int]] = [[] for _ in range(classes)]
    for _ in range(votes):
        for label in range(classes):
            best = max(np.flatnonzero(free), key=lambda each: (int(histogram[label, each]), -int(each)))
            chosen[label].append(int(best))
            free[best] = False
    return tuple(tuple(each) for each in chosen)
