"""The course: what its settings come to, and one without privacy: a tiny U-Net learns digits, and a classifier reads them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from privolve.trainers.contract import Shape
from privolve.trainers.diffusion.losses import DiffusionLoss
from privolve.trainers.diffusion.samplers import sample
from privolve.trainers.diffusion.sampling import SamplerConfig, balanced_labels
from privolve.trainers.diffusion.sizes import sized
from privolve.trainers.diffusion.unet import UNet
from privolve.trainers.dp_ldm import DPLDM
from privolve.trainers.optimizers import Average


@pytest.mark.slow
def test_a_tiny_u_net_samples_digits_that_a_classifier_of_real_ones_reads() -> None:
    pixels, labels = (load_digits().images * 255 / 16).astype(np.uint8)[..., None], load_digits().target
    torch.manual_seed(0)
    network = UNet(sized("tiny", image_width=8, image_height=8, channels=1, classes=10))
    loss = DiffusionLoss(classes=10)
    rows, draw = loss.rows(0), np.random.default_rng(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    average = {name: value.detach().clone() for name, value in network.named_parameters()}
    for step in range(200):
        chosen = draw.integers(0, len(labels), 64)
        loss_value = loss.losses(network, rows(pixels[chosen], labels[chosen], chosen, step)).mean()
        optimizer.zero_grad()
        loss_value.backward()
        optimizer.step()
        with torch.no_grad():
            for name, value in network.named_parameters():
                Average(decay=0.98).move(average[name], value, step=step + 1)
    wanted = balanced_labels(100, 10)
    network.load_state_dict(average)
    images = sample(network, loss.scheme, wanted, SamplerConfig(steps=10), shape=(1, 8, 8), null=10, seed=0)
    reader = LogisticRegression(max_iter=500).fit(pixels.reshape(-1, 64) / 255, labels)
    accuracy = (reader.predict(images.reshape(-1, 64) / 255) == wanted).mean()
    assert accuracy > 0.5, f"chance is 0.1, this course has about 0.8; found {accuracy}"


def test_the_learning_rate_of_the_published_dp_ldm_still_rises_at_its_last_step() -> None:
    shape = Shape(width=28, height=28, channels=1, classes=tuple("0123456789"), slots=55_000)
    method = DPLDM.model_validate({"kind": "dp-ldm", "profile": "paper"})
    sgd = method.dp_sgd(shape)
    assert sgd.optimizer.kind == "adamw" and sgd.steps < 10_000
    assert [sgd.optimizer.rate(step, sgd.steps) for step in (0, 999)] == pytest.approx([4.1e-7, 4.1e-4])
