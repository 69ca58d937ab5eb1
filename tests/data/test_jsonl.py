from __future__ import annotations

from pathlib import Path

import pytest

from privolve.data.captions import CsvConfig
from privolve.data.errors import DataError
from privolve.data.jsonl import JsonLinesConfig


def write(path: Path, *lines: str | bytes) -> Path:
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines) + b"\n")
    return path


def read(records, partition) -> list[tuple[object, int] | None]:
    found = records(partition)
    return [None if each is None else (each.content, each.label) for each in found.read_many(0, len(found))]


def test_a_line_is_a_slot_whatever_it_holds(tmp_path: Path, records) -> None:
    deep = "[" * 100_000
    path = write(
        tmp_path / "set.jsonl",
        '{"text": "one", "label": "a"}',
        "no json",
        "",
        '{"text": 5, "label": "a"}',
        '{"text": "five", "label": "c"}',
        b'{"text": "\xff", "label": "a"}',
        deep,
        '{"text": "\\ud800", "label": "a"}',
        '{"text": "nine", "label": "b"}',
    )
    split = JsonLinesConfig(path=path, label="label", classes=("a", "b")).load()
    assert split.train.count == 9 and split.train.size is None
    assert read(records, split.train) == [("one", 0), *[None] * 7, ("nine", 1)]
    assert JsonLinesConfig(path=path, label="label").propose()["classes"] == ["a", "b", "c"]


def test_numbers_and_several_keys_make_a_label(tmp_path: Path, records) -> None:
    path = write(tmp_path / "set.jsonl", '{"body": "x", "stars": 5, "kind": "bar"}', '{"body": "y", "stars": 1}')
    one = JsonLinesConfig(path=path, text="body", label="stars", classes=("1", "5"))
    assert read(records, one.load().train) == [("x", 1), ("y", 0)]
    two = JsonLinesConfig(path=path, text="body", label=("kind", "stars"), classes=("bar | 5",), test_path=path)
    assert read(records, two.load().train) == [("x", 0), None] and two.load().test is not None
    with pytest.raises(DataError, match="no label and 2 classes"):
        JsonLinesConfig(path=path, text="body", classes=("a", "b")).load()


def test_a_csv_may_name_its_columns_itself_and_join_labels(tmp_path: Path, records) -> None:
    path = write(tmp_path / "captions.txt", "1.jpg#0\tA cat, asleep .", "1.jpg#1\tA cat")
    plain = CsvConfig(path=path, columns=("image", "text"), quoted=False, classes=("caption",))
    assert read(records, plain.load().train) == [("A cat, asleep .", 0), ("A cat", 0)]
    table = write(tmp_path / "set.csv", "text,one,two", "x,a,b", "y,a", "z,a,c")
    joined = CsvConfig(path=table, label_column=("one", "two"), classes=("a | c", "a | b"))
    assert read(records, joined.load().train) == [("x", 1), None, ("z", 0)]
