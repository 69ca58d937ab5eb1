"""The sources on real data, where it is present."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from privolve.data.captions import CsvConfig
from privolve.data.errors import DataError
from privolve.data.folder import FolderConfig
from privolve.data.npz import NpzConfig

DIGITS = tuple("0123456789")


@pytest.mark.parametrize("name", ["mnist", "fashionmnist"])
def test_mnist_and_its_relative_are_read_in_about_a_second(shared: Path, records, name: str) -> None:
    config = NpzConfig(
        path=shared / "images" / f"{name}.npz",
        classes=DIGITS,
        size=(28, 28),
        channels=1,
        slots=(0, 55_000),
        count=55_000,
        test="public",
    )
    start = time.process_time()
    split = config.load()
    read = records(split.train).read_many(0, 55_000)
    pixels = np.stack([record.content for record in read])
    labels = np.array([record.label for record in read])
    took = time.process_time() - start
    assert took < 5  # about one: a bound that a busy machine keeps
    assert pixels.shape == (55_000, 28, 28, 1) and np.bincount(labels, minlength=10).min() > 4000
    assert split.test is not None and split.test.count == 10_000 and split.test_is_public
    with np.load(config.path, allow_pickle=False) as stored:
        assert (stored["x_train"][:100] == pixels[:100, :, :, 0]).all()
        assert (stored["y_train"][:55_000] == labels).all()


def test_the_blood_cells_are_read(shared: Path, records) -> None:
    path = shared / "images" / "bccd_cells_32.npz"
    proposal = NpzConfig(path=path).propose()
    assert proposal == {"classes": ["0", "1", "2"], "size": [32, 32], "channels": 3, "count": 4886}
    config = NpzConfig(path=path, classes=("red", "white", "platelet"), size=(32, 32), channels=3, holdout=0.1)
    split = config.load()
    assert (split.train.count, split.test and split.test.count) == (4398, 488)
    assert None not in records(split.train).read_many(0, 4398)


def test_drawings_have_their_classes_by_place_and_characters_have_none(shared: Path, records) -> None:
    path = shared / "images" / "quickdraw_8c_1k_28.npz"
    with np.load(path, allow_pickle=False) as stored:
        names = tuple(stored["classes"].tolist())
    split = NpzConfig(path=path, classes=names, size=(28, 28), channels=1).load()
    assert {record.label for record in records(split.train).read_many(0, 8000)} == set(range(8))
    omniglot = NpzConfig(
        path=shared / "images" / "omniglot_small_28.npz", classes=("character",), size=(28, 28), channels=1
    )
    assert omniglot.load().train.count == 4840


def test_jpegs_are_read_from_a_folder_and_never_from_an_archive(shared: Path, tmp_path: Path, records) -> None:
    path = shared / "images" / "cifar10_jpeg_12k.zip"
    with pytest.raises(DataError, match="no folder"):
        FolderConfig(path=path, classes=("cat",), size=(32, 32), channels=3).load()
    with pytest.raises(DataError, match="none of the usual keys"):
        NpzConfig(path=path, classes=("cat",), size=(32, 32), channels=3).load()
    with zipfile.ZipFile(path) as archive:
        for name in ("airplane", "truck"):
            (tmp_path / "set" / name).mkdir(parents=True)
            for number in range(20):
                content = archive.read(f"test/{name}/{number:04}.jpg")
                (tmp_path / "set" / name / f"{number:04}.jpg").write_bytes(content)
    proposal = FolderConfig(path=tmp_path / "set").propose()
    assert proposal == {"classes": ["airplane", "truck"], "size": [32, 32], "channels": 3, "count": 40}
    found = records(FolderConfig.model_validate({"path": tmp_path / "set", **proposal}).load().train)
    assert [record.label for record in found.read_many(0, 40)] == [0] * 20 + [1] * 20


def test_real_captions_are_read(shared: Path, records) -> None:
    path = shared / "captions" / "lsun_bedroom_openai_gpt-4o-mini_caption128.csv"
    found = records(CsvConfig(path=path, classes=("bedroom",), count=128).load().train)
    assert None not in found.read_many(0, 128)
    reviews = CsvConfig(path=shared / "text" / "yelp_dev.csv", label_column="label1")
    proposal = reviews.propose()
    assert proposal["count"] == 5000 and 2 <= len(proposal["classes"]) <= 20
