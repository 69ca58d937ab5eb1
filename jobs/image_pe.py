"""`kind = "image-pe"`: Private Evolution on images (arXiv 2305.15560), by a simulator or an image model (arXiv 2502.05505)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from ..adapters.contract import EmbedRequest, ImageRequest, ImageVariationRequest, Request
from .evolution import PROBABILITY, Evolution, EvolutionConfig
from .job import InputError

if TYPE_CHECKING:
    from ..adapters.gateway import Gateway
    from ..data.private_set import PrivateSet, Split
    from ..data.voters import Voters
    from ..pe_engine.population import Population
    from ..pe_engine.schedule import Stages
    from ..pe_engine.scoring import Scoring
    from ..pe_engine.variation import Maker
    from ..privacy.private import Private
    from ..privacy.randomness import PublicRng

Degree = Annotated[float, PROBABILITY]


class ImageEvolution(Evolution, frozen=True):
    """`[evolution]` of PE on images."""

    degree: Degree | tuple[Degree, ...] = 0.5
    """How far a variation goes: 1 as far as the model can, 0 hardly at all. A list has one value for each of 0 to T."""
    prompts: dict[str, str] | None = None
    """What the painter is told for each class; None: the class's name."""


class ImagePEConfig(EvolutionConfig, frozen=True):
    unit_of_candidates: ClassVar[str] = "images"

    kind: Literal["image-pe"] = "image-pe"
    evolution: ImageEvolution

    @property
    def degree(self) -> float | tuple[float, ...]:
        return self.evolution.degree

    @property
    def carries_images(self) -> bool:
        return True

    def roles(self) -> Mapping[str, tuple[type[Request], ...]]:
        return {"painter": (ImageRequest, ImageVariationRequest), "eye": (EmbedRequest,), **self.judges}

    def private_roles(self) -> tuple[str, ...]:
        return ("eye", *self.judges)

    def check(self, data: Split) -> None:
        if data.train.size is None:
            raise InputError(f"[data] {data.train.name!r} holds texts; image-pe needs images")
        prompts = self.evolution.prompts
        if prompts is not None and set(prompts) != set(data.train.classes):
            raise InputError(
                "evolution.prompts: give one prompt for each class, under its name, or leave the table out"
            )
        self.check_selection(data)

    def voters(self, gateway: Gateway, records: PrivateSet) -> Private[Voters]:
        return gateway.open_trusted("eye").embed(records)

    def maker(self, gateway: Gateway, data: PrivateSet) -> Maker:
        from ..pe_engine.variation import ImageMaker

        assert data.size is not None  # `check` saw to it.
        prompts = self.evolution.prompts or {name: name for name in data.classes}
        return ImageMaker(
            painter=gateway.open("painter"),
            prompts=tuple(prompts[name] for name in data.classes),
            size=data.size,
            channels=data.channels,
        )

    def scoring(self, gateway: Gateway, data: PrivateSet, maker: Maker, stages: Stages, rng: PublicRng) -> Scoring:
        from ..pe_engine.scoring import ImageScoring, LookAhead

        inner = ImageScoring(eye=gateway.open("eye"))
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
        return population

    def requests(self, stages: Stages) -> Mapping[str, int]:
        pools = self.pools(stages)
        made = sum(new for new, _ in pools)
        scored = sum(left for _, left in pools[:-1])
        ahead = self.evolution.look_ahead * scored
        return {"painter": made + ahead, "eye": ahead or scored}

    def typical(self, data: PrivateSet) -> Mapping[str, Request]:
        import numpy as np

        from ..adapters.contract import Image

        assert data.size is not None  # `check` saw to it.
        blank = Image(np.zeros((data.size[1], data.size[0], data.channels), dtype=np.uint8))
        prompts = self.evolution.prompts or {name: name for name in data.classes}
        degree = max(self.degree) if isinstance(self.degree, tuple) else self.degree
        prompt = max(prompts.values(), key=len)
        return {
            "painter": ImageVariationRequest(image=blank, prompt=prompt, degree=degree, draw=0),
            "eye": EmbedRequest(content=blank),
            "judge": EmbedRequest(content=blank),
        }

    def largest(self, data: PrivateSet) -> Mapping[str, Request]:
        from ..adapters.trusted_rows import largest_of

        return {role: EmbedRequest(content=largest_of(data)) for role in self.private_roles()}
