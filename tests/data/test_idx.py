from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from privolve.data.errors import DataError
from privolve.data.idx import IdxConfig
from privolve.data.npz import NpzConfig

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2], dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def config(path: Path, **changes: object) -> IdxConfig:
    return IdxConfig.model_validate(
        {"path": path, "classes": ("0", "1", "2"), "size": (4, 5), "channels": 1, **changes}
    )


@pytest.fixture
def files(tmp_path: Path) -> Path:
    root = tmp_path / "letters"
    root.mkdir()
    (root / "train-images-idx3-ubyte").write_bytes(idx(PIXELS))
    (root / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS)))
    return root


def test_a_pair_with_or_without_gzip_is_read(files: Path, records) -> None:
    split = config(files).load()
    found = records(split.train)
    assert split.test is None
    assert (np.stack([record.content for record in found.read_many(0, 6)])[..., 0] == PIXELS).all()
    assert [record.label for record in found.read_many(0, 6)] == LABELS.tolist()


def test_the_second_pair_is_the_test_part(files: Path, records) -> None:
    (files / "t10k-images.idx3-ubyte.gz").write_bytes(gzip.compress(idx(PIXELS[:2])))
    (files / "t10k-labels.idx1-ubyte").write_bytes(idx(LABELS[:2]))
    split = config(files, test="public").load()
    assert split.test is not None and split.test.count == 2 and split.test_is_public
    assert list(records(split.test).ids) == ["t10k/0", "t10k/1"]


def test_files_of_other_names_can_be_named(files: Path) -> None:
    (files / "a").write_bytes(idx(PIXELS[:3]))
    (files / "b").write_bytes(idx(LABELS[:3]))
    split = config(
        files, images="a", labels="b", test_images="train-images-idx3-ubyte", test_labels="train-labels-idx1-ubyte.gz"
    )
    loaded = split.load()
    assert loaded.train.count == 3 and loaded.test is not None and loaded.test.count == 6


def test_the_same_records_have_the_same_raw_bytes_in_an_npz(files: Path, npz, records) -> None:
    other = NpzConfig(path=npz(x=PIXELS, y=LABELS.astype(np.int64)), classes=("0", "1", "2"), size=(4, 5), channels=1)
    assert list(records(config(files).load().train).parts()) == list(records(other.load().train).parts())


def test_what_is_wrong_with_the_files_is_one_line(files: Path, tmp_path: Path) -> None:
    (files / "short").write_bytes(idx(PIXELS)[:-1])
    (files / "long").write_bytes(idx(PIXELS) + b"0")
    (files / "floats").write_bytes(bytes([0, 0, 0x0D, 3]) + idx(PIXELS)[4:])
    (files / "vast").write_bytes(bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**31, 2**31, 2**31))
    (files / "vast.gz").write_bytes(gzip.compress(idx(np.zeros((1000, 100, 100), np.uint8))))
    (files / "cut.gz").write_bytes(gzip.compress(idx(PIXELS))[:-20])
    (files / "link").symlink_to(files / "short")
    empty = tmp_path / "empty"
    empty.mkdir()
    cases: list[tuple[Path, dict[str, object], str]] = [
        (tmp_path / "missing", {}, "has no train-images-idx3-ubyte"),
        (empty, {}, "has no train-images-idx3-ubyte"),
        (files, {"images": "nothing"}, "does not exist"),
        (files, {"images": "../empty"}, "no file name"),
        (files, {"images": "link"}, "symbolic link"),
        (files, {"images": "short"}, "more or less"),
        (files, {"images": "long"}, "more or less"),
        (files, {"images": "floats"}, "no IDX file"),
        (files, {"images": "vast"}, "max_bytes"),
        (files, {"images": "vast.gz", "max_bytes": 1_000_000}, "would unpack to 10000000 bytes"),
        (files, {"images": "cut.gz"}, "cut short"),
        (files, {"images": "train-labels-idx1-ubyte.gz"}, "no IDX file of 3-dimensional"),
        (files, {"size": (28, 28)}, "is declared"),
        (files, {"test_images": "train-images-idx3-ubyte"}, "has no t10k-labels-idx1-ubyte"),
    ]
    for path, changes, words in cases:
        with pytest.raises(DataError, match=words) as caught:
            config(path, **changes).load()
        assert "\n" not in str(caught.value)


def test_a_proposal_can_be_declared_as_it_is(files: Path) -> None:
    assert IdxConfig(path=files).propose() == {"classes": ["0", "1", "2"], "size": [4, 5], "channels": 1, "count": 6}
