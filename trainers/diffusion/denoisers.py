"""From a network to a denoiser: how its input, its output and its noise are scaled, and at which levels it is trained.

D(x; sigma) = c_skip x + c_out F(c_in x, c_noise, label), equation 7 of Karras et al. (2022, 2206.00364), with the scalings of
that paper (EDM), of Salimans and Ho (2022, 2202.00512; v-prediction), and of Song et al. (2021; VP and VE) as table 1 of Karras
et al. gives them. Images lie in [-1, 1] and `sigma` is the standard deviation of the noise on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

SIGMA_DATA = math.sqrt(1 / 3)
"""The standard deviation of pixels that are uniform in [-1, 1]."""

Kind = Literal["edm", "v", "vp", "ve"]


class Parametrisation(Protocol):
    """Public and fixed: functions of the level alone, elementwise."""

    def scalings(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """c_skip, c_out, c_in, c_noise."""
        ...

    def weight(self, sigma: Tensor) -> Tensor:
        """The weight of the squared error of D in the loss."""
        ...

    def level(self, quantile: Tensor) -> Tensor:
        """The level below which a share `quantile` in (0, 1) of the training levels lies; increasing."""
        ...

    def quantile(self, sigma: Tensor) -> Tensor:
        """The inverse of `level`."""
        ...


def parametrisation(kind: Kind) -> Parametrisation:
    """The one of that name, with the constants of its paper."""
    if kind not in _KINDS:
        raise ValueError(f"parametrisation {kind!r} is not one of {', '.join(_KINDS)}")
    return _KINDS[kind]()


def denoise(
    net: Callable[[Tensor, Tensor, Tensor], Tensor], scheme: Parametrisation, x: Tensor, sigma: Tensor, labels: Tensor
) -> Tensor:
    """D(x; sigma) for x (b, c, h, w), sigma (b,), labels (b,)."""
    skip, out, into, noise = scheme.scalings(sigma)
    found = net(_beside(into, x) * x, noise, labels)
    return _beside(skip, x) * x + _beside(out, x) * found


@dataclass(frozen=True, kw_only=True)
class EDM:
    """Karras et al. (2022): ln sigma is normal with `mean` and `spread`."""

    sigma_data: float = SIGMA_DATA
    mean: float = -1.2
    spread: float = 1.2

    def scalings(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        total = sigma**2 + self.sigma_data**2
        return (
            self.sigma_data**2 / total,
            sigma * self.sigma_data * total.rsqrt(),
            total.rsqrt(),
            sigma.log() / 4,
        )

    def weight(self, sigma: Tensor) -> Tensor:
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2

    def level(self, quantile: Tensor) -> Tensor:
        return torch.exp(self.mean + self.spread * torch.special.ndtri(quantile))

    def quantile(self, sigma: Tensor) -> Tensor:
        return torch.special.ndtr((sigma.log() - self.mean) / self.spread)


@dataclass(frozen=True, kw_only=True)
class VPrediction:
    """Salimans and Ho (2022): time is uniform between the angles of the two log signal-to-noise ratios."""

    least: float = -9.0
    most: float = 13.0

    def scalings(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        signal = (sigma**2 + 1).rsqrt()
        return signal**2, sigma * signal, signal, torch.acos(signal) * (2 / math.pi)

    def weight(self, sigma: Tensor) -> Tensor:
        return (sigma**2 + 1) / sigma**2

    def level(self, quantile: Tensor) -> Tensor:
        first, last = self._time(self.most), self._time(self.least)
        return torch.tan((first + quantile * (last - first)) * (math.pi / 2))

    def quantile(self, sigma: Tensor) -> Tensor:
        first, last = self._time(self.most), self._time(self.least)
        return (torch.atan(sigma) * (2 / math.pi) - first) / (last - first)

    @staticmethod
    def _time(log_ratio: float) -> float:
        return 2 / math.pi * math.acos(1 / math.sqrt(1 + math.exp(-log_ratio)))


@dataclass(frozen=True, kw_only=True)
class VP:
    """Variance preserving, Song et al. (2021): noise grows linearly from `start` by `growth` over time uniform in (first, 1)."""

    growth: float = 19.9
    start: float = 0.1
    first: float = 1e-5
    steps: int = 1000

    def scalings(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return torch.ones_like(sigma), -sigma, (sigma**2 + 1).rsqrt(), (self.steps - 1) * self._time(sigma)

    def weight(self, sigma: Tensor) -> Tensor:
        return 1 / sigma**2

    def level(self, quantile: Tensor) -> Tensor:
        time = self.first + quantile * (1 - self.first)
        return torch.expm1(self.growth * time**2 / 2 + self.start * time).sqrt()

    def quantile(self, sigma: Tensor) -> Tensor:
        return (self._time(sigma) - self.first) / (1 - self.first)

    def _time(self, sigma: Tensor) -> Tensor:
        # The root of growth t^2 / 2 + start t = ln(1 + sigma^2), in the form without cancellation.
        risen = torch.log1p(sigma**2)
        return 2 * risen / ((self.start**2 + 2 * self.growth * risen).sqrt() + self.start)


@dataclass(frozen=True, kw_only=True)
class VE:
    """Variance exploding, Song et al. (2021): ln sigma is uniform."""

    least: float = 0.02
    most: float = 100.0

    def scalings(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return torch.ones_like(sigma), sigma, torch.ones_like(sigma), (sigma / 2).log()

    def weight(self, sigma: Tensor) -> Tensor:
        return 1 / sigma**2

    def level(self, quantile: Tensor) -> Tensor:
        return self.least * (self.most / self.least) ** quantile

    def quantile(self, sigma: Tensor) -> Tensor:
        return (sigma / self.least).log() / math.log(self.most / self.least)


_KINDS: dict[str, Callable[[], Parametrisation]] = {"edm": EDM, "v": VPrediction, "vp": VP, "ve": VE}


def _beside(level: Tensor, x: Tensor) -> Tensor:
    return level.reshape(-1, *[1] * (x.dim() - 1))
