"""DP-FETA-Pro (Gong et al. 2026, USENIX Security, 2601.06368): central images, then mean features, then DP-SGD.

    time        pre-train on central images, as DP-FETA
    frequency   release the mean of random Fourier features of each class once, train a generator to match them, pre-train on
                its images
    then        DP-SGD on all parameters

`mode` chooses one of the two or both. Asked of the private set: central sums (`SampledGaussian(q', sigma_t, R)`), one sum of
features, which a record moves by at most 1 (`SampledGaussian(1, sigma_f)`), and the training beside both. No public data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from .course import DiffusionMethod, Profile, merged
from .dp_feta import CENTRAL

FREQUENCY: Mapping[Profile, Mapping[str, Any]] = {
    "tiny": {
        "kind": "feature-means",
        "features": 400,
        "scale": 6.0,
        "noise_multiplier": 4.0,
        "width": 16,
        "steps": 800,
        "count": 2000,
        "fit": {"steps": 500, "batch": 128, "learning_rate": 2e-3, "augmentation": "none"},
    },
    "small": {
        "kind": "feature-means",
        "features": 2000,
        "noise_multiplier": 7.4,
        "width": 16,
        "steps": 1200,
        "count": 6000,
        "fit": {"steps": 2000, "batch": 64, "learning_rate": 1e-3},
    },
    "paper": {
        "kind": "feature-means",
        "features": 10_000,
        "noise_multiplier": 7.4,
        "count": 60_000,
        "fit": {"steps": 2350, "batch": 256, "learning_rate": 3e-4},
    },
}


class DPFETAPro(DiffusionMethod, frozen=True):
    """`kind = "dp-feta-pro"`."""

    PROFILES: ClassVar[Mapping[Profile, Mapping[str, Any]]] = {}

    kind: Literal["dp-feta-pro"] = "dp-feta-pro"
    mode: Literal["time-frequency", "frequency-time", "time", "frequency"] = "time-frequency"
    """Which warm-ups, in which order, unless `warm_up` is given itself."""

    @model_validator(mode="before")
    @classmethod
    def _of_mode(cls, table: Any) -> Any:
        if not isinstance(table, Mapping):
            return table
        profile = table.get("profile", "tiny")
        kinds = {"time": CENTRAL, "frequency": FREQUENCY}
        named = [kinds[part] for part in str(table.get("mode", "time-frequency")).split("-") if part in kinds]
        warm_up = tuple(kind[profile] for kind in named if profile in kind)
        return merged({"warm_up": warm_up}, table)
