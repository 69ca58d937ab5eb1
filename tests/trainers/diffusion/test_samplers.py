"""Samplers against a distribution whose denoiser is known; exactly n images, each a function of its own number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from privolve.trainers.diffusion.denoisers import EDM, Parametrisation, parametrisation
from privolve.trainers.diffusion.samplers import draw, levels, sample, to_pixels, to_unit
from privolve.trainers.diffusion.sampling import SamplerConfig, balanced_labels, labels_by_share
from privolve.trainers.diffusion.sizes import sized
from privolve.trainers.diffusion.unet import UNet

KINDS = ("heun", "ddim", "edm", "ancestral")
CENTRES = (-0.6, 0.2, 0.9, 0.0)
SPREAD = 0.2


class Perfect(nn.Module):
    """The best network for data N(centre of the label, SPREAD^2) in every pixel; the last label is null."""

    def __init__(self, scheme: Parametrisation) -> None:
        super().__init__()
        self.scheme = scheme
        self.evaluations = 0
        grid = torch.logspace(-4, 3, 200_001, dtype=torch.float64)
        self.grid, self.noise = grid, scheme.scalings(grid)[3]

    def forward(self, scaled: Tensor, noise: Tensor, labels: Tensor) -> Tensor:
        self.evaluations += len(scaled)
        place = torch.searchsorted(self.noise, noise.double()).clamp(0, len(self.grid) - 1)
        sigma = self.grid[place].float().reshape(-1, 1, 1, 1)
        skip, out, into, _ = self.scheme.scalings(sigma)
        x = scaled / into
        centre = torch.tensor(CENTRES)[labels].reshape(-1, 1, 1, 1)
        best = (SPREAD**2 * x + sigma**2 * centre) / (SPREAD**2 + sigma**2)
        return (best - skip * x) / out


def drawn(kind: str, scheme: str = "edm", n: int = 300, **settings: float) -> tuple[np.ndarray, Perfect]:
    perfect = Perfect(parametrisation(scheme))  # type: ignore[arg-type]
    sampler = SamplerConfig(kind=kind, **settings)  # type: ignore[arg-type]
    found = draw(perfect, perfect.scheme, balanced_labels(n, 3), sampler, shape=(1, 4, 4), null=3, seed=1)
    return found.numpy(), perfect


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", ["edm", "v", "vp", "ve"])
def test_a_sampler_gives_the_distribution_of_a_perfect_network(kind: str, scheme: str) -> None:
    steps = {"heun": 30, "edm": 60, "ddim": 200, "ancestral": 200}[kind]
    images, _ = drawn(kind, scheme, steps=steps)
    for label in range(3):
        of_label = images[label::3].ravel()
        assert abs(of_label.mean() - CENTRES[label]) < 6.5 * SPREAD / np.sqrt(len(of_label)) + 0.01
        assert abs(of_label.std() / SPREAD - 1) < 6.5 / np.sqrt(2 * len(of_label)) + 0.05


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_a_sampler_makes_the_evaluations_that_it_announces(kind: str, guidance: float) -> None:
    sampler = SamplerConfig(kind=kind, steps=7, guidance=guidance)  # type: ignore[arg-type]
    _, perfect = drawn(kind, n=3, steps=7, guidance=guidance)
    assert perfect.evaluations == 3 * sampler.evaluations
    assert SamplerConfig().evaluations == 35


def test_guidance_moves_away_from_the_null_class() -> None:
    plain, _ = drawn("heun", steps=20)
    guided, _ = drawn("heun", steps=20, guidance=0.5)
    for label, centre in enumerate(CENTRES[:3]):
        assert plain[label::3].mean() == pytest.approx(centre, abs=0.02)
        assert guided[label::3].mean() == pytest.approx(1.5 * centre, abs=0.03)


def test_heun_is_closer_than_ddim_with_equally_many_evaluations() -> None:
    fine, _ = drawn("heun", n=3, steps=400)
    ends = {}
    for kind, steps in (("heun", 40), ("ddim", 79)):
        images, _ = drawn(kind, n=3, steps=steps)
        ends[kind] = np.abs(images - fine).mean()
    assert ends["heun"] < 0.5 * ends["ddim"]


def test_the_levels_fall_from_most_to_least_and_to_zero() -> None:
    grid = levels(SamplerConfig(steps=18))
    assert len(grid) == 19 and grid[0] == pytest.approx(80) and grid[-2] == pytest.approx(0.002) and grid[-1] == 0
    assert (np.diff(grid) < 0).all()
    assert grid[9] == pytest.approx((80 ** (1 / 7) + 9 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7)


@pytest.fixture(scope="module")
def network() -> UNet:
    net = UNet(sized("tiny", image_width=8, image_height=8, channels=1, classes=3))
    draw_ = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=draw_))
    return net


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_the_same_whatever_the_batch_and_the_others(network: UNet, kind: str) -> None:
    sampler = SamplerConfig(kind=kind, steps=5)  # type: ignore[arg-type]
    labels = np.array([0, 1, 2, 3, 1, 0, 2])

    def made(labels: np.ndarray, batch: int, seed: int = 5) -> np.ndarray:
        return sample(network, EDM(), labels, sampler, shape=(1, 8, 8), null=3, seed=seed, batch=batch).astype(int)

    whole = made(labels, 7)
    assert whole.shape == (7, 8, 8, 1)
    for batch in (1, 3, 100):
        assert np.abs(made(labels, batch) - whole).max() <= 1
    assert np.abs(made(np.array([0, 2, 2, 2, 1]), 7)[[0, 2, 4]] - whole[[0, 2, 4]]).max() <= 1
    assert np.abs(made(labels, 7, seed=6) - whole).max() > 5
    assert np.abs(whole[1] - whole[4]).max() > 5, "two images of one label"


def test_exactly_as_many_images_as_labels_none_included(network: UNet) -> None:
    told: list[tuple[int, int]] = []
    images = sample(
        network,
        EDM(),
        balanced_labels(5, 3),
        SamplerConfig(steps=2),
        shape=(1, 8, 8),
        null=3,
        seed=0,
        batch=2,
        progress=lambda done, of: told.append((done, of)),
    )
    assert images.shape == (5, 8, 8, 1) and images.dtype == np.uint8 and told == [(2, 5), (4, 5), (5, 5)]
    none = sample(network, EDM(), np.zeros(0, np.int64), SamplerConfig(), shape=(1, 8, 8), null=3, seed=0)
    assert none.shape == (0, 8, 8, 1)


def test_a_variation_stays_near_its_start_the_nearer_the_lower_the_level() -> None:
    perfect = Perfect(EDM())
    start = to_pixels(torch.full((60, 1, 4, 4), -0.3))
    far = []
    for level in (0.02, 0.2, 20.0):
        images = sample(
            perfect,
            EDM(),
            np.full(60, 2),
            SamplerConfig(most=level),
            shape=(1, 4, 4),
            null=3,
            seed=0,
            start=start,
        )
        far.append(np.abs(to_unit(images) + 0.3).mean())
    assert far[0] < 0.05 and far[0] < far[1] < far[2] and far[2] == pytest.approx(1.2, abs=0.05)


def test_images_and_pixels_are_inverse_and_what_is_not_a_number_is_black() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    assert (to_pixels(torch.from_numpy(to_unit(pixels))) == pixels).all()
    assert to_pixels(torch.tensor([[[[3.0, -3.0, float("nan")]]]])).ravel().tolist() == [255, 0, 0]


def test_balanced_and_declared_labels_add_up_to_n() -> None:
    assert np.bincount(balanced_labels(23, 5)).tolist() == [5, 5, 5, 4, 4]
    assert np.bincount(labels_by_share(10, [0.5, 0.26, 0.24])).tolist() == [5, 3, 2]
    assert np.bincount(labels_by_share(7, [1, 1, 1]), minlength=3).tolist() == [3, 2, 2]
    assert len(labels_by_share(0, [1.0])) == 0
    with pytest.raises(ValueError, match="add up to more than 0"):
        labels_by_share(3, [0.0, 0.0])


def test_wrong_input_is_refused_in_one_line(network: UNet) -> None:
    asked = {"shape": (1, 8, 8), "null": 3, "seed": 0}
    with pytest.raises(ValueError, match="labels of images lie in 0 to 3"):
        sample(network, EDM(), np.array([4]), SamplerConfig(), **asked)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one image a label"):
        sample(network, EDM(), np.array([1]), SamplerConfig(), start=np.zeros((2, 8, 8, 1), np.uint8), **asked)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        sample(network, EDM(), np.array([1]), SamplerConfig(), batch=0, **asked)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="below its most"):
        SamplerConfig(least=3, most=2)


def test_the_network_is_left_in_the_mode_it_was_in(network: UNet) -> None:
    network.train()
    sample(network, EDM(), np.array([1]), SamplerConfig(steps=1), shape=(1, 8, 8), null=3, seed=0)
    assert network.training and all(parameter.grad is None for parameter in network.parameters())
