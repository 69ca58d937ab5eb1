"""DP-LDM-SD (DPImageBench's "standard diffusion" version of DP-LDM, Gong et al. 2025): DP-SGD on a part of a pre-trained network.

As PDP-Diffusion, but trained are only what carries the label and the noise level, the first convolution, and attention: fewer
parameters, and so less noise in all, while the rest stays as the public images made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from .course import DiffusionMethod, Profile
from .pdp_diffusion import PDPDiffusion

if TYPE_CHECKING:
    from torch import nn


class DPLDMSD(DiffusionMethod, frozen=True):
    """`kind = "dp-ldm-sd"`."""

    PROFILES: ClassVar[Mapping[Profile, Mapping[str, Any]]] = PDPDiffusion.PROFILES

    kind: Literal["dp-ldm-sd"] = "dp-ldm-sd"

    def trained(self, module: nn.Module) -> tuple[str, ...]:
        """Label embedding, context, first convolution, attention."""
        return tuple(
            name
            for name, _ in module.named_parameters()
            if name.startswith(("label.", "context_in.", "context_out.", "entry.")) or ".attention." in name
        )
