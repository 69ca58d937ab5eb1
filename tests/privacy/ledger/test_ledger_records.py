from __future__ import annotations

import base64
import hashlib
import shutil

import pytest

from privolve.privacy.ledger import LedgerDamaged, LedgerError, SetOverlaps, TermsDiffer
from privolve.privacy.ledger_chain import line


def test_an_edited_set_continues_the_ledger_it_had(desk):
    ledger = desk.open(records=desk.records())
    ledger.reserve(desk.plan(epsilon=1.0))
    ledger.close()
    ledger = desk.open(records=[*desk.records()[1:], b"a new one"])
    assert ledger.spent().epsilon == 1.0


def test_in_public_an_edit_cannot_be_told_from_none(desk):
    public = []
    for name, later in (("same", desk.records()), ("edited", [b"a new one", *desk.records()[1:]])):
        desk.open(name, records=desk.records(), declare_disjoint="a test").close()
        ledger = desk.open(name, records=later)
        public.append([(entry.kind, entry.run, entry.body) for entry in ledger.entries()[1:]])
    assert public[0] == public[1]


def test_whether_the_set_changed_is_kept_in_private(desk):
    changed = []
    for records in (desk.records(), desk.records()[::-1], [b"a new one", *desk.records()[1:]]):
        ledger = desk.open(records=records)
        changed.append(ledger._store.private_part(len(ledger.entries()))["changed"])
        ledger.close()
    assert changed == [False, False, True]


def test_a_second_name_for_the_same_records_is_refused(desk):
    desk.open(records=desk.records()).close()
    with pytest.raises(SetOverlaps, match="'digits'"):
        desk.open("copy", records=desk.records())
    with pytest.raises(SetOverlaps):
        desk.open("part", records=desk.records(first=99, count=100))
    desk.open("others", records=desk.records(first=100))


def test_a_refused_ledger_is_not_made(desk):
    desk.open(records=desk.records()).close()
    for _ in range(2):
        with pytest.raises(SetOverlaps):
            desk.open("copy", records=desk.records())
    assert desk.kinds(desk.open("copy")) == ["created"]


def test_an_edit_cannot_bring_in_the_records_of_another_ledger(desk):
    desk.open(records=desk.records()).close()
    desk.open("others", records=desk.records(first=100)).close()
    with pytest.raises(SetOverlaps):
        desk.open("others", records=desk.records())


def test_records_that_were_ever_in_a_ledger_stay_known(desk):
    desk.open(records=desk.records()).close()
    desk.open(records=desk.records(first=100)).close()
    with pytest.raises(SetOverlaps):
        desk.open("copy", records=desk.records())


def test_a_declared_disjointness_is_an_assumption(desk):
    desk.open(records=desk.records()).close()
    for _ in range(2):
        ledger = desk.open("copy", records=desk.records(), declare_disjoint="twins, not copies")
        assert desk.kinds(ledger)[:2] == ["created", "assumption"]
        assert "twins, not copies" in ledger.entries()[1].body["text"]
        ledger.close()
    assert desk.kinds(desk.open("copy")).count("assumption") == 1
    with pytest.raises(LedgerError, match="needs a reason"):
        desk.open("third", declare_disjoint=" ")


def test_slots_that_cannot_be_read_overlap_with_nothing(desk):
    desk.open(records=[b""] * desk.slots).close()
    desk.open("others", records=[b""] * desk.slots)


def test_the_records_are_as_many_as_the_slots(desk):
    with pytest.raises(TermsDiffer, match="99 slots, but 100"):
        desk.open(records=desk.records(count=99))


def test_no_trace_of_a_record_is_in_the_public_chain(desk):
    ledger = desk.open(records=desk.records())
    ledger.reserve(desk.plan())
    desk.release(ledger)
    chain = b"".join(map(line, ledger.entries()))
    keyed = [ledger._store.private_part(entry.seq) for entry in ledger.entries()]
    traces = [value.encode() for part in keyed for value in part.values() if isinstance(value, str)]
    for record in desk.records():
        digest = hashlib.sha256(record)
        traces += [record, base64.b64encode(record), digest.hexdigest().encode(), base64.b64encode(digest.digest())]
    assert len(traces) > 400
    assert not [trace for trace in traces if trace in chain]


def test_not_even_the_ledger_file_tells_a_record_to_who_has_no_key(desk):
    desk.open(records=desk.records()).close()
    content = (desk.root / "digits" / "ledger.sqlite").read_bytes()
    for record in desk.records():
        for digest in (hashlib.sha256(record).digest(), hashlib.sha256(b"record" + record).digest()):
            assert record not in content and digest[:16] not in content and digest.hex().encode() not in content


def test_key_and_folder_are_the_owners_alone(desk):
    desk.root.mkdir()
    (desk.root / "digits").mkdir(mode=0o755)
    ledger = desk.open(records=desk.records())
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (desk.root / "digits", *desk.root.rglob("*"))}
    assert modes["digits"] == "0o700"
    assert modes[".key"] == modes["ledger.sqlite"] == "0o600"
    assert len(ledger.key) == 32 and ledger.key == desk.open("others").key


def test_a_lost_key_is_not_made_anew(desk):
    desk.open().close()
    (desk.root / ".key").unlink()
    for name in ("digits", "others"):
        with pytest.raises(LedgerDamaged, match="Restore it"):
            desk.open(name)


def test_another_key_is_noticed(desk):
    desk.open().close()
    (desk.root / ".key").write_bytes(bytes(32))
    with pytest.raises(LedgerDamaged, match="Put that key back"):
        desk.open()


def test_a_copied_ledger_keeps_its_name(desk):
    desk.open().close()
    shutil.copytree(desk.root / "digits", desk.root / "fresh")
    with pytest.raises(TermsDiffer, match="name 'digits', not 'fresh'"):
        desk.open("fresh")
