"""Published figures: read as data, and beside ours only where they can be compared."""

from __future__ import annotations

import pytest

from privolve.evaluation.metric import SHARE, MetricError, Score
from privolve.evaluation.published import figures, read


def ours(network: str, *, name: str = "classifier accuracy", unit: str = SHARE) -> Score:
    return Score(
        name=name, subject="x", value=0.5, protected=True, network=network, reference="held-out test", unit=unit
    )


def test_every_figure_names_its_source_and_is_a_figure() -> None:
    for each in figures():
        assert each.source and each.method and each.networks and each.delta
        assert each.value > 0 and (each.unit != SHARE or each.value <= 1)
        assert each.claim_holds == (each.why_not == "")


def test_known_figures_are_as_published() -> None:
    known = {(each.method, each.data, each.epsilon, each.metric): each.value for each in figures()}
    assert known["PrivImage", "cifar10", 10.0, "classifier accuracy"] == pytest.approx(0.784)
    assert known["DPDM", "mnist", 1.0, "classifier accuracy"] == pytest.approx(0.892)
    assert known["PE", "camelyon17", 10.0, "Frechet distance"] == 69.1
    assert known["PDP-Diffusion", "fashion-mnist", 1.0, "Frechet distance"] == 16.1
    assert known["DP-FETA-Pro", "mnist", 1.0, "Frechet distance"] == 8.05
    assert known["DPITI", "lsun-bedroom", 1.0, "Frechet distance"] == 26.57
    assert ("DPDM", "cifar100", 10.0, "Frechet distance") not in known, "a doubtful row"


def test_methods_whose_code_does_not_support_their_claim_are_marked() -> None:
    marked = {each.method for each in figures() if not each.claim_holds}
    assert {"DP-LoRA", "DP-Kernel", "GS-WGAN", "DPITI"} <= marked
    assert not {"DPDM", "PDP-Diffusion", "PrivImage"} & marked


def test_a_figure_stands_beside_ours_only_for_the_same_set_metric_and_network() -> None:
    accuracy = next(e for e in figures() if (e.method, e.data, e.metric) == ("DPDM", "mnist", "classifier accuracy"))
    assert accuracy.compares_with(ours("WRN-40-4"), ["MNIST", "idx"])
    assert not accuracy.compares_with(ours("WRN-40-4"), ["fashion-mnist"])
    assert not accuracy.compares_with(ours("logistic regression on pixels"), ["mnist"])
    assert not accuracy.compares_with(ours("mean of ResNet-110; WRN-40-4; ResNeXt-29 (8 x 64)"), ["mnist"])
    distance = next(e for e in figures() if (e.method, e.data, e.metric) == ("DPDM", "mnist", "Frechet distance"))
    assert distance.compares_with(ours("torch-fidelity inception-v3-fid", name="Frechet distance", unit=""), ["mnist"])
    assert not distance.compares_with(ours("privolve pixels", name="Frechet distance", unit=""), ["mnist"])


def test_a_damaged_file_is_said_in_one_line() -> None:
    with pytest.raises(MetricError, match=r"other.toml: no file of published figures \(KeyError"):
        read({"source": "x", "tables": [{"values": {"a": [[1.0]]}}]}, where="other.toml")
