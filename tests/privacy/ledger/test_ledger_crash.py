from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_fifty_kills_break_no_promise(tmp_path: Path):
    worker = Path(__file__).with_name("crash_worker.py")
    command = [sys.executable, str(worker), str(tmp_path), "50"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["found"] == []
    assert result["attempts"] == 50
    # Every first passage of a named point kills; the run passes each twice but those of its end.
    missed = [point for point, kills in result["named"].items() if not kills]
    assert missed == ["statement-after-entry:2", "statement-after-chain:2"]
    assert result["timed"] >= 10
