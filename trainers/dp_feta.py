"""DP-FETA (Li et al. 2025, S&P): from easy to hard. Central images first, then DP-SGD on all parameters.

    for round 1 to R:
        draw each record with probability q';  S_c = sum of the small images of class c about 1/2, plus noise
    pictures of S_c / (q' N share_c); pre-train on them; DP-SGD as DPDM

Asked of the private set: R sums over a Poisson sample, which a record of any class moves by at most half the square root of
the number of pixels (`SampledGaussian(q', sigma', R)`), and the training calibrated beside them. Noisy sums over a public
denominator: the published code scales the noise by another number than it divides by. No public data.

Any diffusion method can take the same warm-up: `[[trainer.warm_up]]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from .course import DiffusionMethod, Profile

CENTRAL: Mapping[Profile, Mapping[str, Any]] = {
    "tiny": {
        "kind": "central-images",
        "rounds": 1,
        "noise_multiplier": 3.0,
        "reduce": 1,
        "fit": {"steps": 400, "batch": 64, "learning_rate": 2e-3, "augmentation": "shift"},
    },
    "small": {
        "kind": "central-images",
        "expected_batch": 6000,
        "rounds": 5,
        "noise_multiplier": 5.0,
        "fit": {"steps": 300, "batch": 50, "learning_rate": 2e-3, "augmentation": "shift"},
    },
    "paper": {
        "kind": "central-images",
        "expected_batch": 6000,
        "rounds": 5,
        "noise_multiplier": 5.0,
        "fit": {"steps": 2000, "batch": 50, "learning_rate": 3e-4, "augmentation": "flip-shift"},
    },
}


class DPFETA(DiffusionMethod, frozen=True):
    """`kind = "dp-feta"`."""

    PROFILES: ClassVar[Mapping[Profile, Mapping[str, Any]]] = {
        profile: {"warm_up": (settings,)} for profile, settings in CENTRAL.items()
    }

    kind: Literal["dp-feta"] = "dp-feta"
