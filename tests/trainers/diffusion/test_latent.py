"""Latents: an autoencoder of public images, and the U-Net that attends to its class."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")

from sklearn.datasets import load_digits

from privolve.trainers.diffusion.denoisers import EDM, SIGMA_DATA
from privolve.trainers.diffusion.latent import Autoencoder, LatentUNet, train_autoencoder, trained_part
from privolve.trainers.diffusion.losses import DiffusionLoss
from privolve.trainers.diffusion.samplers import draw
from privolve.trainers.diffusion.sampling import SamplerConfig
from privolve.trainers.diffusion.sizes import AutoencoderConfig, LatentUNetConfig

SMALL = AutoencoderConfig(image_width=8, image_height=8, channels=1, width=8)


def digits() -> np.ndarray:
    return (load_digits().images * 255 / 16).astype(np.uint8)[..., None]


@pytest.fixture(scope="module")
def trained() -> Autoencoder:
    return train_autoencoder(digits()[:1000], SMALL, steps=60, batch=32, seed=0, learning_rate=4e-3)


def test_an_autoencoder_gives_images_back_better_than_their_mean(trained: Autoencoder) -> None:
    held_out = digits()[1200:1400]
    again = trained.decode(torch.from_numpy(trained.encode(held_out, batch=64)), batch=64)
    assert again.shape == held_out.shape and again.dtype == np.uint8
    error = np.square(again.astype(float) - held_out).mean()
    assert error < 0.9 * np.square(held_out - held_out.mean(axis=0)).mean()


def test_latents_have_the_spread_of_pixels_and_mean_zero(trained: Autoencoder) -> None:
    latents = trained.encode(digits()[:1000])
    assert latents.shape[1:] == SMALL.latent_shape == (3, 4, 4)
    assert abs(latents.mean()) < 1e-3 and latents.std() == pytest.approx(SIGMA_DATA, rel=1e-3)


def test_a_latent_is_a_function_of_its_image_alone(trained: Autoencoder) -> None:
    pixels = digits()[:9]
    whole = trained.encode(pixels)
    np.testing.assert_allclose(trained.encode(pixels[3:4]), whole[3:4], atol=1e-5)
    np.testing.assert_array_equal(trained.encode(pixels), whole)


def test_a_saved_autoencoder_is_restored(trained: Autoencoder) -> None:
    again = Autoencoder(SMALL).restore(trained.saved())
    np.testing.assert_array_equal(again.encode(digits()[:5]), trained.encode(digits()[:5]))


def test_training_is_a_function_of_its_seed() -> None:
    first, second, other = (train_autoencoder(digits()[:50], SMALL, steps=2, batch=8, seed=seed) for seed in (1, 1, 2))
    assert all((first.saved()[name] == value).all() for name, value in second.saved().items())
    assert any((first.saved()[name] != value).any() for name, value in other.saved().items())


def latent_network() -> LatentUNet:
    network = LatentUNet(LatentUNetConfig(height=4, width_in=4, channels=3, classes=10, width=8))
    draw_ = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw_))
    return network


def test_the_part_that_is_left_out_has_no_gradient_and_the_rest_has(trained: Autoencoder) -> None:
    network = latent_network()
    loss = DiffusionLoss(classes=10, multiplicity=2)
    rows = loss.rows(0, encode=trained.encode)
    batch = rows(digits()[:20], load_digits().target[:20], np.arange(20), 0)
    loss.losses(network, batch).sum().backward()
    everything, attention = set(trained_part(network)), set(trained_part(network, "attention"))
    for name, parameter in network.named_parameters():
        size = 0.0 if parameter.grad is None else parameter.grad.norm().item()
        assert (size > 1e-5) if name in everything else (size < 1e-5), name
    assert attention < everything and "label.weight" in attention
    assert all(".attentions." in name for name in attention - {"label.weight"})


def test_a_latent_u_net_starts_at_zero_and_its_latents_are_sampled_and_decoded(trained: Autoencoder) -> None:
    fresh = LatentUNet(LatentUNetConfig(height=4, width_in=4, channels=3, classes=10, width=8))
    assert fresh(torch.randn(2, 3, 4, 4), torch.zeros(2), torch.tensor([0, 10])).abs().max() == 0
    latents = draw(
        latent_network(), EDM(), np.arange(4), SamplerConfig(steps=2), shape=SMALL.latent_shape, null=10, seed=0
    )
    assert trained.decode(latents).shape == (4, 8, 8, 1)


def test_sizes_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be halved"):
        AutoencoderConfig(image_width=7, image_height=8, channels=1)
    with pytest.raises(ValueError, match="cannot be halved"):
        LatentUNetConfig(height=7, width_in=7, channels=3, classes=2)
    with pytest.raises(ValueError, match="trained on images"):
        train_autoencoder(digits()[:0], SMALL, steps=1, seed=0)
