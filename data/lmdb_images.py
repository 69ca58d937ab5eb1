"""An LMDB database of encoded images, a value each, as LSUN publishes its categories (Yu et al., 2015).

A slot is a key. Keys are listed in the database's own order, which is that of their bytes; a value is read when its slot is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, final

from pydantic import PositiveInt

from .config import ImageDataConfig
from .encoded import EncodedImages
from .errors import Damaged, Undeclared, Unreadable
from .files import MEBIBYTE
from .image_set import shape_of
from .labels import from_names
from .slots import Listing, Unusable

SURVEYED = 50


class LmdbConfig(ImageDataConfig, frozen=True):
    """`kind = "lmdb"`: `path` is the database's folder, or its file. All images are of the one declared class.

    test_path  a second database, whose records never vote
    max_bytes  a larger value is never decoded
    """

    kind: Literal["lmdb"] = "lmdb"
    path: Path
    test_path: Path | None = None
    resize: Literal["refuse", "fit"] = "fit"
    max_bytes: PositiveInt = 32 * MEBIBYTE

    def listing(self) -> Listing:
        if len(self.classes) != 1:
            raise Undeclared(
                f"{self.where}: an LMDB database has no labels; declare one class, not {len(self.classes)}"
            )
        return Listing(
            voters=self._slots(self.path),
            test=None if self.test_path is None else self._slots(self.test_path),
        )

    def survey(self) -> dict[str, Any]:
        blobs = self._blobs(self.path)
        with blobs.opened() as content_of:
            for row in range(min(SURVEYED, len(blobs.keys))):
                content = content_of(row)
                shape = None if isinstance(content, Unusable) else shape_of(content)
                if shape is not None:
                    return {"classes": (self.name,), "size": shape[:2], "channels": shape[2]}
        return {"classes": (self.name,)}

    def _slots(self, path: Path) -> EncodedImages:
        blobs = self._blobs(path)
        labels = from_names([self.classes[0]] * len(blobs.keys), self.classes)
        ids = [key.decode("utf-8", "backslashreplace") for key in blobs.keys]
        return EncodedImages(blobs, labels, ids=ids, rules=self.rules())

    def _blobs(self, path: Path) -> _LmdbBlobs:
        if path.is_symlink() or not path.exists():
            raise Unreadable(f"{self.where}: {path} does not exist, or is a symbolic link; check `path`")
        try:
            import lmdb
        except ImportError:
            raise Unreadable(
                f"{self.where}: to read LMDB, install the extra: pip install 'privolve[lmdb]', or export the images to a folder"
            ) from None
        try:
            with _opened(path) as database, database.begin() as transaction, transaction.cursor() as cursor:
                keys = list(cursor.iternext(keys=True, values=False))
        except lmdb.Error as error:
            raise Damaged(
                f"{self.where}: {path} is no LMDB database that can be read ({type(error).__name__}); check `path`"
            ) from None
        return _LmdbBlobs(path, keys, max_bytes=self.max_bytes)


@final
class _LmdbBlobs:
    def __init__(self, path: Path, keys: Sequence[bytes], *, max_bytes: int) -> None:
        self._path = path
        self.keys = keys
        self._max_bytes = max_bytes

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], bytes | Unusable]]:
        import lmdb

        try:
            with _opened(self._path) as database, database.begin(buffers=True) as transaction:
                yield lambda row: self._content(transaction, row)
        except lmdb.Error as error:
            raise OSError(type(error).__name__) from None

    def _content(self, transaction: Any, row: int) -> bytes | Unusable:
        value = transaction.get(self.keys[row])
        if value is None:
            raise FileNotFoundError
        if len(value) > self._max_bytes:
            return Unusable(f"it has more than max_bytes = {self._max_bytes} bytes")
        return bytes(value)


def _opened(path: Path) -> Any:
    """A database for reading; nothing is written beside it, no lock either."""
    import lmdb

    return lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False, create=False)
