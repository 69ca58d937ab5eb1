"""Slots that are encoded images, wherever their bytes lie: members of an archive, values of a database, files of a tree.

A source says how many there are, what they are called and which class they are of; it hands over bytes one by one, and
they are decoded only when their slot is read.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, final

from .image_set import ImageRules
from .labels import UNKNOWN, Labels
from .private_set import Record
from .slots import ReadFailed, Unusable


class Blobs(Protocol):
    """Stored bytes by row."""

    def opened(self) -> AbstractContextManager[Callable[[int], bytes | Unusable]]:
        """While it is open: the stored bytes of a row, or why the record alone has none.

        Both may raise OSError, for what is no record's doing.
        """
        ...


@final
class EncodedImages:
    """`ids`, `labels` and `blobs` have a row a slot."""

    def __init__(self, blobs: Blobs, labels: Labels, *, ids: Sequence[str], rules: ImageRules) -> None:
        self._blobs = blobs
        self._labels = labels
        self._rules = rules
        self.ids = ids

    def read(self, rows: Sequence[int]) -> Sequence[Record | Unusable]:
        answers: list[Record | Unusable] = []
        if len(rows) == 0:
            return answers
        with _operational(rows[0]), self._blobs.opened() as content_of:
            for row in rows:
                label = int(self._labels.indices[row])
                if label == UNKNOWN:
                    answers.append(Unusable("its label is not declared"))
                    continue
                with _operational(row):
                    content = content_of(row)
                pixels = content if isinstance(content, Unusable) else self._rules.decode(content)
                answers.append(pixels if isinstance(pixels, Unusable) else Record(pixels, label))
        return answers

    def raw(self, row: int) -> bytes:
        with _operational(row), self._blobs.opened() as content_of:
            content = content_of(row)
        return b"" if isinstance(content, Unusable) else self._labels.raw(row) + b"\0" + content


@final
class _operational:  # noqa: N801  reads as a statement
    """An OSError is no function of a record: it stops the stage."""

    def __init__(self, row: int) -> None:
        self._row = row

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise ReadFailed(self._row, name_of(error)) from None


def name_of(error: OSError) -> str:
    """The operating system's word for an error, without the name of a file."""
    return type(error).__name__ if error.errno is None else errno.errorcode.get(error.errno, "OSError")
