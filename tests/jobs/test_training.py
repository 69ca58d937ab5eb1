"""Training jobs through the command line: every method from private set to certificate, on a few small digits."""

from __future__ import annotations

import json
import sys
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
GIVEN = "noise = 3.0\n"
"""Not calibrated, where that is not what is tried: it takes seconds."""
LATENT = FEW + "autoencoder = { steps = 3 }\n"
CENTRAL = GIVEN + 'warm_up = [{ kind = "central-images", rounds = 2, fit = { steps = 3 } }]\n'
FREQUENCY = (
    GIVEN + 'warm_up = [{ kind = "central-images", rounds = 1, fit = { steps = 2 } }, '
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


TRIED_ELSEWHERE_TOO = ("dp-feta", "dp-ldm-sd", "pdp-diffusion")
"""By the ghosts and canaries, and by the stage that two methods share."""


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in TRIED_ELSEWHERE_TOO)) for kind in METHODS]
)
def test_a_method_runs_from_private_set_to_certificate(work, kind: str) -> None:
    outcome = work("run", job(work, kind))
    assert outcome.code == 0, outcome.err
    run = only_run(work)
    with np.load(run / "release" / "samples.npz") as samples:
        assert samples["x"].shape == (30, 8, 8, 1) and samples["x"].dtype == np.uint8
        assert np.bincount(samples["y"]).tolist() == [3] * 10
    assert work("verify", run, "--ledger").code == 0
    certificate = json.loads((run / "release" / "privacy.json").read_text())
    assert 0 < float(certificate["epsilon"]) <= 8.0
    if GIVEN not in METHODS[kind][0]:
        assert float(certificate["epsilon"]) == pytest.approx(8.0, rel=2e-3)
    released = [release["name"].partition("/")[2] for release in certificate["releases"]]
    assert released[-1] == "training"
    expected = {"privimage": 2, "dp-feta": 2, "dp-feta-pro": 3}.get(kind, 1)
    assert len(released) == expected
    assert "not finished" not in outcome.out
    assert (run / "release" / "report.html").exists()


@pytest.fixture(scope="module")
def trained(workplace, tmp_path_factory: pytest.TempPathFactory):
    """A place with a finished training that showed previews, and what it said. Shared: leave it as it is."""
    place = workplace(tmp_path_factory.mktemp("trained"))
    path = job(place, "dpdm")
    path.write_text(path.read_text().replace("pictures = false", "pictures = false\npreviews = 1"))
    outcome = place("run", path, "--set", "performance.checkpoint_every=1")
    assert outcome.code == 0, outcome.err
    return place, path, only_run(place)


def test_a_finished_training_is_not_done_again_and_spends_nothing(trained) -> None:
    work, path, run = trained
    before, entries = (run / "release" / "samples.npz").read_bytes(), work.entries
    again = work("run", path)
    assert again.code == 0 and "is finished" in again.out
    assert (run / "release" / "samples.npz").read_bytes() == before
    assert work.entries == entries


def test_previews_are_of_durable_checkpoints_in_the_chain_and_on_the_page(trained) -> None:
    from privolve.privacy.ledger_store import read_entries

    work, _, run = trained
    shown = [entry for entry in read_entries(work.folder / "ledgers" / "digits") if entry.kind == "shown"]
    previews = sorted(run.glob("iterations/*/preview.npz"))
    assert len(previews) == len(shown) >= 1
    with np.load(previews[0]) as preview:
        assert preview["x"].shape == (80, 8, 8, 1) and int(preview["step"]) == shown[0].body["step"]
    certificate = json.loads((run / "release" / "privacy.json").read_text())
    assert str(previews[0].relative_to(run)) in json.dumps(certificate)
    assert f"After {shown[0].body['step']} steps" in (run / "release" / "report.html").read_text()


def test_a_public_stage_is_shared_by_the_methods_that_have_it_in_common(work) -> None:
    for kind in ("pdp-diffusion", "dp-ldm-sd"):
        assert work("run", job(work, kind)).code == 0
    stages = [path.name for path in (work.folder / "experiments" / ".stages").iterdir()]
    assert len(stages) == 1 and stages[0].startswith("pretraining-")


def test_plan_names_every_release_and_its_signal_and_reads_no_record(work) -> None:
    outcome = work("plan", job(work, "privimage"))
    assert outcome.code == 0, outcome.err
    for words in ("after semantic-query", "after training", "epsilon 8.0000", "parameters", "GiB"):
        assert words in outcome.out
    # 19.2 of 192 slots are a class, and 48 a step.
    plain = " ".join(outcome.out.split())
    assert "semantic-query 19.2 votes in a cell, noise of 5.0: at best 3.84 times the noise" in plain
    assert "training, a step 48.0 records, noise of" in plain
    assert not (work.folder / "ledgers").exists()


def test_losses_and_gradient_norms_are_in_no_file_that_may_leave(trained, tmp_path: Path) -> None:
    work, _, run = trained
    assert work("export", run, tmp_path / "out").code == 0
    for folder in (tmp_path / "out", run / "release"):
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
        ("trainer.netwrok=tiny", "did you mean 'network'"),
        ("trainer.noise=0.3", "which buys"),
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


def test_shares_of_other_classes_are_refused_before_anything_is_planned(work) -> None:
    outcome = work("run", job(work, "dpdm", GIVEN), "--set", 'trainer.label_shares={"0" = 1.0}')
    assert outcome.code == 2
    assert "label_shares" in outcome.line
    assert work.entries <= 2


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


def test_the_certificate_says_what_a_training_took_for_public(work) -> None:
    shares = "label_shares = { " + ", ".join(f'"{digit}" = 0.1' for digit in range(10)) + " }\n"
    path = job(work, "pdp-diffusion", shares)
    path.write_text(
        path.read_text().replace(PUBLIC, '[public]\nkind = "digits"\nname = "others"\nslots = [400, 460]\n')
    )
    outcome = work("run", path)
    assert outcome.code == 0, outcome.err
    certificate = json.loads((only_run(work) / "release" / "privacy.json").read_text())
    assert "label shares (declared)" in certificate["claim"]
    assert "no image of the public set 'others' equals a private record" in certificate["claim"]
    assert work("verify", only_run(work)).code == 0


def test_texts_instead_of_images_are_one_line(work) -> None:
    (work.folder / "texts.csv").write_text("text,label\n" + "".join(f"word {n},{n % 2}\n" for n in range(60)))
    path = job(work, "dpdm")
    table = '[data]\nkind = "csv"\npath = "texts.csv"\nclasses = ["0", "1"]\nlabel_column = "label"\n'
    path.write_text(path.read_text().replace('[data]\nkind = "digits"\nslots = [0, 240]\n', table))
    outcome = work("run", path)
    assert outcome.code == 2
    assert "holds texts" in outcome.line


@pytest.mark.parametrize(
    ("missing", "kind"), [("torch", "dpdm"), ("safetensors", "dpdm"), ("peft", "dp-lora"), ("diffusers", "dp-ldm")]
)
def test_what_is_not_installed_is_named_with_its_extra_before_anything_is_spent(
    work, monkeypatch: pytest.MonkeyPatch, missing: str, kind: str
) -> None:
    path = job(work, kind)
    monkeypatch.setitem(sys.modules, missing, None)
    outcome = work("run", path)
    assert outcome.code == 2
    assert missing in outcome.line and "privolve[train]" in outcome.line
    assert work.entries <= 2  # A ledger at most, and nothing reserved in it.


def test_gradients_that_cannot_be_computed_as_asked_are_refused_before_anything_is_planned(
    work, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def failing(*_: object, **__: object) -> None:
        raise TorchDynamoException("InvalidCxxCompiler: no working C++ compiler")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "compile", lambda function, **_: failing)
        outcome = work("run", job(work, "dp-feta"), "--set", "performance.compile=true")
    assert outcome.code == 2
    assert "a C++ compiler is needed, or set performance.compile = false" in outcome.line
    assert work.entries <= 2
    assert work("run", job(work, "dp-feta")).code == 0  # The same run: its share is still there.


def test_memory_that_runs_out_in_a_public_stage_is_one_line(work, monkeypatch: pytest.MonkeyPatch) -> None:
    from privolve.trainers import loop

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop, "fit", full)
    outcome = work("run", job(work, "pdp-diffusion", GIVEN))
    assert outcome.code == 3
    assert "out of memory" in outcome.line


def test_a_checkpoint_of_another_plan_is_refused_in_one_line(work, monkeypatch: pytest.MonkeyPatch) -> None:
    from privolve.trainers.workspace import Checkpoints

    path = job(work, "dpdm", GIVEN)
    saved = Checkpoints.save

    def stopped(self: Checkpoints, state) -> None:
        saved(self, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", stopped)
    command = ("run", path, "--set", "performance.checkpoint_every=1")
    assert work(*command, "--out", "a").code == 130
    assert work(*command, "--out", "b", "--set", "seed=1").code == 130
    monkeypatch.undo()
    for kept in (work.folder / "a" / "private" / "training").glob("checkpoint-*"):
        (work.folder / "b" / "private" / "training" / kept.name).write_bytes(kept.read_bytes())
    outcome = work(*command, "--out", "b", "--set", "seed=1")
    assert outcome.code == 2
    assert "belongs to another plan" in outcome.line
    assert work(*command, "--out", "a").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["privimage", "dp-feta-pro", pytest.param("dp-ldm", marks=pytest.mark.slow)])
def test_the_audit_tries_every_mechanism_of_the_job_and_reads_no_record(work, kind: str) -> None:
    outcome = work("audit", job(work, kind, "" if GIVEN in METHODS[kind][0] else GIVEN))
    assert outcome.code == 0, outcome.out + outcome.err
    wanted = {"privimage": ["semantic query"], "dp-feta-pro": ["1-central-images", "2-feature-means"]}.get(kind, [])
    for words in (*wanted, "DP-SGD", "none was read", "replay: a ghost in a slot", "all 4 steps"):
        assert words in outcome.out
    assert "FAILS" not in outcome.out
    assert not (work.folder / "ledgers").exists()


def test_the_audit_fails_where_a_record_counts_twice(work, monkeypatch: pytest.MonkeyPatch) -> None:
    from privolve.trainers import dp_sgd

    clipped = dp_sgd.clipped_to_lattice

    def twice(rows, config):
        points, norms = clipped(rows, config)
        return 2 * points, norms

    monkeypatch.setattr(dp_sgd, "clipped_to_lattice", twice)
    outcome = work("audit", job(work, "dpdm", GIVEN))
    assert outcome.code == 1
    assert "FAILS" in outcome.out
