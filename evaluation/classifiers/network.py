"""Training and asking a neural network: one loop for every architecture, the last epoch always, deterministic on a CPU.

What differs from DPImageBench (Gong et al., 2025), whose recipes the `paper` profile follows: the last epoch is reported,
not the best one by accuracy on real images; no moving average of the weights, because theirs keeps the batch statistics of
other weights than it tests; the seed is given and varied, and the classes are declared instead of counted.
"""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...privacy.randomness import PublicRng
from ..metric import Items, MetricError
from .logistic import spread
from .pictures import labels_of, pictures, unit_interval

if TYPE_CHECKING:
    import torch

FEWEST_IMAGES = 16
"""Fewer images than this train no network."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and with which steps a network is trained. Exactly one of `epochs` and `updates` is given.

    With `drop_every` epochs the learning rate falls by `drop_factor` in steps; without, it rises over the first tenth of the
    updates and then falls to zero on a cosine. A batch of images larger than 32 (64) pixels is split into `pieces[0]`
    (`pieces[1]`) parts, each normalised by its own statistics.
    """

    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    batch: int
    epochs: int | None = None
    updates: int | None = None
    drop_every: int | None = None
    drop_factor: float = 0.2
    pieces: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.updates is None):
            raise ValueError("a recipe has either epochs or updates")

    def length(self, images: int) -> int:
        """How many updates there are in all."""
        return self.updates or (self.epochs or 0) * math.ceil(images / self.batch)

    def rate(self, update: int, images: int) -> float:
        """The learning rate of an update, as a share of the highest."""
        if self.drop_every is not None:
            return self.drop_factor ** (update // (self.drop_every * math.ceil(images / self.batch)))
        length = self.length(images)
        rising = max(length // 10, 1)
        if update < rising:
            return (update + 1) / rising
        return (1 + math.cos(math.pi * (update - rising + 1) / (length - rising + 1))) / 2

    def split(self, side: int) -> int:
        """Into how many parts a batch of images of `side` pixels is split."""
        return 1 if side <= 32 else self.pieces[0] if side <= 64 else self.pieces[1]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network by name: `module` of this package has `build(*, size, channels, classes, **options)`.

    `size` is (height, width). Images with a side below `smallest` are refused.
    """

    name: str
    module: str
    options: tuple[tuple[str, int | float], ...] = ()
    smallest: int = 1


@dataclass(frozen=True, kw_only=True)
class Network:
    """A classifier: an architecture with its recipe. Pixels are taken to [-1, 1]; nothing is augmented.

    On a CPU one thread trains it, and the figures are a function of images, classes and seed.
    """

    architecture: Architecture
    recipe: Recipe
    classes: int
    device: str = "cpu"

    @property
    def name(self) -> str:
        return self.architecture.name

    @property
    def seeded(self) -> bool:
        return True

    @property
    def identity(self) -> Mapping[str, Any]:
        return {
            "name": self.name,
            "module": self.architecture.module,
            "options": [list(option) for option in self.architecture.options],
            "recipe": {
                key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self.recipe).items()
            },
        }

    def fit(self, training: Items, *, seed: int) -> FittedNetwork:
        """Raises MetricError for images that the network cannot take, or where torch is not installed."""
        labels = labels_of(training, self.classes)
        images = pictures(training.values, training.name)
        if len(images) < FEWEST_IMAGES:
            raise MetricError(
                f"{training.name}: {len(images)} images are too few for {self.name}, which needs {FEWEST_IMAGES}"
            )
        if min(images.shape[1:3]) < self.architecture.smallest:
            raise MetricError(
                f"{training.name}: {self.name} needs images of {self.architecture.smallest} pixels or more a side, not "
                f"{images.shape[1]} x {images.shape[2]}"
            )
        torch = _torch(self.name)
        present, targets = np.unique(labels, return_inverse=True)
        public = PublicRng(seed)
        with _deterministic(torch, self.device):
            torch.manual_seed(int(public.at("classifier", self.name).integers(2**63)))
            model = self._build(images.shape[1:], len(present)).to(self.device, memory_format=torch.channels_last)
            self._train(torch, model, images, targets, public.at("classifier", self.name, "order"))
        return FittedNetwork(
            classes=self.classes, present=present, model=model.eval(), device=self.device, shape=images.shape[1:]
        )

    def _build(self, shape: tuple[int, ...], classes: int) -> Any:
        module = importlib.import_module(f".{self.architecture.module}", __package__)
        options = dict(self.architecture.options)
        return module.build(size=(shape[0], shape[1]), channels=shape[2], classes=classes, **options)

    def _train(
        self, torch: Any, model: Any, images: np.ndarray, targets: np.ndarray, order: np.random.Generator
    ) -> None:
        recipe, n = self.recipe, len(images)
        if recipe.optimizer == "adam":
            optimizer = torch.optim.Adam(
                model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, foreach=True
            )
        else:
            optimizer = torch.optim.SGD(
                model.parameters(),
                lr=recipe.learning_rate,
                momentum=recipe.momentum,
                weight_decay=recipe.weight_decay,
            )
        at_once = recipe.batch // recipe.split(max(images.shape[1:3]))
        model.train()
        for update, rows in enumerate(_batches(n, recipe, order)):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * recipe.rate(update, n)
            optimizer.zero_grad()
            for piece in (rows[start : start + at_once] for start in range(0, len(rows), at_once)):
                target = torch.from_numpy(targets[piece]).to(self.device)
                loss = torch.nn.functional.cross_entropy(model(_tensor(images[piece], self.device)), target)
                (loss * (len(piece) / len(rows))).backward()
            optimizer.step()


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedNetwork:
    """A trained network. It answers in batches of a fixed size, so that an answer does not depend on how many ask."""

    classes: int
    present: np.ndarray
    model: Any
    device: str
    shape: tuple[int, ...]

    def probabilities(self, images: np.ndarray, /) -> np.ndarray:
        torch = _torch("the network")
        images = pictures(images, "images to classify")
        if images.shape[1:] != self.shape:
            raise MetricError(f"images of {images.shape[1:]} for a classifier of images of {self.shape}; resize them")
        logits = np.zeros((len(images), len(self.present)))
        with _deterministic(torch, self.device), torch.inference_mode():
            for start in range(0, len(images), _ASKED_AT_ONCE):
                some = images[start : start + _ASKED_AT_ONCE]
                padded = np.zeros((_ASKED_AT_ONCE, *some.shape[1:]), dtype=some.dtype)
                padded[: len(some)] = some
                answered = self.model(_tensor(padded, self.device)).double().cpu().numpy()
                logits[start : start + len(some)] = answered[: len(some)]
        return spread(logits, self.present, self.classes)


_ASKED_AT_ONCE = 250


def _batches(n: int, recipe: Recipe, order: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows of each update: every epoch is a new permutation, its last batch may be smaller."""
    left = recipe.length(n)
    while left > 0:
        permutation = order.permutation(n)
        for start in range(0, n, recipe.batch)[:left]:
            yield permutation[start : start + recipe.batch]
            left -= 1


def _tensor(images: np.ndarray, device: str) -> torch.Tensor:
    """float32 (n, channels, height, width) in [-1, 1], laid out channels last as the images are."""
    import torch

    return torch.from_numpy(unit_interval(images) * np.float32(2) - np.float32(1)).permute(0, 3, 1, 2).to(device)


@contextlib.contextmanager
def _deterministic(torch: Any, device: str) -> Iterator[None]:
    """Randomness of its own, one thread, and no choice of algorithms by timing."""
    threads = torch.get_num_threads()
    devices = [torch.cuda.current_device()] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices), torch.backends.cudnn.flags(benchmark=False, deterministic=True):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _torch(name: str) -> Any:
    try:
        import torch
    except ImportError:
        raise MetricError(
            f"{name} needs torch, which is not installed: pip install 'privolve[train]', or use the profile 'logistic'"
        ) from None
    return torch
