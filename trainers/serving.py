"""A released model, loaded again: to sample more of it, or to let Private Evolution go on from it."""

from __future__ import annotations

import json
from pathlib import Path

from ..privacy import arrays
from .contract import TrainerError
from .latent_model import LatentModel
from .model import DiffusionModel

Served = DiffusionModel | LatentModel


def load(release: Path) -> Served:
    """The model of a run's `release` folder (or of the run's own). Raises TrainerError where there is none."""
    folder = release if (release / "model.json").exists() else release / "release"
    try:
        description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        weights = arrays.unpacked((folder / "model.npz").read_bytes())
    except OSError:
        raise TrainerError(f"{release}: holds no released model; name the folder of a finished training") from None
    except ValueError:
        raise TrainerError(f"{release}: the model is damaged; take it from the run again") from None
    kinds = {"diffusion": DiffusionModel, "latent-diffusion": LatentModel}
    kind = kinds.get(description.get("kind"))
    if kind is None:
        raise TrainerError(f"{release}: a model of kind {description.get('kind')!r} is not known")
    return kind.load(description, weights)
