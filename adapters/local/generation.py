"""Generation of tokens in batches, such that what a request gets does not depend on what is beside it.

Sampling is the Gumbel-max trick: the largest of (score + Gumbel noise) is distributed as a sample from the softmax of
the scores (Gumbel, 1954). The noise of a row comes from that row's own generator, so no row's luck depends on another's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin
from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper


@dataclass(frozen=True, kw_only=True)
class Ask:
    """How one row is to be continued. Temperature 0 takes the likeliest token each time."""

    seed: int
    temperature: float
    max_tokens: int


@dataclass(frozen=True, kw_only=True)
class Manner:
    """What all rows share: where sampling looks, and what ends a reply."""

    top_k: int | None = None
    top_p: float | None = None
    ends: frozenset[int] = frozenset()
    stop: tuple[str, ...] = ()


def continued(
    model: Any, inputs: Any, asks: Sequence[Ask], manner: Manner, decode: Callable[[list[int]], str]
) -> list[str]:
    """The text that the model adds to each row, without what ends it."""
    noise = GumbelNoise(asks, manner, model.device)
    stops = RowStops(asks, manner, noise, decode)
    with torch.inference_mode():
        made = model.generate(
            **inputs,
            max_new_tokens=max(ask.max_tokens for ask in asks),
            logits_processor=[noise],
            stopping_criteria=[stops],
        )
    rows = made[:, noise.start :].tolist()
    return [
        _cut(decode(_until(row[: ask.max_tokens], manner.ends)), manner) for row, ask in zip(rows, asks, strict=True)
    ]


class GumbelNoise:
    """A logits processor after which the largest score is a sample."""

    def __init__(self, asks: Sequence[Ask], manner: Manner, device: torch.device) -> None:
        self.start = 0
        """How many tokens of the output were there before."""
        self._steps = 0
        self._asks = asks
        self._generators = [torch.Generator(device).manual_seed(ask.seed) for ask in asks]
        temperatures = [[ask.temperature or 1.0] for ask in asks]
        self._temperatures = torch.tensor(temperatures, dtype=torch.float32, device=device)
        self._warpers: list[Any] = []
        if manner.top_k:
            self._warpers.append(TopKLogitsWarper(manner.top_k))
        if manner.top_p is not None and manner.top_p < 1:
            self._warpers.append(TopPLogitsWarper(manner.top_p))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self._steps == 0:
            self.start = input_ids.shape[1]
        self._steps += 1
        scores = scores / self._temperatures.to(scores.device)
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        return scores.double() + torch.stack(list(self._noise(scores)))

    def _noise(self, scores: torch.Tensor) -> Iterator[torch.Tensor]:
        # Every row draws at every step, so that the n-th token of a request meets the same noise in any company.
        width = scores.shape[1]
        for ask, generator in zip(self._asks, self._generators, strict=True):
            if ask.temperature == 0:
                yield torch.zeros(width, dtype=torch.float64, device=scores.device)
                continue
            uniform = torch.rand(width, generator=generator, dtype=torch.float64, device=generator.device)
            yield -torch.log(-torch.log(uniform.clamp_min(1e-300))).to(scores.device)


class RowStops:
    """A stopping criterion for each row: its own limit, and the strings that end a reply."""

    def __init__(
        self, asks: Sequence[Ask], manner: Manner, noise: GumbelNoise, decode: Callable[[list[int]], str]
    ) -> None:
        self._asks = asks
        self._manner = manner
        self._noise = noise
        self._decode = decode

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_kwargs: Any) -> torch.Tensor:
        made = input_ids[:, self._noise.start :]
        done = [made.shape[1] >= ask.max_tokens for ask in self._asks]
        if self._manner.stop:
            texts = (self._decode(row) for row in made.tolist())
            done = [
                over or any(stop in text for stop in self._manner.stop) for over, text in zip(done, texts, strict=True)
            ]
        return torch.tensor(done, device=input_ids.device)


def plainly(model: Any, ends: frozenset[int]) -> None:
    """Take from a model all habits of generation (penalties, beams, sampling) but which tokens are special."""
    for part in model.modules():
        if not isinstance(part, GenerationMixin):
            continue
        own = part.generation_config
        # A model without a padding token is padded by any token: padding is never looked at.
        special = {
            "bos_token_id": own.bos_token_id,
            "decoder_start_token_id": own.decoder_start_token_id,
            "forced_bos_token_id": own.forced_bos_token_id,
            "eos_token_id": sorted(ends) or own.eos_token_id,
            "pad_token_id": own.pad_token_id if own.pad_token_id is not None else min(ends, default=0),
        }
        part.generation_config = GenerationConfig(do_sample=False, num_beams=1, **special)


def ends_of(model: Any, tokenizer: Any, named: Sequence[str]) -> frozenset[int]:
    """The tokens that end a reply: the model's, the tokenizer's and those `named`, each of which must be one token."""
    own = model.generation_config.eos_token_id
    ends = set(own) if isinstance(own, list | tuple) else {own}
    ends.add(tokenizer.eos_token_id)
    vocabulary = tokenizer.get_vocab()
    for name in named:
        if name not in vocabulary:
            raise ValueError(f"`stop_tokens` names {name!r}, which is no token of this model; use `stop` for a string")
        ends.add(vocabulary[name])
    return frozenset(end for end in ends if end is not None)


def left_padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Token ids of unequal length as one batch, filled from the left, and the mask of what is real."""
    width = max(len(row) for row in rows)
    ids = [[pad] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": torch.tensor(mask, device=device),
    }


def _until(tokens: list[int], ends: frozenset[int]) -> list[int]:
    return next((tokens[:place] for place, token in enumerate(tokens) if token in ends), tokens)


def _cut(text: str, manner: Manner) -> str:
    for stop in manner.stop:
        text = text.partition(stop)[0]
    return text.strip()
