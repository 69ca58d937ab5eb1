"""PrivImage (Li et al. 2024, USENIX Security): pre-train on the part of the public set that looks like the private one.

    train a classifier on the public classes
    each private record adds 1 to the k public classes likeliest for it, in the row of its own class; add noise
    for each private class take the k public classes of most votes, no public class twice
    pre-train on their images, labelled with the private class;  DP-SGD on all parameters as DPDM

Asked of the private set: one histogram, of which a record changes k cells by 1 (`DiscreteGaussian(sigma sqrt k, cells = k)`),
and the training calibrated beside it. The published scripts add noise of one scale and account another; here the plan is
made of the mechanism that runs. The public set costs nothing; it must hold none of the private records.

The classifier of the profile `paper` is the published ResNet-50 but for its norms (see `semantic_classifier`), and it is trained
for as many epochs in batches as large. What differs: Adam with one rate and averaged weights, where theirs is SGD with
momentum, weight decay and a cosine; and no flips.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ..privacy.mechanism import Cost
from .contract import Arrays, Bench, PublicImages, Shape, TrainerError
from .contract import digest as digest_of
from .course import DiffusionMethod, Profile
from .pdp_diffusion import PDPDiffusion
from .semantic_query import Scores, SemanticQuery, select_disjoint

if TYPE_CHECKING:
    from torch import nn

QUERY = "semantic-query"


class PrivImage(DiffusionMethod, frozen=True):
    """`kind = "privimage"`."""

    PROFILES: ClassVar[Mapping[Profile, Mapping[str, Any]]] = {
        # The published noise is for 45,000 records; what it hides grows as the number of votes falls.
        "tiny": {**PDPDiffusion.PROFILES["tiny"], "votes": 2, "noise_multiplier": 5.0, "semantic_steps": 600},
        "small": {**PDPDiffusion.PROFILES["small"], "votes": 5, "semantic_steps": 1500},
        "paper": {
            **PDPDiffusion.PROFILES["paper"],
            "votes": 5,
            "semantic_network": "resnet-50",
            "semantic_steps": 62_600,  # 100 epochs of ImageNet's 1,281,167 images
            "semantic_batch": 2048,
        },
    }

    kind: Literal["privimage"] = "privimage"
    votes: int = Field(gt=0)
    """k: public classes a private class, and votes a record."""
    noise_multiplier: float = Field(default=50.0, gt=0)
    """Of the histogram, in units of sqrt(k)."""
    public_classes: int = Field(default=0, ge=0)
    """How many classes the public set has. 0: as many as it turns out to have; then `plan` cannot say whether k fits."""
    semantic_network: Literal["small", "resnet-50"] = "small"
    """The public classifier: three residual blocks of ours, or the published one, of 25 million parameters."""
    semantic_width: int | None = Field(default=None, gt=0, multiple_of=4)
    """Channels of its first convolution, which all others are multiples of. None: 32 of `small`, 64 of `resnet-50`."""
    semantic_steps: int = Field(gt=0)
    """Mini-batches that it is trained on."""
    semantic_batch: int = Field(default=128, gt=0)

    @property
    def pretrains_on_public_alone(self) -> bool:
        return False  # The private records voted for its classes.

    def queries(self, shape: Shape) -> tuple[tuple[str, Cost], ...]:
        # The cost depends on k alone, not on how many public classes there are.
        query = SemanticQuery(shape=shape, public_classes=max(self.public_classes, self.votes), votes=self.votes)
        return ((QUERY, query.with_noise(self.noise_multiplier).cost), *super().queries(shape))

    def check(self, shape: Shape, public: PublicImages | None) -> None:
        super().check(shape, public)
        if public is None:
            raise TrainerError("privimage selects from a public set; name one in [public]")
        needed = len(shape.classes) * self.votes
        if len(public.classes) < needed:
            raise TrainerError(
                f"privimage gives each of {len(shape.classes)} private classes {self.votes} public ones, {needed} in all, and "
                f"the public set has {len(public.classes)}; lower trainer.votes, or name a public set of more classes"
            )

    def chosen(self, bench: Bench) -> PublicImages:
        """The public images that the private records voted for, under the labels of the private classes."""
        public = bench.public
        assert public is not None
        query = SemanticQuery(shape=bench.shape, public_classes=len(public.classes), votes=self.votes)
        weights = self._classifier(bench, public)
        released = bench.release(
            QUERY,
            query.with_noise(self.noise_multiplier).over(self._scores(bench, len(public.classes), weights)),
            question={"classifier": digest_of(weights), "public": public.digest, "votes": self.votes},
        )
        selected = select_disjoint(released["histogram"], self.votes)
        pixels, labels = [], []
        for label, classes in enumerate(selected):
            rows = np.isin(public.labels, classes)
            pixels.append(public.pixels[rows])
            labels.append(np.full(int(rows.sum()), label, dtype=np.int64))
        kept = {"pixels": np.concatenate(pixels), "labels": np.concatenate(labels)}
        return PublicImages(
            pixels=kept["pixels"], labels=kept["labels"], classes=bench.shape.classes, digest=digest_of(kept)
        )

    def _classifier(self, bench: Bench, public: PublicImages) -> Arrays:
        """A classifier of the public classes, trained on the public set: a stage of its own."""
        from torch.nn.functional import cross_entropy

        from .loop import Fit, fit, initialised, part
        from .semantic_classifier import batch_of

        key = {
            "images": public.digest,
            "classes": len(public.classes),
            "network": self.semantic_network,
            "width": self._width,
            "steps": self.semantic_steps,
            "batch": self.semantic_batch,
            "precision": self.precision,
            "seed": bench.seed,
        }

        def make(folder: Path) -> Arrays:
            return fit(
                initialised(lambda: self._network(bench.shape, len(public.classes)), bench.seed, "semantic-classifier"),
                lambda net, batch: cross_entropy(net(batch["image"]), batch["label"], reduction="none"),
                lambda rows, _: batch_of(public.pixels[rows], public.labels[rows]),
                images=len(public),
                settings=Fit(
                    steps=self.semantic_steps,
                    batch=self.semantic_batch,
                    learning_rate=1e-3,
                    precision=self.precision,
                ),
                seed=bench.seed,
                folder=folder,
                progress=bench.progress,
                name="semantic classifier",
                device=bench.device,
                compiled=bench.compiled,
            )

        return part(bench.stage("semantic-classifier", key, make), "ema")

    def _scores(self, bench: Bench, classes: int, weights: Arrays) -> Scores:
        from .loop import load_weights
        from .semantic_classifier import scores_of

        network = self._network(bench.shape, classes)
        load_weights(network, weights)
        network.to(bench.device).eval()
        return lambda pixels: scores_of(network, pixels, bench.device)

    @property
    def _width(self) -> int:
        return self.semantic_width or {"small": 32, "resnet-50": 64}[self.semantic_network]

    def _network(self, shape: Shape, classes: int) -> nn.Module:
        from .semantic_classifier import ResNet50, SmallResNet

        kind = ResNet50 if self.semantic_network == "resnet-50" else SmallResNet
        return kind(shape.channels, classes, self._width)
