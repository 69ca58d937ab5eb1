"""Training jobs through the command line: every method from private set to certificate, on a few small digits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

BASE = """
kind = "train"
purpose = "benchmark"
[data]
kind = "digits"
slots = [0, 240]
[privacy]
epsilon = 8.0
[samples]
count = 30
pictures = false
[trainer]
kind = "{kind}"
expected_batch = 48
epochs = 1
multiplicity = 2
sampling = {{ steps = 3 }}
{trainer}
"""
PUBLIC = """
[adapters]
painter = { kind = "glyphs" }
[public]
kind = "painted"
count = 72
"""
FEW = "pretraining = { steps = 3, batch = 16 }\n"
LATENT = FEW + "autoencoder = { steps = 3 }\n"
CENTRAL = 'warm_up = [{ kind = "central-images", rounds = 2, fit = { steps = 3 } }]\n'
FREQUENCY = (
    'warm_up = [{ kind = "central-images", rounds = 1, fit = { steps = 2 } }, '
    '{ kind = "feature-means", features = 20, steps = 3, count = 40, width = 4, fit = { steps = 2 } }]\n'
)
METHODS = {
    "dpdm": ("", ""),
    "pdp-diffusion": (FEW, PUBLIC),
    "dp-ldm-sd": (FEW, PUBLIC),
    "dp-ldm": (LATENT, PUBLIC),
    "dp-lora": (LATENT, PUBLIC),
    "privimage": (
        FEW + "votes = 1\nsemantic_steps = 3\nsemantic_width = 4\n",
        PUBLIC + 'classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "A", "B"]\n',
    ),
    "dp-feta": (CENTRAL, ""),
    "dp-feta-pro": (FREQUENCY, ""),
}


def job(place, kind: str, extra: str = "") -> Path:
    trainer, rest = METHODS[kind]
    path = place.folder / f"{kind}.toml"
    path.write_text(BASE.format(kind=kind, trainer=trainer + extra) + rest)
    return path


def only_run(place) -> Path:
    (run,) = (place.folder / "experiments").glob("*-train-*")
    return run


def test_every_method_of_the_registry_is_tried_here() -> None:
    from privolve.trainers.registry import METHODS as REGISTERED

    assert set(METHODS) == set(REGISTERED)


@pytest.mark.parametrize("kind", METHODS)
def test_a_method_runs_from_private_set_to_certificate(work, kind: str) -> None:
    outcome = work("run", job(work, kind))
    assert outcome.code == 0, outcome.err
    run = only_run(work)
    with np.load(run / "release" / "samples.npz") as samples:
        assert samples["x"].shape == (30, 8, 8, 1) and samples["x"].dtype == np.uint8
        assert np.bincount(samples["y"]).tolist() == [3] * 10
    assert work("verify", run, "--ledger").code == 0
    certificate = json.loads((run / "release" / "privacy.json").read_text())
    assert float(certificate["epsilon"]) == pytest.approx(8.0, rel=2e-3)
    assert float(certificate["epsilon"]) <= 8.0
    released = [release["name"].partition("/")[2] for release in certificate["releases"]]
    assert released[-1] == "training"
    expected = {"privimage": 2, "dp-feta": 2, "dp-feta-pro": 3}.get(kind, 1)
    assert len(released) == expected
    assert "not finished" not in outcome.out
    assert (run / "release" / "report.html").exists()


def test_a_finished_training_is_not_done_again_and_spends_nothing(work) -> None:
    path = job(work, "dpdm")
    assert work("run", path).code == 0
    before = (only_run(work) / "release" / "samples.npz").read_bytes()
    again = work("run", path)
    assert again.code == 0 and "is finished" in again.out
    assert (only_run(work) / "release" / "samples.npz").read_bytes() == before


def test_a_public_stage_is_shared_by_the_methods_that_have_it_in_common(work) -> None:
    for kind in ("pdp-diffusion", "dp-ldm-sd"):
        assert work("run", job(work, kind)).code == 0
    stages = [path.name for path in (work.folder / "experiments" / ".stages").iterdir()]
    assert len(stages) == 1 and stages[0].startswith("pretraining-")


def test_plan_names_every_release_and_reads_no_record(work) -> None:
    outcome = work("plan", job(work, "dp-feta-pro"))
    assert outcome.code == 0, outcome.err
    for words in ("1-central-images", "2-feature-means", "after training", "epsilon 8.0000", "parameters", "GiB"):
        assert words in outcome.out
    assert not (work.folder / "ledgers").exists()


def test_losses_and_gradient_norms_are_in_no_file_that_may_leave(work) -> None:
    assert work("run", job(work, "dpdm")).code == 0
    run = only_run(work)
    assert work("export", run, "out").code == 0
    for folder in (work.folder / "out", run / "release"):
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix in (".json", ".jsonl", ".html", ".txt"):
                assert "gradient_norm" not in path.read_text(encoding="utf-8", errors="ignore")
    assert list((run / "private").rglob("steps.jsonl"))
    journal = (run / "journal.jsonl").read_text()
    assert "loss" not in journal


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ("trainer.clip_norm=0", "clip_norm"),
        ("trainer.expected_batch=500", "more than the 192 slots"),
        ("trainer.epochs=0", "epochs"),
        ("trainer.kind=dpmd", "did you mean 'dpdm'"),
        ("trainer.netwrok=tiny", "network"),
        ("trainer.network=huge", "network"),
        ('samples.shares={"0" = 1.0}', "samples.shares"),
        ("privacy.epsilon=0", "epsilon"),
        ("performance.device=cuda", "GPU"),
    ],
)
def test_wrong_input_is_one_line_before_anything_is_spent(work, changed: str, words: str) -> None:
    outcome = work("run", job(work, "dpdm"), "--set", changed)
    assert outcome.code == 2
    assert words in outcome.line
    assert not list(work.folder.rglob("ledger.sqlite"))


def test_a_method_that_needs_a_public_set_says_so(work) -> None:
    path = job(work, "pdp-diffusion")
    path.write_text(path.read_text().replace(PUBLIC, ""))
    outcome = work("run", path)
    assert outcome.code == 2
    assert "public" in outcome.line


def test_too_few_public_classes_for_privimage_are_one_line(work) -> None:
    outcome = work("run", job(work, "privimage"), "--set", "trainer.votes=2")
    assert outcome.code == 2
    assert "20 in all" in outcome.line


def test_a_public_set_that_holds_private_records_is_refused(work) -> None:
    path = job(work, "pdp-diffusion")
    path.write_text(path.read_text().replace(PUBLIC, '[public]\nkind = "digits"\nname = "borrowed"\n'))
    outcome = work("run", path)
    assert outcome.code == 2
    assert "shares" in outcome.line and "records" in outcome.line
