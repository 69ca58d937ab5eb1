"""What synthetic records are worth to a classifier: trained on them alone, tested on real ones, on words or on features."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, PositiveInt

from .intervals import share_interval
from .metric import SHARE, Items, MetricError, Score, same_network
from .metric_config import Judge, LooksAt, MetricConfig, References, at_least, score
from .text import texts_of

Predict = Callable[[Items], np.ndarray]


class TextClassifierAccuracy(MetricConfig):
    """A logistic regression on TF-IDF weights of words and pairs of words, whose vocabulary is the synthetic texts'."""

    kind: str = Field(default="text-classifier", pattern="^text-classifier$")
    looks_at: ClassVar[LooksAt] = "texts"
    needs_labels: ClassVar[bool] = True
    words: PositiveInt = 2
    """Runs of up to so many words count."""
    vocabulary: PositiveInt = 50_000
    inverse_penalty: float = Field(default=10.0, gt=0)

    def judge(self, references: References) -> Judge:
        return _judge(references.test, self.fit, network="logistic regression on TF-IDF", of=self)

    def fit(self, synthetic: Items) -> Predict:
        from sklearn.feature_extraction.text import TfidfVectorizer

        labels, vectorizer = (
            _labels(synthetic),
            TfidfVectorizer(
                sublinear_tf=True,
                ngram_range=(1, self.words),
                max_features=self.vocabulary,
                token_pattern=r"(?u)\b\w+\b",  # noqa: S106
            ),
        )
        try:
            rows = vectorizer.fit_transform(texts_of(synthetic))
        except ValueError:
            raise MetricError(f"{synthetic.name}: a text classifier needs texts with words; these have none") from None
        predict = _regression(rows, labels, self.inverse_penalty)
        return lambda items: predict(vectorizer.transform(texts_of(items)))


class FeatureClassifierAccuracy(MetricConfig):
    """A logistic regression on the features of the judge's network, of images or texts: centred, over one scale."""

    kind: str = Field(default="feature-classifier", pattern="^feature-classifier$")
    needs_labels: ClassVar[bool] = True
    inverse_penalty: float = Field(default=1.0, gt=0)

    def judge(self, references: References) -> Judge:
        return _judge(references.test, self.fit, network="", of=self)

    def fit(self, synthetic: Items) -> Predict:
        rows = synthetic.rows.astype(np.float64)
        mean = rows.mean(axis=0)
        scale = float(np.sqrt(np.mean(np.square(rows - mean)))) or 1.0
        predict = _regression((rows - mean) / scale, _labels(synthetic), self.inverse_penalty)
        return lambda items: predict((items.rows.astype(np.float64) - mean) / scale)


def _judge(real: Items, fit: Callable[[Items], Predict], *, network: str, of: MetricConfig) -> Judge:
    truth = _labels(real)
    settings = hashlib.sha256(json.dumps(of.model_dump(), sort_keys=True).encode()).hexdigest()[:16]

    def accuracy(synthetic: Items) -> tuple[Score, ...]:
        same_network(real, synthetic)
        at_least(1, "a classifier", real, synthetic)
        right = fit(synthetic)(real) == truth
        kind = "text" if network else "feature"
        found = [
            score(
                f"{kind} classifier accuracy",
                float(right.mean()),
                synthetic,
                real,
                better="higher",
                unit=SHARE,
                interval=share_interval(int(right.sum()), len(right)),
            ),
            score(
                f"{kind} classifier accuracy of the worst class",
                min(float(right[truth == label].mean()) for label in np.unique(truth)),
                synthetic,
                real,
                better="higher",
                unit=SHARE,
            ),
        ]
        if network:
            found = [replace(each, network=network, network_hash=settings) for each in found]
        return tuple(found)

    return accuracy


def _labels(items: Items) -> np.ndarray:
    if items.labels is None:
        raise MetricError(f"{items.name}: a classifier needs labels, and there are none")
    return items.labels


def _regression(rows: Any, labels: np.ndarray, inverse_penalty: float) -> Callable[[Any], np.ndarray]:
    """The predictor of a fitted regression. One class only is answered by that class."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(labels)) == 1:
        return lambda asked: np.full(asked.shape[0], labels[0])
    with warnings.catch_warnings():
        # The limit is a part of the definition: an unconverged fit is as deterministic as a converged one.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = LogisticRegression(C=inverse_penalty, max_iter=300).fit(rows, labels)
    return lambda asked: np.asarray(fitted.predict(asked))
