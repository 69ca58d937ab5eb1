"""The private step: votes, their sum and its noise, as one mechanism.

`NearestNeighbourHistogram` asks which candidates are nearest to the private records, `LabelHistogram` how the records are
spread over the classes. Both count in int64 and add exact discrete Gaussian noise before anything leaves `__call__`.
The scale of the noise is `noise_multiplier * sqrt(cells)`; what it costs is stated by `scale` and `cells` alone, never by
a ratio of standard deviation to sensitivity.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..data.voters import Voters
from ..neighbours import Distance, Index
from ..privacy.mechanism import JSON, DiscreteGaussian
from ..privacy.randomness import SecretRng

VOTERS_AT_ONCE = 16_384


@dataclass(frozen=True, kw_only=True)
class NearestNeighbourHistogram:
    """Each record votes for its `neighbours` nearest candidates of its own label, one vote each.

    `cells_per_unit`: the unit of protection owns several records (`Voters.units`). All its records together vote for at
    most so many cells, at most once each: those that most of its records name, then those of the lowest index.
    """

    neighbours: int = 1
    distance: str = Distance.L2
    cells_per_unit: int | None = None

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ValueError(f"`neighbours` is {self.neighbours}; a record votes for at least 1 candidate")
        if self.cells_per_unit is not None and self.cells_per_unit < 1:
            raise ValueError(f"`cells_per_unit` is {self.cells_per_unit}; a unit votes for at least 1 candidate")
        if self.distance not in list(Distance):
            raise ValueError(f"unknown distance {self.distance!r}; known: {', '.join(Distance)}")

    @property
    def cells(self) -> int:
        """How many cells one unit can change, each by at most 1."""
        return self.neighbours if self.cells_per_unit is None else self.cells_per_unit

    def with_noise(self, noise_multiplier: float, /) -> NoisyHistogram:
        return NoisyHistogram(config=self, scale=_scale(noise_multiplier, self.cells))


@dataclass(frozen=True, kw_only=True)
class NoisyHistogram:
    """The histogram with its noise, still without a question."""

    config: NearestNeighbourHistogram
    scale: float

    @property
    def cost(self) -> DiscreteGaussian:
        return DiscreteGaussian(scale=self.scale, cells=self.config.cells)

    def over(self, embeddings: np.ndarray, labels: np.ndarray, *, backend: str = "auto") -> BoundHistogram:
        """The mechanism that asks about these candidates (float32, a row each; int64 labels).

        All that can be wrong with the question is an error here, before any record is read. Nobody votes for a candidate
        whose row is not finite; a label that has candidates must have at least `neighbours` that can be voted for.
        """
        return BoundHistogram(histogram=self, embeddings=embeddings, labels=labels, backend=backend)


@dataclass(frozen=True, kw_only=True, eq=False)
class BoundHistogram:
    """One question, one release: `{"histogram": int64, a cell a candidate}`.

    Formal guarantee (zero-out): which candidates a record votes for is a function of that record, its label and the public
    candidates: the search is exact, decided pair by pair in float64, so no other record can change it. A record votes for
    at most `neighbours` distinct cells, one vote each; a ghost, an unusable embedding and a label without candidates vote
    for none. Replacing one record by a ghost therefore lowers at most `cells` of the clean counts, each by exactly 1, and
    leaves the others alone. With `cells_per_unit` = m the same holds for a unit: its votes are clipped to {0, 1} and to m
    cells by a rule that reads its own votes alone. Each cell gets independent discrete Gaussian noise of parameter `scale`,
    so the release costs the scalar pair at `scale`, composed `cells` times (2 `cells` times for replace-one).
    Clean counts do not leave `__call__`. One call serves all labels: a record has one label, so this is one release.
    """

    histogram: NoisyHistogram
    embeddings: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    backend: str
    question: str = field(init=False)
    """Digest of the candidates asked about."""
    _booths: tuple[tuple[int, np.ndarray, Index], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        embeddings = np.array(self.embeddings, dtype=np.float32)
        labels = np.array(self.labels, dtype=np.int64)
        if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
            raise ValueError(
                f"candidates need one row and one label each, not embeddings of shape {embeddings.shape} "
                f"and labels of shape {labels.shape}"
            )
        if labels.size and labels.min() < 0:
            raise ValueError(f"a candidate has the label {labels.min()}; labels count from 0")
        embeddings.setflags(write=False)
        labels.setflags(write=False)
        object.__setattr__(self, "embeddings", embeddings)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "question", question(embeddings, labels))
        object.__setattr__(self, "_booths", tuple(self._open_booths()))

    @property
    def scale(self) -> float:
        return self.histogram.scale

    @property
    def cost(self) -> DiscreteGaussian:
        return self.histogram.cost

    def describe(self) -> Mapping[str, JSON]:
        config = self.histogram.config
        return {
            "mechanism": "nearest-neighbour-histogram",
            "neighbours": config.neighbours,
            "distance": str(config.distance),
            "cells_per_unit": config.cells_per_unit,
            "cells": config.cells,
            "scale": self.scale,
            "noise": "discrete-gaussian",
            "candidates": len(self.labels),
            "question": self.question,
        }

    def __call__(self, secret: SecretRng, data: Voters, /) -> Mapping[str, np.ndarray]:
        return {"histogram": secret.discrete_gaussian(self._count(data), self.scale)}

    def _open_booths(self) -> Iterator[tuple[int, np.ndarray, Index]]:
        """Each label's cells and their index; a label whose candidates are all unusable has none, like one without any."""
        config = self.histogram.config
        for label in np.unique(self.labels).tolist():
            cells = np.flatnonzero(self.labels == label)
            index = Index(self.embeddings[cells], distance=config.distance, backend=self.backend)
            if 0 < index.candidates < config.neighbours:
                raise ValueError(
                    f"label {label} has {index.candidates} candidates that can be voted for, and each record votes for "
                    f"{config.neighbours}. Lower `neighbours`, or make more candidates"
                )
            if index.candidates:
                yield label, cells, index

    def _count(self, voters: Voters) -> np.ndarray:
        """The clean counts, int64."""
        config, count = self.histogram.config, len(self.labels)
        if (voters.units is None) != (config.cells_per_unit is None):
            raise ValueError("a histogram by unit needs `cells_per_unit` and voters with units, or neither")
        total = np.zeros(count, dtype=np.int64)
        cast: list[np.ndarray] = [np.empty((0, 2), dtype=np.int64)]
        for slots, cells in self._votes(voters):
            if cells.size and (cells.min() < 0 or cells.max() >= count):
                raise AssertionError("a vote lies outside the histogram")
            if voters.units is None:
                total += np.bincount(cells.reshape(-1), minlength=count)
            else:
                cast.append(np.stack([np.repeat(voters.units[slots], cells.shape[1]), cells.reshape(-1)], axis=1))
        if config.cells_per_unit is not None:
            total += np.bincount(_clipped(np.concatenate(cast), config.cells_per_unit), minlength=count)
        return total

    def _votes(self, voters: Voters) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Slots that vote, and the `neighbours` distinct cells that each votes for."""
        for label, cells, index in self._booths:
            slots = np.flatnonzero(voters.valid & (voters.labels == label))
            for start in range(0, len(slots), VOTERS_AT_ONCE):
                some = slots[start : start + VOTERS_AT_ONCE]
                found = index.search(voters.embeddings[some], k=self.histogram.config.neighbours)
                # A row that is no point has -1 throughout: it votes for nobody, and never for the last cell.
                voting = (found >= 0).all(axis=1)
                yield some[voting], cells[found[voting]]


@dataclass(frozen=True, kw_only=True)
class LabelHistogram:
    """How many records each of `classes` classes has. `shares.released` turns the release into label shares."""

    classes: int

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise ValueError(f"`classes` is {self.classes}; a label histogram needs at least 1 class")

    def with_noise(self, noise_multiplier: float, /) -> NoisyLabelHistogram:
        return NoisyLabelHistogram(classes=self.classes, scale=_scale(noise_multiplier, 1))


@dataclass(frozen=True, kw_only=True)
class NoisyLabelHistogram:
    """`{"labels": int64, a cell a class}`.

    Formal guarantee (zero-out): a record adds 1 to the cell of its own label and nothing else; a ghost and a record whose
    embedding is not finite add nothing. Replacing one record by a ghost lowers one clean count by exactly 1. Each cell gets
    independent discrete Gaussian noise of parameter `scale`: the scalar pair at `scale` (twice for replace-one).
    """

    classes: int
    scale: float

    @property
    def cost(self) -> DiscreteGaussian:
        return DiscreteGaussian(scale=self.scale)

    def describe(self) -> Mapping[str, JSON]:
        return {
            "mechanism": "label-histogram",
            "classes": self.classes,
            "cells": 1,
            "scale": self.scale,
            "noise": "discrete-gaussian",
        }

    def __call__(self, secret: SecretRng, data: Voters, /) -> Mapping[str, np.ndarray]:
        counted = data.valid & (data.labels >= 0) & (data.labels < self.classes)
        for start in range(0, len(data.labels), VOTERS_AT_ONCE):
            some = slice(start, start + VOTERS_AT_ONCE)
            counted[some] &= np.isfinite(data.embeddings[some]).all(axis=1)
        counts = np.bincount(data.labels[counted], minlength=self.classes).astype(np.int64)
        return {"labels": secret.discrete_gaussian(counts, self.scale)}


def question(embeddings: np.ndarray, labels: np.ndarray) -> str:
    """SHA-256 of the public question: every candidate's embedding bits and label, in order."""
    digest = hashlib.sha256(f"privolve question 1 {embeddings.shape}\0".encode())
    digest.update(np.ascontiguousarray(embeddings, dtype="<f4").data)
    digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return digest.hexdigest()


def _scale(noise_multiplier: float, cells: int) -> float:
    """The parameter of the noise: `noise_multiplier` standard deviations per unit of L2 sensitivity, which is sqrt(cells)."""
    if not 0 < noise_multiplier < math.inf:
        raise ValueError(f"the noise multiplier is {noise_multiplier}; it must be a finite number above 0")
    return noise_multiplier * math.sqrt(cells)


def _clipped(cast: np.ndarray, most: int) -> np.ndarray:
    """The cells voted for by all units, each unit's clipped to {0, 1} and to its `most` first by (most votes, lowest cell)."""
    pairs, votes = np.unique(cast, axis=0, return_counts=True)
    units, cells = pairs[:, 0], pairs[:, 1]
    order = np.lexsort((cells, -votes, units))
    units, cells = units[order], cells[order]
    places = np.arange(len(units)) - np.searchsorted(units, units)
    return cells[places < most]
