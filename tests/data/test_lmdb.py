from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from privolve.data.errors import DataError
from privolve.data.lmdb_images import LmdbConfig
from privolve.privacy.private import OperationalError

lmdb = pytest.importorskip("lmdb", reason="the extra `lmdb` is not installed")


def webp(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (12, 8), (shade,) * 3).save(file, "WEBP", lossless=True)
    return file.getvalue()


def database(path: Path, values: dict[bytes, bytes], *, subdir: bool = True) -> Path:
    with lmdb.open(str(path), map_size=1 << 22, subdir=subdir) as opened, opened.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key, value)
    return path


VALUES = {b"bb": webp(2), b"aa": webp(1), b"cc": b"no image", b"dd": webp(4)}


def config(path: Path, **changes: object) -> LmdbConfig:
    table = {"path": path, "classes": ("bedroom",), "size": (8, 8), "channels": 3, **changes}
    return LmdbConfig.model_validate(table)


def test_a_key_is_a_slot_in_the_order_of_bytes_and_a_broken_value_a_ghost(tmp_path: Path, records) -> None:
    val = database(tmp_path / "val", {b"zz": webp(9)})
    split = config(database(tmp_path / "set", VALUES), test_path=val).load()
    found = records(split.train)
    assert list(found.ids) == ["aa", "bb", "cc", "dd"]
    read = found.read_many(0, 4)
    assert [each and int(each.content[0, 0, 0]) for each in read] == [1, 2, None, 4]
    assert read[0].content.shape == (8, 8, 3) and split.test is not None and split.test.count == 1
    assert found.raw(1) == b"bedroom\0" + VALUES[b"bb"]
    small = records(config(tmp_path / "set", max_bytes=10).load().train)
    assert small.read_many(0, 4) == [None] * 4 and small.raw(0) == b""


def test_nothing_is_written_beside_the_database(tmp_path: Path, records) -> None:
    path = database(tmp_path / "one.mdb", VALUES, subdir=False)
    (tmp_path / "one.mdb-lock").unlink()
    assert None in records(config(path).load().train).read_many(0, 4)
    assert [each.name for each in tmp_path.iterdir()] == ["one.mdb"]


def test_what_is_wrong_with_the_whole_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "no.mdb").write_bytes(b"no database" * 1000)
    for path, changes, words in (
        (tmp_path / "no.mdb", {}, "no LMDB database"),
        (tmp_path / "none", {}, "does not exist"),
        (database(tmp_path / "set", VALUES), {"classes": ("a", "b")}, "has no labels; declare one class"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            config(path, **changes).load()
        assert "\n" not in str(caught.value)


def test_a_database_that_vanishes_stops_the_stage(tmp_path: Path, records) -> None:
    found = records(config(database(tmp_path / "set", VALUES)).load().train)
    (tmp_path / "set").rename(tmp_path / "gone")
    with pytest.raises(OperationalError):
        found.read_many(0, 4)


def test_a_proposal_looks_at_a_header(tmp_path: Path) -> None:
    proposal = LmdbConfig(path=database(tmp_path / "set", VALUES)).propose()
    assert proposal == {"classes": ["set"], "size": [12, 8], "channels": 3, "count": 4}
