"""Published sets by name, in the formats that their publishers and others keep them in."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from privolve.data import catalogue, registry
from privolve.data.config import DataConfig
from privolve.data.errors import DataError
from privolve.data.published import PublishedConfig
from privolve.privacy.private import OperationalError

NAMED = """
    mnist fashion-mnist emnist cifar10 cifar100 eurosat celeba camelyon17 lsun-bedroom imagenet32 imagenet64 places365
    cat-cookie-doudou mm-celeba-hq wave-ui lex-10k european-art pubmed yelp openreview
""".split()  # noqa: SIM905


def parsed(kind: str, path: Path, **changes: object) -> DataConfig:
    return registry.parse({"kind": kind, "path": str(path), **changes})


def image(shade: int, size: tuple[int, int], form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (shade,) * 3).save(file, form)
    return file.getvalue()


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes())


def read(records, partition) -> list[tuple[int, int] | None]:
    found = records(partition)
    return [
        None if each is None else (each.label, int(each.content[0, 0, 0])) for each in found.read_many(0, len(found))
    ]


def test_every_set_of_the_papers_is_a_kind_with_facts_and_sources() -> None:
    assert sorted(NAMED) == list(catalogue.names())
    for name in NAMED:
        facts = catalogue.entry(name)
        config = registry.config_class(name).model_validate({"kind": name, "path": "x"})
        assert config.name == name and config.classes == facts.classes and config.size == facts.size
        assert facts.licence and facts.citation and facts.unverified
        assert (facts.size is None) == (facts.channels is None) == (facts.holds == "texts")
        assert facts.classes or facts.class_file
        assert any(asset.mirrors for asset in facts.files) or facts.by_hand
        assert facts.test != 0 or facts.holdout or name in ("cat-cookie-doudou",) or facts.train is None
        for kind in facts.read:
            known = set(registry.config_class(kind).model_fields)
            assert set(facts.read[kind]) <= known


def test_a_set_is_the_same_as_idx_files_and_as_npz(tmp_path: Path, records) -> None:
    images = np.arange(3 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(3, 28, 28)
    labels = np.array([7, 0, 9])
    folder = tmp_path / "mnist"
    folder.mkdir()
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    np.savez(tmp_path / "any.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    one, two = parsed("mnist", folder).load(), parsed("mnist", tmp_path / "any.npz", test="public").load()
    assert one.train.name == two.train.name == "mnist" and two.test_is_public and not one.test_is_public
    for split in (one, two):
        found = records(split.train).read_many(0, 3)
        assert [each.label for each in found] == [7, 0, 9]
        assert (np.stack([each.content[..., 0] for each in found]) == images).all()
        assert split.test is not None and split.test.count == 3


def test_letters_of_emnist_are_upright_and_begin_at_one(tmp_path: Path, records) -> None:
    folder = tmp_path / "gzip" / "gzip"
    folder.mkdir(parents=True)
    images = np.arange(2 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(2, 28, 28)
    for part in ("train", "test"):
        (folder / f"emnist-letters-{part}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (folder / f"emnist-letters-{part}-labels-idx1-ubyte.gz").write_bytes(idx(np.array([1, 26])))
    found = records(parsed("emnist", tmp_path).load().train).read_many(0, 2)
    assert [each.label for each in found] == [0, 25]
    assert (found[0].content[..., 0] == images[0].T).all()


def test_cifar_is_found_below_the_folder_that_was_fetched(tmp_path: Path, records) -> None:
    folder = tmp_path / "binary" / "cifar-100-binary"
    folder.mkdir(parents=True)
    row = np.concatenate([np.array([19, 3]), np.full(3072, 8)]).astype(np.uint8)
    (folder / "train.bin").write_bytes(row.tobytes() * 2)
    (folder / "test.bin").write_bytes(row.tobytes())
    split = parsed("cifar100", tmp_path).load()
    assert read(records, split.train) == [(3, 8), (3, 8)] and split.test is not None
    assert split.train.classes[3] == "bear" and len(split.train.classes) == 100


def test_celeba_is_split_and_labelled_by_its_own_lists(tmp_path: Path, records) -> None:
    (tmp_path / "list_eval_partition.txt").write_text("".join(f"{n:06}.jpg {n % 3}\n" for n in range(1, 7)))
    rows = "".join(f"{n:06}.jpg  -1 {1 if n > 3 else -1}\n" for n in range(1, 7))
    (tmp_path / "list_attr_celeba.txt").write_text(f"6\nYoung Male\n{rows}")
    with zipfile.ZipFile(tmp_path / "img_align_celeba.zip", "w") as archive:
        for n in (1, 2, 3, 5, 6):
            archive.writestr(f"img_align_celeba/{n:06}.jpg", image(10 * n, (178, 218), "PNG") if n != 6 else b"broken")
    split = parsed("celeba", tmp_path).load()
    assert list(records(split.train).ids) == ["000003.jpg", "000006.jpg"]
    assert read(records, split.train) == [(0, 30), None] and read(records, split.test) == [(0, 20), (1, 50)]
    both = parsed("celeba", tmp_path, options={"parts": [0, 1]}).load()
    assert read(records, both.train) == [(0, 10), (0, 30), None, None]  # the archive lacks 000004.jpg
    assert split.train.size == (64, 64)
    folder = tmp_path / "img_align_celeba"
    folder.mkdir()
    (tmp_path / "img_align_celeba.zip").unlink()
    (folder / "000003.jpg").write_bytes(image(30, (178, 218), "JPEG"))
    found = records(parsed("celeba", tmp_path).load().train)
    assert found.read(0).content.shape == (64, 64, 3)
    with pytest.raises(OperationalError, match="ENOENT"):
        found.read(1)
    with pytest.raises(DataError, match="no column 'Hat'"):
        parsed("celeba", tmp_path, options={"attribute": "Hat"}).load()


def test_camelyon_is_split_by_hospital_as_wilds_does(tmp_path: Path, records) -> None:
    root = tmp_path / "camelyon17_v1.0"
    lines = [",patient,node,x_coord,y_coord,tumor,slide,center,split"]
    for n, (tumor, center, split) in enumerate([(1, 0, 0), (0, 3, 1), (0, 1, 0), (1, 2, 0), (0, 4, 0)]):
        lines.append(f"{n},{n:03},4,{n},7,{tumor},0,{center},{split}")
        place = root / "patches" / f"patient_{n:03}_node_4" / f"patch_patient_{n:03}_node_4_x_{n}_y_7.png"
        place.parent.mkdir(parents=True)
        place.write_bytes(image(n + 1, (96, 96)))
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    split = parsed("camelyon17", tmp_path).load()
    assert read(records, split.train) == [(1, 1), (0, 5)] and read(records, split.test) == [(1, 4)]
    other = parsed("camelyon17", root, options={"parts": ["id_val"], "tests": ["val"]}).load()
    assert read(records, other.train) == [(0, 2)] and read(records, other.test) == [(0, 3)]
    place.unlink()
    place.symlink_to("/etc/passwd")
    assert read(records, parsed("camelyon17", tmp_path).load().train) == [(1, 1), None]


def test_a_set_without_an_official_split_is_held_out_by_slot_id_alone(tmp_path: Path, records) -> None:
    def write(name: str, shade: int) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for kind in ("Forest", "River"):
                for n in range(20):
                    archive.writestr(f"EuroSAT_RGB/{kind}/{kind}_{n}.jpg", image(shade, (64, 64), "JPEG"))
        return tmp_path / name

    one = parsed("eurosat", write("EuroSAT_RGB.zip", 1)).load()
    two = parsed("eurosat", write("other.zip", 200)).load()
    assert one.train.count == 32 and one.test is not None and one.test.count == 8
    assert list(records(one.test).ids) == list(records(two.test).ids)
    assert {label for label, _ in read(records, one.train)} == {1, 8}
    assert parsed("eurosat", tmp_path).load().train.count == 32


def test_the_class_list_comes_from_the_publishers_file(tmp_path: Path, records) -> None:
    (tmp_path / "categories_places365.txt").write_text("/a/airfield 0\n/a/apartment_building/outdoor 1\n")
    for name in ("airfield", "apartment_building-outdoor"):
        for part in ("train", "val"):
            place = tmp_path / "images" / "places365_standard" / part / name / "1.jpg"
            place.parent.mkdir(parents=True)
            place.write_bytes(image(5, (256, 256), "JPEG"))
    config = parsed("places365", tmp_path)
    with pytest.raises(DataError, match="declare the classes"):
        config.load()
    config = config.resolved(Path("/"))
    assert config.classes == ("airfield", "apartment_building-outdoor")
    split = config.load()
    assert split.train.count == 2 and split.test is not None and split.test.count == 2
    assert [label for label, _ in read(records, split.train)] == [0, 1]
    (tmp_path / "map_clsloc.txt").write_text("n02119789 1 kit_fox\nn3 3 crane\nn2 2 crane\n")
    assert parsed("imagenet32", tmp_path).resolved(Path("/")).classes == ("kit_fox", "crane-n2", "crane-n3")


def test_texts_keep_their_own_split(tmp_path: Path, records) -> None:
    row = '"{}",Business Category: Bars,Review Stars: {}.0\n'
    (tmp_path / "train.csv").write_text("text,label1,label2\n" + row.format("good", 5) + row.format("bad", 1))
    (tmp_path / "test.csv").write_text("text,label1,label2\n" + row.format("so so", 3))
    split = parsed("yelp", tmp_path).load()
    found = records(split.train).read_many(0, 2)
    assert [split.train.classes[each.label] for each in found] == [
        "Business Category: Bars | Review Stars: 5.0",
        "Business Category: Bars | Review Stars: 1.0",
    ]
    assert split.test is not None and split.test.count == 1 and split.train.text_bytes == 80_000
    assert len(split.train.classes) == 50 and split.train.size is None


def test_what_is_not_there_or_not_known_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"")
    for kind, path, changes, words in (
        ("mnist", tmp_path / "none", {}, "fetch the set: privolve data get mnist --to"),
        ("mnist", tmp_path / "x.bin", {}, "nothing reads"),
        ("mnist", tmp_path / "x.bin", {"format": "nothing"}, "'nothing' is no format"),
        ("mnist", tmp_path / "x.bin", {"format": "mnist"}, "'mnist' is no format"),
        ("mnist", tmp_path, {"options": {"colour": 1}, "format": "npz"}, "no setting 'colour'"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            parsed(kind, path, **changes).load()
        assert "\n" not in str(caught.value)


def test_the_declaration_digests_the_facts_and_not_the_place(tmp_path: Path) -> None:
    assert parsed("mnist", tmp_path).declaration() == parsed("mnist", tmp_path / "x").declaration()
    assert parsed("mnist", tmp_path).declaration() != parsed("emnist", tmp_path).declaration()
    assert parsed("mnist", tmp_path).declaration() != parsed("mnist", tmp_path, options={"a": 1}).declaration()
    assert isinstance(parsed("mnist", tmp_path), PublishedConfig)
