"""The house: what is installed under which name, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import privolve

ROOT = Path(privolve.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NOT_PACKAGES = {"tests", "examples", "benchmarks", "build", "experiments", "ledgers", "docs"}


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_the_list_of_packages_is_the_tree():
    found = {"privolve"}
    for path in ROOT.glob("**/__init__.py"):
        parts = path.relative_to(ROOT).parts[:-1]
        if parts and parts[0] not in NOT_PACKAGES and not parts[0].startswith("."):
            found.add("privolve." + ".".join(parts))
    assert found == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_constraint_is_exact_and_covers_the_dependencies():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all("==" in line for line in lines)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    wanted = {requirement.split(">=")[0].lower() for requirement in PROJECT["project"]["dependencies"]}
    assert wanted <= pinned


def test_every_entry_point_names_a_class_that_is_there():
    from importlib.metadata import entry_points

    for group in ("privolve.adapters", "privolve.data"):
        declared = PROJECT["project"]["entry-points"][group]
        installed = {point.name: point for point in entry_points(group=group)}
        for name, target in declared.items():
            assert installed[name].value == target
            assert installed[name].load().model_construct(kind=name).kind == name


@pytest.mark.parametrize(
    "module", ["torch", "numpy", "pydantic", "dp_accounting", "scipy", "sklearn", "opendp", "rich"]
)
def test_help_does_not_import(module: str):
    code = f"""
import contextlib, io, sys
from privolve.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(["--help"])
sys.exit({module!r} in sys.modules)
"""
    assert python(code).returncode == 0


def test_the_doctests_hold():
    """Imported under the installed name, because collecting them by path would import every module twice."""
    import doctest
    import importlib
    import pkgutil

    failed = []
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        module = importlib.import_module(package)
        names = [
            package,
            *(f"{package}.{found.name}" for found in pkgutil.iter_modules(module.__path__) if not found.ispkg),
        ]
        for name in names:
            if name.split(".")[1:2] and name.split(".")[1] in NOT_PACKAGES:
                continue
            result = doctest.testmod(importlib.import_module(name))
            if result.failed:
                failed.append(name)
    assert not failed
