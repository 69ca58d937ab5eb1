"""Parametrisations against the formulas of their papers, and against data whose best denoiser is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from privolve.trainers.diffusion.denoisers import EDM, SIGMA_DATA, VE, VP, VPrediction, denoise, parametrisation

KINDS = ("edm", "v", "vp", "ve")
LEVELS = torch.tensor([0.01, 0.3, 1.0, 7.0, 60.0], dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_levels_and_quantiles_are_inverse_and_rise(kind) -> None:
    scheme = parametrisation(kind)
    quantiles = torch.linspace(0.001, 0.999, 99, dtype=torch.float64)
    levels = scheme.level(quantiles)
    assert (levels.diff() > 0).all() and (levels > 0).all()
    torch.testing.assert_close(scheme.quantile(levels), quantiles, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["edm", "v", "ve", "vp"])
def test_the_weight_makes_the_networks_own_error_count_as_its_paper_says(kind) -> None:
    """weight * c_out^2: 1 for all but v, whose is the paper's SNR + 1 on x, that is 1 on v too."""
    scheme = parametrisation(kind)
    _, out, _, _ = scheme.scalings(LEVELS)
    torch.testing.assert_close(scheme.weight(LEVELS) * out**2, torch.ones_like(LEVELS))


@pytest.mark.parametrize(("kind", "variance"), [("edm", SIGMA_DATA**2), ("v", 1.0), ("vp", 1.0)])
def test_the_networks_input_has_variance_1_for_data_of_the_assumed_variance(kind, variance: float) -> None:
    _, _, into, _ = parametrisation(kind).scalings(LEVELS)
    torch.testing.assert_close(into**2 * (LEVELS**2 + variance), torch.ones_like(LEVELS))


def test_edm_is_table_1_of_karras() -> None:
    skip, out, into, noise = EDM().scalings(LEVELS)
    data = 1 / 3
    for at, sigma in enumerate(LEVELS.tolist()):
        assert skip[at] == pytest.approx(data / (sigma**2 + data))
        assert out[at] == pytest.approx(sigma * math.sqrt(data) / math.sqrt(sigma**2 + data))
        assert into[at] == pytest.approx(1 / math.sqrt(sigma**2 + data))
        assert noise[at] == pytest.approx(math.log(sigma) / 4)
    assert EDM().level(torch.tensor(0.5)) == pytest.approx(math.exp(-1.2))


def test_vp_time_and_level_are_those_of_the_linear_schedule() -> None:
    scheme = VP(first=0.0)
    time = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    expected = [math.sqrt(math.exp(19.9 * t * t / 2 + 0.1 * t) - 1) for t in time.tolist()]
    assert scheme.level(time).tolist() == pytest.approx(expected)
    assert (scheme.scalings(scheme.level(time))[3] / 999).tolist() == pytest.approx(time.tolist())


def test_v_levels_end_at_the_two_ratios_of_signal_and_noise() -> None:
    ends = VPrediction().level(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert (-2 * ends.log()).tolist() == pytest.approx([13.0, -9.0])
    assert VPrediction().scalings(torch.tensor([1.0]))[3].item() == pytest.approx(0.5)


def test_ve_levels_are_uniform_in_the_logarithm() -> None:
    assert VE().level(torch.tensor([0.0, 0.5, 1.0])).tolist() == pytest.approx([0.02, math.sqrt(2.0), 100.0], rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_that_answers_right_gives_the_best_denoiser(kind) -> None:
    """For data N(0, s^2) the best D is x s^2 / (s^2 + sigma^2); F is found from it, and D comes back."""
    scheme, spread = parametrisation(kind), 0.5
    x, sigma = torch.randn(5, 1, 2, 2, dtype=torch.float64), LEVELS
    best = x * (spread**2 / (spread**2 + sigma**2)).reshape(-1, 1, 1, 1)
    skip, out, into, noise = (part.reshape(-1, 1, 1, 1) for part in scheme.scalings(sigma))
    seen: dict[str, Tensor] = {}

    def net(scaled: Tensor, level: Tensor, labels: Tensor) -> Tensor:
        seen.update(scaled=scaled, level=level)
        return (best - skip * x) / out

    torch.testing.assert_close(denoise(net, scheme, x, sigma, torch.zeros(5, dtype=torch.int64)), best)
    torch.testing.assert_close(seen["scaled"], into * x)
    torch.testing.assert_close(seen["level"], noise.flatten())


def test_an_unknown_parametrisation_is_an_error_that_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match="edm, v, vp, ve"):
        parametrisation("ddpm")  # type: ignore[arg-type]
    assert np.isclose(SIGMA_DATA, np.sqrt(1 / 3))
