"""`diffusers-class` on a tiny class-conditional UNet."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from privolve.adapters.contract import (
    AdapterUnavailable,
    Image,
    ImageRequest,
    ImageVariationRequest,
    Refusal,
    wrong_with,
)
from privolve.adapters.local.class_painter import DiffusersClassConfig

pytest.importorskip("diffusers")

CLASSES = {"cat": 2, "dog": (0, 1), "bird": 5}


@pytest.fixture(scope="module")
def opened(folder_of):
    def painter(**settings):
        settings = {"steps": 4, "classes": CLASSES, "batch_size": 3, **settings}
        return DiffusersClassConfig(model=folder_of("class_unet"), **settings).open()

    return painter


@pytest.fixture
def requests(tools):
    drawn = [
        ImageRequest(prompt=prompt, draw=draw, size=(10, 12), channels=channels)
        for prompt in ("cat", "dog")
        for draw in (0, 1)
        for channels in (1, 3)
    ]
    varied = [
        ImageVariationRequest(image=image, prompt="cat", degree=degree, draw=draw)
        for image in tools.noise(1)
        for degree in (0.0, 0.5, 1.0)
        for draw in (0, 1)
    ]
    return [*drawn, *varied]


def draw(prompt: str, number: int = 0, size: tuple[int, int] = (8, 8)) -> ImageRequest:
    return ImageRequest(prompt=prompt, draw=number, size=size)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_an_image_does_not_depend_on_its_batch(opened, requests, tools, sampler):
    painter = opened(sampler=sampler)
    images = painter.send(requests)
    assert [wrong_with(request, image) for request, image in zip(requests, images, strict=True)] == [""] * len(images)
    assert len({image.pixels.tobytes() for image in images}) == len(images)
    assert tools.same(painter.send(requests[::-1])[::-1], images)
    assert tools.same([painter.send([request])[0] for request in requests[-4:]], images[-4:])


def test_a_prompt_means_its_classes_and_a_variation_keeps_its_parents(opened):
    painter = opened()
    replies = painter.send([draw(prompt, number) for prompt in ("cat", "dog") for number in range(12)])
    found = [json.loads(reply.recipe)["class"] for reply in replies]
    assert set(found[:12]) == {2}
    assert set(found[12:]) == {0, 1}
    parent = Image(replies[0].pixels, recipe='{"class": 5}')
    [child] = painter.send([ImageVariationRequest(image=parent, prompt="dog", degree=0.5, draw=0)])
    assert json.loads(child.recipe) == {"class": 5}


def test_the_class_decides_the_image(opened):
    painter = opened(classes={"a": 1, "b": 1}), opened(classes={"a": 3})
    [[one], [other]] = [each.send([draw("a")]) for each in painter]
    assert not np.array_equal(one.pixels, other.pixels)


def test_a_prompt_without_a_class_is_refused_or_draws_any(opened):
    asked = [draw("a fish", number) for number in range(40)]
    assert all(isinstance(reply, Refusal) for reply in opened().send(asked[:2]))
    found = {json.loads(reply.recipe)["class"] for reply in opened(others="any").send(asked)}
    assert found == set(range(6))


@pytest.mark.parametrize("recipe", ["", "not json", "[]", '{"class": 99}', '{"class": "x"}'])
def test_a_recipe_of_another_adapter_says_nothing(opened, tools, recipe):
    parent = Image(tools.noise(1)[0].pixels, recipe=recipe)
    [child] = opened().send([ImageVariationRequest(image=parent, prompt="bird", degree=0.2, draw=0)])
    assert json.loads(child.recipe) == {"class": 5}


def test_a_class_that_the_model_does_not_have_is_one_line(opened):
    with pytest.raises(AdapterUnavailable, match="classes 0 to 5"):
        opened(classes={"cat": 6})


def test_a_variation_is_sdedit(opened, tools):
    """With a model that knows the noise, a variation gives its parent back; the more it skips, the surer."""
    painter = opened(steps=10)
    parent = Image(np.random.default_rng(0).integers(30, 220, (8, 8, 3)).astype(np.uint8))
    clean = painter._scaled(parent)
    times: list[int] = []

    class Oracle:
        """The noise that stands between the clean image and what is seen."""

        def __call__(self, noisy, time, class_labels):
            times.append(int(time))
            share = painter._scheduler.alphas_cumprod[int(time)]
            noise = (noisy - share.sqrt() * clean) / (1 - share).sqrt()
            return type("Output", (), {"sample": noise})

    painter._unet = Oracle()
    for degree, steps in ((0.0, 1), (0.3, 3), (1.0, 10)):
        times.clear()
        [child] = painter.send([ImageVariationRequest(image=parent, prompt="cat", degree=degree, draw=7)])
        assert len(times) == steps
        assert times == sorted(times, reverse=True)
        assert np.abs(child.pixels.astype(int) - parent.pixels).max() <= 1


def test_grey_models_and_predicted_variances_are_understood(tmp_path, tools):
    from diffusers import DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
    ).save_pretrained(tmp_path / "unet")
    DDPMScheduler(num_train_timesteps=50, variance_type="learned_range").save_pretrained(tmp_path / "scheduler")
    for sampler in ("ddim", "ddpm"):
        painter = DiffusersClassConfig(model=str(tmp_path), steps=3, sampler=sampler).open()
        requests = [
            draw("anything", size=(5, 6)),
            ImageVariationRequest(image=tools.noise(1)[0], prompt="", degree=0.5, draw=0),
        ]
        images = painter.send(requests)
        assert [wrong_with(request, image) for request, image in zip(requests, images, strict=True)] == ["", ""]
        assert images[0].recipe == ""
