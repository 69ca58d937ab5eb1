"""Several processes train as one would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("distributed_worker.py")


def trained(folder: Path, size: int) -> list[dict[str, Any]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(folder), str(rank), str(size)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "\n".join(said)[-3000:]
    return [json.loads((folder / f"weights-{rank}-{size}.json").read_text()) for rank in range(size)]


@pytest.mark.slow
def test_two_processes_come_to_the_bits_of_one_for_equal_masks(tmp_path: Path):
    (alone,) = trained(tmp_path, 1)
    first, second = trained(tmp_path, 2)
    assert first["state"] == second["state"] == alone["state"]
    # Noise once, by the first, which alone writes a log.
    assert (first["noises"], second["noises"], alone["noises"]) == (5, 0, 5)
    assert first["masks"] == second["masks"] == 5
    assert first["files"] == ["steps.jsonl"] and second["files"] == []
