"""`kind = "dpiti"`: Private Evolution on captions, painted by a text-to-image model (DPITI; arXiv 2506.07555).

Image voting, the default, compares private images with paintings of the captions, so no private record is ever captioned.
Text voting has a captioner describe each private image and compares words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from ..adapters.contract import CaptionRequest, EmbedRequest, ImageRequest, Request, TextRequest
from .evolution import PROBABILITY, Evolution, EvolutionConfig
from .job import InputError

if TYPE_CHECKING:
    from ..adapters.gateway import Gateway
    from ..data.private_set import PrivateSet, Split
    from ..data.voters import Voters
    from ..pe_engine.population import Population
    from ..pe_engine.schedule import Stages
    from ..pe_engine.scoring import Scoring
    from ..pe_engine.variation import Maker, TextMaker
    from ..privacy.private import Private
    from ..privacy.randomness import PublicRng

TYPICAL_WORDS = 65
"""Of a caption, for estimates."""

Probability = Annotated[float, PROBABILITY]


class CaptionEvolution(Evolution, frozen=True):
    """`[evolution]` of DPITI."""

    voting: Literal["image", "text"] = "image"
    initial_prompt: str = "general"
    """A template of `prompts/initial`, or the path of a .toml file."""
    variation_prompt: str = "general-fill"
    """A template of `prompts/vary`, or the path of a .toml file."""
    caption_prompt: str = "general"
    """A template of `prompts/caption`: for text voting alone."""
    subject: str | None = None
    """What the images show, for prompts that ask: "a bedroom"."""
    blank_probability: Probability | tuple[Probability, ...] = 0.5
    """How likely each word of a caption is blanked before it is filled in anew."""
    words_spread: float = Field(default=0.0, ge=0)
    least_words: int = Field(default=1, ge=1)
    temperature: float | None = Field(default=None, ge=0)
    max_tokens: int | None = Field(default=None, ge=1)
    tokens_per_word: float | None = Field(default=None, gt=0)
    images: int = Field(default=1, ge=1)
    """Paintings averaged for the comparison; the first is the candidate's picture."""
    size: tuple[PositiveInt, PositiveInt] | None = None
    """(width, height) of the paintings; None: that of the private images."""


class DpitiConfig(EvolutionConfig, frozen=True):
    unit_of_candidates: ClassVar[str] = "captions"
    spare_roles: ClassVar[tuple[str, ...]] = ("captioner",)
    key_of_degree: ClassVar[str] = "blank_probability"

    kind: Literal["dpiti"] = "dpiti"
    evolution: CaptionEvolution

    @property
    def evolution_sees_images(self) -> bool:
        return self.evolution.voting == "image"

    @property
    def degree(self) -> float | tuple[float, ...]:
        return self.evolution.blank_probability

    @property
    def carries_images(self) -> bool:
        return False

    def roles(self) -> Mapping[str, tuple[type[Request], ...]]:
        roles: dict[str, tuple[type[Request], ...]] = {
            "writer": (TextRequest,),
            "painter": (ImageRequest,),
            "eye": (EmbedRequest,),
        }
        if self._captions_private:
            roles["captioner"] = (CaptionRequest,)
        return {**roles, **self.judges}

    def private_roles(self) -> tuple[str, ...]:
        return (*(("captioner", "eye") if self._captions_private else ("eye",)), *self.judges)

    def check(self, data: Split) -> None:
        if data.train.size is None and self.evolution.voting == "image":
            raise InputError(
                f'[data] {data.train.name!r} holds texts, and image voting compares images; set evolution.voting = "text"'
            )
        if data.train.size is None and self.evolution.size is None:
            raise InputError(
                "evolution.size: the private set has no images to take it from; give size = [width, height]"
            )
        self.check_selection(data)

    def voters(self, gateway: Gateway, records: PrivateSet) -> Private[Voters]:
        if self.evolution.voting == "text" and records.size is not None:
            prompt = _caption_prompt(self.evolution.caption_prompt)
            records = gateway.open_trusted("captioner").caption(
                records, prompt=prompt, max_tokens=self.evolution.max_tokens
            )
        return gateway.open_trusted("eye").embed(records)

    def maker(self, gateway: Gateway, data: PrivateSet) -> Maker:
        return self._text_maker(gateway.open("writer"), data)

    def _text_maker(self, writer: Any, data: PrivateSet) -> TextMaker:
        from ..pe_engine.variation import TextMaker

        settings = self.evolution
        return TextMaker(
            writer=writer,
            classes=data.classes,
            initial=_template("initial", settings.initial_prompt),
            vary=_template("vary", settings.variation_prompt),
            subject=settings.subject,
            words_spread=settings.words_spread,
            least_words=settings.least_words,
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            tokens_per_word=settings.tokens_per_word,
        )

    def scoring(self, gateway: Gateway, data: PrivateSet, maker: Maker, stages: Stages, rng: PublicRng) -> Scoring:
        from ..pe_engine.scoring import LookAhead, TextScoring

        inner: Scoring
        if self.evolution.voting == "text":
            inner = TextScoring(eye=gateway.open("eye"))
        else:
            inner = self._rendered(gateway, data, rng)
        if not self.evolution.look_ahead:
            return inner
        return LookAhead(
            inner=inner,
            maker=maker,
            count=self.evolution.look_ahead,
            degree=lambda number: stages(number).degree,
            rng=rng,
        )

    def pictured(self, population: Population, gateway: Gateway, data: PrivateSet, rng: PublicRng) -> Population:
        return self._rendered(gateway, data, rng).paint(population)

    def prompts(self) -> list[dict[str, str]]:
        wanted = [("initial", self.evolution.initial_prompt), ("vary", self.evolution.variation_prompt)]
        if self._captions_private:
            wanted.append(("caption", self.evolution.caption_prompt))
        templates = [_template(kind, name) for kind, name in wanted]
        return [{"name": each.name, "digest": each.digest, "provenance": each.provenance} for each in templates]

    def requests(self, stages: Stages) -> Mapping[str, int]:
        pools = self.pools(stages)
        settings, made = self.evolution, sum(new for new, _ in pools)
        scored = sum(left for _, left in pools[:-1])
        if settings.look_ahead:
            ahead = settings.look_ahead * scored
            painted = self.painted_in_the_end(stages) + (ahead * settings.images if settings.voting == "image" else 0)
            return {"writer": made + ahead, "painter": painted, "eye": ahead * settings.images}
        if settings.voting == "text":
            return {"writer": made, "painter": self.painted_in_the_end(stages), "eye": scored}
        # A picture is painted once and kept with its caption; extra paintings are made anew.
        painted = made + (settings.images - 1) * scored
        return {"writer": made, "painter": painted, "eye": scored * settings.images}

    def reference_requests(self, stages: Stages) -> Mapping[str, int]:
        first = sum(stages(0).counts)
        folds = [sum(stages(number).counts) * stages(number).folds for number in range(self.evolution.iterations + 1)]
        # It varies the last winners too, and paints kept candidates anew in each iteration.
        written = first + sum(folds)
        painted = sum(count + sum(stages(number).counts) for number, count in enumerate(folds[:-1]))
        return {"writer": written, "painter": painted if self.evolution.voting == "image" else 0}

    def typical(self, data: PrivateSet) -> Mapping[str, Request]:
        import numpy as np

        from ..adapters.contract import Image
        from ..pe_engine.population import Candidate

        settings = self.evolution
        size = settings.size or data.size or (256, 256)
        blank = Image(np.zeros((size[1], size[0], data.channels or 3), dtype=np.uint8))
        caption = " ".join(["interior"] * TYPICAL_WORDS)
        parent = Candidate(id="0/0", label=0, caption=caption)
        degree = max(self.degree) if isinstance(self.degree, tuple) else self.degree
        maker = self._text_maker(None, data)
        typical: dict[str, Request] = {
            "writer": maker.variation(parent, degree=degree, draw=0, rng=lambda: np.random.default_rng(0)),
            "painter": ImageRequest(prompt=caption, draw=0, size=size, channels=data.channels or 3),
            "eye": EmbedRequest(content=caption if settings.voting == "text" else blank),
            "judge": EmbedRequest(content=blank),
        }
        if self._captions_private:
            prompt = _caption_prompt(settings.caption_prompt)
            typical["captioner"] = CaptionRequest(image=blank, prompt=prompt, draw=0, max_tokens=settings.max_tokens)
        return typical

    def largest(self, data: PrivateSet) -> Mapping[str, Request]:
        from dataclasses import replace

        from ..adapters.trusted import CAPTION_BYTES
        from ..adapters.trusted_rows import largest_of

        judge = {role: EmbedRequest(content=largest_of(data)) for role in self.judges}
        if not self._captions_private:
            return {"eye": EmbedRequest(content=largest_of(data)), **judge}
        captioner: Any = self.typical(data)["captioner"]
        return {
            **judge,
            "captioner": replace(captioner, image=largest_of(data)),
            "eye": EmbedRequest(content="x" * CAPTION_BYTES),
        }

    @property
    def _captions_private(self) -> bool:
        """Whether private images are put into words; a set of texts has them already."""
        return self.evolution.voting == "text" and self.data.size is not None

    def _rendered(self, gateway: Gateway, data: PrivateSet, rng: PublicRng):
        from ..pe_engine.scoring import RenderedScoring

        size = self.evolution.size or data.size
        assert size is not None  # `check` saw to it.
        return RenderedScoring(
            painter=gateway.open("painter"),
            eye=gateway.open("eye"),
            size=size,
            channels=data.channels or 3,
            images=self.evolution.images,
            rng=rng,
        )


def _template(kind: str, name: str):
    from ..prompts.template import load

    return load(name if name.endswith(".toml") else f"{kind}/{name}")


def _caption_prompt(name: str) -> str:
    """A captioner gets one text, the same for every record."""
    import numpy as np

    messages = _template("caption", name).render({}, np.random.default_rng(0))
    return messages[-1][1]
