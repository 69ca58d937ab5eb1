"""What all tests share: state folders of their own, so that no test sees the ledgers of another, or the user's.

A module's fixtures have one, and each test has one.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

_state = os.environ["PRIVOLVE_STATE"] = tempfile.mkdtemp(prefix="privolve-state-")
atexit.register(shutil.rmtree, _state, ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def _state_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRIVOLVE_STATE", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def _state_of_the_test(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVOLVE_STATE", str(tmp_path_factory.mktemp("state")))
