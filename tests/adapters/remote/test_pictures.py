from __future__ import annotations

import base64
import io

import numpy as np
import PIL.Image
import pytest

from privolve.adapters.contract import Image
from privolve.adapters.remote.pictures import NoPicture, fitted, from_base64, nearest_size, parse_size, png


def encoded(picture: PIL.Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind)
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_the_pixels_exactly(channels):
    pixels = np.random.default_rng(1).integers(0, 256, (5, 9, channels)).astype(np.uint8)
    assert np.array_equal(fitted(png(Image(pixels)), (9, 5), channels).pixels, pixels)


def test_a_picture_of_another_shape_is_cut_around_its_middle():
    picture = PIL.Image.new("RGB", (300, 100), "red")
    picture.paste("green", (100, 0, 200, 100))
    pixels = fitted(encoded(picture), (10, 10), 3).pixels
    assert pixels.shape == (10, 10, 3)
    assert (pixels == np.array([0, 128, 0])).all()


def test_what_is_transparent_becomes_white():
    assert (fitted(encoded(PIL.Image.new("RGBA", (4, 4), (0, 0, 0, 0))), (4, 4), 3).pixels == 255).all()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_the_formats_of_providers_are_read(kind):
    assert fitted(encoded(PIL.Image.new("RGB", (8, 8), "blue"), kind), (8, 8), 1).pixels.shape == (8, 8, 1)


def test_other_formats_and_broken_bytes_are_no_pictures():
    whole = encoded(PIL.Image.effect_noise((64, 64), 90))
    for data in (b"", b"nothing", whole[: len(whole) // 2], encoded(PIL.Image.new("RGB", (8, 8)), "GIF")):
        with pytest.raises(NoPicture):
            fitted(data, (8, 8), 3)


def test_a_bomb_is_not_unpacked():
    bomb = encoded(PIL.Image.new("1", (6_000, 6_000)))
    assert len(bomb) < 100_000
    with pytest.raises(NoPicture):
        fitted(bomb, (8, 8), 3)


def test_base64_is_read_strictly():
    assert from_base64(base64.b64encode(b"abc").decode()) == b"abc"
    for text in ("a", "!!!!", "YWJj\nYWJj ?"):
        with pytest.raises(NoPicture):
            from_base64(text)


def test_the_nearest_size_is_the_nearest_shape_and_then_the_smallest_that_holds_the_wanted():
    squares = ["256x256", "1024x1024", "512x512"]
    assert nearest_size(squares, (64, 64)) == (256, 256)
    assert nearest_size(squares, (300, 300)) == (512, 512)
    assert nearest_size(squares, (4000, 4000)) == (1024, 1024)
    assert nearest_size(["1024x1024", "1536x1024", "1024x1536"], (32, 100)) == (1024, 1536)


def test_a_size_is_two_numbers():
    assert parse_size("1328*1328") == (1328, 1328)
    with pytest.raises(ValueError, match="1024x1024"):
        parse_size("large")
