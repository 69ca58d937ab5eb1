"""The public classifiers of PrivImage, and what comes of asking the private set with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

torch = pytest.importorskip("torch")

from privolve.data.training_records import TrainingRecords  # noqa: E402
from privolve.privacy.mechanism import CalibratedMechanism  # noqa: E402
from privolve.privacy.randomness import SystemRng  # noqa: E402
from privolve.trainers.contract import Arrays, PublicImages, Shape  # noqa: E402
from privolve.trainers.privimage import PrivImage  # noqa: E402
from privolve.trainers.semantic_classifier import ResNet50, SmallResNet, scores_of  # noqa: E402

NETWORKS = pytest.mark.parametrize("network", [SmallResNet, ResNet50])
Network = Callable[[int, int, int], Any]


def images(count: int, height: int = 8, width: int = 8, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def made(network: Network, channels: int = 1, classes: int = 5) -> Any:
    torch.manual_seed(0)
    return network(channels, classes, 4).eval()


@pytest.mark.parametrize(("classes", "parameters"), [(10, 23_520_842), (1000, 25_549_352)])
def test_the_resnet_50_has_the_published_blocks_and_parameters(classes: int, parameters: int) -> None:
    with torch.device("meta"):
        network = ResNet50(3, classes, 64)
    assert sum(each.numel() for each in network.parameters()) == parameters
    assert len(network.blocks) == 3 + 4 + 6 + 3
    convolutions = [each for each in network.modules() if isinstance(each, torch.nn.Conv2d)]
    assert len(convolutions) == 49 + 4  # four of shortcuts; the fiftieth layer is linear
    assert sorted({each.out_channels for each in convolutions}) == [64, 128, 256, 512, 1024, 2048]


def test_the_resnet_50_halves_the_sides_of_an_image_three_times_and_no_more() -> None:
    network = made(ResNet50, channels=3)
    assert network.blocks(network.enter(torch.zeros(2, 3, 32, 32))).shape == (2, 4 * 8 * 4, 4, 4)


@NETWORKS
@pytest.mark.parametrize("image", [(8, 8, 1), (9, 13, 3), (28, 28, 1), (32, 32, 3)])
def test_a_classifier_takes_images_of_any_size_grey_or_in_colour(network: Network, image: tuple[int, int, int]) -> None:
    scores = scores_of(made(network, image[2]), images(3, *image), "cpu")
    assert scores.shape == (3, 5)
    assert np.isfinite(scores).all()
    assert len(np.unique(scores, axis=0)) == 3


@NETWORKS
@pytest.mark.parametrize("place", [0, 64, 69])
def test_scores_of_an_image_depend_on_that_image_alone(network: Network, place: int) -> None:
    # More than are scored at a time, so that some are with the image and some are not.
    before, after = images(70), images(70)[::-1].copy()
    after[place] = before[place]
    first, second = (scores_of(made(network), pixels, "cpu") for pixels in (before, after))
    same = (first == second).all(axis=1)
    assert same[place]
    assert not np.delete(same, place).any()  # else equality would say nothing


# The method.


STRIPES = np.array(
    [
        [[255, 255], [0, 0]],
        [[255, 0], [255, 0]],
        [[255, 0], [0, 255]],
        [[128, 128], [128, 128]],
    ]
)
"""A public class each, as a tile of its images."""


def drawn(kinds: np.ndarray) -> np.ndarray:
    """Images of 8 x 8 of these kinds, with noise."""
    clean = np.tile(STRIPES[kinds], (1, 4, 4))
    noisy = clean + np.random.default_rng(len(kinds)).normal(0, 25, clean.shape)
    return noisy.clip(0, 255).astype(np.uint8)[..., None]


class OneBench:
    """A bench without a ledger: stages are made anew, releases come as they are."""

    shape = Shape(width=8, height=8, channels=1, classes=("even", "chess"), slots=400)
    seed, device, compiled = 0, "cpu", False
    public = PublicImages(
        pixels=drawn(np.arange(160) % 4),
        labels=np.arange(160) % 4,
        classes=("rows", "columns", "squares", "flat"),
        digest="stripes",
    )

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def progress(self, *told: object) -> None:
        pass

    def stage(self, name: str, key: Mapping[str, Any], make: Callable[[Path], Arrays]) -> Arrays:
        return make(self._folder)

    def release(self, name: str, mechanism: CalibratedMechanism[Any], *, question: object) -> Arrays:
        labels = np.arange(400) % 2
        pixels = drawn(np.array([3, 2])[labels])
        return mechanism(SystemRng(), TrainingRecords(pixels=pixels, labels=labels, valid=np.ones(400, dtype=bool)))


def method(**settings: Any) -> PrivImage:
    return PrivImage.model_validate({"kind": "privimage", "votes": 1, "semantic_batch": 32, **settings})


@pytest.mark.parametrize(("network", "width", "steps"), [("small", 8, 30), ("resnet-50", 4, 60)])
def test_private_records_choose_the_public_classes_that_look_like_them(
    tmp_path: Path, network: str, width: int, steps: int
) -> None:
    settings = {"semantic_network": network, "semantic_width": width, "semantic_steps": steps}
    bench = OneBench(tmp_path)
    chosen = method(**settings).chosen(bench)  # type: ignore[arg-type]
    assert chosen.classes == ("even", "chess")
    assert np.array_equal(chosen.pixels[chosen.labels == 0], bench.public.pixels[bench.public.labels == 3])
    assert np.array_equal(chosen.pixels[chosen.labels == 1], bench.public.pixels[bench.public.labels == 2])


class Asked(Exception):
    """For the classifier of this key."""


class IdleBench(OneBench):
    def stage(self, name: str, key: Mapping[str, Any], make: Callable[[Path], Arrays]) -> Arrays:
        raise Asked(json.dumps(key, sort_keys=True))


def test_a_classifier_is_kept_under_its_network_and_how_it_was_trained(tmp_path: Path) -> None:
    def key(**settings: Any) -> str:
        with pytest.raises(Asked) as asked:
            method(**settings).chosen(IdleBench(tmp_path))  # type: ignore[arg-type]
        return str(asked.value)

    other = [
        {"semantic_network": "resnet-50"},
        {"semantic_width": 8},
        {"semantic_steps": 2},
        {"semantic_batch": 8},
        {"precision": "bf16"},
    ]
    assert len({key(), *(key(**each) for each in other)}) == 1 + len(other)
    # A default and the same width by number are one network.
    assert key(semantic_width=32) == key()
    assert key(semantic_network="resnet-50", semantic_width=64) == key(semantic_network="resnet-50")
    # What comes after does not change what came before.
    assert key(noise_multiplier=7.0, epochs=3) == key()


def test_the_paper_has_the_published_classifier_and_the_other_profiles_the_small_one() -> None:
    def method(profile: str) -> PrivImage:
        return PrivImage.model_validate({"kind": "privimage", "profile": profile})

    assert [method(profile).semantic_network for profile in ("tiny", "small")] == ["small", "small"]
    paper = method("paper")
    assert paper.semantic_network == "resnet-50" and paper.semantic_width is None
    assert paper.semantic_steps * paper.semantic_batch / 1_281_167 == pytest.approx(100, rel=1e-3)


@pytest.mark.parametrize("wrong", [{"semantic_width": 6}, {"semantic_network": "resnet-18"}, {"semantic_batch": 0}])
def test_a_classifier_that_cannot_be_is_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        method(**wrong)
