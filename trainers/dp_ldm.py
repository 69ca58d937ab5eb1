"""DP-LDM (Liu, Lyu, Vinaroz and Park 2023, 2305.15759): latent diffusion, of which only attention sees private records.

    train an autoencoder, then a diffusion model of its latents, on public images
    DP-SGD on the transformers and the class embedding alone; draw latents; decode

Asked of the private set, and its cost: as DPDM, for a record's latent. Cross-attention to the one token of the class is
constant in its queries and keys; these are frozen, because noise alone would move them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from .course import Profile
from .latent_course import PAPER, SMALL, TINY, LatentMethod

if TYPE_CHECKING:
    from torch import nn

    from .diffusion.latent import LatentUNet


class DPLDM(LatentMethod, frozen=True):
    """`kind = "dp-ldm"`."""

    PROFILES: ClassVar[Mapping[Profile, Mapping[str, Any]]] = {
        "tiny": {**TINY},
        "small": {**SMALL},
        "paper": {
            **PAPER,
            "multiplicity": 1,
            "learning_rate": 4.1e-3,
            "learning_rate_warm_up": 10_000,
            "optimizer": "adamw",
        },
    }

    kind: Literal["dp-ldm"] = "dp-ldm"
    part: Literal["attention", "all"] = "attention"

    def trained(self, module: nn.Module) -> tuple[str, ...]:
        from .diffusion.latent import trained_part

        return trained_part(cast("LatentUNet", module), self.part)
