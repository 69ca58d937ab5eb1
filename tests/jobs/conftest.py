"""Small jobs on small glyphs, run in this process through the command line's own `main`."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from privolve.cli import main

SIZE = 8


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line that an error is: without a traceback, and naming the program."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("privolve: "), self.err
        return lines[0].removeprefix("privolve: ")


@dataclass(frozen=True)
class Workplace:
    """A folder that commands run in: `job.toml`, `data/`, and what commands make."""

    folder: Path

    def __call__(self, *arguments: str | Path) -> Outcome:
        """Run one command here."""
        out, err = io.StringIO(), io.StringIO()
        before = os.open(".", os.O_RDONLY)  # Not by its path, which may not be open to the user that a test became.
        os.chdir(self.folder)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    code = main([str(argument) for argument in arguments])
                except SystemExit as exit_of_argparse:
                    code = int(exit_of_argparse.code or 0)
        finally:
            os.fchdir(before)
            os.close(before)
        return Outcome(code=code, out=out.getvalue(), err=err.getvalue())

    def job(self, base: str = "image-pe", *, name: str = "job.toml", **changed: str | None) -> Path:
        """Write a job file: the small one of its kind, with some keys changed (TOML) or, where None, left out."""
        table = {**JOBS[base], **changed}
        path = self.folder / name
        path.write_text("".join(f"{key} = {value}\n" for key, value in table.items() if value is not None), "utf-8")
        return path

    @property
    def runs(self) -> list[Path]:
        return sorted(path.parent for path in (self.folder / "experiments").glob("*/run.json"))

    @property
    def entries(self) -> int:
        """How many things all ledgers hold; 0 without a ledger."""
        from privolve.privacy.ledger_store import read_entries

        return sum(len(read_entries(path.parent)) for path in (self.folder / "ledgers").glob("*/ledger.sqlite"))


IMAGE_PE = {
    "kind": '"image-pe"',
    "data": '{ kind = "folder", path = "data", classes = ["0", "1"], size = [8, 8], channels = 1, holdout = 0.2 }',
    "privacy": "{ epsilon = 20.0 }",
    "adapters": '{ painter = { kind = "glyphs" }, eye = { kind = "pixels" } }',
    "evolution": "{ iterations = 2, count = 8, variations = 2 }",
}
"""A job as the TOML of its keys, so that a test changes one."""

DPITI = {
    **IMAGE_PE,
    "kind": '"dpiti"',
    "adapters": '{ writer = { kind = "lexicon" }, painter = { kind = "glyph-painter" }, eye = { kind = "pixels" } }',
    "evolution": '{ iterations = 2, count = 8, variations = 2, initial_prompt = "glyphs", variation_prompt = "glyphs-fill" }',
}


TRAIN = {
    "kind": '"train"',
    "data": IMAGE_PE["data"],
    "privacy": IMAGE_PE["privacy"],
    "samples": "{ count = 8, previews = 1 }",
    "performance": "{ checkpoint_every = 1 }",
    "trainer": '{ kind = "dp-feta", noise = 3.0, expected_batch = 24, epochs = 1, multiplicity = 1, sampling = { steps = 2 }, '
    'warm_up = [{ kind = "central-images", rounds = 1, noise_multiplier = 5.0, fit = { steps = 2, batch = 8 } }] }',
}

JOBS = {"image-pe": IMAGE_PE, "dpiti": DPITI, "train": TRAIN}


def glyph(label: int, rng: np.random.Generator) -> np.ndarray:
    """A ring or a bar, a little different each time."""
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    if label == 0:
        ink = np.abs(np.hypot(rows, columns * rng.uniform(1.0, 1.6)) - rng.uniform(2.2, 3.2)) < 0.9
    else:
        ink = (np.abs(columns + rng.uniform(-0.3, 0.3) * rows) < rng.uniform(0.6, 1.4)) & (np.abs(rows) < 3.2)
    return (ink * 215 + rng.integers(0, 40, size=ink.shape)).astype(np.uint8)


def write_glyphs(folder: Path, *, count: int = 120, seed: int = 0) -> None:
    """`count` images of two classes, "0" and "1", in class folders."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        place = folder / str(number % 2)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(glyph(number % 2, rng)).save(place / f"glyph-{number:03d}.png")


@pytest.fixture(scope="session")
def workplace() -> type[Workplace]:
    return Workplace


@pytest.fixture
def work(tmp_path: Path, glyphs: Path) -> Workplace:
    """A fresh place with the glyphs as private set."""
    shutil.copytree(glyphs, tmp_path / "data")
    return Workplace(tmp_path)


@pytest.fixture(scope="session")
def glyphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("glyphs") / "data"
    write_glyphs(folder)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, glyphs: Path) -> Iterator[tuple[Workplace, Path]]:
    """A place with one finished image-pe run, and the run's folder. Shared: leave it as it is."""
    place = Workplace(tmp_path_factory.mktemp("finished"))
    shutil.copytree(glyphs, place.folder / "data")
    place.job()
    outcome = place("run", "job.toml")
    assert outcome.code == 0, outcome.err
    yield place, place.runs[0]
