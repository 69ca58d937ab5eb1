"""Tables of records: parquet files, and data sets of Hugging Face's `datasets` saved to disk. Read by pyarrow alone.

A slot is a row. Numbers of rows come from the files' own directories; labels are read when the set is listed, and a record
when its slot is read, a row group or a mapped batch at a time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal, Protocol, final

import numpy as np
from pydantic import PositiveInt

from .config import ImageDataConfig
from .errors import Damaged, Undeclared, Unreadable
from .files import GIBIBYTE, MEBIBYTE, open_container
from .image_set import ImageRules, shape_of
from .joined import Joined
from .labels import UNKNOWN, Labels, from_names, from_numbers
from .private_set import Record
from .slots import Listing, ReadFailed, Slots, Unusable
from .text_set import Caption, caption_record

IMAGE_COLUMNS = ("image", "img", "jpg", "png")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class")
SURVEYED = 50


class TableConfig(ImageDataConfig, frozen=True):
    """`kind = "table"`: `path` is a parquet file, a folder of them, or what `datasets.save_to_disk` wrote.

    split, test_split  which part votes, and which never does: parts of a saved `DatasetDict`, or the beginnings of parquet
                       files' names; by default "train" with "test" or "validation", where there are such
    test_path          a second file or folder, whose records never vote
    image              the column of encoded images; by default the first usual name there is
    text               the column of texts, instead of images; the set then has no size and no channels
    label              the column of labels; by default the first usual name there is, where several classes are declared
    max_chars          a longer text is a ghost
    max_bytes          a larger image is never decoded
    max_group          of a row group in memory
    """

    kind: Literal["table"] = "table"
    path: Path
    test_path: Path | None = None
    split: str | None = None
    test_split: str | None = None
    image: str | None = None
    text: str | None = None
    label: str | None = None
    resize: Literal["refuse", "fit"] = "fit"
    max_chars: PositiveInt = 20_000
    max_bytes: PositiveInt = 32 * MEBIBYTE
    max_group: PositiveInt = 4 * GIBIBYTE

    @property
    def text_bytes(self) -> int:
        return 0 if self.text is None else 4 * self.max_chars

    def listing(self) -> Listing:
        if self.text is not None and (self.size is not None or self.channels is not None):
            raise Undeclared(f"{self.where}: a set of texts has no size and no channels; drop them")
        voters, tests = _files(self.path, self.split, self.test_split, where=self.where)
        if self.test_path is not None:
            tests, _ = _files(self.test_path, self.test_split, None, where=self.where)
        return Listing(voters=self._slots(voters), test=self._slots(tests) if tests else None)

    def survey(self) -> dict[str, Any]:
        voters, _ = _files(self.path, self.split, self.test_split, where=self.where)
        tables = [self._opened(path) for path in voters]
        column = self._column(tables[0], self.label, LABEL_COLUMNS, needed=False)
        found: dict[str, Any] = {"classes": (self.name,)}
        if column is not None:
            labels = {label for table in tables for label in table.column(column) if label is not None}
            ordered = sorted(labels, key=lambda label: (isinstance(label, str), label))
            found["classes"] = tuple(str(label) for label in ordered)
        if self.text is not None:
            return found
        image = self._column(tables[0], self.image, IMAGE_COLUMNS)
        rows = range(0, tables[0].count, max(1, tables[0].count // SURVEYED))
        cells = [_encoded(tables[0].cell(row, image)) for row in rows]
        shapes = Counter(shape for cell in cells if cell is not None and (shape := shape_of(cell)) is not None)
        if shapes:
            (width, height, channels), _ = shapes.most_common(1)[0]
            found |= {"size": (width, height), "channels": channels}
        return found

    def _slots(self, paths: Sequence[Path]) -> Slots:
        parts: list[Slots] = [self._part(path) for path in paths]
        return parts[0] if len(parts) == 1 else Joined(parts)

    def _part(self, path: Path) -> _Rows:
        table = self._opened(path)
        content = self.text if self.text is not None else self._column(table, self.image, IMAGE_COLUMNS)
        self._column(table, content, ())
        column = self._column(table, self.label, LABEL_COLUMNS, needed=len(self.classes) > 1)
        if column is None or (self.label is None and len(self.classes) == 1):
            labels = from_names([self.classes[0]] * table.count, self.classes)
        else:
            labels = _labels(table.column(column), self.classes)
        return _Rows(
            table,
            content,
            labels,
            ids=[f"{path.stem}/{row}" for row in range(table.count)],
            rules=None if self.text is not None else self.rules(),
            max_bytes=self.max_bytes,
            max_chars=self.max_chars,
        )

    def _opened(self, path: Path) -> _Table:
        try:
            import pyarrow
        except ImportError:
            raise Unreadable(
                f"{self.where}: to read parquet and saved data sets, install the extra: pip install 'privolve[parquet]'"
            ) from None
        open_container(path, max_bytes=1024 * GIBIBYTE, where=self.where).close()
        try:
            table = _Parquet(path) if path.suffix == ".parquet" else _Arrow(path)
        except (pyarrow.ArrowException, OSError, ValueError):
            raise Damaged(f"{self.where}: {path} cannot be read as a table; fetch it again") from None
        if table.largest > self.max_group:
            raise Damaged(
                f"{self.where}: a row group of {path} has {table.largest} bytes, more than max_group = {self.max_group}; "
                "write it with smaller ones, or raise max_group"
            )
        return table

    def _column(self, table: _Table, name: str | None, usual: Sequence[str], *, needed: bool = True) -> Any:
        if name is not None:
            if name not in table.names:
                raise Damaged(f"{self.where}: there is no column {name!r}; the columns are {_list(table.names)}")
            return name
        found = next((each for each in usual if each in table.names), None)
        if found is None and needed:
            raise Damaged(
                f"{self.where}: no column of a usual name ({_list(usual)}); name it by image, text or label; the columns "
                f"are {_list(table.names)}"
            )
        return found


class _Table(Protocol):
    """Rows of named columns. `cell` and `column` raise pyarrow's errors."""

    count: int
    largest: int
    names: list[str]

    def column(self, name: str) -> list[Any]: ...

    def cell(self, row: int, name: str) -> Any: ...


@final
class _Parquet:
    """One row group is in memory at a time."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as parquet

        self._file = parquet.ParquetFile(path, memory_map=True)
        metadata = self._file.metadata
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        self._starts = np.cumsum([0, *(group.num_rows for group in groups)])
        self.count = int(self._starts[-1])
        self.largest = max((group.total_byte_size for group in groups), default=0)
        self.names = list(self._file.schema_arrow.names)
        self._held: tuple[int, str, Any] | None = None

    def column(self, name: str) -> list[Any]:
        return self._file.read(columns=[name]).column(0).to_pylist()

    def cell(self, row: int, name: str) -> Any:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if self._held is None or self._held[:2] != (group, name):
            self._held = None  # before the next one is read
            self._held = (group, name, self._file.read_row_group(group, columns=[name]).column(0))
        return self._held[2][row - int(self._starts[group])].as_py()


@final
class _Arrow:
    """Mapped, not read."""

    def __init__(self, path: Path) -> None:
        import pyarrow

        source = pyarrow.memory_map(str(path))
        try:
            self._table = pyarrow.ipc.open_stream(source).read_all()
        except pyarrow.ArrowInvalid:
            self._table = pyarrow.ipc.open_file(source).read_all()
        self.count = self._table.num_rows
        self.largest = 0
        self.names = list(self._table.column_names)

    def column(self, name: str) -> list[Any]:
        return self._table.column(name).to_pylist()

    def cell(self, row: int, name: str) -> Any:
        return self._table.column(name)[row].as_py()


@final
class _Rows:
    """Slots that are rows of one table."""

    def __init__(
        self,
        table: _Table,
        content: str,
        labels: Labels,
        *,
        ids: Sequence[str],
        rules: ImageRules | None,
        max_bytes: int,
        max_chars: int,
    ) -> None:
        self._table = table
        self._content = content
        self._labels = labels
        self._rules = rules
        self._max_bytes = max_bytes
        self._max_chars = max_chars
        self.ids = ids

    def read(self, rows: Sequence[int]) -> Sequence[Record | Unusable]:
        return [self._record(row) for row in rows]

    def raw(self, row: int) -> bytes:
        cell = self._cell(row)
        content = cell.encode("utf-8") if isinstance(cell, str) else _encoded(cell)
        return b"" if content is None else self._labels.raw(row) + b"\0" + content

    def _record(self, row: int) -> Record | Unusable:
        label = int(self._labels.indices[row])
        if label == UNKNOWN:
            return Unusable("its label is not declared")
        cell = self._cell(row)
        if self._rules is None:
            text = cell if isinstance(cell, str) else None
            return caption_record(Caption(text=text), label, max_chars=self._max_chars)
        content = _encoded(cell)
        if content is None:
            return Unusable("its cell holds no encoded image")
        if len(content) > self._max_bytes:
            return Unusable(f"it has more than max_bytes = {self._max_bytes} bytes")
        pixels = self._rules.decode(content)
        return pixels if isinstance(pixels, Unusable) else Record(pixels, label)

    def _cell(self, row: int) -> Any:
        import pyarrow

        try:
            return self._table.cell(row, self._content)
        except UnicodeDecodeError:
            return None
        except (pyarrow.ArrowException, OSError) as error:
            raise ReadFailed(row, type(error).__name__) from None


def _files(path: Path, split: str | None, test_split: str | None, *, where: str) -> tuple[list[Path], list[Path]]:
    """The tables of the voters and of the test part."""
    if not path.is_dir():
        return [path], []
    if (path / "dataset_dict.json").is_file():
        parts = _json(path / "dataset_dict.json", where).get("splits", [])
        known = [name for name in parts if isinstance(name, str) and Path(name).name == name]
        train, test = _chosen(known, split, test_split, where=where)
        return _saved(path / train, where), [] if test is None else _saved(path / test, where)
    if (path / "state.json").is_file():
        return _saved(path, where), []
    folder = path if any(path.glob("*.parquet")) else path / "data"
    found = sorted(folder.glob("*.parquet"), key=lambda each: each.name)
    if not found:
        raise Unreadable(f"{where}: {path} holds no parquet file and no saved data set; check `path`")
    beginnings = sorted({each.name.removesuffix(".parquet").partition("-")[0] for each in found})
    if split is None and test_split is None and "train" not in beginnings:
        return found, []
    train, test = _chosen(beginnings, split, test_split, where=where)

    def of(name: str) -> list[Path]:
        return [each for each in found if fnmatch(each.name, f"{name}-*.parquet") or each.name == f"{name}.parquet"]

    return of(train), [] if test is None else of(test)


def _chosen(known: Sequence[str], split: str | None, test_split: str | None, *, where: str) -> tuple[str, str | None]:
    for wanted in (split, test_split):
        if wanted is not None and wanted not in known:
            raise Unreadable(f"{where}: there is no part {wanted!r}; the parts are {_list(known)}")
    train = split or ("train" if "train" in known else None)
    if train is None:
        raise Unreadable(f"{where}: which part votes? Name it by split; the parts are {_list(known)}")
    usual = next((name for name in ("test", "validation", "valid", "val") if name in known and name != train), None)
    return train, test_split or (usual if split is None else None)


def _saved(folder: Path, where: str) -> list[Path]:
    """The Arrow files of one saved part, as its own state lists them."""
    listed = _json(folder / "state.json", where).get("_data_files", [])
    names = [entry.get("filename") for entry in listed if isinstance(entry, dict)]
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise Damaged(f"{where}: {folder}/state.json does not list the files of a saved data set; save it again")
    return [folder / str(name) for name in names]


def _json(path: Path, where: str) -> dict[str, Any]:
    with open_container(path, max_bytes=64 * MEBIBYTE, where=where) as file:
        try:
            found = json.load(file)
        except (ValueError, RecursionError):
            found = None
    if not isinstance(found, dict):
        raise Damaged(f"{where}: {path} is no JSON object; save the data set again")
    return found


def _labels(cells: Sequence[Any], classes: tuple[str, ...]) -> Labels:
    """Labels as text or numbers; a missing one is none of them."""
    if any(isinstance(cell, str) for cell in cells):
        return from_names([cell if isinstance(cell, str) else "" for cell in cells], classes)
    whole = [int(cell) if isinstance(cell, int) and abs(cell) < 2**62 else -1 for cell in cells]
    return from_numbers(whole, classes)


def _encoded(cell: Any) -> bytes | None:
    """The bytes of an image cell: plain, or Hugging Face's {"bytes", "path"}, of which a path alone is not followed."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    return content if isinstance(content, bytes) else None


def _list(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:20]) or "none"
