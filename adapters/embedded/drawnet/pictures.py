"""What the network learns from: characters in many faces, plain shapes and textures, drawn from numbers. No real picture.

A picture is an ink over a ground: the ink covers a character, a shape or a texture; colours, blur, grain and coarse pixels
come on top. The labels say what was drawn, the attributes how, so that features keep what a reader of pictures would miss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..fonts import faces_with
from ..glyph_drawing import Glyph, draw

SIDE = 32
CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghijmnqrtyαβγδεζηθλμξπρσφψωΓΔΛΞΣΦΨΩЖЯЮЩфы&@#?!%$+*=<>{}§∞∂∫√"
SHAPES = (
    "disc",
    "ring",
    "square",
    "frame",
    "triangle",
    "pentagon",
    "star",
    "flower",
    "plus",
    "half disc",
    "crescent",
    "bar",
    "heart",
    "two discs",
)
TEXTURES = (
    "stripes",
    "checks",
    "dots",
    "target",
    "gradient",
    "glow",
    "grain",
    "clouds",
    "islands",
    "grid",
    "waves",
    "cells",
    "bricks",
)
CLASSES = (*CHARACTERS, *SHAPES, *TEXTURES)
ATTRIBUTES = ("red", "green", "blue", "contrast", "blur", "noise", "size", "rotation", "line")
"""What is regressed beside the class; the last three are of characters alone and 0 elsewhere."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """`pixels` uint8 (n, 32, 32, 3); `labels` index CLASSES; `attributes` float32 (n, 9), each of about unit size."""

    pixels: np.ndarray
    labels: np.ndarray
    attributes: np.ndarray


def pictures(count: int, *, seed: tuple[int, ...]) -> Pictures:
    """`count` pictures: two thirds characters, a sixth shapes, a sixth textures. The seed's alone, with equal libraries."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, size=count, p=[2 / 3, 1 / 6, 1 / 6])
    first = np.array([0, len(CHARACTERS), len(CHARACTERS) + len(SHAPES)])
    size = np.array([len(CHARACTERS), len(SHAPES), len(TEXTURES)])
    labels = first[kind] + (rng.random(count) * size[kind]).astype(np.int64)
    cover = np.empty((count, SIDE, SIDE), dtype=np.float32)
    about = np.zeros((count, 3), dtype=np.float32)
    rows = np.flatnonzero(kind == 0)
    cover[rows], about[rows] = _characters(labels[rows], rng)
    for row in np.flatnonzero(kind > 0).tolist():
        cover[row] = _figure(CLASSES[labels[row]], rng)
    coloured = _coloured(cover, rng)
    spoilt, blur, noise = _spoilt(coloured, rng)
    pixels = np.clip(np.rint(spoilt * 255), 0, 255).astype(np.uint8)
    colour = 4 * (coloured.mean(axis=(1, 2)) - 0.5)
    contrast = 8 * (coloured.std(axis=(1, 2)).mean(axis=1, keepdims=True) - 0.2)
    attributes = np.concatenate([colour, contrast, blur[:, None], noise[:, None], about], axis=1)
    return Pictures(pixels=pixels, labels=labels, attributes=attributes.astype(np.float32))


# --- what is drawn ----------------------------------------------------------------------------------------------------


def _characters(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    glyphs: list[Glyph] = []
    for label in labels.tolist():
        character = CHARACTERS[label]
        faces = faces_with(character)
        warp = rng.normal(0, 0.07, size=4)
        glyphs.append(
            Glyph(
                character=character,
                font=faces[int(rng.integers(len(faces)))],
                size=float(rng.uniform(0.5, 0.95)),
                weight=float(rng.uniform(0.025, 0.11)),
                stretch=float(np.exp(rng.normal(0, 0.15))),
                slant=float(rng.normal(0, 10)),
                rotation=float(rng.normal(0, 8)),
                stroke=float(rng.uniform(0, 1)),
                bend=float(warp[0]),
                wave=float(warp[1]),
                taper=float(warp[2]),
                waist=float(warp[3]),
                x=float(rng.normal(0, 0.04)),
                y=float(rng.normal(0, 0.04)),
                blur=float(max(rng.uniform(-0.06, 0.06), 0)),
            )
        )
    drawn = draw(glyphs, size=(SIDE, SIDE), channels=1)
    about = [[(g.size - 0.72) * 7, g.rotation / 8, (g.weight - 0.067) * 35] for g in glyphs]
    cover = np.array([image.pixels[:, :, 0] for image in drawn], dtype=np.float32).reshape(-1, SIDE, SIDE)
    return cover / np.float32(255), np.array(about, dtype=np.float32).reshape(-1, 3)


_Y, _X = ((np.mgrid[:SIDE, :SIDE] + 0.5) / (SIDE / 2) - 1).astype(np.float32)


def _figure(name: str, rng: np.random.Generator) -> np.ndarray:
    """How much ink of a shape or a texture covers each pixel."""
    if name in _TEXTURES:
        return np.clip(_TEXTURES[name](rng), 0, 1)
    radius, turn = rng.uniform(0.35, 0.9), rng.uniform(0, 2 * np.pi)
    x, y = _turned(turn, *rng.uniform(-0.25, 0.25, size=2))
    outside = _SHAPES[name](x / radius, y / radius / rng.uniform(0.75, 1.3)) * radius
    return np.clip(0.5 - outside * (SIDE / 2), 0, 1)


def _turned(angle: float, dx: float = 0.0, dy: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    x, y = _X - dx, _Y - dy
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _polygon(x: np.ndarray, y: np.ndarray, sides: int) -> np.ndarray:
    angles = 2 * np.pi * np.arange(sides) / sides
    return np.max([x * np.cos(angle) + y * np.sin(angle) for angle in angles], axis=0) - 0.6


def _box(x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    return np.maximum(np.abs(x) - width, np.abs(y) - height)


_SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "disc": lambda x, y: np.hypot(x, y) - 0.9,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.75) - 0.17,
    "square": lambda x, y: _box(x, y, 0.75, 0.75),
    "frame": lambda x, y: np.abs(_box(x, y, 0.75, 0.75)) - 0.15,
    "triangle": lambda x, y: _polygon(x, y, 3) + 0.1,
    "pentagon": lambda x, y: _polygon(x, y, 5) - 0.15,
    "star": lambda x, y: np.hypot(x, y) - 0.6 - 0.35 * np.abs(np.cos(2.5 * np.arctan2(y, x))) ** 3 + 0.2,
    "flower": lambda x, y: np.hypot(x, y) - 0.7 - 0.25 * np.cos(6 * np.arctan2(y, x)),
    "plus": lambda x, y: np.minimum(_box(x, y, 0.95, 0.25), _box(x, y, 0.25, 0.95)),
    "half disc": lambda x, y: np.maximum(np.hypot(x, y) - 0.95, -y),
    "crescent": lambda x, y: np.maximum(np.hypot(x, y) - 0.9, 0.75 - np.hypot(x - 0.4, y)),
    "bar": lambda x, y: _box(x, y, 1.0, 0.18),
    "heart": lambda x, y: np.hypot(x, 0.9 * y - 0.65 * np.sqrt(np.abs(x)) + 0.15) - 0.8,
    "two discs": lambda x, y: np.minimum(np.hypot(x - 0.55, y), np.hypot(x + 0.55, y)) - 0.4,
}


def _soft(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A wave in [-1, 1] as ink, with edges from soft to sharp."""
    return 0.5 + values * rng.uniform(0.5, 4)


def _wave(rng: np.random.Generator, *, bent: float = 0.0) -> np.ndarray:
    x, y = _turned(rng.uniform(0, np.pi))
    frequency, phase = rng.uniform(1.5, 6), rng.uniform(0, 2 * np.pi)
    return np.sin(np.pi * frequency * x + phase + bent * np.sin(np.pi * rng.uniform(1, 2.5) * y))


def _crossed(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x, y = _turned(rng.uniform(0, np.pi), *rng.uniform(-0.5, 0.5, size=2))
    frequency = np.pi * rng.uniform(1.5, 4.5)
    return np.sin(frequency * x), np.sin(frequency * y)


def _clouds(rng: np.random.Generator) -> np.ndarray:
    """Noise whose power falls with the frequency, of unit variance."""
    waves = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.rfftfreq(SIDE), indexing="ij")) * SIDE
    spectrum = np.fft.rfft2(rng.normal(size=(SIDE, SIDE))) / (1 + waves) ** rng.uniform(1.2, 2.2)
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(SIDE, SIDE))
    return field / field.std()


def _cells(rng: np.random.Generator) -> np.ndarray:
    points = rng.uniform(-1.1, 1.1, size=(int(rng.integers(6, 20)), 2))
    distances = np.sort([np.hypot(_X - px, _Y - py) for px, py in points], axis=0)
    return (distances[1] - distances[0]) * rng.uniform(3, 8)


def _bricks(rng: np.random.Generator) -> np.ndarray:
    x, y = _turned(rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.1))
    rows = rng.uniform(1.5, 3.5)
    row = np.floor(y * rows)
    edge = np.minimum(np.abs((y * rows) % 1 - 0.5), 0.5)
    side = np.abs((x * rows / 2 + row / 2) % 1 - 0.5)
    return np.minimum((0.42 - edge) * 8, (0.46 - side) * 16)


_TEXTURES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "stripes": lambda rng: _soft(_wave(rng), rng),
    "checks": lambda rng: _soft(np.prod(_crossed(rng), axis=0) * 2, rng),
    "dots": lambda rng: _soft(np.sum(_crossed(rng), axis=0) - rng.uniform(0.8, 1.4), rng),
    "target": lambda rng: _soft(
        np.sin(np.pi * rng.uniform(2, 6) * np.hypot(*_turned(0.0, *rng.uniform(-0.6, 0.6, size=2)))), rng
    ),
    "gradient": lambda rng: 0.5 + _turned(rng.uniform(0, 2 * np.pi))[0] * rng.uniform(0.3, 0.8),
    "glow": lambda rng: np.exp(-(np.hypot(*_turned(0.0, *rng.uniform(-0.7, 0.7, size=2))) ** 2) * rng.uniform(0.7, 4)),
    "grain": lambda rng: 0.5 + rng.normal(size=(SIDE, SIDE)) * rng.uniform(0.15, 0.5),
    "clouds": lambda rng: 0.5 + _clouds(rng) * rng.uniform(0.15, 0.35),
    "islands": lambda rng: 0.5 + (_clouds(rng) - rng.uniform(-0.5, 0.5)) * 5,
    "grid": lambda rng: _soft(np.max(_crossed(rng), axis=0) * 2 - rng.uniform(1.5, 1.9), rng),
    "waves": lambda rng: _soft(_wave(rng, bent=rng.uniform(1.0, 2.5)), rng),
    "cells": _cells,
    "bricks": _bricks,
}


# --- how it looks -----------------------------------------------------------------------------------------------------


def _coloured(cover: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ink over ground: (n, 32, 32, 3) in [0, 1]; half of the pictures are grey, and half of these white on black."""
    count = len(cover)
    ink, ground = rng.random((2, count, 3)).astype(np.float32)
    grey = rng.random(count) < 0.5
    ink[grey], ground[grey] = ink[grey, :1], ground[grey, :1]
    # Ink and ground differ: where they are near, the ground goes to the other side.
    near = np.abs(ink - ground).mean(axis=1) < 0.25
    ground[near] = (ground[near] + 0.5) % 1
    plain = grey & (rng.random(count) < 0.5)
    ink[plain], ground[plain] = 1, 0
    uneven = ~plain & (rng.random(count) < 0.4)
    base = np.broadcast_to(ground[:, None, None, :], (count, SIDE, SIDE, 3)).copy()
    for row in np.flatnonzero(uneven).tolist():
        tint = rng.normal(size=3) if not grey[row] else np.ones(3)
        base[row] += (_clouds(rng)[:, :, None] * tint * rng.uniform(0.02, 0.1)).astype(np.float32)
    share = cover[:, :, :, None].astype(np.float32)
    return np.clip(base * (1 - share) + ink[:, None, None, :] * share, 0, 1)


def _coarse(factor: int) -> np.ndarray:
    """The matrix (32, 32) that averages `factor` pixels and interpolates between the averages."""
    parts = SIDE // factor
    down = np.repeat(np.eye(parts), factor, axis=1) / factor
    place = np.clip((np.arange(SIDE) + 0.5) / factor - 0.5, 0, parts - 1)
    left = np.minimum(place.astype(int), parts - 2)
    up = np.zeros((SIDE, parts))
    up[np.arange(SIDE), left] = 1 - (place - left)
    up[np.arange(SIDE), left + 1] = place - left
    return (up @ down).astype(np.float32)


def _spoilt(images: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some blurred, some of coarse pixels, some with noise; and how much."""
    count = len(images)
    width = np.where(rng.random(count) < 0.3, rng.uniform(0.4, 1.8, count), 0.0)
    waves = np.fft.fftfreq(SIDE)[:, None] ** 2 + np.fft.rfftfreq(SIDE)[None, :] ** 2
    passed = np.exp(-2 * np.pi**2 * width[:, None, None] ** 2 * waves)
    blurred = np.flatnonzero(width > 0)
    images = images.copy()
    spectrum = np.fft.rfft2(images[blurred], axes=(1, 2)) * passed[blurred][:, :, :, None]
    images[blurred] = np.fft.irfft2(spectrum, s=(SIDE, SIDE), axes=(1, 2))
    blur = width.copy()
    chosen = rng.random(count)
    for factor, low, high in ((2, 0.0, 0.1), (4, 0.1, 0.18)):
        rows = np.flatnonzero((chosen >= low) & (chosen < high))
        matrix = _coarse(factor)
        images[rows] = np.einsum("ij,njkc,lk->nilc", matrix, images[rows], matrix, optimize=True)
        blur[rows] = np.maximum(blur[rows], factor / 3)
    deviation = np.where(rng.random(count) < 0.3, rng.uniform(0.02, 0.3, count), 0.0)
    grained = np.flatnonzero(deviation > 0)
    grain = rng.normal(size=(len(grained), SIDE, SIDE, 3))
    grain[rng.random(len(grained)) < 0.5, :, :, 1:] = 0
    alike = np.all(grain[:, :, :, 1:] == 0, axis=(1, 2, 3))
    grain[alike] = grain[alike][:, :, :, :1]
    images[grained] += grain * deviation[grained][:, None, None, None]
    return images, blur, 6 * deviation
