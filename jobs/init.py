"""`privolve init`: a commented job file to start from, with a proposal for its `[data]` table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from .. import plugins
from ..data import formats, registry
from ..data.config import DataConfig
from ..trainers import registry as methods
from .job import InputError, kinds

STARTERS = ("dpiti", "image-pe", "train")
OF_TEXTS = {"dpiti": "dpiti-texts"}
DIGITS = """[data]
kind = "digits"                 # your own: kind = "folder", path = "...", classes = [...], size = [w, h], channels = 1 or 3
"""
DIGITS_SHAPE: dict[str, Any] = {"size": [8, 8], "count": 1438}
TINY = 16
"""The longer side of images for which the profile `tiny` was made; `small` takes those above."""
NOTE = "# Proposed by a look at the data. What stands here is public from now on: check that it may be.\n"


def starter(kind: str, path: Path | None) -> str:
    """The text of a job file. With `path`, a look at the data there proposes what its owner might declare."""
    if kind not in STARTERS:
        if kind in kinds() or kind in ("suite", *methods.METHODS):
            raise InputError(
                f"there is no starter for {kind!r}: copy a file of it from examples/digits; there is one for "
                f"{', '.join(STARTERS)}"
            )
        hint = plugins.meant(kind, STARTERS)
        raise InputError(f"{kind!r} is no job kind; {hint}use one of {', '.join(STARTERS)}")
    name, data, found = kind, DIGITS, DIGITS_SHAPE
    if path is not None:
        config = _config(path)
        if config.text_bytes and kind not in OF_TEXTS:
            raise InputError(
                f"{path}: holds texts, and {kind} needs images; `privolve init dpiti --data {path}` writes a job on texts"
            )
        name = OF_TEXTS[kind] if config.text_bytes else kind
        found = config.propose()
        data = _table(config, path, found)
    text = resources.files("privolve.jobs").joinpath("starters", f"{name}.toml").read_text(encoding="utf-8")
    if "@TRAINER@" in text:
        text = text.replace("@TRAINER@\n", _trainer(found) + "\n")
    return text.replace("@DATA@\n", data + "\n")


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{path}: exists already; name another file") from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); name another file, in a folder that is there"
        ) from None


def _config(path: Path) -> DataConfig:
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder; check --data")
    kind = formats.kind_of(path)
    if kind is None:
        raise InputError(f"{path}: no source reads this; give {formats.READ}")
    return registry.parse({"kind": kind, "path": str(path.resolve())})


def _table(config: DataConfig, path: Path, proposed: Mapping[str, Any]) -> str:
    table = {"kind": config.kind, "path": str(path.resolve()), **proposed}
    lines = [f"{key} = {_toml(value)}\n" for key, value in table.items() if value is not None]
    return NOTE + "[data]\n" + "".join(lines)


def _trainer(proposed: Mapping[str, Any]) -> str:
    """The settings of a training that follow from the size of the images and their number."""
    from ..trainers.diffusion.sizes import SIZES
    from ..trainers.dp_feta_pro import DPFETAPro
    from ..trainers.warm_up import CentralWarmUp

    tiny = max(proposed.get("size") or (TINY + 1,)) <= TINY
    method = DPFETAPro.model_validate({"profile": "tiny" if tiny else "small"})
    slots, batch = proposed["count"], method.expected_batch
    why = "tiny: about 8 x 8, minutes on two cores; small: 28 x 28, half an hour of them; paper: on GPUs"
    settings = [(f'profile = "{method.profile}"', why)]
    if any(side % SIZES[method.network].patch for side in proposed.get("size") or ()):
        settings.append(('network = "small"', "the profile's own sees squares of 2 x 2 pixels, and a side is odd"))
    asked = [each.expected_batch for each in method.warm_up if isinstance(each, CentralWarmUp)]
    if any(each is not None and each > slots for each in asked):
        settings.append(('mode = "frequency"', "without mean images, for which this profile asks more than there are"))
    if 2 * batch > slots:
        settings.append((f"expected_batch = {max(1, slots // 4)}", f"the profile's {batch:g} are many of {slots:,}"))
    return "".join(f"{setting:31} # {why}\n" for setting, why in settings)


def _toml(value: Any) -> str:
    """JSON writes texts, numbers, truth values and lists of them as TOML does."""
    return json.dumps(value, ensure_ascii=False)
