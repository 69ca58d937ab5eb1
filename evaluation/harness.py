"""The harness: one judgement for every method, whoever asks for it.

Decision: a set of synthetic images, or of texts, is judged by what it is worth (classifiers that saw it alone, tested on
held-out real records) and by how near it is (metrics of features, against the same held-out records), with the ceiling, the
real training set, measured in the same way beside it. A metric that these items do not allow loses only itself.

Formal guarantee: a score is protected only if all of its inputs are. Why a metric was lost is said in public only if all
of its inputs are public; otherwise it is a line for the private log (rule 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from .classifier import CEILING, FINAL, INITIAL, RANDOM, ClassifierAccuracy, LogisticRegression
from .metric import Items, MetricError, Score
from .metric_config import Judge, MetricConfig, References
from .settings import Settings
from .text import are_texts

if TYPE_CHECKING:
    from .utility import Kept

T = TypeVar("T")

HELD_OUT = "held-out test"
VOTERS = "private records"
"""What the real sets are called in a score; the training set as a subject is called `CEILING`."""

CANARIES = f"canaries among the {VOTERS}"

__all__ = [
    "CANARIES",
    "CEILING",
    "FINAL",
    "HELD_OUT",
    "INITIAL",
    "RANDOM",
    "VOTERS",
    "Canaries",
    "Judged",
    "Lost",
    "judge",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """One set of images or texts: `images` holds pixels, or the texts, and labels, `features` what the judge's network sees.

    Without features the set is judged by classifiers alone. `probabilities` are of the network's own classes, if it has any.
    """

    images: Items
    features: Items | None = None
    probabilities: Items | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Canaries:
    """Features of records that were planted among the private ones, and of their like that were not."""

    planted: Items
    references: Items


class Lost(Protocol):
    """Told in one line which metric was lost and why; `public` says whether every value in it is public."""

    def __call__(self, line: str, /, *, public: bool) -> None: ...


def judge(
    synthetic: Sequence[Judged],
    *,
    test: Judged,
    train: Judged | None,
    classes: int,
    settings: Settings,
    lost: Lost,
    kept: Kept | None = None,
    ceiling: bool = True,
    class_names: tuple[str, ...] = (),
    canaries: Canaries | None = None,
) -> list[Score]:
    """Every score that can be computed, in the order of `synthetic`, metric by metric.

    `test` is real and never took part; `train` is the real training set, None where it may not be looked at: every score
    that depends on it is unprotected. The first of `synthetic` is the released set. `kept` holds outcomes of trainings.
    Without `ceiling` the training set is not judged itself. `canaries` are looked at only where `train` may be.
    """
    asking = _Asking(lost)
    every = [*synthetic, *([train] if train is not None and ceiling else [])]
    pictured = [each.images for each in every]
    scores = _useful(pictured, test.images, classes=classes, settings=settings, kept=kept, asking=asking)
    voters = None if train is None or train.features is None else replace(train.features, name=VOTERS)
    for metric in settings.chosen():
        sets = synthetic if metric.needs_train else every
        if metric.looks_at == "probabilities":
            judged = _probabilities([test, *sets], test.images, classes, asking)
            if judged:
                scores += _measured(metric, References(test=judged[0]), judged[1:], asking)
        elif metric.looks_at != "features":
            if are_texts(test.images) != (metric.looks_at == "texts"):
                lost(f"{metric.kind} looks at {metric.looks_at}, and these are none", public=True)
                continue
            references = References(test=test.images, classes=class_names)
            scores += _measured(metric, references, [each.images for each in sets], asking)
        elif test.features is not None:
            seen = [each.features for each in sets if each.features is not None]
            scores += _measured(metric, References(test=test.features, train=voters), seen, asking)
    if voters is not None and test.features is not None:
        scores += _evidence(synthetic, test.features, voters, canaries, asking)
    return scores


@dataclass(frozen=True)
class _Asking:
    """Asks a metric; what it cannot do is said and lost."""

    lost: Lost

    def __call__(self, ask: Callable[[], T], *inputs: Items) -> T | None:
        try:
            return ask()
        except MetricError as error:
            self.lost(str(error), public=all(items.protected for items in inputs))
            return None


def _useful(
    sets: Sequence[Items], test: Items, *, classes: int, settings: Settings, kept: Kept | None, asking: _Asking
) -> list[Score]:
    """Classifiers trained on each set and tested on real records; texts of one class have nothing to tell apart."""
    if are_texts(test):
        if classes < 2:
            return []
        from .text_utility import TextClassifierAccuracy

        return _measured(TextClassifierAccuracy(), References(test=test), sets, asking)
    scores: list[Score] = []
    for items in sets:
        if settings.profile == "logistic":
            metric = ClassifierAccuracy(classifier=LogisticRegression(classes=classes))
            found = asking(lambda items=items, metric=metric: [metric(test, items)], test, items)
        else:
            from .utility import utility

            seeds = range(settings.seeds)
            judged = partial(utility, [items], test, classes=classes, profile=settings.profile, seeds=seeds, kept=kept)
            found = asking(judged, test, items)
        scores += found or ()
    return scores


def _probabilities(sets: Sequence[Judged], test: Items, classes: int, asking: _Asking) -> list[Items]:
    """What the judge's network says of each set's images, by classes of its own.

    Of a network without classes, a classifier of these very ones: trained on the held-out images, never on the voters.
    """
    if sets[0].probabilities is not None:
        return [each.probabilities for each in sets if each.probabilities is not None]
    if are_texts(test):
        asking.lost("an Inception Score of texts needs a judge with classes", public=True)
        return []
    classifier = LogisticRegression(classes=classes)
    fitted = asking(partial(classifier.fit, test), test)
    if fitted is None:
        return []
    return [
        Items(
            name=each.images.name,
            values=fitted.probabilities(each.images.values),
            labels=each.images.labels,
            network=f"{classifier.name}, trained on {test.name}",
            protected=each.images.protected and test.protected,
        )
        for each in sets
    ]


def _measured(metric: MetricConfig, references: References, sets: Sequence[Items], asking: _Asking) -> list[Score]:
    """One metric of every set; what it fits to the references is fitted once."""
    real = [references.test, *([references.train] if metric.needs_train and references.train is not None else [])]
    if metric.needs_train and references.train is None:
        asking.lost(f"{metric.kind} looks at the real training set, which this evaluation does not", public=True)
        return []
    fitted: Judge | None = asking(partial(metric.judge, references), *real)
    if fitted is None:
        return []
    found = [asking(partial(fitted, items), *real, items) for items in sets]
    return [score for scores in found if scores is not None for score in scores]


def _evidence(
    synthetic: Sequence[Judged], test: Items, voters: Items, canaries: Canaries | None, asking: _Asking
) -> list[Score]:
    """What the released set tells of the records that took part: evidence, never protected.

    How near it lies to them, how well they are told from held-out records, and how exposed canaries among them are.
    """
    from .canaries import exposure
    from .membership import membership
    from .nearest_records import nearest_records

    released = synthetic[0].features if synthetic else None
    if released is None:
        return []
    kinds = [
        partial(nearest_records, private=voters, held_out=test, synthetic=released),
        partial(membership, members=voters, held_out=test, synthetic=released),
    ]
    if canaries is not None:
        planted = replace(canaries.planted, name=CANARIES)
        kinds.append(partial(exposure, planted=planted, references=canaries.references, synthetic=released))
    found = [asking(kind, voters, test, released) for kind in kinds]
    return [score for evidence in found if evidence is not None for score in evidence.scores()]


def pixels_like(images: np.ndarray, size: tuple[int, int], channels: int) -> np.ndarray:
    """uint8 (n, height, width, channels) at `size` (width, height), so that images of any painter can be compared."""
    width, height = size
    if images.shape[1:] == (height, width, channels):
        return images
    from PIL import Image as Pillow

    fitted = np.empty((len(images), height, width, channels), dtype=np.uint8)
    for row, pixels in enumerate(images):
        picture = Pillow.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        picture = picture.convert("L" if channels == 1 else "RGB").resize((width, height), Pillow.Resampling.LANCZOS)
        fitted[row] = np.asarray(picture, dtype=np.uint8).reshape(height, width, channels)
    return fitted
