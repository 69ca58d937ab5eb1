"""The methods by name: a closed list, because a method carries a part of the guarantee."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from .contract import Method

METHODS: Mapping[str, str] = {
    "dpdm": "dpdm:DPDM",
    "pdp-diffusion": "pdp_diffusion:PDPDiffusion",
    "dp-ldm": "dp_ldm:DPLDM",
    "dp-ldm-sd": "dp_ldm_sd:DPLDMSD",
    "dp-lora": "dp_lora:DPLoRA",
    "privimage": "privimage:PrivImage",
    "dp-feta": "dp_feta:DPFETA",
    "dp-feta-pro": "dp_feta_pro:DPFETAPro",
}
"""Kind to `module:class` in this package."""


def parse(table: Mapping[str, Any]) -> Method:
    """The method that a `[trainer]` table describes. Raises ValueError, one line, for a kind that there is not."""
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in METHODS:
        close = difflib.get_close_matches(str(kind), METHODS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(METHODS)}"
        raise ValueError(f"kind = {kind!r} is no training method; {hint}")
    module, _, name = METHODS[kind].partition(":")
    method: type[Method] = getattr(import_module(f".{module}", __package__), name)
    for key in table:
        if key not in method.model_fields:
            close = difflib.get_close_matches(str(key), method.model_fields, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"{kind} knows {', '.join(method.model_fields)}"
            raise ValueError(f"{key}: unknown key; {hint}")
    return method.model_validate(dict(table))
