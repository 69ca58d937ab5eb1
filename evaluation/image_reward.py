"""ImageReward: how well people would say that an image fits its prompt (Xu et al. 2023). A plug-in: package and weights are not ours.

Every class has a prompt of its own, from the class names that the data declares or from `prompts`; none is guessed from an
index.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from .metric import Items, MetricError, Score
from .metric_config import Judge, LooksAt, MetricConfig, References, at_least, score


class ImageReward(MetricConfig):
    """The mean reward of the images, each by the prompt of its class.

    weights       the file ImageReward.pt
    med_config    the file med_config.json beside it, if not given
    template      the prompt of a class, with `{class}` for its name
    prompts       prompts by class name, in place of the template
    """

    kind: str = Field(default="image-reward", pattern="^image-reward$")
    looks_at: ClassVar[LooksAt] = "images"
    needs_labels: ClassVar[bool] = True
    weights: Path | None = None
    med_config: Path | None = None
    device: str = "cpu"
    template: str = Field(default="a photo of a {class}", pattern=r"\{class\}")
    prompts: Mapping[str, str] | None = None

    def judge(self, references: References) -> Judge:
        prompts = self._of_classes(references.classes)
        model = self._model

        def reward(synthetic: Items) -> tuple[Score, ...]:
            from PIL import Image

            at_least(1, "ImageReward", synthetic)
            if synthetic.labels is None:
                raise MetricError(f"{synthetic.name}: ImageReward needs labels, to know each image's prompt")
            pixels = synthetic.values if synthetic.values.shape[3] == 3 else np.repeat(synthetic.values, 3, axis=3)
            rewards = [
                float(model.score(prompts[label], Image.fromarray(image)))
                for label, image in zip(synthetic.labels.tolist(), pixels, strict=True)
            ]
            found = score("ImageReward", float(np.mean(rewards)), synthetic, better="higher")
            return (replace(found, network="ImageReward", network_hash=self._digest),)

        return reward

    def _of_classes(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        if not classes:
            raise MetricError("ImageReward needs the names of the classes for its prompts; here there are none")
        if self.prompts is None:
            return tuple(self.template.replace("{class}", name) for name in classes)
        if set(self.prompts) != set(classes):
            raise MetricError("ImageReward: give one prompt for each class, under its name, or leave `prompts` out")
        return tuple(self.prompts[name] for name in classes)

    @property
    def _file(self) -> Path:
        if self.weights is None:
            raise MetricError("ImageReward needs `weights`, the path of ImageReward.pt, and med_config.json beside it")
        return self.weights

    @cached_property
    def _digest(self) -> str:
        with self._file.open("rb") as file:
            return f"sha256-{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}"

    @cached_property
    def _model(self) -> Any:
        config = self.med_config or self._file.with_name("med_config.json")
        for path in (self._file, config):
            if not path.is_file():
                raise MetricError(f"ImageReward: there is no file {str(path)!r}; set `weights` and `med_config`")
        try:
            package = importlib.import_module("ImageReward")
        except ImportError as error:
            raise MetricError(f"ImageReward needs its package ({error}): pip install image-reward") from None
        return package.load(str(self._file), device=self.device, med_config=str(config))
