"""A training, too, goes on as if an unusable record's slot held any other ghost: bit by bit, outside `private/`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from privolve.privacy import ledger

pytest.importorskip("torch")


def _ghosts():
    name = "privolve_ghosts"
    if name not in sys.modules:
        spec = spec_from_file_location(name, Path(__file__).with_name("test_ghosts.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


ghosts = _ghosts()


class FrozenNoise(ghosts.FrozenNoise):
    """The same masks and noise in every run, so that runs can be compared; never for claims."""

    def mask(self, n: int, probability: float) -> np.ndarray:
        return self._rng.random(n) < probability

    def gaussian(self, shape: tuple[int, ...], scale: float) -> np.ndarray:
        return self._rng.normal(0, scale, shape)


@pytest.fixture(scope="module")
def run_with(workplace, glyphs: Path, tmp_path_factory: pytest.TempPathFactory):
    """Trains with something else in the one slot; gives what was said and what may be seen."""
    patch = pytest.MonkeyPatch()
    patch.setattr(ledger, "SystemRng", FrozenNoise)

    def run(change: Callable[[Path], object] | None) -> Mapping[str, bytes]:
        work = workplace(tmp_path_factory.mktemp("run"))
        shutil.copytree(glyphs, work.folder / "data")
        if change is not None:
            (work.folder / ghosts.SLOT).unlink()
            change(work.folder / ghosts.SLOT)
        work.job(
            "train",
            data='{ kind = "folder", path = "data", classes = ["0", "1"], size = [8, 8], channels = 1, resize = "refuse", '
            "holdout = 0.1 }",
            evaluation="{ unprotected = true }",
        )
        outcome = work("run", "job.toml", "--out", "run")
        assert (outcome.code, outcome.err) == (0, "")
        seen = {"stdout": outcome.out.encode(), "exported": work("export", "run", "public").out.encode()}
        for path in sorted((work.folder / "run").rglob("*")):
            inside = path.relative_to(work.folder / "run")
            if path.is_file() and inside.parts[0] != "private":
                seen[str(inside)] = ghosts.alike(path)
        return seen

    yield run
    patch.undo()


@pytest.fixture(scope="module")
def first(run_with) -> Mapping[str, bytes]:
    return run_with(ghosts.GHOSTS["broken"])


@pytest.mark.parametrize("kind", ["empty", "of another size", "a pipe"])
def test_every_ghost_is_like_every_other_to_a_training(run_with, first: Mapping[str, bytes], kind: str) -> None:
    seen = run_with(ghosts.GHOSTS[kind])
    assert ghosts.said(seen) == ghosts.said(first)
    assert seen.keys() == first.keys()
    assert [name for name in seen if name != "stdout" and seen[name] != first[name]] == []


def test_a_record_that_can_be_used_is_seen_in_the_weights_and_changes_no_word(
    run_with, first: Mapping[str, bytes]
) -> None:
    """Else the comparison above would say nothing."""
    seen = run_with(None)
    assert seen.keys() == first.keys()
    differs = [name for name in seen if seen[name] != first[name]]
    assert "release/model.npz" in differs and "release/pictures/1-central-images.npz" in differs
    assert "journal.jsonl" not in differs


def test_a_training_on_ghosts_alone_runs_to_its_end(workplace, tmp_path: Path) -> None:
    work = workplace(tmp_path)
    for label in "01":
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(30):
            (tmp_path / "data" / label / f"{number}.png").write_bytes(b"no image")
    work.job("train", evaluation="{ unprotected = true }")
    outcome = work("run", "job.toml", "--out", "run")
    assert (outcome.code, outcome.err) == (0, "")
    assert work("verify", "run").code == 0
