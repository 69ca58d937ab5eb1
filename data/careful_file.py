"""A file from which no single read takes much memory: tarfile reads long names and extended headers whole."""

from __future__ import annotations

from typing import Protocol, final

from .files import MEBIBYTE

MAX_READ = 16 * MEBIBYTE


class _Source(Protocol):
    def read(self, size: int = ..., /) -> bytes: ...

    def seek(self, offset: int, whence: int = ..., /) -> int: ...

    def tell(self) -> int: ...


@final
class CarefulFile:
    """`file` for tarfile. Raises ValueError for a read of more than `MAX_READ`."""

    mode = "rb"

    def __init__(self, file: _Source) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_READ:
            raise ValueError("a header of a tar file claims too much")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
