from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path


def test_fifty_kills_break_no_promise():
    worker = Path(__file__).with_name("crash_worker.py")
    # In memory where there is such a folder: a killed process loses nothing that it wrote, so that syncs only cost time.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        command = [sys.executable, str(worker), folder, "50"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["found"] == []
    assert result["attempts"] == 50
    assert len(result["named"]) == 15 and all(result["named"].values())
    assert result["timed"] >= 5
