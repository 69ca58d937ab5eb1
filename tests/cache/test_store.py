from __future__ import annotations

import errno
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from privolve.cache.keys import Address
from privolve.cache.sqlite import INLINE_BYTES, SCHEMA, SqliteStore
from privolve.cache.store import MemoryStore, Saved, StoreBusy, StoreDamaged, StoreError, StoreFull, StoreTooNew
from privolve.privacy import durable


def address(number: int, draw: int = 0, namespace: str = "run") -> Address:
    return Address(key=f"k1:{number}", namespace=namespace, draw=draw, canonical=f'{{"number":{number}}}')


SMALL = Saved(kind="text", payload=b"an answer", about='{"a":1}')
LARGE = Saved(kind="png", payload=os.urandom(INLINE_BYTES + 1))


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    opened = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "cache.sqlite")
    yield opened
    opened.close()


def test_what_was_put_is_got_in_the_order_asked(store):
    store.put([(address(1), SMALL), (address(2), LARGE), (address(1, draw=1), replace(SMALL, payload=b""))])
    got = store.get([address(2), address(3), address(1, draw=1), address(1)])
    assert got == [LARGE, None, replace(SMALL, payload=b""), SMALL]


def test_a_draw_and_a_namespace_are_places_of_their_own(store):
    store.put([(address(1), SMALL)])
    assert store.get([address(1, draw=1), address(1, namespace="other")]) == [None, None]


def test_a_place_that_is_taken_keeps_its_first_reply(store):
    store.put([(address(1), SMALL)])
    assert store.put([(address(1), LARGE), (address(2), LARGE)]) == [SMALL, LARGE]
    assert store.get([address(1)]) == [SMALL]


def test_a_hit_whose_question_differs_is_an_error(store):
    store.put([(address(1), SMALL)])
    with pytest.raises(StoreDamaged, match="another question"):
        store.get([replace(address(1), canonical="{}")])


def test_replies_survive_the_process_that_put_them(tmp_path):
    first = SqliteStore(tmp_path / "cache.sqlite")
    first.put([(address(1), SMALL), (address(2), LARGE)])
    first.close()
    assert SqliteStore(tmp_path / "cache.sqlite").get([address(1), address(2)]) == [SMALL, LARGE]


def test_a_large_reply_is_a_file_named_by_its_content_and_stored_once(tmp_path):
    store = SqliteStore(tmp_path / "cache.sqlite")
    store.put([(address(1), LARGE), (address(2), LARGE), (address(3), SMALL)])
    files = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in files] == [LARGE.payload]
    assert LARGE.payload[:64] not in (tmp_path / "cache.sqlite").read_bytes()


def test_a_damaged_reply_is_never_returned(tmp_path):
    store = SqliteStore(tmp_path / "cache.sqlite")
    store.put([(address(1), LARGE), (address(2), SMALL)])
    file = next(path for path in (tmp_path / "blobs").rglob("*") if path.is_file())
    file.write_bytes(LARGE.payload[:-1])
    with pytest.raises(StoreDamaged, match="checksum"):
        store.get([address(1)])
    file.unlink()
    with pytest.raises(StoreDamaged, match="missing"):
        store.get([address(1)])
    with sqlite3.connect(tmp_path / "cache.sqlite") as other:
        other.execute("update samples set payload = x'00' where payload is not null")
    with pytest.raises(StoreDamaged, match="checksum"):
        store.get([address(2)])


def test_a_cache_of_a_newer_schema_is_refused_and_untouched(tmp_path):
    path = tmp_path / "cache.sqlite"
    SqliteStore(path).close()
    with sqlite3.connect(path) as other:
        other.execute(f"pragma user_version = {SCHEMA + 1}")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreTooNew, match=r"newer privolve.*update privolve or name another"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_another_programs_database_and_no_database_are_refused(tmp_path):
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("create table notes (text)")
    other.close()
    with pytest.raises(StoreDamaged, match="not a privolve cache"):
        SqliteStore(tmp_path / "other.sqlite")
    (tmp_path / "text").write_text("some text that is longer than a header " * 20)
    with pytest.raises(StoreDamaged):
        SqliteStore(tmp_path / "text")


def test_a_locked_cache_says_so(tmp_path):
    store = SqliteStore(tmp_path / "cache.sqlite", wait_s=0.05)
    other = sqlite3.connect(tmp_path / "cache.sqlite", isolation_level=None)
    other.execute("begin exclusive")
    with pytest.raises(StoreBusy, match="another process"):
        store.put([(address(1), SMALL)])
    other.execute("rollback")
    store.put([(address(1), SMALL)])
    assert store.get([address(1)]) == [SMALL]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cache"):
        SqliteStore(tmp_path / "file" / "cache.sqlite")


def test_a_full_disk_loses_nothing_that_was_kept(tmp_path, monkeypatch):
    store = SqliteStore(tmp_path / "cache.sqlite")
    store.put([(address(1), SMALL)])
    store._connection.execute("pragma max_page_count = 10")  # The same error as a full disk.
    with pytest.raises(StoreFull, match=r"no space left.*run the same command again"):
        store.put([(address(number), replace(SMALL, payload=bytes(5000))) for number in range(2, 50)])

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable, "write_bytes", full)
    with pytest.raises(StoreFull):
        store.put([(address(60), LARGE)])
    assert store.get([address(1), address(2), address(60)]) == [SMALL, None, None]


def test_a_small_real_disk_that_fills_up_loses_nothing_that_was_kept(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        store = SqliteStore(disk / "cache.sqlite")
        kept: list[Address] = []
        with pytest.raises(StoreFull):
            for number in range(1000):
                store.put([(address(number), replace(SMALL, payload=os.urandom(20_000)))])
                kept.append(address(number))
        assert len(kept) > 5
        assert all(saved is not None for saved in store.get(kept))
        with pytest.raises(StoreFull):
            store.put([(address(2000), replace(LARGE, payload=os.urandom(600_000)))])
        assert not list((disk / "blobs").rglob(".*"))
        store.close()
        assert all(saved is not None for saved in SqliteStore(disk / "cache.sqlite").get(kept))
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


def test_the_journal_mode_is_safe_with_several_processes(tmp_path):
    store = SqliteStore(tmp_path / "cache.sqlite")
    assert store._connection.execute("pragma journal_mode").fetchone()[0] != "wal"
    assert store._connection.execute("pragma synchronous").fetchone()[0] == 2


def test_several_threads_may_share_a_store(tmp_path):
    store = SqliteStore(tmp_path / "cache.sqlite")
    failures: list[BaseException] = []

    def work(start: int) -> None:
        try:
            for number in range(start, start + 20):
                store.put([(address(number), SMALL)])
                assert store.get([address(number)]) == [SMALL]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 10, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


WORKER = """
import sys, time
from pathlib import Path
from privolve.cache.keys import Address
from privolve.cache.sqlite import SqliteStore
from privolve.cache.store import Saved

def address(number, draw):
    return Address(key=f"k1:{number}", namespace="run", draw=draw, canonical=f'{{"number":{number}}}')

path, own, start = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
time.sleep(max(0.0, start - time.time()))
store = SqliteStore(path)
for number in range(20):
    small = Saved(kind="text", payload=b"an answer", about='{"a":1}')
    store.put([(address(number, own), small), (address(number, 9), Saved(kind="text", payload=bytes([own])))])
    assert store.get([address(number, 9)])[0] is not None
"""


def test_several_processes_may_make_and_fill_one_cache(tmp_path):
    path, start = tmp_path / "cache.sqlite", time.time() + 2
    commands = [[sys.executable, "-c", WORKER, str(path), str(own), str(start)] for own in range(3)]
    workers = [subprocess.Popen(command) for command in commands]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    store = SqliteStore(path)
    assert None not in store.get([address(number, draw=own) for number in range(20) for own in range(3)])
    assert store._connection.execute("pragma integrity_check").fetchone()[0] == "ok"


def test_what_a_run_asked_is_for_its_owner_alone(tmp_path):
    folder = tmp_path / "cache"
    before = os.umask(0)
    try:
        folder.mkdir()
        (folder / "answers.db").touch(mode=0o644)
        for name in ("answers.db", "new.db"):
            store = SqliteStore(folder / name)
            store.put([(address(0), Saved(kind="text", payload=b"x" * (INLINE_BYTES + 1)))])
            assert store.owner
            store.close()
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}
    assert len(modes) >= 5
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items()), modes
