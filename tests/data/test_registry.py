from __future__ import annotations

import subprocess
import sys
from importlib import invalidate_caches
from pathlib import Path

import pytest

from privolve.data import registry
from privolve.data.errors import DataError, UnknownKind

OURS = {
    "batches",
    "csv",
    "digits",
    "folder",
    "idx",
    "jsonl",
    "lmdb",
    "npz",
    "table",
    "webdataset",
    "zip",
    "cifar10",
    "mnist",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch):
    """Install a distribution with entry points of our group."""

    def install(points: dict[str, str], *, name: str = "another") -> None:
        folder = tmp_path / name / f"{name}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "".join(f"{kind} = {value}\n" for kind, value in points.items())
        (folder / "entry_points.txt").write_text(f"[privolve.data]\n{lines}")
        (tmp_path / name / f"{name}_source.py").write_text(
            "from privolve.data.digits import DigitsConfig\nclass FakeConfig(DigitsConfig):\n    kind: str = 'fake'\n"
        )
        monkeypatch.syspath_prepend(tmp_path / name)
        invalidate_caches()

    return install


def test_our_kinds_are_registered() -> None:
    assert set(registry.names()) >= OURS


def test_a_kind_of_another_package_works(package) -> None:
    package({"fake": "another_source:FakeConfig"})
    assert "fake" in registry.names()
    assert registry.parse({"kind": "fake", "holdout": 0.5}).load().train.count == 899


def test_an_unknown_kind_lists_the_known(package) -> None:
    package({"fake": "another_source:FakeConfig"})
    with pytest.raises(UnknownKind, match=r"no data of kind 'fakes'; did you mean 'fake'\? known kinds: .*fake"):
        registry.config_class("fakes")
    with pytest.raises(UnknownKind, match="`kind` must name a source"):
        registry.parse({"path": "x"})


def test_a_kind_that_two_packages_claim_or_that_is_no_source_is_refused(package) -> None:
    package({"fake": "another_source:FakeConfig", "broken": "nowhere:Config", "wrong": "pathlib:Path"})
    with pytest.raises(UnknownKind, match="cannot be imported"):
        registry.config_class("broken")
    with pytest.raises(UnknownKind, match="is no DataConfig"):
        registry.config_class("wrong")
    package({"fake": "third_source:FakeConfig"}, name="third")
    with pytest.raises(UnknownKind, match="two packages register data of kind 'fake'"):
        registry.names()


def test_a_wrong_table_is_one_line_that_says_where(package) -> None:
    package({"fake": "another_source:FakeConfig"})
    for table, words in (
        ({"kind": "fake", "colour": "red"}, "no setting 'colour'; its settings are channels, classes"),
        ({"kind": "fake", "holdout": 2}, "holdout: input should be less than 1, not 2"),
        ({"kind": "fake", "size": "large"}, "size: "),
        ({"kind": "fake", "slots": [5, 3]}, "needs start < stop"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            registry.parse(table)
        assert "\n" not in str(caught.value)


def test_listing_kinds_imports_no_source_and_nothing_heavy() -> None:
    code = (
        "import sys; from privolve.data import registry; registry.names(); "
        "print([name for name in ('numpy', 'pydantic', 'PIL', 'sklearn', 'privolve.data.npz') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
