from __future__ import annotations

import sys

import pytest

from privolve.adapters import registry
from privolve.adapters.contract import AdapterConfig, AdapterUnavailable, Location
from privolve.adapters.scripted import Scripted, ScriptedConfig

MODULE = """
from privolve.adapters.contract import AdapterConfig, Location
class EyeConfig(AdapterConfig):
    location = Location.LOCAL
    size: int = 3
    seed: int | None = None
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a distribution that registers adapters."""

    def install(distribution: str, points: dict[str, str]) -> None:
        folder = tmp_path / distribution
        info = folder / f"{distribution}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[privolve.adapters]", *lines]) + "\n")
        (folder / f"{distribution}_eyes.py").write_text(MODULE)
        monkeypatch.syspath_prepend(str(folder))

    return install


def test_an_installed_adapter_is_listed_without_importing_it(installed):
    installed("others", {"others-eye": "others_eyes:EyeConfig", "broken": "no_such_module:Config"})
    assert {"others-eye", "broken"} <= set(registry.names())
    assert "others_eyes" not in sys.modules


def test_a_table_becomes_the_config_of_its_kind(installed):
    installed("others2", {"others-eye": "others2_eyes:EyeConfig"})
    config = registry.parse({"kind": "others-eye", "size": 5}, role="eye")
    assert (config.kind, config.size) == ("others-eye", 5)


def test_a_local_adapter_from_elsewhere_counts_as_remote(installed):
    installed("others3", {"others-eye": "others3_eyes:EyeConfig"})
    config = registry.parse({"kind": "others-eye"})
    assert type(config).location is Location.LOCAL
    assert registry.location(config) is Location.REMOTE
    assert registry.location(ScriptedConfig(adapter=Scripted(len))) is Location.LOCAL


def test_an_unknown_kind_is_an_error_that_lists_the_known(installed):
    installed("others4", {"others-eye": "others4_eyes:EyeConfig"})
    with pytest.raises(
        registry.AdapterConfigError, match=r"^adapters\.eye: there is no adapter of kind 'eyes'.*others-eye"
    ):
        registry.parse({"kind": "eyes"}, role="eye")
    with pytest.raises(registry.AdapterConfigError, match=r"`kind` must name an adapter.*others-eye"):
        registry.parse({"size": 3})


def test_an_unknown_setting_is_an_error_that_lists_the_known(installed):
    installed("others5", {"others-eye": "others5_eyes:EyeConfig"})
    with pytest.raises(registry.AdapterConfigError, match=r"^adapters\.eye: 'sise' is not a setting.*seed, size\.$"):
        registry.parse({"kind": "others-eye", "sise": 3}, role="eye")
    with pytest.raises(registry.AdapterConfigError, match=r"^adapters\.eye\.size: .*integer"):
        registry.parse({"kind": "others-eye", "size": "large"}, role="eye")


def test_an_adapter_that_cannot_be_imported_says_which(installed):
    installed("others6", {"broken": "no_such_module:Config", "no-config": "json:dumps"})
    with pytest.raises(AdapterUnavailable, match=r"'broken'.*cannot be imported"):
        registry.parse({"kind": "broken"})
    with pytest.raises(AdapterUnavailable, match="names no AdapterConfig"):
        registry.parse({"kind": "no-config"})


def test_a_kind_that_two_packages_claim_is_refused_and_nobody_can_take_ours(installed, monkeypatch):
    installed("others7", {"shared-eye": "others7_eyes:EyeConfig"})
    installed("others8", {"shared-eye": "others8_eyes:EyeConfig"})
    with pytest.raises(registry.AdapterConfigError, match=r"two packages.*others[78] and others[78].*Uninstall one"):
        registry.names()
    monkeypatch.setattr(registry.plugins, "OURS", "others8")
    assert registry.config_class("shared-eye").__module__ == "others8_eyes"


def test_none_means_not_set_so_a_new_option_changes_no_old_key():
    class Old(AdapterConfig):
        size: int = 3

    class New(AdapterConfig):
        size: int = 3
        style: str | None = None
        timeout_s: float = 5.0
        cannot_change_replies = frozenset({"timeout_s"})

    assert Old(kind="eye").settings() == New(kind="eye").settings() == {"kind": "eye", "size": 3}
    assert New(kind="eye", style="x").settings() != New(kind="eye").settings()
