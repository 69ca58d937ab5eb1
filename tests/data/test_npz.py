from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from privolve.data.errors import DataError
from privolve.data.npz import NpzConfig


def config(path: Path, **changes: object) -> NpzConfig:
    table = {"path": path, "classes": ("0", "1", "2"), "size": (4, 5), "channels": 3}
    return NpzConfig.model_validate({**table, **changes})


PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def contents(records) -> np.ndarray:
    return np.stack([record.content for record in records.read_many(0, len(records))])


def test_uint8_with_channels_last_is_read_as_it_is(npz, records) -> None:
    found = records(config(npz(x=PIXELS, y=LABELS)).load().train)
    assert (contents(found) == PIXELS).all()
    assert [record.label for record in found.read_many(0, 6)] == LABELS.tolist()
    assert list(found.ids)[:2] == ["x/0", "x/1"]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4"])
def test_floats_with_channels_first_become_the_same_uint8(npz, records, kind) -> None:
    floats = (PIXELS.transpose(0, 3, 1, 2) / 255).astype(kind)
    assert (contents(records(config(npz(x=floats, y=LABELS)).load().train)) == PIXELS).all()
    signed = (PIXELS.transpose(0, 3, 1, 2) / 127.5 - 1).astype(kind)
    found = contents(records(config(npz(x=signed, y=LABELS), range=(-1.0, 1.0)).load().train))
    assert np.abs(found.astype(int) - PIXELS).max() <= (1 if kind == np.float16 else 0)


def test_arrays_without_channels_and_in_column_order_are_read(npz, records) -> None:
    grey = np.asfortranarray(PIXELS[..., 0])
    found = records(config(npz(samples=grey, labels=LABELS[:, None].astype(np.uint8)), channels=1).load().train)
    assert (contents(found)[..., 0] == PIXELS[..., 0]).all()


def test_the_order_of_axes_can_be_said(npz, records) -> None:
    found = records(config(npz(x=PIXELS.transpose(0, 3, 1, 2), y=LABELS), order="chw").load().train)
    assert (contents(found) == PIXELS).all()


@pytest.mark.parametrize(
    ("keys", "chosen"),
    [
        (("samples", "labels", "x", "y", "x_train", "y_train"), "samples"),
        (("x", "y", "x_train", "y_train"), "x"),
        (("x_train", "y_train"), "x_train"),
    ],
)
def test_the_usual_keys_are_tried_in_the_documented_order(npz, records, keys: tuple[str, ...], chosen: str) -> None:
    arrays = {key: PIXELS if place % 2 == 0 else LABELS for place, key in enumerate(keys)}
    assert records(config(npz(**arrays)).load().train).ids[0] == f"{chosen}/0"


def test_a_test_part_in_the_file_never_votes(npz, records) -> None:
    path = npz(x_train=PIXELS, y_train=LABELS, x_test=PIXELS[:2], y_test=LABELS[:2])
    split = config(path).load()
    assert (split.train.count, split.test and split.test.count, split.test_is_public) == (6, 2, False)
    assert list(records(split.test).ids) == ["x_test/0", "x_test/1"]
    assert config(path, test="public").load().test_is_public
    with pytest.raises(DataError, match="drop holdout"):
        config(path, holdout=0.5).load()
    own = config(path, images="x_train", labels="y_train", holdout=0.5).load()
    assert own.train.count == own.test.count == 3  # type: ignore[union-attr]


def test_a_second_file_is_the_test_part(npz) -> None:
    train = npz("train.npz", x=PIXELS, y=LABELS)
    split = config(train, test_path=npz("test.npz", x=PIXELS[:1], y=LABELS[:1])).load()
    assert split.test is not None and split.test.count == 1


def test_labels_are_names_or_numbers_and_an_undeclared_one_makes_a_ghost(npz, records) -> None:
    def labels(stored: np.ndarray, classes: tuple[str, ...]) -> list[int | None]:
        found = records(config(npz(x=PIXELS, y=stored), classes=classes).load().train)
        return [None if record is None else record.label for record in found.read_many(0, 6)]

    assert labels(LABELS, ("cat", "dog")) == [0, 1, None, 0, 1, None]
    assert labels(LABELS, ("2", "1")) == [None, 1, 0, None, 1, 0]
    assert labels(np.array(list("abcabc")), ("c", "a")) == [1, None, 0, 1, None, 0]
    assert labels(-LABELS, ("cat", "dog")) == [0, None, None, 0, None, None]


def test_one_class_needs_no_labels(npz, records) -> None:
    path = npz(samples=PIXELS)
    assert [record.label for record in records(config(path, classes=("room",)).load().train).read_many(0, 6)] == [0] * 6
    with pytest.raises(DataError, match="without labels and 3 classes"):
        config(path).load()


def test_a_row_with_a_pixel_that_is_no_number_is_a_ghost(npz, records, capfd, recwarn) -> None:
    floats = PIXELS.transpose(0, 3, 1, 2).astype(np.float32) / 255
    good = contents(records(config(npz(x=floats, y=LABELS)).load().train))
    floats[1, 0, 0, 0] = np.nan
    floats[3, 2, 4, 3] = np.inf
    floats[5, 1, 1, 1] = 1.5
    lines: list[str] = []
    found = records(config(npz(x=floats, y=LABELS)).load(private_log=lines.append).train)
    read = found.read_many(0, 6)
    assert [record is None for record in read] == [False, True, False, True, False, True]
    assert all((read[slot].content == good[slot]).all() for slot in (0, 2, 4))
    assert len(lines) == 3 and capfd.readouterr() == ("", "") and not recwarn.list


def test_other_sizes_are_refused_as_a_whole_or_fitted(npz, records) -> None:
    path = npz(x=PIXELS, y=LABELS)
    with pytest.raises(DataError, match=r'are 4 x 5 x 3 and 8 x 8 x 1 is declared.*resize = "fit"'):
        config(path, size=(8, 8), channels=1).load()
    found = records(config(path, size=(8, 8), channels=1, resize="fit").load().train)
    assert contents(found).shape == (6, 8, 8, 1)
    with pytest.raises(DataError, match="max_pixels"):
        config(path, max_pixels=19).load()


def test_raw_bytes_tell_records_and_labels_apart(npz, records) -> None:
    changed = LABELS.copy()
    changed[2] = 0
    one = list(records(config(npz(x=PIXELS, y=LABELS)).load().train).parts())
    two = list(records(config(npz(x=PIXELS, y=changed)).load().train).parts())
    assert [a == b for a, b in zip(one, two, strict=True)] == [True, True, False, True, True, True]
    assert len(set(one)) == 6


def test_a_wrong_file_is_one_line_before_any_slot_is_counted(tmp_path: Path, npz) -> None:
    text = tmp_path / "text.npz"
    text.write_text("no archive")
    link = tmp_path / "link.npz"
    link.symlink_to(npz("good.npz", x=PIXELS, y=LABELS))
    cases: list[tuple[Path, dict[str, object], str]] = [
        (tmp_path / "missing.npz", {}, "does not exist"),
        (tmp_path, {}, "is a folder"),
        (text, {}, "no .npz file"),
        (link, {}, "symbolic link"),
        (npz("keys.npz", pictures=PIXELS), {}, r"tried samples/labels, x/y, x_train/y_train; it holds 'pictures'"),
        (npz("good.npz", x=PIXELS, y=LABELS), {"images": "nothing"}, "no key 'nothing'; it holds 'x', 'y'"),
        (npz("good.npz", x=PIXELS, y=LABELS), {"labels": "nothing"}, "no key 'nothing'"),
        (npz("good.npz", x=PIXELS, y=LABELS), {"test_images": "nothing"}, "no key 'nothing'"),
        (npz("short.npz", x=PIXELS, y=LABELS[:3]), {}, r"labels of shape \(3,\) for 6 images"),
        (npz("kind.npz", x=PIXELS.astype(np.int64), y=LABELS), {}, "of type int64"),
        (npz("one-hot.npz", x=PIXELS, y=np.eye(6)), {}, "one label an image"),
        (npz("fraction.npz", x=PIXELS, y=LABELS / 2), {}, "labels of type float64"),
        (npz("flat.npz", x=PIXELS.reshape(6, -1), y=LABELS), {}, r"of shape \(6, 60\)"),
        (npz("none.npz", x=PIXELS[:0], y=LABELS[:0]), {}, "the set is empty"),
        (npz("good.npz", x=PIXELS, y=LABELS), {"count": 7}, "holds 6"),
        (npz("good.npz", x=PIXELS, y=LABELS), {"slots": (0, 7)}, "ends after the last of 6 slots"),
        (npz("good.npz", x=PIXELS, y=LABELS), {"max_bytes": 100}, "max_bytes = 100"),
    ]
    for path, changes, words in cases:
        with pytest.raises(DataError, match=words) as caught:
            config(path, **changes).load()
        assert "\n" not in str(caught.value)


def test_objects_are_never_unpickled(tmp_path: Path, archive, npy) -> None:
    np.savez(tmp_path / "objects.npz", x=np.array([{"a": 1}], dtype=object), y=LABELS)
    with pytest.raises(DataError, match="never objects"):
        config(tmp_path / "objects.npz").load()
    record = npy("{'descr': [('a', '|O'), ('b', '<f4')], 'fortran_order': False, 'shape': (1,), }", b"")
    with pytest.raises(DataError, match="never objects"):
        config(archive({"x.npy": record})).load()


def test_a_bomb_is_refused_from_the_directory_alone(tmp_path: Path, npy) -> None:
    path = tmp_path / "bomb.npz"
    header = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1000, 1000, 100), }", b"")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed, packed.open("x.npy", "w") as member:
        member.write(header)
        for _ in range(100):
            member.write(bytes(1_000_000))
    assert path.stat().st_size < 200_000
    with pytest.raises(DataError, match=r"would unpack to 1000000.. bytes, more than max_bytes = 50000000"):
        config(path, size=(100, 1000), channels=1, max_bytes=50_000_000).load()


def test_a_directory_that_lies_about_sizes_is_refused_before_memory_is_taken(npz) -> None:
    path = npz(x=PIXELS, y=LABELS)
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 3_000_000_000)
    path.write_bytes(content)
    with pytest.raises(DataError, match="would unpack to 3000000000 bytes"):
        config(path).load()


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (10**6, 28, 28), }", "cannot be read"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 28, 28), }", "do not agree"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (-6, 5, 4, 3), }", "no rows"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (), }", "no rows"),
        ("{'descr': '<U0', 'fortran_order': False, 'shape': (6,), }", "never objects"),
        ("{'descr': '<M8[s]', 'fortran_order': False, 'shape': (6,), }", "never objects"),
        ("__import__('os').abort()", "cannot be read"),
        ("(" * 5000, "cannot be read"),
        ("{" + " " * 100_000 + "}", "claims"),
    ],
)
def test_a_header_that_claims_nonsense_is_refused(archive, npy, header: str, words: str) -> None:
    version = 1 if len(header) < 60_000 else 2
    with pytest.raises(DataError, match=words):
        config(archive({"x.npy": npy(header, PIXELS.tobytes(), version=version)})).load()


def test_a_header_of_four_gigabytes_is_refused(archive) -> None:
    with pytest.raises(DataError, match="claims 4294967295 bytes"):
        config(archive({"x.npy": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + PIXELS.tobytes()})).load()


def test_a_damaged_member_is_refused(npz, tmp_path: Path) -> None:
    path = tmp_path / "stored.npz"
    np.savez(path, x=PIXELS, y=LABELS)
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="checksum"):
        config(path).load()
    cut = npz(x=PIXELS, y=LABELS)
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(DataError):
        config(cut).load()


def test_flipping_any_byte_gives_a_set_or_one_line(npz) -> None:
    path = npz(x=PIXELS[:2], y=LABELS[:2])
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            assert config(path).load().train.count == 2
        except DataError as error:
            assert "\n" not in str(error)


def test_members_that_are_no_arrays_and_names_that_lead_out_are_never_touched(archive, npy, tmp_path: Path) -> None:
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (6, 5, 4, 3), }"
    path = archive({"x.npy": npy(header, PIXELS.tobytes()), "../../out.npy": b"", "/abs.txt": b"", "notes.txt": b""})
    before = sorted(tmp_path.rglob("*"))
    assert config(path, classes=("room",)).load().train.count == 6
    assert sorted(tmp_path.rglob("*")) == before


def test_a_proposal_looks_at_headers_labels_and_range(npz) -> None:
    floats = PIXELS.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    path = npz(x=floats, y=LABELS)
    proposal = NpzConfig(path=path).propose()
    assert proposal == {
        "classes": ["0", "1", "2"],
        "size": [4, 5],
        "channels": 3,
        "range": [-1.0, 1.0],
        "count": 6,
    }
    assert NpzConfig.model_validate({"path": path, **proposal}).load().train.count == 6
