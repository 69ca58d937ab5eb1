"""Several processes train one model through the command line: the first holds run and ledger, the others help and are silent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

JOB = """
kind = "train"
[data]
kind = "digits"
slots = [0, 240]
[privacy]
epsilon = 8.0
[samples]
count = 20
pictures = false
[adapters]
painter = { kind = "glyphs" }
[public]
kind = "painted"
count = 60
[trainer]
kind = "pdp-diffusion"
noise = 3.0
expected_batch = 48
epochs = 1
multiplicity = 1
sampling = { steps = 2 }
pretraining = { steps = 2, batch = 8 }
warm_up = [{ kind = "central-images", rounds = 1, fit = { steps = 2, batch = 8 } }]
"""


def torchrun(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["--redirects", "3", "--tee", "0", "--log-dir", str(folder / "said")]
    return subprocess.run(
        [*command, "-m", "privolve.cli", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PRIVOLVE_STATE": str(folder / "state")},
        capture_output=True,
        text=True,
        timeout=400,
    )


def said_by(folder: Path, rank: int) -> str:
    """What a process wrote, but for what torch's own transport says of its connections."""
    lines = [
        line
        for path in sorted((folder / "said").rglob(f"{rank}/std*.log"))
        for line in path.read_text().splitlines()
        if "[Gloo]" not in line
    ]
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_train_what_one_ledger_holds_and_the_second_is_silent(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(JOB)
    done = torchrun(tmp_path, "run", "job.toml")
    assert done.returncode == 0, done.stderr + said_by(tmp_path, 0) + said_by(tmp_path, 1)
    assert said_by(tmp_path, 1) == ""
    assert "certif" in said_by(tmp_path, 0) or "epsilon" in said_by(tmp_path, 0)
    (run,) = (path.parent for path in tmp_path.glob("experiments/*/run.json"))
    certificate = json.loads((run / "release" / "privacy.json").read_text())
    assert [each["name"].rpartition("/")[2] for each in certificate["releases"]] == ["1-central-images", "training"]
    checked = subprocess.run(
        [sys.executable, "-m", "privolve.cli", "verify", str(run)], cwd=tmp_path, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout
    # Both saw records: the log of the first counts its own share of about half.
    lines = [json.loads(line) for line in (run / "private" / "training" / "steps.jsonl").read_text().splitlines()]
    assert all(line["records"] < 48 for line in lines)
    again = torchrun(tmp_path, "run", "job.toml")
    assert again.returncode == 0, again.stderr
    assert len(list(tmp_path.glob("experiments/*/run.json"))) == 1
