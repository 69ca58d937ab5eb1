"""`transformers-caption` on tiny models of three manners: BLIP, a chat model that sees, and an encoder with a decoder."""

from __future__ import annotations

import pytest

from privolve.adapters.contract import AdapterUnavailable, CaptionRequest, Image, Refusal
from privolve.adapters.local.captioner import TransformersCaptionConfig

MODELS = ["blip", "llava", "image_to_words"]


@pytest.fixture(params=MODELS)
def opened(request, folder_of):
    def captioner(**settings):
        return TransformersCaptionConfig(model=folder_of(request.param), **{"max_tokens": 8, **settings}).open()

    return captioner


@pytest.fixture
def requests(tools):
    images = [*tools.noise(3), *tools.noise(2, (16, 16, 1), seed=1)]
    return [
        CaptionRequest(image=image, prompt=prompt, draw=draw)
        for image in images
        for prompt in ("a photo of", "the big house")
        for draw in (0, 1)
    ]


def test_a_caption_does_not_depend_on_its_batch(opened, requests):
    captioner = opened(temperature=1.0, batch_size=4)
    captions = captioner.send(requests)
    assert all(isinstance(caption, str) for caption in captions)
    assert len(set(captions)) > 5
    assert captioner.send(requests[::-1])[::-1] == captions
    assert captioner.send(requests[3:4]) == captions[3:4]


def test_without_temperature_the_caption_is_of_the_image_alone(opened, tools):
    images = tools.noise(4)
    first, second = (
        opened().send([CaptionRequest(image=image, prompt="a photo", draw=draw) for image in images]) for draw in (0, 1)
    )
    assert first == second


def test_a_caption_is_no_longer_than_asked(opened, tools):
    [image] = tools.noise(1)
    asked = [CaptionRequest(image=image, prompt="a photo", draw=0, max_tokens=limit) for limit in (1, 8)]
    short, long = opened(batch_size=2).send(asked)
    assert len(short.split()) <= 1
    assert long.startswith(short)


def test_a_caption_ends_where_the_model_can_write_no_further(opened, tools):
    [image] = tools.noise(1)
    [caption] = opened(batch_size=1).send([CaptionRequest(image=image, prompt="a photo", draw=0, max_tokens=5000)])
    assert isinstance(caption, str)


def test_a_prompt_that_leaves_no_room_is_refused(folder_of, tools):
    captioner = TransformersCaptionConfig(model=folder_of("llava")).open()
    [image] = tools.noise(1)
    [reply] = captioner.send([CaptionRequest(image=image, prompt="cat " * 200, draw=0)])
    assert isinstance(reply, Refusal)


def test_grey_images_are_read_as_colour(folder_of, tools):
    captioner = TransformersCaptionConfig(model=folder_of("blip"), max_tokens=6).open()
    [grey] = tools.noise(1, (20, 20, 1))
    colour = Image(grey.pixels.repeat(3, axis=2))
    one, other = captioner.send([CaptionRequest(image=image, prompt="", draw=0) for image in (grey, colour)])
    assert one == other


def test_a_prefix_begins_the_caption_of_a_model_that_reads_no_instructions(folder_of, tools):
    captioner = TransformersCaptionConfig(model=folder_of("blip"), prefix="a photo of", max_tokens=5).open()
    requests = [CaptionRequest(image=image, prompt="Describe it.", draw=0) for image in tools.noise(2)]
    for caption in captioner.send(requests):
        assert caption.startswith("a photo of")
        assert caption.count("a photo of") == 1


def test_a_chat_model_reads_the_prompt_of_the_request(folder_of, tools):
    captioner = TransformersCaptionConfig(model=folder_of("llava"), max_tokens=8).open()
    [image] = tools.noise(1)
    prompts = ["the dog", "a big red house of the cat", "lamp"]
    captions = captioner.send([CaptionRequest(image=image, prompt=prompt, draw=0) for prompt in prompts])
    assert len(set(captions)) > 1


@pytest.mark.parametrize("name", ["llava", "image_to_words"])
def test_a_prefix_that_would_be_ignored_is_refused(name, folder_of):
    with pytest.raises(AdapterUnavailable, match="leave `prefix` out"):
        TransformersCaptionConfig(model=folder_of(name), prefix="a photo of").open()
