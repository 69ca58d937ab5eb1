"""One step of a private training, and many."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from privolve.privacy.lattice import on_lattice
from privolve.privacy.mechanism import SampledGaussian
from privolve.privacy.private import OperationalError
from privolve.privacy.randomness import SystemRng
from privolve.trainers.contract import TrainerError
from privolve.trainers.dp_sgd import DPSGD, Task, clipped_to_lattice
from privolve.trainers.gradients import EngineRefused, Loop, OpacusHooks, Precision
from privolve.trainers.optimizers import Average, Optimizer


def summed(gym: Any, data: Any, task: Task | None = None, *, secret: Any = None, **settings: Any) -> np.ndarray:
    """The clean sum of one step in clip norms."""
    task = task or gym.linear()
    training = gym.training(task, gym.sgd(), **settings)
    return -training(secret or gym.Secret(), data)["weights/weight"].astype(np.float64)


# --- the clipped gradient ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", ["norm", "automatic"])
@pytest.mark.parametrize("clip_norm", [1e-3, 1.0, 30.0])
def test_no_row_is_longer_than_the_clip_norm(clip: Any, clip_norm: float):
    config = DPSGD(steps=1, sampling_probability=0.5, clip_norm=clip_norm, clip=clip)
    rows = torch.randn(40, 70_000) * torch.logspace(-12, 18, 40)[:, None]
    points, norms = clipped_to_lattice(rows.clone(), config)
    exact = points.to(torch.int64)
    assert torch.equal(exact.to(torch.float32), points)
    assert exact.square().sum(dim=1).max() <= 2**40
    assert torch.allclose(norms, rows.double().norm(dim=1), rtol=1e-12)
    # No shorter than it must be, either: up to the cut toward zero.
    long = norms > (clip_norm if clip == "norm" else 100)
    length = exact.double().norm(dim=1) / 2**20
    assert (length[long] > 0.9995 - (0.001 if clip == "automatic" else 0)).all()


def test_rows_are_cut_as_the_lattice_of_privacy_cuts_them():
    rows = torch.randn(8, 1000)
    points, _ = clipped_to_lattice(rows.clone(), DPSGD(steps=1, sampling_probability=0.5, clip_norm=2.0))
    assert np.abs(points.numpy() - on_lattice(rows.numpy(), 2.0)).max() <= 1
    short = rows / 100  # too short to be clipped
    points, _ = clipped_to_lattice(short.clone(), DPSGD(steps=1, sampling_probability=0.5, clip_norm=2.0))
    assert (points.abs() <= short.abs() * 2**19).all()  # toward zero
    assert points.any()


def test_a_gradient_that_is_not_finite_counts_as_zero():
    config = DPSGD(steps=1, sampling_probability=0.5)
    rows = torch.ones(4, 10)
    rows[1, 3], rows[2, 0] = float("nan"), float("-inf")
    points, _ = clipped_to_lattice(rows, config)
    assert points.abs().sum(dim=1).gt(0).tolist() == [True, False, False, True]


def test_a_row_whose_norm_was_misjudged_counts_as_zero(monkeypatch: pytest.MonkeyPatch):
    from privolve.trainers import dp_sgd

    true = dp_sgd._squares
    calls = iter([lambda rows: true(rows) / 1.1, true])
    monkeypatch.setattr(dp_sgd, "_squares", lambda rows: next(calls)(rows))
    points, _ = clipped_to_lattice(torch.randn(3, 50) * 10, DPSGD(steps=1, sampling_probability=0.5))
    assert not points.any()


# --- the sum ----------------------------------------------------------------------------------------------------------


def test_the_sum_is_that_of_the_drawn_records_alone(gym: Any):
    data, task = gym.records(), gym.linear(scale=1000.0)  # far below the clip norm
    chosen = np.arange(20) % 3 == 0
    found = summed(gym, data, task, secret=gym.Secret(mask=lambda step, n: chosen))
    slots = np.flatnonzero(chosen)
    expected = task.rows(data.pixels[slots], data.labels[slots], slots, 0)["x"].double().sum(dim=0)
    assert np.abs(found - expected.numpy()).max() < 20 * 2.0**-20 + 1e-4


def test_the_cut_into_batches_cannot_be_seen_in_the_sum(gym: Any):
    data = gym.records(23)
    sums = [summed(gym, data, micro_batch=rows) for rows in (1, 4, 7, 23, 64)]
    assert all(np.array_equal(sums[0], other) for other in sums)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_cut_cannot_be_seen_on_a_network_with_the_chunks_of_vmap(gym: Any, precision: Precision):
    data = gym.records(23, image=(6, 6, 1))
    outputs = []
    for rows in (4, 8, 32):
        task = replace(gym.conv(), precision=precision)
        training = gym.training(task, gym.sgd(steps=2), loop=False, micro_batch=rows, chunk=4, engine="vmap")
        outputs.append(training(gym.Secret(), data))
    for name in outputs[0]:
        assert np.array_equal(outputs[0][name], outputs[1][name])
        assert np.array_equal(outputs[0][name], outputs[2][name])


def test_a_ghost_adds_nothing_and_changes_no_other_row(gym: Any):
    data = gym.records()
    task = gym.linear()
    ghost = gym.changed(data, 7, ghost=True)
    only = summed(gym, data, task, secret=gym.Secret(mask=lambda step, n: np.arange(n) == 7))
    whole, without = summed(gym, data), summed(gym, ghost)
    assert np.abs(whole - without - only).max() < 1e-5
    # Whatever lies in the slot of a ghost.
    assert np.array_equal(summed(gym, gym.changed(ghost, 7, pixels=gym.BROKEN)), without)


def test_a_record_without_a_finite_gradient_adds_nothing(gym: Any):
    data = gym.records()
    assert np.array_equal(
        summed(gym, gym.changed(data, 3, pixels=gym.BROKEN)), summed(gym, gym.changed(data, 3, ghost=True))
    )


def test_an_empty_batch_is_a_step_with_noise_alone_and_never_reaches_the_network(gym: Any):
    task = gym.linear()
    training = gym.training(task, gym.sgd(steps=3))
    training.prepare()
    task.module.calls = 0
    secret = gym.Secret(mask=lambda step, n: np.zeros(n, bool), noise=lambda step, shape: np.full(shape, step + 1.0))
    output = training(secret, gym.records())
    assert task.module.calls == 0
    assert len(secret.noises) == 3
    assert np.allclose(-output["weights/weight"], 2.0 * (1 + 2 + 3), rtol=1e-5)


# --- noise and normaliser ---------------------------------------------------------------------------------------------


def test_each_step_draws_one_mask_over_all_slots_and_one_flat_vector_of_noise(gym: Any):
    secret = gym.Secret()
    data = gym.changed(gym.records(), 4, ghost=True)
    gym.training(gym.linear(), gym.sgd(steps=3, noise=1.5))(secret, data)
    assert secret.masks == [(20, 0.3)] * 3
    assert secret.noises == [((6,), 1.5 * gym.RESOLUTION)] * 3


def test_the_divisor_is_the_rate_times_all_slots_whoever_was_drawn(gym: Any):
    """Noise of one clip norm moves the weights by learning rate over q N: with 0.3 * 20 = 6 that is no whole batch."""
    for data in (gym.records(), gym.changed(gym.records(), 2, ghost=True)):
        for drawn in (0, 1, 13):
            secret = gym.Secret(
                mask=lambda step, n, drawn=drawn: np.arange(n) < drawn, noise=lambda step, shape: np.ones(shape)
            )
            silent = gym.Secret(mask=lambda step, n, drawn=drawn: np.arange(n) < drawn)
            sgd = gym.sgd(probability=0.37, noise=3.0, optimizer=Optimizer(kind="sgd", learning_rate=0.37 * 20))
            moved = (
                gym.training(gym.linear(), sgd)(silent, data)["weights/weight"]
                - gym.training(gym.linear(), sgd)(secret, data)["weights/weight"]
            )
            assert np.allclose(moved, 3.0, rtol=1e-5)


def test_parameters_that_are_not_trained_get_no_noise(gym: Any):
    task = gym.linear()
    output = gym.training(task, gym.sgd(steps=2))(SystemRng(), gym.records())
    assert set(output) == {"weights/weight", "ema/weight"}
    assert task.module.frozen.tolist() == [7.0, 7.0]


def test_weights_and_average_come_back_as_float32_arrays_by_parameter(gym: Any):
    task = gym.conv()
    output = gym.training(task, gym.sgd(steps=2), loop=False)(SystemRng(), gym.records(image=(6, 6, 1)))
    assert {name.split("/")[1] for name in output} == set(task.trained)
    for name, parameter in task.module.named_parameters():
        for kind in ("weights", "ema"):
            array = output[f"{kind}/{name}"]
            assert array.dtype == np.float32 and array.shape == tuple(parameter.shape)
        assert np.array_equal(output[f"weights/{name}"], parameter.detach().numpy())


def test_the_same_training_called_again_begins_at_its_start(gym: Any):
    data, secret = gym.records(), gym.Secret
    training = gym.training(gym.linear(), gym.sgd(steps=2), start={"weight": np.arange(6, dtype=np.float32)})
    one, other = training(secret(), data), training(secret(), data)
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_the_average_warms_up():
    average = Average(decay=0.99)
    assert [average.at(step) for step in (1, 9, 10_000)] == [2 / 11, 10 / 19, 0.99]
    value, weights = torch.zeros(1), torch.ones(1)
    average.move(value, weights, step=1)
    assert value.item() == pytest.approx(9 / 11)


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (Optimizer(kind="adam", learning_rate=0.05), lambda p: torch.optim.Adam(p, lr=0.05)),
        (
            Optimizer(kind="adam", learning_rate=0.05, weight_decay=0.1),
            lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=0.1),
        ),
        (
            Optimizer(kind="adamw", learning_rate=0.05, weight_decay=0.1, betas=(0.8, 0.9)),
            lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1, betas=(0.8, 0.9)),
        ),
        (
            Optimizer(kind="sgd", learning_rate=0.05, momentum=0.9, weight_decay=0.1),
            lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1),
        ),
    ],
)
def test_the_optimizers_are_those_of_torch(ours: Optimizer, theirs: Any):
    torch.manual_seed(1)
    weights = torch.randn(50)
    parameter = torch.nn.Parameter(weights.clone())
    optimizer, state = theirs([parameter]), ours.begin(weights)
    for step in range(10):
        gradient = torch.randn(50)
        parameter.grad = gradient.clone()
        optimizer.step()
        ours.move(weights, gradient, state, step=step, steps=10)
    assert torch.allclose(weights, parameter.detach(), rtol=1e-5, atol=1e-6)


def test_rates_warm_up_and_fall():
    cosine = Optimizer(learning_rate=1.0, schedule="cosine", warm_up_steps=4)
    assert [cosine.rate(step, 14) for step in (0, 3, 4, 9)] == pytest.approx([0.25, 1.0, 1.0, 0.5])
    assert Optimizer(learning_rate=1.0, schedule="linear").rate(5, 10) == 0.5
    assert Optimizer(learning_rate=1.0).rate(9, 10) == 1.0


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"clip_norm": 0.0}, "clip_norm = 0.0"),
        ({"clip_norm": float("nan")}, "clip_norm = nan"),
        ({"sampling_probability": 1.2}, "sampling_probability = 1.2"),
        ({"sampling_probability": 0.0}, "sampling_probability = 0.0"),
        ({"steps": 0}, "steps = 0"),
        ({"clip": "flat"}, "there are norm and automatic"),
        ({"gamma": 0.0}, "gamma = 0.0"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(wrong: dict[str, Any], said: str):
    with pytest.raises(TrainerError) as refused:
        DPSGD(**{"steps": 10, "sampling_probability": 0.1, **wrong})
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("training", [True, False])
def test_layers_that_mix_records_are_refused(gym: Any, training: bool):
    task = gym.conv()
    task.module.norm = torch.nn.BatchNorm2d(4)
    task.module.train(training).requires_grad_(False)
    trained = ("last.weight",)
    with pytest.raises(EngineRefused, match=r"BatchNorm2d.*mixes the records"):
        gym.training(
            Task(module=task.module, losses=task.losses, trained=trained, rows=task.rows, image=task.image), gym.sgd()
        )


def test_a_loss_that_mixes_records_is_refused_by_the_check_on_public_input(gym: Any):
    task = gym.conv()

    def centred(net: Any, batch: Any) -> torch.Tensor:
        image = batch["image"] - batch["image"].mean(dim=0)
        return net(image, batch["label"]).square() + net(batch["image"], batch["label"])

    mixing = Task(module=task.module, losses=centred, trained=task.trained, rows=task.rows, image=task.image)
    training = gym.sgd().training(
        mixing,
        None,
        gym.workspace(),
        engine=lambda task: OpacusHooks(module=task.module, losses=task.losses, trained=task.trained, chunk=4),
    )
    with pytest.raises(EngineRefused, match="loop over single records"):
        training.prepare()


def test_what_is_trained_must_be_float32(gym: Any):
    task = gym.linear()
    task.module.half()
    with pytest.raises(TrainerError, match="float16"):
        gym.training(task, gym.sgd())


def test_a_start_of_another_network_is_refused(gym: Any):
    with pytest.raises(TrainerError, match="another network"):
        gym.training(gym.linear(), gym.sgd(), start={"other": np.zeros(6, np.float32)})
    with pytest.raises(TrainerError, match="of shape"):
        gym.training(gym.linear(), gym.sgd(), start={"weight": np.zeros(5, np.float32)})


def test_the_batch_is_halved_until_it_fits_before_anything_is_drawn(gym: Any):
    task, sizes = gym.linear(), []

    class Hungry:
        def per_record(self, batch: Any) -> Any:
            sizes.append(len(batch["x"]))
            if len(batch["x"]) > 8:
                raise torch.OutOfMemoryError("CUDA out of memory")
            yield from Loop(module=task.module, losses=task.losses, trained=task.trained).per_record(batch)

    training = gym.sgd().training(task, None, gym.workspace(micro_batch=32), engine=lambda task: Hungry())
    training.prepare()
    assert sizes[:3] == [32, 16, 8] and set(sizes[3:]) == {3}
    checked = len(sizes)
    training(gym.Secret(), gym.records())
    assert sizes[checked:] == [8, 8, 8]


def test_memory_that_runs_out_later_stops_the_run_as_an_operational_error(gym: Any):
    class Full:
        calls = 0

        def per_record(self, batch: Any) -> Any:
            self.calls += 1
            if self.calls > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            yield from loop.per_record(batch)

    task = gym.linear()
    loop = Loop(module=task.module, losses=task.losses, trained=task.trained)
    training = gym.sgd().training(task, None, gym.workspace(), engine=lambda task: Full())
    with pytest.raises(OperationalError, match="ran out of memory"):
        training(gym.Secret(), gym.records())


# --- what it costs and binds ------------------------------------------------------------------------------------------


def test_a_training_costs_its_sampled_steps(gym: Any):
    assert gym.training(gym.linear(), gym.sgd(steps=40, noise=3.0)).cost == SampledGaussian(
        probability=0.3, noise_multiplier=3.0, steps=40
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda gym: gym.training(gym.linear(), gym.sgd(noise=2.5)),
        lambda gym: gym.training(gym.linear(), gym.sgd(clip_norm=2.0)),
        lambda gym: gym.training(gym.linear(), gym.sgd(clip="automatic")),
        lambda gym: gym.training(gym.linear(), gym.sgd(optimizer=Optimizer(learning_rate=0.1))),
        lambda gym: gym.training(replace(gym.linear(), precision="bf16"), gym.sgd()),
        lambda gym: gym.training(gym.linear(), gym.sgd(), start={"weight": np.ones(6, np.float32)}),
        lambda gym: gym.training(gym.linear(), gym.sgd(), start={"frozen": np.ones(2, np.float32)}),
    ],
)
def test_everything_that_shapes_the_answer_is_described(gym: Any, change: Any):
    def described(training: Any) -> dict[str, Any]:
        return dict(training.describe())

    same = described(gym.training(gym.linear(), gym.sgd()))
    assert described(gym.training(gym.linear(), gym.sgd(), micro_batch=9)) == same
    assert described(change(gym)) != same
