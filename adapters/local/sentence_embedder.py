"""`sentence-transformers`: features of a text by any model of that library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from ..contract import EmbedRequest, Location, Refusal
from .batches import Batches
from .folder import ModelFolder
from .model import FolderConfig, identity_of, opening, placed, quiet
from .text_batches import Tokens, padded_length, stacked


class SentenceTransformersConfig(FolderConfig):
    """`prompt` is put before every text: some models want "query: " or an instruction there."""

    answers: ClassVar[tuple[type, ...]] = (EmbedRequest,)

    kind: str = Field(default="sentence-transformers", pattern="^sentence-transformers$")
    prompt: str = ""

    def open(self) -> SentenceEmbedder:
        folder = self.located()
        with opening(self.kind, "transformers", "sentence_transformers", extra="local,text"):
            return SentenceEmbedder(self, folder)


class SentenceEmbedder:
    """float32, as the model pools and scales them. A text is read as far as the model reads."""

    location = Location.LOCAL

    def __init__(self, config: SentenceTransformersConfig, folder: ModelFolder) -> None:
        from sentence_transformers import SentenceTransformer

        placement = placed(config, accelerated="float32")
        self.config = config
        self._placement = placement
        self._model = SentenceTransformer(
            str(folder.path),
            device=str(placement.device),
            local_files_only=True,
            model_kwargs={"use_safetensors": True, "dtype": placement.dtype},
        ).eval()
        if config.compile:
            self._model.compile()
        self._batches = Batches(config.batch_size or (8 if placement.is_cpu else 64), kind=config.kind, full=True)
        libraries = ("torch", "transformers", "sentence-transformers")
        self.identity = identity_of(folder.name, folder.fingerprint, placement, libraries)
        if placement.is_cpu:
            self._vectors([self._tokens("a text")])
        else:
            self._batches.fit(self._tokens("word " * 10_000), self._vectors)

    @property
    def batch_size(self) -> int:
        """Requests at once, as far as memory has shown."""
        return self._batches.size

    def send(self, requests: Sequence[EmbedRequest], /) -> list[np.ndarray | Refusal]:
        with quiet():
            contents = [request.content for request in requests]
            tokens = [self._tokens(content) for content in contents if isinstance(content, str)]
            vectors = iter(self._batches.run(tokens, self._vectors, shape=self._shape))
        return [next(vectors) if isinstance(content, str) else _NO_TEXT for content in contents]

    def _tokens(self, text: str) -> Tokens:
        import torch

        found = self._model.preprocess([text], prompt=self.config.prompt or None)
        if "attention_mask" not in found:
            raise ValueError("it does not read token by token, as a transformer does; choose another model")
        return {
            name: values[0] for name, values in found.items() if isinstance(values, torch.Tensor) and values.dim() == 2
        }

    def _shape(self, text: Tokens) -> int:
        return padded_length(text, self._model.max_seq_length or 512)

    def _vectors(self, texts: list[Tokens]) -> list[np.ndarray]:
        import torch

        tokenizer: Any = self._model.tokenizer
        left = tokenizer.padding_side == "left"
        batch = stacked(
            texts, self._shape(texts[0]), pad=tokenizer.pad_token_id or 0, left=left, device=self._placement.device
        )
        with torch.inference_mode():
            return list(self._model(batch)["sentence_embedding"].float().cpu().numpy())


_NO_TEXT = Refusal("sentence-transformers reads text, not images")
