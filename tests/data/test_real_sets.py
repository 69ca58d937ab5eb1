"""The sources on real data, where it is present."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from privolve.data import formats, registry
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


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_published_sets_are_read_by_name(shared: Path, records, name: str) -> None:
    path = shared / "images" / f"{name.replace('-', '')}.npz"
    split = registry.parse({"kind": name, "path": str(path), "test": "public"}).load()
    assert (split.train.count, split.test and split.test.count) == (60_000, 10_000)
    found = records(split.train).read_many(0, 2000)
    assert {record.label for record in found} == set(range(10)) and found[0].content.shape == (28, 28, 1)


def test_cifar_as_a_zip_of_jpegs_is_read_by_name_and_by_format(shared: Path, records) -> None:
    path = str(shared / "images" / "cifar10_jpeg_12k.zip")
    split = registry.parse({"kind": "cifar10", "path": path}).load()
    assert (split.train.count, split.test and split.test.count) == (10_000, 2_000)
    found = records(split.train).read_many(500, 1500)
    assert np.bincount([record.label for record in found]).tolist() == [500, 500]
    proposal = registry.parse({"kind": "zip", "path": path}).propose()
    assert proposal["size"] == [32, 32] and proposal["count"] == 10_000
    assert tuple(proposal["classes"]) == split.train.classes


def test_emoji_and_their_captions_are_read(shared: Path, records) -> None:
    table = {"kind": "npz", "path": str(shared / "images" / "noto_emoji_32.npz"), "size": (32, 32), "channels": 3}
    assert None not in records(registry.parse({**table, "classes": ("emoji",)}).load().train).read_many(0, 3583)
    captions = CsvConfig(
        path=shared / "captions" / "noto_emoji.tsv", text_column="caption", quoted=False, classes=("emoji",)
    )
    found = records(captions.load().train)
    assert len(found) == 3583 and 1000 < sum(record is not None for record in found.read_many(0, 3583)) < 3583


def test_captions_of_every_layout_are_read(shared: Path, records) -> None:
    folder = shared / "captions"
    flickr = CsvConfig(
        path=folder / "Flickr8k.token.txt", columns=("image", "text"), quoted=False, classes=("caption",), count=40_460
    )
    assert None not in records(flickr.load().train).read_many(0, 40_460)
    parti = CsvConfig(path=folder / "PartiPrompts.tsv", text_column="Prompt", label_column="Category", quoted=False)
    proposal = parti.propose()
    assert proposal["count"] == 1632 and "Abstract" in proposal["classes"]
    for path in sorted(folder.glob("lsun_bedroom_*.csv")):
        assert None not in records(CsvConfig(path=path, classes=("bedroom",), count=128).load().train).read_many(0, 128)


def test_yelp_reviews_have_fifty_classes(shared: Path, records) -> None:
    split = registry.parse({"kind": "yelp", "path": str(shared / "text" / "yelp_dev.csv"), "count": 5000}).load()
    found = records(split.train).read_many(0, 5000)
    assert None not in found and len({record.label for record in found}) > 40


def test_init_knows_what_reads_each_file(shared: Path) -> None:
    found = {path.name: formats.kind_of(path) for path in (shared / "images").iterdir()}
    assert set(found.values()) == {"npz", "zip"}
    assert formats.kind_of(shared / "captions" / "PartiPrompts.tsv") == "csv"
