from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from privolve.data.errors import DataError
from privolve.data.webdataset import WebDatasetConfig
from privolve.privacy.private import OperationalError


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (6, 6), shade).save(file, "PNG")
    return file.getvalue()


def shard(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def config(path: Path, **changes: object) -> WebDatasetConfig:
    table = {"path": path, "classes": ("0", "1"), "size": (6, 6), "channels": 1, **changes}
    return WebDatasetConfig.model_validate(table)


def read(records, partition) -> list[tuple[int, int] | None]:
    found = records(partition)
    return [
        None if each is None else (each.label, int(each.content[0, 0, 0])) for each in found.read_many(0, len(found))
    ]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    shard(folder / "train-1.tar", ("c.png", png(3)), ("c.cls", b"1\n"))
    shard(folder / "train-0.tar", ("a/x.png", png(1)), ("a/x.cls", b"0"), ("b.cls", b"1"), ("b.jpg", png(2)))
    shard(folder / "test-0.tar", ("d.png", png(4)), ("d.cls", b"0"))
    return folder


def test_a_key_is_a_slot_in_the_order_of_the_shards(shards: Path, records) -> None:
    split = config(shards, test_pattern="test-*.tar").load()
    assert list(records(split.train).ids) == ["train-0/a/x", "train-0/b", "train-1/c"]
    assert read(records, split.train) == [(0, 1), (1, 2), (1, 3)] and read(records, split.test) == [(0, 4)]
    one = config(shards / "train-0.tar", test_path=shards / "test-0.tar").load()
    assert one.train.count == 2 and one.test is not None and one.test.count == 1


def test_labels_are_names_numbers_or_keys_of_json(tmp_path: Path, records) -> None:
    named = shard(tmp_path / "n.tar", ("a.png", png(1)), ("a.cls", b"dog"), ("b.png", png(2)), ("b.cls", b"0"))
    assert read(records, config(named, classes=("cat", "dog")).load().train) == [(1, 1), (0, 2)]
    table = json.dumps({"kind": "dog"}).encode()
    keyed = shard(tmp_path / "j.tar", ("a.png", png(1)), ("a.json", table))
    assert read(records, config(keyed, classes=("cat", "dog"), label="json", label_key="kind").load().train) == [(1, 1)]
    assert read(records, config(named, classes=("pet",)).load().train) == [(0, 1), (0, 2)]


def test_a_sample_without_image_or_label_or_with_a_link_is_a_ghost_in_its_slot(tmp_path: Path, records) -> None:
    link = tarfile.TarInfo("c.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    path = shard(
        tmp_path / "set.tar",
        ("a.cls", b"0"),
        ("b.png", png(1)),
        link,
        ("c.cls", b"0"),
        ("d.png", b"no image"),
        ("d.cls", b"0"),
        ("e.png", png(5)),
        ("e.cls", b"7"),
        ("f.png", png(6)),
        ("f.cls", b"1"),
    )
    lines: list[str] = []
    split = config(path).load(private_log=lines.append)
    assert read(records, split.train) == [None, None, None, None, None, (1, 6)] and len(lines) == 5
    assert len(set(records(split.train).parts())) == 5  # two have no image and the same label


def test_a_shard_that_is_cut_or_no_tar_is_one_line(shards: Path, tmp_path: Path) -> None:
    whole = (shards / "train-0.tar").read_bytes()
    broken = tmp_path / "broken.tar"
    for content in (b"x" * 2000, whole[:700]):
        broken.write_bytes(content)
        with pytest.raises(DataError, match="is cut short") as caught:
            config(broken).load()
        assert "\n" not in str(caught.value)
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 8_000_000_000
    broken.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))
    with pytest.raises(DataError, match="no tar file"):
        config(broken).load()
    with pytest.raises(DataError, match="no shard of the form"):
        config(shards, pattern="*.none").load()


def test_a_shard_that_vanishes_stops_the_stage(shards: Path, records) -> None:
    found = records(config(shards).load().train)
    (shards / "train-1.tar").unlink()
    with pytest.raises(OperationalError, match="ENOENT"):
        found.read_many(0, len(found))


def test_a_proposal_reads_labels_and_headers(shards: Path) -> None:
    proposal = WebDatasetConfig(path=shards, pattern="train-*.tar").propose()
    assert proposal == {"classes": ["0", "1"], "size": [6, 6], "channels": 1, "count": 3}
