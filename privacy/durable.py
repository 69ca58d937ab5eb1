"""The one way to write a file here: whole or not at all, and still there after a power cut."""

from __future__ import annotations

import os
from pathlib import Path


def write_bytes(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write `content` to a temporary neighbour, sync it, rename it over `path` and sync the folder.

    Raises OSError as it comes (no space, no permission); `path` then holds what it held before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
