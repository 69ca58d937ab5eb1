"""What must be true before a run may take its share of the ledger, and when it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from privolve.adapters.embedded.pixels import PixelsConfig
from privolve.privacy.ledger_store import read_entries


def kinds(folder: Path) -> list[str]:
    (ledger,) = [path.parent for path in (folder / "ledgers").glob("*/ledger.sqlite")]
    return [entry.kind for entry in read_entries(ledger)]


def test_a_model_that_cannot_be_opened_costs_no_share(work, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: PixelsConfig) -> None:
        raise OSError(2, "No such file or directory", "weights.safetensors")

    work.job()
    with monkeypatch.context() as patch:
        patch.setattr(PixelsConfig, "open", missing)
        assert work("run", "job.toml", "--out", "run").code == 2
    assert "plan" not in kinds(work.folder)
    assert work("run", "job.toml", "--out", "run").code == 0


def test_a_run_does_not_go_on_with_another_model(work, monkeypatch: pytest.MonkeyPatch) -> None:
    work.job()
    assert work("run", "job.toml", "--out", "run").code == 0
    manifest = work.folder / "run" / "run.json"
    began = json.loads(manifest.read_text())
    began["status"] = "running"
    began["identities"]["eye"]["revision"] = "another"
    manifest.write_text(json.dumps(began))
    assert "began with another model" in work("run", "job.toml", "--out", "run").line
