"""One run of a job by the real command, in a folder of its own: what it says in the end, and what it took."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """`accuracy` on held-out real images, by what the classifier was trained on; `seconds` of wall clock and of CPU."""

    accuracy: Mapping[str, float]
    epsilon: float
    seconds: float
    cpu_seconds: float


def measure(job: Path, *settings: str) -> Measured:
    """Run `privolve run JOB --set ...` with an empty ledger and an empty cache. Raises CalledProcessError where it fails."""
    command = [str(Path(sys.executable).with_name("privolve")), "run", str(job), "--out", "run"]
    for setting in settings:
        command += ["--set", setting]
    with tempfile.TemporaryDirectory() as folder:
        before, start = _cpu_seconds(), time.perf_counter()
        subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
        seconds, cpu_seconds = time.perf_counter() - start, _cpu_seconds() - before
        run = Path(folder) / "run"
        scores = json.loads((run / "private" / "scores.json").read_text(encoding="utf-8"))
        certificate = json.loads((run / "release" / "privacy.json").read_text(encoding="utf-8"))
    return Measured(
        accuracy={each["subject"]: each["value"] for each in scores if each["name"] == "classifier accuracy"},
        epsilon=certificate["epsilon"],
        seconds=seconds,
        cpu_seconds=cpu_seconds,
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
