"""Accuracy on real images of a classifier that saw synthetic images alone.

The quick judgement: a logistic regression on pixels, deterministic, on every training set that a run compares, so that a
figure has a floor and a ceiling beside it: the final population, the initial one, one that was selected at random instead
of by votes, and the real training set. Several architectures and seeds are in `utility.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .classifiers.contract import recipe_hash
from .classifiers.logistic import LogisticRegression
from .metric import SHARE, Items, Score

__all__ = [
    "CEILING",
    "FINAL",
    "FLOOR",
    "INITIAL",
    "RANDOM",
    "TRAINING_SETS",
    "ClassifierAccuracy",
    "LogisticRegression",
    "accuracies",
]

FINAL = "final population"
INITIAL = "initial population"
RANDOM = "random selection"
CEILING = "real training set"
FLOOR = "no private data"
"""The floor of a method that has no initial population: its public-only model."""
TRAINING_SETS = (FINAL, INITIAL, RANDOM, CEILING)
"""The names, in this order, of the training sets that a run compares."""


@dataclass(frozen=True, kw_only=True)
class ClassifierAccuracy:
    """The metric: trains on the synthetic items, tests on the real ones."""

    classifier: LogisticRegression

    def __call__(self, real: Items, synthetic: Items, /) -> Score:
        return Score(
            name="classifier accuracy",
            subject=synthetic.name,
            value=self.classifier.accuracy(synthetic, real),
            protected=real.protected and synthetic.protected,
            better="higher",
            unit=SHARE,
            network=self.classifier.name,
            network_hash=recipe_hash([self.classifier]),
            reference=real.name,
            n=len(synthetic),
            reference_n=len(real),
        )


def accuracies(training_sets: Sequence[Items], test: Items, *, classes: int) -> tuple[Score, ...]:
    """One score a training set, in the order given."""
    metric = ClassifierAccuracy(classifier=LogisticRegression(classes=classes))
    return tuple(metric(test, training) for training in training_sets)
