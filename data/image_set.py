"""Images as records: what is decoded at all, and how it becomes pixels of the declared size.

Limits are checked on headers, before anything is decoded: 20 kB of PNG can hold 169 megapixels.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from PIL import Image, ImageFile, ImageOps

from .errors import Undeclared
from .labels import UNKNOWN, Labels
from .private_set import Record
from .slots import Unusable

MEGAPIXEL = 1_000_000
FORMATS = ("PNG", "JPEG", "WEBP")
RANGE_TOLERANCE = 1e-3
"""How far a float may lie outside its declared range, as a fraction of it: rounding, never another scale."""

_TRANSPARENT = frozenset({"RGBA", "RGBa", "LA", "La", "PA"})
_GREY = frozenset({"1", "L", "I;16", "I;16B", "I;16L", "I;16N"})
_COLOUR = frozenset({"RGB", "P", "CMYK", "YCbCr", "LAB", "HSV"})


@dataclass(frozen=True, kw_only=True)
class ImageRules:
    """What an image must be: `size` = (width, height)."""

    size: tuple[int, int]
    channels: Literal[1, 3]
    resize: Literal["refuse", "fit"]
    max_pixels: int

    @property
    def shape(self) -> tuple[int, int, int]:
        width, height = self.size
        return (height, width, self.channels)

    def decode(self, encoded: bytes) -> np.ndarray | Unusable:
        """The pixels of an encoded image: uint8 of `shape`. A function of the bytes alone; silent."""
        width, height = _webp_canvas(encoded)
        if width * height > self.max_pixels:
            return self._too_large(width, height)
        try:
            with _strictly(), Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                return self._pixels(image)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  decoders raise anything, and a record must not stop a run
            return Unusable(f"it cannot be decoded as {'/'.join(FORMATS)} ({type(error).__name__})")

    def fit(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels of any size (height, width, 1 or 3) scaled to cover the declared size, cropped, converted."""
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        return self._array(self._covered(image.convert("L" if self.channels == 1 else "RGB")))

    def _pixels(self, image: Image.Image) -> np.ndarray | Unusable:
        if image.width * image.height > self.max_pixels:
            return self._too_large(image.width, image.height)
        transparent = image.mode in _TRANSPARENT or "transparency" in image.info
        found = 1 if image.mode in _GREY else 3 if image.mode in _COLOUR or transparent else 0
        if found == 0:
            return Unusable(f"its pixels are of mode {image.mode}")
        image.load()
        image = ImageOps.exif_transpose(image)
        if self.resize == "refuse" and (transparent or found != self.channels or image.size != self.size):
            kind = "transparent" if transparent else "grey" if found == 1 else "colour"
            return Unusable(f'it is {kind} of {image.width} x {image.height}; resize = "fit" would convert it')
        return self._array(self._covered(self._converted(image, transparent)))

    def _too_large(self, width: int, height: int) -> Unusable:
        return Unusable(f"it has {width} x {height} pixels, more than max_pixels = {self.max_pixels}")

    def _converted(self, image: Image.Image, transparent: bool) -> Image.Image:
        """Grey or colour as declared; transparency over white; 16 bits by their upper half."""
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if transparent:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("L" if self.channels == 1 else "RGB")

    def _covered(self, image: Image.Image) -> Image.Image:
        if image.size == self.size:
            return image
        return ImageOps.fit(image, self.size, method=Image.Resampling.BICUBIC)

    def _array(self, image: Image.Image) -> np.ndarray:
        return np.array(image, dtype=np.uint8).reshape(self.shape)


@final
class ArrayImages:
    """Slots that are the rows of one array of images.

    `images` is uint8, or float in `limits`; (rows, height, width), with channels last or, where `channels_first`,
    before the height.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: Labels,
        *,
        ids: str,
        rules: ImageRules,
        where: str,
        channels_first: bool = False,
        limits: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        """`ids` is the prefix of the slots' ids, `where` how messages name the array."""
        if images.ndim == 3:
            images = images[:, None] if channels_first else images[..., None]
        height, width, channels = images.shape[2:] + images.shape[1:2] if channels_first else images.shape[1:]
        if height * width > rules.max_pixels or 0 in (height, width) or channels not in (1, 3):
            raise Undeclared(
                f"{where}: an image of {width} x {height} x {channels} is empty, not of 1 or 3 channels, "
                f"or has more than max_pixels = {rules.max_pixels}"
            )
        self._fits = (height, width, channels) == rules.shape
        if not self._fits and rules.resize == "refuse":
            raise Undeclared(
                f"{where}: the images are {width} x {height} x {channels} and "
                f"{rules.size[0]} x {rules.size[1]} x {rules.channels} is declared; declare size = [{width}, {height}] "
                f'and channels = {channels}, or resize = "fit"'
            )
        self._images = images
        self._labels = labels
        self._rules = rules
        self._channels_first = channels_first
        self._limits = limits
        self.ids = [f"{ids}/{row}" for row in range(len(images))]

    def read(self, rows: Sequence[int]) -> Sequence[Record | Unusable]:
        if len(rows) == 0:
            return []
        consecutive = rows[-1] - rows[0] + 1 == len(rows)
        stored = self._images[rows[0] : rows[-1] + 1] if consecutive else self._images[np.asarray(rows)]
        pixels, in_range = self._uint8(stored)
        if self._channels_first:
            pixels = pixels.transpose(0, 2, 3, 1)
        pixels = np.ascontiguousarray(pixels) if self._fits else pixels
        pixels.flags.writeable = False
        answers: list[Record | Unusable] = []
        for place, row in enumerate(rows):
            label = int(self._labels.indices[row])
            if label == UNKNOWN:
                answers.append(Unusable("its label is not declared"))
            elif not in_range[place]:
                low, high = self._limits
                answers.append(Unusable(f"its pixels are not all numbers within range = [{low}, {high}]"))
            else:
                answers.append(Record(pixels[place] if self._fits else self._rules.fit(pixels[place]), label))
        return answers

    def raw(self, row: int) -> bytes:
        return self._labels.raw(row) + b"\0" + self._images[row].tobytes()

    def _uint8(self, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels as uint8, and which rows lie in their range; a row that does not is zero."""
        if stored.dtype == np.uint8:
            return stored, np.ones(len(stored), dtype=bool)
        low, high = self._limits
        slack = RANGE_TOLERANCE * (high - low)
        flat = stored.reshape(len(stored), -1)
        smallest, largest = flat.min(axis=1), flat.max(axis=1)  # NaN if any is NaN, and NaN compares false
        in_range = (smallest >= low - slack) & (largest <= high + slack)
        usable = np.where(in_range[:, None, None, None], stored, stored.dtype.type(low)).astype(np.float32)
        return np.rint(np.clip((usable - low) / (high - low), 0.0, 1.0) * 255.0).astype(np.uint8), in_range


def shape_of(encoded: bytes) -> tuple[int, int, int] | None:
    """Width, height and channels (1 or 3) by the header of an encoded image; None if it cannot be read."""
    try:
        with _strictly(), Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            return image.width, image.height, 1 if image.mode in _GREY or image.mode == "LA" else 3
    except Exception:  # noqa: BLE001  what cannot be looked at suggests nothing
        return None


@contextmanager
def _strictly() -> Iterator[None]:
    """No truncated image passes, no decompression bomb is merely warned about, and no warning is shown."""
    tolerant = ImageFile.LOAD_TRUNCATED_IMAGES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = tolerant


def _webp_canvas(encoded: bytes) -> tuple[int, int]:
    """The canvas that an extended WEBP file claims, else nothing: Pillow takes memory for it on opening."""
    if encoded[:4] != b"RIFF" or encoded[8:16] != b"WEBPVP8X":
        return 0, 0
    return int.from_bytes(encoded[24:27], "little") + 1, int.from_bytes(encoded[27:30], "little") + 1
