from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from privolve.data.errors import DataError
from privolve.data.tables import TableConfig

pyarrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
parquet = pytest.importorskip("pyarrow.parquet")


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (shade,) * 3).save(file, "PNG")
    return file.getvalue()


def cell(shade: int) -> dict[str, Any]:
    return {"bytes": png(shade), "path": f"{shade}.png"}


IMAGES = [
    cell(1),
    cell(2),
    None,
    {"bytes": None, "path": "/etc/passwd"},
    {"bytes": b"no", "path": None},
    cell(6),
    cell(7),
]
TABLE = {"image": IMAGES, "label": [0, 1, 0, 1, 0, None, 5]}
READ = [(0, 1), (1, 2), None, None, None, None, None]


def config(path: Path, **changes: object) -> TableConfig:
    table = {"path": path, "classes": ("cat", "dog"), "size": (8, 8), "channels": 3, **changes}
    return TableConfig.model_validate(table)


def read(records, partition) -> list[tuple[int, int] | None]:
    found = records(partition)
    return [
        None if each is None else (each.label, int(each.content[0, 0, 0])) for each in found.read_many(0, len(found))
    ]


def save(path: Path, table: dict[str, list[Any]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(table), path, **options)
    return path


def saved(folder: Path, table: dict[str, list[Any]]) -> Path:
    """As Hugging Face's save_to_disk writes one part."""
    folder.mkdir(parents=True)
    content = pyarrow.table(table)
    path = str(folder / "data-00000-of-00001.arrow")
    with pyarrow.OSFile(path, "wb") as file, pyarrow.ipc.new_stream(file, content.schema) as stream:
        stream.write_table(content, max_chunksize=3)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    return folder


@pytest.mark.parametrize("group", [2, 100])
def test_rows_of_parquet_are_slots_and_ghosts_stay_in_theirs(tmp_path: Path, records, group: int) -> None:
    lines: list[str] = []
    split = config(save(tmp_path / "set.parquet", TABLE, row_group_size=group)).load(private_log=lines.append)
    assert split.train.count == 7 and read(records, split.train) == READ and len(lines) == 5
    assert list(records(split.train).ids)[:2] == ["set/0", "set/1"]
    assert records(split.train).raw(0) == b"0\0" + png(1) and records(split.train).raw(2) == b""


def test_a_folder_of_parquet_has_the_parts_that_its_names_say(tmp_path: Path, records) -> None:
    save(tmp_path / "data" / "train-00001-of-00002.parquet", {"img": [cell(2)], "label": ["dog"]})
    save(tmp_path / "data" / "train-00000-of-00002.parquet", {"img": [cell(1)], "label": ["cat"]})
    save(tmp_path / "data" / "test-00000-of-00001.parquet", {"img": [cell(3)], "label": ["dog"]})
    split = config(tmp_path).load()
    assert read(records, split.train) == [(0, 1), (1, 2)] and read(records, split.test) == [(1, 3)]
    assert config(tmp_path, split="test").load().test is None
    with pytest.raises(DataError, match="there is no part 'dev'; the parts are 'test', 'train'"):
        config(tmp_path, split="dev").load()


def test_what_save_to_disk_wrote_is_mapped(tmp_path: Path, records) -> None:
    assert read(records, config(saved(tmp_path / "one", TABLE)).load().train) == READ
    both = tmp_path / "both"
    saved(both / "train", TABLE)
    saved(both / "validation", {"image": [cell(9)], "label": [1]})
    (both / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    split = config(both).load()
    assert read(records, split.train) == READ and read(records, split.test) == [(1, 9)]
    (both / "train" / "state.json").write_text('{"_data_files": [{"filename": "../../elsewhere.arrow"}]}')
    with pytest.raises(DataError, match="does not list the files"):
        config(both).load()


def test_texts_are_read_as_well(tmp_path: Path, records) -> None:
    path = save(tmp_path / "t.parquet", {"body": ["one", None, " ", "four", "x" * 50], "label": [0, 0, 0, 1, 1]})
    split = TableConfig(path=path, text="body", classes=("a", "b"), max_chars=20).load()
    found = records(split.train).read_many(0, 5)
    assert [each and (each.content, each.label) for each in found] == [("one", 0), None, None, ("four", 1), None]
    assert split.train.size is None and split.train.text_bytes == 80
    with pytest.raises(DataError, match="no size"):
        config(path, text="body").load()


def test_one_class_needs_no_labels(tmp_path: Path, records) -> None:
    path = save(tmp_path / "set.parquet", {"image": [cell(1), cell(2)], "label": [5, 6]})
    assert read(records, config(path, classes=("picture",)).load().train) == [(0, 1), (0, 2)]


def test_what_is_wrong_with_the_whole_is_one_line(tmp_path: Path) -> None:
    good = save(tmp_path / "set.parquet", TABLE)
    (tmp_path / "bad.parquet").write_bytes(good.read_bytes()[:-20])
    (tmp_path / "empty").mkdir()
    for path, changes, words in (
        (tmp_path / "bad.parquet", {}, "cannot be read as a table"),
        (tmp_path / "none.parquet", {}, "does not exist"),
        (tmp_path / "empty", {}, "no parquet file and no saved data set"),
        (good, {"image": "picture"}, "no column 'picture'; the columns are 'image', 'label'"),
        (save(tmp_path / "x.parquet", {"x": [1]}), {}, "no column of a usual name"),
        (good, {"max_group": 10}, "more than max_group = 10"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            config(path, **changes).load()
        assert "\n" not in str(caught.value)


def test_a_proposal_reads_labels_and_headers(tmp_path: Path) -> None:
    path = save(tmp_path / "set.parquet", TABLE)
    assert TableConfig(path=path).propose() == {"classes": ["0", "1", "5"], "size": [8, 8], "channels": 3, "count": 7}
