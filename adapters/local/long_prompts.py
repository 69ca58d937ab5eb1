"""Prompts longer than a painter's text encoder reads: counted, said so, and cut, refused or read in chunks.

A diffusion pipeline cuts a prompt without saying so anywhere that counts: CLIP reads 77 tokens, and a caption of a
hundred words is 130. What was cut was paid for by the writer and never drawn.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

_LOG = logging.getLogger(__name__)

LongPrompts = Literal["cut", "chunk", "refuse"]


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Of the `prompts` that were measured so far, how many were `long`, and the `longest` in tokens."""

    prompts: int = 0
    long: int = 0
    longest: int = 0


class Reader:
    """What a pipeline reads of a prompt: as much as the text encoder that reads most of it."""

    def __init__(self, pipeline: Any, kind: str, manner: LongPrompts) -> None:
        self._kind = kind
        self._manner = manner
        self.counted = Counted()
        self._warned = False
        self._tokenizer, self.limit = _farthest(pipeline)

    def tokens(self, prompt: str) -> int:
        """How many tokens the prompt has, special ones included."""
        return 0 if self._tokenizer is None else len(self._tokenizer(prompt)["input_ids"])

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """The length of each prompt; the first time that one is too long, a warning with numbers."""
        lengths = [self.tokens(prompt) for prompt in prompts]
        long = sum(length > self.limit for length in lengths)
        # Where nobody hears it, among private prompts, the warning is not spent.
        if long and not self._warned and _LOG.isEnabledFor(logging.WARNING):
            self._warned = True
            _LOG.warning(
                "%s: %d of %d prompts are longer than the %d tokens that the text encoder reads, the longest %d; they "
                "are %s (long_prompts = %r)",
                *(self._kind, long, len(prompts), self.limit, max(lengths), _DONE[self._manner], self._manner),
            )
        self.counted = Counted(
            prompts=self.counted.prompts + len(prompts),
            long=self.counted.long + long,
            longest=max([self.counted.longest, *lengths]),
        )
        return lengths

    def chunks(self, prompt: str) -> list[str]:
        """The prompt in pieces that the encoder reads whole, split between words where a word fits."""
        pieces: list[str] = []
        words = prompt.split()
        while words:
            count = self._most([" ".join(words[: count + 1]) for count in range(min(len(words), self.limit))])
            if count:
                pieces.append(" ".join(words[:count]))
                words = words[count:]
                continue
            # A word that does not fit is split between letters.
            word = words[0]
            letters = self._most([word[: count + 1] for count in range(len(word))]) or 1
            pieces.append(word[:letters])
            words = [word[letters:], *words[1:]] if word[letters:] else words[1:]
        return pieces or [prompt]

    def _most(self, beginnings: Sequence[str]) -> int:
        """How many of these beginnings, each longer than the one before, the encoder reads whole; by bisection."""
        low, high = 0, len(beginnings)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.tokens(beginnings[middle - 1]) <= self.limit else (low, middle - 1)
        return low


_DONE = {"cut": "cut there", "chunk": "read in chunks", "refuse": "refused"}


def chunk_encoded(pipeline: Any, rows: Sequence[Sequence[str]], negative: str) -> dict[str, Any]:
    """The pipeline's inputs for prompts of equally many chunks: the chunks' embeddings, one after the other."""
    import torch

    encoded = [
        _encode(pipeline, prompt=[row[place] for row in rows], negative_prompt=[negative] * len(rows))
        for place in range(len(rows[0]))
    ]
    embeds = {
        "prompt_embeds": torch.cat([each[0] for each in encoded], dim=1),
        "negative_prompt_embeds": torch.cat([each[1] for each in encoded], dim=1),
    }
    if len(encoded[0]) == 4:
        # The pooled embedding is of the whole image: that of the first chunk, which says what the caption is about.
        embeds |= {"pooled_prompt_embeds": encoded[0][2], "negative_pooled_prompt_embeds": encoded[0][3]}
    return embeds


def can_chunk(pipeline: Any) -> bool:
    """Whether the pipeline's images attend to embeddings of any length: the UNets of Stable Diffusion and SDXL."""
    takes = inspect.signature(type(pipeline).__call__).parameters
    return "unet" in pipeline.components and {"prompt_embeds", "negative_prompt_embeds"} <= set(takes)


def _encode(pipeline: Any, **words: Any) -> tuple[Any, ...]:
    settings = {
        "device": pipeline._execution_device,
        "num_images_per_prompt": 1,
        "do_classifier_free_guidance": True,
    }
    return pipeline.encode_prompt(**words, **settings)


def _farthest(pipeline: Any) -> tuple[Any, int]:
    """The tokenizer whose encoder reads most, and how many tokens that is."""
    parameters = inspect.signature(type(pipeline).__call__).parameters
    own = parameters["max_sequence_length"].default if "max_sequence_length" in parameters else None
    found = [
        (int(tokenizer.model_max_length), tokenizer)
        for name, tokenizer in sorted(pipeline.components.items())
        if name.startswith("tokenizer") and tokenizer is not None
    ]
    if not found:
        return None, 0
    # CLIP's window is its tokenizer's; a T5's tokenizer knows no limit, and its pipeline sets one.
    read = [(limit if limit <= 77 or own is None else min(limit, int(own)), tokenizer) for limit, tokenizer in found]
    limit, tokenizer = max(read, key=lambda pair: pair[0])
    return tokenizer, limit
