"""`transformers-caption`: words about an image, by BLIP or any other model that reads images and writes text."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, JsonValue, PositiveInt

from ..contract import CaptionRequest, Image, Location, Refusal
from .batches import Batches
from .folder import ModelFolder
from .model import FolderConfig, identity_of, load, needs_an_accelerator, opening, placed, quiet
from .pixels import picture
from .seeds import seed_of


class TransformersCaptionConfig(FolderConfig):
    """How the model is asked; what is not set is as said here.

    prefix              how a caption begins, for a model without a chat template: it is no reader of instructions, so the
                        request's prompt is left out. The reply holds the prefix
    temperature         0 takes the likeliest words, so draws of one image are equal
    stop                strings that end a caption
    template_options    for the chat template
    offload             layers that do not fit on the accelerator stay in main memory
    """

    answers: ClassVar[tuple[type, ...]] = (CaptionRequest,)

    kind: str = Field(default="transformers-caption", pattern="^transformers-caption$")
    prefix: str = ""
    temperature: float = Field(default=0.0, ge=0)
    max_tokens: PositiveInt = 64
    stop: tuple[str, ...] = ()
    template_options: dict[str, JsonValue] = Field(default_factory=dict)
    offload: bool = False

    def open(self) -> TransformersCaption:
        folder = self.located()
        with opening(self.kind, "transformers"):
            return TransformersCaption(self, folder)


class TransformersCaption:
    """Grey images are read as colour. Batches are always full and of one prompt and one size of image.

    So the caption of a private image is computed in the same shapes whatever lies beside it.
    """

    location = Location.LOCAL

    def __init__(self, config: TransformersCaptionConfig, folder: ModelFolder) -> None:
        from transformers import AutoModelForImageTextToText

        from .generation import Manner, ends_of, plainly

        placement = placed(config, accelerated="bfloat16")
        if config.offload:
            needs_an_accelerator(config, placement)
        self.config = config
        self._dtype = placement.dtype
        self._processor = _processor(folder)
        self._tokenizer = self._processor.tokenizer
        self._chats = bool(self._processor.chat_template)
        if self._chats and config.prefix:
            raise ValueError("it has a chat template, so `prefix` says nothing to it; leave `prefix` out")
        if isinstance(self._processor, _ImagesAlone) and config.prefix:
            raise ValueError("its decoder starts from nothing but the image; leave `prefix` out")
        self._model = load(
            AutoModelForImageTextToText, folder, placement, offload=config.offload, compile=config.compile
        )
        ends = ends_of(self._model, self._tokenizer, ())
        ends |= _end_of_text(self._model)
        plainly(self._model, ends)
        text = self._model.config.get_text_config(decoder=True)
        self._context: int | None = getattr(text, "max_position_embeddings", None)
        self._manner = Manner(ends=ends, stop=config.stop)
        self._batches = Batches(config.batch_size or (4 if placement.is_cpu else 32), kind=config.kind, full=True)
        if not placement.is_cpu:
            blank = Image(np.zeros((224, 224, 3), dtype=np.uint8))
            self._batches.fit(CaptionRequest(image=blank, prompt="Describe the image.", draw=0), self._captions)
        self.identity = identity_of(folder.name, folder.fingerprint, placement, ("torch", "transformers"))

    @property
    def batch_size(self) -> int:
        """Requests at once, as far as memory has shown."""
        return self._batches.size

    def send(self, requests: Sequence[CaptionRequest], /) -> list[str | Refusal]:
        def shape(request: CaptionRequest) -> Hashable:
            return request.image.pixels.shape[:2], request.prompt if self._chats else ""

        with quiet():
            return list(self._batches.run(requests, self._captions, shape=shape))

    def _captions(self, requests: list[CaptionRequest]) -> list[str | Refusal]:
        from .generation import Ask, continued

        inputs = self._inputs([picture(request.image) for request in requests], requests[0].prompt)
        read = inputs["input_ids"].shape[1] if "input_ids" in inputs else 1
        room = (self._context or read + 1_000_000) - read
        if room < 1:
            return [Refusal(f"prompt and image are {read} tokens, and the model reads {self._context}")] * len(requests)
        asks = [
            Ask(
                seed=seed_of(request),
                temperature=self.config.temperature,
                max_tokens=min(request.max_tokens or self.config.max_tokens, room),
            )
            for request in requests
        ]
        texts = continued(self._model, inputs, asks, self._manner, self._decoded)
        return [f"{self.config.prefix} {text}".strip() for text in texts]

    def _inputs(self, pictures: list[Any], prompt: str) -> Any:
        words = self.config.prefix
        if self._chats:
            content = [{"type": "image"}, {"type": "text", "text": prompt}]
            words = self._processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, **self.config.template_options
            )
        asked: dict[str, Any] = {"text": [words] * len(pictures)} if words else {}
        if self._chats and self._tokenizer.bos_token and words.startswith(self._tokenizer.bos_token):
            asked["add_special_tokens"] = False
        # One list an image: several images may belong to one text.
        images = [[each] for each in pictures] if self._chats else pictures
        inputs = self._processor(images=images, return_tensors="pt", **asked)
        return inputs.to(self._model.device, dtype=self._dtype)

    def _decoded(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=True)


def _processor(folder: ModelFolder) -> Any:
    """What turns images and text into the model's input, without torchvision."""
    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, ProcessorMixin

    processor = AutoProcessor.from_pretrained(folder.path, local_files_only=True, backend="pil")
    if isinstance(processor, ProcessorMixin):
        return processor
    return _ImagesAlone(
        AutoImageProcessor.from_pretrained(folder.path, local_files_only=True, backend="pil"),
        AutoTokenizer.from_pretrained(folder.path, local_files_only=True),
    )


class _ImagesAlone:
    """An image processor and a tokenizer, for a model whose decoder starts from nothing but the image."""

    chat_template = None

    def __init__(self, images: Any, tokenizer: Any) -> None:
        self._images = images
        self.tokenizer = tokenizer

    def __call__(self, *, images: list[Any], return_tensors: str) -> Any:
        return self._images(images=images, return_tensors=return_tensors)


def _end_of_text(model: Any) -> frozenset[int]:
    """BLIP ends its captions with the separator of its text model, whatever its tokenizer calls the end."""
    separator = getattr(model.config.get_text_config(decoder=True), "sep_token_id", None)
    return frozenset() if separator is None else frozenset({separator})
