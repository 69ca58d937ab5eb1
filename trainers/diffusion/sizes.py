"""The networks as settings, without torch; U-Nets of pixels by name, from tens of thousands of parameters to 78 million.

The larger ones are those of DPImageBench (Gong et al., 2025, 2503.14681), parameter by parameter; `tiny`, `patched` and
`small` are ours, for a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Size = Literal["tiny", "patched", "small", "1.5M", "3.8M", "11.1M", "19.6M", "44.2M", "78.5M"]


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """A U-Net of `width` times `multipliers[i]` channels at level i, whose sides are halved from level to level.

    Squares of `patch` x `patch` pixels are channels of one position of the first level: less work, and further sight.
    `attention` holds the levels, by their longer side in pixels, that attend to themselves; the middle always does.
    `classes` labels have an embedding each, and the label `classes` is null: a class of its own, which label dropout trains.
    """

    image_width: int
    image_height: int
    channels: int
    classes: int
    width: int = 32
    multipliers: tuple[int, ...] = (2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = ()
    patch: int = 1

    def __post_init__(self) -> None:
        if (
            min(
                self.image_width,
                self.image_height,
                self.channels,
                self.width,
                self.blocks,
                self.patch,
                *self.multipliers,
            )
            < 1
        ):
            raise ValueError(f"a U-Net has sides, channels, width, blocks and multipliers of at least 1: {self}")
        if not self.multipliers or self.classes < 0:
            raise ValueError(f"a U-Net has at least one multiplier and no negative number of classes: {self}")
        if self.image_width % self.patch or self.image_height % self.patch:
            raise ValueError(
                f"the network takes squares of {self.patch} pixels, and an image of {self.image_width} x {self.image_height} "
                "is not made of these; take another network"
            )

    @property
    def null(self) -> int:
        """The label of no class."""
        return self.classes


@dataclass(frozen=True, kw_only=True)
class _Plan:
    width: int
    multipliers: tuple[int, ...]
    blocks: int = 2
    attending: tuple[int, ...] = (1,)
    patch: int = 1


SIZES: Mapping[Size, _Plan] = MappingProxyType(
    {
        "tiny": _Plan(width=12, multipliers=(1, 1), blocks=1, attending=()),
        "patched": _Plan(width=16, multipliers=(1, 1), blocks=1, attending=(), patch=2),
        "small": _Plan(width=32, multipliers=(1, 1), attending=(1,)),
        "1.5M": _Plan(width=32, multipliers=(2, 2)),
        "3.8M": _Plan(width=32, multipliers=(2, 4)),
        "11.1M": _Plan(width=64, multipliers=(1, 2, 3), attending=(1, 2)),
        "19.6M": _Plan(width=64, multipliers=(1, 2, 2, 4), attending=(1, 2, 3)),
        "44.2M": _Plan(width=96, multipliers=(1, 2, 2, 4), attending=(1, 2, 3)),
        "78.5M": _Plan(width=128, multipliers=(1, 2, 2, 4), attending=(1, 2, 3)),
    }
)


def sized(size: Size, *, image_width: int, image_height: int, channels: int, classes: int) -> UNetConfig:
    """The U-Net named `size` for such images."""
    if size not in SIZES:
        raise ValueError(f"network size {size!r} is not one of {', '.join(SIZES)}")
    plan = SIZES[size]
    side = max(image_width, image_height) // plan.patch
    return UNetConfig(
        image_width=image_width,
        image_height=image_height,
        channels=channels,
        classes=classes,
        width=plan.width,
        multipliers=plan.multipliers,
        blocks=plan.blocks,
        attention=tuple(-(-side // 2**level) for level in plan.attending),
        patch=plan.patch,
    )


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """An autoencoder of images: each multiplier after the first halves the sides, which must allow it.

    The default is a small one for a CPU; DP-LDM (Liu et al. 2023) has width 128, multipliers (1, 2), 2 blocks and 3 latent channels.
    """

    image_width: int
    image_height: int
    channels: int
    latent_channels: int = 3
    width: int = 16
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 1

    def __post_init__(self) -> None:
        halved = 2 ** (len(self.multipliers) - 1)
        if self.image_width % halved or self.image_height % halved:
            raise ValueError(
                f"an image of {self.image_width} x {self.image_height} cannot be halved {len(self.multipliers) - 1} times; "
                "give the autoencoder fewer multipliers"
            )
        if any(self.width * multiplier % 4 for multiplier in self.multipliers):
            raise ValueError(f"the widths of an autoencoder are multiples of 4, not {self.width} x {self.multipliers}")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a latent."""
        halved = 2 ** (len(self.multipliers) - 1)
        return self.latent_channels, self.image_height // halved, self.image_width // halved


@dataclass(frozen=True, kw_only=True)
class LatentUNetConfig:
    """A U-Net of latents that attends to its class: diffusers' UNet2DConditionModel with one token of `context` numbers.

    Each level attends, and halves the sides for the next. The default is a small one for a CPU; DP-LDM on CIFAR-10 has width 32,
    multipliers (1, 2, 2), 2 blocks, 8 heads and a context of 512.
    """

    height: int
    width_in: int
    channels: int
    classes: int
    width: int = 16
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 1
    heads: int = 2
    context: int = 32

    def __post_init__(self) -> None:
        halved = 2 ** (len(self.multipliers) - 1)
        if self.height % halved or self.width_in % halved:
            raise ValueError(
                f"a latent of {self.height} x {self.width_in} cannot be halved {len(self.multipliers) - 1} times; give the "
                "network fewer multipliers"
            )

    @property
    def null(self) -> int:
        """The label of no class."""
        return self.classes
