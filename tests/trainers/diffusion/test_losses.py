"""The loss of a record, and randomness that belongs to (seed, step, slot) alone."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from torch import Tensor

from privolve.trainers.diffusion.denoisers import EDM, parametrisation
from privolve.trainers.diffusion.losses import DiffusionLoss, Levels, public_batch


def records(count: int, side: int = 4, channels: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (count, side, side, channels), dtype=np.uint8)
    return pixels, draw.integers(0, 10, count), np.arange(100, 100 + count)


def parts(batch, at: int) -> list[Tensor]:
    return [value[at] for value in batch.values()]


@pytest.mark.parametrize("augmentation", ["none", "flip-shift"])
def test_a_records_row_is_a_function_of_its_slot_and_not_of_its_place(augmentation) -> None:
    rows = DiffusionLoss(classes=10, multiplicity=3, label_dropout=0.5, augmentation=augmentation).rows(7)
    pixels, labels, slots = records(6)
    whole = rows(pixels, labels, slots, 2)
    order = np.array([4, 0, 5])
    some = rows(pixels[order], labels[order], slots[order], 2)
    for at, place in enumerate(order):
        assert all(torch.equal(a, b) for a, b in zip(parts(whole, place), parts(some, at), strict=True))


def test_a_record_that_becomes_a_ghost_changes_no_other_row() -> None:
    rows = DiffusionLoss(classes=10, multiplicity=2).rows(7)
    pixels, labels, slots = records(5)
    before = rows(pixels, labels, slots, 0)
    pixels[2], labels[2] = 0, -1
    after = rows(pixels, labels, slots, 0)
    for at in (0, 1, 3, 4):
        assert all(torch.equal(a, b) for a, b in zip(parts(before, at), parts(after, at), strict=True))
    assert after["label"][2] == 10


def test_seed_step_and_slot_each_change_the_randomness() -> None:
    loss = DiffusionLoss(classes=10)
    pixels, labels, _ = records(1)
    seen = [
        loss.rows(seed)(pixels, labels, np.array([slot]), step)["noise"].numpy().tobytes()
        for seed in (0, 1)
        for step in (0, 1)
        for slot in (0, 1, 2, -1)
    ]
    assert len(set(seen)) == len(seen)


def test_draws_of_a_record_differ_and_share_one_label() -> None:
    batch = DiffusionLoss(classes=10, multiplicity=4).rows(0)(*records(3), 0)
    assert batch["label"].shape == (3,) and batch["level"].shape == (3, 4) and batch["noise"].shape == (3, 4, 1, 4, 4)
    assert len(set(batch["level"].flatten().tolist())) == 12
    assert len({draw.numpy().tobytes() for draw in batch["noise"].flatten(0, 1)}) == 12


def test_all_draws_of_a_record_are_dropped_together_because_they_share_a_label() -> None:
    loss = DiffusionLoss(classes=10, multiplicity=5, label_dropout=0.5)
    seen: list[Tensor] = []

    def net(x: Tensor, noise: Tensor, labels: Tensor) -> Tensor:
        seen.append(labels)
        return torch.zeros_like(x)

    batch = loss.rows(0)(*records(40), 0)
    loss.losses(net, batch)
    grid = seen[0].reshape(40, 5)
    assert (grid == grid[:, :1]).all() and 0 < (grid[:, 0] == 10).sum() < 40


def test_labels_are_dropped_with_the_given_probability_and_never_for_zero() -> None:
    pixels, labels, _ = records(1)
    pixels, labels, slots = np.repeat(pixels, 4000, 0), np.zeros(4000, np.int64), np.arange(4000)
    share = (
        (DiffusionLoss(classes=10, label_dropout=0.1).rows(0)(pixels, labels, slots, 0)["label"] == 10).float().mean()
    )
    assert abs(share - 0.1) < 6.5 * math.sqrt(0.1 * 0.9 / 4000)
    assert (DiffusionLoss(classes=10, label_dropout=0.0).rows(0)(pixels, labels, slots, 0)["label"] == 0).all()
    assert (DiffusionLoss(classes=10, label_dropout=1.0).rows(0)(pixels, labels, slots, 0)["label"] == 10).all()
    assert (DiffusionLoss(classes=10, conditional=False).rows(0)(pixels, labels, slots, 0)["label"] == 10).all()


def test_a_label_beyond_the_classes_is_null_and_not_another_class() -> None:
    pixels, _, slots = records(3)
    batch = DiffusionLoss(classes=10, label_dropout=0.0).rows(0)(pixels, np.array([-1, 10, 999]), slots, 0)
    assert batch["label"].tolist() == [10, 10, 10]


def test_noise_is_standard_normal_and_levels_are_log_normal() -> None:
    pixels, labels, _ = records(1, side=8)
    count = 2000
    batch = DiffusionLoss(classes=10, multiplicity=2).rows(3)(
        np.repeat(pixels, count, 0), np.repeat(labels, count), np.arange(count), 0
    )
    noise, logs = batch["noise"].double(), batch["level"].double().log()
    assert abs(noise.mean()) < 6.5 / math.sqrt(noise.numel())
    assert abs(noise.var() - 1) < 6.5 * math.sqrt(2 / noise.numel())
    assert abs(logs.mean() + 1.2) < 6.5 * 1.2 / math.sqrt(logs.numel())
    assert abs(logs.std() / 1.2 - 1) < 6.5 / math.sqrt(2 * logs.numel())


def test_levels_can_be_cut_and_biased() -> None:
    uniform = (np.arange(10_000) + 0.5) / 10_000
    cut = Levels(least=0.1, most=2.0).drawn(uniform, EDM())
    assert cut.min() >= 0.0999 and cut.max() <= 2.001
    whole = Levels().drawn(uniform, EDM())
    inside = whole[(whole >= 0.1) & (whole <= 2.0)]
    assert np.isclose(cut.log().mean(), inside.log().mean(), atol=1e-3), (
        "the same distribution, given that it is inside"
    )
    biased = Levels(bias=((0.0, 0.5, 0.2), (0.5, 1.0, 0.8))).drawn(uniform, EDM())
    assert (biased < whole.median()).float().mean().item() == pytest.approx(0.2, abs=1e-3)
    torch.testing.assert_close(Levels(bias=((0.0, 1.0, 1.0),)).drawn(uniform, EDM()), whole)


@pytest.mark.parametrize(
    "wrong",
    [
        {"least": 2.0, "most": 1.0},
        {"bias": ((0.5, 0.2, 1.0),)},
        {"bias": ((0.0, 1.0, 0.7),)},
        {"bias": ((0.0, 2.0, 1.0),)},
    ],
)
def test_levels_that_make_no_distribution_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"levels lie|piece of bias|add up to 1"):
        Levels(**wrong)


@pytest.mark.parametrize("wrong", [{"multiplicity": 0}, {"label_dropout": 1.5}, {"largest_shift": -1}])
def test_a_loss_without_draws_or_with_no_probability_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match="multiplicity"):
        DiffusionLoss(classes=10, **wrong)


@pytest.mark.parametrize("kind", ["edm", "v", "vp", "ve"])
def test_the_loss_is_the_weighted_squared_error_of_the_denoised_averaged_over_draws(kind) -> None:
    scheme = parametrisation(kind)
    loss = DiffusionLoss(classes=10, multiplicity=3, scheme=scheme)
    batch = loss.rows(0)(*records(2), 0)
    found = loss.losses(lambda x, noise, labels: torch.sin(x) + noise[:, None, None, None], batch)
    for at in range(2):
        total = 0.0
        for draw in range(3):
            sigma = batch["level"][at, draw]
            clean = batch["image"][at]
            noisy = clean + sigma * batch["noise"][at, draw]
            skip, out, into, level = scheme.scalings(sigma)
            denoised = skip * noisy + out * (torch.sin(into * noisy) + level)
            total += (scheme.weight(sigma) * (denoised - clean).square().mean()).item() / 3
        assert found[at].item() == pytest.approx(total, rel=1e-4)


def test_pixels_become_numbers_from_minus_1_to_1_with_channels_first() -> None:
    pixels = np.zeros((1, 2, 3, 3), np.uint8)
    pixels[0, 1, 2] = [255, 0, 128]
    image = DiffusionLoss(classes=1).rows(0)(pixels, np.zeros(1, np.int64), np.zeros(1, np.int64), 0)["image"]
    assert image.shape == (1, 3, 2, 3) and image[0, :, 1, 2].tolist() == pytest.approx(
        [1, -1, 128 / 127.5 - 1], abs=1e-6
    )


def test_augmentation_shifts_and_flips_each_draw_and_shift_alone_keeps_the_order() -> None:
    pixels = np.arange(36, dtype=np.uint8).reshape(1, 6, 6, 1) * 7
    for kind in ("shift", "flip-shift"):
        loss = DiffusionLoss(classes=1, multiplicity=64, augmentation=kind, largest_shift=2)  # type: ignore[arg-type]
        images = loss.rows(0)(pixels, np.zeros(1, np.int64), np.zeros(1, np.int64), 0)["image"]
        assert images.shape == (1, 64, 1, 6, 6)
        rising = (images[0, :, 0, :, 2] <= images[0, :, 0, :, 3]).all(dim=1)
        assert rising.all() if kind == "shift" else 10 < rising.sum() < 54
        assert len({image.numpy().tobytes() for image in images[0]}) > 20


def test_rows_may_be_encoded_and_encoded_ones_are_not_augmented() -> None:
    encode = lambda pixels: pixels.mean(axis=(1, 2), keepdims=True).transpose(0, 3, 1, 2).astype(np.float32)  # noqa: E731
    batch = DiffusionLoss(classes=10, multiplicity=2).rows(0, encode=encode)(*records(3), 0)
    assert batch["image"].shape == (3, 1, 1, 1) and batch["noise"].shape == (3, 2, 1, 1, 1)
    with pytest.raises(ValueError, match="not shifted or flipped"):
        DiffusionLoss(classes=10, augmentation="shift").rows(0, encode=encode)


def test_a_batch_of_256_with_8_draws_of_28_by_28_takes_milliseconds() -> None:
    rows = DiffusionLoss(classes=10, multiplicity=8).rows(0)
    pixels = np.zeros((256, 28, 28, 1), np.uint8)
    best = math.inf
    for step in range(4):
        start = time.process_time()
        rows(pixels, np.zeros(256, np.int64), np.arange(256), step)
        best = min(best, time.process_time() - start)
    assert best < 0.25, "1.6 million normals are about 20 ms"


def test_the_public_batch_has_the_shapes_of_training() -> None:
    loss = DiffusionLoss(classes=10, multiplicity=2)
    public, real = public_batch(loss, records=3, channels=1, height=4, width=4), loss.rows(0)(*records(3), 0)
    assert {name: value.shape for name, value in public.items()} == {name: value.shape for name, value in real.items()}
    assert loss.losses(lambda x, noise, labels: x, public).shape == (3,)
