from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from privolve import plugins
from privolve.evaluation import registry
from privolve.evaluation.metric import Items, MetricError
from privolve.evaluation.metric_config import MetricConfig, References

OURS = {
    "authenticity",
    "cmmd",
    "fld",
    "frechet",
    "frechet-infinity",
    "frechet-per-class",
    "inception-score",
    "kid",
    "memorised",
    "precision-recall",
    "vendi",
}


def items(name: str, seed: int, *, probabilities: bool) -> Items:
    rows = np.random.default_rng(seed).uniform(0.1, 1, (60, 5))
    if probabilities:
        rows /= rows.sum(axis=1, keepdims=True)
    return Items(
        name=name,
        values=rows,
        labels=np.arange(60) % 3,
        network="a network",
        network_hash="17",
        protected=name != "train",
    )


def test_our_metrics_are_registered() -> None:
    assert set(registry.names()) >= OURS


@pytest.mark.parametrize("kind", sorted(OURS))
def test_every_metric_keeps_the_contract(kind: str) -> None:
    metric = registry.parse(kind)
    assert metric.kind == kind
    probabilities = metric.looks_at == "probabilities"
    test, train, final = (
        items(name, seed, probabilities=probabilities) for seed, name in enumerate(("test", "train", "final"))
    )
    judge = metric.judge(References(test=test, train=train))
    scores = judge(final)
    assert scores == judge(final), "a judgement is a function of its items"
    for score in scores:
        assert (score.subject, score.network, score.network_hash, score.n) == ("final", "a network", "17", 60)
        assert score.better in ("higher", "lower")
        assert score.protected is not metric.needs_train
    assert len({score.column for score in scores}) == len(scores)


@pytest.mark.parametrize("kind", sorted(OURS - {"inception-score", "vendi"}))
def test_no_metric_compares_two_networks(kind: str) -> None:
    test, train = (items(name, 1, probabilities=False) for name in ("test", "train"))
    other = Items(name="final", values=test.values, labels=test.labels, network="another", network_hash="18")
    with pytest.raises(MetricError, match="two networks"):
        registry.parse(kind).judge(References(test=test, train=train))(other)


@pytest.mark.parametrize("kind", sorted(OURS))
def test_no_items_are_one_line_that_names_them(kind: str) -> None:
    test, train = (items(name, 1, probabilities=True) for name in ("test", "train"))
    none = Items(
        name="final", values=test.values[:0], labels=np.zeros(0, dtype=np.int64), network="a network", network_hash="17"
    )
    with pytest.raises(MetricError, match=r"^final: [^\n]*$"):
        registry.parse(kind).judge(References(test=test, train=train))(none)


def test_a_table_sets_what_the_metric_has_and_nothing_else() -> None:
    assert getattr(registry.parse({"kind": "precision-recall", "k": 5}), "k") == 5  # noqa: B009
    with pytest.raises(
        MetricError, match=r"metric 'precision-recall': 'K' is not one of its settings; its settings: k\."
    ):
        registry.parse({"kind": "precision-recall", "K": 5})
    with pytest.raises(MetricError, match="metric 'precision-recall': k: "):
        registry.parse({"kind": "precision-recall", "k": 0})
    with pytest.raises(MetricError, match=r"no metric of kind 'fidd'; known kinds: authenticity, "):
        registry.parse("fidd")
    with pytest.raises(MetricError, match="`kind` must name a metric"):
        registry.parse({"k": 5})


class Distance(MetricConfig):
    kind: str = "distance"


def installed(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)


def test_another_package_may_bring_a_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, EntryPoint("distance", f"{__name__}:Distance", registry.GROUP))
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Distance.__module__])
    assert isinstance(registry.parse("distance"), Distance)


def test_an_entry_point_that_is_no_metric_or_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(
        monkeypatch,
        EntryPoint("path", "pathlib:Path", registry.GROUP),
        EntryPoint("gone", "privolve.no_such_module:Metric", registry.GROUP),
    )
    with pytest.raises(MetricError, match=r"'path' .* names no MetricConfig"):
        registry.parse("path")
    with pytest.raises(MetricError, match=r"'gone' .* cannot be imported"):
        registry.parse("gone")


def test_two_packages_with_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, *(EntryPoint("x", f"{module}:Metric", registry.GROUP) for module in ("one", "two")))
    with pytest.raises(MetricError, match="two packages register a metric 'x'"):
        registry.names()


def test_metrics_import_nothing_heavy_before_they_are_used() -> None:
    code = (
        "import sys; from privolve.evaluation import registry; [registry.parse(kind) for kind in registry.names()]; "
        "print(sorted({'torch', 'sklearn', 'scipy', 'PIL', 'transformers'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "[]"
