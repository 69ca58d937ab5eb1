"""`kind = "train"`: a generator trained with DP-SGD, on the same ledger and the same evaluation as Private Evolution."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny

from ..data import registry as sources
from ..data.config import DataConfig
from ..trainers import registry as methods
from ..trainers.contract import Method
from .evolution import Evaluation
from .job import AnyAdapter, InputError, JobConfig, Table
from .model_selection import ModelSelection, planned

if TYPE_CHECKING:
    from ..data.private_set import Split
    from ..privacy.ledger import PlannedRelease
    from .run import Run


class Painted(Table, frozen=True):
    """A public set that the role `painter` makes: `count` images, the same number of each of `classes`."""

    kind: Literal["painted"] = "painted"
    count: int = Field(default=2000, gt=0)
    classes: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    """What the painter is asked for; None: the private set's classes."""

    @property
    def name(self) -> str:
        return "painted"


def _public(table: object) -> object:
    if isinstance(table, Mapping) and table.get("kind") == "painted":
        return Painted.model_validate(table)
    return sources.parse(table) if isinstance(table, Mapping) else table


def _method(table: object) -> object:
    return methods.parse(table) if isinstance(table, Mapping) else table


class Samples(Table, frozen=True):
    """What is sampled of the trained model and released."""

    count: int = Field(default=1000, gt=0)
    """How many images, over all classes in the declared shares; exactly so many."""
    shares: Literal["uniform"] | dict[str, float] = "uniform"
    previews: int = Field(default=0, ge=0, le=99)
    """About how many times in the course of the training a few images are drawn of a durable checkpoint, and released.

    Between these models `[selection]` chooses, and the last.
    """
    pictures: bool = True
    """Also write each as a PNG of its own; `samples.npz` holds them all in any case."""


class TrainConfig(JobConfig, frozen=True):
    """A training job. `[trainer] kind` chooses the method."""

    kind: Literal["train"] = "train"
    trainer: Annotated[SerializeAsAny[Method], BeforeValidator(_method)]
    public: Annotated[SerializeAsAny[DataConfig | Painted], BeforeValidator(_public)] | None = None
    """Images that are public by declaration, to train on without cost; None: none."""
    adapters: dict[str, AnyAdapter] = Field(default_factory=dict)
    """`judge`, which measures the images in the end, and `painter`, where the public set is painted."""
    samples: Samples = Samples()
    selection: ModelSelection = ModelSelection()
    """Between the models that `samples.previews` shows on the way and the last: one DP-SGD has paid for all of them."""
    evaluation: Evaluation = Evaluation()

    @property
    def set_aside(self) -> float:
        return self.selection.set_aside

    @property
    def shows_unprotected(self) -> bool:
        """Whether figures that only `private/` may hold are computed too."""
        wanted = self.evaluation.unprotected
        return self.purpose == "benchmark" if wanted is None else wanted

    @property
    def declares_shares(self) -> bool:
        """Whether label shares, for the samples or for a denominator of the training, are public by the owner's word."""
        return self.samples.shares != "uniform" or self.trainer.declares_shares

    def roles(self) -> tuple[str, ...]:
        """The roles that this job uses."""
        used = ["judge"] if "judge" in self.adapters else []
        return tuple([*used, "painter"] if isinstance(self.public, Painted) else used)

    def check_roles(self) -> None:
        """Refuse adapters that cannot do what the job asks, or may not see what it shows them. Opens none."""
        from ..adapters import roles
        from ..adapters.contract import EmbedRequest, ImageRequest

        if isinstance(self.public, Painted) and "painter" not in self.adapters:
            raise InputError("[public] kind = 'painted' needs a painter: name one in [adapters]")
        for role in self.adapters:
            if role not in ("judge", "painter"):
                raise InputError(f"adapters.{role}: a training job has no such role; its roles are judge and painter")
        asked = {"judge": (EmbedRequest,), "painter": (ImageRequest,)}
        used = {role: self.adapters[role] for role in self.roles()}
        private = ("judge",) if "judge" in used else ()
        roles.check(used, trust=self.trust, asked={role: asked[role] for role in used}, private=private)

    def located(self, base: Path) -> Self:
        here = super().located(base)
        if isinstance(here.public, DataConfig):
            return here.model_copy(update={"public": here.public.resolved(base)})
        return here

    def planned_releases(self, data: Split, *, delta: float, prefix: str) -> tuple[PlannedRelease, ...]:
        from .training_design import Design, check

        check(self, data)
        self.check_roles()
        return Design.of(self, data, delta=delta).releases(prefix)

    def planned_selection(self, data: Split, *, delta: float, prefix: str) -> tuple[PlannedRelease, ...]:
        from .training_design import Design

        if not self.set_aside:
            return ()  # Without a calibration, which takes seconds.
        return planned(Design.of(self, data, delta=delta).selection, prefix)

    def run(self, run: Run) -> None:
        from .training_design import check_installed

        check_installed()
        from .training import Training

        Training(self, run).go()

    is_helped = True

    def help(self) -> None:
        from .training_design import check_installed

        check_installed()
        from .helping import help_training

        help_training(self)

    def closing(self, run: Run) -> str:
        from .page import closing

        return closing(run.folder, private=self.purpose == "benchmark")
