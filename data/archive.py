"""The members of a zip archive, read one by one where they lie: nothing is unpacked to disk.

The directory is read once. What it claims of a member is believed only as a limit: a member that is encrypted, larger than
it says, or damaged is a ghost in its slot.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from .errors import Damaged
from .files import READ_FILE, open_container
from .slots import Unusable

LOCAL_HEADER = 30
ENCRYPTED = 0x1
HIDDEN = ("__MACOSX",)


@dataclass(frozen=True, slots=True)
class Member:
    """Where a member lies, and what the directory says of it."""

    name: str
    offset: int
    packed: int
    size: int
    crc: int
    method: int
    encrypted: bool


def members(path: Path, *, max_bytes: int, where: str) -> list[Member]:
    """The files of an archive, hidden ones left out, in the order of the bytes of their names.

    Raises `Damaged` if it is no zip archive, or holds a name twice.
    """
    with open_container(path, max_bytes=max_bytes, where=where) as file:
        try:
            with zipfile.ZipFile(file) as directory:
                infos = directory.infolist()
        except (zipfile.BadZipFile, ValueError, OSError, struct.error, OverflowError, NotImplementedError):
            raise Damaged(f"{where}: {path} is no zip archive; check `path`, or fetch it again") from None
    found = [
        Member(
            info.filename,
            info.header_offset,
            info.compress_size,
            info.file_size,
            info.CRC,
            info.compress_type,
            bool(info.flag_bits & ENCRYPTED),
        )
        for info in infos
        if not info.is_dir() and not any(part.startswith(".") or part in HIDDEN for part in info.filename.split("/"))
    ]
    if len({member.name for member in found}) != len(found):
        raise Damaged(f"{where}: {path} holds a file twice; pack it again")
    return sorted(found, key=lambda member: member.name.encode("utf-8", "surrogateescape"))


@final
class ZipBlobs:
    """The contents of some members, a row each; None is a file that the archive does not hold."""

    def __init__(self, path: Path, chosen: Sequence[Member | None], *, max_bytes: int) -> None:
        self._path = path
        self._members = chosen
        self._max_bytes = max_bytes

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], bytes | Unusable]]:
        descriptor = os.open(self._path, READ_FILE)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileNotFoundError
            yield lambda row: self._content(descriptor, self._members[row])
        finally:
            os.close(descriptor)

    def _content(self, descriptor: int, member: Member | None) -> bytes | Unusable:
        if member is None:
            return Unusable("the archive does not hold its file")
        if member.encrypted:
            return Unusable("it is encrypted")
        if max(member.size, member.packed) > self._max_bytes:
            return Unusable(f"it has more than max_bytes = {self._max_bytes} bytes")
        header = os.pread(descriptor, LOCAL_HEADER, member.offset)
        if len(header) < LOCAL_HEADER or header[:4] != b"PK\x03\x04":
            return Unusable("the archive's directory does not point to it")
        name, extra = struct.unpack("<HH", header[26:30])
        packed = os.pread(descriptor, member.packed, member.offset + LOCAL_HEADER + name + extra)
        content = packed if member.method == zipfile.ZIP_STORED else _inflated(packed, member)
        if content is None or len(content) != member.size or zlib.crc32(content) != member.crc:
            return Unusable("it cannot be unpacked, or its checksum is wrong")
        return content


def _inflated(packed: bytes, member: Member) -> bytes | None:
    """What a member unpacks to, if that is what its size says and the method is deflate."""
    if member.method != zipfile.ZIP_DEFLATED:
        return None
    unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return unpacking.decompress(packed, member.size + 1)
    except zlib.error:
        return None
