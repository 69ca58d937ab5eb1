"""What a training's plan says of signal against noise: by hand, and against the mechanisms themselves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from privolve.data.training_records import TrainingRecords
from privolve.jobs import training_signal
from privolve.jobs.training_design import Design
from privolve.jobs.training_signal import Signal
from privolve.privacy import lattice
from privolve.privacy.mechanism import PrivacyTarget
from privolve.privacy.randomness import SystemRng
from privolve.trainers import registry
from privolve.trainers.central_images import CentralImages
from privolve.trainers.contract import Shape
from privolve.trainers.dp_sgd import DPSGD
from privolve.trainers.feature_means import FeatureMeans
from privolve.trainers.semantic_query import SemanticQuery

SHAPE = Shape(width=8, height=8, channels=1, classes=tuple("0123456789"), slots=1000)
FIT = {"steps": 1}


def design(*, noise: float = 4.0, steps: int = 25, kind: str = "dpdm", **settings: Any) -> tuple[Any, Design]:
    """A method on 1,000 slots of ten classes, and its design at 100 records a step."""
    method = registry.parse({"kind": kind, **settings})
    return method, Design(
        shape=SHAPE,
        target=PrivacyTarget(epsilon=1.0, delta=1e-4, unit="image"),
        sgd=DPSGD(steps=steps, sampling_probability=0.1).with_noise(noise),
        queries=method.queries(SHAPE),
    )


def numbers(signals: list[Signal]) -> list[tuple[str, float, float]]:
    return [(each.name, pytest.approx(each.most), pytest.approx(each.noise)) for each in signals]


def test_a_step_has_its_records_at_most_and_noise_by_the_square_root_of_what_is_trained() -> None:
    """0.1 of 1,000; 4 times the root of 2,500. All 25 steps: 25 times the one, 5 times the other."""
    found = training_signal.of_training(design()[1], 2500)
    assert numbers(found) == [("training, a step", 100.0, 200.0), ("training, 25 steps", 2500.0, 1000.0)]
    assert [each.ratio for each in found] == [0.5, 2.5]


CENTRAL = {"kind": "central-images", "fit": FIT, "reduce": 2, "noise_multiplier": 5.0}
FREQUENCY = {"kind": "feature-means", "fit": FIT, "features": 400, "noise_multiplier": 4.0}
QUERIES = {
    "half of a class, against 5 on each of 4 x 4 pixels": ({**CENTRAL, "expected_batch": 500}, 50.0, 20.0),
    "a class, against 5 on each of 4 bins of 4 x 4 pixels": ({**CENTRAL, "statistic": "mode", "bins": 4}, 100.0, 40.0),
    "a class, against 4 on each of 400 features": (FREQUENCY, 100.0, 80.0),
}


@pytest.mark.parametrize("what", QUERIES)
def test_a_warm_up_has_the_records_of_a_class_at_most(what: str) -> None:
    table, most, noise = QUERIES[what]
    method, designed = design(warm_up=[table])
    assert numbers(training_signal.of_queries(method, designed)) == [(f"1-{table['kind']}", most, noise)]


def test_the_smallest_declared_class_is_what_a_warm_up_is_measured_by() -> None:
    shares = {"0": 0.01, **dict.fromkeys("123456789", 0.11)}
    method, designed = design(warm_up=[CENTRAL], label_shares=shares)
    assert [each.most for each in training_signal.of_queries(method, designed)] == [pytest.approx(10.0)]


def test_a_semantic_query_has_a_vote_of_each_record_of_a_class_in_a_cell() -> None:
    """Noise of 5 times the root of 4 votes; the warm-up after it keeps its own name."""
    method, designed = design(kind="privimage", votes=4, noise_multiplier=5.0, warm_up=[FREQUENCY])
    found = training_signal.of_queries(method, designed)
    assert numbers(found) == [("semantic-query", 100.0, 10.0), ("1-feature-means", 100.0, 80.0)]
    assert [each.unit for each in found] == ["votes in a cell", "records of a class"]


def test_the_mechanisms_add_as_much_noise_as_is_said_and_let_no_more_through() -> None:
    """Ghosts alone leave the noise; a class of equal extreme records is as long as they are many."""
    method, designed = design(
        kind="privimage",
        votes=4,
        noise_multiplier=5.0,
        warm_up=[{**CENTRAL, "noise_multiplier": 5.0}, {**CENTRAL, "statistic": "mode", "bins": 4}, FREQUENCY],
    )
    semantic, mean, mode, features = training_signal.of_queries(method, designed)
    pixels, labels = np.full((1000, 8, 8, 1), 255, dtype=np.uint8), np.repeat(np.arange(10), 100)
    ghosts = TrainingRecords(pixels=0 * pixels, labels=np.full(1000, -1), valid=np.zeros(1000, dtype=bool))
    white = TrainingRecords(pixels=pixels, labels=labels, valid=np.ones(1000, dtype=bool))
    central = CentralImages(shape=SHAPE, probability=1.0, rounds=20, reduce=2)
    binned = CentralImages(shape=SHAPE, probability=1.0, rounds=20, reduce=2, statistic="mode", bins=4)
    fourier = FeatureMeans(shape=SHAPE, features=400, scale=6.0, seed=0)
    for said, config, unit in (
        (mean, central, central.sensitivity),
        (mode, binned, binned.sensitivity),
        (features, fourier, 1.0),
    ):
        multiplier = 4.0 if said is features else 5.0
        noise = config.with_noise(multiplier)(SystemRng(), ghosts)["sums"].reshape(-1, *_cell(config))
        assert _length(noise) / unit == pytest.approx(said.noise, rel=0.05)
        clean = config.with_noise(1e-3)(SystemRng(), white)["sums"].reshape(-1, *_cell(config))
        assert _length(clean) / unit == pytest.approx(said.most, rel=0.01)
    query = SemanticQuery(shape=SHAPE, public_classes=400, votes=4)
    votes = query.with_noise(5.0).over(lambda rows: np.tile(np.arange(400.0), (len(rows), 1)))
    assert votes(SystemRng(), ghosts)["histogram"].std() == pytest.approx(semantic.noise, rel=0.1)
    assert votes(SystemRng(), white)["histogram"].max() == pytest.approx(semantic.most, abs=6 * semantic.noise)
    step, _ = training_signal.of_training(designed, 10_000)
    drawn = lattice.noisy(np.zeros(10_000, dtype=np.int64), clip_norm=0.01, noise_multiplier=4.0, secret=SystemRng())
    assert np.linalg.norm(drawn) / 0.01 == pytest.approx(step.noise, rel=0.05)


def _cell(config: Any) -> tuple[int, ...]:
    """The shape of what one class has in one round."""
    if isinstance(config, FeatureMeans):
        return (config.features,)
    return (*config.small, config.bins) if config.statistic == "mode" else config.small


def _length(cells: np.ndarray) -> float:
    """Of one class in one round: the root of the mean square."""
    return math.sqrt(float((cells.reshape(len(cells), -1) ** 2).sum(axis=1).mean()))


READINGS = {
    400: "In a step the records can outweigh the noise",
    2500: "over 4 steps or more the records can outweigh it",
    40_000: "Even if all records pulled the same way in all steps, there would be more noise than signal",
}
"""100 records against 80, 200 and 800; the last of these over 25 steps against 4,000, of 2,500."""


@pytest.mark.parametrize("parameters", READINGS)
def test_a_training_is_read_by_where_noise_outgrows_the_most_that_records_add(parameters: int) -> None:
    *_, reading = training_signal.lines([], training_signal.of_training(design()[1], parameters))
    assert READINGS[parameters] in reading
