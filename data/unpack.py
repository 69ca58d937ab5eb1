"""Archives unpacked without trusting them: plain files and folders alone, nowhere but in a new folder, and no more than stated.

Refused, and nothing of it kept: names that lead out or are absolute, links, devices, encrypted members, a name twice, more
bytes or members than allowed. Modes, owners and times of the archive are not taken over.
"""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, cast

from .careful_file import CarefulFile
from .errors import Damaged
from .files import MEBIBYTE, open_container

MAX_MEMBERS = 5_000_000
MAX_DEPTH = 16


def unpack(archive: Path, into: Path, *, at_most: int, where: str) -> int:
    """Unpack a .zip, .tar or .tar.gz into the new folder `into`, whole or not at all. Returns how many files it held.

    `into` must not be there. What a killed attempt left is removed first. Raises `Damaged`, or OSError of the disk.
    """
    if into.is_symlink() or into.exists():
        raise Damaged(f"{where}: {into} is there already and is not written over; move it away")
    unfinished = into.with_name(f".{into.name}.unpacking")
    if unfinished.is_symlink():
        raise Damaged(f"{where}: {unfinished} is a symbolic link; remove it")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o755)
    try:
        with open_container(archive, max_bytes=archive.stat().st_size, where=where) as file:
            writer = _Writer(unfinished, at_most=at_most, where=f"{where}: {archive.name}")
            if archive.name.endswith(".zip"):
                _unzip(file, writer)
            else:
                _untar(file, writer)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    unfinished.rename(into)
    return writer.count


class _Writer:
    """Writes members below a folder that was empty, and counts what they really hold."""

    def __init__(self, root: Path, *, at_most: int, where: str) -> None:
        self._root = root
        self._left = at_most
        self._at_most = at_most
        self._where = where
        self.count = 0

    def refuse(self, what: str) -> Damaged:
        return Damaged(f"{self._where} {what}; nothing of it was kept")

    def folder(self, name: str) -> None:
        self._place(name).mkdir(parents=True, exist_ok=True)

    def file(self, name: str, content: IO[bytes], size: int) -> None:
        """`content` until its end, which must come after `size` bytes."""
        place = self._place(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except (FileExistsError, IsADirectoryError):
            raise self.refuse("holds a file twice, or under a name that another stands in for") from None
        written = 0
        with os.fdopen(descriptor, "wb") as file:
            while block := content.read(MEBIBYTE):
                written += len(block)
                self._left -= len(block)
                if self._left < 0:
                    raise self.refuse(f"unpacks to more than the {self._at_most} bytes that are allowed for it")
                file.write(block)
        if written != size:
            raise self.refuse("holds a file of another size than it says")

    def _place(self, name: str) -> Path:
        self.count += 1
        if self.count > MAX_MEMBERS:
            raise self.refuse(f"holds more than {MAX_MEMBERS} files")
        path = PurePosixPath(name)
        parts = [part for part in path.parts if part != "."]
        if (
            path.is_absolute()
            or ".." in parts
            or "\\" in name
            or "\0" in name
            or len(parts) > MAX_DEPTH
            or any(len(part.encode("utf-8", "surrogateescape")) > 255 or ":" in part[:2] for part in parts)
        ):
            raise self.refuse("holds a name that leads out of its folder")
        return self._root.joinpath(*parts)


def _unzip(file: BinaryIO, writer: _Writer) -> None:
    with _whole(writer), zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.flag_bits & 1:
                raise writer.refuse("holds an encrypted member")
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise writer.refuse("holds a link or a device")
            if member.is_dir():
                writer.folder(member.filename)
                continue
            with archive.open(member) as content:
                writer.file(member.filename, content, member.file_size)


def _untar(file: BinaryIO, writer: _Writer) -> None:
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    careful = CarefulFile(gzip.GzipFile(fileobj=file) if packed else file)
    with (
        _whole(writer),
        tarfile.TarFile(fileobj=cast(Any, careful)) as archive,
    ):
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[assignment]  # tarfile keeps every header otherwise
            if member.isdir():
                writer.folder(member.name)
            elif member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse():
                content = archive.extractfile(member)
                assert content is not None
                writer.file(member.name, content, member.size)
            else:
                raise writer.refuse("holds a link or a device")


@contextmanager
def _whole(writer: _Writer) -> Iterator[None]:
    """What the archive readers raise of a damaged file, in our words; OSErrors of the disk pass."""
    try:
        yield
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        gzip.BadGzipFile,
        EOFError,
        struct.error,
        NotImplementedError,
        RuntimeError,
        OverflowError,
    ):
        raise writer.refuse("is damaged or cut short") from None
    except (ValueError, OSError) as error:
        if isinstance(error, Damaged) or (isinstance(error, OSError) and error.errno != errno.EINVAL):
            raise
        raise writer.refuse("is damaged or cut short") from None  # EINVAL: it points to before its own beginning
