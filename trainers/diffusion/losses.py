"""The denoising loss of a record, and the public randomness that it is computed with.

Karras et al. (2022), equation 8, averaged over K noise draws a record *before* anything is clipped (DPDM, Dockhorn et al.
2023, section 3.2): the mean costs no privacy and takes away most of the variance.

Formal guarantee: levels, noise, label dropout and augmentation of a record are a function of (seed, step, slot) alone, so
that a record that leaves changes nothing for the others. One label dropout for all K draws: they are one record.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import index
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..gradients import Batch, Net
from .denoisers import EDM, Parametrisation, denoise
from .samplers import to_unit

Augmentation = Literal["none", "shift", "flip-shift"]
Encode = Callable[[np.ndarray], np.ndarray]
Rows = Callable[[np.ndarray, np.ndarray, np.ndarray, int], Batch]


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Where the levels of noise come from: the parametrisation's own distribution, cut or biased.

    `least` and `most` keep levels within them. `bias` has (from, to, share) in quantiles of the distribution so cut: the biased
    timesteps of Ghalebikesabi et al. (2023, 2302.13861), a mixture of uniform pieces. The loss is not weighted back.
    """

    least: float = 0.0
    most: float = math.inf
    bias: tuple[tuple[float, float, float], ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.least < self.most:
            raise ValueError(f"levels lie between least and most, not in [{self.least}, {self.most}]")
        if any(not (0 <= start < end <= 1 and share >= 0) for start, end, share in self.bias):
            raise ValueError(
                f"a piece of bias is (from, to, share) with 0 <= from < to <= 1 and share >= 0: {self.bias}"
            )
        if self.bias and not math.isclose(sum(share for _, _, share in self.bias), 1, abs_tol=1e-6):
            raise ValueError(f"the shares of bias add up to 1, not {sum(share for _, _, share in self.bias)}")

    def drawn(self, uniform: np.ndarray, scheme: Parametrisation) -> Tensor:
        """Levels of the shape of `uniform`, which lies in [0, 1)."""
        place = uniform if not self.bias else self._biased(uniform)
        ends = torch.tensor([max(self.least, 1e-12), min(self.most, 1e12)], dtype=torch.float64)
        low, high = scheme.quantile(ends).clamp(0, 1).tolist()
        inside = np.clip(low + place * (high - low), 1e-9, 1 - 1e-9)
        return scheme.level(torch.from_numpy(inside)).float()

    def _biased(self, uniform: np.ndarray) -> np.ndarray:
        starts, ends, shares = (np.asarray(column) for column in zip(*self.bias, strict=True))
        upto = np.concatenate([[0.0], np.cumsum(shares)])
        piece = np.clip(np.searchsorted(upto, uniform, side="right") - 1, 0, len(shares) - 1)
        within = (uniform - upto[piece]) / np.maximum(shares[piece], 1e-12)
        return starts[piece] + np.clip(within, 0, 1) * (ends[piece] - starts[piece])


@dataclass(frozen=True, kw_only=True)
class DiffusionLoss:
    """The loss of images with labels in [0, `classes`); the label `classes` is null, and so is every negative one.

    With probability `label_dropout` a record has the null label in a step: that trains what guidance needs. `conditional`
    false trains the null label alone. `augmentation` gives each of the K draws an augmentation of its own.
    """

    classes: int
    scheme: Parametrisation = field(default_factory=EDM)
    multiplicity: int = 1
    label_dropout: float = 0.1
    conditional: bool = True
    levels: Levels = field(default_factory=Levels)
    augmentation: Augmentation = "none"
    largest_shift: int = 4

    def __post_init__(self) -> None:
        if self.multiplicity < 1 or not 0 <= self.label_dropout <= 1 or self.largest_shift < 0:
            raise ValueError(
                f"multiplicity {self.multiplicity} must be at least 1, label_dropout {self.label_dropout} in [0, 1] and "
                f"largest_shift {self.largest_shift} not negative"
            )

    def rows(self, seed: int, *, encode: Encode | None = None) -> Rows:
        """Pixels uint8 (b, h, w, c), labels (b,), slots (b,), step -> the batch of `losses`.

        `image` float32 (b, c, h, w) in [-1, 1], with augmentation (b, K, c, h, w); `label` int64 (b,); `level` (b, K); `noise`
        (b, K, c, h, w). `encode` gives float32 (b, c, h, w) instead of [-1, 1], each row from its own image alone: latents.
        """
        if encode is not None and self.augmentation != "none":
            raise ValueError("latents are not shifted or flipped; set augmentation = 'none'")

        def rows(pixels: np.ndarray, labels: np.ndarray, slots: np.ndarray, step: int) -> Batch:
            images = (encode or to_unit)(pixels)
            count = len(images)
            chances = np.empty((count, 1 + 4 * self.multiplicity))
            noise = np.empty((count, self.multiplicity, *images.shape[1:]), dtype=np.float32)
            for row, generator in enumerate(_generators(seed, step, slots)):
                generator.random(out=chances[row])
                generator.standard_normal(out=noise[row], dtype=np.float32)
            draws = chances[:, 1:].reshape(count, 4, self.multiplicity)
            known = self.conditional & (labels >= 0) & (labels < self.classes) & (chances[:, 0] >= self.label_dropout)
            return {
                "image": torch.from_numpy(np.ascontiguousarray(self._augmented(images, draws[:, 1:]))),
                "label": torch.from_numpy(np.where(known, labels, self.classes).astype(np.int64)),
                "level": self.levels.drawn(draws[:, 0], self.scheme),
                "noise": torch.from_numpy(noise),
            }

        return rows

    def losses(self, net: Net, batch: Batch) -> Tensor:
        """The loss of each record (b,), the mean over its draws, channels and pixels."""
        noise, level, image = batch["noise"], batch["level"], batch["image"]
        count, draws = level.shape
        if image.dim() == noise.dim() - 1:
            image = image.unsqueeze(1)
        sigma = level.reshape(-1)
        clean = image.expand_as(noise).reshape(-1, *noise.shape[2:])
        noisy = clean + sigma.reshape(-1, 1, 1, 1) * noise.reshape(clean.shape)
        labels = batch["label"].unsqueeze(1).expand(count, draws).reshape(-1)
        error = (denoise(net, self.scheme, noisy, sigma, labels) - clean).float() ** 2
        return (self.scheme.weight(sigma) * error.mean(dim=(1, 2, 3))).reshape(count, draws).mean(dim=1)

    def _augmented(self, images: np.ndarray, chances: np.ndarray) -> np.ndarray:
        """Each draw shifted, and flipped with probability one half: `chances` (b, 3, K) decide. Edges are repeated."""
        if self.augmentation == "none":
            return images
        by = self.largest_shift
        height, width = images.shape[2:]
        padded = np.pad(images, [(0, 0), (0, 0), (by, by), (by, by)], mode="edge")
        down, right = (np.minimum((chances[:, at] * (2 * by + 1)).astype(np.int64), 2 * by) for at in (0, 1))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
        record = np.arange(len(images))[:, None]
        moved = windows.transpose(0, 2, 3, 1, 4, 5)[record, down, right]
        if self.augmentation == "flip-shift":
            flip = (chances[:, 2] < 0.5)[..., None, None, None]
            moved = np.where(flip, moved[..., ::-1], moved)
        return moved


def public_batch(loss: DiffusionLoss, *, records: int, channels: int, height: int, width: int, seed: int = 0) -> Batch:
    """Random input of the shapes of training, for self-checks, timing and the search for a chunk that fits."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 256, (records, height, width, channels), dtype=np.uint8)
    labels = draw.integers(0, max(loss.classes, 1), records)
    return loss.rows(seed)(pixels, labels, np.arange(records), 0)


def _generators(seed: int, step: int, slots: np.ndarray) -> Iterator[np.random.Generator]:
    """A generator for each slot: Philox, whose key is (seed, step) and whose counter starts at the slot's own stretch."""
    place = json.dumps([index(seed), index(step)]).encode()
    digest = hashlib.sha256(b"privolve diffusion rows 1\0" + place).digest()
    philox = np.random.Philox(key=np.frombuffer(digest[:16], dtype=np.uint64))
    generator = np.random.Generator(philox)
    state = philox.state
    for slot in slots.tolist():
        state["state"]["counter"] = np.array([0, 0, slot % 2**64, 0], dtype=np.uint64)
        state["buffer_pos"], state["has_uint32"] = 4, 0
        philox.state = state
        yield generator
