"""The simulator of images and the painter: what they draw, and that a reply is a function of its request."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from privolve.adapters.contract import AdapterUnavailable, Image, ImageRequest, ImageVariationRequest, Location, Refusal
from privolve.adapters.embedded.characters import ALPHABET, character_in, character_of, name_of
from privolve.adapters.embedded.fonts import faces, faces_with, shape
from privolve.adapters.embedded.glyph_drawing import NUMBERS, Glyph, draw, glyph_of, recipe
from privolve.adapters.embedded.glyph_painter import GlyphPainterConfig
from privolve.adapters.embedded.glyphs import GlyphsConfig

GLYPHS = GlyphsConfig().open()


def random_requests(count: int, size: tuple[int, int] = (28, 28), channels: int = 1) -> list[ImageRequest]:
    return [ImageRequest(prompt=str(i % 10), draw=i, size=size, channels=channels) for i in range(count)]


def variation_requests(images: Sequence[Image], degree: float) -> list[ImageVariationRequest]:
    return [ImageVariationRequest(image=image, prompt="", degree=degree, draw=i) for i, image in enumerate(images)]


def pictures(replies: Sequence[Any]) -> list[Image]:
    assert all(isinstance(reply, Image) for reply in replies)
    return list(replies)


def test_every_label_of_digits_and_letters_is_drawn_by_most_fonts() -> None:
    assert all(len(faces_with(character)) >= 20 for character in ALPHABET)


def test_symbol_fonts_are_left_out_and_the_face_of_pillow_is_there() -> None:
    assert {"DejaVuSans", "STIXGeneral", "cmr10", "Aileron"} <= set(faces())
    assert not [name for name in faces() if any(part in name for part in ("Siz", "cmsy", "cmex", "LastResort"))]


def test_a_character_that_a_font_lacks_is_an_error_that_names_those_that_have_it() -> None:
    with pytest.raises(ValueError, match=r"cmr10.*'Ч'.*DejaVuSans"):
        shape("cmr10", "Ч")


@pytest.mark.parametrize(("size", "channels"), [((28, 28), 1), ((8, 8), 1), ((32, 32), 3), ((20, 40), 3), ((1, 1), 1)])
def test_images_have_the_size_and_the_channels_that_were_asked_for(size: tuple[int, int], channels: int) -> None:
    for image in pictures(GLYPHS.send(random_requests(10, size, channels))):
        assert image.pixels.shape == (size[1], size[0], channels)
        assert image.pixels.dtype == np.uint8


def test_ink_is_white_on_black_and_can_be_black_on_white() -> None:
    white = pictures(GLYPHS.send(random_requests(20)))
    black = pictures(GlyphsConfig(ink="black").open().send(random_requests(20)))
    for one, other in zip(white, black, strict=True):
        assert np.array_equal(one.pixels, 255 - other.pixels)
        assert one.pixels.mean() < 100 and one.pixels.max() > 60


def test_a_glyph_fills_the_box_of_its_size_in_the_middle_of_the_image() -> None:
    glyphs = [
        Glyph(character=character, font=font, size=20 / 28, slant=slant, rotation=turn, stretch=stretch)
        for font in ("DejaVuSans", "cmr10", "Aileron")
        for character in "0148Wa"
        for slant, turn, stretch in ((0, 0, 1), (30, 0, 1), (0, 25, 0.6), (-10, -20, 1.4))
    ]
    for image in draw(glyphs, size=(28, 28), channels=1):
        rows = np.flatnonzero(image.pixels[:, :, 0].max(1) > 100)
        columns = np.flatnonzero(image.pixels[:, :, 0].max(0) > 100)
        longer = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
        assert 17 <= longer <= 22
        assert abs(rows[0] + rows[-1] - 27) <= 3 and abs(columns[0] + columns[-1] - 27) <= 3


def test_centring_by_mass_puts_the_mass_in_the_middle_as_mnist_does() -> None:
    glyphs = [Glyph(character=character, font="DejaVuSans") for character in "0123456789"]
    for image in draw(glyphs, size=(28, 28), channels=1, centre="mass"):
        weights = image.pixels[:, :, 0].astype(float)
        middle = np.arange(28) + 0.5
        assert abs((weights.sum(1) @ middle) / weights.sum() - 14) < 0.7
        assert abs((weights.sum(0) @ middle) / weights.sum() - 14) < 0.7


@pytest.mark.parametrize(
    ("parameter", "low", "high"), [("weight", 0.03, 0.09), ("size", 0.5, 0.9), ("stretch", 0.6, 1.4)]
)
def test_more_weight_size_or_width_is_more_ink(parameter: str, low: float, high: float) -> None:
    for character in "0358":
        thin, fat = draw(
            [Glyph(character=character, font="DejaVuSerif", **{parameter: value}) for value in (low, high)],
            size=(28, 28),
            channels=1,
        )
        assert fat.pixels.sum() > 1.15 * thin.pixels.sum()


def test_offset_slant_and_rotation_move_the_ink_the_way_they_say() -> None:
    def ink(**numbers: float) -> np.ndarray:
        [image] = draw([Glyph(character="l", font="DejaVuSans", **numbers)], size=(28, 28), channels=1)
        return image.pixels[:, :, 0].astype(float)

    def across(rows: np.ndarray) -> float:
        return float(rows.sum(0) @ np.arange(28) / rows.sum())

    assert across(ink(x=0.1)) == pytest.approx(across(ink()) + 2.8, abs=0.1)
    assert across(ink(y=0.1).T) == pytest.approx(across(ink().T) + 2.8, abs=0.1)
    assert across(ink(slant=20)[:14]) > across(ink(slant=20)[14:]) + 2
    assert across(ink(rotation=20)[:14]) < across(ink(rotation=20)[14:]) - 2


def test_every_parameter_changes_the_picture() -> None:
    plain = Glyph(character="5", font="STIXGeneral")
    other = {"size": 0.9, "weight": 0.09, "stretch": 0.7, "slant": 15, "rotation": 15, "stroke": 1, "blur": 0.08}
    other |= {"bend": 0.1, "wave": 0.08, "taper": 0.3, "waist": 0.1, "x": 0.05, "y": 0.05}
    assert set(other) == set(NUMBERS)
    for name, value in other.items():
        changed = Glyph(**{**vars(plain), name: value})
        before, after = draw([plain, changed], size=(28, 28), channels=1)
        assert np.abs(before.pixels.astype(int) - after.pixels).max() > 20, name


def test_a_recipe_draws_the_same_picture_again() -> None:
    for image in pictures(GLYPHS.send(random_requests(30))):
        glyph = glyph_of(image.recipe)
        assert glyph is not None and recipe(glyph) == image.recipe
        [again] = draw([glyph], size=(28, 28), channels=1)
        assert np.array_equal(again.pixels, image.pixels)


@pytest.mark.parametrize("size", [(28, 28), (8, 8)])
def test_a_reply_does_not_depend_on_what_is_sent_beside_it(size: tuple[int, int]) -> None:
    requests = random_requests(60, size)
    together = pictures(GLYPHS.send(requests))
    varied = variation_requests(together, 0.7)
    varied_together = pictures(GLYPHS.send([*varied, *requests[:5]]))
    for i in range(60):
        [alone] = pictures(GLYPHS.send([requests[i]]))
        [varied_alone] = pictures(GLYPHS.send([varied[i]]))
        assert alone.recipe == together[i].recipe and np.array_equal(alone.pixels, together[i].pixels)
        assert varied_alone.recipe == varied_together[i].recipe
        assert np.array_equal(varied_alone.pixels, varied_together[i].pixels)


def test_another_process_draws_the_same() -> None:
    code = (
        "from privolve.adapters.contract import ImageRequest;"
        "from privolve.adapters.embedded.glyphs import GlyphsConfig;"
        "print(GlyphsConfig().open().send([ImageRequest(prompt='7', draw=3, size=(8, 8), channels=1)])[0].recipe)"
    )
    [here] = pictures(GLYPHS.send([ImageRequest(prompt="7", draw=3, size=(8, 8), channels=1)]))
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here.recipe


def test_draws_differ_and_equal_draws_do_not() -> None:
    first, again, other = pictures(
        GLYPHS.send([ImageRequest(prompt="3", draw=draw_, size=(28, 28), channels=1) for draw_ in (1, 1, 2)])
    )
    assert first.recipe == again.recipe != other.recipe


def test_the_name_of_a_class_is_enough() -> None:
    for label, character in {"digit 3": "3", "three": "3", "capital letter B": "B", "x": "x"}.items():
        [image] = pictures(GLYPHS.send([ImageRequest(prompt=label, draw=0, size=(8, 8), channels=1)]))
        assert json.loads(image.recipe)["character"] == character


def test_a_prompt_without_a_character_is_refused_beside_answers() -> None:
    requests = [ImageRequest(prompt=prompt, draw=0, size=(8, 8)) for prompt in ("3", "a photograph of a cat", "\u4e2d")]
    answer, refused, unknown = GLYPHS.send(requests)
    assert isinstance(answer, Image) and isinstance(refused, Refusal) and isinstance(unknown, Refusal)


def test_a_variation_of_degree_0_is_the_parent_and_more_degree_is_more_change() -> None:
    parents = pictures(GLYPHS.send(random_requests(200)))
    changes = []
    for degree in (0.0, 0.2, 0.5, 1.0):
        children = pictures(GLYPHS.send(variation_requests(parents, degree)))
        pairs = zip(parents, children, strict=True)
        changes.append(np.mean([np.abs(one.pixels.astype(int) - other.pixels).mean() for one, other in pairs]))
    assert changes[0] == 0
    assert changes[0] < changes[1] < changes[2] < changes[3]


def test_fonts_change_as_often_as_degree_and_option_say() -> None:
    parents = pictures(GLYPHS.send(random_requests(2000, (1, 1))))

    def share(config: GlyphsConfig, degree: float) -> float:
        children = pictures(config.open().send(variation_requests(parents, degree)))
        pairs = zip(parents, children, strict=True)
        return float(np.mean([json.loads(a.recipe)["font"] != json.loads(b.recipe)["font"] for a, b in pairs]))

    # Seven standard deviations of 2,000 draws.
    assert share(GlyphsConfig(font_change=0.5), 0.6) == pytest.approx(0.3, abs=0.072)
    assert share(GlyphsConfig(font_change=0.0), 1.0) == 0


def test_variations_keep_the_character_and_stay_within_the_ranges() -> None:
    config = GlyphsConfig(size=(0.7, 0.8), rotation=(0.0, 0.0))
    adapter = config.open()
    images = pictures(adapter.send(random_requests(50)))
    for step in range(3):
        varied = variation_requests(images, 1.0)
        images = pictures(adapter.send(varied))
        for row, image in enumerate(images):
            glyph = glyph_of(image.recipe)
            assert glyph is not None and glyph.character == str(row % 10), step
            for name in NUMBERS:
                low, high = getattr(config, name)
                assert low - 1e-4 <= getattr(glyph, name) <= high + 1e-4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "null",
        "[]",
        "a red cube",
        '{"character":"3","font":"no such font"}',
        '{"character":"33","font":"cmr10"}',
        '{"character":"3","font":"cmr10","size":NaN}',
        '{"character":"3","font":"cmr10","size":"big"}',
        '{"character":"3","font":"cmr10","colour":1}',
        '{"character":"3","font":["cmr10"]}',
    ],
)
def test_an_image_that_was_not_drawn_here_cannot_be_varied(text: str) -> None:
    image = Image(np.zeros((8, 8, 1), dtype=np.uint8), text)
    [reply] = GLYPHS.send(variation_requests([image], 0.5))
    assert isinstance(reply, Refusal)


def test_options_are_checked_and_fonts_can_be_chosen() -> None:
    with pytest.raises(ValidationError, match="low to high"):
        GlyphsConfig(size=(0.9, 0.5))
    with pytest.raises(ValidationError):
        GlyphsConfig.model_validate({"kind": "glyphs", "colour": "red"})
    with pytest.raises(ValidationError):
        GlyphsConfig(kind="pixels")
    with pytest.raises(AdapterUnavailable, match=r"no font Comic.*cmr10"):
        GlyphsConfig(fonts=("Comic",)).open()
    images = pictures(GlyphsConfig(fonts=("cmr10", "cmss10")).open().send(random_requests(40)))
    assert {json.loads(image.recipe)["font"] for image in images} == {"cmr10", "cmss10"}


def test_options_are_part_of_the_identity() -> None:
    assert GlyphsConfig().open().identity == GLYPHS.identity
    assert GlyphsConfig(step=0.1).open().identity != GLYPHS.identity
    assert GLYPHS.location is Location.LOCAL is GlyphsConfig.location


def test_no_request_is_no_reply() -> None:
    assert GLYPHS.send([]) == []
    assert GlyphPainterConfig().open().send([]) == []


def test_random_digits_teach_a_linear_classifier_more_than_a_third_of_real_ones() -> None:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    images = pictures(GLYPHS.send(random_requests(1000, (8, 8))))
    drawn = np.stack([image.pixels.reshape(-1) for image in images]) / 255
    real, labels = load_digits(return_X_y=True)
    classifier = LogisticRegression(max_iter=300).fit(drawn, np.arange(1000) % 10)
    assert classifier.score(real / 16, labels) > 0.35


@pytest.mark.parametrize(
    ("label", "character"),
    [
        *[(label, "7") for label in ("7", "digit_7", "7 - seven", "SEVEN", "number seven", "class 7")],
        *[("letter a", "a"), ("uppercase letter a", "A"), ("Capital B", "B")],
        *[(label, None) for label in ("cat", "12", "", "3 or 4")],
    ],
)
def test_labels_are_understood(label: str, character: str | None) -> None:
    assert character_of(label) == character


@pytest.mark.parametrize(
    ("text", "character"),
    [
        ("A bold digit 3, slanted.", "3"),
        ("Write one sentence of 25 words on the number three.", "3"),
        ('the character called "digit 8" in 5 words', "8"),
        ('the character called "Q"', "Q"),
        ("the lowercase letter b", "b"),
        ("the letter Z.", "Z"),
        ("a 4 on black", "4"),
        ("One large image of a cat, with an s-curve and 2.5 legs", None),
    ],
)
def test_sentences_are_searched_for_a_character(text: str, character: str | None) -> None:
    assert character_in(text) == character


def test_names_of_characters_are_understood_again() -> None:
    for character in ALPHABET:
        assert character_of(name_of(character)) == character
        assert character_in(f"A small, thin {name_of(character)}, in a serif font.") == character
