"""How candidates come about: the first ones, and variations of selected ones, by a writer or by an image model.

Every request is a function of its place in the run (iteration, fold, row, try), so a run that starts again asks the same
and finds the answers in the cache. A refused or unusable answer is asked for again with another draw; after `redraws`
more tries it is an error. One fold is one `send`, over all labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from ..adapters.contract import (
    Adapter,
    Image,
    ImageRequest,
    ImageVariationRequest,
    Message,
    Refusal,
    Request,
    TextRequest,
)
from ..privacy.randomness import PublicRng
from ..prompts.masking import mask, word_count, word_target
from ..prompts.template import Template
from .population import SELECTED, Candidate, Population
from .refusals import Refusals
from .schedule import Stage

REDRAWS = 4
_DRAWS = 2**53
"""Draws are below this, so that JSON keeps them exactly."""


class NoUsableReply(ValueError):
    """A role answered nothing usable, however often it was asked."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """What an answer holds of a candidate."""

    caption: str = ""
    image: Image | None = None


class Maker(Protocol):
    """What a kind of candidate needs: its requests and how its answers are read. `rng` gives the request's own randomness."""

    @property
    def role(self) -> str: ...

    @property
    def adapter(self) -> Adapter[Any, Any]: ...

    @property
    def refusals(self) -> Refusals:
        """Counted here by whoever asks."""
        ...

    def first(self, label: int, *, draw: int, rng: Callable[[], np.random.Generator]) -> Request: ...

    def variation(
        self, parent: Candidate, *, degree: float, draw: int, rng: Callable[[], np.random.Generator]
    ) -> Request: ...

    def read(self, reply: object, /) -> Content | None:
        """The content of an answer, or None if it cannot be used."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class TextMaker:
    """Captions by a writer. A variation by a template that uses `masked_sample` has each word blank with probability `degree`.

    `tokens_per_word`: the limit of tokens follows the words aimed at, up to `max_tokens`.
    """

    writer: Adapter[Any, Any]
    classes: tuple[str, ...]
    initial: Template
    vary: Template
    subject: str | None = None
    words_spread: float = 0.0
    least_words: int = 1
    temperature: float | None = None
    max_tokens: int | None = None
    tokens_per_word: float | None = None
    role: str = "writer"
    refusals: Refusals = field(default_factory=Refusals)

    @property
    def adapter(self) -> Adapter[Any, Any]:
        return self.writer

    def first(self, label: int, *, draw: int, rng: Callable[[], np.random.Generator]) -> TextRequest:
        return self._request(self.initial, self._values(label), rng(), draw, self.max_tokens)

    def variation(
        self, parent: Candidate, *, degree: float, draw: int, rng: Callable[[], np.random.Generator]
    ) -> TextRequest:
        own = rng()
        words = word_target(parent.caption, own, spread=self.words_spread, least=self.least_words)
        values = self._values(parent.label) | {"sample": parent.caption, "word_count": str(words)}
        values["masked_sample"] = mask(parent.caption, degree, own)
        return self._request(self.vary, values, own, draw, self._token_limit(max(words, word_count(parent.caption))))

    def read(self, reply: object, /) -> Content | None:
        if not isinstance(reply, str):
            raise TypeError(f"the {self.role} answered a {type(reply).__name__} where a text was asked for")
        caption = self.vary.parse(reply)
        return Content(caption=caption) if caption else None

    def _values(self, label: int) -> dict[str, str]:
        return {"label": self.classes[label]} | ({} if self.subject is None else {"subject": self.subject})

    def _token_limit(self, words: int) -> int | None:
        if self.tokens_per_word is None:
            return self.max_tokens
        limit = max(1, round(self.tokens_per_word * words))
        return limit if self.max_tokens is None else min(limit, self.max_tokens)

    def _request(
        self, template: Template, values: dict[str, str], rng: np.random.Generator, draw: int, limit: int | None
    ) -> TextRequest:
        messages = tuple(Message(role=role, content=content) for role, content in template.render(values, rng))
        return TextRequest(messages=messages, draw=draw, temperature=self.temperature, max_tokens=limit)


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageMaker:
    """Images by an image model: `prompts` has one for each label."""

    painter: Adapter[Any, Any]
    prompts: tuple[str, ...]
    size: tuple[int, int]
    channels: int = 3
    role: str = "painter"
    refusals: Refusals = field(default_factory=Refusals)

    @property
    def adapter(self) -> Adapter[Any, Any]:
        return self.painter

    def first(self, label: int, *, draw: int, rng: Callable[[], np.random.Generator]) -> ImageRequest:
        return ImageRequest(prompt=self.prompts[label], draw=draw, size=self.size, channels=self.channels)

    def variation(
        self, parent: Candidate, *, degree: float, draw: int, rng: Callable[[], np.random.Generator]
    ) -> ImageVariationRequest:
        if parent.image is None:
            raise ValueError(f"candidate {parent.id} has no image to vary")
        return ImageVariationRequest(image=parent.image, prompt=self.prompts[parent.label], degree=degree, draw=draw)

    def read(self, reply: object, /) -> Content | None:
        if not isinstance(reply, Image):
            raise TypeError(f"the {self.role} answered a {type(reply).__name__} where an image was asked for")
        return Content(image=reply)


def initial(maker: Maker, stage: Stage, rng: PublicRng, *, redraws: int = REDRAWS) -> Population:
    """The population of iteration 0: `stage.counts` first candidates of each label, then `stage.folds` variations of each."""
    labels = np.repeat(np.arange(len(stage.counts)), stage.counts).tolist()

    def ask(row: int, draw: int, own: Callable[[], np.random.Generator]) -> Request:
        return maker.first(labels[row], draw=draw, rng=own)

    contents = _contents(maker, ask, labels, ("first",), rng, redraws)
    first = Population(
        tuple(
            Candidate(id=f"0/{row}", label=label, caption=content.caption, image=content.image)
            for row, (label, content) in enumerate(zip(labels, contents, strict=True))
        )
    )
    return first + _folds(maker, stage, 0, first, rng, redraws, number=len(first))


def vary(
    maker: Maker, stage: Stage, iteration: int, selected: Population, rng: PublicRng, *, redraws: int = REDRAWS
) -> Population:
    """The next population: `stage.folds` variations of each selected candidate, then the selected themselves if kept."""
    variations = _folds(maker, stage, iteration, selected, rng, redraws, number=0)
    return variations + selected if stage.keep_selected else variations


def chosen(population: Population, rows: np.ndarray, iteration: int) -> Population:
    """The selected candidates. One that was drawn more than once is copied under new ids, with the first as parent."""
    seen: set[int] = set()
    selected: list[Candidate] = []
    for place, row in enumerate(rows.tolist()):
        candidate = replace(population.candidates[row], fold=SELECTED)
        if row in seen:
            candidate = replace(candidate, id=f"{iteration}/copy{place}", parent=candidate.id, born=iteration)
        seen.add(row)
        selected.append(candidate)
    return Population(tuple(selected))


def variations(
    maker: Maker,
    parents: Sequence[Candidate],
    *,
    degree: float,
    place: tuple[int | str, ...],
    rng: PublicRng,
    redraws: int = REDRAWS,
) -> list[Content]:
    """One variation of each parent: one fold, at a place of the run that no other fold shares."""

    def ask(row: int, draw: int, own: Callable[[], np.random.Generator]) -> Request:
        return maker.variation(parents[row], degree=degree, draw=draw, rng=own)

    return _contents(maker, ask, [parent.label for parent in parents], place, rng, redraws)


def _folds(
    maker: Maker, stage: Stage, iteration: int, parents: Population, rng: PublicRng, redraws: int, *, number: int
) -> Population:
    made: list[Candidate] = []
    for fold in range(stage.folds):
        contents = variations(
            maker,
            parents.candidates,
            degree=stage.degree,
            place=("vary", iteration, fold),
            rng=rng,
            redraws=redraws,
        )
        made += [
            Candidate(
                id=f"{iteration}/{number + fold * len(parents) + row}",
                label=parent.label,
                caption=content.caption,
                image=content.image,
                parent=parent.id,
                fold=fold,
                born=iteration,
            )
            for row, (parent, content) in enumerate(zip(parents, contents, strict=True))
        ]
    return Population(tuple(made))


def _contents(
    maker: Maker,
    ask: Callable[[int, int, Callable[[], np.random.Generator]], Request],
    labels: Sequence[int],
    place: tuple[int | str, ...],
    rng: PublicRng,
    redraws: int,
) -> list[Content]:
    """The content of an answer for each label. Each try draws for all rows, so that a row's draw does not depend on the others."""
    count = len(labels)
    contents: dict[int, Content] = {}
    reason = "an empty text"
    for attempt in range(1 + redraws):
        missing = [row for row in range(count) if row not in contents]
        if not missing:
            break
        draws = rng.at(*place, "draws", attempt).integers(_DRAWS, size=count).tolist()
        requests = [ask(row, draws[row], _place(rng, (*place, "words", attempt, row))) for row in missing]
        for row, reply in zip(missing, sent(maker.role, maker.adapter, requests), strict=True):
            content = None if isinstance(reply, Refusal) else maker.read(reply)
            if content is not None:
                contents[row] = content
            elif isinstance(reply, Refusal):
                reason = reply.reason
                maker.refusals.add(maker.role, labels[row])
    if len(contents) < count:
        raise NoUsableReply(
            f"{maker.role!r} gave no usable answer to {count - len(contents)} of {count} requests in {1 + redraws} tries "
            f"(last: {reason}). Change its prompt or its model"
        )
    return [contents[row] for row in range(count)]


def sent(role: str, adapter: Adapter[Any, Any], requests: Sequence[Any]) -> Sequence[Any]:
    """The replies, one a request; no request, no call."""
    if not requests:
        return []
    replies = adapter.send(requests)
    if len(replies) != len(requests):
        raise ValueError(f"{role!r} gave {len(replies)} answers to {len(requests)} requests; its adapter is broken")
    return replies


def _place(rng: PublicRng, path: tuple[int | str, ...]) -> Callable[[], np.random.Generator]:
    return lambda: rng.at(*path)
