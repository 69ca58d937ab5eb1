"""A folder of image files: class folders, DPSDA's `<class>_<rest>.<ext>` names, or files of one class.

A slot is an entry of the folder whose name does not begin with a dot, whatever it holds: a file that is no image, or a
symbolic link, is a ghost in its slot. Entries are sorted by the bytes of their names, so that the order is the same on
every file system. Files are opened one by one when they are read, by descriptors from the root down, and no link is
followed on the way.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

from pydantic import PositiveInt

from .config import ImageDataConfig
from .errors import Undeclared, Unreadable
from .files import MEBIBYTE, READ_FILE, READ_FOLDER, open_folder
from .image_set import ImageRules, shape_of
from .labels import UNKNOWN
from .private_set import Record
from .slots import Listing, ReadFailed, Unusable

SURVEYED = 500
"""How many files `survey` opens at most, spread evenly."""


class FolderConfig(ImageDataConfig, frozen=True):
    """`kind = "folder"`.

    layout     "classes": a folder for each class; "names": the class is the file name up to an underscore;
               "one-class": every file is of the one declared class; "auto": "classes" where `path` holds folders,
               else "one-class" where one class is declared, else "names"
    test_path  a second folder of the same layout, whose records never vote
    max_bytes  a larger file is never opened
    """

    kind: Literal["folder"] = "folder"
    path: Path
    test_path: Path | None = None
    layout: Literal["auto", "classes", "names", "one-class"] = "auto"
    resize: Literal["refuse", "fit"] = "fit"
    max_bytes: PositiveInt = 32 * MEBIBYTE

    def listing(self) -> Listing:
        return Listing(
            voters=self._slots(self.path),
            test=None if self.test_path is None else self._slots(self.test_path),
        )

    def survey(self) -> dict[str, Any]:
        entries = _entries(self.path, self._layout(self.path), where=self.where)
        if not entries:
            return {}
        folders = {entry.folder for entry in entries}
        if folders != {None}:
            classes = sorted(os.fsdecode(folder) for folder in folders if folder is not None)
        else:
            names = [os.fsdecode(entry.name) for entry in entries]
            prefixes = Counter(name.split("_", 1)[0] for name in names if "_" in name)
            repeated = sorted(name for name, count in prefixes.items() if count > 1)
            classes = repeated if 1 < len(repeated) <= len(names) // 2 else [self.name]
        step = max(1, len(entries) // SURVEYED)
        shapes = Counter(shape for entry in entries[::step] if (shape := _shape(self.path, entry)))
        if not shapes:
            return {"classes": tuple(classes)}
        (width, height, channels), _ = shapes.most_common(1)[0]
        return {"classes": tuple(classes), "size": (width, height), "channels": channels}

    def _slots(self, path: Path) -> ImageFiles:
        layout = self._layout(path)
        if layout == "one-class" and len(self.classes) != 1:
            raise Undeclared(
                f'{self.where}: layout = "one-class" needs one class, and {len(self.classes)} are declared'
            )
        entries = _entries(path, layout, where=self.where)
        known = {name: index for index, name in enumerate(self.classes)}
        labels = [0 if layout == "one-class" else _label(entry, known) for entry in entries]
        return ImageFiles(path, entries, labels, rules=self.rules(), max_bytes=self.max_bytes)

    def _layout(self, path: Path) -> str:
        if self.layout != "auto":
            return self.layout
        root = open_folder(path, where=self.where)
        try:
            with os.scandir(root) as listed:
                folders = [entry.is_dir(follow_symlinks=False) for entry in listed if not entry.name.startswith(".")]
        finally:
            os.close(root)
        if not any(folders):
            return "one-class" if len(self.classes) == 1 else "names"
        if not all(folders):
            raise Unreadable(
                f"{self.where}: {path} holds {sum(folders)} folders and {len(folders) - sum(folders)} other entries; "
                'say layout = "classes" to read the folders, or move them out'
            )
        return "classes"


@dataclass(frozen=True)
class Entry:
    """A file by its own name and that of its class folder, in bytes as the file system has them."""

    folder: bytes | None
    name: bytes

    @property
    def id(self) -> str:
        whole = self.name if self.folder is None else self.folder + b"/" + self.name
        return whole.decode("utf-8", "backslashreplace")


@final
class ImageFiles:
    """Slots that are files. A file is opened when its slot is read, and only then."""

    def __init__(
        self, root: Path, entries: Sequence[Entry], labels: Sequence[int], *, rules: ImageRules, max_bytes: int
    ) -> None:
        self._root = root
        self._entries = entries
        self._labels = labels
        self._rules = rules
        self._max_bytes = max_bytes
        self.ids = [entry.id for entry in entries]

    def read(self, rows: Sequence[int]) -> Sequence[Record | Unusable]:
        with _Tree(self._root) as tree:
            return [self._record(tree, row) for row in rows]

    def raw(self, row: int) -> bytes:
        with _Tree(self._root) as tree:
            content = self._content(tree, row)
        label = self._entries[row].folder or b""
        return b"" if isinstance(content, Unusable) else label + b"\0" + content

    def _record(self, tree: _Tree, row: int) -> Record | Unusable:
        if self._labels[row] == UNKNOWN:
            return Unusable("its class is not declared")
        content = self._content(tree, row)
        if isinstance(content, Unusable):
            return content
        pixels = self._rules.decode(content)
        return pixels if isinstance(pixels, Unusable) else Record(pixels, self._labels[row])

    def _content(self, tree: _Tree, row: int) -> bytes | Unusable:
        try:
            return tree.content(self._entries[row], max_bytes=self._max_bytes)
        except OSError as error:
            kind = type(error).__name__ if error.errno is None else errno.errorcode.get(error.errno, "OSError")
            raise ReadFailed(row, kind) from None


class _Tree:
    """The root and its class folders, held open while a batch is read. Raises OSError for what is no record's doing."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open = ExitStack()
        self._folders: dict[bytes | None, int] = {}

    def __enter__(self) -> _Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def content(self, entry: Entry, *, max_bytes: int) -> bytes | Unusable:
        """The bytes of a regular file, if it is one and not too large."""
        folder = self._folder(entry.folder)
        try:
            descriptor = os.open(entry.name, READ_FILE, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EMLINK):  # what O_NOFOLLOW says of a link: Linux and macOS, FreeBSD
                return Unusable("it is a symbolic link")
            if error.errno in (errno.ENXIO, errno.EOPNOTSUPP):  # a socket
                return Unusable("it is no regular file")
            raise
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return Unusable("it is no regular file")
            content = file.read(max_bytes + 1) if status.st_size <= max_bytes else None
        if content is None or len(content) > max_bytes:
            return Unusable(f"it has more than max_bytes = {max_bytes} bytes")
        return content

    def _folder(self, name: bytes | None) -> int:
        if name not in self._folders:
            if name is None:
                descriptor = os.open(self._root, READ_FOLDER)
            else:
                descriptor = os.open(name, READ_FOLDER, dir_fd=self._folder(None))
            self._folders[name] = descriptor
            self._open.callback(os.close, descriptor)
        return self._folders[name]


def _entries(path: Path, layout: str, *, where: str) -> list[Entry]:
    """All slots of a folder, in the order of the bytes of their names. Names no entry in its errors."""
    root = open_folder(path, where=where)
    try:
        if layout != "classes":
            if _names(root, folders=True):
                raise Unreadable(
                    f'{where}: {path} holds folders, which layout = "{layout}" does not read; move them out'
                )
            return [Entry(None, name) for name in _names(root, folders=False)]
        if any(stat.S_ISLNK(os.lstat(name, dir_fd=root).st_mode) for name in _names(root, folders=False)):
            raise Unreadable(
                f"{where}: {path} holds a symbolic link beside its class folders; move in what it points to"
            )
        entries: list[Entry] = []
        for folder in _names(root, folders=True):
            descriptor = os.open(folder, READ_FOLDER, dir_fd=root)
            try:
                names = _names(descriptor, folders=False)
                if _names(descriptor, folders=True):
                    raise Unreadable(f"{where}: a class folder of {path} holds folders; only one level is read")
            finally:
                os.close(descriptor)
            entries += [Entry(folder, name) for name in names]
        return entries
    except OSError as error:
        raise Unreadable(
            f"{where}: a folder in {path} cannot be listed ({type(error).__name__}); give permission"
        ) from None
    finally:
        os.close(root)


def _names(folder: int, *, folders: bool) -> list[bytes]:
    """The names of either the folders or everything else in a folder, sorted; hidden ones left out."""
    with os.scandir(folder) as listed:
        return sorted(
            os.fsencode(entry.name)
            for entry in listed
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False) == folders
        )


def _label(entry: Entry, known: Mapping[str, int]) -> int:
    """The index of an entry's class. Of classes that begin alike, a file name belongs to the longest."""
    if entry.folder is not None:
        return known.get(os.fsdecode(entry.folder), UNKNOWN)
    words = os.fsdecode(entry.name).split("_")
    beginnings = ("_".join(words[:count]) for count in range(len(words) - 1, 0, -1))
    return next((known[beginning] for beginning in beginnings if beginning in known), UNKNOWN)


def _shape(path: Path, entry: Entry) -> tuple[int, int, int] | None:
    """Width, height and channels by the header of a file, or None."""
    try:
        with _Tree(path) as tree:
            content = tree.content(entry, max_bytes=32 * MEBIBYTE)
    except OSError:
        return None
    return None if isinstance(content, Unusable) else shape_of(content)
