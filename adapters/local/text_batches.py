"""Texts as batches of fixed shapes: a text is padded to a length that depends on it alone, and a batch is always full.

So the features of a private text are computed in the same shapes whatever lies beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_SHORTEST = 16

Tokens = Mapping[str, Any]
"""The tensors of one text by name, each of shape (tokens,)."""


def padded_length(text: Tokens, longest: int) -> int:
    """The next power of two, from 16 to the most that the model reads."""
    length = len(text["input_ids"])
    return min(max(_SHORTEST, 1 << (length - 1).bit_length()), max(longest, length))


def stacked(texts: Sequence[Tokens], width: int, *, pad: int, left: bool, device: torch.device) -> dict[str, Any]:
    """Texts of one padded length as one batch: `pad` fills the ids, 0 everything else."""
    import torch

    batch: dict[str, Any] = {}
    for name in texts[0]:
        rows = []
        for text in texts:
            room = width - len(text[name])
            fill = pad if name == "input_ids" else 0
            rows.append(torch.nn.functional.pad(text[name], (room, 0) if left else (0, room), value=fill))
        batch[name] = torch.stack(rows).to(device)
    return batch
