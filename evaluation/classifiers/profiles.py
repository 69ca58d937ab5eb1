"""Which classifiers judge: a profile is a fixed list of architectures with their recipes.

`logistic` needs no torch and no seed. `tiny` is DPDM's three classifiers (Dockhorn et al., 2023), with fewer updates at a
larger learning rate. `paper` is DPImageBench's three (Gong et al., 2025), `paper-cifar` its larger ones for CIFAR. Images
of more than 32 pixels a side have no ResNeXt there, nor here.
"""

from __future__ import annotations

from typing import Literal, get_args

from ..metric import MetricError
from .contract import Classifier
from .logistic import LogisticRegression
from .network import Architecture, Network, Recipe

Profile = Literal["logistic", "tiny", "paper", "paper-cifar"]
PROFILES: tuple[Profile, ...] = get_args(Profile)

_STEPS = Recipe(learning_rate=0.01, batch=256, epochs=50, drop_every=20, pieces=(16, 64))
_LONG = Recipe(
    optimizer="sgd", learning_rate=0.1, momentum=0.9, weight_decay=5e-4, batch=126, epochs=200, drop_every=60
)
_NETWORKS: dict[Profile, tuple[tuple[Architecture, Recipe], ...]] = {
    "logistic": (),
    "tiny": (
        (Architecture(name="MLP, tiny", module="mlp"), Recipe(learning_rate=2e-3, batch=64, updates=1000)),
        (
            Architecture(name="CNN, tiny", module="cnn", smallest=4),
            Recipe(learning_rate=3e-3, batch=64, updates=250),
        ),
    ),
    "paper": (
        (Architecture(name="ResNet-110", module="resnet", options=(("depth", 110),), smallest=8), _STEPS),
        (
            Architecture(
                name="WRN-40-4",
                module="wide_resnet",
                options=(("depth", 40), ("widen", 4), ("dropout", 0.3)),
                smallest=8,
            ),
            _STEPS,
        ),
        (
            Architecture(
                name="ResNeXt-29 (8 x 64)",
                module="resnext",
                options=(("depth", 29), ("groups", 8), ("widen", 4)),
                smallest=8,
            ),
            _STEPS,
        ),
    ),
    "paper-cifar": (
        (Architecture(name="ResNet-164", module="resnet", options=(("depth", 164),), smallest=8), _LONG),
        (
            Architecture(
                name="WRN-28-10",
                module="wide_resnet",
                options=(("depth", 28), ("widen", 10), ("dropout", 0.3)),
                smallest=8,
            ),
            _LONG,
        ),
        (
            Architecture(
                name="ResNeXt-28 (8 x 64, 10 wide)",
                module="resnext",
                options=(("depth", 28), ("groups", 8), ("widen", 10)),
                smallest=8,
            ),
            _LONG,
        ),
    ),
}


def classifiers(
    profile: Profile, *, classes: int, size: tuple[int, int], device: str = "auto"
) -> tuple[Classifier, ...]:
    """The classifiers of a profile for images of `size`; `device` "auto" is a GPU where there is one, for all but `tiny`."""
    if profile not in PROFILES:
        raise MetricError(f"{profile!r} is no profile of classifiers; the profiles are {', '.join(PROFILES)}")
    chosen = _NETWORKS[profile]
    if max(size) > 32:
        chosen = tuple(entry for entry in chosen if entry[0].module != "resnext")
    where = _device(device, tiny=profile == "tiny") if chosen else "cpu"
    networks = [
        Network(architecture=architecture, recipe=recipe, classes=classes, device=where)
        for architecture, recipe in chosen
    ]
    first: list[Classifier] = [LogisticRegression(classes=classes)] if profile in ("logistic", "tiny") else []
    return (*first, *networks)


def _device(asked: str, *, tiny: bool) -> str:
    """Tiny networks stay on the CPU, where their figures are the same on every machine of one kind."""
    if asked != "auto":
        return asked
    if tiny:
        return "cpu"
    try:
        import torch
    except ImportError:
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "cpu"
