"""Which set a job releases: by what right, at what cost, and that a slot that chooses does nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from privolve.jobs import store
from privolve.jobs.image_pe import ImagePEConfig
from privolve.pe_engine.population import Population
from privolve.privacy.ledger_book import Book
from privolve.privacy.ledger_store import read_entries
from privolve.privacy.mechanism import PureEpsilon
from privolve.privacy.private import open_private

COMMAND = Path(sys.executable).with_name("privolve")
EVOLUTION = "{ iterations = 3, count = 8, variations = 2 }"
DP = '{ rule = "dp-validation", share = 0.25 }'
VOTERS, VALIDATING = 72, 24


def book(work) -> Book:
    return Book(read_entries(work.folder / "ledgers" / "data"))


def selection(run: Path) -> dict:
    return json.loads((run / "release" / "selection.json").read_text())


def certificate(run: Path) -> dict:
    return json.loads((run / "release" / "privacy.json").read_text())


def events(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]


def winners(run: Path, number: int) -> list[np.ndarray]:
    """The set that was selected in an iteration, from what the run saved."""
    scored = store.load_population(run / "iterations" / f"{number - 1:03d}")
    rows = np.load(run / "iterations" / f"{number:03d}" / "selected.npy")
    return [scored.candidates[row].image.pixels for row in rows]  # type: ignore[union-attr]


def released(run: Path) -> np.ndarray:
    return np.load(run / "release" / "samples.npz")["x"]


@pytest.fixture(scope="module")
def chosen(tmp_path_factory, workplace, glyphs):
    """A finished run with dp-validation, and whom it asked to vote. Shared: leave it as it is."""
    place = workplace(tmp_path_factory.mktemp("chosen"))
    shutil.copytree(glyphs, place.folder / "data")
    place.job(evolution=EVOLUTION, selection=DP)
    asked = []
    before = ImagePEConfig.voters

    def voters(self, gateway, records):
        found = before(self, gateway, records)
        asked.append((records, open_private(found)))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImagePEConfig, "voters", voters)
        outcome = place("run", "job.toml")
    assert (outcome.code, outcome.err) == (0, "")
    return place, place.runs[0], asked


def test_a_run_that_chose_by_dp_validation_verifies(chosen) -> None:
    place, run, _ = chosen
    assert place("verify", run).code == 0
    assert place("verify", run, "--ledger").code == 0


def test_the_choice_is_one_pure_epsilon_in_a_plan_of_its_own_on_the_validation_partition(chosen) -> None:
    place, run, _ = chosen
    name = json.loads((run / "run.json").read_text())["id"]
    plans = book(place).plans
    assert set(plans) == {name, f"{name}-validation"}
    plan = plans[f"{name}-validation"].plan
    assert plan.partition == "validation"
    (release,) = plan.releases
    assert release.name == f"{name}-validation/selection"
    assert isinstance(release.cost, PureEpsilon)
    assert release.cost.epsilon == pytest.approx(17.6, rel=1e-2), "half of what replacing a voter costs"
    assert {each.partition for each in (plans[name].plan,)} == {"train"}
    assert all("histogram" in each.name for each in plans[name].plan.releases)


def test_the_certificate_gives_epsilon_by_partition_and_the_largest(chosen) -> None:
    _, run, _ = chosen
    document = certificate(run)
    found = {each["partition"]: each["epsilon"] for each in document["partitions"]}
    assert set(found) == {"train", "validation"}
    assert document["maximum"]["epsilon"] == document["epsilon"] == max(found.values()) <= 20.0
    assert document["slots"] == VOTERS + VALIDATING
    # Replacing is twice removing for the choice, so the choice is the cheaper of the two for removing.
    assert found["validation"] < found["train"]
    replaced = {each["partition"]: each["replace_one"] for each in document["partitions"]}
    assert replaced["validation"] == 2 * found["validation"] == pytest.approx(document["replace_one"]["epsilon"])
    assert "train partition, and validation partition at (" in document["claim"]
    text = (run / "release" / "privacy.txt").read_text()
    assert "  validation: (17.6" in text


def test_a_slot_that_validates_votes_nowhere(chosen) -> None:
    _, _, ((records, voters),) = chosen
    assert records.partition == "train" and records.count == VOTERS
    assert len(voters.embeddings) == len(voters.labels) == VOTERS
    split = ImagePEConfig.model_validate(
        {
            **{
                "kind": "image-pe",
                "privacy": {"epsilon": 1.0},
                "adapters": {},
                "evolution": {"iterations": 1, "count": 2},
            },
            "data": {**json.loads(json.dumps(_table(chosen[0])))},
            "selection": {"rule": "dp-validation", "share": 0.25},
        }
    ).split()
    assert split.validation is not None and split.validation.count == VALIDATING
    validating = set(open_private(split.validation.records).ids)
    assert not validating & set(open_private(records.records).ids)


def _table(place) -> dict:
    return {
        "kind": "folder",
        "path": str(place.folder / "data"),
        "classes": ["0", "1"],
        "size": [8, 8],
        "channels": 1,
        "holdout": 0.2,
    }


def test_what_is_released_is_the_set_of_the_winner_and_nothing_but_its_index_is_told(chosen) -> None:
    _, run, _ = chosen
    said = selection(run)
    assert set(said) == {"rule", "candidates", "released"}
    assert said["rule"] == "dp-validation" and said["candidates"] == ["iteration 1", "iteration 2", "iteration 3"]
    winner = winners(run, said["released"] + 1)
    assert sorted(each.tobytes() for each in released(run)) == sorted(each.tobytes() for each in winner)
    (entry,) = [each for each in certificate(run)["releases"] if each["partition"] == "validation"]
    assert list(entry["output"]["arrays"]) == ["selected"]
    assert entry["mechanism"]["candidates"] == said["candidates"]


def test_journal_and_page_say_by_which_rule(chosen) -> None:
    _, run, _ = chosen
    name = selection(run)["candidates"][selection(run)["released"]]
    (event,) = [each for each in events(run) if each["event"] == "selected"]
    assert (event["rule"], event["candidate"]) == ("dp-validation", name)
    page = (run / "release" / "report.html").read_text()
    assert f"released is {name}, one of 3, by dp-validation" in page
    assert "noisy maximum" in page
    number = selection(run)["released"] + 1
    assert f"Iteration {number}, released" in page


def test_the_choice_is_exported_with_what_it_chose(chosen) -> None:
    place, run, _ = chosen
    assert place("export", run, place.folder / "exported").code == 0
    assert selection(place.folder / "exported") == selection(run)


def test_the_candidate_that_is_right_wins(work, monkeypatch) -> None:
    """Of three sets only the second has its labels right; at epsilon 20 on 24 slots nothing else can win."""
    calls = []

    def pictured(self, population, gateway, data, rng):
        calls.append(len(calls))
        if len(calls) == 4:  # The last set, its first candidates, then those of iterations 1 and 2.
            return population
        return Population(tuple(type(each)(**{**vars(each), "label": 1 - each.label}) for each in population))

    monkeypatch.setattr(ImagePEConfig, "pictured", pictured)
    work.job(evolution=EVOLUTION, selection=DP)
    outcome = work("run", "job.toml")
    assert (outcome.code, outcome.err) == (0, "")
    assert selection(work.runs[0])["released"] == 1


def test_counts_have_noise() -> None:
    """At epsilon 0.01 a candidate that is always right loses often to one that is always wrong; clean counts never do."""
    from privolve.data.training_records import TrainingRecords
    from privolve.evaluation.selection import CalibratedDPValidation, Candidate, DPValidation
    from privolve.privacy.randomness import SystemRng

    truth = np.arange(20) % 2
    records = TrainingRecords(
        pixels=np.repeat(truth, 4).reshape(20, 2, 2, 1).astype(np.uint8),
        labels=truth.astype(np.int64),
        valid=np.ones(20, dtype=np.bool_),
    )
    right = Candidate(name="right", digest="r", classify=lambda images: np.eye(2)[images[:, 0, 0, 0]])
    wrong = Candidate(name="wrong", digest="w", classify=lambda images: np.eye(2)[1 - images[:, 0, 0, 0]])
    mechanism = CalibratedDPValidation(config=DPValidation(candidates=(wrong, right)), epsilon=0.01)
    secret = SystemRng()
    wins = sum(int(mechanism(secret, records)["selected"][0]) for _ in range(400))
    assert 100 < wins < 320


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_run_killed_at_its_choice_goes_on_and_draws_it_once(work) -> None:
    work.job(evolution=EVOLUTION, selection=DP)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for point in ("ledger-after-charge:4", "ledger-after-save"):
        killed = subprocess.run(
            [str(COMMAND), "run", "job.toml"],
            cwd=work.folder,
            env={**environment, "PRIVOLVE_FAILPOINT": point},
            capture_output=True,
            timeout=120,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (work.runs[0] / "release" / "selection.json").exists()
    outcome = work("run", "job.toml")
    assert (outcome.code, outcome.err) == (0, "")
    (run,) = work.runs
    kinds = [entry.kind for entry in read_entries(work.folder / "ledgers" / "data")]
    assert kinds.count("plan") == 2
    (entry,) = [each for each in certificate(run)["releases"] if each["partition"] == "validation"]
    assert (entry["attempts"], entry["paid"]) == (2, 1)
    assert work("verify", run).code == 0


def test_runs_with_and_without_a_choice_share_one_ledger(work) -> None:
    work.job(evolution=EVOLUTION)
    assert work("run", "job.toml", "--out", "experiments/one").code == 0
    work.job(evolution=EVOLUTION, selection=DP)
    outcome = work("run", "job.toml", "--out", "experiments/two")
    assert (outcome.code, outcome.err) == (0, "")
    document = certificate(work.folder / "experiments" / "two")
    assert {each["partition"]: (each["epsilon"], each["runs"]) for each in document["partitions"]} == {
        "train": (40.0, 2),
        "validation": (pytest.approx(17.6, rel=1e-2), 1),
    }
    # A slot that voted in the first run and validated in the second one has lost no more.
    voted = document["this_run"]["replace_one"]
    assert (document["epsilon"], document["replace_one"]["epsilon"]) == (40.0, pytest.approx(2 * voted, rel=1e-6))
    assert 2 * document["partitions"][1]["epsilon"] <= voted * (1 + 1e-9)


# --- the other rules --------------------------------------------------------------------------------------------------


def test_selection_by_synthetic_images_costs_nothing_and_sets_no_slot_aside(work) -> None:
    work.job(evolution=EVOLUTION, selection='{ rule = "synthetic", share = 0.5 }')
    outcome = work("run", "job.toml")
    assert (outcome.code, outcome.err) == (0, "")
    (run,) = work.runs
    assert selection(run)["rule"] == "synthetic"
    assert [each["partition"] for each in certificate(run)["partitions"]] == ["train"]
    assert certificate(run)["slots"] == VOTERS + VALIDATING
    winner = winners(run, selection(run)["released"] + 1)
    assert sorted(each.tobytes() for each in released(run)) == sorted(each.tobytes() for each in winner)


def test_what_an_oracle_chose_is_not_released_and_its_figures_are_marked_and_private(work) -> None:
    work.job(evolution=EVOLUTION, selection='{ rule = "oracle" }', purpose='"benchmark"')
    assert work("run", "job.toml", "--set", 'data.test="public"').code == 0
    (run,) = work.runs
    assert selection(run) == {
        "rule": "last",
        "candidates": ["iteration 1", "iteration 2", "iteration 3"],
        "released": 2,
    }
    public, private = (json.loads((run / part / "scores.json").read_text()) for part in ("release", "private"))
    marked = [each for each in private if each["name"].endswith("(oracle selection)")]
    assert {each["subject"] for each in marked} == {"final population"}
    assert len(marked) >= 2 and not any(each["protected"] for each in marked)
    assert public and not any("oracle" in each["name"] for each in public)
    assert "oracle" not in (run / "release" / "report.html").read_text()
    # All are embedded, whichever was chosen: how many requests there were tells nothing.
    assert work("run", "job.toml", "--set", 'data.test="public"', "--set", 'selection.rule="last"').code == 0
    asked, of_the_last = (
        json.loads((each / "run.json").read_text())["requests"]["evaluation"]["eye"]["asked"]
        for each in sorted(work.runs, key=lambda each: each != run)
    )
    sets = sum(len(winners(run, number)) for number in (1, 2, 3))
    blank = 1
    assert asked - of_the_last == sets + marked[0]["reference_n"] + blank


def test_an_oracle_that_cannot_choose_asks_as_much_and_is_no_failure(work, monkeypatch) -> None:
    """Whether it can depends on private held-out records."""
    from privolve.evaluation.metric import MetricError
    from privolve.jobs import assess

    def cannot(*_, **__):
        raise MetricError("no image could be used")

    work.job(evolution=EVOLUTION, selection='{ rule = "oracle" }', purpose='"benchmark"')
    asked = []
    for out in ("chose", "could-not"):
        outcome = work("run", "job.toml", "--out", out)
        assert (outcome.code, outcome.err) == (0, "") and "no image could be used" not in outcome.out
        manifest = json.loads((work.folder / out / "run.json").read_text())
        asked.append(manifest["requests"]["evaluation"]["eye"]["asked"])
        monkeypatch.setattr(assess, "by_test", cannot)
    assert asked[0] == asked[1]
    private = json.loads((work.folder / "could-not" / "private" / "scores.json").read_text())
    assert private and not any("oracle" in each["name"] for each in private)


def test_captions_are_painted_and_chosen_between(work) -> None:
    work.job("dpiti", selection=DP)
    outcome = work("run", "job.toml")
    assert (outcome.code, outcome.err) == (0, "")
    (run,) = work.runs
    assert selection(run)["candidates"] == ["iteration 1", "iteration 2"]
    assert len(released(run)) == 8
    assert work("verify", run).code == 0


def test_the_plan_says_what_the_choice_costs_and_whom(work) -> None:
    work.job(evolution=EVOLUTION, selection='{ rule = "dp-validation", share = 0.25, epsilon = 2.0 }')
    said = work("plan", "job.toml").out
    assert "72 private slots" in said
    assert (
        "24 slots of the partition 'validation', which do nothing else: epsilon 2.0000 for these; 4.0000 for replacing"
        in said
    )


WRONG = {
    "an epsilon above the run's": ('{ rule = "dp-validation", epsilon = 21.0 }', "lower it, or leave it out"),
    "an epsilon of a free rule": (
        '{ rule = "synthetic", epsilon = 1.0 }',
        "selection.epsilon: rule = 'synthetic' costs none",
    ),
    "an unknown rule": ('{ rule = "best" }', "selection.rule: input should be 'last', 'synthetic'"),
    "a share of everything": (
        '{ rule = "dp-validation", share = 1.0 }',
        "selection.share: input should be less than 1",
    ),
    "a share of nothing": ('{ rule = "dp-validation", share = 0.001 }', "selection.share = 0.001 of 96 slots leaves"),
    "a share of no candidate": ('{ rule = "synthetic", share = 0.01 }', "selection.share: 0.01 of the 8 candidates"),
    "a misspelt key": ('{ rul = "last" }', "did you mean 'rule'?"),
}


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("what", WRONG)
def test_a_choice_that_cannot_be_made_is_refused_in_one_line_and_nothing_is_made(work, what: str, command: str) -> None:
    settings, said = WRONG[what]
    work.job(evolution=EVOLUTION, selection=settings)
    outcome = work(command, "job.toml")
    assert outcome.code == 2
    assert said in outcome.line
    assert not (work.folder / "ledgers").exists()


def test_an_oracle_without_a_held_out_part_and_a_choice_of_varied_sets_are_refused(work) -> None:
    data = '{ kind = "folder", path = "data", classes = ["0", "1"], size = [8, 8], channels = 1 }'
    work.job(data=data, selection='{ rule = "oracle" }')
    assert "needs a held-out part" in work("run", "job.toml").line
    work.job(evolution='{ iterations = 2, count = 8, variations = 2, final = "varied" }', selection=DP)
    assert 'take evolution.final = "selected"' in work("run", "job.toml").line
