"""What the tests of the engine share: noise that can be silenced, voters, and a world of numbers on a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from privolve.adapters.contract import EmbedRequest, Image, ImageRequest, ImageVariationRequest, Refusal, TextRequest
from privolve.adapters.scripted import Scripted
from privolve.data.voters import Voters
from privolve.prompts.template import Template


class Silent:
    """A secret source without noise, which remembers what it was asked. For tests alone."""

    def __init__(self) -> None:
        self.scales: list[float] = []

    def discrete_gaussian(self, counts: np.ndarray, scale: float) -> np.ndarray:
        assert counts.dtype == np.int64
        self.scales.append(scale)
        return counts.copy()

    def gaussian(self, shape: tuple[int, ...], scale: float) -> np.ndarray:
        raise AssertionError("histograms use no continuous noise")

    def mask(self, n: int, probability: float) -> np.ndarray:
        raise AssertionError("histograms are not sampled")

    def noisy_max(self, counts: np.ndarray, epsilon: float) -> int:
        raise AssertionError("histograms select nothing")


@pytest.fixture
def silent() -> Silent:
    return Silent()


@pytest.fixture
def voters() -> Callable[..., Voters]:
    def make(embeddings: Any, labels: Any = None, valid: Any = None, units: Any = None) -> Voters:
        rows = np.asarray(embeddings, dtype=np.float32)
        rows = rows[:, None] if rows.ndim == 1 else rows
        return Voters(
            embeddings=rows,
            labels=np.zeros(len(rows), dtype=np.int64) if labels is None else np.asarray(labels, dtype=np.int64),
            valid=np.ones(len(rows), dtype=np.bool_) if valid is None else np.asarray(valid, dtype=np.bool_),
            units=None if units is None else np.asarray(units, dtype=np.int64),
        )

    return make


class World:
    """Adapters for numbers on a line: a caption is a number, an image one pixel of that value.

    The writer answers "50" at first; a variation adds -1, 0 or 1 times 10 by its draw. `log` has each batch by role.
    `refuse` says which requests are refused.
    """

    def __init__(self) -> None:
        self.log: list[tuple[str, list[Any]]] = []
        self.refuse: Callable[[Any], bool] = lambda request: False
        self.writer = self._adapter("writer", self._write)
        self.painter = self._adapter("painter", self._paint)
        self.eye = self._adapter("eye", self._see)

    def _adapter(self, role: str, answer: Callable[[Any], Any]) -> Any:
        inner = Scripted(lambda request: Refusal("not this one") if self.refuse(request) else answer(request))
        world = self

        class Logged:
            location = inner.location
            identity = inner.identity

            def send(self, requests: Any, /) -> Any:
                world.log.append((role, list(requests)))
                return inner.send(requests)

        return Logged()

    def asked(self, role: str) -> list[Any]:
        return [request for name, batch in self.log if name == role for request in batch]

    @staticmethod
    def _write(request: TextRequest) -> str:
        said = request.messages[-1].content
        if "Text:" not in said:
            return "50"
        return str(int(said.rpartition("Text:")[2]) + 10 * (request.draw % 3 - 1))

    @staticmethod
    def _paint(request: ImageRequest | ImageVariationRequest) -> Image:
        if isinstance(request, ImageRequest):
            value = int(request.prompt) if request.prompt.isdigit() else 50
            return Image(np.full((1, 1, 1), value % 256, dtype=np.uint8), recipe=str(request.draw))
        value = int(request.image.pixels[0, 0, 0]) + round(10 * request.degree) * (request.draw % 3 - 1)
        return Image(np.full((1, 1, 1), np.clip(value, 0, 255), dtype=np.uint8), recipe=str(request.draw))

    @staticmethod
    def _see(request: EmbedRequest) -> np.ndarray:
        content = request.content
        value = float(content) if isinstance(content, str) else float(content.pixels[0, 0, 0])
        return np.array([value, 1], dtype=np.float32)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def templates() -> tuple[Template, Template]:
    def template(kind: str, content: str) -> Template:
        return Template(
            name=kind, digest="", provenance="test", domain="numbers", kind=kind, messages=(("user", content),)
        )

    return template("initial", "A number for {label}."), template("vary", "Another number for {label}.\nText: {sample}")
