"""Which of the models that a training showed is released: by what right, at what cost, and that the training knows nothing of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from privolve.evaluation import selection as evaluation
from privolve.jobs import job as jobs
from privolve.jobs import training
from privolve.jobs.training_candidates import Candidate, Candidates
from privolve.privacy import ledger
from privolve.privacy.accounting import epsilon
from privolve.privacy.ledger_book import Book
from privolve.privacy.ledger_store import read_entries
from privolve.privacy.mechanism import PureEpsilon, Relation
from privolve.privacy.private import open_private
from privolve.trainers import serving

pytest.importorskip("torch")
COMMAND = Path(sys.executable).with_name("privolve")
SAMPLES = "{ count = 20, previews = 2, pictures = false }"
DP = '{ rule = "dp-validation", share = 0.25 }'
TRAINER = (
    '{ kind = "dp-feta", noise = 3.0, expected_batch = 24, epochs = 2, multiplicity = 1, sampling = { steps = 2 }, '
    'warm_up = [{ kind = "central-images", rounds = 1, noise_multiplier = 5.0, fit = { steps = 2, batch = 8 } }] }'
)
TRAINED, VALIDATING = 72, 24
STEPS = ["step 2", "step 4", "step 6"]
STEPS_OF_ALL = [*STEPS, "step 8"]
"""Where no slot is set aside."""


def job(work, selection: str | None, **changed: str) -> None:
    """A few steps, each but the last shown."""
    work.job("train", samples=SAMPLES, trainer=TRAINER, selection=selection, **changed)


def entries(work) -> list:
    return read_entries(work.folder / "ledgers" / "data")


def selection(run: Path) -> dict:
    return json.loads((run / "release" / "selection.json").read_text())


def certificate(run: Path) -> dict:
    return json.loads((run / "release" / "privacy.json").read_text())


def scores(run: Path, part: str) -> list[dict]:
    return json.loads((run / part / "scores.json").read_text())


def samples(folder: Path) -> np.ndarray:
    with np.load(folder / "samples.npz") as kept:
        return kept["x"]


def model(folder: Path) -> bytes:
    return (folder / "model.npz").read_bytes() + (folder / "model.json").read_bytes()


def kept(run: Path, name: str) -> Path:
    """Where a candidate lies."""
    step = int(name.removeprefix("step "))
    is_last = name == selection(run)["candidates"][-1]
    return run / "private" / "candidates" / ("last" if is_last else f"{step:07d}")


def split_of(work):
    return jobs.load(work.folder / "job.toml").located(work.folder).split()


@pytest.fixture(scope="module")
def chosen(tmp_path_factory, workplace, glyphs):
    """A finished training with dp-validation, and the records that it saw. Shared: leave it as it is."""
    place = workplace(tmp_path_factory.mktemp("chosen"))
    shutil.copytree(glyphs, place.folder / "data")
    job(place, DP)
    seen = []
    bench = training.JobBench

    def lent(**arguments):
        seen.append(open_private(arguments["records"]))
        return bench(**arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "JobBench", lent)
        outcome = place("run", "job.toml")
    assert (outcome.code, outcome.err) == (0, "")
    return place, place.runs[0], seen


def test_a_training_that_chose_by_dp_validation_verifies(chosen) -> None:
    place, run, _ = chosen
    assert place("verify", run).code == 0
    assert place("verify", run, "--ledger").code == 0


def test_the_choice_is_one_pure_epsilon_in_a_plan_of_its_own_written_before_the_training(chosen) -> None:
    place, run, _ = chosen
    name = json.loads((run / "run.json").read_text())["id"]
    found = entries(place)
    plans = {key: reserved.plan for key, reserved in Book(found).plans.items()}
    assert {key: plan.partition for key, plan in plans.items()} == {name: "train", f"{name}-validation": "validation"}
    (release,) = plans[f"{name}-validation"].releases
    assert release.name == f"{name}-validation/selection" and isinstance(release.cost, PureEpsilon)
    trained = [each.cost for each in plans[name].releases]
    removed, replaced = (
        epsilon(trained, plans[name].share.delta, each) for each in (Relation.ZERO_OUT, Relation.REPLACE_ONE)
    )
    assert release.cost.epsilon == replaced / 2 < removed
    kinds = [entry.kind for entry in found]
    assert kinds.count("plan") == 2 and max(at for at, kind in enumerate(kinds) if kind == "plan") < kinds.index(
        "charge"
    )
    # Nothing is asked of the validation partition before all that is asked about is shown and fixed.
    charges = [at for at, entry in enumerate(found) if entry.kind == "charge"]
    assert found[charges[-1]].body["name"] == release.name
    shown = [at for at, entry in enumerate(found) if entry.kind == "shown"]
    assert [found[at].body["step"] for at in shown[:2]] == [2, 4] and shown[-1] < charges[-1]


def test_a_slot_that_validates_trains_nowhere(chosen) -> None:
    place, run, (records,) = chosen
    split = split_of(place)
    assert split.validation is not None and split.validation.count == VALIDATING
    assert len(records) == split.train.count == TRAINED
    validating = open_private(split.validation.records)
    held = {read.content.tobytes() for read in validating.read_many(0, len(validating)) if read is not None}
    assert len(held) == VALIDATING
    assert not held & {image.tobytes() for image in records.pixels}
    assert certificate(run)["slots"] == TRAINED + VALIDATING


def test_what_is_released_is_the_winner_and_nothing_but_its_index_is_told(chosen) -> None:
    _, run, _ = chosen
    said = selection(run)
    assert set(said) == {"rule", "candidates", "released"}
    assert said["rule"] == "dp-validation" and said["candidates"] == STEPS
    winner = STEPS[said["released"]]
    assert np.array_equal(samples(run / "release"), samples(kept(run, winner)))
    (entry,) = [each for each in certificate(run)["releases"] if each["partition"] == "validation"]
    assert list(entry["output"]["arrays"]) == ["selected"]
    assert f"released is {winner}, one of 3, by dp-validation" in (run / "release" / "report.html").read_text()


def in_favour_of(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The candidate `name` samples what real images are like; the others what those of the other class are like."""
    images = {
        label: np.stack(
            [np.asarray(Image.open(path))[..., None] for path in sorted((folder / str(label)).glob("*.png"))]
        )
        for label in (0, 1)
    }
    before = Candidate.sample

    def sample(self, labels, *, seed, progress=None):
        before(self, labels, seed=seed, progress=progress)
        drawn = labels if self.name == name else 1 - labels
        return np.stack([images[int(label)][number] for number, label in enumerate(drawn)])

    monkeypatch.setattr(Candidate, "sample", sample)


def test_the_model_whose_samples_are_right_wins_and_its_weights_are_released(work, monkeypatch) -> None:
    """At the training's epsilon on 24 slots nothing else can win."""
    right = STEPS[1]
    in_favour_of(right, work.folder / "data", monkeypatch)
    job(work, DP)
    outcome = work("run", "job.toml")
    assert (outcome.code, outcome.err) == (0, "")
    (run,) = work.runs
    assert STEPS[selection(run)["released"]] == right
    assert model(run / "release") == model(kept(run, right))
    assert work("export", run, work.folder / "exported").code == 0
    assert selection(work.folder / "exported") == selection(run)
    assert not list((work.folder / "exported").rglob("candidates"))


# --- the training knows nothing of the choice -------------------------------------------------------------------------


def frozen_noise() -> type:
    """The noise of `test_training_ghosts`: the same in every run, so that runs can be compared; never for claims."""
    spec = spec_from_file_location("privolve_training_ghosts", Path(__file__).with_name("test_training_ghosts.py"))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FrozenNoise


def test_an_oracle_releases_the_last_model_as_it_would_be_without_a_choice(work, monkeypatch) -> None:
    monkeypatch.setattr(ledger, "SystemRng", frozen_noise())
    public = ("--set", 'data.test="public"')
    job(work, None, purpose='"benchmark"')
    assert work("run", "job.toml", *public, "--out", "without").code == 0
    in_favour_of(STEPS[0], work.folder / "data", monkeypatch)
    job(work, '{ rule = "oracle" }', purpose='"benchmark"')
    assert work("run", "job.toml", *public, "--out", "with").code == 0
    without, run = work.folder / "without", work.folder / "with"
    assert not (without / "private" / "candidates").exists()
    assert selection(run) == {"rule": "last", "candidates": STEPS_OF_ALL, "released": 3}
    assert model(run / "release") == model(without / "release") != model(kept(run, STEPS[0]))
    assert np.array_equal(samples(without / "release"), samples(kept(run, STEPS_OF_ALL[-1])))
    # What the test set would have chosen: figures that are marked, and private.
    marked = [each for each in scores(run, "private") if each["name"].endswith("(oracle selection)")]
    assert marked and not any(each["protected"] for each in marked)
    accuracy = {each["name"]: each["value"] for each in scores(run, "private") if each["subject"] == "final population"}
    assert accuracy["classifier accuracy (oracle selection)"] > 0.9 > accuracy["classifier accuracy"]
    assert scores(run, "release") and not any("oracle" in each["name"] for each in scores(run, "release"))
    assert "oracle" not in (run / "release" / "report.html").read_text()
    assert [each["partition"] for each in certificate(run)["partitions"]] == ["train"]


def test_a_choice_by_synthetic_images_costs_nothing_sets_no_slot_aside_and_is_not_made_twice(work, monkeypatch) -> None:
    job(work, '{ rule = "synthetic", share = 0.5 }')
    outcome = work("run", "job.toml")
    assert (outcome.code, outcome.err) == (0, "")
    (run,) = work.runs
    assert selection(run)["rule"] == "synthetic" and selection(run)["candidates"] == STEPS_OF_ALL
    assert [each["partition"] for each in certificate(run)["partitions"]] == ["train"]
    assert certificate(run)["slots"] == TRAINED + VALIDATING
    said = selection(run)
    assert np.array_equal(samples(run / "release"), samples(kept(run, STEPS_OF_ALL[said["released"]])))
    # Stopped before its end and given again, it would not, even if classifiers spoke for another by now.
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(manifest | {"status": "running"}))
    other = 0 if said["released"] else 1
    monkeypatch.setattr(
        evaluation,
        "by_synthetic",
        lambda *_: evaluation.Choice(index=other, name=STEPS_OF_ALL[other], rule="synthetic"),
    )
    assert work("run", "job.toml").code == 0
    assert selection(run) == said


# --- stopped anywhere -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_killed_about_its_choice_goes_on_with_the_same_candidates_and_chooses_once(work) -> None:
    job(work, DP)
    said = None
    for point in (
        "checkpoint-after-header",  # of step 2: nothing was kept of it yet
        "training-during-model",  # of the candidate of step 2, in the first step of the second process
        "ledger-after-charge:2",  # of the choice, after that of a training that began twice from one checkpoint
        "ledger-after-save",  # of the choice
        "training-before-samples",
    ):
        killed = subprocess.run(
            [str(COMMAND), "run", "job.toml"],
            cwd=work.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PRIVOLVE_FAILPOINT": point},
            capture_output=True,
            timeout=300,
        )
        assert killed.returncode == -signal.SIGKILL, (point, killed.stdout, killed.stderr)
        if (work.runs[0] / "release" / "selection.json").exists():
            said = said or selection(work.runs[0])
            assert selection(work.runs[0]) == said
    outcome = work("run", "job.toml")
    assert (outcome.code, outcome.err) == (0, "")
    (run,) = work.runs
    assert selection(run) == said and said["candidates"] == STEPS
    winner = STEPS[said["released"]]
    assert np.array_equal(samples(run / "release"), samples(kept(run, winner)))
    assert [entry.kind for entry in entries(work)].count("plan") == 2
    (entry,) = [each for each in certificate(run)["releases"] if each["partition"] == "validation"]
    assert (entry["attempts"], entry["paid"]) == (2, 1)
    assert all(each["paid"] == 1 for each in certificate(run)["releases"])
    assert work("verify", run, "--ledger").code == 0


LATENT = (
    '{ kind = "dp-lora", noise = 3.0, expected_batch = 24, epochs = 1, multiplicity = 1, rank = 2, sampling = { steps = 2 }, '
    "latent = { width = 8, context = 8 }, autoencoder = { steps = 2, width = 8 }, pretraining = { steps = 2, batch = 8 } }"
)


@pytest.mark.slow
def test_the_candidates_of_a_latent_method_are_whole_models_over_public_stages_that_are_made_once(
    work, monkeypatch
) -> None:
    """The first process ends between a checkpoint and the model that is kept of it; the second keeps that, whole."""
    from privolve.trainers.diffusion import latent

    made = []
    trained = latent.train_autoencoder
    monkeypatch.setattr(latent, "train_autoencoder", lambda *given, **named: made.append(1) or trained(*given, **named))
    work.job(
        "train",
        trainer=LATENT,
        samples=SAMPLES,
        selection=DP,
        adapters='{ painter = { kind = "glyphs" } }',
        public='{ kind = "painted", count = 24 }',
        evaluation="{ floor = false }",
    )
    with monkeypatch.context() as patch:
        patch.setattr(Candidates, "keep", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert work("run", "job.toml").code == 130
    assert not list((work.runs[0] / "private").glob("candidates/*"))
    outcome = work("run", "job.toml")
    assert (outcome.code, outcome.err) == (0, "")
    (run,) = work.runs
    assert selection(run)["candidates"] == ["step 2", "step 3"]
    assert work("verify", run, "--ledger").code == 0
    assert made == [1]
    stages = sorted(path.name.partition("-")[0] for path in (work.folder / "experiments" / ".stages").iterdir())
    assert stages == ["autoencoder", "pretraining"]
    step = kept(run, "step 2")
    with np.load(step / "samples.npz") as drawn, np.load(step / "model.npz") as early:
        assert np.array_equal(serving.load(step, device="cpu").model.sample(drawn["y"], seed=0), drawn["x"])
        with np.load(run / "release" / "model.npz") as released:
            assert early.files == released.files
            assert any(name.startswith("autoencoder/") for name in early.files)
            moved = [name for name in early.files if not np.array_equal(early[name], released[name])]
    if selection(run)["released"] == 0:
        assert moved == []
    else:
        assert moved and all("label." in name or "attentions" in name for name in moved)


# --- planned ----------------------------------------------------------------------------------------------------------


def test_the_plan_says_what_the_choice_costs_whom_and_between_which_models(work) -> None:
    job(work, '{ rule = "dp-validation", share = 0.25, epsilon = 0.5 }')
    said = work("plan", "job.toml").out
    assert "72 private slots" in said
    assert "24 slots of the partition 'validation', which do nothing else: epsilon 0.5000 for these; 1.0000" in said
    assert "it is one of 3 models, after 2, 4, 6 steps" in said
    assert not (work.folder / "ledgers").exists()


SUITE = """
kind = "suite"
epsilons = [20.0]
performance = { checkpoint_every = 1 }

[privacy]
joint_epsilon = 40

[data.glyphs]
kind = "folder"
path = "data"
classes = ["0", "1"]
size = [8, 8]
channels = 1
holdout = 0.2

[methods.pe]
kind = "image-pe"
models = { painter = "dpdm" }
adapters = { eye = { kind = "pixels" } }
evolution = { iterations = 1, count = 8, variations = 1 }
selection = { rule = "dp-validation", share = 0.25 }

[methods.dpdm]
kind = "train"
trainer = { kind = "dpdm", noise = 3.0, expected_batch = 24, epochs = 2, multiplicity = 1, sampling = { steps = 2 } }
samples = { count = 12, previews = 2, pictures = false }
selection = { rule = "dp-validation", share = 0.25 }
"""


def test_a_joint_plan_holds_the_choices_of_a_training_and_of_what_goes_on_from_its_model(work) -> None:
    (work.folder / "suite.toml").write_text(SUITE)
    planned = work("plan", "suite.toml").out
    outcome = work("compare", "suite.toml")
    assert (outcome.code, outcome.err) == (0, "")
    found = entries(work)
    plans = {reserved.plan.partition: reserved.plan for reserved in Book(found).plans.values()}
    choices = [each.cost for each in plans["validation"].releases]
    assert len(choices) == 2 and len(plans["train"].releases) == 2
    delta = plans["validation"].share.delta
    sums = {
        partition: epsilon([each.cost for each in plan.releases], delta, Relation.ZERO_OUT)
        for partition, plan in plans.items()
    }
    assert plans["train"].share.epsilon == pytest.approx(max(sums.values()), rel=1e-6)
    assert f"together, in one plan: epsilon {max(sums.values()):.4f}" in planned
    (suite,) = (path.parent for path in (work.folder / "experiments").glob("*-suite-*/run.json"))
    with_models = json.loads((suite / "run.json").read_text())["joint"]["glyphs"]["with_models"]
    assert list(with_models.values()) == [pytest.approx(max(sums.values()), rel=1e-6)]
    for run in (suite / "cells").iterdir():
        assert selection(run)["rule"] == "dp-validation"
        assert work("verify", run).code == 0


# --- wrong input ------------------------------------------------------------------------------------------------------

WRONG = {
    "nothing shown": ("synthetic", "samples={ count = 8, previews = 0 }", "samples.previews = 0 shows none"),
    "nothing shown before the end": (
        "dp-validation",
        "performance.checkpoint_every=9",
        "performance.checkpoint_every: 9 is too many steps",
    ),
    "a share of no sample": ("synthetic", "selection.share=0.01", "selection.share: 0.01 of 20 samples leaves none"),
    "an epsilon of a free rule": ("oracle", "selection.epsilon=1.0", "selection.epsilon: rule = 'oracle' costs none"),
    "an epsilon above the run's": ("dp-validation", "selection.epsilon=21.0", "lower it, or leave it out"),
    "a share of nothing": ("dp-validation", "selection.share=0.001", "selection.share = 0.001 of 96 slots leaves"),
    "no held-out part": ("oracle", "data.holdout=0.0", "needs a held-out part"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_choice_that_cannot_be_made_is_refused_in_one_line_and_nothing_is_made(work, what: str) -> None:
    rule, changed, said = WRONG[what]
    job(work, f'{{ rule = "{rule}" }}')
    for command in ("plan", "run"):
        outcome = work(command, "job.toml", "--set", changed)
        assert outcome.code == 2
        assert said in outcome.line
    assert not (work.folder / "ledgers").exists()


def test_a_public_set_that_holds_a_record_that_validates_is_refused(work) -> None:
    """It would be trained on, and would choose."""
    job(work, DP)
    validation = split_of(work).validation
    assert validation is not None
    name = open_private(validation.records).ids[0]
    (file,) = (path for path in (work.folder / "data").rglob("*.png") if name.endswith(path.name))
    (work.folder / "public" / "some").mkdir(parents=True)
    shutil.copy(file, work.folder / "public" / "some")
    public = '{ kind = "folder", path = "public", name = "public", classes = ["some"], size = [8, 8], channels = 1 }'
    job(work, DP, public=public)
    outcome = work("run", "job.toml")
    assert outcome.code == 2
    assert "shares records with the private set" in outcome.line
    assert [entry.kind for entry in entries(work)].count("plan") == 0
