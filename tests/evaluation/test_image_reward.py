"""ImageReward as a plug-in, with a stand-in for its package: prompts by class, and one line for what is missing."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privolve.evaluation import registry
from privolve.evaluation.metric import Items, MetricError
from privolve.evaluation.metric_config import References

CLASSES = ("cat", "dog")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "ImageReward.pt").write_bytes(b"weights")
    (tmp_path / "med_config.json").write_text("{}")
    return tmp_path / "ImageReward.pt"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What the stand-in was asked; a dog's prompt is rewarded with 1, any other with 0."""
    found: list[tuple[str, Any]] = []

    class Model:
        def score(self, prompt: str, image: Any) -> float:
            found.append((prompt, image))
            return float("dog" in prompt)

    package: Any = types.ModuleType("ImageReward")
    package.load = lambda *names, **options: Model()
    monkeypatch.setitem(sys.modules, "ImageReward", package)
    return found


def images(**changed: Any) -> Items:
    content = {"values": np.zeros((4, 8, 8, 1), dtype=np.uint8), "labels": np.array([0, 1, 1, 1])}
    return Items(name="synthetic", protected=True, **{**content, **changed})


def judge(table: dict[str, Any], synthetic: Items, classes: tuple[str, ...] = CLASSES) -> Any:
    [score] = registry.parse(table).judge(References(test=images(), classes=classes))(synthetic)
    return score


def test_each_image_is_judged_by_the_prompt_of_its_class(weights: Path, asked: list[tuple[str, Any]]) -> None:
    score = judge({"kind": "image-reward", "weights": str(weights)}, images())
    assert [prompt for prompt, _ in asked] == ["a photo of a cat"] + ["a photo of a dog"] * 3
    assert all(image.size == (8, 8) and image.mode == "RGB" for _, image in asked)
    assert (score.value, score.n, score.network) == (0.75, 4, "ImageReward")
    assert score.protected and score.network_hash.startswith("sha256-")


def test_a_table_of_prompts_is_taken_by_name_and_not_by_order(weights: Path, asked: list[tuple[str, Any]]) -> None:
    table = {"kind": "image-reward", "weights": str(weights), "prompts": {"dog": "my dog", "cat": "my tom"}}
    judge(table, images())
    assert [prompt for prompt, _ in asked] == ["my tom", "my dog", "my dog", "my dog"]
    with pytest.raises(MetricError, match="one prompt for each class"):
        judge({**table, "prompts": {"dog": "my dog"}}, images())


@pytest.mark.parametrize("asked_for", ["package", "weights", "path", "classes", "labels"])
def test_what_is_missing_is_named_in_one_line(
    asked_for: str, weights: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    table: dict[str, Any] = {"kind": "image-reward", "weights": str(weights)}
    if asked_for == "package":
        monkeypatch.setitem(sys.modules, "ImageReward", None)
    else:
        request.getfixturevalue("asked")
    lines = {
        "package": "pip install image-reward",
        "weights": "ImageReward needs `weights`",
        "path": "there is no file '/no/such/file.pt'",
        "classes": "needs the names of the classes",
        "labels": "needs labels",
    }
    table |= {"weights": {"weights": None, "path": "/no/such/file.pt"}.get(asked_for, str(weights))}
    with pytest.raises(MetricError) as caught:
        judge(
            table, images(labels=None) if asked_for == "labels" else images(), () if asked_for == "classes" else CLASSES
        )
    assert lines[asked_for] in str(caught.value) and "\n" not in str(caught.value)
