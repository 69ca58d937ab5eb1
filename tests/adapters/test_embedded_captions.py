"""The writer, the painter and the captioner speak one language."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from privolve.adapters.contract import CaptionRequest, Image, ImageRequest, Location, Message, Refusal, TextRequest
from privolve.adapters.embedded.characters import name_of
from privolve.adapters.embedded.draws import Stream
from privolve.adapters.embedded.fonts import faces
from privolve.adapters.embedded.glyph_captioner import GlyphCaptionerConfig
from privolve.adapters.embedded.glyph_drawing import NUMBERS, glyph_of
from privolve.adapters.embedded.glyph_painter import GlyphPainterConfig
from privolve.adapters.embedded.lexicon import LexiconConfig
from privolve.adapters.embedded.wording import ATTRIBUTES, BY_PARAMETER, FONT_FAMILIES, any_level, compose, fill, read
from privolve.prompts.masking import mask
from privolve.prompts.template import load

LEXICON = LexiconConfig().open()
PAINTER = GlyphPainterConfig().open()


def write(content: str, draw: int = 0, **options: Any) -> str:
    [reply] = LEXICON.send([TextRequest(messages=(Message(role="user", content=content),), draw=draw, **options)])
    assert isinstance(reply, str)
    return reply


def paint(captions: Sequence[str], size: tuple[int, int] = (28, 28), draw: int = 0) -> list[Image]:
    replies = PAINTER.send([ImageRequest(prompt=words, draw=draw, size=size, channels=1) for words in captions])
    assert all(isinstance(reply, Image) for reply in replies)
    return list(replies)  # pyright: ignore[reportReturnType]


def any_attributes(stream: Stream) -> dict[str, int]:
    return {attribute.parameter: any_level(attribute, stream) for attribute in ATTRIBUTES if stream.chance(0.5)}


def test_the_vocabulary_covers_every_parameter_and_no_phrase_means_two_things() -> None:
    assert set(BY_PARAMETER) == {*NUMBERS, "font"}
    phrases = [phrase for attribute in ATTRIBUTES for level in attribute.levels for phrase in level.phrases]
    assert len(phrases) == len(set(phrases))
    assert len(FONT_FAMILIES) == len(BY_PARAMETER["font"].levels)
    assert {font for family in FONT_FAMILIES for font in family} <= set(faces())


def test_what_is_written_is_read_again() -> None:
    for number in range(500):
        stream = Stream("test", number)
        said = any_attributes(stream)
        assert read(compose("k", said, stream)) == ("k", said)


def test_new_captions_are_of_the_label_and_differ_by_draw() -> None:
    captions = [write('Write a caption of about 20 words for "digit 3".', draw) for draw in range(50)]
    assert len(set(captions)) > 45
    assert {read(caption)[0] for caption in captions} == {"3"}


def test_a_rephrased_caption_says_mostly_the_same_in_other_words() -> None:
    sample = compose("5", {"size": 3, "weight": 3, "slant": 3, "font": 1, "x": 1}, Stream("sample"))
    same, texts = [], set()
    for draw in range(100):
        text = write(f"Say it in other words.\nText: {sample}", draw)
        character, said = read(text)
        assert character == "5"
        texts.add(text)
        same.append(np.mean([said.get(name) == level for name, level in read(sample)[1].items()]))
    assert len(texts) > 60
    assert 0.7 < float(np.mean(same)) < 1


def test_filling_keeps_what_is_left_and_redraws_what_is_blank() -> None:
    masked = "A _, bold, slanted digit 3 in a serif _, _ _ _ _."
    sizes, extras = set(), 0
    for draw in range(100):
        character, said = read(write(f"Fill the blanks.\nText: {masked}", draw))
        assert character == "3"
        assert said.items() >= {"weight": 3, "slant": 3, "font": 1}.items()
        sizes.add(tuple(sorted(set(said) - {"weight", "slant", "font"})))
        extras += len(said) - 3
    assert len(sizes) > 20 and extras > 100


@pytest.mark.parametrize(
    ("masked", "parameter", "levels"),
    [
        ("the digit 3, _ far _ the right", "x", {4}),
        ("the digit 3, shifted _ the _", "x", {1, 3}),
        ("the digit 3, tipped gently _", "rotation", {1, 3}),
        ("the digit 3, with _ edges", "blur", {0, 1, 2, 3}),
        ("the digit 3 in _ _ typeface", "font", {0, 1, 2, 3, 4}),
        ("the digit 3, with a _ waist", "waist", {0, 2}),
    ],
)
def test_a_blank_within_a_phrase_is_filled_in_context(masked: str, parameter: str, levels: set[int]) -> None:
    found = {fill(masked, Stream("context", draw))[1].get(parameter) for draw in range(200)}
    assert found == levels


def test_a_masked_caption_loses_what_was_masked_and_nothing_else() -> None:
    rng = np.random.default_rng()
    for number in range(100):
        stream = Stream("mask", number)
        said = any_attributes(stream)
        masked = mask(compose("8", said, stream), 0.4, rng)
        left = dict(read(masked)[1])
        filled = fill(masked, stream)[1]
        assert filled.items() >= left.items()


def test_the_instruction_names_the_character_when_the_sample_lost_it() -> None:
    assert read(write('Complete the caption of "digit 6".\nText: a _ _ _, bold'))[0] == "6"


def test_a_request_without_a_character_is_refused() -> None:
    messages = (Message(role="user", content="Describe a bedroom."),)
    [reply] = LEXICON.send([TextRequest(messages=messages, draw=0)])
    assert isinstance(reply, Refusal)


def test_captions_keep_to_a_length_limit() -> None:
    for draw in range(30):
        assert len(write('A caption of "digit 3"', draw, max_tokens=12).split()) <= 12


def test_a_reply_of_the_writer_depends_on_messages_and_draw_alone() -> None:
    requests = [
        TextRequest(
            messages=(Message(role="user", content=f"digit {i % 10}\nText: a bold digit {i % 10}, _ _ _"),), draw=i
        )
        for i in range(40)
    ]
    together = LEXICON.send(requests)
    assert [LEXICON.send([request])[0] for request in reversed(requests)] == list(together)[::-1]


@pytest.mark.parametrize("name", ["vary/glyphs-rephrase", "vary/glyphs-fill", "initial/glyphs"])
def test_the_templates_suit_the_writer(name: str) -> None:
    template, rng = load(name), np.random.default_rng()
    for label in ("7", "letter q", "capital letter A"):
        character = {"7": "7", "letter q": "q", "capital letter A": "A"}[label]
        sample = compose(character, {"weight": 3, "font": 1}, Stream(label))
        values = {"label": label, "sample": sample, "masked_sample": mask(sample, 0.5, rng), "word_count": "9"}
        messages = tuple(Message(role=role, content=content) for role, content in template.render(values, rng))
        [reply] = LEXICON.send([TextRequest(messages=messages, draw=0)])
        assert isinstance(reply, str) and read(reply)[0] == character
        assert template.parse(reply) == reply


def test_the_painter_draws_what_the_caption_says() -> None:
    captions = ["a hairline digit 0", "a heavy digit 0", "a tiny digit 0", "a huge digit 0"]
    thin, fat, tiny, huge = (int(image.pixels.sum()) for image in paint(captions))
    assert thin < fat and tiny < huge
    left, right = (
        image.pixels[:, :, 0]
        for image in paint(["digit 1 shifted far to the left", "digit 1 shifted far to the right"])
    )
    assert left[:, :14].sum() > left[:, 14:].sum() and right[:, :14].sum() < right[:, 14:].sum()


def test_words_that_the_painter_does_not_know_change_nothing_that_the_caption_means() -> None:
    one, other = paint(
        ["a bold digit 4, slanted", "Behold! a bold digit 4, wonderfully green but slanted, on an oak table"], draw=1
    )
    first, second = glyph_of(one.recipe), glyph_of(other.recipe)
    assert first is not None and second is not None
    assert (first.character, second.character) == ("4", "4")
    assert abs(first.weight - second.weight) < 0.02 and abs(first.slant - second.slant) < 10


def test_draws_of_one_caption_are_near_each_other_but_not_equal() -> None:
    images = [paint(["a bold, slanted digit 4 in a serif font"], draw=draw)[0] for draw in range(10)]
    assert len({image.recipe for image in images}) == 10
    [other] = paint(["a hairline, upright digit 4 in an italic font"])
    near = np.mean([np.abs(images[0].pixels.astype(int) - image.pixels).mean() for image in images[1:]])
    assert near < np.abs(images[0].pixels.astype(int) - other.pixels).mean()


def test_a_caption_without_a_character_is_refused() -> None:
    requests = [ImageRequest(prompt=words, draw=0, size=(8, 8)) for words in ("a bold shape", "", "the digit 3")]
    shapeless, empty, three = PAINTER.send(requests)
    assert isinstance(shapeless, Refusal) and isinstance(empty, Refusal) and isinstance(three, Image)


@pytest.fixture(scope="module")
def captioner() -> Any:
    return GlyphCaptionerConfig(characters="0123", per_character=60).open()


def describe(captioner: Any, images: Sequence[Image]) -> list[str]:
    return list(captioner.send([CaptionRequest(image=image, prompt="Describe.", draw=0) for image in images]))


def test_the_captioner_says_what_drew_an_image_of_its_bank(captioner: Any) -> None:
    captions = [
        LEXICON.write(character, Stream("bank", name_of(character), n)) for character in "0123" for n in range(20)
    ]
    exact = GlyphPainterConfig(jitter=0).open()
    images = exact.send([ImageRequest(prompt=words, draw=0, size=(28, 28), channels=1) for words in captions])
    found = describe(captioner, [image for image in images if isinstance(image, Image)])
    # Two captions may draw one picture; the first is found.
    assert np.mean([one == other for one, other in zip(found, captions, strict=True)]) > 0.9


def test_the_captioner_reads_most_characters_of_other_drawings(captioner: Any) -> None:
    images = paint([f"a digit {i % 4}" for i in range(100)], draw=7)
    read_as = [read(words)[0] for words in describe(captioner, images)]
    assert np.mean([character == str(i % 4) for i, character in enumerate(read_as)]) > 0.7


def test_the_captioner_takes_images_of_any_size_and_colour_one_by_one_or_together(captioner: Any) -> None:
    rng = np.random.default_rng()
    shapes = [(8, 8, 1), (28, 28, 3), (90, 60, 3), (1, 1, 1), (28, 28, 1)]
    images = [Image(rng.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes for _ in range(3)]
    together = describe(captioner, images)
    assert [describe(captioner, [image])[0] for image in images] == together
    assert captioner.location is Location.LOCAL
