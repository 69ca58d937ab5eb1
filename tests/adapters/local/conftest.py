"""Tiny models, made once, when first asked for; and what the tests of this folder share."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import WORDS, make

from privolve.adapters.contract import Image, Message, TextRequest

pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a tiny model, by its maker's name; each is made once."""
    folders: dict[str, Path] = {}

    def folder(name: str) -> str:
        if name not in folders:
            folders[name] = make(name, tmp_path_factory.mktemp(name))
        return str(folders[name])

    return folder


def noise(count: int, shape: tuple[int, int, int] = (20, 24, 3), seed: int = 0) -> list[Image]:
    rng = np.random.default_rng(seed)
    return [Image(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(count)]


def ask(content: str, draw: int = 0, **options: Any) -> TextRequest:
    return TextRequest(messages=(Message(role="user", content=content),), draw=draw, **options)


def same(some: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether replies are equal, to the last bit."""

    def bits(reply: Any) -> Any:
        if isinstance(reply, Image):
            return reply.pixels.tobytes(), reply.pixels.shape, reply.recipe
        return reply.tobytes() if isinstance(reply, np.ndarray) else reply

    return [bits(reply) for reply in some] == [bits(reply) for reply in others]


@pytest.fixture(scope="session")
def tools() -> Any:
    """What the tests of this folder share: importlib mode has no modules beside a test to import from."""
    from types import SimpleNamespace

    return SimpleNamespace(noise=noise, ask=ask, same=same, words=WORDS)
