from __future__ import annotations

import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap

import pytest

from privolve.privacy.ledger import LedgerBusy, LedgerDamaged, LedgerError, LedgerWriteError, RolledBack
from privolve.privacy.ledger_chain import START
from privolve.privacy.private import OperationalError


def edit(desk, statement, *values):
    with sqlite3.connect(desk.root / "digits" / "ledger.sqlite") as database:
        assert database.execute(statement, values).rowcount == 1
    database.close()


@pytest.fixture
def used(desk):
    """A closed ledger with one release, opened with records."""
    ledger = desk.open(records=desk.records())
    ledger.reserve(desk.plan())
    desk.release(ledger)
    ledger.close()
    return desk


def test_a_second_process_is_told_who_holds_the_ledger(used):
    ledger = used.open()
    code = f"""
        from pathlib import Path
        from privolve.privacy.ledger import Ledger, LedgerBusy
        from privolve.privacy.mechanism import Relation
        try:
            Ledger.create_or_open(Path({str(used.root / "digits")!r}), name="digits", slots=100, unit="image",
                                  relation=Relation.ZERO_OUT)
        except LedgerBusy as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r".*digits: the ledger is in use by process \d+\. Wait for it to end, or stop it\.\n", said)
    with pytest.raises(LedgerBusy):
        used.open()
    ledger.close()
    used.open()


def test_a_closed_ledger_serves_nothing(used):
    ledger = used.open()
    ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        ledger.reserve(used.plan("more"))


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE entries SET line = CAST(replace(line, '20.0', '40.0') AS BLOB) WHERE seq = 3", "line 3"),
        ("DELETE FROM entries WHERE seq = 6", "entry 6"),
        ("DELETE FROM entries WHERE seq = 3", "line 3"),
        ('UPDATE private_parts SET body = replace(body, \'"input":"\', \'"input":"0\') WHERE seq = 4', "entry 4"),
        ("UPDATE private_parts SET salt = zeroblob(32) WHERE seq = 4", "entry 4"),
        ("DELETE FROM private_parts WHERE seq = 4", "entry 4"),
        ("INSERT INTO private_parts VALUES (3, zeroblob(32), '{}')", "entry 3"),
    ],
)
def test_an_edited_ledger_is_damaged(used, statement, why):
    used.open(records=used.records()).close()  # The sixth entry, whose private part may outlive it.
    edit(used, statement)
    with pytest.raises(LedgerDamaged, match=why) as refusal:
        used.open()
    assert "Restore it from a backup" in str(refusal.value)


def test_a_torn_file_is_damaged(used):
    path = used.root / "digits" / "ledger.sqlite"
    content = path.read_bytes()
    for torn in (
        content[: len(content) // 2],
        b"no database at all" * 100,
        content[:4096] + bytes(len(content) - 4096),
    ):
        path.write_bytes(torn)
        with pytest.raises(LedgerDamaged):
            used.open()


def test_a_ledger_from_a_backup_is_refused_by_the_run_that_saw_more(used, monkeypatch, tmp_path):
    shutil.copytree(used.root / "digits", used.root.parent / "backup")
    ledger = used.open()
    early = ledger.head()
    used.release(ledger, 1)
    late = ledger.head()
    ledger.close()

    ledger = used.open()
    for head in (early, late, START):
        ledger.check_head(head)
    ledger.close()

    shutil.rmtree(used.root / "digits")
    shutil.copytree(used.root.parent / "backup", used.root / "digits")
    with pytest.raises(RolledBack, match="last seen"):
        used.open()

    # On a machine that never saw the ledger, the run's own memory of it is what is left.
    monkeypatch.setenv("PRIVOLVE_STATE", str(tmp_path / "another machine"))
    ledger = used.open()
    ledger.check_head(early)
    with pytest.raises(RolledBack, match="put the newest one back"):
        ledger.check_head(late)
    used.release(ledger, 1)
    with pytest.raises(RolledBack):
        ledger.check_head(late)


def test_a_folder_that_cannot_be_used_is_one_line(desk):
    desk.root.parent.mkdir(exist_ok=True)
    desk.root.write_text("a file in the way")
    with pytest.raises(LedgerError, match="cannot be used") as refusal:
        desk.open()
    assert "\n" not in str(refusal.value)


def limited(size):
    """A file may not grow beyond `size` until the context ends: a full disk, as the ledger sees it."""

    class Limit:
        def __enter__(self):
            self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
            self.handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, self.before[1]))

        def __exit__(self, *_):
            resource.setrlimit(resource.RLIMIT_FSIZE, self.before)
            signal.signal(signal.SIGXFSZ, self.handler)

    return Limit()


def test_a_full_disk_at_the_charge_releases_nothing_and_loses_nothing(used):
    noise = used.Noise()
    ledger = used.open(secret=noise)
    entries = ledger.entries()
    with limited(1024), pytest.raises(LedgerWriteError, match="make room") as refusal:
        used.release(ledger, 1)
    assert isinstance(refusal.value, OperationalError) and "\n" not in str(refusal.value)
    assert noise.draws == []
    with pytest.raises(LedgerWriteError):
        used.release(ledger, 2)
    ledger.close()

    ledger = used.open(secret=noise)
    assert ledger.entries() == entries
    used.release(ledger, 1)


def test_a_full_disk_at_the_save_returns_nothing_and_draws_again_for_free(used):
    noise = used.Noise()
    ledger = used.open(secret=noise)
    limit = limited(1024)
    with pytest.raises(LedgerWriteError):
        try:
            used.release(ledger, 1, during=lambda _: limit.__enter__())
        finally:
            limit.__exit__()
    ledger.close()

    ledger = used.open(secret=noise)
    assert used.kinds(ledger)[-1] == "charge"
    histogram = used.release(ledger, 1)
    assert len(noise.draws) == 2 and not (noise.draws[0] == noise.draws[1]).all()
    assert (histogram == used.counts().values + noise.draws[1]).all()
    assert ledger.book.copies("run/histogram/1") == 1


def test_every_commit_is_synced(used, monkeypatch):
    settings = []

    class Recorded(sqlite3.Connection):
        def execute(self, sql, *rest):
            settings.append(sql)
            return super().execute(sql, *rest)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: connect(*args, factory=Recorded, **kwargs))
    ledger = used.open()
    used.release(ledger, 1)
    monkeypatch.undo()
    assert {"PRAGMA journal_mode = DELETE", "PRAGMA synchronous = EXTRA"} <= set(settings)
    assert settings.count("BEGIN IMMEDIATE") == settings.count("COMMIT") == 2
