"""Gray-box conformance of the real mechanism (re:cord-play): with masks and noise frozen, what a record can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from privolve.data.training_records import TrainingRecords
from privolve.privacy.accounting import epsilon
from privolve.privacy.audit import Neighbour
from privolve.privacy.audit_sampled import Subject, audit_sampled, canary_lower_bound
from privolve.privacy.mechanism import SampledGaussian
from privolve.privacy.randomness import SystemRng
from privolve.trainers.dp_sgd import Training
from privolve.trainers.optimizers import Optimizer

SLOTS, PROBABILITY, NOISE = 20, 0.37, 2.0  # 7.4 records a step: no whole batch
GHOST = 4


def neighbours(gym: Any) -> tuple[Neighbour[TrainingRecords], ...]:
    def to(slot: int, **change: Any) -> Any:
        return lambda data: gym.changed(data, slot, **change)

    return (
        Neighbour(name="ghost", change=to(7, ghost=True), contributions=1),
        Neighbour(name="ghost at the end", change=to(SLOTS - 1, ghost=True), contributions=1),
        Neighbour(name="not a number", change=to(7, pixels=gym.BROKEN), contributions=1),
        Neighbour(name="a record for the ghost", change=to(7, pixels=1, label=1), contributions=2),
        Neighbour(name="replaced", change=to(11, pixels=249, label=2), contributions=2),
        Neighbour(
            name="duplicate",
            change=lambda data: gym.changed(data, 11, pixels=data.pixels[2], label=int(data.labels[2])),
            contributions=2,
        ),
        Neighbour(
            name="all ghosts",
            change=lambda data: TrainingRecords(
                pixels=np.zeros_like(data.pixels),
                labels=np.full(SLOTS, -1, dtype=np.int64),
                valid=np.zeros(SLOTS, dtype=np.bool_),
            ),
            contributions=None,
        ),
    )


def sgd(gym: Any, steps: int, **fields: Any) -> Any:
    return gym.sgd(
        steps=steps,
        probability=PROBABILITY,
        noise=NOISE,
        optimizer=Optimizer(kind="sgd", learning_rate=PROBABILITY * SLOTS),
        **fields,
    )


def linear(gym: Any, **fields: Any) -> Subject[TrainingRecords]:
    """5,000 coordinates whose gradients are known and long, so that every record is clipped."""
    data = gym.changed(gym.records(SLOTS), GHOST, ghost=True)
    clip_norm = fields.get("clip_norm", 1.0)

    def mechanism(steps: int) -> Training:
        return gym.training(gym.linear(size=5000), sgd(gym, steps, **fields))

    return Subject(
        mechanism=mechanism,
        data=lambda: data,
        slots=SLOTS,
        neighbours=neighbours(gym),
        sums=lambda output: -output["weights/weight"].astype(np.float64) / clip_norm,
    )


def network(gym: Any) -> Subject[TrainingRecords]:
    """A network with convolutions, through vmap; one step at a time, as its gradient depends on where it is."""
    image = (6, 6, 1)
    data = gym.changed(gym.records(SLOTS, image=image), GHOST, ghost=True)
    start = {name: value.detach().numpy().copy() for name, value in gym.conv().module.named_parameters()}

    def mechanism(steps: int) -> Training:
        return gym.training(gym.conv(), sgd(gym, steps, clip_norm=4.0), start=start, loop=False)

    def sums(output: Mapping[str, np.ndarray]) -> np.ndarray:
        moved = [start[name] - output[f"weights/{name}"] for name in start]
        return np.concatenate([one.astype(np.float64).ravel() for one in moved]) / 4.0

    return Subject(
        mechanism=mechanism,
        data=lambda: data,
        slots=SLOTS,
        neighbours=[one for one in neighbours(gym) if one.name != "not a number"],
        sums=sums,
        additive=False,
    )


@pytest.mark.parametrize("fields", [{}, {"clip": "automatic"}, {"clip_norm": 0.25}], ids=str)
def test_dp_sgd_conforms(gym: Any, fields: dict[str, Any]):
    report = audit_sampled(linear(gym, **fields))
    assert report.passed, f"\n{report}"
    assert {row.name for row in report.rows} >= {"draws", "noise scale, 3 % off", "many runs", "replay: ghost"}


def test_dp_sgd_conforms_on_a_network(gym: Any):
    report = audit_sampled(network(gym), samples=500)
    assert report.passed, f"\n{report}"


def test_the_noisy_class_sums_of_other_trainers_conform(gym: Any):
    """The queries of DP-FETA and DP-FETA-Pro, through the same door."""
    from privolve.trainers.central_images import CentralImages
    from privolve.trainers.contract import Shape
    from privolve.trainers.feature_means import FeatureMeans

    shape = Shape(width=12, height=12, channels=1, classes=("a", "b", "c"), slots=SLOTS)
    data = gym.changed(gym.records(SLOTS, image=(12, 12, 1)), GHOST, ghost=True)
    data.pixels[7] = 255  # an extreme record, so that a ghost in its place is felt

    for statistic in ("mean", "mode"):

        def images(rounds: int, statistic: Any = statistic) -> Any:
            config = CentralImages(shape=shape, probability=PROBABILITY, rounds=rounds, statistic=statistic)
            return config.with_noise(NOISE)

        sensitivity = images(1).config.sensitivity
        subject_of_images = Subject(
            mechanism=images,
            data=lambda: data,
            slots=SLOTS,
            neighbours=neighbours(gym),
            sums=lambda output, sensitivity=sensitivity: output["sums"].sum(axis=0).ravel() / sensitivity,
        )
        report = audit_sampled(subject_of_images)
        assert report.passed, f"\n{report}"
    means = Subject(
        mechanism=lambda steps: FeatureMeans(shape=shape, features=64, scale=10.0, seed=1).with_noise(NOISE),
        data=lambda: data,
        slots=SLOTS,
        neighbours=neighbours(gym),
        sums=lambda output: output["sums"].ravel(),
        steps=1,
    )
    report = audit_sampled(means)
    assert report.passed, f"\n{report}"


def test_a_clipped_record_moves_the_sum_by_all_that_is_accounted(gym: Any):
    """So that the replay has something to find: the stand-in records are long."""
    report = audit_sampled(linear(gym), samples=0, runs=0)
    moved = next(row.detail for row in report.rows if row.name == "replay: ghost")
    assert float(moved.split("by ")[1].split(" of")[0]) > 0.999


def test_a_ghost_keeps_its_row(gym: Any):
    """The network sees batches of one shape with every other record in its place."""
    seen: list[list[Any]] = [[], []]
    data = gym.records(SLOTS)
    for kept, records in zip(seen, (data, gym.changed(data, 3, ghost=True)), strict=True):
        task = gym.linear()
        rows = task.rows

        def watched(pixels: Any, labels: Any, slots: Any, step: int, rows: Any = rows, kept: Any = kept) -> Any:
            kept.append((pixels.copy(), labels.copy(), slots.copy(), step))
            return rows(pixels, labels, slots, step)

        object.__setattr__(task, "rows", watched)
        training = gym.training(task, sgd(gym, 2))
        training.prepare()
        kept.clear()
        training(gym.Secret(), records)
    assert len(seen[0]) == len(seen[1]) == 2 * 5
    for (pixels, labels, slots, step), (others, their_labels, their_slots, their_step) in zip(*seen, strict=True):
        assert step == their_step and np.array_equal(slots, their_slots) and pixels.shape == others.shape
        same = slots != 3
        assert np.array_equal(pixels[same], others[same]) and np.array_equal(labels[same], their_labels[same])
        assert not others[~same].any() and not their_labels[~same].any()


def test_sums_of_many_rows_are_exact(gym: Any, monkeypatch: pytest.MonkeyPatch):
    """63 rows of one odd number near 2^20 in one chunk: float32 cannot hold their sum, and comes to it in steps of 16."""
    from privolve.trainers import dp_sgd

    class Whole:
        def per_record(self, batch: Any) -> Any:
            yield torch.tensor([[1.0, 3.0, 0.5]]).repeat(len(batch["x"]), 1)

    totals: list[np.ndarray] = []
    noisy = dp_sgd.lattice.noisy
    monkeypatch.setattr(
        dp_sgd.lattice, "noisy", lambda total, **rest: totals.append(total.copy()) or noisy(total, **rest)
    )
    monkeypatch.setattr(dp_sgd.gradients, "self_check", lambda *_, **__: 0.0)
    training = gym.sgd(clip_norm=3.3).training(
        gym.linear(size=3), None, gym.workspace(micro_batch=64), engine=lambda task: Whole()
    )
    training(gym.Secret(), gym.records(63))
    single, _ = dp_sgd.clipped_to_lattice(torch.tensor([[1.0, 3.0, 0.5]]), training.sgd.config)
    assert totals[0].tolist() == [63 * int(value) for value in single[0]]
    assert int(single[0, 1]) % 2 == 1 and max(totals[0]) > 2**25


# --- the smoke alarm --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_the_audit_of_the_right_mechanism_is_never_above_what_is_claimed(sigma: float):
    cost = SampledGaussian(probability=0.25, noise_multiplier=sigma, steps=40)
    lower = canary_lower_bound(cost, SystemRng(), runs=20_000, delta=1e-5)
    assert 0.02 * epsilon([cost], 1e-5) < lower <= epsilon([cost], 1e-5)


def test_the_audit_of_a_mechanism_without_noise_is_above_what_is_claimed():
    cost = SampledGaussian(probability=0.25, noise_multiplier=12.0, steps=40)
    claimed = epsilon([cost], 1e-5)
    assert claimed < 1.3
    lower = canary_lower_bound(cost, SystemRng(), runs=20_000, delta=1e-5, noise_multiplier=0.0)
    assert lower > 5 * claimed
