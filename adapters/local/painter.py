"""`diffusers`: text to image, and variations of an image, by whatever diffusion pipeline a folder holds."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from ..contract import AdapterError, Image, ImageRequest, ImageVariationRequest, Location, Refusal
from .batches import Batches
from .folder import ModelFolder
from .long_prompts import Counted, LongPrompts, Reader, can_chunk, chunk_encoded
from .model import FolderConfig, Placement, identity_of, needs_an_accelerator, opening, placed, quiet
from .pixels import image_of, picture
from .seeds import seed_of


class DiffusersConfig(FolderConfig):
    """The settings of a pipeline; what is not set is as the pipeline has it.

    steps, guidance     denoising steps and classifier-free guidance: 4 and 0 for the turbo models
    scheduler           the name of another scheduler of diffusers
    native_size         (width, height) at which the model draws; the reply is resized to what was asked for
    long_prompts        what to do with a prompt that the text encoder does not read to its end: cut it there and warn,
                        read it in chunks (Stable Diffusion and SDXL), or refuse it
    variant             which of several files of weights, such as "fp16"
    offload             "model" or "sequential": parts, or layers, are on the accelerator only while they work
    """

    answers: ClassVar[tuple[type, ...]] = (ImageRequest, ImageVariationRequest)

    kind: str = Field(default="diffusers", pattern="^diffusers$")
    steps: PositiveInt | None = None
    guidance: float | None = Field(default=None, ge=0)
    negative_prompt: str = ""
    scheduler: str | None = None
    native_size: tuple[PositiveInt, PositiveInt] | None = None
    long_prompts: LongPrompts = "cut"
    variant: str | None = None
    offload: Literal["none", "model", "sequential"] = "none"

    def open(self) -> Diffusers:
        folder = self.located()
        with opening(self.kind, "transformers", "diffusers"):
            return Diffusers(self, folder)


@dataclass(frozen=True, kw_only=True)
class _Drawing:
    """One request as the pipeline takes it."""

    request: ImageRequest | ImageVariationRequest
    chunks: tuple[str, ...]
    strength: float | None = None

    @property
    def shape(self) -> tuple[int, float | None]:
        return len(self.chunks), self.strength


class Diffusers:
    """Each request has a random generator of its own, so that its image does not depend on its batch.

    A variation's `degree` is the strength of image-to-image: the share of the denoising that is done again, at least
    one step. What a pipeline's own safety checker withholds is refused.
    """

    location = Location.LOCAL

    def __init__(self, config: DiffusersConfig, folder: ModelFolder) -> None:
        from diffusers.pipelines.auto_pipeline import AutoPipelineForImage2Image, AutoPipelineForText2Image

        placement = placed(config, accelerated="float16")
        self.config = config
        self._drawer = _pipeline(AutoPipelineForText2Image, config, folder, placement)
        self._takes = inspect.signature(type(self._drawer).__call__).parameters
        self._changer = _changer(AutoPipelineForImage2Image, self._drawer)
        self._steps: int = config.steps or self._takes["num_inference_steps"].default
        self._native = config.native_size or _native_size(self._drawer)
        self._settings = self._said()
        self._reader = Reader(self._drawer, config.kind, config.long_prompts)
        if config.long_prompts == "chunk" and not can_chunk(self._drawer):
            raise ValueError(
                f"{type(self._drawer).__name__} cannot read a prompt in chunks; set long_prompts to 'cut' or 'refuse'"
            )
        self._batches = Batches(config.batch_size or (2 if placement.is_cpu else 8), kind=config.kind, full=True)
        self.identity = identity_of(folder.name, folder.fingerprint, placement, ("torch", "transformers", "diffusers"))
        if not placement.is_cpu:
            blank = ImageRequest(prompt="a picture", draw=0, size=(64, 64))
            self._batches.fit(_Drawing(request=blank, chunks=("a picture",)), self._drawn)

    @property
    def batch_size(self) -> int:
        """Requests at once, as far as memory has shown."""
        return self._batches.size

    @property
    def long_prompts(self) -> Counted:
        """How many prompts were longer than the text encoder reads."""
        return self._reader.counted

    def send(self, requests: Sequence[ImageRequest | ImageVariationRequest], /) -> list[Image | Refusal]:
        with quiet():
            lengths = self._reader.lengths([request.prompt for request in requests])
            drawings = [self._drawing(request, length) for request, length in zip(requests, lengths, strict=True)]
            drawable = [drawing for drawing in drawings if isinstance(drawing, _Drawing)]
            images = iter(self._batches.run(drawable, self._drawn, shape=lambda drawing: drawing.shape))
            return [drawing if isinstance(drawing, Refusal) else next(images) for drawing in drawings]

    def _drawing(self, request: ImageRequest | ImageVariationRequest, length: int) -> _Drawing | Refusal:
        chunks: tuple[str, ...] = (request.prompt,)
        if length > self._reader.limit:
            if self.config.long_prompts == "refuse":
                return Refusal(f"the prompt has {length} tokens and the text encoder reads {self._reader.limit}")
            if self.config.long_prompts == "chunk":
                chunks = tuple(self._reader.chunks(request.prompt))
        if isinstance(request, ImageRequest):
            return _Drawing(request=request, chunks=chunks)
        # Pipelines round the number of steps down.
        strength = min(1.0, max(request.degree, 1 / self._steps) + 1e-6)
        return _Drawing(request=request, chunks=chunks, strength=strength)

    def _drawn(self, drawings: list[_Drawing]) -> list[Image | Refusal]:
        import torch

        generators = [torch.Generator("cpu").manual_seed(seed_of(drawing.request)) for drawing in drawings]
        asked: dict[str, Any] = {**self._settings, "generator": generators, **self._words(drawings)}
        strength = drawings[0].strength
        if strength is None:
            width, height = self._native
            output = self._drawer(**asked, width=width, height=height)
        else:
            if self._changer is None:
                raise AdapterError(
                    f"{self.config.kind}: {type(self._drawer).__name__} has no image-to-image form, so it makes no "
                    "variations; choose another model"
                )
            output = self._changer(**asked, image=self._parents(drawings), strength=strength)
        withheld = output.get("nsfw_content_detected") or [False] * len(drawings)
        return [
            Refusal("the pipeline's safety checker withheld the image") if flagged else _fitted(made, drawing.request)
            for made, flagged, drawing in zip(output.images, withheld, drawings, strict=True)
        ]

    def _parents(self, drawings: list[_Drawing]) -> list[Any]:
        requests = (drawing.request for drawing in drawings)
        return [picture(each.image, self._native) for each in requests if isinstance(each, ImageVariationRequest)]

    def _words(self, drawings: list[_Drawing]) -> dict[str, Any]:
        rows = [drawing.chunks for drawing in drawings]
        if len(rows[0]) > 1:
            return chunk_encoded(self._drawer, rows, self.config.negative_prompt)
        words: dict[str, Any] = {"prompt": [row[0] for row in rows]}
        if self.config.negative_prompt:
            words["negative_prompt"] = [self.config.negative_prompt] * len(rows)
        return words

    def _said(self) -> dict[str, Any]:
        """The settings of every call; one that the pipeline does not know is refused."""
        said: dict[str, Any] = {"num_inference_steps": self._steps}
        if self.config.guidance is not None:
            said["guidance_scale"] = self.config.guidance
        for name in [*said, *(["negative_prompt"] if self.config.negative_prompt else [])]:
            if name not in self._takes:
                raise ValueError(f"{type(self._drawer).__name__} has no setting {name!r}; leave it out")
        return said


def _pipeline(auto: Any, config: DiffusersConfig, folder: ModelFolder, placement: Placement) -> Any:
    options: dict[str, Any] = {"variant": config.variant} if config.variant else {}
    pipeline = auto.from_pretrained(
        folder.path, local_files_only=True, use_safetensors=True, dtype=placement.dtype, **options
    )
    pipeline.set_progress_bar_config(disable=True)
    if config.scheduler is not None:
        pipeline.scheduler = _scheduler(config.scheduler).from_config(pipeline.scheduler.config)
    if config.offload == "none":
        pipeline.to(placement.device)
    else:
        needs_an_accelerator(config, placement)
        if config.offload == "model":
            pipeline.enable_model_cpu_offload(device=placement.device)
        else:
            pipeline.enable_sequential_cpu_offload(device=placement.device)
    if config.compile:
        denoiser = pipeline.components.get("unet") or pipeline.components.get("transformer")
        if denoiser is not None:
            denoiser.compile()
    return pipeline


def _scheduler(name: str) -> Any:
    import diffusers
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

    found = getattr(diffusers, name, None)
    if not (isinstance(found, type) and issubclass(found, SchedulerMixin)):
        raise ValueError(f"diffusers has no scheduler {name!r}")
    return found


def _changer(auto: Any, drawer: Any) -> Any | None:
    """The image-to-image form of a pipeline, on the same components; None where it has none."""
    try:
        changer = auto.from_pipe(drawer)
    except ValueError:
        return None
    changer.set_progress_bar_config(disable=True)
    return changer


def _native_size(pipeline: Any) -> tuple[int, int]:
    """(width, height) for which the model was made, as its config says it."""
    denoiser = pipeline.components.get("unet") or pipeline.components.get("transformer")
    side = getattr(pipeline, "default_sample_size", None) or (denoiser.config.get("sample_size") if denoiser else None)
    if side is None:
        raise ValueError("its config does not say at which size it draws; set `native_size`")
    height, width = (side, side) if isinstance(side, int) else side
    return int(width) * pipeline.vae_scale_factor, int(height) * pipeline.vae_scale_factor


def _fitted(made: Any, request: ImageRequest | ImageVariationRequest) -> Image:
    if isinstance(request, ImageRequest):
        return image_of(made, size=request.size, channels=request.channels)
    height, width, channels = request.image.pixels.shape
    return image_of(made, size=(width, height), channels=channels)
