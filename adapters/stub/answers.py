"""What the stub answers with: sentences, pictures and vectors, each a function of a few bytes and of nothing else."""

from __future__ import annotations

import math
import re
import struct
import zlib
from hashlib import blake2b

LARGEST_SIDE = 4096

_OPENINGS = ("A", "A quiet", "A photograph of a", "A wide view of a", "An early morning view of a", "A close look at a")
_MOODS = (
    "cosy",
    "bright",
    "narrow",
    "spacious",
    "rustic",
    "modern",
    "cluttered",
    "minimal",
    "vintage",
    "warm",
    "pale",
    "dim",
)
_ROOMS = ("bedroom", "guest room", "attic bedroom", "hotel room", "child's bedroom", "master bedroom", "studio bedroom")
_BEDS = (
    "a double bed", "a single bed with a quilt", "a canopy bed", "bunk beds", "a low platform bed", "an iron bed",
    "a queen bed with white sheets", "twin beds",
)  # fmt: skip
_PLACES = (
    "under a tall window",
    "against a brick wall",
    "beside a desk",
    "next to a wardrobe",
    "facing a mirror",
    "in a corner",
)
_DETAILS = (
    "oak floorboards", "a striped rug", "a reading lamp", "two pillows", "a wicker chair", "floral wallpaper",
    "a shelf of books", "linen curtains", "a potted fern", "a framed print", "a wooden nightstand", "a ceiling fan",
)  # fmt: skip
_LIGHTS = (
    "soft morning light",
    "lamplight",
    "afternoon sun",
    "grey daylight",
    "warm evening light",
    "a string of fairy lights",
)


class Bytes:
    """A stream of numbers out of a hash: the same seed, the same stream."""

    def __init__(self, *seed: bytes | str | int) -> None:
        parts = [part if isinstance(part, bytes) else str(part).encode() for part in seed]
        self.digest = blake2b(b"\x00".join(parts), digest_size=32).digest()
        self._left = int.from_bytes(self.digest)

    def below(self, limit: int) -> int:
        self._left, value = divmod(self._left, limit)
        if self._left < 2**16:
            self._left = int.from_bytes(blake2b(self.digest + struct.pack("<Q", self._left), digest_size=32).digest())
        return value

    def pick(self, words: tuple[str, ...]) -> str:
        return words[self.below(len(words))]


def sentence(seed: bytes, *, words: int | None = None) -> str:
    """A plausible caption of a bedroom; at most `words` words.

    >>> sentence(b"one") == sentence(b"one"), sentence(b"one") == sentence(b"two")
    (True, False)
    """
    stream = Bytes("sentence", seed)
    first, second = stream.pick(_DETAILS), stream.pick(_DETAILS)
    details = first if first == second else f"{first} and {second}"
    opening, mood = stream.pick(_OPENINGS), stream.pick(_MOODS)
    text = (
        f"{opening} {mood} {stream.pick(_ROOMS)} with {stream.pick(_BEDS)} {stream.pick(_PLACES)}, "
        f"{details}, in {stream.pick(_LIGHTS)}."
    )
    return text if words is None else " ".join(text.split()[:words])


def png(seed: bytes, width: int, height: int) -> bytes:
    """A small PNG of a room in flat colours: a wall, a floor, a window, a bed."""
    stream = Bytes("png", seed)

    def colour() -> bytes:
        return bytes(40 + stream.below(200) for _ in range(3))

    wall, floor, window, bed, pillow = (colour() for _ in range(5))
    horizon = height * (50 + stream.below(20)) // 100
    left, right = width * (5 + stream.below(25)) // 100, width * (45 + stream.below(20)) // 100
    top, sill = height * (5 + stream.below(10)) // 100, height * (25 + stream.below(15)) // 100
    head, foot = width * (30 + stream.below(15)) // 100, width * (75 + stream.below(20)) // 100
    rise = height * (40 + stream.below(10)) // 100

    def line(row: int) -> bytes:
        pixels = bytearray((wall if row < horizon else floor) * width)
        if top <= row < sill:
            pixels[3 * left : 3 * right] = window * (right - left)
        if row >= rise:
            pixels[3 * head : 3 * foot] = bed * (foot - head)
            if row < horizon:
                third = (foot - head) // 3
                pixels[3 * head : 3 * (head + third)] = pillow * third
        return bytes(pixels)

    # Within a band every line equals the one above: filter 2 writes it as zeros, which cost next to nothing.
    starts = {0, top, sill, rise, horizon}
    same = b"\x02" + bytes(3 * width)
    rows = b"".join(b"\x00" + line(row) if row in starts else same for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def as_format(image: bytes, name: str) -> bytes:
    """The PNG in another file format: jpeg or webp."""
    if name == "png":
        return image
    from io import BytesIO

    from PIL import Image

    out = BytesIO()
    Image.open(BytesIO(image)).save(out, format=name)
    return out.getvalue()


def size_of(text: object, *, otherwise: tuple[int, int] = (1024, 1024)) -> tuple[int, int] | None:
    """Width and height of "1024x1024" or "1024*1024"; `otherwise` for none and "auto", None for nonsense."""
    if text is None or text == "auto":
        return otherwise
    found = re.fullmatch(r"(\d{1,5})[x*X](\d{1,5})", str(text))
    if found is None:
        return None
    width, height = int(found[1]), int(found[2])
    return (width, height) if 0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE else None


def vector(content: str, dimensions: int) -> list[float]:
    """A unit vector of hashed words: texts that share words lie close together."""
    values = [0.0] * dimensions
    for word in re.findall(r"\w+", content.lower()) or [content]:
        digest = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=24).digest()
        for start in range(0, 24, 3):
            place = int.from_bytes(digest[start : start + 3])
            values[(place >> 1) % dimensions] += 1.0 if place & 1 else -1.0
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / length for value in values]


def tokens(text: str) -> int:
    """About as many tokens as a tokenizer would count: four bytes to one."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)
