"""`privolve evaluate` on texts, and runs whose private set holds texts; canaries of a job."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

DATA = """
[data]
kind = "csv"
path = "reviews.csv"
label_column = "label"
classes = ["food", "cars"]
holdout = 0.3
test = "public"
"""


def reviews(count: int, seed: int) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    words = {"food": ["soup", "bread", "salt", "oven", "taste"], "cars": ["engine", "wheel", "road", "brake", "fuel"]}
    return [
        (" ".join(["the", *rng.choice(words[label], int(rng.integers(3, 9)))]), label)
        for label in ("food", "cars") * (count // 2)
    ]


def write(path: Path, rows: Sequence[tuple[str, str]], header: Sequence[str] = ("text", "label")) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def place(work):
    (work.folder / "data.toml").write_text(DATA, encoding="utf-8")
    write(work.folder / "reviews.csv", reviews(200, 0))
    write(work.folder / "samples.csv", reviews(120, 1))
    return work


def scores(folder: Path, part: str = "release") -> dict[str, dict]:
    return {each["name"]: each for each in json.loads((folder / part / "scores.json").read_text(encoding="utf-8"))}


def test_texts_are_judged_by_what_they_are_and_what_they_are_worth(place) -> None:
    outcome = place("evaluate", "samples.csv", "--data", "data.toml", "--out", "of-texts")
    assert (outcome.code, outcome.err) == (0, "")
    found = scores(place.folder / "of-texts")
    assert {"length distance", "distinct-2", "self-BLEU-4", "text classifier accuracy"} <= set(found)
    (mauve,) = (each for name, each in found.items() if name.startswith("MAUVE"))
    assert mauve["network"] == "privolve hashing" and mauve["network_hash"]
    assert found["text classifier accuracy"]["value"] > 0.95
    assert all(each["protected"] and each["n"] == 120 for each in found.values())


def test_the_same_texts_in_any_form_have_the_same_figures(place) -> None:
    rows, folder = reviews(120, 1), place.folder
    lines = [json.dumps({"caption": text, "label": label}) for text, label in rows]
    (folder / "lines.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for number, (text, label) in enumerate(rows):
        (folder / "texts" / label).mkdir(parents=True, exist_ok=True)
        (folder / "texts" / label / f"{number:03d}.txt").write_text(text, encoding="utf-8")
    figures = []
    for name in ("samples.csv", "lines.jsonl", "texts"):
        assert (
            place("evaluate", name, "--data", "data.toml", "--metrics", "text-length", "--out", f"of-{name}").err == ""
        )
        figures.append({key: each["value"] for key, each in scores(folder / f"of-{name}").items()})
    assert figures[0] == figures[1]
    # Files come in the order of their names, so that a regression may differ in its last digits.
    assert figures[0]["length distance"] == figures[2]["length distance"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("text,label\n,food\n", "samples.csv: text 1 is empty; leave it out first"),
        ("text,label\nsoup,boats\n", "samples.csv: 'boats' is no class of the data; its classes are food, cars"),
        ("text\nsoup\n", "samples.csv: holds no labels, and the data has 2 classes; add a column 'label'"),
        ("words,label\nsoup,food\n", "samples.csv: its header has no column 'text' or 'caption'"),
        ("text,label\n", "samples.csv: holds no text"),
        (None, "samples.csv: does not exist; name a run's folder, a .csv, .jsonl or .txt file, or a folder of texts"),
    ],
)
def test_wrong_texts_are_one_line(place, content: str | None, line: str) -> None:
    path = place.folder / "samples.csv"
    path.unlink()
    if content is not None:
        path.write_text(content)
    outcome = place("evaluate", "samples.csv", "--data", "data.toml")
    assert outcome.code == 2
    assert outcome.line == line


def test_texts_of_a_private_part_show_nothing(place) -> None:
    (place.folder / "data.toml").write_text(DATA.replace('test = "public"\n', ""))
    outcome = place("evaluate", "samples.csv", "--data", "data.toml", "--out", "of-texts")
    assert (outcome.code, outcome.err) == (0, "")
    assert not any(word in outcome.out for word in ("length distance", "MAUVE", "classifier", "next-word"))
    # Variety sees no real text.
    assert all(not each["reference"] for each in scores(place.folder / "of-texts").values())
    assert not scores(place.folder / "of-texts", "private")["length distance"]["protected"]


def test_a_run_on_texts_is_judged_by_its_texts(place) -> None:
    names = {"food": "3", "cars": "7"}
    write(place.folder / "reviews.csv", [(f"{text} {names[label]}", names[label]) for text, label in reviews(200, 0)])
    place.job(
        "dpiti",
        data='{ kind = "csv", path = "reviews.csv", label_column = "label", classes = ["3", "7"], holdout = 0.3, '
        'test = "public" }',
        adapters='{ writer = { kind = "lexicon" }, painter = { kind = "glyph-painter" }, eye = { kind = "hashing" } }',
        evolution='{ iterations = 1, count = 6, variations = 2, voting = "text", size = [8, 8], '
        'initial_prompt = "glyphs", variation_prompt = "glyphs-fill" }',
        evaluation='{ metrics = ["frechet", "text-length"] }',
    )
    outcome = place("run", "job.toml")
    assert (outcome.code, outcome.err) == (0, "")
    (run,) = place.runs
    assert {"text classifier accuracy", "Frechet distance", "length distance"} <= set(scores(run))


def test_canaries_of_a_benchmark_are_counted_and_stay_private(place) -> None:
    from privolve.privacy.ledger_store import read_entries

    rng = np.random.default_rng(0)
    planted, references = (rng.integers(0, 256, (count, 8, 8), dtype=np.uint8) for count in (3, 20))
    np.savez(place.folder / "canaries.npz", planted=planted, references=references)
    data = '{ kind = "folder", path = "data", classes = ["0", "1"], size = [8, 8], channels = 1, holdout = 0.4 }'
    place.job(data=data, purpose='"benchmark"', evaluation='{ canaries = "canaries.npz" }')
    outcome = place("run", "job.toml")
    assert (outcome.code, outcome.err) == (0, "")
    (run,) = place.runs
    every = json.loads((run / "private" / "scores.json").read_text())
    exposed = [each for each in every if "canar" in each["name"]]
    assert len(exposed) == 4 and not any(each["protected"] for each in exposed)
    assert any(each["name"].startswith("membership AUC") for each in every)
    assert not [name for name in scores(run) if "canar" in name or "membership" in name]
    [noted] = [each.body for each in read_entries(place.folder / "ledgers" / "data") if each.kind == "disclosed"]
    assert noted == {"partition": "train", "figures": 1}


def test_missing_canaries_are_one_line(place) -> None:
    place.job(purpose='"benchmark"', evaluation='{ canaries = "none.npz" }')
    outcome = place("run", "job.toml")
    assert outcome.code == 2
    assert outcome.line == "evaluation.canaries: there is no file 'none.npz'; give an .npz, or leave it out"
