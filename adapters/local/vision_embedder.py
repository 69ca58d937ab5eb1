"""`clip`, `dinov2`, `siglip`, `transformers-vision`: features of an image by any vision model of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ..contract import EmbedRequest, Image, Location, Refusal
from .batches import Batches
from .folder import ModelFolder
from .model import FolderConfig, identity_of, load, opening, placed, quiet
from .pixels import picture

Features = Literal["projection", "pooled", "first", "mean"]


class VisionConfig(FolderConfig):
    """What counts as the features of an image.

    features      "projection": into the space that images share with texts (CLIP, SigLIP); "pooled": as the model pools;
                  "first": the first token of the last layer; "mean": the mean of its tokens
    normalize     to length 1
    """

    answers: ClassVar[tuple[type, ...]] = (EmbedRequest,)

    kind: str = Field(default="transformers-vision", pattern="^(clip|dinov2|siglip|transformers-vision)$")
    features: Features | None = None
    normalize: bool = False

    def open(self) -> Vision:
        folder = self.located()
        with opening(self.kind, "transformers"):
            return Vision(self, folder)


_USUAL: dict[str, Features] = {"clip": "projection", "siglip": "projection"}


class Vision:
    """float32; grey images are read as colour, and every image is brought to the size that the model reads."""

    location = Location.LOCAL

    def __init__(self, config: VisionConfig, folder: ModelFolder) -> None:
        from transformers import AutoImageProcessor, AutoModel

        placement = placed(config, accelerated="float32")
        self.config = config
        self._placement = placement
        self._features = config.features or _USUAL.get(config.kind, "pooled")
        self._processor = AutoImageProcessor.from_pretrained(folder.path, local_files_only=True, backend="pil")
        self._model = load(AutoModel, folder, placement, compile=config.compile)
        self._batches = Batches(config.batch_size or (8 if placement.is_cpu else 64), kind=config.kind, full=True)
        self.identity = identity_of(folder.name, folder.fingerprint, placement, ("torch", "transformers"))
        # A blank shows whether the model has these features, and on an accelerator how many images fit.
        blank = self._prepared(Image(np.zeros((64, 64, 3), dtype=np.uint8)))
        if placement.is_cpu:
            self._vectors([blank])
        else:
            self._batches.fit(blank, self._vectors)

    @property
    def batch_size(self) -> int:
        """Requests at once, as far as memory has shown."""
        return self._batches.size

    def send(self, requests: Sequence[EmbedRequest], /) -> list[np.ndarray | Refusal]:
        with quiet():
            contents = [request.content for request in requests]
            prepared = [self._prepared(content) for content in contents if isinstance(content, Image)]
            vectors = iter(self._batches.run(prepared, self._vectors, shape=lambda pixels: tuple(pixels.shape)))
        refusal = Refusal(f"{self.config.kind} reads images, not text")
        return [next(vectors) if isinstance(content, Image) else refusal for content in contents]

    def _prepared(self, image: Image) -> Any:
        """The model's input for one image: channels, height, width."""
        inputs = self._processor(images=[picture(image)], return_tensors="pt")
        return inputs["pixel_values"][0].to(self._placement.dtype)

    def _vectors(self, prepared: list[Any]) -> list[np.ndarray]:
        import torch

        pixels = torch.stack(prepared).to(self._placement.device)
        with torch.inference_mode():
            found = self._pooled(pixels).float()
            if self.config.normalize:
                found = torch.nn.functional.normalize(found, dim=-1)
        return list(found.cpu().numpy())

    def _pooled(self, pixels: Any) -> Any:
        if self._features == "projection":
            output = self._model.get_image_features(pixel_values=pixels)
            return output if not isinstance(output, dict) else output["pooler_output"]
        tower = getattr(self._model, "vision_model", self._model)
        output = tower(pixel_values=pixels)
        if self._features == "pooled":
            return output.pooler_output.flatten(1)
        tokens = output.last_hidden_state
        if tokens.dim() == 4:  # a convolutional model: channels, height, width
            tokens = tokens.flatten(2).transpose(1, 2)
        return tokens[:, 0] if self._features == "first" else tokens.mean(dim=1)
