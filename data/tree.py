"""Files of a tree of folders by their relative names, opened by descriptors from the root down; no link is followed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import final

from .files import READ_FILE, READ_FOLDER
from .slots import Unusable


@final
class FileBlobs:
    """The contents of files below `root`, a row each; names are relative, with slashes, and never lead out."""

    def __init__(self, root: Path, names: Sequence[str], *, max_bytes: int) -> None:
        self._root = root
        self._names = names
        self._max_bytes = max_bytes

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], bytes | Unusable]]:
        folders: dict[tuple[str, ...], int] = {(): os.open(self._root, READ_FOLDER)}
        try:
            yield lambda row: self._content(folders, self._names[row])
        finally:
            for descriptor in folders.values():
                os.close(descriptor)

    def _content(self, folders: dict[tuple[str, ...], int], name: str) -> bytes | Unusable:
        *parents, last = name.split("/")
        if not all(part not in ("", ".", "..") for part in (*parents, last)):
            return Unusable("its name leads out of the set")
        for depth in range(1, len(parents) + 1):
            place = tuple(parents[:depth])
            if place not in folders:
                folders[place] = os.open(place[-1], READ_FOLDER, dir_fd=folders[place[:-1]])
        try:
            descriptor = os.open(last, READ_FILE, dir_fd=folders[tuple(parents)])
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EMLINK):
                return Unusable("it is a symbolic link")
            raise
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return Unusable("it is no regular file")
            content = file.read(self._max_bytes + 1)
        if len(content) > self._max_bytes:
            return Unusable(f"it has more than max_bytes = {self._max_bytes} bytes")
        return content
