from __future__ import annotations

import json
import math
import runpy
import sys
from pathlib import Path

import pytest

from privolve.privacy import statement
from privolve.privacy.accounting import epsilon
from privolve.privacy.ledger import LedgerError
from privolve.privacy.ledger_chain import line, link
from privolve.privacy.mechanism import DiscreteGaussian, PureEpsilon, Relation, SampledGaussian
from privolve.privacy.words import shown

SCRIPT = Path(__file__).parents[3] / "examples" / "verify_ledger.py"

# The claim at the end of design/guarantee.md, in pieces between what differs from run to run.
CLAIM = [
    "Publishing, together, all releases listed here (ledger ",
    ", entries 1..8, head ",
    "; train partition; later releases add) satisfies (0.29125, 1e-05)-DP: replacing any one image of the 100 slots by a "
    "ghost without effect changes the probability of any event of the outputs by at most a factor e^0.29125, plus 1e-05. N, "
    "class list, image size and split rule are public by declaration. Replace-one: (0.42",
    ", 1e-05). A person with g records has the g-fold group guarantee; duplicates are not detected. Holds for ideal "
    "randomness; noise: exact discrete, CSPRNG assumed. Assumes: unmodified code at commit c0ffee; ledger not rolled back or "
    "copied; private folder, failed attempts, timing and sizes unseen; every model and public set made without these records "
    "or by an entry of this ledger; prompts, settings and the choice of what to publish made without looking at private "
    "records or unprotected figures (shown 0 times before this plan). Not covered: what trusted roles received (none), the test "
    "partition, provider logs.",
]


def certified(desk, tmp_path, run="run", **plan):
    """A finished run under the secret source, and its certificate."""
    ledger = desk.open(secret=None)
    made = desk.finished(ledger, tmp_path / run, run=run, **plan)
    return ledger, made, _write(ledger, made)


def _write(ledger, made, **change):
    given = {**vars(made), **change}
    return statement.write(
        ledger,
        given["run"],
        release_dir=given["release_dir"],
        artefacts=given["artefacts"],
        manifest=given["manifest"],
    )


def test_the_claim_reads_as_the_guarantee_words_it(desk, tmp_path):
    _, _, certificate = certified(desk, tmp_path)
    rest = certificate.claim
    for piece in CLAIM:
        assert piece in rest
        rest = rest[rest.index(piece) + len(piece) :]
    assert rest == ""


def test_one_plan_is_stated_by_its_events_at_four_deltas(desk, tmp_path):
    _, made, certificate = certified(desk, tmp_path)
    document = json.loads((made.release_dir / "privacy.json").read_text())
    costs = [DiscreteGaussian(scale=desk.scale)] * 3
    assert document == certificate.document
    assert document["epsilon"] == certificate.epsilon == epsilon(costs, 1e-5) < 1.0
    assert document["delta"] == 1e-5
    assert [row["delta"] for row in document["this_run"]["at"]] == [1e-4, 1e-5, 1e-6]
    for row in document["this_run"]["at"]:
        assert row["epsilon"] == epsilon(costs, row["delta"])
        assert row["replace_one"] == epsilon(costs, row["delta"], Relation.REPLACE_ONE)
    assert len(document["releases"]) == 3
    assert document["releases"][0]["cost"] == {"kind": "discrete-gaussian", "scale": 20.0, "cells": 1, "copies": 1}
    assert document["releases"][0]["output"]["arrays"]["histogram"]["shape"] == [5]
    assert {"numpy", "opendp", "dp-accounting", "python"} <= set(document["libraries"])
    assert sorted(document["artefacts"]) == [f"iterations/{number:03}/histogram.npy" for number in range(3)]


def test_a_published_histogram_can_be_found_in_the_chain(desk, tmp_path):
    _, _, certificate = certified(desk, tmp_path)
    files = list(certificate.document["artefacts"].values())
    assert [release["output"]["arrays"]["histogram"]["sha256"] for release in certificate.document["releases"]] == files


def test_several_runs_are_stated_by_the_sums_of_their_shares(desk, tmp_path):
    ledger, _, _ = certified(desk, tmp_path)
    second = desk.finished(ledger, tmp_path / "second", run="second", epsilon=0.5, delta=1e-6)
    third = desk.finished(ledger, tmp_path / "third", run="third", partition="test", epsilon=4.0)
    certificate = _write(ledger, second)
    document = certificate.document
    assert (certificate.epsilon, certificate.delta) == (1.5, 1.1e-5)
    assert document["this_run"]["epsilon"] == epsilon([DiscreteGaussian(scale=20.0)] * 3, 1e-6)
    assert [run["run"] for run in document["runs"]] == ["run", "second", "third"]
    assert document["sums_of_shares"]["epsilon"] == 1.5 and document["sums_of_shares"]["runs"] == 2
    assert [figure["partition"] for figure in document["partitions"]] == ["test", "train"]
    assert document["maximum"]["epsilon"] == 1.5
    assert document["replace_one"]["epsilon"] > document["this_run"]["replace_one"]
    assert "satisfies (1.5, 1.1e-05)-DP" in certificate.claim
    last = _write(ledger, third)
    by_partition = {figure["partition"]: figure["epsilon"] for figure in last.document["partitions"]}
    assert by_partition == {"test": epsilon([DiscreteGaussian(scale=20.0)] * 3, 1e-5), "train": 1.5}
    assert last.epsilon == 1.5, "the claim is on any slot, whichever partition it lies in"


def test_a_runs_claims_cover_its_plan_of_a_further_partition(desk, tmp_path):
    """A slot may lie in either, so at every delta the dearer one counts."""
    ledger = desk.open(secret=None, purpose="benchmark")
    made = desk.finished(ledger, tmp_path / "run", delta=1e-6)
    ledger.reserve(desk.plan("run-test", partition="test", releases=1, delta=1e-6, cost=PureEpsilon(epsilon=0.9)))
    desk.finished(ledger, tmp_path / "other", run="other", partition="test", releases=1, delta=1e-6)
    document = _write(ledger, made).document
    gaussian = [DiscreteGaussian(scale=desk.scale)] * 3
    assert epsilon(gaussian, 1e-6, Relation.REPLACE_ONE) < 1.8
    assert [(row["epsilon"], row["replace_one"]) for row in document["this_run"]["at"]] == [(0.9, 1.8)] * 3
    assert document["replace_one"]["epsilon"] == 1.8, "the claim of a benchmark is of the run alone"


def test_a_run_that_is_only_named_like_a_plan_of_another_adds_to_it(desk):
    ledger = desk.open()
    for name, partition in (("run", "train"), ("run-train", "train"), ("run-test", "test"), ("alone-test", "test")):
        ledger.reserve(desk.plan(name, partition=partition, delta=1e-6))
    assert ledger.book.plans_of("run") == ["run", "run-test"]
    assert [ledger.book.run_of(name) for name in ledger.book.plans] == ["run", "run-train", "run", "alone-test"]
    assert (ledger.book.spent_wherever("train").epsilon, ledger.book.spent_wherever("test").epsilon) == (2.0, 2.0)


def test_a_slot_that_changes_its_partition_between_runs_is_covered(desk, tmp_path):
    ledger = desk.open(secret=None)
    desk.finished(ledger, tmp_path / "first", run="first", delta=1e-6)
    made = desk.finished(ledger, tmp_path / "run", delta=1e-6)
    ledger.reserve(desk.plan("run-test", partition="test", releases=1, delta=1e-6, cost=PureEpsilon(epsilon=0.9)))
    document = _write(ledger, made).document
    voted = epsilon([DiscreteGaussian(scale=desk.scale)] * 3, 1e-6, Relation.REPLACE_ONE)
    assert document["replace_one"]["epsilon"] == pytest.approx(voted + 1.8, rel=1e-9)
    assert (document["epsilon"], document["delta"]) == (2.0, 2e-6)


def test_a_test_double_makes_every_claim_infinite(desk, tmp_path):
    ledger = desk.open()
    certificate = _write(ledger, desk.finished(ledger, tmp_path / "run"))
    text = (tmp_path / "run" / "release" / "privacy.json").read_text()
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert certificate.epsilon == math.inf and document["epsilon"] == "Infinity"
    assert certificate.claim.startswith("NO GUARANTEE: epsilon is infinite, because noise was drawn from Noise")
    assert document["noise"]["sources"] == ["Noise"]
    assert statement.verify(tmp_path / "run") == []

    # A later run with real noise is not freed by it: together they stay infinite.
    ledger.close()
    ledger = desk.open(secret=None)
    assert _write(ledger, desk.finished(ledger, tmp_path / "next", run="next")).epsilon == math.inf


def test_a_benchmark_says_what_one_release_would_have_and_what_all_have(desk, tmp_path):
    ledger = desk.open(secret=None, purpose="benchmark")
    for run in ("one", "two", "three"):
        made = desk.finished(ledger, tmp_path / run, run=run)
    certificate = _write(ledger, made)
    assert certificate.epsilon == epsilon([DiscreteGaussian(scale=20.0)] * 3, 1e-5)
    assert "is the epsilon a single release would have; these 3 releases together: (3, 3e-05)" in certificate.claim
    assert certificate.claim.startswith("Benchmark: public data played as private.")


def test_one_of_a_kind_is_not_said_in_the_plural(desk, tmp_path):
    ledger = desk.open(secret=None, purpose="benchmark")
    ledger.note("earlier", "disclosed", {"partition": "train", "figures": 1})
    certificate = _write(ledger, desk.finished(ledger, tmp_path / "run", releases=1))
    alone = f"({shown(certificate.epsilon)}, 1e-05)"
    assert f"is the epsilon a single release would have; this run alone: {alone}." in certificate.claim
    text = " ".join(
        [*certificate.text.split(), *statement.verify_ledger(tmp_path / "run", desk.root / "digits")[1].split()]
    )
    assert "(shown 1 time before this plan)" in text
    assert "everything its 1 run may release together" in text
    for number, noun in (("1", "releases"), ("1", "runs"), ("1", "times")):
        assert f" {number} {noun}" not in text


def test_a_line_of_a_claim_breaks_no_id_in_two(desk, tmp_path):
    run = "2026-11-22-image-pe-a-set-with-a-name-as-long-as-they-are-3fa9"
    ledger = desk.open(secret=None, purpose="benchmark")
    certificate = _write(ledger, desk.finished(ledger, tmp_path / "run", run=run))
    for text in (certificate.text, statement.summary(tmp_path / "run")):
        claim = text[text.index("Benchmark") : text.index("\n\nThis run alone")]
        assert any(f"run {run}" in line or line.startswith(run) for line in claim.splitlines())
        assert claim.replace("\n", " ") == certificate.claim
        assert max(map(len, claim.splitlines())) <= 100


def test_what_a_run_declares_is_on_its_certificate(desk, tmp_path):
    ledger = desk.open(secret=None, records=desk.records(), declare_disjoint="drawn from other people")
    ledger.note("run", "egress", {"role": "captioner", "model": "some-model"})
    made = desk.finished(ledger, tmp_path / "run")
    made.manifest |= {
        "public": ["class list", "label shares (released by run/labels)"],
        "assumptions": ["painter made without these records"],
        "egress": [{"role": "captioner", "model": "some-model"}, {"role": "eye", "model": "other"}],
        "models": [{"role": "painter", "model": "glyphs"}],
        "versions": {"privolve": "0.1.0"},
    }
    certificate = _write(ledger, made)
    assert "N, class list and label shares (released by run/labels) are public by declaration" in certificate.claim
    assert "drawn from other people; painter made without these records." in certificate.claim
    assert "what trusted roles received (captioner, eye)" in certificate.claim
    for words in ("author-written", "some-model", "model glyphs, role painter", "privolve 0.1.0"):
        assert words in certificate.text
    with pytest.raises(LedgerError, match="declares nothing called"):
        _write(ledger, made, manifest={"epsilon": 0.1})


def test_figures_shown_before_the_plan_are_on_the_certificate(desk, tmp_path):
    ledger = desk.open(secret=None)
    for partition in ("train", "train", "train", "test"):
        ledger.note("earlier", "disclosed", {"partition": partition, "figures": 1})
    made = desk.finished(ledger, tmp_path / "run")
    ledger.note("run", "disclosed", {"partition": "train", "figures": 1})
    certificate = _write(ledger, made)
    assert "unprotected figures (shown 3 times before this plan)" in certificate.claim
    assert "made after unprotected figures of the voting set were shown 3 times" in certificate.text
    assert certificate.document["unprotected_figures"] == {"before_this_plan": 3, "shown_by_now": 4}


def test_a_second_charge_is_on_the_certificate(desk, tmp_path):
    def fail(_):
        raise ZeroDivisionError

    ledger = desk.open(secret=None)
    ledger.reserve(desk.plan())
    with pytest.raises(Exception, match="ZeroDivisionError"):
        desk.release(ledger, during=fail)
    certificate = _write(ledger, desk.finished(ledger, tmp_path / "run"))
    assert [release["paid"] for release in certificate.document["releases"]] == [2, 1, 1]
    assert certificate.epsilon == epsilon([DiscreteGaussian(scale=20.0)] * 4, 1e-5)
    assert "paid 2 times" in certificate.text


def test_the_kind_of_noise_is_named(desk, tmp_path):
    ledger = desk.open()
    for run, cost, kind in (
        ("votes", DiscreteGaussian(scale=20.0), "exact discrete"),
        ("best", PureEpsilon(epsilon=0.1), "exact discrete"),
        ("steps", SampledGaussian(probability=0.1, noise_multiplier=9.0), "exact discrete and lattice"),
    ):
        ledger.reserve(desk.plan(run, cost=cost, releases=1))
        assert statement.draft(ledger, run, manifest={}).document["noise"]["kind"] == kind


def test_a_draft_says_what_will_be_certified(desk, tmp_path):
    ledger = desk.open(secret=None)
    made = desk.finished(ledger, tmp_path / "run")
    draft = statement.draft(ledger, "run", manifest=made.manifest)
    assert _write(ledger, made).claim == draft.claim
    with pytest.raises(LedgerError, match="no plan"):
        statement.draft(ledger, "another", manifest={})


def test_the_same_certificate_is_written_again_byte_by_byte(desk, tmp_path):
    ledger, made, _ = certified(desk, tmp_path)
    files = {path: path.read_bytes() for path in made.release_dir.iterdir()}
    desk.finished(ledger, tmp_path / "second", run="second", epsilon=0.5)
    head = ledger.head()
    (made.release_dir / "privacy.json").unlink()
    _write(ledger, made)
    assert {path: path.read_bytes() for path in made.release_dir.iterdir()} == files
    assert ledger.head() == head


def test_other_files_or_declarations_need_a_new_certificate(desk, tmp_path):
    ledger, made, first = certified(desk, tmp_path)
    more = tmp_path / "run" / "release" / "report.html"
    more.write_text("a report")
    second = _write(ledger, made, artefacts={**made.artefacts, "release/report.html": more})
    assert second.document["artefacts"]["release/report.html"] and second.epsilon == first.epsilon
    assert desk.kinds(ledger).count("certified") == 2
    assert statement.verify(tmp_path / "run") == []


@pytest.mark.parametrize("name", ["/etc/passwd", "../other", "iterations/../../x", "./x"])
def test_artefacts_lie_in_the_run_folder(desk, tmp_path, name):
    ledger = desk.open(secret=None)
    made = desk.finished(ledger, tmp_path / "run")
    with pytest.raises(LedgerError, match="no path from the run folder"):
        _write(ledger, made, artefacts={name: tmp_path / "run" / "iterations" / "000" / "histogram.npy"})


def test_figures_are_never_rounded_down():
    assert shown(0.999_951) == "0.99996"
    assert shown(1.234_56) == "1.2346"
    assert shown(1e-5) == "1e-05" and shown(1.0) == "1"
    assert shown("Infinity") == "infinity"


def test_a_third_party_recomputes_chain_and_epsilon_without_our_code(desk, tmp_path, monkeypatch, capsys):
    ledger = desk.open(secret=None)
    made = desk.finished(ledger, tmp_path / "run")
    ledger.reserve(
        desk.plan("mixed", epsilon=2.0, cost=SampledGaussian(probability=0.1, noise_multiplier=2.0, steps=20))
    )
    ledger.reserve(desk.plan("best", epsilon=2.0, cost=PureEpsilon(epsilon=0.5)))
    certificate = _write(ledger, made)
    chain = made.release_dir / "ledger.jsonl"
    assert len(SCRIPT.read_text().splitlines()) <= 60
    assert "import privolve" not in SCRIPT.read_text() and "from privolve" not in SCRIPT.read_text()

    def recompute(chain):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(chain)])
        runpy.run_path(str(SCRIPT))
        return {
            text.split()[0]: float(text.split("epsilon ")[1].split()[0])
            for text in capsys.readouterr().out.splitlines()
        }

    found = recompute(chain)
    assert found["run"] == pytest.approx(certificate.document["this_run"]["epsilon"], rel=1e-3)
    assert found["mixed"] == pytest.approx(ledger.book.epsilon("mixed", 1e-5), rel=1e-3)
    assert found["best"] == pytest.approx(1.5)
    chain.write_bytes(chain.read_bytes().replace(b'"scale":20.0', b'"scale":40.0', 1))
    with pytest.raises(SystemExit, match="does not hold"):
        recompute(chain)


@pytest.mark.parametrize(
    ("kind", "lie"),
    [
        ("charge", {"name": "run/histogram/9"}),
        ("charge", {"cost": {"kind": "discrete-gaussian", "scale": 99.0, "cells": 1, "copies": 1}}),
        ("release", {"attempt": 2}),
    ],
)
def test_a_third_party_finds_a_well_chained_lie(desk, tmp_path, monkeypatch, kind, lie):
    ledger = desk.open()
    made = desk.finished(ledger, tmp_path / "run")
    _write(ledger, made)
    entries = []
    for entry in ledger.entries():
        body = {**entry.body, **(lie if entry.kind == kind else {})}
        last = entries[-1] if entries else None
        entries.append(link(last, kind=entry.kind, run=entry.run, body=body, private=entry.private))
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b"".join(map(line, entries)))
    monkeypatch.setattr(sys, "argv", ["verify_ledger.py", str(path)])
    with pytest.raises(SystemExit, match=f"{kind}. does not hold"):
        runpy.run_path(str(SCRIPT))
