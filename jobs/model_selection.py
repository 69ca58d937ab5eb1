"""Which of several sets of images a job releases: the `[selection]` table, and the choice.

A job that makes several candidates, iteration by iteration or step by step, releases the last one, or the one that a
classifier trained on it speaks for. What is chosen by, and at what cost, is the rule; see `evaluation/selection.py`.

Formal guarantee: `dp-validation` reads its own partition of the private set alone, whose slots vote and train nowhere, in
one release of a plan of its own; nothing but the winner's index leaves it. Neither by
removing nor by replacing a record does it cost its slots more than the run costs the others; of each run a claim takes the
dearer partition (`privacy/statement.py`), because a record may lie in one in this run and in the other in the next.

Decision: an oracle chooses nothing that is released. What it would have chosen was chosen by the test set, so its figures
are marked, unprotected and in `private/`, and what is released is the last candidate.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from ..privacy.accounting import epsilon
from ..privacy.ledger import PlannedRelease
from ..privacy.mechanism import Cost, PrivacyTarget, PureEpsilon, Relation
from .job import InputError, Table

if TYPE_CHECKING:
    import numpy as np

    from ..data.private_set import PrivateSet, Split
    from ..evaluation.classifiers.contract import Classifier
    from ..evaluation.metric import Items
    from ..evaluation.selection import Candidate, Choice
    from ..privacy.ledger import Ledger
    from .job import JobConfig
    from .run import Run

FILE = "selection.json"
"""In `release/`: by which rule, between which candidates, and which one is released."""
SELECTION = "selection"
PARTITION = "validation"
CLASSIFIERS = {"logistic": 0, "mlp": 1, "cnn": 2}
"""By their places in the `tiny` profile."""

Sets = Sequence[tuple["np.ndarray", "np.ndarray"]]
"""The candidates: images uint8 (n, height, width, channels) and class indices (n,); n may be 0."""


class ModelSelection(Table, frozen=True):
    """The `[selection]` table: which candidate is released, and by what right."""

    rule: Literal["last", "synthetic", "dp-validation", "oracle"] = "last"
    """last: no choice. synthetic: by synthetic images that no candidate's classifier saw; free.

    dp-validation: by a noisy maximum on private slots that are set aside. oracle: by the test set, for figures alone.
    """
    epsilon: float | None = Field(default=None, gt=0)
    """Of dp-validation, for the slots that are set aside; under no relation more than the run costs the others. None: as much."""
    share: float = Field(default=0.1, gt=0, lt=1)
    """How much is set aside to choose by: of the slots for dp-validation, of the last candidate for synthetic."""
    classifier: Literal["logistic", "mlp", "cnn"] = "logistic"
    """What is trained on each candidate; mlp and cnn need PyTorch."""

    @field_validator("classifier")
    @classmethod
    def _installed(cls, classifier: str) -> str:
        if classifier != "logistic" and find_spec("torch") is None:
            raise ValueError(f"{classifier!r} needs PyTorch: pip install 'privolve[train]', or take \"logistic\"")
        return classifier

    @property
    def set_aside(self) -> float:
        """The share of the private slots that validate; 0 for rules that read none."""
        return self.share if self.rule == "dp-validation" else 0.0

    def check(self, config: JobConfig, data: Split) -> None:
        """Refuse what no choice can be made by, before any record is read."""
        if self.epsilon is not None and self.rule != "dp-validation":
            raise InputError(
                f"selection.epsilon: rule = {self.rule!r} costs none; leave it out, or select by dp-validation"
            )
        if self.epsilon is not None and self.epsilon > config.privacy.epsilon:
            raise InputError(
                f"selection.epsilon: {self.epsilon:g} is more than privacy.epsilon = {config.privacy.epsilon:g}, so that the "
                "slots set aside would lose more than the others; lower it, or leave it out"
            )
        if self.rule == "last":
            return
        if data.train.size is None or len(data.train.classes) < 2:
            what = "texts" if data.train.size is None else "images of one class"
            raise InputError(
                f"selection.rule: {self.rule!r} tells images of two classes or more apart, and [data] "
                f'{data.train.name!r} holds {what}; take "last"'
            )
        if self.rule == "oracle" and data.test is None:
            raise InputError("selection.rule: 'oracle' needs a held-out part; give [data] holdout, or a test path")

    def cost(self, others: Sequence[Cost], target: PrivacyTarget) -> PureEpsilon | None:
        """Of dp-validation, in a run whose other releases cost `others`; None: it is free.

        Under no relation does it cost its slots more than those cost the others: by pure epsilon, replacing is twice
        removing, and by Gaussian noise it is less.
        """
        if self.rule != "dp-validation":
            return None
        most = min(epsilon(others, target.delta, relation) / relation.contributions for relation in Relation)
        wanted = math.inf if self.epsilon is None else self.epsilon / target.relation.contributions
        return PureEpsilon(epsilon=min(wanted, most))


# --- the plan ---------------------------------------------------------------------------------------------------------


def plan_run(run: str) -> str:
    """Whose name the plan on the validation partition has: a plan is of one partition."""
    return f"{run}-{PARTITION}"


def release_name(releases_as: str) -> str:
    """
    >>> release_name("run"), release_name("suite/cell")
    ('run-validation/selection', 'suite-validation/cell/selection')
    """
    run, *cell = releases_as.split("/")
    return "/".join([plan_run(run), *cell, SELECTION])


def planned(cost: PureEpsilon | None, releases_as: str) -> tuple[PlannedRelease, ...]:
    """What a choice releases."""
    return () if cost is None else (PlannedRelease(name=release_name(releases_as), cost=cost),)


def reserve(ledger: Ledger, run: Run, cost: PureEpsilon, target: PrivacyTarget) -> None:
    """Reserve the choice on its partition, before anything is released; a run's shares are of one unit, relation and delta."""
    from . import reserving

    share = PrivacyTarget(
        epsilon=cost.total(target.relation), delta=target.delta, unit=target.unit, relation=target.relation
    )
    reserving.reserve(
        ledger, run, partition=PARTITION, share=share, releases=planned(cost, run.releases_as), named=plan_run
    )


def plan_lines(settings: ModelSelection, cost: PureEpsilon | None, data: Split) -> list[str]:
    """What `privolve plan` says of the choice."""
    if settings.rule == "last":
        return []
    if cost is None or data.validation is None:
        return [f"  what is released is chosen by {settings.rule!r}, at no cost"]
    return [
        f"  what is released is chosen on {data.validation.count:,} slots of the partition {PARTITION!r}, which do nothing "
        f"else: epsilon {cost.epsilon:.4f} for these; {2 * cost.epsilon:.4f} for replacing one by another"
    ]


# --- the choice -------------------------------------------------------------------------------------------------------


def candidates(
    sets: Sets, *, names: Sequence[str], data: PrivateSet, settings: ModelSelection, seed: int
) -> tuple[Candidate, ...]:
    """A classifier a set, trained when it is first asked. A set that none can be trained on is never right."""
    from ..evaluation.harness import pixels_like
    from ..evaluation.selection import Candidate

    assert data.size is not None  # `check` saw to it.
    found: list[Candidate] = []
    for name, (pixels, labels) in zip(names, sets, strict=True):
        fitted = pixels_like(pixels, data.size, data.channels) if len(pixels) else pixels
        trained = _Trained(name, fitted, labels, data=data, settings=settings, seed=seed)
        found.append(Candidate(name=name, digest=trained.digest, classify=trained))
    return tuple(found)


def choose(
    sets: Sets,
    *,
    names: Sequence[str],
    data: Split,
    settings: ModelSelection,
    seed: int,
    cost: PureEpsilon | None,
    ledger: Ledger,
    run: Run,
) -> Choice:
    """The candidate that is released; a choice that was made before is made again as it was.

    `names` and `sets` are public, in the order of their making. The release of dp-validation is in a plan already.
    """
    from ..data.training_records import training_records
    from ..evaluation.selection import CalibratedDPValidation, Choice, DPValidation, by_synthetic, by_validation, last
    from ..privacy import durable
    from .run import Event

    public = candidates(sets, names=names, data=data.train, settings=settings, seed=seed)
    if settings.rule == "dp-validation":
        assert data.validation is not None and cost is not None
        asked = DPValidation(candidates=public)
        released = ledger.release(
            CalibratedDPValidation(config=asked, epsilon=cost.epsilon),
            training_records(data.validation),
            name=release_name(run.releases_as),
            question=asked.question,
        )
        run.record(ledger_head=ledger.head())
        run.journal(Event.RELEASED, name=release_name(run.releases_as))
        choice = by_validation(asked, released)
    elif settings.rule == "synthetic":
        made = read(run.folder)
        if made is not None:  # On another machine the same training of a classifier may tip another way.
            choice = Choice(index=made.place - 1, name=made.name, rule="synthetic")
        else:
            training, held_out = _unseen(sets, data=data.train, share=settings.share, seed=seed)
            blind = candidates(training, names=names, data=data.train, settings=settings, seed=seed)
            choice = by_synthetic(blind, held_out) if len(held_out) else last(public)
    else:
        choice = last(public)
    run.journal(Event.SELECTED, rule=choice.rule, candidate=choice.name)
    said = {"rule": choice.rule, "candidates": list(names), "released": choice.index}
    durable.write_bytes(run.release / FILE, json.dumps(said).encode() + b"\n")
    return choice


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """A choice as it was written down: the candidate's name, its place from 1, and how many there were."""

    rule: str
    name: str
    place: int
    among: int


def read(folder: Path) -> Made | None:
    """The choice of a run; None where the last candidate was all there was."""
    path = folder / "release" / FILE
    if not path.exists():
        return None
    said = json.loads(path.read_text(encoding="utf-8"))
    names, place = said["candidates"], said["released"]
    return Made(rule=said["rule"], name=names[place], place=place + 1, among=len(names))


def by_test(
    sets: Sets, test: Items, *, names: Sequence[str], data: PrivateSet, settings: ModelSelection, seed: int
) -> Choice:
    """An oracle's choice: of figures that are marked, and of nothing that leaves."""
    from ..evaluation.selection import by_oracle

    return by_oracle(candidates(sets, names=names, data=data, settings=settings, seed=seed), test)


class _Trained:
    """A classifier of one set of images, trained at its first question. `Candidate.classify`."""

    def __init__(
        self,
        name: str,
        pixels: np.ndarray,
        labels: np.ndarray,
        *,
        data: PrivateSet,
        settings: ModelSelection,
        seed: int,
    ) -> None:
        self._name = name
        self._pixels = pixels
        self._labels = labels
        self._classes = len(data.classes)
        self._kind = settings.classifier
        self._size = data.size or (0, 0)
        self._seed = seed

    def __call__(self, images: np.ndarray) -> np.ndarray:
        import numpy as np

        if self._fitted is None:
            return np.full((len(images), self._classes), np.nan)
        return self._fitted.probabilities(images)

    @cached_property
    def _classifier(self) -> Classifier:
        from ..evaluation.classifiers.profiles import classifiers

        width, height = self._size
        profile = "logistic" if self._kind == "logistic" else "tiny"
        return classifiers(profile, classes=self._classes, size=(height, width))[CLASSIFIERS[self._kind]]

    @cached_property
    def _fitted(self) -> Any:
        from ..evaluation.metric import Items, MetricError

        try:
            training = Items(name=self._name, values=self._pixels, labels=self._labels)
            return self._classifier.fit(training, seed=self._seed)
        except MetricError:
            return None  # Its images are public, and so is that nothing can be trained on them.

    @property
    def digest(self) -> str:
        """Of the images, their labels and the recipe."""
        recipe: Mapping[str, Any] = self._classifier.identity
        asked = [str(self._pixels.shape), dict(recipe), self._classes, self._seed]
        whole = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
        whole.update(self._pixels.tobytes())
        whole.update(self._labels.astype("<i8").tobytes())
        return whole.hexdigest()


def _unseen(sets: Sets, *, data: PrivateSet, share: float, seed: int) -> tuple[Sets, Items]:
    """The candidates without the images that are held out of the last one: winners stay on, so others hold them too.

    Of a last candidate most of whose images were refused there may be nothing to hold out.
    """
    from ..evaluation.harness import pixels_like
    from ..evaluation.metric import Items
    from ..evaluation.selection import hold_out

    assert data.size is not None
    alike = [(pixels_like(pixels, data.size, data.channels) if len(pixels) else pixels, at) for pixels, at in sets]
    newest = Items(name="the last candidate", values=alike[-1][0], labels=alike[-1][1], protected=True)
    if int(share * len(newest)) == 0:
        return alike, dataclasses.replace(newest, values=newest.values[:0], labels=alike[-1][1][:0])
    _, held_out = hold_out(newest, share=share, seed=seed)
    known = {image.tobytes() for image in held_out.values}
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for pixels, at in alike:
        rows = [row for row, image in enumerate(pixels) if image.tobytes() not in known]
        kept.append((pixels[rows], at[rows]))
    return kept, held_out
