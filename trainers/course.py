"""The course that all diffusion methods share: pre-train on public images, warm up on released ones, train with DP-SGD.

A method is a file of its own with only what differs: its defaults, which parameters are trained, what it asks before. Each
part is optional: without a public set there is no pre-training, without a query no warm-up.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, Field, model_validator

from ..privacy.mechanism import Cost
from .contract import Arrays, Bench, Method, PublicImages, Shape, Trained, TrainerError
from .contract import digest as digest_of
from .diffusion.sampling import SamplerConfig
from .diffusion.sizes import Size, sized
from .warm_up import Pretraining, WarmUp

if TYPE_CHECKING:
    from torch import nn

    from .contract import GenerativeModel
    from .diffusion.losses import DiffusionLoss
    from .dp_sgd import DPSGD, NoisySGD

Profile = Literal["tiny", "small", "paper"]
"""tiny: minutes on two cores, images of about 8 x 8; small: half an hour of them, 28 x 28; paper: as published, on GPUs."""


class Table(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A table of a job file: frozen, and no unknown key."""


class LevelsTable(Table, frozen=True):
    """Which levels of noise are trained; see `diffusion.losses.Levels`."""

    least: float = Field(default=0.0, ge=0)
    most: float | None = Field(default=None, gt=0)
    bias: tuple[tuple[float, float, float], ...] = ()


class DiffusionMethod(Method, frozen=True):
    """Abstract: `[trainer]` of every diffusion method. What is not given comes from the method's `profile`."""

    PROFILES: ClassVar[Mapping[Profile, Mapping[str, Any]]] = {}
    """What a method has otherwise than `BASE`."""

    profile: Profile = "tiny"
    network: Size
    parametrisation: Literal["edm", "v", "vp", "ve"] = "edm"
    levels: LevelsTable = LevelsTable()
    label_dropout: float = Field(default=0.1, ge=0, le=1)
    conditional: bool = True
    """Whether the trained model knows classes; if not, every image has the null label and labels are those asked for."""

    expected_batch: float = Field(gt=0)
    """Records in a step on average: the sampling rate times N."""
    epochs: float = Field(gt=0)
    """How often a record takes part on average: the steps times the rate."""
    multiplicity: int = Field(gt=0)
    """K: noise draws a record, averaged before its gradient is clipped."""
    augmentation: Literal["none", "shift", "flip-shift"] = "none"
    """Of each draw of a private record: augmentation multiplicity."""
    clip: Literal["norm", "automatic"] = "norm"
    clip_norm: float = 1.0
    """C. What is far below the gradients' norms makes all of them equally long."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = Field(gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    learning_rate_warm_up: int = Field(default=0, ge=0)
    """Over how many steps of DP-SGD the learning rate rises, linearly, to its value; more than there are: it stays below."""
    ema: float = Field(default=0.999, ge=0, lt=1)
    noise: float | None = Field(default=None, gt=0)
    """The noise multiplier of the training; None: the least that the budget allows, which is what one wants."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the products in the network, forward and back. Weights, norms, sums and noise are float32 or wider in any case."""

    pretraining: Pretraining | None = None
    warm_up: tuple[WarmUp, ...] = ()
    """What is asked of the private set to pre-train on, in order; paid beside the training."""
    label_shares: dict[str, float] | None = None
    """Of the private classes, for the denominators of the warm-up; None: all the same. Public by declaration."""
    sampling: SamplerConfig = SamplerConfig()

    @model_validator(mode="before")
    @classmethod
    def _from_profile(cls, table: Any) -> Any:
        """The settings of the profile, below those that are given."""
        if not isinstance(table, Mapping):
            return table
        profile = table.get("profile", "tiny")
        if profile not in BASE:
            return table
        return merged(merged(BASE[profile], cls.PROFILES.get(profile, {})), table)

    # What is asked of the private set.

    @property
    def needs_public(self) -> bool:
        return self.pretraining is not None

    @property
    def pretrains_on_public_alone(self) -> bool:
        """Whether no private record had a part in the pre-training, not even through a noisy answer."""
        return True

    def steps(self, shape: Shape) -> int:
        """At least one: epochs over the rate, rounded."""
        return max(1, round(self.epochs / self.rate(shape)))

    def rate(self, shape: Shape) -> float:
        """The probability with which a slot takes part in a step."""
        if self.expected_batch > shape.slots:
            raise TrainerError(
                f"trainer.expected_batch = {self.expected_batch:g} is more than the {shape.slots:,} slots there are, so "
                "that the sampling rate would be above 1; lower it"
            )
        return self.expected_batch / shape.slots

    def queries(self, shape: Shape) -> tuple[tuple[str, Cost], ...]:
        return tuple((_query_name(number, each), each.cost(shape)) for number, each in enumerate(self.warm_up, 1))

    @property
    def declares_shares(self) -> bool:
        return self.label_shares is not None

    @property
    def fixed_noise(self) -> float | None:
        return self.noise

    def dp_sgd(self, shape: Shape) -> DPSGD:
        from .dp_sgd import DPSGD
        from .optimizers import Average, Optimizer

        return DPSGD(
            steps=self.steps(shape),
            sampling_probability=self.rate(shape),
            clip_norm=self.clip_norm,
            clip=self.clip,
            optimizer=Optimizer(
                kind=self.optimizer,
                learning_rate=self.learning_rate,
                schedule=self.schedule,
                warm_up_steps=self.learning_rate_warm_up,
            ),
            ema=Average(decay=self.ema),
        )

    def check(self, shape: Shape, public: PublicImages | None) -> None:
        self.dp_sgd(shape)
        if self.label_shares is not None and set(self.label_shares) != set(shape.classes):
            raise TrainerError("trainer.label_shares: give one share for each class, under its name")
        if self.pretraining is not None and public is not None and not len(public):
            raise TrainerError("[public] has no image to train on")

    # The course.

    def train(self, sgd: NoisySGD | None, bench: Bench) -> Trained:
        assert sgd is not None
        weights, floor = self.pretrained(bench), None
        if weights is not None and self.pretrains_on_public_alone:
            floor = self.model(bench, weights)
        pictures: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        shares = self.shares(bench.shape)
        for number, each in enumerate(self.warm_up, 1):
            name = _query_name(number, each)
            pixels, labels = each.images(name, bench, shares)
            weights = self._fitted(
                f"warm-up-{each.kind}", bench, pixels, labels, each.fit, weights, classes=bench.shape.classes
            )
            pictures[name] = (pixels[: _SHOWN * len(bench.shape.classes)], labels[: _SHOWN * len(bench.shape.classes)])
        released = self.privately(sgd, bench, weights)
        return Trained(model=self.model(bench, released), floor=floor, pictures=pictures)

    def pretrained(self, bench: Bench) -> Arrays | None:
        """The weights of a network for the private classes that saw public images alone; None where there are none."""
        if self.pretraining is None or bench.public is None:
            return None
        public = self.chosen(bench)
        weights = self._fitted(
            "pretraining", bench, public.pixels, public.labels, self.pretraining, None, classes=public.classes
        )
        return for_private_classes(weights, public.classes, bench.shape.classes)

    def chosen(self, bench: Bench) -> PublicImages:
        """The part of the public set that is trained on: all of it."""
        assert bench.public is not None
        return bench.public

    def privately(self, sgd: NoisySGD, bench: Bench, weights: Arrays | None) -> Arrays:
        """The averaged weights after DP-SGD from `weights`, or from random ones."""
        from .dp_sgd import Task
        from .loop import part

        module = self.module(bench.shape, bench.seed)
        loss = self.loss(bench.shape, private=True)
        start = self.prepared(module, weights)
        shape = bench.shape
        task = Task(
            module=module,
            losses=loss.losses,
            trained=self.trained(module),
            rows=loss.rows(bench.seed, encode=self.encoder(bench)),
            image=(shape.height, shape.width, shape.channels),
            precision=self.precision,
        )
        released = bench.release(
            "training",
            sgd.training(
                task,
                None,
                bench.workspace(
                    "training", model=lambda shown: self.model(bench, self.finished(copy.deepcopy(module), shown))
                ),
            ),
            question={
                "start": start,
                "seed": bench.seed,
                "trainer": self.model_dump(mode="json"),
                **self.depends_on(bench),
            },
        )
        return self.finished(module, part(released, "ema"))

    # Its parts.

    def depends_on(self, bench: Bench) -> Mapping[str, str]:
        """What the result of a pre-training depends on beside its images, its start and the settings."""
        return {}

    def seen(self, shape: Shape) -> tuple[int, int, int]:
        """Channels, height and width of what the network sees of an image."""
        return shape.channels, shape.height, shape.width

    def network_config(self, shape: Shape, classes: int) -> Any:
        return sized(
            self.network,
            image_width=shape.width,
            image_height=shape.height,
            channels=shape.channels,
            classes=classes,
        )

    def module(self, shape: Shape, seed: int, *, classes: int | None = None) -> nn.Module:
        """The network with public random weights."""
        from .diffusion.unet import UNet
        from .loop import initialised

        config = self.network_config(shape, len(shape.classes) if classes is None else classes)
        return initialised(lambda: UNet(config), seed, "unet")

    def prepared(self, module: nn.Module, weights: Arrays | None) -> str:
        """Bring the network to where DP-SGD starts; the digest of all that it starts from."""
        from .loop import arrays_of, load_weights

        if weights is not None:
            load_weights(module, weights)
        return digest_of(arrays_of(module))

    def trained(self, module: nn.Module) -> tuple[str, ...]:
        """The parameters that DP-SGD trains: all of them."""
        return tuple(name for name, _ in module.named_parameters())

    def finished(self, module: nn.Module, released: Arrays) -> Arrays:
        """The weights of the whole network, given those that DP-SGD trained."""
        from .loop import arrays_of

        return {**arrays_of(module), **released}

    def encoder(self, bench: Bench) -> Callable[[np.ndarray], np.ndarray] | None:
        """What images become before the network sees them, each from itself alone; None: pixels in [-1, 1]."""
        return None

    def loss(self, shape: Shape, *, private: bool, classes: int | None = None, **changes: Any) -> DiffusionLoss:
        """Of private records with K draws; of public images with one."""
        from .diffusion.denoisers import parametrisation
        from .diffusion.losses import DiffusionLoss, Levels

        settings: dict[str, Any] = {
            "classes": len(shape.classes) if classes is None else classes,
            "scheme": parametrisation(self.parametrisation),
            "multiplicity": self.multiplicity if private else 1,
            "label_dropout": self.label_dropout,
            "conditional": self.conditional,
            "levels": Levels(
                least=self.levels.least,
                most=math.inf if self.levels.most is None else self.levels.most,
                bias=self.levels.bias,
            ),
            "augmentation": self.augmentation if private else "none",
            "largest_shift": max(1, min(shape.width, shape.height) // 8),
        }
        return DiffusionLoss(**{**settings, **changes})

    def model(self, bench: Bench, weights: Arrays) -> GenerativeModel:
        """What samples from these weights."""
        from .model import DiffusionModel

        return DiffusionModel(
            network=self.network_config(bench.shape, len(bench.shape.classes)),
            weights=weights,
            parametrisation=self.parametrisation,
            sampling=self.sampling,
            conditional=self.conditional,
            device=bench.device,
        )

    def shares(self, shape: Shape) -> list[float]:
        """The declared share of each class, or equal ones."""
        if self.label_shares is None:
            return [1 / len(shape.classes)] * len(shape.classes)
        total = sum(self.label_shares.values())
        return [self.label_shares[name] / total for name in shape.classes]

    def _fitted(
        self,
        name: str,
        bench: Bench,
        pixels: np.ndarray,
        labels: np.ndarray,
        settings: Pretraining,
        start: Arrays | None,
        *,
        classes: Sequence[str],
    ) -> Arrays:
        """The averaged weights after ordinary training on these images, as a stage that is kept by content."""
        from .loop import Fit, fit, load_weights, part

        loss = self.loss(
            bench.shape,
            private=False,
            classes=len(classes),
            conditional=settings.conditional and self.conditional,
            augmentation=settings.augmentation,
        )
        config = self.network_config(bench.shape, len(classes))
        key = {
            "images": digest_of({"pixels": pixels, "labels": labels}),
            "start": None if start is None else digest_of(start),
            "network": repr(config),
            "loss": repr(loss),
            "settings": settings.model_dump(mode="json"),
            "ema": self.ema,
            "precision": self.precision,
            "seed": bench.seed,
            **self.depends_on(bench),
        }
        encode = self.encoder(bench)

        def make(folder: Path) -> Arrays:
            module = self.module(bench.shape, bench.seed, classes=len(classes))
            if start is not None:
                load_weights(module, start)
            seen = pixels if encode is None else encode(pixels)
            rows = loss.rows(bench.seed, encode=None if encode is None else (lambda latents: latents))
            return fit(
                module,
                loss.losses,
                # The place in the batch counts as the slot: an image may be in it twice.
                lambda chosen, step: rows(seen[chosen], labels[chosen], np.arange(len(chosen)), step),
                images=len(pixels),
                settings=Fit(
                    steps=settings.steps,
                    batch=settings.batch,
                    learning_rate=settings.learning_rate,
                    ema=self.ema,
                    precision=self.precision,
                ),
                seed=bench.seed,
                folder=folder,
                progress=bench.progress,
                name=name,
                device=bench.device,
                compiled=bench.compiled,
            )

        return part(bench.stage(name, key, make), "ema")


def _query_name(number: int, warm_up: WarmUp) -> str:
    """Under which its query is planned and released."""
    return f"{number}-{warm_up.kind}"


_SHOWN = 8
"""Pictures a class that are published of a warm-up."""


def for_private_classes(weights: Arrays, public: Sequence[str], private: Sequence[str]) -> Arrays:
    """Weights of a network for public classes as those of one for private classes.

    A private class takes over the embedding of the public class of its name, else the mean of all; the null label its own.
    """
    rows = np.asarray(weights["label.weight"])
    mean = rows[: len(public)].mean(axis=0)
    known = {name: rows[place] for place, name in enumerate(public)}
    chosen = np.stack([*(known.get(name, mean) for name in private), rows[len(public)]])
    return {**weights, "label.weight": chosen.astype(rows.dtype)}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`; tables in both are merged in their turn, unless they are of different kinds."""
    result = dict(below)
    for name, value in above.items():
        before = result.get(name)
        result[name] = value
        if not isinstance(value, Mapping) or not isinstance(before, Mapping):
            continue
        if "kind" not in value or value.get("kind") == before.get("kind"):
            result[name] = merged(before, value)
    return result


BASE: Mapping[Profile, Mapping[str, Any]] = {
    "tiny": {
        "network": "tiny",
        "expected_batch": 256,
        "epochs": 30,
        "multiplicity": 4,
        "clip_norm": 0.01,
        "learning_rate": 2e-3,
        "ema": 0.97,
        "sampling": {"guidance": 1.0},
    },
    "small": {
        "network": "patched",
        "expected_batch": 1024,
        "epochs": 2,
        "multiplicity": 1,
        "clip_norm": 0.01,
        "learning_rate": 2e-3,
        "ema": 0.97,
        "sampling": {"kind": "ddim", "steps": 24, "guidance": 1.0},
    },
    "paper": {
        "network": "3.8M",
        "expected_batch": 4096,
        "epochs": 150,
        "multiplicity": 32,
        "clip_norm": 1e-3,
        "learning_rate": 3e-4,
        "ema": 0.999,
        "sampling": {"kind": "ddim", "steps": 250},
    },
}
"""The settings that all methods have in common; those of `paper` are DPImageBench's (arXiv 2503.14681)."""

__all__ = ["BASE", "DiffusionMethod", "Pretraining", "Table"]
