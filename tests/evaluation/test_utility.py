from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from privolve.evaluation.classifier import CEILING, FINAL, FLOOR, ClassifierAccuracy, LogisticRegression
from privolve.evaluation.classifiers import profiles
from privolve.evaluation.classifiers.contract import Classifier
from privolve.evaluation.classifiers.network import Architecture, Network, Recipe
from privolve.evaluation.classifiers.profiles import PROFILES, classifiers
from privolve.evaluation.metric import Items, MetricError, Score
from privolve.evaluation.utility import Outcome, trials, utility

torch = pytest.importorskip("torch")

Digits = tuple[np.ndarray, np.ndarray]


def part(digits: Digits, rows: slice, *, name: str = FINAL, protected: bool = True) -> Items:
    return Items(name=name, values=digits[0][rows], labels=digits[1][rows], protected=protected)


@pytest.fixture(scope="module")
def test_set(digits: Digits) -> Items:
    return part(digits, slice(1200, None), name="held-out test")


@pytest.fixture(scope="module")
def kept() -> dict:
    return {}


@pytest.fixture(scope="module")
def scores(digits: Digits, test_set: Items, kept: dict) -> list[Score]:
    """Real digits as the released set, digits under shuffled labels as the floor, the real training set.

    The networks are trained for a third of their time.
    """
    shuffled = np.random.default_rng(4).permutation(digits[1][:400])
    sets = [
        part(digits, slice(0, 400)),
        Items(name=FLOOR, values=digits[0][:400], labels=shuffled, protected=True),
        part(digits, slice(0, 1200), name=CEILING, protected=False),
    ]
    with shorter():
        return utility(sets, test_set, classes=10, seeds=(0, 1), kept=kept)


@contextlib.contextmanager
def shorter() -> Iterator[None]:
    """The tiny profile with less training."""
    (mlp, of_mlp), (cnn, of_cnn) = profiles._NETWORKS["tiny"]
    less = (
        (mlp, dataclasses.replace(of_mlp, updates=300)),
        (cnn, dataclasses.replace(of_cnn, batch=48, updates=150)),
    )
    short = {**profiles._NETWORKS, "tiny": less}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiles, "_NETWORKS", short)
        yield


def find(scores: list[Score], name: str, subject: str, network: str) -> Score:
    (found,) = [
        each for each in scores if (each.name, each.subject) == (name, subject) and each.network.startswith(network)
    ]
    return found


def quick() -> tuple[Classifier, ...]:
    """The tiny classifiers, trained for a moment only."""
    recipe = Recipe(learning_rate=2e-3, batch=32, updates=20)
    return tuple(
        dataclasses.replace(each, recipe=recipe) if isinstance(each, Network) else each
        for each in classifiers("tiny", classes=10, size=(8, 8))
    )


NETWORKS = ("logistic regression", "MLP", "CNN", "mean of")


@pytest.mark.parametrize("network", NETWORKS)
def test_every_architecture_puts_the_released_set_between_floor_and_ceiling(scores: list[Score], network: str) -> None:
    floor, final, ceiling = (
        find(scores, "classifier accuracy", subject, network).value for subject in (FLOOR, FINAL, CEILING)
    )
    assert floor < 0.35 and 0.7 < final <= ceiling + 0.05 and ceiling > 0.8


def test_each_figure_has_its_columns_its_interval_over_seeds_and_its_protection(scores: list[Score]) -> None:
    names = {"classifier accuracy", "worst-class accuracy", "expected calibration error", "Brier score"}
    assert {score.name for score in scores} == names
    assert len(scores) == 3 * 4 * 4
    assert all(score.protected == (score.subject != CEILING) for score in scores)
    cnn = find(scores, "classifier accuracy", FINAL, "CNN")
    assert cnn.repeats == 2 and cnn.interval is not None and cnn.interval[0] <= cnn.value <= cnn.interval[1] <= 1
    regression = find(scores, "classifier accuracy", FINAL, "logistic regression")
    assert regression.repeats == 1 and regression.interval is None
    assert len({find(scores, "Brier score", FINAL, network).column for network in NETWORKS}) == 4


def test_the_mean_over_architectures_is_the_mean_of_their_figures(scores: list[Score]) -> None:
    for name in ("classifier accuracy", "Brier score"):
        each = [find(scores, name, FINAL, network).value for network in NETWORKS[:3]]
        assert find(scores, name, FINAL, "mean of").value == pytest.approx(np.mean(each))


def test_the_logistic_regression_stands_in_the_column_of_the_quick_judgement(
    scores: list[Score], digits: Digits, test_set: Items
) -> None:
    quick = ClassifierAccuracy(classifier=LogisticRegression(classes=10))(test_set, part(digits, slice(0, 400)))
    assert find(scores, "classifier accuracy", FINAL, "logistic regression") == quick


def test_what_was_kept_is_not_trained_again_and_gives_the_same_scores(
    scores: list[Score], digits: Digits, test_set: Items, kept: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = json.loads(json.dumps(kept))
    assert len(written) == 3 * (1 + 2 + 2)
    monkeypatch.setattr("privolve.evaluation.utility.Trial.run", lambda trial: pytest.fail("trained again"))
    with shorter():
        again = utility([part(digits, slice(0, 400))], test_set, classes=10, seeds=(0, 1), kept=written)
    assert again == [score for score in scores if score.subject == FINAL]


def test_a_trial_is_known_by_all_that_its_outcome_depends_on(digits: Digits, test_set: Items) -> None:
    def keys(training: Items, *, classes: int = 10, seeds: tuple[int, ...] = (0,)) -> set[str]:
        return {trial.key for trial in trials(training, test_set, classes=classes, seeds=seeds)}

    training = part(digits, slice(0, 100))
    assert keys(training) == keys(part(digits, slice(0, 100), name="renamed"))
    other_pixel, other_label = digits[0][:100].copy(), digits[1][:100].copy()
    other_pixel[3, 2, 2] ^= 1
    other_label[3] = (other_label[3] + 1) % 10
    for changed in (
        keys(Items(name=FINAL, values=other_pixel, labels=digits[1][:100])),
        keys(Items(name=FINAL, values=digits[0][:100], labels=other_label)),
        keys(training, classes=11),
    ):
        assert not keys(training) & changed
    assert len(keys(training) & keys(training, seeds=(1,))) == 1  # the regression has no seed


def test_a_seed_fixes_a_network_to_the_bit_and_another_seed_moves_it(digits: Digits, test_set: Items) -> None:
    training = part(digits, slice(0, 200))
    for network in quick()[1:]:
        torch.manual_seed(1)
        first = network.fit(training, seed=3).probabilities(test_set.values)
        torch.manual_seed(2)
        before = torch.get_rng_state()
        assert np.array_equal(first, network.fit(training, seed=3).probabilities(test_set.values))
        assert torch.equal(before, torch.get_rng_state())
        assert not np.array_equal(first, network.fit(training, seed=4).probabilities(test_set.values))


def test_bytes_and_the_floats_that_they_stand_for_train_the_same_network(digits: Digits, test_set: Items) -> None:
    training = part(digits, slice(0, 100))
    floats = Items(
        name=FINAL, values=training.values.astype(np.float32)[..., None] / np.float32(255), labels=training.labels
    )
    mlp = quick()[1]
    one, two = (mlp.fit(items, seed=0).probabilities(test_set.values) for items in (training, floats))
    assert np.array_equal(one, two)


def test_an_answer_depends_neither_on_how_many_ask_nor_on_the_other_images(digits: Digits) -> None:
    for classifier in quick():
        fitted = classifier.fit(part(digits, slice(0, 100)), seed=0)
        together = fitted.probabilities(digits[0][:300])
        assert np.allclose(together[:7], fitted.probabilities(digits[0][:7]), rtol=0, atol=1e-6)
        assert np.allclose(together.sum(axis=1), 1) and together.shape == (300, 10)


def test_a_class_missing_in_the_synthetic_set_is_never_predicted(digits: Digits, test_set: Items) -> None:
    keep = digits[1][:300] != 3
    training = Items(name=FINAL, values=digits[0][:300][keep], labels=digits[1][:300][keep])
    for classifier in quick():
        probabilities = classifier.fit(training, seed=0).probabilities(test_set.values)
        assert test_set.labels is not None and not probabilities[:, 3].any()
        outcome = Outcome.of(probabilities, test_set.labels)
        assert outcome.by_class[3] == outcome.worst_class == 0.0 and outcome.accuracy > 0.05


def test_the_worst_class_is_the_lowest_of_those_that_the_test_set_holds() -> None:
    probabilities = np.eye(4)[[0, 0, 1, 1, 2]]
    outcome = Outcome.of(probabilities, np.array([0, 0, 1, 0, 2]))
    assert outcome.by_class == (pytest.approx(2 / 3), 1.0, 1.0, None)
    assert outcome.worst_class == pytest.approx(2 / 3) and outcome.accuracy == 0.8
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome


def wrong(name: str) -> tuple[Items, str]:
    """Training sets that cannot be judged against grey images of 8 x 8, and a word of the reason."""
    images = np.random.default_rng(0).integers(0, 256, size=(40, 8, 8), dtype=np.uint8)
    labels = np.arange(40) % 10

    def items(values: np.ndarray, labels: np.ndarray | None) -> Items:
        return Items(name=FINAL, values=values, labels=labels)

    return {
        "one class": (items(images, np.full(40, 7)), "all 40 images are of class 7"),
        "colour": (items(np.stack([images] * 3, axis=-1), labels), "colour images and held-out test grey ones"),
        "size": (items(images[:, :7], labels), "images of"),
        "empty": (items(images[:0], labels[:0]), "there are none"),
        "no labels": (items(images, None), "labelled"),
        "few": (items(images[:9], labels[:9]), "9 images are too few"),
        "label": (items(images, labels + 1), "label 10 of only 10"),
        "range": (items(images.astype(np.float32), labels), r"\[0, 1\]"),
        "signed": (items(images.astype(np.int16), labels), "int16"),
        "features": (items(images.reshape(40, 64), labels), "images of"),
    }[name]


KINDS = ["one class", "colour", "size", "empty", "no labels", "few", "label", "range", "signed", "features"]


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_input_is_one_line(kind: str, test_set: Items) -> None:
    training, words = wrong(kind)
    with pytest.raises(MetricError, match=words) as caught:
        utility([training], test_set, classes=10)
    assert FINAL in str(caught.value) and "\n" not in str(caught.value)


def test_a_set_that_cannot_be_judged_costs_only_itself(digits: Digits, test_set: Items) -> None:
    heard: list[str] = []
    broken, _ = wrong("colour")
    fine = part(digits, slice(0, 100), name="fine")
    found = utility(
        [broken, fine],
        test_set,
        classes=10,
        profile="logistic",
        failed=lambda items, error: heard.append(f"{items.name}: {error}"),
    )
    assert {score.subject for score in found} == {"fine"} and len(heard) == 1 and heard[0].startswith(FINAL)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_network_that_diverged_is_one_line_and_no_figure(digits: Digits, test_set: Items) -> None:
    mlp = quick()[1]
    assert isinstance(mlp, Network)
    wild = dataclasses.replace(mlp, recipe=Recipe(optimizer="sgd", learning_rate=1e30, batch=32, epochs=3))
    trial = next(iter(trials(part(digits, slice(0, 100)), test_set, classes=10)))
    with pytest.raises(MetricError, match="diverged at seed 0"):
        dataclasses.replace(trial, classifier=wild).run()


def test_not_a_number_never_becomes_an_item() -> None:
    with pytest.raises(MetricError, match="NaN"):
        Items(name=FINAL, values=np.full((20, 8, 8), np.nan), labels=np.arange(20) % 10)


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_seeds_are_at_least_one_and_all_different(seeds: tuple[int, ...], digits: Digits, test_set: Items) -> None:
    with pytest.raises(MetricError, match="seeds"):
        utility([part(digits, slice(0, 100))], test_set, classes=10, seeds=seeds)


def test_an_unknown_profile_and_a_single_declared_class_are_refused(digits: Digits, test_set: Items) -> None:
    with pytest.raises(MetricError, match="logistic, tiny, paper, paper-cifar"):
        utility([part(digits, slice(0, 100))], test_set, classes=10, profile="huge")  # type: ignore[arg-type]
    ones = Items(name="ones", values=digits[0][:20], labels=np.zeros(20, dtype=int))
    with pytest.raises(MetricError, match="two or more classes"):
        utility([ones], ones, classes=1)


def test_without_torch_the_line_names_the_extra_and_the_profile_that_needs_none(
    digits: Digits, test_set: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    training = [part(digits, slice(0, 100))]
    with pytest.raises(MetricError, match=r"pip install 'privolve\[train\]'"):
        utility(training, test_set, classes=10)
    assert utility(training, test_set, classes=10, profile="logistic")


# --- the architectures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "name", "millions"),
    [
        ("paper", "ResNet-110", 1.73),
        ("paper", "WRN-40-4", 8.95),
        ("paper", "ResNeXt-29", 34.4),
        ("paper-cifar", "WRN-28-10", 36.5),
    ],
)
def test_the_networks_have_as_many_weights_as_their_papers_say(profile, name: str, millions: float) -> None:
    (network,) = [
        each for each in classifiers(profile, classes=10, size=(32, 32), device="cpu") if each.name.startswith(name)
    ]
    with torch.device("meta"):
        model = network._build((32, 32, 3), 10)
        answered = model(torch.zeros(2, 3, 32, 32))
    assert sum(weight.numel() for weight in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.005)
    assert answered.shape == (2, 10)


def test_the_small_network_at_28_pixels_is_the_one_of_dpdm() -> None:
    model = classifiers("tiny", classes=10, size=(28, 28))[2]._build((28, 28, 1), 10)  # type: ignore[attr-defined]
    shapes = [tuple(weight.shape) for weight in model.parameters() if weight.ndim > 1]
    assert shapes == [(32, 1, 3, 3), (64, 32, 3, 3), (128, 64, 3, 3), (128, 1152), (10, 128)]


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (17, 18), (18, 18), (28, 28), (33, 40)])
def test_the_small_network_takes_images_of_any_size(size: tuple[int, int]) -> None:
    model = classifiers("tiny", classes=3, size=size)[2]._build((*size, 3), 3).eval()  # type: ignore[attr-defined]
    assert model(torch.zeros(2, 3, *size)).shape == (2, 3)


def test_images_of_more_than_32_pixels_have_no_resnext() -> None:
    names = [each.name for each in classifiers("paper", classes=2, size=(64, 64), device="cpu")]
    assert names == ["ResNet-110", "WRN-40-4"]
    assert len(classifiers("paper", classes=2, size=(32, 32), device="cpu")) == 3


@pytest.mark.parametrize(
    ("module", "options"),
    [
        ("resnet", {"depth": 8}),
        ("wide_resnet", {"depth": 10, "widen": 1}),
        ("resnext", {"depth": 11, "groups": 2, "widen": 1}),
    ],
)
def test_a_shallow_network_of_each_kind_learns_to_tell_dark_from_bright(module: str, options: dict) -> None:
    rng = np.random.default_rng(6)
    labels = np.arange(96) % 2
    images = (rng.integers(0, 100, size=(96, 8, 8, 3)) + 120 * labels[:, None, None, None]).astype(np.uint8)
    recipe = Recipe(optimizer="sgd", learning_rate=0.05, momentum=0.9, weight_decay=5e-4, batch=8, epochs=6)
    if module == "wide_resnet":
        recipe = Recipe(learning_rate=0.01, batch=8, epochs=6, drop_every=3)
    architecture = Architecture(name=module, module=module, options=tuple(options.items()))
    network = Network(architecture=architecture, recipe=recipe, classes=2)
    fitted = network.fit(Items(name="stripes", values=images[:64], labels=labels[:64]), seed=0)
    assert np.mean(fitted.probabilities(images[64:]).argmax(axis=1) == labels[64:]) > 0.9


def test_the_recipes_are_those_of_the_benchmark() -> None:
    for network in classifiers("paper", classes=10, size=(28, 28), device="cpu"):
        recipe = network.recipe  # type: ignore[attr-defined]
        assert (recipe.optimizer, recipe.learning_rate, recipe.batch, recipe.epochs) == ("adam", 0.01, 256, 50)
        assert recipe.length(55_000) == 215 * 50
        assert [recipe.rate(215 * epoch, 55_000) for epoch in (0, 19, 20, 40)] == pytest.approx([1, 1, 0.2, 0.04])
        assert [recipe.split(side) for side in (28, 32, 64, 128)] == [1, 1, 16, 64]
    for network in classifiers("paper-cifar", classes=10, size=(32, 32), device="cpu"):
        recipe = network.recipe  # type: ignore[attr-defined]
        assert (recipe.optimizer, recipe.learning_rate, recipe.batch, recipe.epochs) == ("sgd", 0.1, 126, 200)
        assert (recipe.momentum, recipe.weight_decay) == (0.9, 5e-4)
        epoch = recipe.length(45_000) // 200
        assert [recipe.rate(epoch * each, 45_000) for each in (59, 60, 180)] == pytest.approx([1, 0.2, 0.008])


def test_a_learning_rate_without_steps_rises_and_falls_to_almost_nothing() -> None:
    rates = [Recipe(learning_rate=1.0, batch=10, updates=100).rate(update, 50) for update in range(100)]
    assert max(rates) == 1.0 and rates.index(1.0) == 9 and 0 < rates[-1] < 0.01 and rates[0] == 0.1
    with pytest.raises(ValueError, match="either"):
        Recipe(learning_rate=1.0, batch=10)


def test_the_settings_of_jobs_name_these_profiles() -> None:
    from typing import get_args

    from privolve.evaluation.settings import Profile

    assert get_args(Profile) == PROFILES


def test_listing_profiles_and_judging_without_networks_does_not_import_torch() -> None:
    import subprocess

    code = (
        "import sys; from privolve.evaluation import utility, selection, membership, canaries; "
        "from privolve.evaluation.classifiers import profiles; "
        "profiles.classifiers('tiny', classes=2, size=(8, 8)); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'sklearn', 'scipy.stats')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# --- real images ------------------------------------------------------------------------------------------------------

MNIST = Path(__file__).resolve().parents[3] / "shared" / "data" / "images" / "mnist.npz"


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.is_file(), reason="no ../shared/data/images/mnist.npz beside the project")
def test_the_tiny_profile_ranks_its_classifiers_on_a_thousand_real_digits() -> None:
    with np.load(MNIST, allow_pickle=False) as mnist:
        train = Items(name=CEILING, values=mnist["x_train"][:1000], labels=mnist["y_train"][:1000].astype(np.int64))
        test = Items(name="test", values=mnist["x_test"][:4000], labels=mnist["y_test"][:4000].astype(np.int64))
    found = utility([train], test, classes=10, seeds=(0,))
    regression, mlp, cnn = (
        find(found, "classifier accuracy", CEILING, network).value for network in ("logistic", "MLP", "CNN")
    )
    assert regression > 0.8 and mlp > 0.8 and max(regression, mlp) + 0.04 < cnn and cnn > 0.92
    assert find(found, "expected calibration error", CEILING, "CNN").value < 0.05
