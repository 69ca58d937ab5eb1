"""What is measured: the `[evaluation]` table that runs, suites and `privolve evaluate` share."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, field_validator

if TYPE_CHECKING:
    from .metric_config import MetricConfig

Profile = Literal["logistic", "tiny", "paper", "paper-cifar"]


class Settings(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How every method is judged. Nothing of it reaches the method."""

    profile: Profile = "logistic"
    """Which classifiers are trained on the synthetic images. logistic: a regression on pixels, in a second, for accuracy alone.

    tiny: an MLP and a small CNN beside it; paper, paper-cifar: ResNet, Wide ResNet and ResNeXt as DPImageBench has them.
    These need PyTorch, and say how the worst class does and how well each is calibrated too.
    """
    metrics: tuple[str | dict[str, Any], ...] = ("frechet",)
    """Of the images' or texts' features in the network of the role `judge`, or of themselves: names that `privolve metrics` lists, or tables with settings."""
    seeds: int = Field(default=3, ge=1)
    """How many seeds a network is trained with; intervals are over them."""
    canaries: Path | None = None
    """An .npz of images like the data's: `planted`, which were put among the private records, and `references`, which were not.

    Their exposure is measured where figures on private records are shown at all. A relative path starts where privolve is
    called.
    """

    @field_validator("profile")
    @classmethod
    def _installed(cls, profile: Profile) -> Profile:
        if profile != "logistic" and find_spec("torch") is None:
            raise ValueError(
                f"{profile!r} needs PyTorch: pip install 'privolve[train]', or take profile = \"logistic\""
            )
        return profile

    @field_validator("metrics")
    @classmethod
    def _known(cls, metrics: tuple[str | dict[str, Any], ...]) -> tuple[str | dict[str, Any], ...]:
        from . import registry

        for metric in metrics:
            registry.parse(metric)
        return metrics

    def chosen(self) -> tuple[MetricConfig, ...]:
        """The metrics, in order."""
        from . import registry

        return tuple(registry.parse(metric) for metric in self.metrics)
