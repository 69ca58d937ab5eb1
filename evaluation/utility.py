"""Utility: classifiers trained on each set of images and tested on real ones, several architectures, several seeds.

A `Trial` is one training: a set, an architecture, a seed. Its `Outcome` is small, so that a suite keeps outcomes and a
comparison that was stopped goes on where it was. Nothing is selected: the last epoch counts, and the seeds are given.
Pass the ceiling (`CEILING`, the real training set) and the floor (`FLOOR` or `INITIAL`: no private data) as training sets
beside the synthetic ones: an accuracy without them says little.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .calibration import brier_score, expected_calibration_error
from .classifiers.contract import Classifier, recipe_hash
from .classifiers.pictures import labels_of, pictures, same_pictures
from .classifiers.profiles import Profile, classifiers
from .metric import SHARE, Better, Items, MetricError, Score
from .seeds import mean_score

SEEDS = (0, 1, 2)

Kept = MutableMapping[str, Mapping[str, Any]]
"""Outcomes by the key of their trial, as JSON: a dictionary, or a store on disk."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one trained classifier does on the test set. `by_class` is the accuracy on each class's test images, None without any."""

    accuracy: float
    by_class: tuple[float | None, ...]
    calibration_error: float
    brier: float

    @property
    def worst_class(self) -> float:
        """The lowest accuracy over the classes that the test set holds."""
        return min(each for each in self.by_class if each is not None)

    @classmethod
    def of(cls, probabilities: np.ndarray, truth: np.ndarray) -> Outcome:
        """From probabilities (n, classes) on test images of classes `truth`."""
        right = probabilities.argmax(axis=1) == truth
        counts = np.bincount(truth, minlength=probabilities.shape[1])
        hits = np.bincount(truth, right, minlength=probabilities.shape[1])
        return cls(
            accuracy=float(np.mean(right)),
            by_class=tuple(float(hit / count) if count else None for hit, count in zip(hits, counts, strict=True)),
            calibration_error=expected_calibration_error(probabilities, truth),
            brier=brier_score(probabilities, truth),
        )

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "by_class": list(self.by_class)}

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Outcome:
        """The outcome that `to_json` wrote."""
        try:
            return cls(**{**written, "by_class": tuple(written["by_class"])})
        except (TypeError, KeyError):
            raise MetricError(
                f"not an outcome of a trial: {sorted(written)}; it was written by another version"
            ) from None


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """One training and test. `key` is a digest of all that the outcome depends on: images, labels, recipe, classes, seed."""

    training: Items
    test: Items
    classifier: Classifier
    seed: int
    key: str

    def run(self) -> Outcome:
        """Train and test; seconds in the `tiny` profile, hours in `paper` without a GPU. Raises MetricError."""
        fitted = self.classifier.fit(self.training, seed=self.seed)
        probabilities = fitted.probabilities(pictures(self.test.values, self.test.name))
        if not np.isfinite(probabilities).all():
            raise MetricError(
                f"{self.training.name}: {self.classifier.name} diverged at seed {self.seed}; leave that profile out"
            )
        return Outcome.of(probabilities, labels_of(self.test, self.classifier.classes))


def trials(
    training: Items,
    test: Items,
    *,
    classes: int,
    profile: Profile = "tiny",
    seeds: Sequence[int] = SEEDS,
    device: str = "auto",
) -> Iterator[Trial]:
    """All trials of one training set, by architecture and then by seed; a deterministic classifier has one.

    Raises MetricError, before anything is trained, for images that cannot be judged.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise MetricError(f"utility needs different seeds, at least one, not {list(seeds)}")
    size = _check(training, test, classes)
    chosen = classifiers(profile, classes=classes, size=size, device=device)
    digests = [_digest(items) for items in (training, test)]
    return (
        Trial(
            training=training, test=test, classifier=classifier, seed=seed, key=_key(digests, classifier, classes, seed)
        )
        for classifier in chosen
        for seed in (seeds if classifier.seeded else seeds[:1])
    )


def utility(
    training_sets: Sequence[Items],
    test: Items,
    *,
    classes: int,
    profile: Profile = "tiny",
    seeds: Sequence[int] = SEEDS,
    device: str = "auto",
    kept: Kept | None = None,
    failed: Callable[[Items, MetricError], None] | None = None,
) -> list[Score]:
    """Scores of each training set in turn: every architecture's, then their mean, with 95 % t intervals over the seeds.

    Of each: accuracy, accuracy on the worst class, expected calibration error, Brier score. An interval says how far the
    training's randomness moves a figure; other test images, or another synthetic set, would move it too. An outcome in
    `kept` is not computed again, and a new one is put there at once. A training set that cannot be judged raises, or is
    left out after `failed` heard of it.
    """
    kept = {} if kept is None else kept
    scores: list[Score] = []
    for training in training_sets:
        try:
            outcomes: dict[str, list[Outcome]] = {}
            judges: dict[str, Classifier] = {}
            for trial in trials(training, test, classes=classes, profile=profile, seeds=seeds, device=device):
                if trial.key not in kept:
                    kept[trial.key] = trial.run().to_json()
                outcomes.setdefault(trial.classifier.name, []).append(Outcome.from_json(kept[trial.key]))
                judges[trial.classifier.name] = trial.classifier
        except MetricError as error:
            if failed is None:
                raise
            failed(training, error)
            continue
        scores += _summary(training, test, outcomes, judges)
    return scores


# --- figures ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Figure:
    """One figure of an outcome, and how a reader knows it."""

    name: str
    value: Callable[[Outcome], float]
    better: Better
    unit: str = ""
    least: float | None = None
    most: float | None = None


_FIGURES = (
    _Figure(name="classifier accuracy", value=lambda outcome: outcome.accuracy, better="higher", unit=SHARE),
    _Figure(name="worst-class accuracy", value=lambda outcome: outcome.worst_class, better="higher", unit=SHARE),
    _Figure(
        name="expected calibration error",
        value=lambda outcome: outcome.calibration_error,
        better="lower",
        least=0.0,
        most=1.0,
    ),
    _Figure(name="Brier score", value=lambda outcome: outcome.brier, better="lower", least=0.0, most=2.0),
)


def _summary(
    training: Items, test: Items, outcomes: Mapping[str, Sequence[Outcome]], judges: Mapping[str, Classifier]
) -> list[Score]:
    """Each figure's mean over seeds, by architecture, and of the mean over architectures."""
    repeats = max(len(each) for each in outcomes.values())
    scores: list[Score] = []
    for figure in _FIGURES:
        values = {name: [figure.value(outcome) for outcome in each] for name, each in outcomes.items()}
        for name, each in values.items():
            scores.append(_score(figure, each, training, test, network=name, network_hash=recipe_hash([judges[name]])))
        if len(values) > 1:
            # A deterministic classifier has the same figure at every seed.
            table = [each if len(each) == repeats else each * repeats for each in values.values()]
            means = [float(np.mean(column)) for column in zip(*table, strict=True)]
            network = "mean of " + "; ".join(values)
            scores.append(
                _score(figure, means, training, test, network=network, network_hash=recipe_hash(list(judges.values())))
            )
    return scores


def _score(
    figure: _Figure, values: Sequence[float], training: Items, test: Items, *, network: str, network_hash: str
) -> Score:
    return mean_score(
        [
            Score(
                name=figure.name,
                subject=training.name,
                value=value,
                protected=training.protected and test.protected,
                better=figure.better,
                unit=figure.unit,
                network=network,
                network_hash=network_hash,
                reference=test.name,
                n=len(training),
                reference_n=len(test),
                least=figure.least,
                most=figure.most,
            )
            for value in values
        ]
    )


def _check(training: Items, test: Items, classes: int) -> tuple[int, int]:
    """(height, width) of images that can be judged."""
    if classes < 2:
        raise MetricError(f"a classifier tells two or more classes apart, and {classes} are declared")
    labels_of(test, classes)
    labels = labels_of(training, classes)
    same_pictures(training, test)
    pictures(test.values, test.name)
    shape = pictures(training.values, training.name).shape
    if len(np.unique(labels)) == 1:
        raise MetricError(
            f"{training.name}: all {len(labels)} images are of class {labels[0]}; a classifier needs two classes or more"
        )
    return shape[1], shape[2]


def _digest(items: Items) -> str:
    """Of images and labels, whatever their name."""
    whole = hashlib.sha256()
    for array in (items.values, items.labels):
        assert array is not None
        whole.update(str((array.dtype.str, array.shape)).encode())
        whole.update(np.ascontiguousarray(array).data)
    return whole.hexdigest()


def _key(digests: Sequence[str], classifier: Classifier, classes: int, seed: int) -> str:
    asked = ["utility 1", *digests, dict(classifier.identity), classes, seed if classifier.seeded else None]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
