"""The embedders of images and of text."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from privolve.adapters.contract import EmbedRequest, Image, Refusal
from privolve.adapters.embedded.gradients import GradientsConfig
from privolve.adapters.embedded.hashing import HashingConfig
from privolve.adapters.embedded.pixels import PixelsConfig

CONFIGS = [PixelsConfig(), PixelsConfig(size=(12, 10)), GradientsConfig(), GradientsConfig(cells=7, orientations=9)]


def embed(adapter: Any, contents: Sequence[Image | str]) -> np.ndarray:
    return np.stack(adapter.send([EmbedRequest(content=content) for content in contents]))


def noise(count: int, shape: tuple[int, int, int] = (28, 28, 1)) -> list[Image]:
    rng = np.random.default_rng()
    return [Image(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("shape", [(28, 28, 1), (8, 8, 1), (32, 32, 3), (9, 17, 3)])
def test_features_of_an_image_do_not_depend_on_its_neighbours(config: Any, shape: tuple[int, int, int]) -> None:
    adapter, images = config.open(), noise(45, shape)
    together = embed(adapter, images)
    assert together.dtype == np.float32 and np.isfinite(together).all()
    alone = np.concatenate([embed(adapter, [image]) for image in images])
    assert np.array_equal(alone, together)
    assert np.array_equal(embed(adapter, images[7:20]), together[7:20])


def test_pixels_are_the_image_from_0_to_1() -> None:
    [image] = noise(1, (4, 6, 3))
    [features] = embed(PixelsConfig().open(), [image])
    assert np.array_equal(features, image.pixels.reshape(-1).astype(np.float32) / 255)


def test_pixels_of_a_size_have_one_length_and_are_averages() -> None:
    images = [*noise(1, (8, 8, 1)), *noise(1, (28, 30, 1))]
    assert embed(PixelsConfig(size=(4, 4)).open(), images).shape == (2, 16)
    halves = Image(np.repeat(np.array([[[0], [200]]], dtype=np.uint8), 4, axis=1))
    [features] = embed(PixelsConfig(size=(2, 1)).open(), [halves])
    assert features * 255 == pytest.approx([0, 200])


def test_gradients_have_one_length_for_images_of_all_sizes() -> None:
    images = [image for shape in ((28, 28, 1), (8, 8, 1), (32, 32, 3), (3, 5, 1)) for image in noise(1, shape)]
    assert embed(GradientsConfig(cells=4, orientations=8).open(), images).shape == (4, 9 * 4 * 8)


def test_gradients_tell_orientations_apart_and_do_not_see_brightness() -> None:
    ramp = np.arange(16, dtype=np.uint8)
    across = Image(np.broadcast_to(ramp[None, :, None] * 8, (16, 16, 1)).copy())
    down = Image(np.broadcast_to(ramp[:, None, None] * 8, (16, 16, 1)).copy())
    adapter = GradientsConfig(cells=2, orientations=4).open()
    one, other = (vector.reshape(4, -1).sum(1) for vector in embed(adapter, [across, down]))
    assert one.argmax() == 0 and other.argmax() == 2
    brighter = Image(across.pixels + np.uint8(100))
    assert np.allclose(*embed(adapter, [across, brighter]), atol=1e-5)


def test_gradients_of_a_flat_image_are_zero() -> None:
    assert not embed(GradientsConfig().open(), [Image(np.full((8, 8, 1), 200, dtype=np.uint8))]).any()


def test_gradients_of_grey_in_three_channels_are_those_of_one() -> None:
    images = noise(5)
    coloured = [Image(np.repeat(image.pixels, 3, axis=2)) for image in images]
    adapter = GradientsConfig().open()
    assert np.array_equal(embed(adapter, images), embed(adapter, coloured))


def test_gradients_recognise_real_digits() -> None:
    from sklearn.datasets import load_digits
    from sklearn.neighbors import KNeighborsClassifier

    digits = load_digits()
    images = [Image((picture * 255 / 16).astype(np.uint8)[:, :, None]) for picture in digits.images]
    features = embed(GradientsConfig().open(), images)
    nearest = KNeighborsClassifier(1).fit(features[:1000], digits.target[:1000])
    assert nearest.score(features[1000:], digits.target[1000:]) > 0.94


def test_hashing_places_texts_by_what_they_say() -> None:
    adapter = HashingConfig().open()
    cat, cats, bank = embed(
        adapter, ["A small cat sleeps.", "the small cats are sleeping", "Interest rates rose sharply"]
    )
    assert cat @ cats > cat @ bank + 0.2
    assert np.linalg.norm(cat) == pytest.approx(1, abs=1e-6) and cat.dtype == np.float32
    assert not embed(adapter, ["", "..."]).any()


def test_hashing_hears_neither_case_nor_punctuation_but_order() -> None:
    one, other, turned = embed(HashingConfig().open(), ["Dog bites man!", "dog, bites man", "man bites dog"])
    assert np.array_equal(one, other) and not np.array_equal(one, turned)


def test_hashing_is_the_same_in_every_process() -> None:
    code = (
        "from privolve.adapters.contract import EmbedRequest;"
        "from privolve.adapters.embedded.hashing import HashingConfig;"
        "print(HashingConfig(dimensions=64).open().send([EmbedRequest(content='a bold seven')])[0].tobytes().hex())"
    )
    out = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        )
        for seed in ("1", "2")
    ]
    here = embed(HashingConfig(dimensions=64).open(), ["a bold seven"])[0].tobytes().hex()
    assert [run.stdout.strip() for run in out] == [here, here]


def test_content_of_the_wrong_kind_is_refused() -> None:
    [image] = noise(1)
    assert isinstance(HashingConfig().open().send([EmbedRequest(content=image)])[0], Refusal)
    for config in CONFIGS:
        assert isinstance(config.open().send([EmbedRequest(content="text")])[0], Refusal)


def test_the_configs_are_cheap_to_import() -> None:
    modules = ("glyphs", "lexicon", "glyph_painter", "glyph_captioner", "pixels", "gradients", "hashing")
    code = "".join(f"import privolve.adapters.embedded.{name};" for name in modules)
    code += "import sys; print({'matplotlib', 'PIL', 'scipy', 'torch', 'sklearn'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "set()"
    )
