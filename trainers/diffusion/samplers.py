"""Images from noise: Heun and its stochastic variant (Karras et al. 2022, algorithms 1 and 2), DDIM, ancestral, SDEdit.

Image i is a function of the weights, its label, the seed and i alone, or, where each image has a seed of its own, of that seed
instead. Another batch size, device or number of threads may move float32 sums in their last bits, and so a pixel by 1 of 255, as
rounding falls.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from operator import index

import numpy as np
import torch
from torch import Tensor, nn

from .denoisers import Parametrisation, denoise
from .sampling import SamplerConfig, Seed

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""D(x, sigma) for x (b, c, h, w) and one level for all."""

Fresh = Callable[[], Tensor]
"""Standard normal noise of the shape of the batch, each image's from its own stream."""

Progress = Callable[[int, int], None]
"""Told (images done, images in all)."""


def sample(
    net: nn.Module,
    scheme: Parametrisation,
    labels: np.ndarray,
    sampler: SamplerConfig,
    *,
    shape: tuple[int, int, int],
    null: int,
    seed: Seed,
    start: np.ndarray | None = None,
    device: str = "cpu",
    batch: int = 256,
    progress: Progress | None = None,
) -> np.ndarray:
    """uint8 (n, h, w, c), one image a label, for `shape` (c, h, w). `null` is the network's null label.

    `start`, uint8 (n, h, w, c), has each image begin as a given one with noise of `sampler.most` on it (SDEdit, Meng et al. 2022):
    a variation, the farther from it the higher that level.
    """
    first = None if start is None else torch.from_numpy(to_unit(start))
    drawn = draw(
        net,
        scheme,
        labels,
        sampler,
        shape=shape,
        null=null,
        seed=seed,
        start=first,
        device=device,
        batch=batch,
        progress=progress,
    )
    return to_pixels(drawn)


def draw(
    net: nn.Module,
    scheme: Parametrisation,
    labels: np.ndarray,
    sampler: SamplerConfig,
    *,
    shape: tuple[int, int, int],
    null: int,
    seed: Seed,
    start: Tensor | None = None,
    device: str = "cpu",
    batch: int = 256,
    progress: Progress | None = None,
) -> Tensor:
    """As `sample`, before rounding: float32 (n, c, h, w) on the CPU, about [-1, 1] for images."""
    if batch < 1:
        raise ValueError(f"a batch of images has at least 1, not {batch}")
    if start is not None and tuple(start.shape) != (len(labels), *shape):
        raise ValueError(f"start has the shape {tuple(start.shape)}; {(len(labels), *shape)} is one image a label")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) <= null:
        raise ValueError(f"labels of images lie in 0 to {null}, not in {labels.min()} to {labels.max()}")
    if isinstance(seed, Sequence) and len(seed) != len(labels):
        raise ValueError(f"there are {len(seed)} seeds for {len(labels)} images; give one for all, or one for each")
    drawn = torch.empty((len(labels), *shape))
    walk = _WALKS[sampler.kind]
    with _quiet(net):
        for begin in range(0, len(labels), batch):
            part = slice(begin, min(begin + batch, len(labels)))
            wanted = torch.from_numpy(np.array(labels[part], dtype=np.int64)).to(device)
            fresh = _streams(seed, range(part.start, part.stop), shape, device)
            x = fresh() * sampler.most
            if start is not None:
                x = x + start[part].to(device)
            drawn[part] = walk(_guided(net, scheme, wanted, null, sampler.guidance), x, sampler, fresh).cpu()
            if progress is not None:
                progress(part.stop, len(labels))
    return drawn


def to_unit(pixels: np.ndarray) -> np.ndarray:
    """uint8 (n, h, w, c) as float32 (n, c, h, w) in [-1, 1]."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)


def to_pixels(images: Tensor) -> np.ndarray:
    """float (n, c, h, w) about [-1, 1] as uint8 (n, h, w, c); what is outside is cut off, what is not a number is black."""
    scaled = ((images.float() + 1) * 127.5).nan_to_num(0.0).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def levels(sampler: SamplerConfig) -> list[float]:
    """The levels of a walk, `steps` of them falling from `most` to `least`, and 0. Karras et al. (2022), equation 5."""
    top, bottom = sampler.most ** (1 / sampler.rho), sampler.least ** (1 / sampler.rho)
    last = max(sampler.steps - 1, 1)
    return [(top + step / last * (bottom - top)) ** sampler.rho for step in range(sampler.steps)] + [0.0]


# ---- the walks -------------------------------------------------------------------------------------------------------


def _heun(denoiser: Denoiser, x: Tensor, sampler: SamplerConfig, fresh: Fresh) -> Tensor:
    """Algorithm 1 of Karras et al. (2022)."""
    return _second_order(denoiser, x, sampler, fresh, churn=0.0)


def _edm(denoiser: Denoiser, x: Tensor, sampler: SamplerConfig, fresh: Fresh) -> Tensor:
    """Algorithm 2 of Karras et al. (2022)."""
    return _second_order(denoiser, x, sampler, fresh, churn=sampler.churn)


def _second_order(denoiser: Denoiser, x: Tensor, sampler: SamplerConfig, fresh: Fresh, *, churn: float) -> Tensor:
    grid = levels(sampler)
    for level, following in pairwise(grid):
        if churn and sampler.churn_least <= level <= sampler.churn_most:
            raised = level * (1 + min(churn / sampler.steps, 2**0.5 - 1))
            x = x + (raised**2 - level**2) ** 0.5 * sampler.churn_noise * fresh()
            level = raised
        slope = (x - denoiser(x, _one(x, level))) / level
        guess = x + (following - level) * slope
        if following:
            second = (guess - denoiser(guess, _one(x, following))) / following
            guess = x + (following - level) * (slope + second) / 2
        x = guess
    return x


def _ddim(denoiser: Denoiser, x: Tensor, sampler: SamplerConfig, fresh: Fresh) -> Tensor:
    """Song et al. (2021, 2010.02502) in terms of sigma: Euler steps, the last of which gives the denoised image."""
    grid = levels(sampler)
    for level, following in pairwise(grid):
        x = x + (following - level) * (x - denoiser(x, _one(x, level))) / level
    return x


def _ancestral(denoiser: Denoiser, x: Tensor, sampler: SamplerConfig, fresh: Fresh) -> Tensor:
    """Each step goes below its level and comes back with fresh noise: DDIM with eta 1."""
    grid = levels(sampler)
    for level, following in pairwise(grid):
        noise = following * (1 - (following / level) ** 2) ** 0.5
        below = (following**2 - noise**2) ** 0.5
        x = x + (below - level) * (x - denoiser(x, _one(x, level))) / level
        if noise:
            x = x + noise * fresh()
    return x


_WALKS = {"heun": _heun, "edm": _edm, "ddim": _ddim, "ancestral": _ancestral}


def _guided(net: nn.Module, scheme: Parametrisation, labels: Tensor, null: int, guidance: float) -> Denoiser:
    def plain(x: Tensor, sigma: Tensor) -> Tensor:
        return denoise(net, scheme, x, sigma, labels)

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        both = torch.cat([labels, torch.full_like(labels, null)])
        found = denoise(net, scheme, torch.cat([x, x]), torch.cat([sigma, sigma]), both)
        conditional, free = found.chunk(2)
        return (1 + guidance) * conditional - guidance * free

    return guided if guidance else plain


def _one(x: Tensor, level: float) -> Tensor:
    return torch.full((len(x),), level, device=x.device, dtype=x.dtype)


def _streams(seed: Seed, images: range, shape: tuple[int, int, int], device: str) -> Fresh:
    """Noise for the images of these numbers: Philox keyed by the seed, a stretch of its own for each image."""
    if isinstance(seed, Sequence):
        streams = [_stream(_key(seed[image]), 0) for image in images]
    else:
        key = _key(seed)
        streams = [_stream(key, image) for image in images]

    def fresh() -> Tensor:
        noise = np.empty((len(streams), *shape), dtype=np.float32)
        for row, stream in enumerate(streams):
            stream.standard_normal(out=noise[row], dtype=np.float32)
        return torch.from_numpy(noise).to(device)

    return fresh


def _key(seed: int) -> np.ndarray:
    digest = hashlib.sha256(b"privolve diffusion samples 1\0" + json.dumps([index(seed)]).encode()).digest()
    return np.frombuffer(digest[:16], dtype=np.uint64)


def _stream(key: np.ndarray, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, number, 0], dtype=np.uint64)))


@contextmanager
def _quiet(net: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients; as before afterwards."""
    training = net.training
    net.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        net.train(training)
