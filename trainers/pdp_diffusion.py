"""PDP-Diffusion (Ghalebikesabi et al. 2023, 2302.13861): pre-training on public images, then DP-SGD on all parameters.

The two options of the paper that DPImageBench left out are here: augmentation multiplicity (each of the K draws of a record is
augmented on its own, before the mean) and biased levels of noise (`levels`).

Asked of the private set, and its cost: as DPDM. The public set costs nothing; it must hold none of the private records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from .course import DiffusionMethod, Profile


class PDPDiffusion(DiffusionMethod, frozen=True):
    """`kind = "pdp-diffusion"`."""

    PROFILES: ClassVar[Mapping[Profile, Mapping[str, Any]]] = {
        "tiny": {
            "epochs": 20,
            "learning_rate": 1e-3,
            "pretraining": {"steps": 1500, "batch": 128, "learning_rate": 2e-3},
        },
        "small": {"pretraining": {"steps": 2000, "batch": 64, "learning_rate": 1e-3}},
        "paper": {"pretraining": {"steps": 200_000, "batch": 1024, "learning_rate": 3e-4}},
    }

    kind: Literal["pdp-diffusion"] = "pdp-diffusion"
