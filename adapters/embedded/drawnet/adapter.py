"""`drawnet` as an adapter: the weights that ship with the project, checked against their card, and read without torch."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field
from threadpoolctl import ThreadpoolController

from ...contract import (
    AdapterConfig,
    AdapterUnavailable,
    EmbedRequest,
    Image,
    Location,
    ModelIdentity,
    Refusal,
)
from .network import Network, fitted

FOLDER = Path(__file__).parent
REVISION = 1
"""Raised whenever equal weights give other features."""


class DrawnetConfig(AdapterConfig):
    """No settings: one network, one feature space, so that figures of different runs can be compared."""

    answers: ClassVar[tuple[type, ...]] = (EmbedRequest,)
    location: ClassVar[Location] = Location.LOCAL
    cheap: ClassVar[bool] = True
    knows_classes: ClassVar[bool] = True

    kind: str = Field(default="drawnet", pattern="^drawnet$")

    def open(self) -> Drawnet:
        return Drawnet()


class Drawnet:
    """float32 of 128 numbers >= 0; images of any size are brought to 32 x 32, and grey ones are read as colour."""

    location = Location.LOCAL

    def __init__(self, folder: Path = FOLDER) -> None:
        self._network, digest = opened(folder)
        self._threads = ThreadpoolController()  # It walks through all libraries: once, not with each request.
        self.identity = ModelIdentity(provider="privolve", model="drawnet", revision=f"{REVISION}-sha256-{digest[:32]}")

    def send(self, requests: Sequence[EmbedRequest], /) -> list[np.ndarray | Refusal]:
        contents = [request.content for request in requests]
        images = [fitted(content.pixels) for content in contents if isinstance(content, Image)]
        if not images:
            return [_NO_IMAGE for _ in contents]
        # Products this small are slower on several threads, and one thread gives the same bits anywhere.
        with self._threads.limit(limits=1, user_api="blas"):
            rows = iter(self._network.features(np.stack(images)))
        return [next(rows).copy() if isinstance(content, Image) else _NO_IMAGE for content in contents]

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Of the classes of generated pictures that it was trained on, from its features (n, 128)."""
        return self._network.probabilities(features)


_NO_IMAGE = Refusal("drawnet reads images, not text")


@cache
def opened(folder: Path) -> tuple[Network, str]:
    """The network in `weights.npz` and its SHA-256, which has to be what `card.json` says."""
    try:
        content = (folder / "weights.npz").read_bytes()
        meant = json.loads((folder / "card.json").read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise AdapterUnavailable(
            f"drawnet: its weights cannot be read ({error}); install privolve again, or train them anew"
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != meant:
        raise AdapterUnavailable(
            f"drawnet: {str(folder / 'weights.npz')!r} is not what its card says: its SHA-256 is {found[:16]}..., not "
            f"{str(meant)[:16]}...; install privolve again"
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return Network.of(dict(arrays)), found
