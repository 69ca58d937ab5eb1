"""What a trained baseline is: a course of public stages and private releases that ends in a generative model.

A `Method` is the `[trainer]` table of a job: public settings only. It says what it will ask of the private set, and what
that costs, before anything is read; the job reserves these costs as one plan and lends it a `Bench`. The method trains
in public stages, whose results are kept by content, and asks the private set through `Bench.release` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from pydantic import BaseModel

from ..data.training_records import TrainingRecords
from ..privacy.mechanism import CalibratedMechanism, Cost

if TYPE_CHECKING:
    from .dp_sgd import DPSGD, NoisySGD
    from .workspace import Workspace

__all__ = ["Arrays", "Bench", "GenerativeModel", "Method", "PublicImages", "Shape", "Trained", "TrainingRecords"]

Arrays = Mapping[str, np.ndarray]
Progress = Callable[[str, int, int], None]
"""Told (what, done, total): public numbers alone."""


class TrainerError(ValueError):
    """A method cannot be trained as it is set up; one line that says why and what to change."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What is public of the private set by declaration: image size, channels, the class list and N, the number of slots."""

    width: int
    height: int
    channels: int
    classes: tuple[str, ...]
    slots: int

    @property
    def pixels(self) -> int:
        """How many numbers an image has."""
        return self.width * self.height * self.channels


@dataclass(frozen=True, kw_only=True, eq=False)
class PublicImages:
    """A public set at the private set's size: `pixels` uint8 (n, height, width, channels), `labels` index `classes`.

    `digest` names the content: stages that were trained on equal sets are shared.
    """

    pixels: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.pixels)


class GenerativeModel(Protocol):
    """A model that makes images of given labels."""

    def sample(
        self, labels: np.ndarray, *, seed: int, progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        """uint8 (n, height, width, channels); image i is a function of the weights, `labels[i]`, `seed` and i alone."""
        ...

    def saved(self) -> tuple[dict[str, Any], Arrays]:
        """What `trainers.serving.load` makes the same model of: a description as JSON, and the weights."""
        ...


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The end of a course. `floor` is the model that saw public data alone, None where there is none."""

    model: GenerativeModel
    floor: GenerativeModel | None = None
    pictures: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None
    """Released pictures on the way, such as central images: title to (pixels, labels)."""


class Bench(Protocol):
    """What a job lends to a method."""

    @property
    def shape(self) -> Shape: ...

    @property
    def seed(self) -> int:
        """Of everything public."""
        ...

    @property
    def public(self) -> PublicImages | None: ...

    @property
    def device(self) -> str: ...

    @property
    def compiled(self) -> bool:
        """Whether the networks of public stages are compiled."""
        ...

    @property
    def progress(self) -> Progress: ...

    def stage(self, name: str, key: Mapping[str, Any], make: Callable[[Path], Arrays]) -> Arrays:
        """A public stage: `make(folder)` is called unless a stage of this name and key was finished before, by any run.

        `key` is JSON and holds everything that the result depends on; public sets and earlier stages by their digests.
        `folder` outlives the process: a long `make` keeps checkpoints there and goes on from them.
        """
        ...

    def release(
        self,
        name: str,
        mechanism: CalibratedMechanism[TrainingRecords],
        *,
        question: Mapping[str, Any],
    ) -> Arrays:
        """The noisy answer of one planned release, charged at its first draw of noise. A training goes on from its checkpoint.

        `question` is JSON of everything public that the answer depends on.
        """
        ...

    def workspace(self, name: str, *, model: Callable[[Arrays], GenerativeModel] | None = None) -> Workspace:
        """The private checkpoints of the release `name`; with `model` of averaged weights, samples of some may be shown."""
        ...


class Method(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Abstract: the `[trainer]` table. `kind` chooses the method; a file each."""

    kind: str

    def check(self, shape: Shape, public: PublicImages | None) -> None:
        """Refuse, before anything is asked of the private set, what cannot be trained. Raises TrainerError."""
        raise NotImplementedError

    @property
    def needs_public(self) -> bool:
        """Whether the job must name a public set."""
        raise NotImplementedError

    def queries(self, shape: Shape) -> tuple[tuple[str, Cost], ...]:
        """Name and cost of what is asked of the private set before the training, in order; their noise is a setting."""
        return ()

    @property
    def declares_shares(self) -> bool:
        """Whether it takes label shares of the private set for public; the certificate says so."""
        return False

    @property
    def fixed_noise(self) -> float | None:
        """The noise multiplier of the training, if the job file fixes it; None: the least that the budget allows."""
        return None

    def dp_sgd(self, shape: Shape) -> DPSGD | None:
        """The training, to be calibrated beside the queries; None for a method that releases queries alone."""
        raise NotImplementedError

    def train(self, sgd: NoisySGD | None, bench: Bench) -> Trained:
        """Run the course, or go on with it."""
        raise NotImplementedError


def digest(arrays: Arrays) -> str:
    """SHA-256 over names, shapes, types and contents."""
    import hashlib

    whole = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        whole.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        whole.update(array.data if array.size else b"")
    return whole.hexdigest()
