"""Private values stay private: at run time, under the type checker, and by who may open them."""

from __future__ import annotations

import ast
import copy
import errno
import io
import json
import pickle
import shutil
import subprocess
import sys
import traceback
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

import privolve
from privolve.privacy.private import OperationalError, Private, PrivateStageError, disclose, guarded, open_private

ROOT = Path(privolve.__file__).parent
CANARY = "canary-7f3a"


@lru_cache
def sources() -> tuple[Path, ...]:
    """Every Python file of the project but its tests."""
    skip = {"tests", "build", "dist", "benchmarks"}
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name not in skip and path.name[0] != "."]
    return (*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py")))


@pytest.mark.parametrize(
    "use",
    [
        bool,
        len,
        iter,
        list,
        hash,
        pickle.dumps,
        copy.copy,
        copy.deepcopy,
        json.dumps,
        np.asarray,
        float,
        lambda value: value == value,
        lambda value: value != 3,
        lambda value: value < value,
        lambda value: value[0],
        lambda value: value + 1,
        lambda value: value.__getstate__(),
        lambda value: value.__reduce_ex__(4),
        lambda value: vars(value),
        lambda value: CANARY in value,
    ],
)
def test_a_private_value_cannot_be_measured_compared_iterated_copied_or_stored(use) -> None:
    with pytest.raises((TypeError, pickle.PicklingError)) as caught:
        use(Private([CANARY]))
    assert CANARY not in str(caught.value)


def test_a_private_value_prints_as_nothing() -> None:
    value = Private(CANARY)
    assert {str(value), repr(value), f"{value}", f"{[value]}"} == {"<Private>", "[<Private>]"}


def test_private_is_final() -> None:
    with pytest.raises(TypeError, match="final"):
        type("Open", (Private,), {})


def test_map_keeps_a_value_private_and_changes_it() -> None:
    assert open_private(Private(20).map(lambda n: n + 1, stage="test")) == 21


def leaky(_: object) -> None:
    try:
        raise ValueError(CANARY)
    except ValueError as error:
        error.add_note(CANARY)
        raise RuntimeError(CANARY) from error


@pytest.mark.parametrize(
    "kind", [leaky, lambda _: sys.exit(CANARY), lambda _: Path(CANARY).read_bytes(), lambda value: value.missing]
)
def test_a_failure_inside_map_says_stage_and_type_and_nothing_else(kind) -> None:
    with pytest.raises(PrivateStageError) as caught:
        Private(CANARY).map(kind, stage="embedding")
    error = caught.value
    assert error.__cause__ is None and error.__context__ is None and error.stage == "embedding"
    text = io.StringIO()
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [frame for frame in report.stack if frame.filename.endswith("private.py")]
    report.stack = traceback.StackSummary.from_list(frames)
    print("".join(report.format()), file=text)
    assert CANARY not in text.getvalue()
    assert "embedding" in str(error)


def test_a_nested_stage_keeps_its_name() -> None:
    with pytest.raises(PrivateStageError, match="inner") as caught:
        guarded(lambda _: Private(1).map(leaky, stage="inner"), 0, stage="outer")
    assert caught.value.__context__ is None


def test_an_operational_error_passes_with_its_public_text_but_without_its_cause() -> None:
    def stop(_: object) -> None:
        try:
            raise ValueError(CANARY)
        except ValueError as error:
            raise OperationalError("no worker left") from error

    with pytest.raises(OperationalError, match="no worker left") as caught:
        Private(1).map(stop, stage="x")
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_a_full_disk_is_operational_and_its_file_name_is_not_shown() -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", f"/private/{CANARY}")

    with pytest.raises(OperationalError, match="No space left") as caught:
        Private(1).map(full, stage="embedding")
    assert CANARY not in str(caught.value)


def test_an_interrupt_passes_through_without_frames_that_hold_the_value() -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt(CANARY)

    with pytest.raises(KeyboardInterrupt) as caught:
        Private(1).map(interrupt, stage="x")
    assert caught.value.args == ()


def test_disclosing_writes_the_journal_line_first() -> None:
    lines: list[tuple[str, str]] = []

    class Book:
        def disclosed(self, *, partition: str, why: str) -> None:
            lines.append((partition, why))

    class Full:
        def disclosed(self, *, partition: str, why: str) -> None:
            raise OSError("no journal")

    assert disclose(Private(4), partition="test", why="FID", journal=Book()) == 4
    assert lines == [("test", "FID")]
    with pytest.raises(OSError):
        disclose(Private(4), partition="test", why="FID", journal=Full())


# --- who may open and map ---------------------------------------------------------------------------------------------


@lru_cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def names_in(path: Path) -> set[str]:
    tree = parsed(path)
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    found |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    found |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return found


def test_only_the_ledger_the_gateway_and_disclose_open_private_values() -> None:
    allowed = {"privacy/private.py", "privacy/ledger.py", "adapters/gateway.py"}
    callers = {
        path.relative_to(ROOT).as_posix() for path in sources() if names_in(path) & {"open_private", "_Private__value"}
    }
    assert "privacy/private.py" in callers
    assert callers <= allowed


def test_only_privacy_data_and_the_gateway_map_private_values() -> None:
    def maps(path: Path) -> bool:
        return any(
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "map"
            and any(keyword.arg == "stage" for keyword in node.keywords)
            for node in ast.walk(parsed(path))
        )

    callers = {path.relative_to(ROOT).as_posix() for path in sources() if maps(path)}
    assert all(caller.startswith(("privacy/", "data/")) or caller == "adapters/gateway.py" for caller in callers), (
        callers
    )


# --- the type checker -------------------------------------------------------------------------------------------------

SNIPPET = """
from privolve.adapters.contract import Adapter, EmbedRequest
from privolve.privacy.private import Private
import numpy as np


def public(adapter: Adapter[EmbedRequest, np.ndarray], value: Private[str], images: Private[list[int]]) -> None:
    reveal = images.map(len, stage="fine")
    adapter.send([value])  # error
    adapter.send([EmbedRequest(content=value)])  # error
    for image in images:  # error
        print(image)
    len(images)  # error
    if images == [1]:  # error
        pass
    if images:  # error
        pass
    sorted(images)  # error
    float(reveal)  # error
    images[0]  # error
    value + "x"  # error
    value.upper()  # error
    np.mean(images)  # error
"""


def test_the_type_checker_rejects_sending_iterating_measuring_or_comparing_a_private_value(tmp_path: Path) -> None:
    pyright = shutil.which("pyright") or shutil.which("pyright", path=str(Path(sys.executable).parent))
    if pyright is None:
        pytest.skip("pyright is not installed (extra `dev`)")
    (tmp_path / "types").mkdir()
    (tmp_path / "types" / "privolve").symlink_to(ROOT)
    (tmp_path / "snippet.py").write_text(SNIPPET, encoding="utf-8")
    config = {"include": ["snippet.py"], "extraPaths": ["types"], "typeCheckingMode": "standard"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config), encoding="utf-8")
    command = [pyright, "--outputjson", "--pythonpath", sys.executable, "-p", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if not result.stdout.startswith("{"):
        pytest.skip("pyright could not start here")
    problems = json.loads(result.stdout)["generalDiagnostics"]
    rejected = {problem["range"]["start"]["line"] for problem in problems if problem["severity"] == "error"}
    expected = {number for number, line in enumerate(SNIPPET.splitlines()) if line.endswith("# error")}
    assert rejected == expected, problems
