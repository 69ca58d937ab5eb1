"""Archives that try to write elsewhere, or too much."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from privolve.data.errors import Damaged
from privolve.data.unpack import unpack


def tarred(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def zipped(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def special(kind: bytes, name: str = "x", target: str = "/etc/passwd") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def linked(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz"])
def test_files_and_folders_arrive_as_they_are(tmp_path: Path, name: str) -> None:
    make: Callable[..., Path] = zipped if name.endswith(".zip") else tarred
    path = make(tmp_path / name, ("a.txt", b"one"), ("deep/er/b.txt", b"two"), ("./c.txt", b""))
    assert unpack(path, tmp_path / "out", at_most=100, where="test") == 3
    found = {str(each.relative_to(tmp_path / "out")): each.read_bytes() for each in (tmp_path / "out").rglob("*.txt")}
    assert found == {"a.txt": b"one", "deep/er/b.txt": b"two", "c.txt": b""}


EVIL_NAMES = ["../out.txt", "/etc/x", "a/../../x", "..\\x", "C:x", "/".join("d" * 30)]


@pytest.mark.parametrize("name", EVIL_NAMES)
@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_name_that_leads_out_is_refused_and_nothing_is_kept(tmp_path: Path, make, name: str) -> None:
    path = make(tmp_path / ("set.zip" if make is zipped else "set.tar"), ("good.txt", b"x"), (name, b"evil"))
    with pytest.raises(Damaged, match="leads out of its folder; nothing of it was kept"):
        unpack(path, tmp_path / "out", at_most=100, where="test")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = tarred(tmp_path / "set.tar", special(kind), ("x/y.txt", b"evil"))
    with pytest.raises(Damaged, match="a link or a device"):
        unpack(path, tmp_path / "out", at_most=100, where="test")
    assert list(tmp_path.iterdir()) == [path]
    packed = zipped(tmp_path / "set.zip", (linked("x"), b"/etc"), ("x/y.txt", b"evil"))
    with pytest.raises(Damaged, match="a link or a device"):
        unpack(packed, tmp_path / "out", at_most=100, where="test")


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_bomb_stops_at_what_is_allowed(tmp_path: Path, make) -> None:
    path = make(
        tmp_path / ("set.zip" if make is zipped else "set.tar.gz"), *((f"{n}", bytes(100_000)) for n in range(9))
    )
    assert path.stat().st_size < 10_000
    with pytest.raises(Damaged, match="more than the 500000 bytes"):
        unpack(path, tmp_path / "out", at_most=500_000, where="test")
    assert not (tmp_path / "out").exists() and unpack(path, tmp_path / "out", at_most=900_000, where="test") == 9


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", [zipped, tarred])
def test_nothing_is_written_over(tmp_path: Path, make) -> None:
    path = make(tmp_path / ("set.zip" if make is zipped else "set.tar"), ("a", b"1"), ("a", b"2"))
    with pytest.raises(Damaged, match="a file twice"):
        unpack(path, tmp_path / "out", at_most=100, where="test")
    (tmp_path / "out").mkdir()
    good = make(tmp_path / ("good.zip" if make is zipped else "good.tar"), ("a", b"1"))
    with pytest.raises(Damaged, match="not written over"):
        unpack(good, tmp_path / "out", at_most=100, where="test")
    assert not list((tmp_path / "out").iterdir())


def test_a_header_that_claims_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 8_000_000_000
    path = tmp_path / "set.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))
    with pytest.raises(Damaged, match="damaged or cut short"):
        unpack(path, tmp_path / "out", at_most=100, where="test")


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz"])
def test_a_cut_or_flipped_archive_gives_files_or_one_line(tmp_path: Path, name: str) -> None:
    make = zipped if name.endswith(".zip") else tarred
    whole = make(tmp_path / name, ("a.bin", bytes(range(256)) * 8), ("b.bin", b"x" * 500)).read_bytes()
    broken = tmp_path / f"broken-{name}"
    step = max(1, len(whole) // 60)
    variants = [whole[:cut] for cut in range(0, len(whole), step)]
    variants += [whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :] for at in range(0, len(whole), step)]
    for number, content in enumerate(variants):
        broken.write_bytes(content)
        try:
            unpack(broken, tmp_path / f"out{number}", at_most=10_000, where="test")
        except Damaged as error:
            assert "\n" not in str(error) and not (tmp_path / f"out{number}").exists()
    assert not list(tmp_path.glob(".*"))


def test_what_a_killed_attempt_left_is_removed(tmp_path: Path) -> None:
    path = tarred(tmp_path / "set.tar", ("a", b"1"))
    left = tmp_path / ".out.unpacking"
    left.mkdir()
    (left / "old").write_bytes(b"old")
    unpack(path, tmp_path / "out", at_most=100, where="test")
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["a"]
