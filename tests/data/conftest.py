from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from privolve.data.private_set import PrivateSet, Records
from privolve.privacy.private import open_private

CANARY = "canary-7f3a"


@pytest.fixture
def records() -> Callable[[PrivateSet | None], Records]:
    """What lies behind a partition. Only tests and the ledger's and gateway's own code may do this."""

    def opened(partition: PrivateSet | None) -> Records:
        assert partition is not None
        return open_private(partition.records)

    return opened


@pytest.fixture
def image() -> Callable[..., Path]:
    """Write an image of one shade."""

    def write(
        path: Path, *, size: tuple[int, int] = (8, 8), mode: str = "RGB", shade: int = 100, **options: object
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = shade if mode in ("L", "1", "P", "I;16") else (shade,) * len(mode)
        Image.new(mode, size, colour).save(path, **options)
        return path

    return write


@pytest.fixture
def huge_png() -> bytes:
    """A valid PNG of 100 megapixels and one bit each, in a few kilobytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + 1250) * 10_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.fixture
def npy() -> Callable[..., bytes]:
    """An .npy member with a header of one's own."""

    def build(header: str, data: bytes, *, version: int = 1) -> bytes:
        text = header.encode("latin1") + b"\n"
        return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + data

    return build


@pytest.fixture
def archive(tmp_path: Path) -> Callable[..., Path]:
    """A zip of given members."""

    def write(members: dict[str, bytes], *, name: str = "set.npz") -> Path:
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as packed:
            for member, content in members.items():
                packed.writestr(member, content)
        return tmp_path / name

    return write


@pytest.fixture
def npz(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str = "set.npz", **arrays: np.ndarray) -> Path:
        np.savez_compressed(tmp_path / name, **arrays)  # type: ignore[arg-type]
        return tmp_path / name

    return write


@pytest.fixture
def shared() -> Path:
    """The folder of real data sets."""
    folder = Path(__file__).parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not at {folder}")
    return folder
