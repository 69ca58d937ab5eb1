"""A run that is killed again and again, each time in a fork of this process, which stays warm.

Called by test_ledger_crash.py: `crash_worker.py FOLDER KILLS` prints one JSON object of what happened.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from privolve.privacy import durable, statement
from privolve.privacy.ledger import Ledger, Plan, PlannedRelease
from privolve.privacy.ledger_book import Book
from privolve.privacy.ledger_store import read_entries
from privolve.privacy.mechanism import DiscreteGaussian, PrivacyTarget, Relation
from privolve.privacy.private import Private

RELEASES = 5
SCALE = 20.0
TOTAL = (1.0, 1e-5)
AGAIN = [f"ledger-{when}-{what}" for what in ("charge", "save") for when in ("before", "during", "after")]
POINTS = [*AGAIN, "ledger-during-opening", "statement-after-entry", "statement-after-chain"]
"""Every named failpoint of the ledger; a run passes those of `AGAIN` once a release."""


@dataclass(frozen=True)
class Votes:
    values: np.ndarray

    def parts(self) -> Iterator[bytes]:
        yield self.values.tobytes()


@dataclass(frozen=True)
class Histogram:
    iteration: int

    @property
    def cost(self) -> DiscreteGaussian:
        return DiscreteGaussian(scale=SCALE)

    def describe(self) -> dict[str, float]:
        return {"scale": SCALE}

    def __call__(self, secret: object, data: Votes) -> dict[str, np.ndarray]:
        return {"histogram": secret.discrete_gaussian(data.values * (self.iteration + 1), SCALE)}  # type: ignore


@dataclass(frozen=True)
class LoggedNoise:
    """Writes down each draw before it gives it away."""

    log: Path

    def discrete_gaussian(self, counts: np.ndarray, scale: float) -> np.ndarray:
        noise = np.frombuffer(os.urandom(8 * counts.size), dtype=np.int64) >> 40
        with self.log.open("ab") as file:
            file.write(noise.tobytes())
        return counts + noise


class Slots:
    def __len__(self) -> int:
        return 50

    def raw(self, slot: int) -> bytes:
        return f"record {slot}".encode()


def command(folder: Path) -> None:
    """The run: five histograms, each published as it comes, and the certificate."""
    plan = Plan(
        run="run",
        partition="train",
        share=PrivacyTarget(epsilon=1.0, delta=1e-5, unit="image"),
        releases=tuple(
            PlannedRelease(name=f"run/histogram/{number}", cost=DiscreteGaussian(scale=SCALE))
            for number in range(RELEASES)
        ),
    )
    os.environ["PRIVOLVE_STATE"] = str(folder / "state")
    with Ledger.create_or_open(
        folder / "ledgers" / "set",
        name="set",
        slots=50,
        unit="image",
        relation=Relation.ZERO_OUT,
        total=TOTAL,
        records=Private(Slots()),
        secret=LoggedNoise(folder / "draws"),
    ) as ledger:
        ledger.reserve(plan)
        artefacts: dict[str, Path] = {}
        for number in range(RELEASES):
            votes = Private(Votes(np.arange(16, dtype=np.int64)))
            outputs = ledger.release(
                Histogram(number), votes, name=f"run/histogram/{number}", question=f"step {number}"
            )
            path = folder / "run" / "iterations" / f"{number}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            durable.write_bytes(path, outputs["histogram"].tobytes())
            artefacts[f"iterations/{number}.npy"] = path
        statement.write(ledger, "run", release_dir=folder / "run" / "release", artefacts=artefacts, manifest={})


def attempt(folder: Path, *, point: str = "", after_s: float | None = None) -> bool:
    """The command in a process of its own, killed at a named point or after some time; whether it was killed."""
    child = os.fork()
    if not child:
        try:
            os.environ["PRIVOLVE_FAILPOINT"] = point
            command(folder)
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
    if after_s is not None:
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"the command failed in {folder}")
    return os.WIFSIGNALED(status)


def published(folder: Path) -> dict[str, bytes]:
    """What anybody may have seen."""
    files = [*(folder / "run" / "iterations").glob("*.npy"), *(folder / "run" / "release").glob("[!.]*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def violations(folder: Path) -> list[str]:
    """What does not hold of the invariants I1 to I5, right after a kill."""
    if not (folder / "ledgers" / "set" / "ledger.sqlite").exists():
        return ["published before there was a ledger"] if published(folder) else []
    found: list[str] = []
    entries = read_entries(folder / "ledgers" / "set")  # I4: raises if the chain is broken.
    book = Book(entries)
    draws = (folder / "draws").read_bytes() if (folder / "draws").exists() else b""
    noises = [np.frombuffer(draws[start : start + 128], dtype=np.int64) for start in range(0, len(draws), 128)]
    charges = [entry for entry in entries if entry.kind == "charge"]
    if len(noises) > len(charges):
        found.append("I1: noise was drawn without a charge")
    for number in range(RELEASES):
        path = folder / "run" / "iterations" / f"{number}.npy"
        outcomes = [attempt.outcome for attempt in book.attempts(f"run/histogram/{number}")]
        if outcomes.count("released") > 1:
            found.append("I2: two outputs under one name")
        if path.exists():
            if outcomes[-1:] != ["released"]:
                found.append("I1: published before it was charged and saved")
            values = np.frombuffer(path.read_bytes(), dtype=np.int64) - np.arange(16) * (number + 1)
            if sum(np.array_equal(values, noise) for noise in noises) != 1:
                found.append("I3: published noise that was not drawn once")
    if max(Counter(noise.tobytes() for noise in noises).values(), default=0) > 1:
        found.append("I3: the same noise twice")
    if book.plans and (book.above_share("run") or book.spent().epsilon > TOTAL[0]):
        found.append("I5: over budget")
    return found


def main(root: Path, kills: int) -> None:
    found: list[str] = []
    named: Counter[str] = Counter()
    timed = attempts = 0

    def checked(folder: Path, seen: dict[str, bytes]) -> dict[str, bytes]:
        found.extend(violations(folder))
        now = published(folder)
        found.extend(f"I2: {name} changed" for name in seen if "histogram" in name and now.get(name) != seen[name])
        return now

    command(root / "warm")
    start = time.monotonic()
    attempt(root / "undisturbed")
    duration_s = time.monotonic() - start
    jobs = [[point] for point in (*POINTS, *(f"{point}:2" for point in AGAIN))]
    while sum(map(len, jobs)) < kills:
        jobs.append([""] * min(3, kills - sum(map(len, jobs))))
    for number, job in enumerate(jobs):
        folder = root / str(number)
        folder.mkdir(parents=True)
        seen: dict[str, bytes] = {}
        for point in job:
            attempts += 1
            if point:
                named[point] += attempt(folder, point=point)
            else:
                timed += attempt(folder, after_s=random.uniform(0, duration_s))
            seen = checked(folder, seen)
        attempt(folder)
        seen = checked(folder, seen)
        problems = statement.verify(folder / "run")
        attempt(folder)
        if published(folder) != seen:
            problems.append("I6: the same command again changed what was published")
        found.extend(problems)
    print(json.dumps({"found": found, "named": named, "timed": timed, "attempts": attempts}))


if __name__ == "__main__":
    for name in ("warm", "undisturbed"):
        (Path(sys.argv[1]) / name).mkdir(parents=True)
    main(Path(sys.argv[1]), int(sys.argv[2]))
