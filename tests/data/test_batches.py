from __future__ import annotations

import pickle
import pickletools
import struct
from pathlib import Path

import numpy as np
import pytest

from privolve.data import pickled
from privolve.data.batches import BatchesConfig
from privolve.data.errors import DataError

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (6, 2, 5, 4, 3), dtype=np.uint8)
"""Six files of two images of 4 x 5."""
LABELS = RANDOM.integers(0, 10, (6, 2))
TEN = tuple(f"class {number}" for number in range(10))


def planes(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def python_two(table: dict[bytes, object]) -> bytes:
    """What Python 2's cPickle wrote at protocol 2: byte strings as text, an array by numpy's old path."""

    def value(each: object) -> bytes:
        if isinstance(each, bytes):
            return b"U" + bytes([len(each)]) + each if len(each) < 256 else b"T" + struct.pack("<i", len(each)) + each
        if isinstance(each, list):
            return b"](" + b"".join(value(item) for item in each) + b"e"
        if isinstance(each, int):
            return b"K" + bytes([each])
        assert isinstance(each, np.ndarray)
        shape = b"(" + b"".join(b"M" + struct.pack("<H", length) for length in each.shape) + b"t"
        dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        return (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01"
            + shape
            + dtype
            + b"\x89"
            + value(each.tobytes())
            + b"tb"
        )

    return b"\x80\x02}(" + b"".join(value(key) + value(each) for key, each in table.items()) + b"u."


def write(folder: Path, form: str) -> Path:
    folder.mkdir()
    for number in range(6):
        images, labels = planes(PIXELS[number]), LABELS[number].tolist()
        name = f"data_batch_{number + 1}" if number < 5 else "test_batch"
        if form == "binary":
            rows = np.concatenate([np.array(labels, dtype=np.uint8)[:, None], images], axis=1)
            (folder / f"{name}.bin").write_bytes(rows.tobytes())
        elif form == "python 2":
            table = {b"batch_label": b"batch", b"labels": labels, b"data": images, b"filenames": [b"a.png", b"b.png"]}
            (folder / name).write_bytes(python_two(table))
        elif form == "python 3":
            (folder / name).write_bytes(pickle.dumps({b"labels": labels, b"data": images}, protocol=2))
        else:
            save = np.savez if form == "npz" else np.savez_compressed
            name = f"train_data_batch_{number + 1}.npz" if number < 5 else "val_data.npz"
            save(folder / name, data=images, labels=np.array(labels) + 1, mean=np.zeros(60))
    if "npz" in form:
        for number in range(6, 11):
            np.savez(folder / f"train_data_batch_{number}.npz", data=images[:0], labels=np.zeros(0, dtype=np.int64))
    return folder


def config(path: Path, **changes: object) -> BatchesConfig:
    return BatchesConfig.model_validate({"path": path, "classes": TEN, "size": (4, 5), "channels": 3, **changes})


@pytest.mark.parametrize("form", ["binary", "python 2", "python 3"])
def test_every_published_form_of_cifar_gives_the_same_records(tmp_path: Path, records, form: str) -> None:
    split = config(write(tmp_path / "set", form)).load()
    found = records(split.train)
    read = found.read_many(0, 10)
    assert (np.stack([record.content for record in read]) == PIXELS[:5].reshape(10, 5, 4, 3)).all()
    assert [record.label for record in read] == LABELS[:5].ravel().tolist()
    assert list(found.ids)[:3] == ["data_batch_1/0", "data_batch_1/1", "data_batch_2/0"]
    test = records(split.test)
    assert (test.read(1).content == PIXELS[5, 1]).all() and len(test) == 2
    assert [record.label for record in found.read_many(1, 5)] == LABELS.ravel()[1:5].tolist()


@pytest.mark.parametrize("form", ["npz", "packed npz"])
def test_downsampled_imagenet_begins_at_one_and_stays_on_disk(tmp_path: Path, records, form: str) -> None:
    path = write(tmp_path / "set", form)
    source = config(path, first_label=1)
    found = records(source.load().train)
    assert [record.label for record in found.read_many(0, 10)] == LABELS[:5].ravel().tolist()
    assert (found.read(9).content == PIXELS[4, 1]).all()
    pixels, _ = source._arrays("train_data_batch_1.npz")
    assert isinstance(pixels.base, np.memmap) == (form == "npz") or isinstance(pixels, np.memmap) == (form == "npz")


def test_a_binary_file_is_mapped_and_the_last_label_byte_counts(tmp_path: Path, records) -> None:
    rows = np.concatenate([np.array([[9, 3], [9, 4]], dtype=np.uint8), planes(PIXELS[0])], axis=1)
    (tmp_path / "train.bin").write_bytes(rows.tobytes())
    source = config(tmp_path, label_bytes=2)
    assert [record.label for record in records(source.load().train).read_many(0, 2)] == [3, 4]
    with pytest.raises(DataError, match="no whole number of rows of 61"):
        config(tmp_path).load()


def test_a_label_that_is_not_declared_makes_a_ghost(tmp_path: Path, records) -> None:
    path = write(tmp_path / "set", "binary")
    found = records(config(path, classes=TEN[:1] + TEN[1:4]).load().train)
    assert [record is None for record in found.read_many(0, 10)] == (LABELS[:5].ravel() >= 4).tolist()


class Evil:
    def __reduce__(self):
        import os

        return os.mkdir, (str(self),)

    def __str__(self) -> str:
        return "evil-was-here"


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_calls_anything_else_is_refused_and_nothing_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({b"data": Evil(), b"labels": [1]}, protocol=protocol)
    (tmp_path / "train").write_bytes(content)
    with pytest.raises(
        DataError, match="looks up '(posix|nt) mkdir'" if protocol > 1 else "instruction|looks up"
    ) as caught:
        config(tmp_path).load()
    assert "\n" not in str(caught.value) and not (tmp_path / "evil-was-here").exists()
    pickle.loads(content)
    assert (tmp_path / "evil-was-here").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"cnumpy\nndarray\n(K\x00tR.",
        b"cnumpy\ndtype\n(U\x02O8K\x00K\x01tR.",
        b"ccPickle\nloads\n.",
        b"cbuiltins\neval\n(U\x011tR.",
        b"\x80\x04\x8c\x08builtins\x94\x8c\x04eval\x94\x93.",
        b"i__builtin__\neval\n.",
        b"(e.",
        b"e.",
        b"h\x05.",
        b"](h\x00e.",
        b"U\x05abc",
        b"K\x01.",
    ],
)
def test_a_program_that_is_no_batch_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train").write_bytes(content)
    with pytest.raises(DataError) as caught:
        config(tmp_path).load()
    assert "\n" not in str(caught.value)


def test_flipping_any_byte_of_a_python_batch_gives_a_set_or_one_line(tmp_path: Path) -> None:
    whole = python_two({b"labels": [1, 2], b"data": planes(PIXELS[0])})
    assert list(pickled.read(whole, where="test")) == ["labels", "data"] and list(pickletools.genops(whole))
    for place in range(0, len(whole), 2):
        (tmp_path / "train").write_bytes(whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :])
        try:
            assert config(tmp_path).load().train.count == 2
        except DataError as error:
            assert "\n" not in str(error)


def test_a_folder_without_batches_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no batches of a usual name"):
        config(tmp_path).load()
    with pytest.raises(ValueError, match="no file name"):
        config(tmp_path, train=("../x",))
