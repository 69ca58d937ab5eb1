"""Fetching sets, from mirrors on loopback that cut, lie and redirect."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from privolve.data import catalogue, download
from privolve.data.catalogue import Asset, Entry
from privolve.data.download import LOCK_FILE, ByHand, DownloadRefused, Patience, Unreachable
from privolve.jobs.errors import exit_code

CONTENT = np.random.default_rng(0).integers(0, 256, 400_000, dtype=np.uint8).tobytes()
QUICK = Patience(attempts=3, first_wait_s=0.01, timeout_s=5)
Answer = Callable[[BaseHTTPRequestHandler], None]


class Mirror:
    """A server whose answers a test writes; it remembers what was asked."""

    def __init__(self) -> None:
        self.answer: Answer = whole(CONTENT)
        self.asked: list[dict[str, str]] = []
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                mirror.asked.append({**self.headers, "path": self.path})
                mirror.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}/set.bin"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def whole(
    content: bytes, *, cut: int | None = None, kind: str = "application/octet-stream", etag: str = '"1"'
) -> Answer:
    """The content, or the range of it that is asked for; at most `cut` bytes before the connection breaks."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        start = 0
        asked = handler.headers.get("Range")
        if asked and handler.headers.get("If-Range", etag) == etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content) - start))
        handler.send_header("ETag", etag)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.end_headers()
        stop = len(content) if cut is None else min(len(content), start + cut)
        handler.wfile.write(content[start:stop])
        handler.close_connection = True

    return answer


def status(code: int, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in {"Content-Length": "0", **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()

    return answer


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    opened = Mirror()
    yield opened
    opened.close()


@pytest.fixture
def second() -> Iterator[Mirror]:
    opened = Mirror()
    yield opened
    opened.close()


def asset(*mirrors: Mirror, **changes: object) -> Asset:
    table = {"name": "set.bin", "mirrors": tuple(each.url for each in mirrors), "at_most": 1_000_000, **changes}
    return Asset.model_validate(table)


def pinned(*mirrors: Mirror, content: bytes = CONTENT, **changes: object) -> Asset:
    checksum = "md5:" + hashlib.md5(content).hexdigest()
    return asset(*mirrors, checksum=checksum, stated="a test", **changes)


def fetched(wanted: Asset, folder: Path) -> bytes:
    return download.fetch(wanted, folder, note=lambda _: None, patience=QUICK).read_bytes()


def entry(*assets: Asset, **changes: object) -> Entry:
    facts = catalogue.entry("mnist").model_copy(update={"files": assets, "name": "a-set", "by_hand": None, **changes})
    return facts


def test_a_file_arrives_whole_and_leaves_nothing_unfinished(mirror: Mirror, tmp_path: Path) -> None:
    assert fetched(asset(mirror), tmp_path) == CONTENT
    assert {path.name for path in tmp_path.iterdir()} == {"set.bin", LOCK_FILE}
    recorded = json.loads((tmp_path / LOCK_FILE).read_text())["set.bin"]
    assert recorded["sha256"] == hashlib.sha256(CONTENT).hexdigest() and recorded["from"] == mirror.url


def test_a_cut_download_goes_on_where_it_was_cut(mirror: Mirror, tmp_path: Path) -> None:
    mirror.answer = whole(CONTENT, cut=150_000)
    assert fetched(asset(mirror), tmp_path) == CONTENT
    assert [asked.get("Range") for asked in mirror.asked] == [None, "bytes=150000-", "bytes=300000-"]
    assert all(asked["If-Range"] == '"1"' for asked in mirror.asked[1:])


def test_a_later_command_goes_on_where_an_earlier_one_gave_up(mirror: Mirror, tmp_path: Path) -> None:
    def once_then_silent(handler: BaseHTTPRequestHandler) -> None:
        (whole(CONTENT, cut=100_000) if len(mirror.asked) == 1 else status(503))(handler)

    mirror.answer = once_then_silent
    with pytest.raises(Unreachable, match="answers 503; run the same command again") as caught:
        fetched(asset(mirror), tmp_path)
    assert exit_code(caught.value) == 3 and not (tmp_path / "set.bin").exists()
    mirror.answer = whole(CONTENT)
    assert fetched(asset(mirror), tmp_path) == CONTENT
    assert mirror.asked[-1]["Range"] == "bytes=100000-"


def test_a_file_that_changed_in_between_is_fetched_from_its_beginning(mirror: Mirror, tmp_path: Path) -> None:
    def changes(handler: BaseHTTPRequestHandler) -> None:
        first = len(mirror.asked) == 1
        whole(bytes(400_000) if first else CONTENT, cut=100_000 if first else None, etag=f'"{first}"')(handler)

    mirror.answer = changes
    assert fetched(asset(mirror), tmp_path) == CONTENT


def test_pieces_of_two_mirrors_are_joined_only_where_a_checksum_decides(
    mirror: Mirror, second: Mirror, tmp_path: Path
) -> None:
    def once_then_gone(handler: BaseHTTPRequestHandler) -> None:
        (whole(CONTENT, cut=100_000) if len(mirror.asked) == 1 else status(404))(handler)

    mirror.answer = once_then_gone
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert fetched(asset(mirror, second), tmp_path / "a") == CONTENT
    assert second.asked[0].get("Range") is None
    mirror.asked.clear()
    assert fetched(pinned(mirror, second), tmp_path / "b") == CONTENT
    assert second.asked[1].get("Range") == "bytes=100000-"


def test_pieces_that_do_not_fit_are_fetched_again_once(mirror: Mirror, second: Mirror, tmp_path: Path) -> None:
    mirror.answer = whole(bytes(400_000), cut=100_000)
    with pytest.raises(DownloadRefused):
        fetched(pinned(mirror), tmp_path)
    mirror.answer = lambda handler: (
        whole(bytes(400_000), cut=100_000) if "Range" not in handler.headers else status(404)
    )(handler)
    mirror.asked.clear()
    assert fetched(pinned(mirror, second), tmp_path) == CONTENT
    assert [asked.get("Range") for asked in second.asked] == ["bytes=100000-", None]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (status(404), "answers 404"),
        (whole(CONTENT[:-1]), "publisher states"),
        (whole(b"<!DOCTYPE html>" + CONTENT, kind="text/html; charset=utf-8"), "a web page instead of the file"),
        (whole(CONTENT * 3), "offers 1200000 bytes where 1000000 at most"),
        (status(302, Location="http://127.0.0.1:1/elsewhere"), "127.0.0.1:1, which is none of the set's hosts"),
        (status(302, Location="file:///etc/passwd"), "something else than a web address"),
        (status(302, Location="http://127.0.0.1:99999/x"), "an address that is none"),
        (status(302, Location="/set.bin"), "redirects in a circle"),
    ],
)
def test_a_mirror_without_the_file_is_passed_over(
    mirror: Mirror, second: Mirror, tmp_path: Path, answer: Answer, words: str
) -> None:
    mirror.answer = answer
    with pytest.raises(DownloadRefused, match=words) as caught:
        fetched(pinned(mirror), tmp_path)
    assert exit_code(caught.value) == 2 and "\n" not in str(caught.value)
    assert not (tmp_path / "set.bin").exists() and not (tmp_path / LOCK_FILE).exists()
    assert fetched(pinned(mirror, second), tmp_path) == CONTENT


def test_a_mirror_that_is_away_is_passed_over(mirror: Mirror, second: Mirror, tmp_path: Path) -> None:
    mirror.close()
    assert fetched(asset(mirror, second), tmp_path) == CONTENT


def test_a_redirect_to_an_allowed_host_is_followed_and_no_other(mirror: Mirror, second: Mirror, tmp_path: Path) -> None:
    mirror.answer = status(302, Location=second.url)
    with pytest.raises(DownloadRefused, match="none of the set's hosts"):
        fetched(asset(mirror), tmp_path)
    assert not second.asked
    assert fetched(asset(mirror, redirects=(second.host,)), tmp_path) == CONTENT


def test_a_page_under_the_name_of_an_archive_is_refused_by_its_beginning(mirror: Mirror, tmp_path: Path) -> None:
    for name, content in (("set.bin", b"  <html>log in</html>"), ("set.zip", b"log in, please"), ("set.tar.gz", b"no")):
        mirror.answer = whole(content)
        with pytest.raises(DownloadRefused, match=r"a web page instead of the file|is no \.(zip|gz) file"):
            fetched(asset(mirror, name=name), tmp_path)
    assert not list(tmp_path.glob("set*"))


def test_a_length_that_is_not_told_is_refused_unless_a_checksum_decides(mirror: Mirror, tmp_path: Path) -> None:
    def untold(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(CONTENT)
        handler.close_connection = True

    mirror.answer = untold
    with pytest.raises(DownloadRefused, match="does not say how long"):
        fetched(asset(mirror), tmp_path)
    assert fetched(pinned(mirror), tmp_path) == CONTENT


def test_more_than_was_announced_is_never_written(mirror: Mirror, tmp_path: Path) -> None:
    def chunked(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(20):
            handler.wfile.write(b"%x\r\n%b\r\n" % (100_000, bytes(100_000)))
        handler.wfile.write(b"0\r\n\r\n")

    mirror.answer = chunked
    with pytest.raises(DownloadRefused, match="sends more than 1000000 bytes"):
        fetched(asset(mirror), tmp_path)
    assert not list(tmp_path.glob(".set.bin.part*"))


def test_the_checksum_of_the_first_download_is_compared_ever_after(mirror: Mirror, tmp_path: Path) -> None:
    fetched(asset(mirror), tmp_path)
    (tmp_path / "set.bin").unlink()
    mirror.answer = whole(bytes(400_000))
    with pytest.raises(DownloadRefused, match="another checksum than at its first download"):
        fetched(asset(mirror), tmp_path)
    mirror.answer = whole(CONTENT)
    fetched(asset(mirror), tmp_path)
    (tmp_path / "set.bin").write_bytes(CONTENT[:-1] + b"x")
    asked = len(mirror.asked)
    with pytest.raises(DownloadRefused, match="another checksum than at its first download"):
        fetched(asset(mirror), tmp_path)
    assert len(mirror.asked) == asked
    (tmp_path / LOCK_FILE).write_text("{")
    with pytest.raises(DownloadRefused, match="is damaged"):
        fetched(asset(mirror), tmp_path)


def test_what_is_there_is_checked_and_not_fetched_again(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "set.bin").write_bytes(CONTENT)
    assert fetched(pinned(mirror), tmp_path) == CONTENT
    assert not mirror.asked and "here before" in (tmp_path / LOCK_FILE).read_text()
    (tmp_path / "set.bin").write_bytes(b"mine")
    with pytest.raises(DownloadRefused, match="remove it"):
        fetched(pinned(mirror), tmp_path)
    assert (tmp_path / "set.bin").read_bytes() == b"mine"


def test_a_link_in_the_place_of_the_file_is_not_followed(mirror: Mirror, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"mine")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "set.bin").symlink_to(target)
    with pytest.raises(DownloadRefused, match="no regular file"):
        fetched(asset(mirror), folder)
    (folder / "set.bin").unlink()
    (folder / ".set.bin.part").symlink_to(target)
    with pytest.raises(OSError, match=r"symbolic|levels"):
        fetched(asset(mirror), folder)
    assert target.read_bytes() == b"mine"


def test_a_full_disk_is_said_before_or_when_it_happens_and_the_piece_is_kept(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "disk_usage", lambda _: _Free(1000))
        with pytest.raises(OSError, match="400000 bytes are needed and 1000 are free") as caught:
            fetched(asset(mirror), tmp_path)
        assert exit_code(caught.value) == 3

    class Full:
        """A file on a disk with room for 100,000 bytes."""

        def __init__(self, file) -> None:
            self._file = file
            self.written = 0

        def write(self, block: bytes) -> None:
            if self.written + len(block) > 100_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.written += self._file.write(block)

        def __getattr__(self, name: str):
            return getattr(self._file, name)

    opened = os.fdopen
    with monkeypatch.context() as patch:
        patch.setattr(
            download.os,
            "fdopen",
            lambda descriptor, mode: Full(opened(descriptor, mode)) if mode == "r+b" else opened(descriptor, mode),
        )
        patch.setattr(download, "BLOCK", 10_000)
        with pytest.raises(OSError, match="No space left") as caught:
            fetched(asset(mirror), tmp_path)
        assert exit_code(caught.value) == 3 and str(tmp_path) in caught.value.filename
    assert fetched(asset(mirror), tmp_path) == CONTENT
    assert 0 < int(mirror.asked[-1]["Range"].removeprefix("bytes=").removesuffix("-")) <= 100_000


class _Free:
    def __init__(self, free: int) -> None:
        self.free = free


def test_a_killed_download_goes_on(mirror: Mirror, tmp_path: Path) -> None:
    reached = threading.Event()

    def slowly(handler: BaseHTTPRequestHandler) -> None:
        if "Range" in handler.headers:
            return whole(CONTENT)(handler)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.send_header("ETag", '"1"')
        handler.end_headers()
        handler.wfile.write(CONTENT[:200_000])
        handler.wfile.flush()
        reached.set()
        time.sleep(20)

    mirror.answer = slowly
    code = (
        "import sys; from pathlib import Path; from privolve.data import download; from privolve.data.catalogue import Asset\n"
        "download.DURABLE_EVERY = 50_000\n"
        "asset = Asset(name='set.bin', mirrors=(sys.argv[1],), at_most=1_000_000)\n"
        "download.fetch(asset, Path(sys.argv[2]), note=print, patience=download.Patience())\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", code, mirror.url, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert reached.wait(30)
        state = tmp_path / ".set.bin.part.json"
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not (
            state.exists() and json.loads(state.read_text())["durable"] >= 150_000
        ):
            time.sleep(0.02)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    assert not (tmp_path / "set.bin").exists()
    assert fetched(asset(mirror), tmp_path) == CONTENT
    assert int(mirror.asked[-1]["Range"].removeprefix("bytes=").removesuffix("-")) >= 150_000


def test_one_command_at_a_time_works_in_a_folder(mirror: Mirror, tmp_path: Path) -> None:
    with download._alone(tmp_path), pytest.raises(Unreachable, match="another process"):
        download.get(entry(asset(mirror)), tmp_path, note=lambda _: None, patience=QUICK)


def test_an_archive_is_fetched_and_unpacked_once(mirror: Mirror, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("inner/a.bin")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"hello"))
    mirror.answer = whole(packed.getvalue())
    facts = entry(asset(mirror, name="set.tar.gz", unpack="set", unpacked_at_most=1000))
    notes: list[str] = []
    download.get(facts, tmp_path, note=notes.append, patience=QUICK)
    assert (tmp_path / "set" / "inner" / "a.bin").read_bytes() == b"hello"
    assert any("open connection" in note for note in notes)
    download.get(facts, tmp_path, note=notes.append, patience=QUICK)
    assert len(mirror.asked) == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "set").mkdir()
    with pytest.raises(DownloadRefused, match="was not unpacked by this command"):
        download.get(facts, tmp_path / "other", note=notes.append, patience=QUICK)


def test_a_set_behind_a_licence_says_what_to_do_and_takes_the_file_from_there(mirror: Mirror, tmp_path: Path) -> None:
    facts = entry(asset(mirror), asset(name="behind.gz"), by_hand="accept the licence")
    with pytest.raises(
        ByHand, match=r"a-set: accept the licence: .*put behind.gz into .* and run the same command"
    ) as caught:
        download.get(facts, tmp_path, note=lambda _: None, patience=QUICK)
    assert exit_code(caught.value) == 2 and (tmp_path / "set.bin").exists()
    (tmp_path / "behind.gz").write_bytes(gzip.compress(b"given"))
    download.get(facts, tmp_path, note=lambda _: None, patience=QUICK)
    assert "behind.gz" in (tmp_path / LOCK_FILE).read_text()


def test_the_command_lists_sets_with_licences_and_what_was_never_tried(capsys) -> None:
    from privolve.cli import main

    assert main(["data"]) == 0
    told = capsys.readouterr().out
    assert "digits" in told and "privolve.data.npz:NpzConfig" in told
    for name in catalogue.names():
        assert f"\n  {name} " in told
    assert told.count("licence:") == told.count("not tried:") == len(catalogue.names())


def test_the_command_says_in_one_line_what_it_cannot_fetch(tmp_path: Path, capsys) -> None:
    from privolve.cli import main

    assert main(["data", "get", "imagenet", "--to", str(tmp_path / "a")]) == 2
    told = capsys.readouterr().err
    assert "'imagenet' is no published set that privolve knows; did you mean 'imagenet64'? it knows camelyon17" in told
    assert main(["data", "get", "celeba", "--to", str(tmp_path / "b")]) == 2
    told = capsys.readouterr().err.strip()
    assert "mmlab.ie.cuhk.edu.hk" in told and "img_align_celeba.zip" in told and "\n" not in told
    assert main(["data", "get", "wave-ui", "--to", str(tmp_path / "c")]) == 2
    assert "hf download" in capsys.readouterr().err
