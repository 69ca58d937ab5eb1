"""`diffusers` on a tiny SDXL with a scheduler that adds noise at every step, and on a tiny Flux."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from privolve.adapters.contract import (
    AdapterUnavailable,
    ImageRequest,
    ImageVariationRequest,
    Refusal,
    wrong_with,
)
from privolve.adapters.local.long_prompts import Counted
from privolve.adapters.local.painter import DiffusersConfig

pytest.importorskip("diffusers")

LONG = "cat dog house tree river"


@pytest.fixture(scope="module")
def sdxl(folder_of):
    opened = {}

    def painter(**settings):
        key = repr(sorted(settings.items()))
        if key not in opened:
            opened[key] = DiffusersConfig(model=folder_of("sdxl"), **{"steps": 3, "batch_size": 2, **settings}).open()
        return opened[key]

    return painter


@pytest.fixture
def requests(tools):
    drawn = [
        ImageRequest(prompt=prompt, draw=draw, size=size, channels=channels)
        for prompt, size, channels in (("a cat", (16, 16), 3), ("red dog", (10, 12), 1))
        for draw in (0, 1)
    ]
    varied = [
        ImageVariationRequest(image=image, prompt="a cat", degree=degree, draw=0)
        for image in (*tools.noise(1), *tools.noise(1, (9, 7, 1)))
        for degree in (0.0, 0.5, 1.0)
    ]
    return [*drawn, *varied]


def distance(one, other) -> float:
    return float(np.abs(one.pixels.astype(float) - other.pixels.astype(float)).mean())


def test_an_image_does_not_depend_on_its_batch(sdxl, requests, tools):
    images = sdxl().send(requests)
    assert [wrong_with(request, image) for request, image in zip(requests, images, strict=True)] == [""] * len(images)
    assert tools.same(sdxl().send(requests[::-1])[::-1], images)
    assert tools.same(sdxl().send([requests[1]]), images[1:2])
    assert tools.same(sdxl().send([requests[5]]), images[5:6])


def test_draws_prompts_and_guidance_make_other_images(sdxl):
    base = ImageRequest(prompt="a cat", draw=0, size=(16, 16))
    others = [
        ImageRequest(prompt="a cat", draw=1, size=(16, 16)),
        ImageRequest(prompt="a dog", draw=0, size=(16, 16)),
    ]
    [image, *different] = sdxl().send([base, *others])
    assert all(distance(image, other) > 0 for other in different)
    assert distance(image, sdxl(guidance=0.0).send([base])[0]) > 0
    assert distance(image, sdxl(scheduler="DDIMScheduler").send([base])[0]) > 0


def test_images_are_drawn_at_the_native_size_and_resized(sdxl, tools):
    from privolve.adapters.local.pixels import image_of, picture

    [small] = sdxl(native_size=(32, 16)).send([ImageRequest(prompt="a cat", draw=0, size=(8, 4))])
    assert small.pixels.shape == (4, 8, 3)
    assert sdxl()._native == (16, 16)
    [image] = tools.noise(1)
    assert tools.same([image_of(picture(image), size=(24, 20), channels=3)], [image])


def test_a_higher_degree_changes_more(sdxl, tools):
    image = tools.noise(1, (16, 16, 3))[0]
    steps = 8
    degrees = [0.0, 0.5, 1.0]
    requests = [ImageVariationRequest(image=image, prompt="a cat", degree=degree, draw=0) for degree in degrees]
    painter = sdxl(steps=steps, batch_size=1)
    calls: list[int] = []
    original = painter._changer.unet.forward

    def counting(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    painter._changer.unet.forward = counting
    try:
        made = []
        for request in requests:
            calls.clear()
            painter.send([request])
            made.append(len(calls))
    finally:
        del painter._changer.unet.forward
    assert made == [1, 4, 8]


class TestLongPrompts:
    REQUESTS = tuple(ImageRequest(prompt=prompt, draw=0, size=(16, 16)) for prompt in (LONG, "a cat", LONG + " lamp"))

    def test_are_counted_and_warned_about_once_with_numbers(self, folder_of, caplog):
        painter = DiffusersConfig(model=folder_of("sdxl"), steps=1).open()
        with caplog.at_level(logging.WARNING):
            painter.send(self.REQUESTS)
            painter.send(self.REQUESTS)
        [message] = [record.getMessage() for record in caplog.records if record.name.startswith("privolve")]
        assert "2 of 3 prompts are longer than the 16 tokens" in message
        assert "the longest 26" in message
        assert "cat" not in message
        assert not [record for record in caplog.records if "cat" in record.getMessage()]
        assert painter.long_prompts == Counted(prompts=6, long=4, longest=26)

    def test_among_private_prompts_make_no_sound_and_the_warning_is_kept(self, folder_of, caplog):
        painter = DiffusersConfig(model=folder_of("sdxl"), steps=1).open()
        logging.disable(logging.CRITICAL)
        try:
            painter.send(self.REQUESTS)
        finally:
            logging.disable(logging.NOTSET)
        assert not caplog.records
        with caplog.at_level(logging.WARNING):
            painter.send(self.REQUESTS[1:])
        assert "1 of 2 prompts" in caplog.text

    def test_are_refused_on_request(self, sdxl):
        replies = sdxl(long_prompts="refuse").send(self.REQUESTS)
        assert [isinstance(reply, Refusal) for reply in replies] == [True, False, True]

    def test_are_drawn_otherwise_in_chunks_and_short_ones_alike(self, sdxl, tools):
        cut, chunked = (sdxl(long_prompts=manner).send(self.REQUESTS) for manner in ("cut", "chunk"))
        assert not tools.same(cut[:1], chunked[:1])
        assert tools.same(cut[1:2], chunked[1:2])
        assert not tools.same(cut[2:], chunked[2:])

    def test_chunks_of_any_number_share_no_batch_with_others(self, sdxl, tools):
        requests = [
            ImageRequest(prompt=" ".join([LONG] * times), draw=draw, size=(16, 16))
            for times in (1, 2)
            for draw in (0, 1)
        ]
        painter = sdxl(long_prompts="chunk")
        images = painter.send([*requests, *self.REQUESTS])
        assert tools.same([painter.send([request])[0] for request in requests], images[:4])

    def test_the_end_of_a_prompt_reaches_the_embedding_in_chunks_and_not_when_cut(self, sdxl):
        import torch

        from privolve.adapters.local.long_prompts import chunk_encoded

        painter = sdxl(long_prompts="chunk")
        prompts = (LONG, "cat dog house tree stone")
        with torch.inference_mode():
            one, other = (chunk_encoded(painter._drawer, [painter._reader.chunks(prompt)], "") for prompt in prompts)
        assert one["prompt_embeds"].shape[1] == 2 * 16
        assert one["negative_prompt_embeds"].shape == one["prompt_embeds"].shape
        assert not torch.equal(one["prompt_embeds"], other["prompt_embeds"])

    def test_chunks_hold_every_word_in_order_and_each_is_read_whole(self, sdxl):
        reader = sdxl()._reader
        prompt = "  ".join([LONG, "averyverylongwordthatfitsnowhereatall", LONG, "."])
        chunks = reader.chunks(prompt)
        assert "".join("".join(chunks).split()) == "".join(prompt.split())
        assert all(reader.tokens(chunk) <= reader.limit for chunk in chunks)
        assert reader.chunks("a cat") == ["a cat"]


def test_what_the_safety_checker_withholds_is_refused(sdxl, monkeypatch):
    painter = sdxl(steps=1)
    original = type(painter._drawer).__call__

    class Flagging(type(painter._drawer)):
        def __call__(self, **asked):
            output = original(self, **asked)
            output["nsfw_content_detected"] = [True, False]
            return output

    monkeypatch.setattr(painter._drawer, "__class__", Flagging)
    requests = [ImageRequest(prompt="a cat", draw=draw, size=(16, 16)) for draw in (0, 1)]
    assert [isinstance(reply, Refusal) for reply in painter.send(requests)] == [True, False]


@pytest.mark.parametrize(
    ("settings", "match"),
    [({"scheduler": "NoSuchScheduler"}, "no scheduler"), ({"offload": "model"}, "accelerator")],
)
def test_a_setting_that_cannot_be_is_one_line(folder_of, settings, match):
    with pytest.raises(AdapterUnavailable, match=match) as caught:
        DiffusersConfig(model=folder_of("sdxl"), **settings).open()
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_flux_draws_and_varies_and_reads_as_far_as_its_longest_encoder(folder_of, tools):
    painter = DiffusersConfig(model=folder_of("flux"), steps=2, native_size=(16, 16)).open()
    requests = [ImageRequest(prompt="a cat", draw=draw, size=(10, 12)) for draw in range(3)]
    requests += [ImageVariationRequest(image=tools.noise(1)[0], prompt="a", degree=0.5, draw=0)]
    images = painter.send(requests)
    assert [wrong_with(request, image) for request, image in zip(requests, images, strict=True)] == [""] * 4
    assert tools.same([painter.send([request])[0] for request in requests], images)
    assert painter._reader.limit == 512
    with pytest.raises(AdapterUnavailable, match="cannot read a prompt in chunks"):
        DiffusersConfig(model=folder_of("flux"), steps=2, long_prompts="chunk").open()
