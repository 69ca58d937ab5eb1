"""`inception`: the 2048 features of InceptionV3 with the weights of FID, by torch-fidelity's network.

torch-fidelity imports torchvision when it is imported, and torchvision breaks transformers wherever it does not match
torch. Only the network is wanted, and its module needs neither: so it is imported without the package's own `__init__`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, PositiveInt

from ..contract import AdapterUnavailable, EmbedRequest, Image, Location, Refusal
from .batches import Batches
from .model import LocalConfig, identity_of, opening, placed
from .pixels import picture

_FILE = "weights-inception-2015-12-05-6726825d.pth"
_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_ADDRESS = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{_FILE}"


class InceptionConfig(LocalConfig):
    """Which weights, and how images reach them.

    weights     the file of weights: torch-fidelity's, converted from the original of FID; where torch keeps downloads
                if not given
    sha256      what the file's SHA-256 begins with; by default all of that of the original weights
    download    fetch the original weights if they are not there
    size        (width, height) to which images are resized first, bicubic; then all go to 299 x 299 as in the original
    """

    answers: ClassVar[tuple[type, ...]] = (EmbedRequest,)
    knows_classes: ClassVar[bool] = True
    cannot_change_replies: ClassVar[frozenset[str]] = LocalConfig.cannot_change_replies | {
        "weights",
        "sha256",
        "download",
    }

    kind: str = Field(default="inception", pattern="^inception$")
    weights: Path | None = None
    sha256: str = Field(default=_SHA256, pattern="^[0-9a-f]{8,64}$")
    download: bool = False
    size: tuple[PositiveInt, PositiveInt] | None = None

    def open(self) -> Inception:
        if importlib.util.find_spec("torch_fidelity") is None:
            raise AdapterUnavailable(
                f"{self.kind} needs torch-fidelity: pip install --no-deps torch-fidelity (its torchvision is not used)"
            )
        with opening(self.kind, "torch"):
            return Inception(self)


class Inception:
    """float32 of 2048 numbers; grey images are read as colour."""

    location = Location.LOCAL

    def __init__(self, config: InceptionConfig) -> None:
        weights = _checked(config)
        placement = placed(config, accelerated="float32")
        self.config = config
        self._placement = placement
        self._network = _network(weights).to(placement.device)
        self._batches = Batches(config.batch_size or (4 if placement.is_cpu else 64), kind=config.kind, full=True)
        fingerprint = f"sha256-{hashlib.sha256(weights).hexdigest()[:32]}"
        self.identity = identity_of("inception-v3-fid", fingerprint, placement, ("torch", "torch-fidelity"))
        if not placement.is_cpu:
            self._batches.fit(np.zeros((3, 299, 299), dtype=np.uint8), self._vectors)

    @property
    def batch_size(self) -> int:
        """Requests at once, as far as memory has shown."""
        return self._batches.size

    def send(self, requests: Sequence[EmbedRequest], /) -> list[np.ndarray | Refusal]:
        contents = [request.content for request in requests]
        arrays = [self._array(content) for content in contents if isinstance(content, Image)]
        vectors = iter(self._batches.run(arrays, self._vectors, shape=lambda array: array.shape))
        return [next(vectors) if isinstance(content, Image) else _NO_IMAGE for content in contents]

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Of its 1,008 classes, from its features and without the bias, as the Inception Score is computed (torch-fidelity)."""
        weights = self._network.fc.weight.detach().float().cpu().numpy().astype(np.float64)
        logits = features.astype(np.float64) @ weights.T
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)

    def _array(self, image: Image) -> np.ndarray:
        return np.asarray(picture(image, self.config.size)).transpose(2, 0, 1)

    def _vectors(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        import torch

        pixels = torch.from_numpy(np.stack(arrays)).to(self._placement.device)
        with torch.inference_mode():
            return list(self._network(pixels)[0].float().cpu().numpy())


_NO_IMAGE = Refusal("inception reads images, not text")


def _checked(config: InceptionConfig) -> bytes:
    """The file of weights, if it is the right one."""
    import torch

    path = config.weights or Path(torch.hub.get_dir(), "checkpoints", _FILE)
    path = path.expanduser()
    if not path.is_file():
        if not config.download or config.weights is not None:
            raise AdapterUnavailable(
                f"{config.kind}: there is no file of weights {str(path)!r}; set `weights`, or download = true"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(_ADDRESS, str(path), hash_prefix=config.sha256, progress=False)
        except (OSError, RuntimeError) as error:
            raise AdapterUnavailable(
                f"{config.kind}: {_ADDRESS} cannot be fetched ({error}); fetch it yourself and set `weights`"
            ) from None
    weights = path.read_bytes()
    found = hashlib.sha256(weights).hexdigest()
    if not found.startswith(config.sha256):
        raise AdapterUnavailable(
            f"{config.kind}: {str(path)!r} is not the file that is meant: its SHA-256 is {found[:16]}..., not "
            f"{config.sha256}; get the original, or set `sha256` to what you trust"
        )
    return weights


def _without_init(package: str, module: str) -> Any:
    """A module of a package whose `__init__` is not run."""
    whole = sys.modules.get(package)
    if whole is None:
        found = importlib.util.find_spec(package)
        bare = types.ModuleType(package)
        bare.__path__ = list(found.submodule_search_locations or []) if found else []
        sys.modules[package] = bare
    try:
        return importlib.import_module(f"{package}.{module}")
    finally:
        if whole is None:
            del sys.modules[package]


def _network(weights: bytes) -> Any:
    import torch

    network = _without_init("torch_fidelity", "feature_extractor_inceptionv3")
    # It reads pickles of any kind, so it gets one that holds nothing but tensors.
    tensors = io.BytesIO()
    torch.save(torch.load(io.BytesIO(weights), weights_only=True, map_location="cpu"), tensors)
    tensors.seek(0)
    return network.FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=tensors).eval()
