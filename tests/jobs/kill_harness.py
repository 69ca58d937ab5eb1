"""A place where `privolve run` is killed and given again, and what must hold of the folders in between and in the end.

What is read of the ledger here is read through its store; nothing of the run's own memory is asked.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from privolve.data.digits import DigitsConfig
from privolve.jobs import store
from privolve.privacy.ledger_book import Book
from privolve.privacy.ledger_chain import Entry
from privolve.privacy.ledger_store import read_entries
from privolve.privacy.private import open_private

HERE = Path(__file__).parent
SOURCE = HERE.parent.parent
COMMAND = Path(sys.executable).with_name("privolve")
CHUNK = 32
HOLD_COUNTS = {"ledger.jsonl", "privacy.json", "privacy.txt", "report.html"}
"""Of `release/`: they rightly hold how many entries and attempts there were."""

IMAGES = """
kind = "image-pe"
trust = ["eye"]
data = { kind = "digits" }
privacy = { epsilon = 2.0, delta = 1e-6, total_epsilon = 8.0, total_delta = 1e-5 }
adapters = { painter = { kind = "counting" }, eye = { kind = "counting" } }
performance = { chunk = 32 }
[evolution]
iterations = 2
count = 20
variations = 1
shares = "released"
share_noise = 40.0
"""
CAPTIONS = """
kind = "dpiti"
trust = ["eye"]
data = { kind = "digits" }
privacy = { epsilon = 2.0, delta = 1e-6, total_epsilon = 8.0, total_delta = 1e-5 }
adapters = { writer = { kind = "counting" }, painter = { kind = "counting" }, eye = { kind = "counting" } }
performance = { chunk = 32 }
[evolution]
iterations = 2
count = 20
variations = 1
initial_prompt = "glyphs"
variation_prompt = "glyphs-fill"
"""
FILES_OF_AN_ITERATION = {
    "image-pe": (
        {"population.jsonl", "images.npz"},
        {"population.jsonl", "images.npz", "histogram.npy", "selected.npy"},
    ),
    "dpiti": ({"population.jsonl"}, {"population.jsonl", "histogram.npy", "selected.npy"}),
}


def failpoints() -> set[str]:
    """Every name that the source gives to `failpoint`, directly or as `point`."""
    names: set[str] = set()
    for path in SOURCE.glob("*/**/*.py"):
        inside = path.relative_to(SOURCE).parts
        if inside[0].startswith(".") or inside[0] in ("tests", "build"):
            continue
        names |= set(re.findall(r'(?:failpoint\(|point=)"([^"]+)"', path.read_text(encoding="utf-8")))
    return names


class Place:
    """A folder with a job, the counting adapter installed beside it, and the log of what that adapter answered."""

    def __init__(self, folder: Path, job: str, *, work: Path | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.work = work or folder / "work"
        self.work.mkdir(parents=True, exist_ok=True)
        self.log = folder / "answered.log"
        self.log.touch()
        self.attempts = 0
        self.kills = 0
        self.job = folder / "job.toml"
        self.job.write_text(job, encoding="utf-8")
        package = folder / "packages"
        about = package / "counting-1.0.dist-info"
        about.mkdir(parents=True)
        shutil.copyfile(HERE / "kill_adapter.py", package / "kill_adapter.py")
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text("[privolve.adapters]\ncounting = kill_adapter:CountingConfig\n")

    def start(self, *arguments: str, environment: Mapping[str, str] = {}) -> subprocess.Popen[str]:
        """`privolve ARGUMENTS` (by default `run JOB`) in the work folder."""
        self.attempts += 1
        return subprocess.Popen(
            [str(COMMAND), *(arguments or ("run", str(self.job)))],
            cwd=self.work,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join(
                    [str(self.folder / "packages"), *filter(None, [os.environ.get("PYTHONPATH")])]
                ),
                "COUNTING_LOG": str(self.log),
                "COUNTING_ATTEMPT": str(self.attempts),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *arguments: str, environment: Mapping[str, str] = {}) -> tuple[int, str, str]:
        return ended(self.start(*arguments, environment=environment))

    def finish(self, *arguments: str) -> str:
        code, output, errors = self.call(*(arguments or ("run", str(self.job))))
        assert (code, errors) == (0, ""), (code, errors)
        return output

    def refused(self, code: int, *arguments: str, environment: Mapping[str, str] = {}) -> str:
        """The one line with which a command ends with `code`."""
        found, output, errors = self.call(*arguments, environment=environment)
        assert found == code, (found, output, errors)
        assert len(errors.splitlines()) == 1, errors
        assert errors.startswith("privolve: ")
        return errors

    # Kills.

    def killed_at(self, failpoint: str, *arguments: str) -> None:
        """Give the command again; it must pass the failpoint and die there."""
        code, _, errors = self.call(*arguments, environment={"PRIVOLVE_FAILPOINT": failpoint})
        assert code == -signal.SIGKILL, f"{failpoint} was not reached: {code} {errors}"
        self.kills += 1

    def killed_at_change(self, number: int, *arguments: str) -> bool:
        """Give the command again and kill it before its nth change of a file; False if it ended before."""
        print("kill at change", number)
        code, _, errors = self.call(*arguments, environment={"COUNTING_KILL_AT_CHANGE": str(number)})
        assert code in (0, -signal.SIGKILL), errors
        self.kills += code != 0
        return code != 0

    def killed_after(self, delay_s: float, *arguments: str) -> bool:
        """Give the command again and kill it so long after it took up the run; False if it ended before."""
        print("kill after", delay_s)
        process = self.start(*arguments)
        self.wait_until_at_work(process)
        time.sleep(delay_s)
        process.kill()
        code, _, errors = ended(process)
        assert code in (0, -signal.SIGKILL), errors
        self.kills += code != 0
        return code != 0

    def wait_until_at_work(self, process: subprocess.Popen[str]) -> None:
        """Until the process has journaled that it began, or ended."""
        before = self._journaled()
        while process.poll() is None and self._journaled() == before:
            time.sleep(0.005)

    def wait_until_asked(self, process: subprocess.Popen[str], batches: int) -> None:
        """Until the adapter has answered so many batches more."""
        before = len(self.answered())
        while process.poll() is None and len(self.answered()) < before + batches:
            time.sleep(0.005)
        assert process.poll() is None, ended(process)

    def _journaled(self) -> int:
        return sum(path.stat().st_size for path in self.work.glob("experiments/*/journal.jsonl"))

    # What lies there.

    def runs(self) -> list[Path]:
        return sorted(path.parent for path in self.work.glob("experiments/*/run.json"))

    @property
    def run(self) -> Path:
        (only,) = self.runs()
        return only

    @property
    def ledger(self) -> Path:
        return self.work / "ledgers" / "digits"

    def entries(self) -> list[Entry]:
        return read_entries(self.ledger) if (self.ledger / "ledger.sqlite").exists() else []

    def answered(self) -> list[list[str]]:
        """The batches that the adapter answered: attempt, then the digest of each request."""
        return [line.split() for line in self.log.read_text().splitlines()]

    # What must hold.

    def check(self) -> None:
        """What holds after every kill."""
        entries = self.entries()
        self._check_order(entries)
        self._check_budget(entries)
        self._check_requests()
        for run in self.runs():
            self._check_iterations(run, entries)

    def check_finished(self, run: Path) -> None:
        """What holds of a run that ended: verified, tidy, and equal to an undisturbed one that gets the stored releases."""
        assert self.call("verify", str(run))[0] == 0
        hidden = [path for path in run.rglob(".*") if path.name != ".lock"]
        assert not hidden
        assert json.loads((run / "run.json").read_text())["status"] == "finished"
        iterations = json.loads((run / "run.json").read_text())["config"]["evolution"]["iterations"]
        assert store.finished_iterations(run / "iterations") == list(range(iterations + 1))

    def check_replay(self, run: Path, *arguments: str) -> None:
        """The run folder but `run.json` is thrown away; the same command makes the same files of stored releases and answers."""
        before, asked, charged = artefacts(run), len(self.answered()), kinds(self.entries())["charge"]
        for path in run.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "run.json":
                path.unlink()
        manifest = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps(manifest | {"status": "running"}))
        self.finish(*arguments)
        after = artefacts(run)
        assert sorted(after) == sorted(before)
        assert [name for name in before if before[name] != after[name]] == []
        assert len(self.answered()) == asked, "an undisturbed replay asked an adapter again"
        assert kinds(self.entries())["charge"] == charged, "an undisturbed replay charged again"
        assert self.call("verify", str(run))[0] == 0

    def check_noise(self) -> int:
        """No release lacks noise and no two have the same, the clean counts being computed again; returns how many were seen."""
        scales = {
            (entry.body["name"]): entry.body["cost"]["scale"] for entry in self.entries() if entry.kind == "charge"
        }
        noises: list[np.ndarray] = []
        for run in self.runs():
            manifest = json.loads((run / "run.json").read_text())
            if manifest["kind"] != "image-pe":
                continue
            for number in store.finished_iterations(run / "iterations")[1:]:
                population = store.load_population(run / "iterations" / f"{number - 1:03d}")
                released = np.load(run / "iterations" / f"{number:03d}" / "histogram.npy")
                noise = released - clean_votes(population)
                # The clean counts are the right ones only if what is left is noise of that scale.
                assert np.abs(noise).max() < 9 * scales[f"{manifest['id']}/histogram/{number:03d}"]
                noises.append(noise)
        for index, noise in enumerate(noises):
            assert np.count_nonzero(noise) > len(noise) / 4
            for other in noises[:index]:
                size = min(len(noise), len(other))
                assert not np.array_equal(noise[:size], other[:size])
                assert not np.array_equal(noise[-size:], other[-size:])
        return len(noises)

    def _check_order(self, entries: list[Entry]) -> None:
        """A release entry follows a charge of its attempt, and is the only one of its name; an attempt is charged once."""
        charged: set[tuple[str, int]] = set()
        released: set[str] = set()
        for entry in entries:
            if entry.kind == "charge":
                attempt = (entry.body["name"], entry.body["attempt"])
                assert attempt not in charged
                assert attempt[0] not in released, "a release that is stored was charged again"
                charged.add(attempt)
            if entry.kind == "release":
                assert (entry.body["name"], entry.body["attempt"]) in charged, "released without a charge before it"
                assert entry.body["name"] not in released, "two outputs under one name"
                released.add(entry.body["name"])
        assert all(attempt <= 3 for _, attempt in charged)

    def _check_budget(self, entries: list[Entry]) -> None:
        if not entries:
            return
        book = Book(entries)
        assert all(not book.above_share(run) for run in book.plans)
        total = book.terms.total
        if total is not None:
            assert sum(reserved.plan.share.epsilon for reserved in book.plans.values()) <= total[0]
            assert sum(reserved.plan.share.delta for reserved in book.plans.values()) <= total[1]

    def _check_requests(self) -> None:
        """Only what was in the last batch of an attempt, under way when it died, is asked again."""
        batches = self.answered()
        last = {batch[0]: index for index, batch in enumerate(batches)}
        settled: set[str] = set()
        for index, (attempt, *requests) in enumerate(batches):
            assert len(requests) <= CHUNK
            again = settled & set(requests)
            assert not again, f"{len(again)} requests were sent twice though their answers were stored"
            if last[attempt] != index:
                settled |= set(requests)

    def _check_iterations(self, run: Path, entries: list[Entry]) -> None:
        """Whole iterations alone, in order, and each histogram is that of a release entry."""
        manifest = json.loads((run / "run.json").read_text())
        first, later = FILES_OF_AN_ITERATION[manifest["kind"]]
        folders = sorted(path for path in run.glob("iterations/*") if not path.name.startswith("."))
        assert [path.name for path in folders] == [f"{number:03d}" for number in range(len(folders))]
        described = {entry.body["name"]: entry.body["arrays"] for entry in entries if entry.kind == "release"}
        for number, folder in enumerate(folders):
            names = {path.name for path in folder.iterdir()}
            assert names >= (later if number else first)
            assert not any(name.startswith(".") for name in names)
            store.load_population(folder)
            if number:
                saved = described[f"{manifest['id']}/histogram/{number:03d}"]["histogram"]
                assert sha256(folder / "histogram.npy") == saved["sha256"]
        if (run / "release" / "label_counts.json").exists():
            assert f"{manifest['id']}/labels" in described


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def kinds(entries: list[Entry]) -> Counter[str]:
    return Counter(entry.kind for entry in entries)


def artefacts(run: Path) -> dict[str, bytes]:
    """The public files but those that hold counts of attempts."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for folder in ("iterations", "release")
        for path in (run / folder).rglob("*")
        if path.is_file() and path.name not in HOLD_COUNTS
    }


def sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def clean_votes(population: Any) -> np.ndarray:
    """How many digits are nearest to each image of their label."""
    candidates = np.stack([each.image.pixels.reshape(-1) for each in population]).astype(np.float64)
    voters, labels = _voters()
    votes = np.zeros(len(candidates), dtype=np.int64)
    for label in range(10):
        rows = np.flatnonzero(population.labels == label)
        distances = ((voters[labels == label][:, None, :] - candidates[rows][None]) ** 2).sum(-1)
        np.add.at(votes, rows[distances.argmin(1)], 1)
    return votes


def _voters() -> tuple[np.ndarray, np.ndarray]:
    records = open_private(DigitsConfig().load(private_log=lambda _: None).train.records)
    read = [record for record in records.read_many(0, len(records)) if record is not None]
    return np.stack([record.content.reshape(-1) for record in read]).astype(np.float64), np.array(
        [each.label for each in read]
    )


def some_delay(generator: random.Random) -> float:
    """Most of a run's work is done within this after it began."""
    return generator.uniform(0.0, 2.5)
