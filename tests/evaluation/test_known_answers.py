"""Known answers on real images: each metric notices what it should, and what it should not notice leaves it alone.

Disjoint random parts of MNIST's training split play the reference, the training items and a perfect generator: its own test
split is of other writers, which the metrics notice. The features are histograms of gradients, as the embedded `gradients` makes them, in 144 dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from privolve.adapters.embedded.gradients import describe
from privolve.evaluation.metric import Items, Score
from privolve.evaluation.metric_config import References
from privolve.evaluation.registry import parse

N = 1000
DISTANCES = (
    "frechet",
    "frechet-infinity",
    {"kind": "kid", "subsets": 20},
    "cmmd",
)
ORDER = ("fresh", "slightly blurred", "blurred", "noisy", "fashion")
"""From near to far."""
FLD = {"kind": "fld", "most_synthetic": 500, "most_train": 1000}

Sets = Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def pictures(shared_images: Path) -> Callable[[int], Sets]:
    """Each set's images, n of them; uint8 (n, 28, 28)."""
    with np.load(shared_images / "mnist.npz") as mnist, np.load(shared_images / "fashionmnist.npz") as fashion:
        order = np.random.default_rng(0).permutation(len(mnist["x_train"]))
        digits, labels, others = mnist["x_train"][order], mnist["y_train"][order], fashion["x_train"]

    def sets(n: int) -> Sets:
        held_out, known, fresh = digits[:n], digits[10000 : 10000 + n], digits[20000 : 20000 + n]
        rng = np.random.default_rng(1)
        return {
            "test": held_out,
            "train": known,
            "fresh": fresh,
            "slightly blurred": blurred(fresh, 1),
            "blurred": blurred(fresh, 4),
            "noisy": np.clip(fresh + rng.normal(0, 60, fresh.shape), 0, 255).astype(np.uint8),
            "five classes": digits[20000:][labels[20000:] < 5][:n],
            "copies": rng.permutation(known),
            "fashion": others[:n],
        }

    return sets


def blurred(images: np.ndarray, times: int) -> np.ndarray:
    """By (1, 2, 1)/4 both ways, so many times."""
    soft = images.astype(np.float64)
    for _ in range(times):
        for axis in (1, 2):
            padded = np.pad(soft, [(1, 1) if each == axis else (0, 0) for each in range(3)], mode="edge")
            before, middle, after = (np.take(padded, range(start, start + 28), axis=axis) for start in range(3))
            soft = (before + 2 * middle + after) / 4
    return soft.round().astype(np.uint8)


def seen(sets: Sets) -> dict[str, Items]:
    found = {}
    for name, images in sets.items():
        features = describe(images[..., None], 4, 4)
        found[name] = Items(name=name, values=features, network="gradients", network_hash="test", protected=True)
    return found


@pytest.fixture(scope="module")
def items(pictures: Callable[[int], Sets]) -> dict[str, Items]:
    return seen(pictures(N))


@pytest.fixture(scope="module")
def many(pictures: Callable[[int], Sets]) -> dict[str, Items]:
    return seen({name: images for name, images in pictures(5000).items() if name in ("test", *ORDER)})


@pytest.fixture(scope="module")
def value(items: dict[str, Items]) -> Callable[[object, str, str], float]:
    """Of a metric, its named score, for a set; each is computed once."""
    judges, found = {}, {}
    references = References(test=items["test"], train=items["train"])

    def of(metric: object, name: str, subject: str) -> float:
        if str(metric) not in judges:
            judges[str(metric)] = parse(metric).judge(references)  # type: ignore[arg-type]
        if (str(metric), subject) not in found:
            scores: tuple[Score, ...] = judges[str(metric)](items[subject])
            found[str(metric), subject] = {score.name: score.value for score in scores}
        values = found[str(metric), subject]
        return values[name] if name else next(iter(values.values()))

    return of


Value = Callable[[object, str, str], float]


@pytest.mark.parametrize("metric", DISTANCES, ids=str)
def test_real_against_real_is_near_zero_and_against_another_set_is_large(value: Value, metric: object) -> None:
    fresh, other = value(metric, "", "fresh"), value(metric, "", "fashion")
    assert abs(fresh) < other / 80


@pytest.mark.parametrize("metric", DISTANCES, ids=str)
@pytest.mark.parametrize("subject", ["blurred", "noisy", "five classes"])
def test_distances_notice_blur_noise_and_missing_classes(value: Value, metric: object, subject: str) -> None:
    assert value(metric, "", subject) > 4 * abs(value(metric, "", "fresh"))


@pytest.mark.parametrize("metric", DISTANCES, ids=str)
def test_distances_do_not_notice_copies(value: Value, metric: object) -> None:
    """So that they must not be read alone."""
    assert abs(value(metric, "", "copies")) < value(metric, "", "slightly blurred")


def test_precision_notices_what_is_unreal_and_not_what_is_missing(value: Value) -> None:
    name = "precision (k = 3)"
    fresh, fewer = (value("precision-recall", name, each) for each in ("fresh", "five classes"))
    assert fresh > 0.7 and fewer > fresh - 0.1
    for subject in ("noisy", "fashion"):
        assert value("precision-recall", name, subject) < fresh / 4, subject
    assert value("precision-recall", name, "blurred") < fresh - 0.03


def test_recall_and_coverage_notice_what_is_missing_and_what_is_softened(value: Value) -> None:
    for name in ("recall (k = 3)", "coverage (k = 3)"):
        fresh = value("precision-recall", name, "fresh")
        assert fresh > 0.8
        for subject in ("five classes", "blurred", "noisy"):
            assert value("precision-recall", name, subject) < fresh - 0.2, subject


def test_density_is_about_one_for_real_items_and_falls_with_precision(value: Value) -> None:
    assert value("precision-recall", "density (k = 3)", "fresh") == pytest.approx(1, abs=0.15)
    assert value("precision-recall", "density (k = 3)", "noisy") < 0.3


def test_diversity_falls_where_classes_are_missing_and_copies_do_not_lower_it(value: Value) -> None:
    fresh = value("vendi", "", "fresh")
    assert value("vendi", "", "five classes") < 0.97 * fresh
    assert value("vendi", "", "copies") == pytest.approx(fresh, rel=0.03)


def test_copies_are_noticed_by_what_looks_at_the_training_items(value: Value) -> None:
    assert value("memorised", "", "copies") == 1.0 and value("memorised", "", "fresh") < 0.02
    assert value("authenticity", "", "copies") == 0.0 and value("authenticity", "", "fresh") > 0.4
    for subject in ("noisy", "blurred", "five classes"):
        assert value("memorised", "", subject) < 0.02, subject


def test_fld_notices_all_of_it(value: Value) -> None:
    fresh = value(FLD, "FLD", "fresh")
    assert abs(fresh) < 10
    for subject in ("blurred", "noisy", "five classes", "fashion", "copies"):
        assert value(FLD, "FLD", subject) > fresh + 5, subject
    gap = "FLD generalisation gap"
    assert value(FLD, gap, "copies") < -1000 < -20 < value(FLD, gap, "fresh")


@pytest.mark.slow
@pytest.mark.parametrize("metric", DISTANCES, ids=str)
def test_rankings_at_1000_and_5000_items_agree(value: Value, many: dict[str, Items], metric: object) -> None:
    judge = parse(metric).judge(References(test=many["test"]))  # type: ignore[arg-type]
    at_5000 = {name: judge(many[name])[0].value for name in ORDER}
    assert sorted(ORDER, key=lambda name: value(metric, "", name)) == list(ORDER)
    assert sorted(ORDER, key=at_5000.__getitem__) == list(ORDER)
