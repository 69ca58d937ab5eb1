"""`privolve evaluate`: any images against any data set, and every wrong input in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DATA = """
[data]
kind = "folder"
path = "data"
classes = ["0", "1"]
size = [8, 8]
channels = 1
holdout = 0.3
test = "public"
"""


@pytest.fixture
def place(work):
    (work.folder / "data.toml").write_text(DATA, encoding="utf-8")
    shutil.copytree(work.folder / "data", work.folder / "samples")
    return work


def scores(work, part: str = "release") -> list[dict]:
    (path,) = (work.folder / "experiments").glob(f"*-evaluate-*/{part}/scores.json")
    return json.loads(path.read_text(encoding="utf-8"))


def arrays(work, name: str = "samples.npz", **changed: np.ndarray) -> Path:
    rng = np.random.default_rng(0)
    content = {
        "x": rng.integers(0, 255, size=(20, 8, 8, 1), dtype=np.uint8),
        "y": np.arange(20) % 2,
        **changed,
    }
    np.savez(work.folder / name, **content)  # type: ignore[arg-type]
    return work.folder / name


def test_class_folders_are_judged_by_the_held_out_part(place) -> None:
    outcome = place("evaluate", "samples", "--data", "data.toml", "--metrics", "frechet,kid")
    assert (outcome.code, outcome.err) == (0, "")
    assert "| samples |" in outcome.out and "KID" in outcome.out
    found = {score["name"]: score for score in scores(place)}
    assert set(found) == {"classifier accuracy", "Frechet distance", "KID"}
    assert found["classifier accuracy"]["value"] > 0.9
    assert all(score["protected"] and score["n"] == 120 and score["reference_n"] == 36 for score in found.values())
    assert place("evaluate", "samples", "--data", "data.toml", "--metrics", "frechet,kid").code == 0


def test_an_npz_and_a_run_are_judged_too(place, finished) -> None:
    _, run = finished
    for samples in (arrays(place), run):
        outcome = place("evaluate", samples, "--data", "data.toml", "--out", f"of-{samples.name}")
        assert (outcome.code, outcome.err) == (0, "")
    assert len(json.loads((place.folder / f"of-{run.name}" / "release" / "scores.json").read_text())) == 2


def test_pictures_may_be_named_by_their_class_or_listed(place) -> None:
    flat, listed = place.folder / "flat", place.folder / "listed"
    flat.mkdir()
    listed.mkdir()
    lines = ["file,label"]
    for path in sorted((place.folder / "samples").glob("*/*.png")):
        shutil.copyfile(path, flat / f"{path.parent.name}_{path.name}")
        shutil.copyfile(path, listed / path.name)
        lines.append(f"{path.name},{path.parent.name}")
    (listed / "labels.csv").write_text("\n".join(lines))
    values = []
    for name in ("samples", "flat", "listed"):
        assert place("evaluate", name, "--data", "data.toml", "--out", f"of-{name}").code == 0
        found = json.loads((place.folder / f"of-{name}" / "release" / "scores.json").read_text())
        values.append([score["value"] for score in found if score["name"] == "classifier accuracy"])
    assert values[0] == values[1] == values[2]


def test_floats_with_channels_first_are_what_generators_write(place) -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, size=(20, 8, 8, 1), dtype=np.uint8)
    arrays(place, "bytes.npz", x=grey)
    arrays(place, "floats.npz", x=(grey / 255).astype(np.float32).transpose(0, 3, 1, 2))
    found = []
    for name in ("bytes", "floats"):
        assert place("evaluate", f"{name}.npz", "--data", "data.toml", "--out", name).code == 0
        found.append(json.loads((place.folder / name / "run.json").read_text())["config"]["samples"])
    assert found[0] == found[1]


def test_figures_on_a_private_held_out_part_are_not_shown_and_lie_in_private(place) -> None:
    (place.folder / "data.toml").write_text(DATA.replace('test = "public"\n', ""))
    outcome = place("evaluate", "samples", "--data", "data.toml")
    assert (outcome.code, outcome.err) == (0, "")
    assert "unprotected" in outcome.out and "private/scores.json" in outcome.out
    assert "|" not in outcome.out and "%" not in outcome.out
    assert scores(place) == []
    private = scores(place, "private")
    assert private and not any(score["protected"] for score in private)
    (folder,) = (place.folder / "experiments").glob("*-evaluate-*/private")
    assert folder.stat().st_mode & 0o077 == 0


def test_a_benchmark_job_brings_the_ceiling_and_its_figures_are_counted(place) -> None:
    from privolve.privacy.ledger_store import read_entries

    place.job(purpose='"benchmark"')
    outcome = place("evaluate", "samples", "--data", "job.toml")
    assert (outcome.code, outcome.err) == (0, "")
    assert "real training set" in outcome.out and "†" in outcome.out
    noted = [entry.body for entry in read_entries(place.folder / "ledgers" / "data") if entry.kind == "disclosed"]
    assert len([score for score in scores(place, "private") if not score["protected"]]) > 1
    # Not how many: which could be computed depends on the records, and this entry is public.
    assert noted == [{"partition": "train", "figures": 1}]


def test_a_class_without_an_image_is_said_and_counts_as_errors(place) -> None:
    shutil.rmtree(place.folder / "samples" / "1")
    outcome = place("evaluate", "samples", "--data", "data.toml")
    assert (outcome.code, outcome.err) == (0, "")
    assert "samples: has no image of class '1'; its real images count as errors" in outcome.out
    (accuracy,) = [score["value"] for score in scores(place) if score["name"] == "classifier accuracy"]
    assert accuracy < 0.7


def test_too_few_images_for_a_metric_lose_that_metric_alone(place) -> None:
    arrays(place, x=np.zeros((2, 8, 8, 1), dtype=np.uint8), y=np.array([0, 1]))
    outcome = place("evaluate", "samples.npz", "--data", "data.toml", "--metrics", "precision-recall,frechet")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.count("not measured: ") == 1
    assert {score["name"] for score in scores(place)} == {"classifier accuracy", "Frechet distance"}


def colour(work) -> None:
    arrays(work, x=np.zeros((20, 8, 8, 3), dtype=np.uint8))


def larger(work) -> None:
    arrays(work, x=np.zeros((20, 16, 8, 1), dtype=np.uint8))


def nan(work) -> None:
    images = np.zeros((20, 8, 8, 1), dtype=np.float32)
    images[3, 0, 0, 0] = np.nan
    arrays(work, x=images)


def unlabelled(work) -> None:
    np.savez(work.folder / "samples.npz", x=np.zeros((20, 8, 8, 1), dtype=np.uint8))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            colour,
            "samples: its images are colour of 8 x 8 and the data's grey of 8 x 8; convert them first, or let --fit",
        ),
        (larger, "samples: its images are grey of 8 x 16 and the data's grey of 8 x 8"),
        (nan, "1 of 20 images hold NaN or infinity; leave them out first"),
        (unlabelled, "holds no labels, and the data has 2 classes; add them as `y`"),
        (lambda work: arrays(work, y=np.full(20, 7)), "label 7 of only 2 classes"),
        (lambda work: arrays(work, y=np.arange(19) % 2), "(19,) labels for 20 images"),
        (lambda work: arrays(work, x=np.full((20, 8, 8, 1), 900, np.int32)), "images are of type int32"),
        (lambda work: arrays(work, x=np.full((20, 8, 8, 1), 200.0)), "pixels lie between 200 and 200"),
        (lambda work: (work.folder / "samples.npz").write_bytes(b"no zip"), "samples.npz is no .npz file"),
        (lambda work: None, "samples.npz: does not exist"),
    ],
)
def test_arrays_that_cannot_be_judged_are_refused_in_one_line(place, make, said: str) -> None:
    make(place)
    outcome = place("evaluate", "samples.npz", "--data", "data.toml")
    assert outcome.code == 2
    assert said in outcome.line


def test_images_of_another_kind_are_converted_where_that_is_asked_for(place) -> None:
    colour(place)
    assert place("evaluate", "samples.npz", "--data", "data.toml", "--fit").code == 0


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def another_class(folder: Path) -> None:
    (folder / "1").rename(folder / "seven")


def damaged(folder: Path) -> None:
    next(folder.glob("0/*.png")).write_bytes(b"\x89PNG no more")


def of_two_sizes(folder: Path) -> None:
    Image.new("L", (9, 8)).save(next(folder.glob("0/*.png")))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (empty, "samples: holds no image (.png"),
        (another_class, "samples: 'seven' is no class of the data; its classes are 0, 1"),
        (damaged, "cannot be decoded as an image; restore it, or leave it out"),
        (of_two_sizes, "is grey of 9 x 8 where most images are grey of 8 x 8; make them alike first"),
    ],
)
def test_folders_that_cannot_be_judged_are_refused_in_one_line(place, change, said: str) -> None:
    change(place.folder / "samples")
    outcome = place("evaluate", "samples", "--data", "data.toml")
    assert outcome.code == 2
    assert said in outcome.line
    assert not (place.folder / "experiments").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--judge", "inceptoin"], "there is no adapter of kind 'inceptoin'"),
        (["--judge", "lexicon"], "judge"),
        (["--metrics", "frechett"], "there is no metric of kind 'frechett'"),
        (["--set", "data.holdout=0"], "[data] has no held-out part to judge by"),
        (["--set", "judgee.kind=pixels"], "judgee: unknown key; known here: data, judge, evaluation, trust"),
    ],
)
def test_what_cannot_judge_is_refused_in_one_line(place, arguments: list[str], said: str) -> None:
    outcome = place("evaluate", "samples", "--data", "data.toml", *arguments)
    assert outcome.code == 2
    assert said in outcome.line


def test_the_trust_of_a_job_is_in_the_network_that_it_names_and_in_no_other(place) -> None:
    from privolve.adapters import registry
    from privolve.data import registry as data
    from privolve.evaluation.settings import Settings
    from privolve.jobs import evaluate

    named = evaluate.Against(
        data=data.parse({"kind": "digits"}),
        judge=registry.parse({"kind": "pixels"}),
        settings=Settings(),
        trust=("judge",),
        job=None,
    )
    changed = {"profile": None, "metrics": ("frechet",)}
    assert evaluate._changed(named, judge=None, **changed).trust == ("judge",)
    assert evaluate._changed(named, judge="gradients", **changed).trust == ()


def test_a_network_without_its_weights_is_said_in_one_line(place) -> None:
    (place.folder / "data.toml").write_text(f'{DATA}\n[judge]\nkind = "inception"\nweights = "nowhere.pth"\n')
    outcome = place("evaluate", "samples", "--data", "data.toml")
    assert outcome.code == 2
    assert "nowhere.pth" in outcome.line


def test_metrics_are_listed(work) -> None:
    assert {"frechet", "kid", "precision-recall"} <= set(work("metrics").out.split())
