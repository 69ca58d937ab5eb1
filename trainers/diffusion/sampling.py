"""How images are drawn, as settings without torch: which sampler, how many steps, how much guidance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field, model_validator

Seed = int | Sequence[int]
"""Of all images, each of which has a stream of its own number; or one for each image, which then has no number."""


class SamplerConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """`heun`: deterministic, second order, 2 `steps` - 1 evaluations. `ddim`: deterministic, first order. `edm`: Heun with
    churn. `ancestral`: DDIM with fresh noise in every step (eta 1).

    Levels go from `most` down to `least`, closer together towards the end by `rho`. `guidance` w gives
    (1 + w) D(label) - w D(null), and twice the evaluations; the null label must have been trained by label dropout.
    """

    kind: Literal["heun", "ddim", "edm", "ancestral"] = "heun"
    steps: int = Field(default=18, ge=1, le=10_000)
    guidance: float = Field(default=0.0, ge=0)
    least: float = Field(default=0.002, gt=0)
    most: float = Field(default=80.0, gt=0)
    rho: float = Field(default=7.0, gt=0)
    churn: float = Field(default=10.0, ge=0)
    churn_least: float = Field(default=0.05, ge=0)
    churn_most: float = Field(default=50.0, gt=0)
    churn_noise: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _levels_fall(self) -> SamplerConfig:
        if not self.least < self.most:
            raise ValueError(f"the sampler's least level ({self.least:g}) must be below its most ({self.most:g})")
        return self

    @property
    def evaluations(self) -> int:
        """Evaluations of the network for one image."""
        once = 2 * self.steps - 1 if self.kind in ("heun", "edm") else self.steps
        return once * (2 if self.guidance else 1)

    def up_to(self, degree: float) -> SamplerConfig:
        """The same walk from a lower level: at `degree` in [0, 1] of the way from `least` to `most`, as `rho` counts it."""
        if not 0 <= degree <= 1:
            raise ValueError(f"a degree of variation lies in [0, 1], not at {degree}")
        top, bottom = self.most ** (1 / self.rho), self.least ** (1 / self.rho)
        most = max((bottom + degree * (top - bottom)) ** self.rho, self.least * 1.01)
        return self.model_copy(update={"most": most})


def balanced_labels(count: int, classes: int) -> np.ndarray:
    """int64 (count,): every class equally often, up to one."""
    return np.arange(count, dtype=np.int64) % max(classes, 1)


def labels_by_share(count: int, shares: Sequence[float]) -> np.ndarray:
    """int64 (count,), by class: exactly `count` labels, whole numbers nearest to the shares, remainders to the largest."""
    weights = np.asarray(shares, dtype=np.float64)
    if weights.ndim != 1 or not len(weights) or (weights < 0).any() or not 0 < weights.sum() < np.inf:
        raise ValueError(f"shares of classes are not negative and add up to more than 0: {list(shares)}")
    wanted = count * weights / weights.sum()
    whole = np.floor(wanted).astype(np.int64)
    rest = np.argsort(-(wanted - whole), kind="stable")[: count - int(whole.sum())]
    whole[rest] += 1
    return np.repeat(np.arange(len(weights), dtype=np.int64), whole)
