"""The witness: what is remembered of ledgers apart from the ledgers themselves."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest

from privolve.privacy import ledger_witness
from privolve.privacy.ledger import Ledger, LedgerError, LedgerWriteError, RolledBack
from privolve.privacy.mechanism import Relation


def opened(directory: Path, *, name: str = "patients", purpose: str = "private") -> Ledger:
    return Ledger.create_or_open(
        directory, name=name, slots=1000, unit="image", relation=Relation.ZERO_OUT, purpose=purpose
    )


def test_a_second_ledger_of_the_same_name_in_another_place_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "one" / "patients").close()
    with pytest.raises(LedgerError, match="would not add up") as refused:
        opened(tmp_path / "two" / "patients")
    assert str(tmp_path / "one" / "patients") in str(refused.value)
    opened(tmp_path / "two" / "others", name="others").close()


def test_a_ledger_whose_folder_is_gone_does_not_stand_in_the_way(tmp_path: Path) -> None:
    opened(tmp_path / "one" / "patients").close()
    shutil.rmtree(tmp_path / "one")
    opened(tmp_path / "two" / "patients").close()


def test_public_data_played_as_private_may_have_many_ledgers(tmp_path: Path) -> None:
    opened(tmp_path / "one" / "digits", name="digits", purpose="benchmark").close()
    opened(tmp_path / "two" / "digits", name="digits", purpose="benchmark").close()


def test_a_ledger_may_be_moved_but_not_put_back_from_a_copy(tmp_path: Path) -> None:
    opened(tmp_path / "one" / "patients").close()
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    with opened(tmp_path / "one" / "patients") as ledger:
        ledger.note("run", "assumption", {"text": "prompts were written without looking"})
    shutil.move(tmp_path / "one", tmp_path / "moved")
    opened(tmp_path / "moved" / "patients").close()
    with pytest.raises(RolledBack, match="put the newest one back"):
        opened(tmp_path / "copy" / "patients")


def test_what_is_remembered_is_readable_by_its_owner_alone_and_holds_no_record(tmp_path: Path) -> None:
    with opened(tmp_path / "one" / "patients") as ledger:
        path = ledger_witness.folder() / "ledgers" / f"{ledger.id}.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert json.loads(path.read_text()) == {
            "name": "patients",
            "directory": str((tmp_path / "one" / "patients").resolve()),
            "head": ledger.head(),
        }


def test_a_state_folder_that_cannot_be_written_stops_before_any_release(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PRIVOLVE_STATE", str(tmp_path / "file"))
    with pytest.raises(LedgerWriteError, match="PRIVOLVE_STATE"):
        opened(tmp_path / "one" / "patients")


def test_a_damaged_memory_is_refused_and_says_the_way_out(tmp_path: Path) -> None:
    with opened(tmp_path / "one" / "patients") as ledger:
        path = ledger_witness.folder() / "ledgers" / f"{ledger.id}.json"
    path.write_text("{")
    with pytest.raises(LedgerError, match="Restore it, or remove it"):
        opened(tmp_path / "one" / "patients")
