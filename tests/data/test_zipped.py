from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from privolve.data.errors import DataError
from privolve.data.zipped import ZipConfig
from privolve.privacy.private import OperationalError


def png(shade: int, size: tuple[int, int] = (8, 8)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (shade,) * 3).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def zipped(tmp_path: Path) -> Callable[..., Path]:
    def write(members: dict[str, bytes], name: str = "set.zip", method: int = zipfile.ZIP_DEFLATED) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w", method) as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        return tmp_path / name

    return write


def config(path: Path, **changes: object) -> ZipConfig:
    return ZipConfig.model_validate({"path": path, "classes": ("cat", "dog"), "size": (8, 8), "channels": 3, **changes})


def read(records, partition) -> list[tuple[int, int] | None]:
    """Label and shade of every slot."""
    found = records(partition)
    answers = found.read_many(0, len(found))
    return [None if each is None else (each.label, int(each.content[0, 0, 0])) for each in answers]


PETS = {
    "b/dog/1.png": png(3),
    "b/cat/2.png": png(2),
    "b/cat/1.PNG": png(1),
    "readme.txt": b"x",
    "__MACOSX/b/cat/1.png": b"",
}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_images_in_class_folders_are_read_where_they_lie(zipped, records, method: int) -> None:
    split = config(zipped(PETS, method=method)).load()
    assert list(records(split.train).ids) == ["b/cat/1.PNG", "b/cat/2.png", "b/dog/1.png"]
    assert read(records, split.train) == [(0, 1), (0, 2), (1, 3)] and split.test is None


def test_parts_of_the_archive_are_the_official_split(zipped, records) -> None:
    members = {
        f"{part}/{name}/1.png": png(shade) for part, shade in (("train", 5), ("test", 7)) for name in ("cat", "dog")
    }
    split = config(zipped(members)).load()
    assert read(records, split.train) == [(0, 5), (1, 5)] and read(records, split.test) == [(0, 7), (1, 7)]
    assert config(zipped(members), part="test/").load().train.count == 2


def test_the_labels_of_edm_and_of_file_names_are_read(zipped, records) -> None:
    table = {"labels": [["00/a.png", 1], ["00/b.png", 0]]}
    members = {"00/a.png": png(1), "00/b.png": png(2), "00/c.png": png(3), "dataset.json": json.dumps(table).encode()}
    assert read(records, config(zipped(members)).load().train) == [(1, 1), (0, 2), None]
    named = {"cat_1.png": png(1), "dog_2.png": png(2), "cow_1.png": png(3)}
    assert read(records, config(zipped(named), layout="names").load().train) == [(0, 1), None, (1, 2)]
    assert read(records, config(zipped(named), classes=("pet",)).load().train) == [(0, 1), (0, 3), (0, 2)]


def test_a_damaged_member_is_a_ghost_in_its_slot_and_its_neighbours_are_not(zipped, records) -> None:
    path = zipped({**PETS, "b/cat/3.png": b"no image", "b/cat/4.png": png(4)}, method=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    place = content.index(png(4))
    content[place + 40] ^= 1
    path.write_bytes(content)
    lines: list[str] = []
    split = config(path).load(private_log=lines.append)
    assert split.train.count == 5
    assert read(records, split.train) == [(0, 1), (0, 2), None, None, (1, 3)]
    assert len(lines) == 2 and "checksum" in lines[1]
    assert records(split.train).raw(3) == b"" != records(split.train).raw(2)


def test_a_member_larger_than_it_says_or_than_allowed_is_a_ghost(zipped, records) -> None:
    path = zipped({"cat/1.png": png(1) + bytes(1_000_000), "dog/1.png": png(2)})
    assert read(records, config(path, max_bytes=100_000).load().train) == [None, (1, 2)]
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 100)
    path.write_bytes(content)
    assert read(records, config(path).load().train) == [None, (1, 2)]


def test_an_archive_that_vanishes_stops_the_stage_and_makes_no_ghost(zipped, records) -> None:
    path = zipped(PETS)
    found = records(config(path).load().train)
    path.rename(path.with_name("gone"))
    with pytest.raises(OperationalError, match="ENOENT"):
        found.read_many(0, 3)
    with pytest.raises(OperationalError):
        found.raw(0)


def test_raw_bytes_tell_records_and_labels_apart(zipped, records) -> None:
    same = png(1)
    found = records(config(zipped({"cat/1.png": same, "dog/1.png": same, "dog/2.png": png(2)})).load().train)
    assert len(set(found.parts())) == 3


def test_what_is_wrong_with_the_whole_is_one_line(zipped, tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_bytes(b"no archive")
    for path, changes, words in (
        (tmp_path / "text.zip", {}, "no zip archive"),
        (tmp_path / "none.zip", {}, "does not exist"),
        (zipped({"a.txt": b""}, "empty.zip"), {}, "holds no image"),
        (zipped(PETS), {"part": "nowhere/"}, "begins with 'nowhere/'"),
        (zipped(PETS), {"layout": "one-class"}, "needs one class"),
        (zipped({"a.png": b"", "dataset.json": b"[1]"}, "json.zip"), {}, "no list `labels`"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            config(path, **changes).load()
        assert "\n" not in str(caught.value)


def test_a_proposal_looks_at_folders_and_headers(zipped) -> None:
    assert ZipConfig(path=zipped(PETS)).propose() == {
        "classes": ["cat", "dog"],
        "size": [8, 8],
        "channels": 3,
        "count": 3,
    }
