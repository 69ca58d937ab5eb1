"""Where candidates are compared with the private records: their text, their image, the image of their text, or ahead.

All of it is public. A candidate that could not be scored has a row of NaN: nobody votes for it, and `selection.barred`
keeps noise from electing it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from ..adapters.contract import Adapter, EmbedRequest, Image, ImageRequest, Refusal
from ..privacy.randomness import PublicRng
from .population import Candidate, Population
from .refusals import Refusals
from .variation import REDRAWS, Maker, sent, variations

_DRAWS = 2**53


class Scoring(Protocol):
    def embed(self, population: Population, *, iteration: int) -> tuple[Population, np.ndarray]:
        """The population, with what was made for it filled in, and its embeddings, float32, a row a candidate."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class TextScoring:
    """The embedding of the caption."""

    eye: Adapter[Any, Any]
    role: str = "eye"

    def embed(self, population: Population, *, iteration: int) -> tuple[Population, np.ndarray]:
        return population, _embedded(self.role, self.eye, [candidate.caption for candidate in population])


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageScoring:
    """The embedding of the image."""

    eye: Adapter[Any, Any]
    role: str = "eye"

    def embed(self, population: Population, *, iteration: int) -> tuple[Population, np.ndarray]:
        return population, _embedded(self.role, self.eye, [candidate.image for candidate in population])


@dataclass(frozen=True, kw_only=True, eq=False)
class RenderedScoring:
    """The embedding of an image of the caption, painted once: the picture that wins is the one that is released.

    With `images` = m > 1 the mean over m paintings, of which the first is the candidate's. A painting's draw is a function
    of the candidate's id, so that two equal captions get two pictures.
    """

    painter: Adapter[Any, Any]
    eye: Adapter[Any, Any]
    size: tuple[int, int]
    rng: PublicRng
    channels: int = 3
    images: int = 1
    painter_role: str = "painter"
    eye_role: str = "eye"
    refusals: Refusals = field(default_factory=Refusals)

    def embed(self, population: Population, *, iteration: int) -> tuple[Population, np.ndarray]:
        painted = self.paint(population)
        copies = [[candidate.image for candidate in painted]]
        copies += [self._paintings(list(painted), copy) for copy in range(1, self.images)]
        return painted, _mean([_embedded(self.eye_role, self.eye, images) for images in copies])

    def paint(self, population: Population) -> Population:
        """The population with an image for every candidate that has none; None still where the painter refuses."""
        bare = [candidate for candidate in population if candidate.image is None]
        images = dict(zip([candidate.id for candidate in bare], self._paintings(bare, 0), strict=True))
        return Population(
            tuple(
                candidate if candidate.image is not None else replace(candidate, image=images[candidate.id])
                for candidate in population
            )
        )

    def _paintings(self, candidates: Sequence[Candidate], copy: int) -> list[Image | None]:
        requests = [
            ImageRequest(
                prompt=candidate.caption,
                draw=int(self.rng.at("paint", candidate.id, copy).integers(_DRAWS)),
                size=self.size,
                channels=self.channels,
            )
            for candidate in candidates
        ]
        replies = sent(self.painter_role, self.painter, requests)
        for candidate, reply in zip(candidates, replies, strict=True):
            if isinstance(reply, Refusal):
                self.refusals.add(self.painter_role, candidate.label)
        return [None if isinstance(reply, Refusal) else _image(self.painter_role, reply) for reply in replies]


@dataclass(frozen=True, kw_only=True, eq=False)
class LookAhead:
    """The mean embedding of `count` variations of each candidate, as `inner` scores them; the candidate itself stays as it is.

    `degree` is a number or a function of the iteration. A variation that cannot be scored is left out of the mean.
    """

    inner: Scoring
    maker: Maker
    count: int
    degree: float | Callable[[int], float]
    rng: PublicRng
    redraws: int = REDRAWS

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"look-ahead over {self.count} variations; it takes at least 1")

    def embed(self, population: Population, *, iteration: int) -> tuple[Population, np.ndarray]:
        degree = self.degree(iteration) if callable(self.degree) else self.degree
        rows: list[np.ndarray] = []
        for copy in range(self.count):
            contents = variations(
                self.maker,
                population.candidates,
                degree=degree,
                place=("look-ahead", iteration, copy),
                rng=self.rng,
                redraws=self.redraws,
            )
            ahead = Population(
                tuple(
                    Candidate(
                        id=f"{candidate.id}/ahead/{iteration}/{copy}",
                        label=candidate.label,
                        caption=content.caption,
                        image=content.image,
                        parent=candidate.id,
                        born=iteration,
                    )
                    for candidate, content in zip(population, contents, strict=True)
                )
            )
            rows.append(self.inner.embed(ahead, iteration=iteration)[1])
        return population, _mean(rows)


def _embedded(role: str, eye: Adapter[Any, Any], contents: Sequence[Image | str | None]) -> np.ndarray:
    """One float32 row for each content; NaN where there is none or the eye refuses."""
    rows = [row for row, content in enumerate(contents) if content is not None]
    replies = sent(role, eye, [EmbedRequest(content=content) for content in contents if content is not None])
    vectors = {
        row: np.asarray(reply, dtype=np.float32)
        for row, reply in zip(rows, replies, strict=True)
        if not isinstance(reply, Refusal)
    }
    shapes = {vector.shape for vector in vectors.values()}
    if not shapes:
        raise ValueError(f"{role!r} embedded none of {len(contents)} candidates; nothing can be compared")
    if len(shapes) > 1 or len(shape := shapes.pop()) != 1:
        raise ValueError(f"{role!r} must give vectors of one length; its adapter is broken")
    embeddings = np.full((len(contents), shape[0]), np.nan, dtype=np.float32)
    for row, vector in vectors.items():
        embeddings[row] = vector
    return embeddings


def _mean(copies: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of each candidate's finite rows; NaN where it has none."""
    if len(copies) == 1:
        return copies[0]
    stacked = np.stack(copies).astype(np.float64)
    finite = np.isfinite(stacked).all(axis=2, keepdims=True)
    total = np.where(finite, stacked, 0.0).sum(axis=0)
    with np.errstate(invalid="ignore"):
        return (total / finite.sum(axis=0)).astype(np.float32)


def _image(role: str, reply: object) -> Image:
    if not isinstance(reply, Image):
        raise TypeError(f"the {role} answered a {type(reply).__name__} where an image was asked for")
    return reply
