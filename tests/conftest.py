"""What all tests share: a state folder of their own, so that no test sees the ledgers of another, or the user's."""

from __future__ import annotations

import os
import tempfile

import pytest

os.environ["PRIVOLVE_STATE"] = tempfile.mkdtemp(prefix="privolve-state-")


@pytest.fixture(autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVOLVE_STATE", str(tmp_path_factory.mktemp("state")))
