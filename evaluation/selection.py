"""Which of several models is shown: a choice is a release too, so it says by what right it was made.

    last            the last candidate: no choice at all; the default
    synthetic       the most accurate on held-out synthetic images: a function of what was released, so it is free
    dp-validation   the most often right on a private validation partition, by noisy max: costs its epsilon there
    oracle          the most accurate on the test set: no guarantee, and too good; its figures are marked

Formal guarantee of `dp-validation`: a candidate answers an image by a function of that image alone, so a slot adds 0 or 1
to each candidate's int64 count, whatever its record holds; a ghost, or an answer that is not finite, adds 0. OpenDP's
report noisy max on these counts is epsilon-DP under zero-out (2 epsilon under replace-one), and the winner's index is all
that leaves. The candidates are public and fixed before; they were made without the validation partition, whose slots
`data/validation.py` picks by a keyed hash of their ids, so its cost adds nothing to the training partition's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from ..privacy.mechanism import JSON, PureEpsilon
from ..privacy.noisy_max import CalibratedNoisyMax, NoisyMax, Verdicts
from ..privacy.randomness import PublicRng, SecretRng
from .classifiers.pictures import labels_of, pictures
from .metric import Items, MetricError, Score

Rule = Literal["last", "synthetic", "dp-validation", "oracle"]

ORACLE = " (oracle selection)"
"""What the name of every figure of an oracle's choice ends with, so that it never stands in another's column."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A public model that classifies. `digest` is the SHA-256 of what it was made from: weights, or samples and recipe.

    `classify` takes images (n, height, width, channels), uint8, to scores (n, classes), each row of its image alone; the
    largest wins.
    """

    name: str
    digest: str
    classify: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The chosen candidate, and by which rule."""

    index: int
    name: str
    rule: Rule

    def marked(self, score: Score) -> Score:
        """A figure of the chosen candidate: an oracle's is marked and unprotected, any other as it is."""
        if self.rule != "oracle":
            return score
        return dataclasses.replace(score, name=score.name + ORACLE, protected=False)


def is_oracle(score: Score) -> bool:
    """Whether the figure may stand in no main table."""
    return score.name.endswith(ORACLE)


def last(candidates: Sequence[Candidate]) -> Choice:
    """No selection: the last of the candidates, in the order of their making."""
    return _choice(candidates, len(candidates) - 1, "last")


def by_synthetic(candidates: Sequence[Candidate], held_out: Items) -> Choice:
    """The most accurate on synthetic images that no candidate saw; the earliest of equals."""
    if not held_out.protected:
        raise MetricError(
            f"{held_out.name} is not a released set, so selection by it is not free; use synthetic images, or dp-validation"
        )
    return _most_accurate(candidates, held_out, "synthetic")


def by_oracle(candidates: Sequence[Candidate], test: Items) -> Choice:
    """The most accurate on the test set itself, as DPImageBench's `sen` has it: an upper bound, never a result."""
    return _most_accurate(candidates, test, "oracle")


def hold_out(items: Items, *, share: float, seed: int) -> tuple[Items, Items]:
    """Synthetic items for training and for selection: a public random split, `share` of them held out, in their order."""
    held = int(share * len(items))
    if not 0 < held < len(items):
        raise MetricError(f"{items.name}: a share of {share:g} of {len(items)} items leaves one part empty")
    chosen = np.zeros(len(items), dtype=np.bool_)
    chosen[PublicRng(seed).at("selection", "hold out").permutation(len(items))[:held]] = True
    parts = [
        dataclasses.replace(
            items, name=name, values=items.values[rows], labels=None if items.labels is None else items.labels[rows]
        )
        for name, rows in ((items.name, ~chosen), (f"{items.name}, held out", chosen))
    ]
    return parts[0], parts[1]


# --- the private choice -----------------------------------------------------------------------------------------------


class LabelledSlots(Protocol):
    """The validation partition: one row a slot. Pixels uint8 (N, H, W, C); a ghost has label -1 and is not valid."""

    @property
    def pixels(self) -> np.ndarray: ...

    @property
    def labels(self) -> np.ndarray: ...

    @property
    def valid(self) -> np.ndarray: ...

    def parts(self) -> Iterator[bytes]: ...


@dataclass(frozen=True, kw_only=True)
class DPValidation:
    """Select one of `candidates`, fixed before, on a private validation partition. `batch` slots are classified at once."""

    candidates: tuple[Candidate, ...]
    batch: int = 256

    def __post_init__(self) -> None:
        NoisyMax(candidates=self.names)
        if len(set(self.names)) != len(self.names):
            raise MetricError("two candidates of a selection have the same name; name each")
        if self.batch < 1:
            raise MetricError(f"batch is {self.batch}; at least one slot is classified at a time")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(candidate.name for candidate in self.candidates)

    @property
    def question(self) -> str:
        """The digest of all that is public in the choice, for the ledger."""
        asked = [[candidate.name, candidate.digest] for candidate in self.candidates]
        return hashlib.sha256(json.dumps(["dp-validation 1", asked]).encode()).hexdigest()

    def with_noise(self, noise_multiplier: float, /) -> CalibratedDPValidation:
        """Noise in units of what one record can add to a count: epsilon = 1 / noise_multiplier."""
        return CalibratedDPValidation(config=self, epsilon=1 / noise_multiplier)


@dataclass(frozen=True, kw_only=True)
class CalibratedDPValidation:
    """Reports {"selected": the index of about the best candidate}, and nothing else."""

    config: DPValidation
    epsilon: float

    @property
    def cost(self) -> PureEpsilon:
        return self._noisy_max.cost

    def describe(self) -> Mapping[str, JSON]:
        return {
            "mechanism": "dp-validation",
            "candidates": list(self.config.names),
            "batch": self.config.batch,
            "epsilon": self.epsilon,
        }

    def __call__(self, secret: SecretRng, data: LabelledSlots, /) -> Mapping[str, Any]:
        return self._noisy_max(secret, self._verdicts(data))

    @property
    def _noisy_max(self) -> CalibratedNoisyMax:
        return CalibratedNoisyMax(candidates=self.config.names, epsilon=self.epsilon)

    def _verdicts(self, data: LabelledSlots) -> Verdicts:
        """1 where a candidate is right on a slot. Every batch has the same public shape, and a ghost is a blank in it."""
        slots, batch = len(data.labels), self.config.batch
        right = np.zeros((slots, len(self.config.candidates)), dtype=np.int64)
        usable = data.valid.astype(np.bool_) & (data.labels >= 0)
        for start in range(0, slots, batch):
            rows = slice(start, min(start + batch, slots))
            blank = np.zeros((batch, *data.pixels.shape[1:]), dtype=np.uint8)
            blank[: rows.stop - start][usable[rows]] = data.pixels[rows][usable[rows]]
            for column, candidate in enumerate(self.config.candidates):
                scores = np.asarray(candidate.classify(blank))[: rows.stop - start]
                finite = np.isfinite(scores).all(axis=1)
                right[rows, column] = usable[rows] & finite & (scores.argmax(axis=1) == data.labels[rows])
        return Verdicts(right)


def by_validation(config: DPValidation, released: Mapping[str, np.ndarray]) -> Choice:
    """The choice that `Ledger.release` of the calibrated `config` gave back."""
    return _choice(config.candidates, int(released["selected"][0]), "dp-validation")


# --- the open ones ----------------------------------------------------------------------------------------------------


def _most_accurate(candidates: Sequence[Candidate], items: Items, rule: Rule) -> Choice:
    images = pictures(items.values, items.name)
    right: list[int] = []
    for candidate in candidates:
        scores = np.asarray(candidate.classify(images))
        truth = labels_of(items, scores.shape[1])
        right.append(int(np.sum(np.isfinite(scores).all(axis=1) & (scores.argmax(axis=1) == truth))))
    return _choice(candidates, int(np.argmax(right)) if right else -1, rule)


def _choice(candidates: Sequence[Candidate], index: int, rule: Rule) -> Choice:
    if not candidates:
        raise MetricError("there is nothing to select from: name at least one candidate")
    return Choice(index=index, name=candidates[index].name, rule=rule)
