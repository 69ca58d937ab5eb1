"""A released model, loaded again: to sample more of it, or to let Private Evolution go on from it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..privacy import arrays
from .contract import TrainerError
from .contract import digest as digest_of
from .latent_model import LatentModel
from .model import DiffusionModel

Served = DiffusionModel | LatentModel


@dataclass(frozen=True, kw_only=True, eq=False)
class Released:
    """A model, the names of its classes in the order of its labels, and the SHA-256 of all that it draws by."""

    model: Served
    classes: tuple[str, ...]
    digest: str


def load(release: Path, *, device: str = "cpu") -> Released:
    """The model of a run's `release` folder (or of the run's own). Raises TrainerError where there is none."""
    folder = release if (release / "model.json").exists() else release / "release"
    try:
        description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        weights = arrays.unpacked((folder / "model.npz").read_bytes())
    except OSError:
        raise TrainerError(f"{release}: holds no released model; name the folder of a finished training") from None
    except (ValueError, zipfile.BadZipFile):
        raise _damaged(release) from None
    if not isinstance(description, dict):
        raise _damaged(release)
    kinds = {"diffusion": DiffusionModel, "latent-diffusion": LatentModel}
    kind = kinds.get(description.get("kind", ""))
    if kind is None:
        raise TrainerError(f"{release}: a model of kind {description.get('kind')!r} is not known")
    model = kind.load(description, weights)
    return Released(
        model=replace(model, device=device),
        classes=_classes(description, model, release),
        digest=hashlib.sha256(
            json.dumps([description, digest_of(weights)], sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest(),
    )


def _classes(description: dict[str, Any], model: Served, release: Path) -> tuple[str, ...]:
    classes = description.get("classes")
    if not isinstance(classes, list) or len(classes) != model.network.classes:
        raise TrainerError(f"{release}: the model does not name its classes; release it again with this version")
    return tuple(str(name) for name in classes)


def _damaged(release: Path) -> TrainerError:
    return TrainerError(f"{release}: the model is damaged; take it from the run again")
