from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from privolve.privacy import ledger_page, statement
from privolve.privacy.ledger import LedgerError
from privolve.privacy.ledger_chain import line, link
from privolve.privacy.ledger_store import read_entries
from privolve.privacy.words import shown


def page(desk, name="digits"):
    """What is said of a ledger that holds, in lines."""
    problems, text = ledger_page.page(desk.root / name)
    assert problems == []
    assert text.splitlines()[-1].startswith("The chain holds")
    return text.splitlines()


def rewritten(desk, lines, name="digits"):
    """Store other lines in place of the ledger's."""
    with closing(sqlite3.connect(desk.root / name / "ledger.sqlite")) as database, database:
        database.execute("DELETE FROM entries")
        database.executemany("INSERT INTO entries VALUES (?, ?)", enumerate(lines, 1))


def test_a_page_has_what_runs_may_release_together_and_what_is_left(desk, tmp_path):
    ledger = desk.open(secret=None, total=(2.0, 1e-3))
    desk.finished(ledger, tmp_path / "run")
    ledger.reserve(desk.plan("next", epsilon=0.5, delta=1e-6, releases=1))
    replaced = sum(ledger_page.alone(ledger.book, run)["replace_one"] for run in ("run", "next"))
    lines = page(desk)
    assert lines[0] == f"Ledger {ledger.id} as of now: {len(ledger.entries())} entries, head {ledger.head()}."
    together = "everything its 2 runs may release together is (1.5, 1.1e-05)-DP"
    assert f"Partition train: {together}; replace-one {shown(replaced)}." in lines
    assert "Left for further runs: (0.5, 0.000989)." in lines
    assert any("image of 100 slots, zero-out" in each and "total is (2, 0.001) a partition" in each for each in lines)


def test_a_page_has_each_run_with_its_share_and_each_release_with_its_cost(desk, tmp_path):
    ledger = desk.open(secret=None)
    desk.finished(ledger, tmp_path / "run", releases=2)
    ledger.reserve(desk.plan("next", epsilon=0.5, releases=1))
    lines = page(desk)
    assert "  run: (1, 1e-05) of train, 2 releases" in lines
    assert "  next: (0.5, 1e-05) of train, 1 release (reserved, nothing released)" in lines
    cost = "discrete-gaussian (cells 1, copies 1, scale 20.0)"
    assert [each for each in lines if "/histogram/" in each] == [
        f"  run/histogram/0: {cost}",
        f"  run/histogram/1: {cost}",
        f"  next/histogram/0: {cost} (no output)",
    ]
    assert any(each.endswith("the owner set no total.") for each in lines)


def test_a_page_counts_what_a_failure_was_charged_for(desk):
    def fail(_):
        raise ZeroDivisionError

    ledger = desk.open(secret=None)
    ledger.reserve(desk.plan(releases=1))
    with pytest.raises(Exception, match="ZeroDivisionError"):
        desk.release(ledger, during=fail)
    assert not any("paid" in each for each in page(desk))
    desk.release(ledger)
    assert any(each.endswith(", paid 2 times") for each in page(desk))
    assert not any("reserved" in each for each in page(desk))


def test_a_page_speaks_as_a_certificate_of_runs_and_events(desk, tmp_path):
    ledger = desk.open(secret=None, total=(4.0, 1e-3))
    made = desk.finished(ledger, tmp_path / "run")
    ledger.reserve(desk.plan("run-validation", partition="validation", epsilon=1.5, releases=1))
    ledger.reserve(desk.plan("next", epsilon=0.5))
    certificate = statement.draft(ledger, "run", manifest=made.manifest)
    lines = page(desk)
    certified = certificate.text.splitlines()
    after = certified.index("Runs so far, each with its share:")
    shared = [each for each in certified[after:] if each.startswith(("  run", "  next"))]
    assert len(shared) == 3 + 7 and set(shared) <= set(lines)
    # A slot may vote in one run and validate in the next.
    most = certificate.document["maximum"]
    (wherever,) = [each for each in lines if "in another of the next" in each]
    assert f"at most ({shown(most['epsilon'])}, {shown(most['delta'])})" in wherever and most["epsilon"] == 2.0


def test_a_page_counts_how_often_unprotected_figures_were_shown(desk):
    ledger = desk.open(secret=None)
    for partition in ("train", "train", "test"):
        ledger.note("earlier", "disclosed", {"partition": partition, "figures": 1})
    ledger.reserve(desk.plan())
    lines = page(desk)
    assert "Unprotected figures of partition train were shown 2 times by now." in lines
    assert "Unprotected figures of partition test were shown 1 time by now." in lines
    assert any("made after unprotected figures of the voting set were shown 2 times" in each for each in lines)


def test_a_ledger_without_a_plan_has_a_page(desk):
    desk.open(secret=None).close()
    assert page(desk)[-6:-2] == ["  none", "", "Every event:", "  none"]


def test_a_page_changes_nothing_and_is_read_while_a_run_writes(desk, tmp_path):
    ledger = desk.open(secret=None, records=desk.records())
    ledger.reserve(desk.plan())
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in desk.root.rglob("*") if path.is_file()}
    page(desk)
    ledger_page.in_a_line(desk.root / "digits")
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in desk.root.rglob("*") if path.is_file()}
    assert after == before
    desk.release(ledger)
    assert not any("reserved" in each for each in page(desk))


def test_nothing_that_depends_on_records_is_on_a_page(desk, tmp_path):
    pages = []
    for name, first in (("digits", 0), ("others", 500)):
        ledger = desk.open(name, secret=None, records=desk.records(first=first))
        ledger.reserve(desk.plan())
        desk.release(ledger, data=desk.counts(first, 1, 2, 3, 4))
        pages.append("\n".join(page(desk, name)).replace(ledger.id, "ID").replace(ledger.head(), "HEAD"))
    assert pages[0] == pages[1]


def test_a_changed_line_of_the_chain_is_a_problem_in_one_line(desk, tmp_path):
    ledger = desk.open(secret=None)
    desk.finished(ledger, tmp_path / "run")
    ledger.close()
    lines = [line(entry) for entry in read_entries(desk.root / "digits")]
    rewritten(desk, [each.replace(b'"scale":20.0', b'"scale":40.0') for each in lines])
    for read in (ledger_page.page, ledger_page.in_a_line):
        (problem,), text = read(desk.root / "digits")
        assert text == "" and "does not match its hash" in problem and "\n" not in problem
        assert problem.startswith(f"{desk.root / 'digits'}: ")


def test_a_well_chained_lie_is_a_problem_in_one_line(desk, tmp_path):
    ledger = desk.open(secret=None)
    desk.finished(ledger, tmp_path / "run")
    ledger.close()
    stored = [vars(entry) for entry in read_entries(desk.root / "digits")]
    with closing(sqlite3.connect(desk.root / "digits" / "ledger.sqlite")) as database, database:
        database.execute("DELETE FROM private_parts")
    again = []
    for old in stored:
        body = {**old["body"], "attempt": 3} if old["kind"] == "charge" else old["body"]
        again.append(link(again[-1] if again else None, kind=old["kind"], run=old["run"], body=body))
    rewritten(desk, map(line, again))
    (problem,), text = ledger_page.page(desk.root / "digits")
    assert text == "" and "contradicts itself" in problem and "is not the next attempt" in problem


def test_a_plan_above_its_share_is_a_problem_beside_the_page(desk):
    ledger = desk.open(secret=None)
    ledger.reserve(desk.plan())
    ledger.close()
    again = []
    for old in read_entries(desk.root / "digits"):
        body = dict(old.body)
        if old.kind == "plan":
            body["plan"] = {**body["plan"], "share": {"epsilon": 0.1, "delta": 1e-5}}
        again.append(link(again[-1] if again else None, kind=old.kind, run=old.run, body=body, private=old.private))
    rewritten(desk, map(line, again))
    (problem,), text = ledger_page.page(desk.root / "digits")
    assert "the plan of run run: its 3 events cost epsilon 0.291246" in problem
    assert "Partition train" in text and "The chain holds" not in text


def test_what_is_no_ledger_has_no_page(desk, tmp_path):
    with pytest.raises(LedgerError, match="holds no ledger"):
        ledger_page.page(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_ledger_in_a_line_has_its_sums_alone(desk, tmp_path):
    ledger = desk.open(secret=None)
    desk.finished(ledger, tmp_path / "run")
    ledger.reserve(desk.plan("next", epsilon=0.5, delta=1e-6))
    problems, text = ledger_page.in_a_line(desk.root / "digits")
    assert problems == []
    assert text.endswith(f"{len(ledger.entries())} entries, 2 runs, shares of at most (1.5, 1.1e-05) a partition")
