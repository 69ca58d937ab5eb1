"""`trained`: a model that a training job released, as a painter; so that Private Evolution goes on from it (PE-SD).

A prompt is the name of a class. A variation is SDEdit (Meng et al. 2022): noise is put on the image, the more the higher the
degree, and taken off by the model. What such a model draws is post-processing of its release, so that it may be asked without
cost; whoever evolves its images on the same private set pays for the votes beside the training, in one plan where both are
known beforehand (`models` of a suite).

A reply is a function of the weights, the request and its draw alone: batches are filled up to one size, so that on a CPU it has
the same bits whatever is asked beside it; another `batch_size`, or a GPU, may move a pixel by 1 of 255.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from pydantic import Field, PositiveInt

from ..adapters.contract import (
    AdapterConfig,
    AdapterUnavailable,
    Image,
    ImageRequest,
    ImageVariationRequest,
    Location,
    ModelIdentity,
    Refusal,
)
from ..adapters.local.batches import Batches
from ..adapters.local.pixels import image_of, picture
from ..adapters.local.seeds import seed_of
from .contract import TrainerError
from .diffusion.sampling import SamplerConfig

if TYPE_CHECKING:
    from .serving import Released

REVISION = 1
"""Raised whenever an old request is answered in a new way, so that no saved reply stands in for it."""
Asked = ImageRequest | ImageVariationRequest


class TrainedConfig(AdapterConfig):
    """The settings of a released model.

    path        the folder of a training's run, or its `release`
    sampling    how images are drawn; None: as the training drew its own samples
    device      "cpu", "cuda", "cuda:1"; "auto" is the first GPU, or else the CPU
    batch_size  images at once; halved where they do not fit into memory
    """

    answers: ClassVar[tuple[type, ...]] = (ImageRequest, ImageVariationRequest)
    location: ClassVar[Location] = Location.LOCAL
    cannot_change_replies: ClassVar[frozenset[str]] = frozenset({"path", "device", "batch_size"})

    kind: str = Field(default="trained", pattern="^trained$")
    path: str = Field(min_length=1)
    sampling: SamplerConfig | None = None
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    batch_size: PositiveInt = 64

    def resolved(self, base: Path) -> Self:
        """The same config with a relative folder taken from `base`, if there is one."""
        beside = base / Path(self.path).expanduser()
        return self.model_copy(update={"path": str(beside)}) if beside.is_dir() else self

    def open(self) -> TrainedModel:
        try:
            from .serving import load
            from .workspace import chosen_device

            return TrainedModel(self, load(Path(self.path).expanduser(), device=chosen_device(self.device)))
        except ModuleNotFoundError as error:
            raise AdapterUnavailable(f"{self.kind} needs {error.name}: pip install 'privolve[train]'") from None
        except (TrainerError, ValueError) as error:
            raise AdapterUnavailable(f"{self.kind}: {error}") from None


class TrainedModel:
    """Each request has a seed of its own, made of all that it says; see the module on what a reply depends on."""

    location = Location.LOCAL

    def __init__(self, config: TrainedConfig, released: Released) -> None:
        model = released.model
        self._model = model if config.sampling is None else replace(model, sampling=config.sampling)
        self._labels = {name: label for label, name in enumerate(released.classes)}
        self._batches = Batches(config.batch_size, kind=config.kind, full=True)
        torch = ".".join(version("torch").split(".")[:2])
        device = model.device.partition(":")[0]
        self.identity = ModelIdentity(
            provider="privolve",
            model=config.kind,
            revision=f"sha256-{released.digest}+torch-{torch}+{device}+code-{REVISION}",
        )

    def send(self, requests: Sequence[Asked], /) -> list[Image | Refusal]:
        drawable = [request for request in requests if request.prompt in self._labels]
        images = iter(self._batches.run(drawable, self._drawn, shape=_degree))
        unknown = Refusal(f"the model knows no such class; it has {', '.join(self._labels)}"[:200])
        return [next(images) if request.prompt in self._labels else unknown for request in requests]

    def _drawn(self, requests: list[Asked]) -> list[Image]:
        """Of requests that all begin at the same level of noise."""
        labels = np.array([self._labels[request.prompt] for request in requests], dtype=np.int64)
        seeds = [seed_of(request) for request in requests]
        degree = _degree(requests[0])
        if degree is None:
            pixels = self._model.sample(labels, seed=seeds)
        else:
            starts = np.stack([self._seen(request) for request in requests])
            pixels = self._model.varied(starts, labels, degree=degree, seed=seeds)
        return [_reply(image, request) for image, request in zip(pixels, requests, strict=True)]

    def _seen(self, request: Asked) -> np.ndarray:
        """The image that is varied, as the model draws its own: uint8 (height, width, channels)."""
        assert isinstance(request, ImageVariationRequest)
        height, width, channels = self._model.image_shape
        if request.image.pixels.shape == (height, width, channels):
            return request.image.pixels
        return image_of(picture(request.image), size=(width, height), channels=channels).pixels


def _degree(request: Asked) -> float | None:
    return request.degree if isinstance(request, ImageVariationRequest) else None


def _reply(pixels: np.ndarray, request: Asked) -> Image:
    if isinstance(request, ImageRequest):
        shape = (request.size[1], request.size[0], request.channels)
    else:
        shape = request.image.pixels.shape
    if pixels.shape == shape:
        return Image(pixels)
    return image_of(picture(Image(pixels)), size=(shape[1], shape[0]), channels=shape[2])
