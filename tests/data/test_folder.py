from __future__ import annotations

import os
import shutil
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from privolve.data.errors import DataError
from privolve.data.folder import FolderConfig
from privolve.privacy.private import OperationalError

CANARY = "canary-7f3a"


def config(path: Path, **changes: object) -> FolderConfig:
    table = {"path": path, "name": "pets", "classes": ("cat", "dog"), "size": (8, 8), "channels": 3}
    return FolderConfig.model_validate({**table, **changes})


@pytest.fixture
def pets(tmp_path: Path, image) -> Path:
    root = tmp_path / "pets"
    for name in ("cat", "dog"):
        for number in range(3):
            image(root / name / f"{number}.png", shade=50 * number + 1)
    return root


def test_class_folders_are_read_in_the_order_of_their_bytes(pets: Path, image, records) -> None:
    image(pets / "cat" / "10.png")
    image(pets / "cat" / "\N{LATIN SMALL LETTER E WITH ACUTE}.png")
    image(pets / "cat" / "Z.png")
    found = records(config(pets).load().train)
    assert list(found.ids) == ["cat/0.png", "cat/1.png", "cat/10.png", "cat/2.png", "cat/Z.png", "cat/é.png"] + [
        f"dog/{number}.png" for number in range(3)
    ]
    assert [found.read(slot).label for slot in range(len(found))] == [0] * 6 + [1] * 3
    first = found.read(0).content
    assert first.shape == (8, 8, 3) and first.dtype == np.uint8 and (first == 1).all()


def test_the_order_does_not_depend_on_the_file_system(pets: Path, tmp_path: Path, records) -> None:
    files = sorted(pets.rglob("*.png"))
    other = tmp_path / "copy"
    for file in reversed(files):
        copy = other / file.relative_to(pets)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    one, two = records(config(pets).load().train), records(config(other).load().train)
    assert list(one.ids) == list(two.ids)
    assert list(one.parts()) == list(two.parts())


def test_file_names_carry_the_class_up_to_an_underscore(tmp_path: Path, image, records) -> None:
    for name in ("cat_1.png", "dog_a_b.png", "polar_bear_2.png", "polar_3.png", "nothing.png", "cat.png"):
        image(tmp_path / "set" / name)
    found = records(config(tmp_path / "set", classes=("cat", "dog", "polar", "polar_bear")).load().train)
    labels = {name: record and record.label for name, record in zip(found.ids, found.read_many(0, 6), strict=True)}
    assert labels == {
        "cat_1.png": 0,
        "dog_a_b.png": 1,
        "polar_bear_2.png": 3,
        "polar_3.png": 2,
        "nothing.png": None,
        "cat.png": None,
    }


def test_with_one_class_and_no_folders_every_file_is_of_it(tmp_path: Path, image, records) -> None:
    image(tmp_path / "set" / "a.png")
    image(tmp_path / "set" / "dog_1.png")
    assert all(records(config(tmp_path / "set", classes=("cat",)).load().train).read_many(0, 2))
    by_name = records(config(tmp_path / "set", classes=("cat",), layout="names").load().train)
    assert by_name.read_many(0, 2) == [None, None]
    with pytest.raises(DataError, match="needs one class"):
        config(tmp_path / "set", layout="one-class").load()


def break_slots(root: Path, image, huge_png: bytes) -> list[str]:
    """Every way in which a file can be no record, with the canary in its name. Returns the ids."""
    cat = root / "cat"
    image(cat / f"{CANARY}-good.jpg", size=(64, 64))
    jpeg = (cat / f"{CANARY}-good.jpg").read_bytes()
    (cat / f"{CANARY}-good.jpg").unlink()
    (cat / f"{CANARY}-truncated.jpg").write_bytes(jpeg[: len(jpeg) * 2 // 3])
    (cat / f"{CANARY}-huge.png").write_bytes(huge_png)
    (cat / f"{CANARY}-empty.png").write_bytes(b"")
    (cat / f"{CANARY}-noise.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    (cat / f"{CANARY}-text.png").write_text(CANARY)
    (cat / f"{CANARY}-Thumbs.db").write_bytes(b"database")
    image(cat / f"{CANARY}.gif", mode="P")
    image(cat / f"{CANARY}.bmp")
    (cat / f"{CANARY}-large.png").write_bytes(jpeg + bytes(100_000))
    (cat / f"{CANARY}-link.png").symlink_to(root / "dog" / "0.png")
    (cat / f"{CANARY}-dangling.png").symlink_to(root / "nowhere")
    (cat / f"{CANARY}-folder-link").symlink_to(root / "dog")
    os.mkfifo(cat / f"{CANARY}-pipe.png")
    image(root / "bird" / f"{CANARY}-undeclared.png")
    names = [f"cat/{path.name}" for path in cat.iterdir() if CANARY in path.name]
    return sorted([*names, f"bird/{CANARY}-undeclared.png"])


def test_every_file_that_cannot_be_used_is_a_ghost_in_its_slot(pets: Path, image, huge_png: bytes, records) -> None:
    broken = break_slots(pets, image, huge_png)
    lines: list[str] = []
    split = config(pets, max_bytes=50_000).load(private_log=lines.append)
    assert split.train.count == 6 + len(broken)
    found = records(split.train)
    read = found.read_many(0, len(found))
    assert sorted(name for name, record in zip(found.ids, read, strict=True) if record is None) == broken
    assert len(lines) == len(broken)
    assert all(any(repr(name) in line for line in lines) for name in broken)


def test_ghosts_say_nothing_outside_the_private_log(
    pets: Path, image, huge_png: bytes, records, capfd, recwarn
) -> None:
    break_slots(pets, image, huge_png)
    found = records(config(pets, max_bytes=50_000).load().train)
    found.read_many(0, len(found))
    list(found.parts())
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_broken_files_leave_the_other_records_bit_for_bit_alone(pets: Path, image, huge_png: bytes, records) -> None:
    before = records(config(pets).load().train)
    kept = {name: record.content.tobytes() for name, record in zip(before.ids, before.read_many(0, 6), strict=True)}
    break_slots(pets, image, huge_png)
    after = records(config(pets, max_bytes=50_000).load().train)
    read = zip(after.ids, after.read_many(0, len(after)), strict=True)
    assert {name: record.content.tobytes() for name, record in read if record is not None} == kept


def test_a_hundred_megapixels_are_never_decoded(tmp_path: Path, huge_png: bytes, records) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "cat_1.png").write_bytes(huge_png)
    lines: list[str] = []
    found = records(config(tmp_path / "set").load(private_log=lines.append).train)
    start = time.perf_counter()
    assert found.read(0) is None
    assert time.perf_counter() - start < 0.1
    assert "DecompressionBomb" in lines[0] or "max_pixels" in lines[0]
    within_pillows_limit = config(tmp_path / "set", max_pixels=63)
    (tmp_path / "set" / "cat_1.png").unlink()
    Image.new("RGB", (8, 8)).save(tmp_path / "set" / "cat_1.png")
    assert records(within_pillows_limit.load().train).read(0) is None


def test_a_webp_with_a_vast_canvas_takes_no_memory(tmp_path: Path, image, records) -> None:
    frames = [Image.new("RGB", (8, 8), shade) for shade in ("red", "blue")]
    (tmp_path / "set").mkdir()
    path = tmp_path / "set" / "cat_1.webp"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    content = bytearray(path.read_bytes())
    assert records(config(tmp_path / "set").load().train).read(0) is not None
    content[24:30] = (15_999).to_bytes(3, "little") * 2
    path.write_bytes(content)
    lines: list[str] = []
    assert records(config(tmp_path / "set").load(private_log=lines.append).train).read(0) is None
    assert "16000 x 16000 pixels" in lines[0]


def test_a_truncated_image_is_a_ghost_even_where_another_library_tolerates_it(
    pets: Path, image, records, monkeypatch
) -> None:
    path = image(pets / "cat" / "cut.jpg", size=(64, 64))
    path.write_bytes(path.read_bytes()[:-200])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    found = records(config(pets).load().train)
    assert found.read(list(found.ids).index("cat/cut.jpg")) is None
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_size_and_channels_are_refused_or_fitted_as_declared(tmp_path: Path, image, records) -> None:
    root = tmp_path / "set"
    image(root / "cat_exact.png")
    image(root / "cat_wide.png", size=(30, 10))
    image(root / "cat_small.png", size=(3, 5))
    image(root / "cat_grey.png", mode="L")
    image(root / "cat_palette.png", mode="P")
    image(root / "cat_transparent.png", mode="RGBA", shade=0)
    image(root / "cat_lossless.webp", lossless=True)
    image(root / "cat_cmyk.jpg", mode="CMYK")
    fitted = records(config(root).load().train)
    for name, record in zip(fitted.ids, fitted.read_many(0, 8), strict=True):
        assert record is not None and record.content.shape == (8, 8, 3), name
    strict = records(config(root, resize="refuse").load().train)
    kept = [name for name, record in zip(strict.ids, strict.read_many(0, 8), strict=True) if record is not None]
    assert kept == ["cat_cmyk.jpg", "cat_exact.png", "cat_lossless.webp", "cat_palette.png"]
    grey = records(config(root, channels=1).load().train)
    assert all(record is not None and record.content.shape == (8, 8, 1) for record in grey.read_many(0, 8))
    assert (fitted.read(list(fitted.ids).index("cat_transparent.png")).content == 255).all()


def test_fitting_scales_to_cover_and_crops_the_centre(tmp_path: Path, records) -> None:
    (tmp_path / "set").mkdir()
    pixels = np.zeros((16, 48, 3), dtype=np.uint8)
    pixels[:, 16:32] = 200
    Image.fromarray(pixels).save(tmp_path / "set" / "cat_1.png")
    content = records(config(tmp_path / "set").load().train).read(0).content
    assert (content[:, 2:-2] == 200).all()


def test_sixteen_bits_and_turned_photographs_are_read_as_they_look(tmp_path: Path, records) -> None:
    (tmp_path / "set").mkdir()
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(tmp_path / "set" / "cat_16.png")
    turned = Image.fromarray(np.repeat(np.arange(8, dtype=np.uint8)[:, None] * 30, 8, axis=1))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "set" / "cat_turned.png", exif=exif)
    found = records(config(tmp_path / "set", channels=1).load().train)
    assert (found.read(0).content == 40_000 >> 8).all()
    assert (found.read(1).content[:, :, 0] == np.arange(7, -1, -1) * 30).all()


def test_a_file_that_vanished_stops_the_stage_without_its_name(pets: Path, image, records, capfd) -> None:
    image(pets / "cat" / f"{CANARY}.png")
    lines: list[str] = []
    found = records(config(pets).load(private_log=lines.append).train)
    (pets / "cat" / f"{CANARY}.png").unlink()
    for attempt in (lambda: found.read_many(0, len(found)), lambda: list(found.parts())):
        with pytest.raises(OperationalError, match=r"ENOENT.*private log") as caught:
            attempt()
        assert CANARY not in str(caught.value) and "\n" not in str(caught.value)
    assert CANARY in lines[0]
    image(pets / "cat" / f"{CANARY}.png")
    assert None not in found.read_many(0, len(found))  # put back, the same command goes on
    assert capfd.readouterr() == ("", "")


def test_a_class_folder_turned_into_a_link_stops_the_stage(pets: Path, tmp_path: Path, records) -> None:
    found = records(config(pets).load().train)
    (pets / "cat").rename(tmp_path / "outside")
    (pets / "cat").symlink_to(tmp_path / "outside")
    with pytest.raises(OperationalError):
        found.read(0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_stops_the_stage(pets: Path, records) -> None:
    found = records(config(pets).load().train)
    (pets / "cat" / "0.png").chmod(0)
    with pytest.raises(OperationalError, match="EACCES"):
        found.read(0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_root_without_permission_is_an_error(pets: Path) -> None:
    pets.chmod(0)
    try:
        with pytest.raises(DataError, match="no permission"):
            config(pets).load()
    finally:
        pets.chmod(0o755)


def test_what_is_wrong_with_the_folder_is_one_line_that_names_no_file(tmp_path: Path, pets: Path, image) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "link").symlink_to(pets)
    mixed = tmp_path / "mixed"
    image(mixed / f"{CANARY}.png")
    image(mixed / "cat" / "1.png")
    nested = tmp_path / "nested"
    image(nested / "cat" / CANARY / "1.png")
    linked = tmp_path / "linked"
    image(linked / "cat" / "1.png")
    (linked / CANARY).symlink_to(pets)
    cases: list[tuple[Path, dict[str, object], str]] = [
        (empty, {}, "the set is empty"),
        (tmp_path / "missing", {}, "does not exist"),
        (tmp_path / "link", {}, "symbolic link"),
        (pets / "cat" / "0.png", {}, "no folder"),
        (mixed, {}, "layout"),
        (mixed, {"layout": "names"}, "move them out"),
        (nested, {}, "one level"),
        (linked, {"layout": "classes"}, "symbolic link"),
        (pets, {"size": None}, "declare the images' size"),
        (pets, {"channels": None}, "declare the images' channels"),
        (pets, {"count": 5}, "holds 6"),
        (pets, {"test_path": tmp_path / "missing"}, "does not exist"),
        (pets, {"test_path": pets, "holdout": 0.5}, "drop holdout"),
    ]
    for path, changes, words in cases:
        with pytest.raises(DataError, match=words) as caught:
            config(path, **changes).load()
        assert CANARY not in str(caught.value) and "\n" not in str(caught.value)
        assert "[data] 'pets'" in str(caught.value)


def test_hidden_files_are_no_slots(pets: Path) -> None:
    (pets / ".DS_Store").write_bytes(b"")
    (pets / "cat" / ".hidden.png").write_bytes(b"")
    assert config(pets, count=6).load().train.count == 6


def test_a_socket_is_a_ghost(pets: Path, records, monkeypatch) -> None:
    monkeypatch.chdir(pets / "cat")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("0.socket")
        found = records(config(pets).load().train)
        assert found.read_many(0, 2)[1] is None


def test_a_name_that_is_no_utf8_has_a_slot_id_that_can_be_written(pets: Path, records) -> None:
    shutil.copy(pets / "cat" / "0.png", os.fsencode(pets / "cat") + b"/\xff.png")
    found = records(config(pets, holdout=0.3).load().train)
    assert "\n".join(found.ids).encode("utf-8")
    whole = records(config(pets).load().train)
    assert whole.read(list(whole.ids).index("cat/\\xff.png")) is not None


def test_a_second_folder_is_the_test_part(pets: Path, tmp_path: Path, image, records) -> None:
    image(tmp_path / "more" / "dog" / "9.png")
    split = config(pets, test_path=tmp_path / "more", test="public").load()
    assert (split.train.count, split.test and split.test.count, split.test_is_public) == (6, 1, True)
    assert records(split.test).read(0).label == 1


def test_a_proposal_can_be_declared_as_it_is(pets: Path, image) -> None:
    proposal = FolderConfig(path=pets).propose()
    assert proposal == {"classes": ["cat", "dog"], "size": [8, 8], "channels": 3, "count": 6}
    assert FolderConfig.model_validate({"path": pets, **proposal}).load().train.count == 6
    assert FolderConfig(path=pets, holdout=0.5, size=(4, 4)).propose()["count"] == 3
    assert FolderConfig(path=pets, size=(4, 4)).propose()["size"] == [4, 4]
    for number in range(4):
        image(pets.parent / "named" / f"{'ab'[number % 2]}_{number}.png", mode="L", size=(5, 6))
    assert FolderConfig(path=pets.parent / "named").propose() == {
        "classes": ["a", "b"],
        "size": [5, 6],
        "channels": 1,
        "count": 4,
    }
    assert FolderConfig(path=pets / "cat").propose()["classes"] == ["cat"]
