"""Privacy code is mutated, and the tests must notice: every mutant of `mutants.toml` fails the tests that it names.

A mutant is a copy of the packages in which one text was replaced; the tests run on the copy. A control run on an unchanged
copy shows that the tests pass there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import privolve

ROOT = Path(privolve.__file__).parent
MUTANTS = tomllib.loads(Path(__file__).with_name("mutants.toml").read_text(encoding="utf-8"))["mutant"]
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "build", "experiments", "ledgers", "docs", "*.egg-info")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutants")
    shutil.copytree(ROOT, folder / "privolve", ignore=LEFT_OUT)
    return folder


def run(folder: Path, tests: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=folder / "privolve", env=environment, capture_output=True, text=True, timeout=2700
    )


def test_without_a_mutation_the_named_tests_pass_on_the_copy(copy: Path):
    where = subprocess.run(
        [sys.executable, "-c", "import privolve; print(privolve.__file__)"],
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
    )
    assert where.stdout.startswith(str(copy))
    tests = sorted({test for mutant in MUTANTS for test in mutant["tests"]})
    control = run(copy, tests)
    assert control.returncode == 0, control.stdout[-3000:]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant["name"])
def test_the_tests_catch_the_mutant(mutant: dict, copy: Path):
    path = copy / "privolve" / mutant["file"]
    original = path.read_text(encoding="utf-8")
    assert original.count(mutant["old"]) >= 1, f"{mutant['file']} no longer holds what this mutant replaces"
    path.write_text(original.replace(mutant["old"], mutant["new"]), encoding="utf-8")
    try:
        result = run(copy, mutant["tests"])
    finally:
        path.write_text(original, encoding="utf-8")
    # 1 and FAILURES: a test failed. Anything else (an import that broke, nothing collected) proves nothing.
    assert result.returncode == 1, f"{mutant['name']} survived, or did not run:\n{result.stdout[-2000:]}"
    assert " FAILURES " in result.stdout
