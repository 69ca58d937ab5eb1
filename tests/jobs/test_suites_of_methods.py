"""Trainings among the methods of a suite, Private Evolution of what was trained, and the examples of all of them."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privolve.adapters import registry as adapters
from privolve.adapters.stub import Stub
from privolve.jobs import job
from privolve.jobs import suite as suites
from privolve.jobs.train import TrainConfig
from privolve.privacy.accounting import epsilon
from privolve.privacy.ledger_book import Book
from privolve.privacy.ledger_store import read_entries
from privolve.privacy.mechanism import Relation, SampledGaussian
from privolve.trainers.registry import METHODS

torch = pytest.importorskip("torch")

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(path.relative_to(EXAMPLES) for path in EXAMPLES.rglob("*.toml"))
SUITES = [path for path in FILES if tomllib.loads((EXAMPLES / path).read_text())["kind"] == "suite"]
JOBS = [path for path in FILES if path not in SUITES]
MNIST = Path(__file__).parents[3] / "shared" / "data" / "images" / "mnist.npz"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def cells_of(folder: Path) -> list[Path]:
    return sorted((folder / "cells").iterdir())


def suite_of(work: Any) -> Path:
    (folder,) = (path.parent for path in (work.folder / "experiments").glob("*-suite-*/run.json"))
    return folder


def rows(folder: Path, part: str = "release") -> dict[str, dict[str, Any]]:
    (group,) = json.loads((folder / part / "comparison.json").read_text(encoding="utf-8"))["groups"]
    return {row["method"]: row for row in group["rows"]}


# --- the examples -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", JOBS, ids=str)
def test_an_example_parses_and_its_models_do_what_it_asks_of_them(path: Path) -> None:
    parsed: Any = job.load(EXAMPLES / path)
    parsed.check_roles()
    assert {config.kind for config in parsed.adapters.values()} <= set(adapters.names())


@pytest.mark.parametrize("path", SUITES, ids=str)
def test_a_suite_among_the_examples_has_a_cell_for_each_method(path: Path) -> None:
    suite = suites.load(EXAMPLES / path)
    assert {cell.method for cell in suite.cells} == set(suite.config.methods)
    assert len({cell.name for cell in suite.cells}) == len(suite.cells)


@pytest.mark.parametrize("folder", ["digits", "mnist", "cifar10"])
def test_every_training_method_has_an_example_of_its_name(folder: str) -> None:
    for kind in METHODS:
        parsed = job.load(EXAMPLES / folder / f"{kind}.toml")
        assert isinstance(parsed, TrainConfig)
        assert (parsed.trainer.kind, parsed.privacy.epsilon) == (kind, 10.0)
        profile = getattr(parsed.trainer, "profile")  # noqa: B009
        assert profile == ("tiny" if folder == "digits" else "paper")


def test_the_whole_suite_of_digits_has_every_method_three_times_at_epsilon_10_and_no_limit() -> None:
    full = suites.load(EXAMPLES / "digits" / "full.toml")
    methods = [name for name, table in full.config.methods.items() if table.get("kind") not in suites.PSEUDO]
    assert set(methods) == {"dpiti", "image-pe", *METHODS}
    assert (full.config.epsilons, full.config.seeds, full.config.time_limit) == ((10.0,), (0, 1, 2), None)
    assert {"floor", "ceiling"} <= {cell.config.kind for cell in full.cells}
    small = suites.load(EXAMPLES / "digits" / "suite.toml")
    assert {"dpdm", "dp-feta"} <= set(small.config.methods)


def test_the_glyphs_that_trainings_begin_with_are_those_of_private_evolution() -> None:
    painter = job.load(EXAMPLES / "digits" / "image-pe.toml").adapters["painter"]
    painted = [
        parsed
        for path in JOBS
        if path.parts[0] == "digits" and isinstance(parsed := job.load(EXAMPLES / path), TrainConfig) and parsed.public
    ]
    assert len(painted) == 5
    assert all(parsed.adapters["painter"] == painter for parsed in painted)


FAST = (
    *("--set", "trainer.network=tiny", "--set", "trainer.multiplicity=1"),
    *("--set", "performance.micro_batch=1", "--set", "trainer.epochs=1"),
)
"""What a plan is timed with: none of it is about privacy but the epochs, whose accounting takes long."""
SMALL_LATENT = (
    *("--set", "trainer.latent={ width = 16, multipliers = [1, 2], blocks = 1, heads = 2, context = 32 }"),
    *("--set", "performance.micro_batch=1", "--set", "trainer.epochs=1"),
)


def planned(work: Any, path: Path, *settings: str) -> str:
    latent = path.stem in ("dp-ldm", "dp-lora")
    outcome = work("plan", EXAMPLES / path, *(SMALL_LATENT if latent else FAST), *settings)
    assert (outcome.code, outcome.err) == (0, ""), path
    return outcome.out


def some_slow(cases: Iterable[Any], quick: Collection[Any]) -> list[Any]:
    """The cases, of which all but these are slow: accounting takes a second for each."""
    return [pytest.param(each, marks=[] if each in quick else [pytest.mark.slow], id=str(each)) for each in cases]


@pytest.mark.parametrize("kind", some_slow(METHODS, ["privimage"]))
def test_the_example_of_a_method_on_digits_is_planned_at_its_epsilon(work: Any, kind: str) -> None:
    said = planned(work, Path("digits", f"{kind}.toml"))
    assert "1,438 private slots" in said and "after training                 epsilon 10.0000" in said
    queries = {"privimage": "semantic-query", "dp-feta": "1-central-images", "dp-feta-pro": "2-feature-means"}
    assert queries.get(kind, "training") in said
    assert ("public set: none" in said) == (kind in ("dpdm", "dp-feta", "dp-feta-pro"))


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """As many images as the real sets have, all black: a plan reads none of them."""
    made: dict[str, Path] = {}
    for name, count, size in (("mnist", 60_000, (28, 28)), ("cifar10", 50_000, (32, 32, 3))):
        made[name] = tmp_path_factory.mktemp(name) / f"{name}.npz"
        pixels, labels = np.zeros((count, *size), np.uint8), np.arange(count, dtype=np.uint8) % 10
        np.savez_compressed(made[name], x_train=pixels, y_train=labels, x_test=pixels[:1000], y_test=labels[:1000])
    return made


@pytest.mark.parametrize(
    "path",
    some_slow(
        [path for path in JOBS if path.parts[0] in ("mnist", "cifar10")],
        [Path("mnist", "dpdm.toml"), Path("cifar10", "image-pe-openai.toml")],
    ),
)
def test_an_example_with_the_papers_settings_is_planned(work: Any, stand_ins: dict[str, Path], path: Path) -> None:
    there = ("--set", f"data.path={stand_ins[path.parts[0]]}")
    if path.stem in METHODS:
        said = planned(work, path, *there)
        assert "epsilon 10.0000" in said
        assert {"mnist": "55,000", "cifar10": "45,000"}[path.parts[0]] in said
        assert "4,096 records on average" in said
    else:
        trains = isinstance(job.load(EXAMPLES / path), TrainConfig)
        outcome = work("plan", EXAMPLES / path, *there, *(FAST if trains else ()))
        assert (outcome.code, outcome.err) == (0, "")
    assert not (work.folder / "ledgers").exists()


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.exists(), reason="MNIST does not lie at ../shared/data/images/mnist.npz")
def test_an_example_of_mnist_is_planned_on_the_real_set(work: Any) -> None:
    assert "55,000 private slots, 10 classes" in planned(
        work, Path("mnist", "dpdm.toml"), "--set", f"data.path={MNIST}"
    )


# --- Private Evolution of what was trained ----------------------------------------------------------------------------

TRAINED = """
kind = "suite"
name = "pe-sd"
epsilons = [2.0]

[privacy]
joint_epsilon = 4.0

[data.glyphs]
kind = "folder"
path = "data"
classes = ["0", "1"]
size = [8, 8]
channels = 1
holdout = 0.2

[methods.pe-sd]
kind = "image-pe"
models = { painter = "dpdm" }
adapters = { eye = { kind = "pixels" } }
evolution = { iterations = 2, count = 8, variations = 2, degree = [0.8, 0.4, 0.3] }

[methods.dpdm]
kind = "train"
trainer = { kind = "dpdm", expected_batch = 24, epochs = 1, multiplicity = 1, sampling = { steps = 3 } }
samples = { count = 12, pictures = false }
"""


def write(work: Any, text: str = TRAINED, *changes: tuple[str, str]) -> None:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (work.folder / "suite.toml").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def evolved(tmp_path_factory: pytest.TempPathFactory, workplace: Any, glyphs: Path) -> tuple[Any, Path]:
    """A finished training and what Private Evolution made of its model. Shared: leave it as it is."""
    place = workplace(tmp_path_factory.mktemp("pe-sd"))
    shutil.copytree(glyphs, place.folder / "data")
    write(place)
    outcome = place("compare", "suite.toml")
    assert (outcome.code, outcome.err) == (0, "")
    return place, suite_of(place)


def test_training_and_evolution_share_one_plan_written_before_both(evolved: Any) -> None:
    place, suite = evolved
    entries = read_entries(place.folder / "ledgers" / "data")
    kinds = [entry.kind for entry in entries]
    assert kinds.count("plan") == 1
    assert kinds.index("plan") < kinds.index("charge")
    ((_, reserved),) = Book(entries).plans.items()
    names = ["/".join(each.name.split("/")[1:]).rsplit("-", 1) for each in reserved.plan.releases]
    assert [(start.split("-glyphs")[0], end.split("/", 1)[1]) for start, end in names] == [
        ("dpdm", "training"),
        ("pe-sd", "histogram/001"),
        ("pe-sd", "histogram/002"),
    ]
    released = [entry.body["name"] for entry in entries if entry.kind == "release"]
    assert released == [each.name for each in reserved.plan.releases]
    costs = [each.cost for each in reserved.plan.releases]
    assert isinstance(costs[0], SampledGaussian) and not any(isinstance(cost, SampledGaussian) for cost in costs[1:])
    # By PLD over the training and the votes: more than either, less than the sum.
    delta = reserved.plan.share.delta
    together = epsilon(costs, delta, Relation.ZERO_OUT)
    parts = [epsilon(costs[:1], delta, Relation.ZERO_OUT), epsilon(costs[1:], delta, Relation.ZERO_OUT)]
    assert reserved.plan.share.epsilon == pytest.approx(together, rel=1e-9)
    assert 1.1 * max(parts) < together < 0.9 * sum(parts)
    for cell in cells_of(suite):
        certificate = json.loads((cell / "release" / "privacy.json").read_bytes())
        assert float(certificate["epsilon"]) == pytest.approx(together, rel=1e-6)
        assert place("verify", cell).code == 0


def test_the_row_of_an_evolution_counts_the_training_of_its_model(evolved: Any) -> None:
    place, suite = evolved
    plan = next(iter(Book(read_entries(place.folder / "ledgers" / "data")).plans.values())).plan
    found = rows(suite)
    assert found["dpdm"]["epsilon"] == 2.0
    assert found["pe-sd"]["epsilon"] == pytest.approx(plan.share.epsilon, rel=1e-9)
    assert "with the training of its model" in (suite / "release" / "comparison.md").read_text()
    assert not [name for name, row in rows(suite, "private").items() if row["kind"] == "floor"], (
        "the first candidates of a model that was trained on private records are no floor"
    )


def test_its_first_candidates_are_drawn_by_the_model_that_was_trained(evolved: Any) -> None:
    from privolve.pe_engine import shares
    from privolve.pe_engine.variation import ImageMaker, initial
    from privolve.privacy.randomness import PublicRng

    place, suite = evolved
    trained, evolution = cells_of(suite)
    manifest = json.loads((evolution / "run.json").read_text())
    painter = adapters.parse({"kind": "trained", "path": str(trained)}).open()
    assert manifest["identities"]["painter"] == vars(painter.identity)
    assert manifest["config"]["adapters"]["painter"]["path"] == f"cells/{trained.name}", "wherever the suite lies"
    with np.load(evolution / "iterations" / "000" / "images.npz") as first:
        kept = first["x"]
    config: Any = suites.load(place.folder / "suite.toml").cells[1].config
    maker = ImageMaker(painter=painter, prompts=("0", "1"), size=(8, 8), channels=1)
    drawn = initial(maker, config.stages(("0", "1"), shares.uniform(2))(0), PublicRng(config.seed))
    assert np.array_equal(np.stack([each.image.pixels for each in drawn if each.image]), kept)
    assert len(np.unique(kept, axis=0)) == len(kept) > 4


def test_the_same_command_trains_nothing_again(evolved: Any) -> None:
    place, suite = evolved
    before = {path: path.stat().st_mtime_ns for path in suite.glob("cells/*/run.json")}
    entries = place.entries
    assert place("compare", "suite.toml").code == 0
    assert {path: path.stat().st_mtime_ns for path in suite.glob("cells/*/run.json")} == before
    assert place.entries == entries


def test_what_goes_on_from_a_training_that_failed_waits_for_it(work: Any) -> None:
    write(
        work, TRAINED, ('kind = "dpdm"', 'kind = "dp-lora", pretraining = { steps = 1 }, autoencoder = { steps = 1 }')
    )
    with (work.folder / "suite.toml").open("a") as file:
        file.write(
            '\n[methods.dpdm.public]\nkind = "folder"\npath = "empty"\nclasses = ["0", "1"]\nsize = [8, 8]\nchannels = 1\n'
        )
    (work.folder / "empty").mkdir()
    outcome = work("compare", "suite.toml")
    assert outcome.code == 1
    assert "pe-sd on glyphs, epsilon 2, seed 0: waits for its model, of dpdm-glyphs-eps2-seed0-" in outcome.out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'name = "pe-sd"',
            'name = "pe-sd"\npurpose = "benchmark"',
            "methods.pe-sd.models: a training and what goes on",
        ),
        (
            'painter = "dpdm"',
            'painter = "dpmd"',
            "methods.pe-sd.models: for each role a method of this suite that trains",
        ),
        ('painter = "dpdm"', 'painter = "pe-sd"', "there are: dpdm"),
        (
            "[methods.dpdm]",
            '[methods.floor]\nkind = "floor"\nof = "pe-sd"\n[methods.dpdm]',
            "'pe-sd' goes on from a model",
        ),
    ],
)
def test_models_that_cannot_be_gone_on_from_are_refused_in_one_line(work: Any, old: str, new: str, said: str) -> None:
    write(work, TRAINED, (old, new))
    outcome = work("compare", "suite.toml")
    assert outcome.code == 2
    assert said in outcome.line
    assert work.entries == 0


def test_a_joint_epsilon_that_does_not_cover_training_and_votes_trains_nothing(work: Any) -> None:
    write(work, TRAINED, ("joint_epsilon = 4.0", "joint_epsilon = 2.1"))
    outcome = work("compare", "suite.toml")
    assert outcome.code == 3
    assert "the 2 cells on 'glyphs' cost epsilon 2." in outcome.line
    assert not [entry for entry in read_entries(work.folder / "ledgers" / "data") if entry.kind == "plan"]


# --- the suite of CIFAR-10 --------------------------------------------------------------------------------------------


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-stub")
    with Stub({"polls": 0}) as running:
        yield running


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Tiny models with random weights, made as the tests of the local adapters make them."""
    for module in ("transformers", "diffusers", "peft", "openai"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    from tiny_models import make

    def made(name: str) -> Path:
        path = make(name, tmp_path_factory.mktemp(name))
        if name == "llama":
            # Its letters are tokens, so a prompt is long; it has no weights that depend on how much it reads.
            config = json.loads((path / "config.json").read_text())
            (path / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}))
        return path

    return made


def pictures(count: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise about a colour of each class's own, 16 x 16."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.uint8) % classes
    colours = np.random.default_rng(0).integers(40, 216, (classes, 1, 1, 3))
    noise = rng.integers(-40, 40, (count, 16, 16, 3))
    return np.clip(colours[labels] + noise, 0, 255).astype(np.uint8), labels


@pytest.mark.slow
def test_the_suite_of_cifar10_runs_whole_on_tiny_models_and_the_stub(
    tmp_path: Path, workplace: Any, stub: Stub, tiny: Callable[[str], Path]
) -> None:
    place = workplace(tmp_path)
    x, y = pictures(240, 10, seed=1)
    x_test, y_test = pictures(60, 10, seed=2)
    np.savez(tmp_path / "cifar10.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    x, y = pictures(60, 12, seed=3)
    np.savez(tmp_path / "public.npz", x=x, y=y)

    painter = {"model": str(tiny("sdxl")), "steps": 1, "native_size": [16, 16]}
    eye = {"kind": "pixels", "size": [8, 8]}
    evolution = {"iterations": 1, "count": 10, "variations": 1, "pictures": False}
    public = {"kind": "npz", "path": str(tmp_path / "public.npz"), "classes": [str(n) for n in range(12)]}
    public |= {"size": [16, 16], "channels": 3}
    warm_up = {"kind": "central-images", "rounds": 1, "fit": {"steps": 2, "batch": 8}}
    sgd = {"profile": "tiny", "expected_batch": 60, "epochs": 0.5, "multiplicity": 1, "sampling": {"steps": 2}}
    before = {"pretraining": {"steps": 2, "batch": 8}}
    latent = {**before, "autoencoder": {"steps": 2, "batch": 8}, "latent": {}, "multiplicity": 1}
    trainers = {
        "dpdm": {},
        "dp-feta": {"warm_up": [warm_up]},
        "dp-ldm": latent,
        "dp-lora": latent,
        "privimage": {**before, "votes": 1, "semantic_steps": 2, "semantic_width": 4, "public_classes": 12},
    }
    text = {**evolution, "max_tokens": 8}
    look = {**evolution, "look_ahead": 1, "degree": [1.0, 0.9]}
    server = {"base_url": stub.openai_url, "provider": "openai", "image_size": "64x64"}
    changes: dict[str, Any] = {
        "image-pe-diffusers": {"adapters": {"painter": painter, "eye": eye}, "evolution": look},
        "image-pe-openai": {"adapters": {"painter": server, "eye": eye}, "evolution": {**evolution, "degree": 0.5}},
        "dpiti": {
            "adapters": {"writer": {"model": str(tiny("llama"))}, "painter": painter, "eye": eye},
            "evolution": text,
        },
    }
    for name, own in trainers.items():
        changes[name] = {
            "trainer": {**sgd, "network": "tiny", **own},
            "samples": {"count": 20},
            **({} if name in ("dpdm", "dp-feta") else {"public": public}),
        }
    data = {"path": str(tmp_path / "cifar10.npz"), "slots": [0, 240], "size": [16, 16]}
    shutil.copytree(EXAMPLES / "cifar10", tmp_path / "examples")
    settings = [
        "epsilons=[2.0]",
        *(f"data.cifar10.{key}={json.dumps(value)}" for key, value in data.items()),
        *(
            f"methods.{name}.{table}={toml(value)}"
            for name, tables in changes.items()
            for table, value in tables.items()
        ),
        f"judge={toml({**eye})}",
        'evaluation={ profile = "logistic", metrics = ["frechet"], seeds = 1 }',
    ]
    outcome = place("compare", "examples/suite.toml", *(part for each in settings for part in ("--set", each)))
    assert (outcome.code, outcome.err) == (0, ""), outcome.out
    folder = suite_of(place)
    found = rows(folder, "private")
    methods = set(changes)
    assert methods <= set(found) and {row["kind"] for row in found.values()} == {"method", "floor", "ceiling"}
    assert all(found[name]["epsilon"] == 2.0 and found[name]["seconds"] > 0 for name in methods)
    # Only the remote painter costs money; trainings ask no model.
    assert {name for name in methods if found[name]["micro_dollars"]} == {"image-pe-openai"}
    assert {name for name in methods if found[name]["calls"]} == {"image-pe-diffusers", "image-pe-openai", "dpiti"}
    head = (folder / "private" / "comparison.md").read_text().split("| method |", 1)[1].split("\n", 1)[0]
    assert all(column in head for column in ("epsilon", "dollars", "model calls", "seconds"))
    for cell in cells_of(folder):
        if (cell / "release" / "privacy.json").exists():
            assert place("verify", cell).code == 0


def toml(value: Any) -> str:
    """A value as TOML writes it, in a line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)
