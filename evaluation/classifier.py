"""Accuracy on real images of a classifier that saw synthetic images alone.

The classifier is a multinomial logistic regression on pixels: deterministic, without a seed, trained in about a second on
5,000 images of 28 x 28. It is judged on four training sets, so that a figure has a floor and a ceiling beside it: the
final population, the initial one, one that was selected at random instead of by votes, and the real training set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .metric import SHARE, Items, MetricError, Score

FINAL = "final population"
INITIAL = "initial population"
RANDOM = "random selection"
CEILING = "real training set"
TRAINING_SETS = (FINAL, INITIAL, RANDOM, CEILING)
"""The names, in this order, of the training sets that a run compares."""

INVERSE_PENALTY = 20.0
"""Inverse penalty for the whole training set, at pixels of variance 1: fixed, because a penalty tuned on real images would look at them.

Between 5 and 200 the accuracy moves by about 1 % on real digits of 200 to 60,000 images.
"""


@dataclass(frozen=True, kw_only=True)
class LogisticRegression:
    """Pixels in [0, 1] less their mean image, over one scale for all pixels, into `classes` logits.

    One scale, because a pixel that hardly varies in the synthetic images may vary in the real ones. A class without a
    training image is never predicted, so its test images count as errors.
    """

    classes: int
    max_iterations: int = 300

    def accuracy(self, training: Items, test: Items) -> float:
        """The share of `test` that is classified rightly after training on `training`."""
        labels, truth = self._labels(training), self._labels(test)
        known, unknown = _pixels(training), _pixels(test)
        if known.shape[1] != unknown.shape[1]:
            raise MetricError(
                f"{training.name} has images of {training.values.shape[1:]}, {test.name} of {test.values.shape[1:]}"
            )
        if len(np.unique(labels)) == 1:
            return float(np.mean(truth == labels[0]))
        mean = known.mean(axis=0)
        known -= mean
        scale = np.float32(np.sqrt(np.mean(np.square(known), dtype=np.float64))) or np.float32(1)
        known /= scale
        unknown = (unknown - mean) / scale
        return float(np.mean(self._fit(known, labels).predict(unknown) == truth))

    def _fit(self, pixels: np.ndarray, labels: np.ndarray):
        import warnings

        from sklearn import linear_model
        from sklearn.exceptions import ConvergenceWarning

        model = linear_model.LogisticRegression(C=INVERSE_PENALTY / len(pixels), tol=1e-3, max_iter=self.max_iterations)
        with warnings.catch_warnings():
            # The limit is a part of the definition: an unconverged fit is as deterministic as a converged one.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return model.fit(pixels, labels)

    def _labels(self, items: Items) -> np.ndarray:
        if items.labels is None or not len(items):
            raise MetricError(f"{items.name}: a classifier needs labelled images, and there are none")
        if int(items.labels.max()) >= self.classes:
            raise MetricError(f"{items.name}: label {int(items.labels.max())} of only {self.classes} classes")
        return items.labels


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
            network="logistic regression on pixels",
            reference=real.name,
            n=len(synthetic),
            reference_n=len(real),
        )


def accuracies(training_sets: Sequence[Items], test: Items, *, classes: int) -> tuple[Score, ...]:
    """One score a training set, in the order given."""
    metric = ClassifierAccuracy(classifier=LogisticRegression(classes=classes))
    return tuple(metric(test, training) for training in training_sets)


def _pixels(items: Items) -> np.ndarray:
    """A fresh float32 copy, one row an image, in [0, 1]."""
    rows = items.rows
    if rows.dtype == np.uint8:
        return rows.astype(np.float32) / np.float32(255)
    if rows.dtype.kind != "f" or (rows.size and (rows.min() < 0 or rows.max() > 1)):
        raise MetricError(f"{items.name}: pixels are uint8 or floats in [0, 1], not {rows.dtype}")
    return rows.astype(np.float32)
