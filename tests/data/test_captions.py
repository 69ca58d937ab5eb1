from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from privolve.data.captions import CsvConfig
from privolve.data.errors import DataError
from privolve.data.folder import FolderConfig

CANARY = "canary-7f3a"


@pytest.fixture
def write(tmp_path: Path):
    def written(content: str | bytes, *, name: str = "rooms.csv") -> Path:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path / name

    return written


def config(path: Path, **changes: object) -> CsvConfig:
    return CsvConfig.model_validate({"path": path, "classes": ("room",), **changes})


def texts(records) -> list[str | None]:
    return [None if record is None else record.content for record in records.read_many(0, len(records))]


def test_captions_are_read_row_by_row(write, records) -> None:
    split = config(write('id,text\n1,a bed\n2,"two, with a ""quote""\nand a line"\r\n3, padded \n')).load()
    found = records(split.train)
    assert texts(found) == ["a bed", 'two, with a "quote"\nand a line', "padded"]
    assert list(found.ids) == ["row/0", "row/1", "row/2"]
    assert (split.train.size, split.train.channels, split.train.classes) == (None, 0, ("room",))


def test_labels_have_a_column_of_their_own(write, records) -> None:
    path = write("text,kind\na,cat\nb, dog \nc,bird\nd\n")
    found = records(config(path, label_column="kind", classes=("dog", "cat")).load().train)
    assert [record and record.label for record in found.read_many(0, 4)] == [1, 0, None, None]


def test_a_row_that_cannot_be_used_is_a_ghost_in_its_slot(write, records, capfd) -> None:
    content = b"id,text\n1,good\n2,\n3\n\n4,\xff\xfe\n5," + b"x" * 200_000 + b"\n6,bad \x00 but text\n7,good too\n"
    lines: list[str] = []
    found = records(config(write(content)).load(private_log=lines.append).train)
    assert texts(found) == ["good", None, None, None, None, None, "bad \x00 but text", "good too"]
    assert len(lines) == 5 and capfd.readouterr() == ("", "")
    assert len(set(found.parts())) == 8 - 1  # a row without a field and an empty row are alike


def test_what_a_row_holds_changes_no_number_of_rows(write) -> None:
    assert config(write("text\na\nb\nc\n")).load().train.count == 3
    assert config(write("text\na\n\nc\n")).load().train.count == 3


def test_tabs_marks_and_unquoted_fields_are_read(write, records) -> None:
    path = write('\ufefftext\tkind\n5" of snow\tcat\n', name="rooms.tsv")
    assert texts(records(config(path, quoted=False).load().train)) == ['5" of snow']
    assert texts(records(config(write("text;kind\na;b\n"), delimiter=";").load().train)) == ["a"]


def test_what_is_wrong_with_the_file_is_one_line_without_records(write, tmp_path: Path) -> None:
    good = write(f"text,kind\n{CANARY},cat\n", name="good.csv")
    cases: list[tuple[Path, dict[str, object], str]] = [
        (tmp_path / "missing.csv", {}, "does not exist"),
        (tmp_path, {}, "is a folder"),
        (good, {"text_column": "caption"}, "no column 'caption'; its columns are 'text', 'kind'"),
        (good, {"label_column": "label"}, "no column 'label'"),
        (good, {"classes": ("a", "b")}, "no label_column and 2 classes"),
        (good, {"max_bytes": 5}, "max_bytes"),
        (good, {"count": 2}, "holds 1"),
        (write("text,text\na,b\n"), {}, "more than one column"),
        (write("", name="empty.csv"), {}, "no column 'text'"),
        (write("text\n", name="header.csv"), {}, "the set is empty"),
    ]
    for path, changes, words in cases:
        with pytest.raises(DataError, match=words) as caught:
            config(path, **changes).load()
        assert "\n" not in str(caught.value) and CANARY not in str(caught.value)


def test_texts_have_no_size(write) -> None:
    with pytest.raises(ValidationError, match="drop it"):
        config(write("text\na\n"), size=(8, 8))


def test_a_second_file_is_the_test_part(write) -> None:
    path = write("text\na\nb\n")
    split = config(path, test_path=write("text\nc\n", name="test.csv")).load()
    assert split.train.count == 2 and split.test is not None and split.test.count == 1


def test_a_proposal_lists_labels(write) -> None:
    path = write("text,kind\na,cat\nb,dog\nc,\n")
    assert CsvConfig(path=path, label_column="kind").propose() == {
        "classes": ["cat", "dog"],
        "count": 3,
    }


def test_a_txt_without_a_header_is_proposed_as_a_text_a_line(write, records) -> None:
    path = write('\ufeff"Rain", she said\nsnow, and ice\n', name="notes.txt")
    proposed = CsvConfig(path=path).propose()
    assert proposed == {"classes": ["notes"], "columns": ["text"], "quoted": False, "count": 2}
    declared = {field: tuple(proposed[field]) for field in ("classes", "columns")}
    assert texts(records(config(path, **declared, quoted=False).load().train)) == ['"Rain", she said', "snow, and ice"]
    assert CsvConfig(path=write("text\nrain\n", name="named.txt")).propose() == {"classes": ["named"], "count": 1}
    with pytest.raises(DataError, match="list `columns` where the first row is a record"):
        CsvConfig(path=write("review\tstars\nrain\t2\n", name="table.txt")).propose()


def test_the_declaration_is_digested_and_where_the_file_lies_is_not(write, tmp_path: Path) -> None:
    path = write("text,label\nwords,a\n")
    declared = {"classes": ("a", "b"), "label_column": "label", "name": "notes"}
    train = config(path, **declared).load().train
    moved = tmp_path / "elsewhere.csv"
    moved.write_bytes(path.read_bytes())
    assert config(moved, **declared).load().train.declaration == train.declaration
    for change in ({"classes": ("b", "a")}, {"max_chars": 9}, {"quoted": False}):
        assert config(path, **{**declared, **change}).load().train.declaration != train.declaration
    assert config(path, **declared, max_chars=9).load().train.text_bytes == 36


@pytest.mark.parametrize(
    "change", [{"resize": "refuse"}, {"max_pixels": 100}, {"size": (9, 8)}, {"classes": ("b", "a")}]
)
def test_how_images_are_read_is_a_part_of_the_declaration(change) -> None:
    declared = {"path": "set", "classes": ("a", "b"), "size": (8, 8), "channels": 1}
    assert FolderConfig(**{**declared, **change}).declaration() != FolderConfig(**declared).declaration()
    assert FolderConfig(**declared).resolved(Path("/base")).declaration() == FolderConfig(**declared).declaration()
