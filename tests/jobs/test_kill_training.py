"""A training that is killed anywhere and given again goes on, draws nothing released again, and ends verified."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privolve.privacy.accounting import cost_from_json, epsilon
from privolve.privacy.ledger_store import read_entries

pytest.importorskip("torch")
NURSERY = Path(__file__).with_name("kill_nursery.py")

BASE = """
kind = "train"
[data]
kind = "digits"
slots = [0, 240]
[privacy]
epsilon = 8.0
[samples]
count = 20
pictures = false
previews = 1
[performance]
checkpoint_every = 2
[adapters]
painter = { kind = "glyphs" }
[public]
kind = "painted"
count = 60
[trainer]
expected_batch = 48
epochs = 1.5
multiplicity = 1
sampling = { steps = 2 }
"""
JOBS = {
    # Every kind of stage and query that does not need diffusers, in one course; which noise is no matter here.
    "privimage": BASE
    + """
kind = "privimage"
noise = 3.0
votes = 1
semantic_steps = 3
semantic_width = 4
pretraining = { steps = 3, batch = 8 }
warm_up = [
  { kind = "central-images", rounds = 1, fit = { steps = 2, batch = 8 } },
  { kind = "feature-means", features = 20, steps = 3, count = 20, width = 4, fit = { steps = 2, batch = 8 } },
]
""",
    "dp-ldm": BASE
    + """
kind = "dp-ldm"
noise = 3.0
autoencoder = { steps = 3, batch = 8 }
pretraining = { steps = 3, batch = 8 }
""",
}

IN_ORDER = (
    "ledger-during-opening",
    # The public classifier, then the first release: two of its three free attempts are lost.
    "stage-after-checkpoint",
    "stage-before-save",
    "ledger-before-charge",
    "ledger-during-charge",
    "ledger-after-charge",
    "ledger-before-save",
    # Pre-training, and what comes of the other two queries.
    "ledger-after-save",
    "stage-after-checkpoint:2",
    "stage-after-save",
    "ledger-during-save",
    "stage-after-checkpoint:3",
    # Six steps, a checkpoint every second one.
    "dp-sgd-after-mask:2",
    "checkpoint-before-header",
    "checkpoint-after-header",
    "dp-sgd-after-noise:2",
    "checkpoint-after-header:2",
    "ledger-before-save",
    "training-during-model",
    "training-before-samples",
    "training-after-samples",
    "training-before-scores",
    "statement-after-entry",
    "statement-after-chain",
    "run-before-report",
)
"""In the order in which a run comes to them."""
FEW = (
    "stage-after-checkpoint:4",
    "ledger-before-save",
    "checkpoint-after-header",
    "dp-sgd-after-noise",
    "training-after-samples",
)


class Place:
    """A folder with a job, and a process that gives commands there."""

    def __init__(self, folder: Path, nursery: Nursery, job: str) -> None:
        self.folder = folder
        self.nursery = nursery
        self.job = folder / "job.toml"
        self.job.write_text(JOBS[job])
        self.kills = 0

    def __call__(self, *arguments: str, failpoint: str = "") -> dict[str, Any]:
        state = str(self.folder / "state")
        return self.nursery.do(self.folder, arguments, {"PRIVOLVE_STATE": state, "PRIVOLVE_FAILPOINT": failpoint})

    def killed_at(self, failpoint: str) -> None:
        """Give the command; it must come to the failpoint and die there."""
        said = self("run", "job.toml", failpoint=failpoint)
        assert said["code"] == -signal.SIGKILL, f"{failpoint} was not reached: {said}"
        self.kills += 1
        self.check()

    def finish(self) -> str:
        said = self("run", "job.toml")
        assert (said["code"], said["err"]) == (0, ""), said
        return said["out"]

    @property
    def run(self) -> Path:
        (found,) = (path.parent for path in self.folder.glob("experiments/*/run.json"))
        return found

    def entries(self) -> list[Any]:
        ledger = self.folder / "ledgers" / "digits"
        return read_entries(ledger) if (ledger / "ledger.sqlite").exists() else []

    def check(self) -> None:
        """What holds after every kill: one plan, a charge before each release, one release of a name, whole files alone."""
        kinds = Counter(entry.kind for entry in self.entries())
        assert kinds["plan"] <= 1
        charged: set[str] = set()
        released: set[str] = set()
        reached: dict[tuple[str, int], int] = {}
        went_on: dict[tuple[str, int], int] = {}
        for entry in self.entries():
            name = entry.body.get("name", "")
            if entry.kind == "charge":
                assert name not in released, "a release that is stored was charged again"
                charged.add(name)
            if entry.kind in ("continued", "shown"):
                attempt = (name, entry.body["attempt"])
                assert entry.body["step"] >= max(reached.values(), default=0), "a training went back"
                assert entry.kind == "shown" or entry.body["step"] > went_on.get(attempt, 0), (
                    "twice from one checkpoint"
                )
                reached[attempt] = entry.body["step"]
                if entry.kind == "continued":
                    went_on[attempt] = entry.body["step"]
            if entry.kind == "release":
                assert name in charged and name not in released
                released.add(name)
        for path in self.folder.rglob("*.npz"):
            if not path.name.startswith("."):
                with np.load(path, allow_pickle=False) as whole:
                    assert all(np.asarray(whole[name]).shape is not None for name in whole.files)

    def check_finished(self, releases: int, paid: int | None = None) -> None:
        """`paid`: how many charges they cost together (one each)."""
        self.check()
        assert self("verify", str(self.run))["code"] == 0
        certificate = json.loads((self.run / "release" / "privacy.json").read_text())
        assert len(certificate["releases"]) == releases
        assert sum(each["paid"] for each in certificate["releases"]) == (releases if paid is None else paid)
        costs = [cost_from_json(each["cost"]) for each in certificate["releases"] for _ in range(each["paid"])]
        assert float(certificate["epsilon"]) == pytest.approx(epsilon(costs, float(certificate["delta"])), rel=1e-6)
        assert not [path for path in self.run.rglob(".*") if path.name != ".lock"]
        assert not list((self.run / "private" / "training").glob("checkpoint-*"))
        stages = self.folder / "experiments" / ".stages"
        left = {path.name for stage in stages.iterdir() for path in stage.iterdir()}
        assert left <= {"done.npz", ".lock"}
        assert len(list(self.run.glob("iterations/*/preview.npz"))) == 1


class Nursery:
    """See `kill_nursery.py`."""

    def __init__(self, folder: Path) -> None:
        for name, job in JOBS.items():
            (folder / f"{name}.toml").write_text(job)
        self.process = subprocess.Popen(
            [sys.executable, str(NURSERY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        warm = [str(folder / f"{name}.toml") for name in JOBS]
        assert self._ask({"warm": warm}) == {"ready": True}

    def do(self, folder: Path, arguments: tuple[str, ...], environment: dict[str, str]) -> dict[str, Any]:
        return self._ask({"folder": str(folder), "arguments": list(arguments), "environment": environment})

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)

    def _ask(self, task: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    started = Nursery(tmp_path_factory.mktemp("nursery"))
    yield started
    started.close()


def test_a_training_killed_in_five_places_goes_on_and_ends_verified(nursery: Nursery, tmp_path: Path) -> None:
    place = Place(tmp_path, nursery, "privimage")
    for point in FEW:
        place.killed_at(point)
    place.finish()
    place.check_finished(releases=4)


@pytest.mark.slow
def test_a_latent_training_killed_in_its_public_stages_goes_on(nursery: Nursery, tmp_path: Path) -> None:
    place = Place(tmp_path, nursery, "dp-ldm")
    for point in ("stage-after-checkpoint:2", "stage-after-checkpoint:3", "dp-sgd-after-noise:3"):
        place.killed_at(point)
    place.finish()
    place.check_finished(releases=1)


@pytest.mark.slow
def test_a_training_killed_at_every_failpoint_ends_as_an_undisturbed_one_would(
    nursery: Nursery, tmp_path: Path
) -> None:
    place = Place(tmp_path, nursery, "privimage")
    for point in IN_ORDER:
        place.killed_at(point)
    place.finish()
    assert place.kills == len(IN_ORDER)
    # The training took five attempts, two more than one charge pays.
    place.check_finished(releases=4, paid=6)
    continued = [entry.body["step"] for entry in place.entries() if entry.kind == "continued"]
    assert continued == sorted(continued) and continued[-1] == 6
    # A replay of what is stored makes the same files, and charges nothing.
    before = artefacts(place.run)
    charges = sum(entry.kind == "charge" for entry in place.entries())
    manifest = json.loads((place.run / "run.json").read_text())
    for name in ("model.json", "samples.npz"):
        (place.run / "release" / name).unlink()
    (place.run / "private" / "scores.json").unlink()
    (place.run / "run.json").write_text(json.dumps(manifest | {"status": "running"}))
    place.finish()
    assert artefacts(place.run) == before
    assert sum(entry.kind == "charge" for entry in place.entries()) == charges


def artefacts(run: Path) -> dict[str, bytes]:
    """The public files but those that hold counts of attempts and times."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for folder in ("iterations", "release")
        for path in (run / folder).rglob("*")
        if (path.is_file() and path.suffix in (".npz", ".png", ".npy")) or path.name in ("model.json", "scores.json")
    }


def test_the_failpoints_of_trainings_are_those_that_are_killed_at_here() -> None:
    root = NURSERY.parent.parent.parent
    places = [
        *(root / "trainers").rglob("*.py"),
        *(root / "jobs" / f"{name}.py" for name in ("stages", "store", "training")),
    ]
    named = {name for path in places for name in re.findall(r'failpoint\("([^"]+)"', path.read_text(encoding="utf-8"))}
    assert named <= {point.partition(":")[0] for point in IN_ORDER}
    assert {point.partition(":")[0] for point in FEW} <= {point.partition(":")[0] for point in IN_ORDER}
