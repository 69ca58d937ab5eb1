from __future__ import annotations

import hashlib
import json
import random
import shutil

import numpy as np
import pytest

from privolve.privacy import ledger_chain as chain
from privolve.privacy import statement
from privolve.privacy.ledger_book import Book, plan_digest, plan_from_json


@pytest.fixture
def made(desk, tmp_path):
    ledger = desk.open(secret=None, records=desk.records())
    finished = desk.finished(ledger, tmp_path / "run")
    statement.write(
        ledger, "run", release_dir=finished.release_dir, artefacts=finished.artefacts, manifest=finished.manifest
    )
    ledger.close()
    return tmp_path / "run"


def flip(path, place, bit=0):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(bytes(content))


def test_an_untouched_run_holds(made):
    assert statement.verify(made) == []
    assert "This run alone" in statement.summary(made)


@pytest.mark.parametrize(
    "name", ["release/ledger.jsonl", "release/privacy.json", "release/privacy.txt", "iterations/001/histogram.npy"]
)
def test_one_changed_byte_names_its_file_and_no_other(made, name):
    path = made / name
    size = path.stat().st_size
    places = {0, size - 1, size // 2, *(random.randrange(size) for _ in range(40))}
    for place in places:
        bit = random.randrange(8)
        flip(path, place, bit)
        problems = statement.verify(made)
        assert problems and all(problem.startswith(name + ": ") for problem in problems), (place, bit, problems)
        flip(path, place, bit)
    assert statement.verify(made) == []


@pytest.mark.parametrize("name", ["release/ledger.jsonl", "release/privacy.json", "iterations/001/histogram.npy"])
def test_a_missing_or_cut_file_is_named(made, name):
    path = made / name
    content = path.read_bytes()
    for cut in (None, b"", content[:-1], content + b"\n", content[: len(content) // 2]):
        path.unlink() if cut is None else path.write_bytes(cut)
        problems = statement.verify(made)
        assert problems and all(problem.startswith(name + ": ") for problem in problems)
        path.write_bytes(content)


def test_a_chain_without_its_last_line_is_found(made):
    path = made / "release" / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    assert statement.verify(made)[0].startswith("release/ledger.jsonl: ")


def forged(made, change, *, entry=None):
    """The run with a changed certificate (and chain), every hash made right again."""
    release = made / "release"
    entries = chain.read((release / "ledger.jsonl").read_bytes())[:-1]
    if entry is not None:
        kind, body = entry
        again: list[chain.Entry] = []
        for old in entries:
            fields = {**old.body, **body} if old.kind == kind else old.body
            last = again[-1] if again else None
            again.append(chain.link(last, kind=old.kind, run=old.run, body=fields, private=old.private))
        entries = again
    document = json.loads((release / "privacy.json").read_bytes())
    document["ledger"]["head"] = entries[-1].hash
    change(document)
    (release / "privacy.json").write_bytes(statement._json(document))
    hashes = {
        "certificate": hashlib.sha256((release / "privacy.json").read_bytes()).hexdigest(),
        "text": hashlib.sha256((release / "privacy.txt").read_bytes()).hexdigest(),
    }
    last = chain.link(entries[-1], kind="certified", run="run", body=hashes)
    (release / "ledger.jsonl").write_bytes(b"".join(map(chain.line, [*entries, last])))
    return statement.verify(made)


def test_a_forged_figure_is_found_though_every_hash_is_right(made):
    def smaller(document):
        document["epsilon"] /= 2

    assert forged(made, lambda document: None) == []
    (problem,) = forged(made, smaller)
    assert problem.startswith("release/privacy.json: epsilon is")


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["releases"].pop(),
        lambda document: document["releases"][0]["cost"].update(scale=40.0),
        lambda document: document["this_run"]["at"][0].update(replace_one=0.1),
        lambda document: document.update(purpose="benchmark"),
        lambda document: document.update(slots=10_000),
        lambda document: document["unprotected_figures"].update(before_this_plan=-1),
        lambda document: document["ledger"].update(entries=3),
        lambda document: document.pop("noise"),
        lambda document: document.update(run="another"),
    ],
)
def test_a_certificate_that_does_not_follow_from_the_chain_is_found(made, change):
    problems = forged(made, change)
    assert problems and all(problem.startswith("release/privacy.json: ") for problem in problems)


def test_a_rechained_cost_is_found(made):
    entry = ("charge", {"cost": {"kind": "discrete-gaussian", "scale": 200.0, "cells": 1, "copies": 1}})
    problems = forged(made, lambda document: None, entry=entry)
    assert problems and all(problem.startswith("release/ledger.jsonl: ") for problem in problems)


def test_a_plan_above_its_share_is_found(made):
    entries = chain.read((made / "release" / "ledger.jsonl").read_bytes())
    plan = next(entry.body["plan"] for entry in entries if entry.kind == "plan")
    plan = {**plan, "share": {"epsilon": 0.1, "delta": 1e-5}}
    release = made / "release"
    again: list[chain.Entry] = []
    for old in entries[:-1]:
        body = dict(old.body)
        if old.kind == "plan":
            body["plan"] = plan
        if old.kind == "charge":
            body["plan"] = plan_digest(plan_from_json(plan))
        again.append(
            chain.link(again[-1] if again else None, kind=old.kind, run=old.run, body=body, private=old.private)
        )
    document = json.loads((release / "privacy.json").read_bytes())
    made_again = statement._document(again, "run", document["artefacts"], document["manifest"])
    (release / "privacy.json").write_bytes(statement._json(made_again))
    (release / "privacy.txt").write_text(statement._text(made_again))
    last = chain.link(again[-1], kind="certified", run="run", body=statement._hashes(made_again))
    (release / "ledger.jsonl").write_bytes(b"".join(map(chain.line, [*again, last])))
    (problem,) = statement.verify(made)
    assert problem.startswith("release/ledger.jsonl: the plan of run run: its 3 events cost epsilon 0.291246")


def test_a_listed_path_cannot_lead_out_of_the_run(made):
    problems = forged(made, lambda document: document["artefacts"].update({"../../secret": "0" * 64}))
    assert any("no path from the run folder" in problem for problem in problems)


def test_a_run_without_a_certificate_says_so(tmp_path):
    (problem,) = statement.verify(tmp_path)
    assert problem == "release/ledger.jsonl: cannot be read (No such file or directory)"


def test_a_certificate_holds_as_of_its_head_while_the_ledger_goes_on(desk, made, tmp_path):
    ledger = desk.open(secret=None)
    desk.finished(ledger, tmp_path / "next", run="next", epsilon=0.5, delta=1e-6)
    ledger.close()
    assert statement.verify(made) == []
    problems, text = statement.verify_ledger(made, desk.root / "digits")
    assert problems == []
    assert "everything its 2 runs may release together is (1.5, 1.1e-05)-DP" in text


def test_the_live_ledger_can_be_checked_while_it_is_in_use(desk, made):
    desk.open(secret=None)
    assert statement.verify_ledger(made, desk.root / "digits")[0] == []


def test_a_rolled_back_or_foreign_ledger_is_found(desk, made, tmp_path):
    shutil.copytree(desk.root / "digits", tmp_path / "backup")
    ledger = desk.open(secret=None)
    finished = desk.finished(ledger, tmp_path / "next", run="next", epsilon=0.5)
    statement.write(
        ledger, "next", release_dir=finished.release_dir, artefacts=finished.artefacts, manifest=finished.manifest
    )
    ledger.close()
    problems, _ = statement.verify_ledger(tmp_path / "next", tmp_path / "backup")
    assert len(problems) == 1 and "rolled back" in problems[0]
    desk.open("others").close()
    problems, _ = statement.verify_ledger(made, desk.root / "others")
    assert len(problems) == 1 and "another ledger" in problems[0]
    problems, _ = statement.verify_ledger(made, tmp_path / "nowhere")
    assert len(problems) == 1 and "holds no ledger" in problems[0]


def test_the_public_copy_verifies_without_private_parts(desk, made, tmp_path):
    shutil.rmtree(desk.root)
    public = tmp_path / "public"
    shutil.copytree(made, public)
    assert statement.verify(public) == []
    entries = chain.read((public / "release" / "ledger.jsonl").read_bytes())
    assert all(len(entry.private) in (0, 64) for entry in entries)
    assert Book(entries[:-1]).terms.slots == desk.slots


def test_the_published_histogram_is_what_was_saved(desk, made):
    ledger = desk.open(secret=None)
    saved = desk.release(ledger, 1)
    assert np.array_equal(np.load(made / "iterations" / "001" / "histogram.npy"), saved)
