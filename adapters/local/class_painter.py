"""`diffusers-class`: a class-conditional diffusion model of pixels; a variation is noised and denoised again.

The variation is SDEdit (Meng et al., 2022): forward to the time that leaves a share `degree` of the steps, and back.
Private Evolution on CIFAR-10 (Lin et al., 2024) draws and varies so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt

from ..contract import Image, ImageRequest, ImageVariationRequest, Location, Refusal
from .batches import Batches
from .folder import ModelFolder
from .model import FolderConfig, identity_of, opening, placed, quiet
from .pixels import image_of, picture
from .seeds import seed_of

Index = Annotated[int, Field(ge=0)]
_FULL_SCALE = 127.5


class DiffusersClassConfig(FolderConfig):
    """The settings of a class-conditional model: a folder with `unet` and `scheduler`, as diffusers saves it.

    classes     for each prompt, which class of the model it means; of several, each is equally likely
    others      what a prompt that `classes` does not name gets: a refusal, or any class of the model
    steps       denoising steps from pure noise
    sampler     "ddim" adds no noise on the way back, "ddpm" does
    """

    answers: ClassVar[tuple[type, ...]] = (ImageRequest, ImageVariationRequest)

    kind: str = Field(default="diffusers-class", pattern="^diffusers-class$")
    classes: Mapping[str, Index | tuple[Index, ...]] = Field(default_factory=dict)
    others: Literal["refuse", "any"] = "refuse"
    steps: PositiveInt = 50
    sampler: Literal["ddim", "ddpm"] = "ddim"

    def open(self) -> DiffusersClass:
        folder = self.located()
        with opening(self.kind, "diffusers"):
            return DiffusersClass(self, folder)


class DiffusersClass:
    """Each request has a random generator of its own, which also draws its class where its prompt means several.

    A reply's recipe holds the class, and a variation keeps the class of its parent.
    """

    location = Location.LOCAL

    def __init__(self, config: DiffusersClassConfig, folder: ModelFolder) -> None:
        from diffusers.models.unets.unet_2d import UNet2DModel
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

        placement = placed(config, accelerated="float16")
        self.config = config
        self._unet: Any = UNet2DModel.from_pretrained(
            _part(folder.path, "unet"), local_files_only=True, use_safetensors=True, dtype=placement.dtype
        )
        self._unet.to(placement.device).eval()
        if config.compile:
            self._unet.compile()
        chosen = DDIMScheduler if config.sampler == "ddim" else DDPMScheduler
        self._scheduler: Any = chosen.from_pretrained(_part(folder.path, "scheduler"), local_files_only=True)
        self._scheduler.set_timesteps(config.steps, device=placement.device)
        self._placement = placement
        self._channels: int = self._unet.config["in_channels"]
        self._count: int | None = self._unet.config.get("num_class_embeds")
        self._size = _sides(self._unet.config["sample_size"])
        self._classes = self._checked()
        self._batches = Batches(config.batch_size or (8 if placement.is_cpu else 64), kind=config.kind, full=True)
        self.identity = identity_of(folder.name, folder.fingerprint, placement, ("torch", "diffusers"))
        if not placement.is_cpu:
            blank = ImageRequest(prompt="", draw=0, size=self._size)
            self._batches.fit((blank, 0, 1), self._drawn)

    @property
    def batch_size(self) -> int:
        """Requests at once, as far as memory has shown."""
        return self._batches.size

    def send(self, requests: Sequence[ImageRequest | ImageVariationRequest], /) -> list[Image | Refusal]:
        drawings = [self._drawing(request) for request in requests]
        drawable = [drawing for drawing in drawings if not isinstance(drawing, Refusal)]
        with quiet():
            # What starts at the same time goes together.
            images = iter(
                self._batches.run(drawable, self._drawn, shape=lambda drawing: (type(drawing[0]), drawing[2]))
            )
        return [drawing if isinstance(drawing, Refusal) else next(images) for drawing in drawings]

    def _drawing(self, request: ImageRequest | ImageVariationRequest) -> tuple[Any, int, int] | Refusal:
        """The request, its class and how many steps it takes."""
        steps = self.config.steps
        known: int | None = None
        if isinstance(request, ImageVariationRequest):
            steps = max(1, round(request.degree * steps))
            known = _class_of(request.image.recipe)
        if self._count is None:
            return request, -1, steps
        if known is None or not 0 <= known < self._count:
            options = self._classes.get(request.prompt, range(self._count) if self.config.others == "any" else ())
            if not options:
                return Refusal("the prompt names no class; add it to `classes`, or set others = 'any'")
            known = options[seed_of(request) % len(options)]
        return request, known, steps

    def _drawn(self, drawings: list[tuple[Any, int, int]]) -> list[Image]:
        import torch
        from diffusers.utils.torch_utils import randn_tensor

        device, dtype = self._placement.device, self._placement.dtype
        times = self._scheduler.timesteps[-drawings[0][2] :]
        generators = [torch.Generator("cpu").manual_seed(seed_of(request)) for request, _, _ in drawings]
        width, height = self._size
        shape = (len(drawings), self._channels, height, width)
        noise = randn_tensor(shape, generator=generators, device=device, dtype=dtype)
        if isinstance(drawings[0][0], ImageVariationRequest):
            clean = torch.stack([self._scaled(request.image) for request, _, _ in drawings]).to(device, dtype)
            noisy = self._scheduler.add_noise(clean, noise, times[:1])
        else:
            noisy = noise * self._scheduler.init_noise_sigma
        labels = None if self._count is None else torch.tensor([label for _, label, _ in drawings], device=device)
        with torch.inference_mode():
            for time in times:
                predicted = self._unet(self._scheduler.scale_model_input(noisy, time), time, class_labels=labels).sample
                if self.config.sampler == "ddim":
                    # A model that also predicts variances says them in the channels behind, and DDIM needs none.
                    predicted = predicted[:, : self._channels]
                noisy = self._scheduler.step(predicted, time, noisy, generator=generators).prev_sample
        arrays = ((noisy.float() + 1) * _FULL_SCALE).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        return [_reply(array, request, label) for array, (request, label, _) in zip(arrays, drawings, strict=True)]

    def _scaled(self, image: Image) -> Any:
        """The image as the model sees it: channels first, from -1 to 1."""
        import torch

        seen = picture(image, self._size)
        array = np.asarray(seen.convert("L" if self._channels == 1 else "RGB"), dtype=np.float32)
        return torch.from_numpy(array.reshape(*array.shape[:2], self._channels) / _FULL_SCALE - 1).permute(2, 0, 1)

    def _checked(self) -> Mapping[str, Sequence[int]]:
        """The classes that each prompt may mean."""
        chosen = {
            prompt: (index,) if isinstance(index, int) else index for prompt, index in self.config.classes.items()
        }
        for prompt, indices in chosen.items():
            if self._count is not None and (not indices or max(indices) >= self._count):
                raise ValueError(
                    f"`classes` gives {prompt!r} {indices}, and the model has classes 0 to {self._count - 1}"
                )
        return chosen


def _part(folder: Path, name: str) -> Path:
    return folder / name if (folder / name).is_dir() else folder


def _sides(side: int | Sequence[int]) -> tuple[int, int]:
    height, width = (side, side) if isinstance(side, int) else side
    return int(width), int(height)


def _class_of(recipe: str) -> int | None:
    """The class that a recipe of ours names."""
    try:
        told = json.loads(recipe)
    except ValueError:
        return None
    known = told.get("class") if isinstance(told, dict) else None
    return known if isinstance(known, int) else None


def _reply(array: np.ndarray, request: ImageRequest | ImageVariationRequest, label: int) -> Image:
    from PIL import Image as Pillow

    if isinstance(request, ImageRequest):
        size, channels = request.size, request.channels
    else:
        size, channels = request.image.pixels.shape[1::-1], request.image.pixels.shape[2]
    drawn = Pillow.fromarray(np.ascontiguousarray(array[:, :, 0] if array.shape[2] == 1 else array))
    recipe = json.dumps({"class": label}) if label >= 0 else ""
    return image_of(drawn, size=size, channels=channels, recipe=recipe)
