"""DP-LoRA (Tsai et al. 2024, 2406.01355): as DP-LDM, with low-rank additions to attention in place of attention itself.

    W + (alpha / r) B A for the projections of attention, A random and public, B zero at the start
    DP-SGD on every A and B and the class embedding

Asked of the private set, and its cost: as DPDM. The published code clips each of the K copies of a record on its own, so that
a record moves the sum by up to K C; here the K draws are averaged first and the record is clipped once. Projections to which
a single token gives no gradient get no addition: noise alone would move it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from .contract import Arrays, PublicImages, Shape, TrainerError
from .contract import digest as digest_of
from .course import Profile
from .latent_course import PAPER, SMALL, TINY, LatentMethod

if TYPE_CHECKING:
    from torch import nn

_ADAPTED = r".*attentions.*\.(attn1\.(to_q|to_k|to_v|to_out\.0)|attn2\.(to_v|to_out\.0))"
_ADDED = (".lora_A.", ".lora_B.")


class DPLoRA(LatentMethod, frozen=True):
    """`kind = "dp-lora"`."""

    PROFILES: ClassVar[Mapping[Profile, Mapping[str, Any]]] = {
        "tiny": {**TINY, "rank": 4},
        "small": {**SMALL},
        "paper": {**PAPER, "multiplicity": 8, "learning_rate": 3e-4},
    }

    kind: Literal["dp-lora"] = "dp-lora"
    rank: int = Field(default=8, gt=0)
    """r, and alpha with it: the addition is B A."""

    def check(self, shape: Shape, public: PublicImages | None) -> None:
        super().check(shape, public)
        if find_spec("peft") is None:
            raise TrainerError("dp-lora needs peft: pip install 'privolve[train]'")

    def prepared(self, module: nn.Module, weights: Arrays | None) -> str:
        from .loop import arrays_of, load_weights, seeded

        if weights is not None:
            load_weights(module, weights)
        _adapt(module, self.rank, seeded(0, "lora", self.rank))
        return digest_of(arrays_of(module))

    def trained(self, module: nn.Module) -> tuple[str, ...]:
        return tuple(
            name
            for name, _ in module.named_parameters()
            if name.startswith("label.") or any(piece in name for piece in _ADDED)
        )

    def finished(self, module: nn.Module, released: Arrays) -> Arrays:
        """The weights of the plain network, additions and all."""
        import torch

        from .loop import arrays_of

        module.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in released.items()}, strict=False)
        added = {
            name: layer.get_delta_weight("default").detach().cpu().numpy()  # type: ignore[operator]
            for name, layer in module.named_modules()
            if name.endswith(("to_q", "to_k", "to_v", "to_out.0")) and _is_adapted(layer)
        }
        whole: dict[str, Any] = {}
        for name, value in arrays_of(module).items():
            if any(piece in name for piece in _ADDED):
                continue
            layer, base, field = name.partition(".base_layer.")
            if base:
                whole[f"{layer}.{field}"] = value + added[layer] if field == "weight" else value
            else:
                whole[name] = value
        return whole


def _is_adapted(layer: nn.Module) -> bool:
    return any(".lora_A." in f".{name}." for name, _ in layer.named_modules())


def _adapt(module: nn.Module, rank: int, generator: Any) -> None:
    """Give the projections of attention their additions, with public random A."""
    import torch

    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise TrainerError("dp-lora needs peft: pip install 'privolve[train]'") from error
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=_ADAPTED, init_lora_weights="gaussian"),
        module,
    )
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if ".lora_A." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / rank)
