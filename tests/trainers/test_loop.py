"""Public stages: what is stopped goes on and ends with the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from privolve.trainers import loop  # noqa: E402
from privolve.trainers.contract import Arrays, Shape, TrainerError  # noqa: E402
from privolve.trainers.feature_generator import matched_images  # noqa: E402
from privolve.trainers.feature_means import FeatureMeans  # noqa: E402
from privolve.trainers.loop import Fit, fit  # noqa: E402


class Stopped(Exception):
    """The process died here."""


@pytest.fixture(autouse=True)
def every_step_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", 0.0)


def stopping(at: int | None):
    def progress(*told: object) -> None:
        if told[-2] == at:
            raise Stopped

    return progress


def regression(folder: Path, *, stop: int | None = None, compiled: bool = False, **settings: object) -> Arrays:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1)
    data = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32))
    return fit(
        module,
        lambda net, batch: (net(batch["x"])[:, 0] - batch["x"].sum(dim=1)).square(),
        lambda rows, step: {"x": data[rows]},
        images=20,
        settings=Fit(**{"steps": 8, "batch": 5, "learning_rate": 0.05, **settings}),  # type: ignore[arg-type]
        seed=3,
        folder=folder,
        progress=stopping(stop),
        name="regression",
        compiled=compiled,
    )


def equal(first: Arrays, second: Arrays) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_a_training_that_was_stopped_goes_on_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    for name in ("whole", "parts", "short"):
        (tmp_path / name).mkdir()
    whole = regression(tmp_path / "whole")
    for stop in (3, 7):
        with pytest.raises(Stopped):
            regression(tmp_path / "parts", stop=stop)
    assert equal(regression(tmp_path / "parts"), whole)
    # Else equality would say nothing.
    assert not equal(regression(tmp_path / "short", steps=7), whole)


def test_a_training_learns_and_averages(tmp_path: Path) -> None:
    trained = regression(tmp_path, steps=200)
    np.testing.assert_allclose(trained["weights/weight"], 1.0, atol=0.05)
    assert not np.array_equal(trained["weights/weight"], trained["ema/weight"])


def test_half_precision_moves_weights_that_stay_float32(tmp_path: Path) -> None:
    for name in ("full", "half"):
        (tmp_path / name).mkdir()
    full, half = regression(tmp_path / "full"), regression(tmp_path / "half", precision="bf16")
    assert {array.dtype for array in half.values()} == {np.dtype(np.float32)}
    assert not equal(full, half)
    np.testing.assert_allclose(half["weights/weight"], full["weights/weight"], atol=0.02)


def test_a_loss_that_is_no_number_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="lower learning_rate"):
        regression(tmp_path, learning_rate=1e30, steps=50)


def test_the_feature_generator_goes_on_where_it_stopped(tmp_path: Path) -> None:
    shape = Shape(width=8, height=8, channels=1, classes=("a", "b"), slots=10)
    config = FeatureMeans(shape=shape, features=16, scale=10.0, seed=1)
    means = np.random.default_rng(0).normal(size=(2, 16))

    def made(name: str, stop: int | None = None) -> Arrays:
        (tmp_path / name).mkdir(exist_ok=True)
        return matched_images(
            means,
            config,
            width=4,
            steps=5,
            batch=4,
            learning_rate=1e-2,
            count=6,
            folder=tmp_path / name,
            progress=stopping(stop),
        )

    whole = made("whole")
    with pytest.raises(Stopped):
        made("parts", stop=4)
    assert equal(made("parts"), whole)


def test_an_autoencoder_goes_on_where_it_stopped(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    from privolve.trainers.diffusion.latent import train_autoencoder
    from privolve.trainers.diffusion.sizes import AutoencoderConfig

    config = AutoencoderConfig(image_width=8, image_height=8, channels=1, width=4)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)

    def made(name: str, stop: int | None = None) -> Arrays:
        (tmp_path / name).mkdir(exist_ok=True)
        trained = train_autoencoder(
            pixels, config, steps=5, seed=1, batch=4, folder=tmp_path / name, progress=stopping(stop)
        )
        return trained.saved()

    whole = made("whole")
    with pytest.raises(Stopped):
        made("parts", stop=4)
    assert equal(made("parts"), whole)
