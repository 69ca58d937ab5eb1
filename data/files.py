"""Opening what the operator named: no symbolic link at its end, regular files only, a limit on their size."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from .errors import Unreadable

MEBIBYTE = 1 << 20
GIBIBYTE = 1 << 30

READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
READ_FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_DIRECTORY


def open_container(path: Path, *, max_bytes: int, where: str) -> BinaryIO:
    """A file that holds a whole set, open for reading."""
    descriptor = _open(path, READ_FILE, "file", where)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise Unreadable(f"{where}: {path} is {kind}; give the path of a file")
    if status.st_size > max_bytes:
        os.close(descriptor)
        raise Unreadable(
            f"{where}: {path} has {status.st_size} bytes, more than max_bytes = {max_bytes}; raise it if meant"
        )
    return os.fdopen(descriptor, "rb")


def open_folder(path: Path, *, where: str) -> int:
    """A descriptor of a folder, to list it and to open what is in it."""
    return _open(path, READ_FOLDER, "folder", where)


def _open(path: Path, flags: int, kind: str, where: str) -> int:
    if path.is_symlink():  # O_NOFOLLOW refuses it as well, in words that differ between systems
        raise Unreadable(f"{where}: {path} is a symbolic link; give the path of the {kind} itself")
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        raise Unreadable(f"{where}: {path} does not exist; check `path`") from None
    except NotADirectoryError:
        raise Unreadable(f"{where}: {path} is no folder; give the path of a folder") from None
    except PermissionError:
        raise Unreadable(f"{where}: no permission to read {path}; give it to the user who runs this") from None
    except (OSError, ValueError) as error:
        raise Unreadable(f"{where}: {path} cannot be opened ({type(error).__name__}); check `path`") from None
