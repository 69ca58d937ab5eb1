"""The average of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from privolve.trainers.diffusion.ema import Ema, lent


def test_the_decay_warms_up_and_then_stays() -> None:
    ema = Ema({"w": torch.zeros(1)}, decay=0.5)
    expected = 0.0
    for step in range(1, 21):
        ema.update({"w": torch.tensor([float(step)])})
        keep = min(0.5, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * step
        assert ema.averages["w"].item() == pytest.approx(expected)


def test_an_average_goes_on_from_its_saved_state_as_if_nothing_had_happened() -> None:
    values = [torch.randn(3) for _ in range(6)]
    whole = Ema({"w": values[0]})
    for value in values[1:]:
        whole.update({"w": value})
    first = Ema({"w": values[0]})
    for value in values[1:3]:
        first.update({"w": value})
    second = Ema(first.averages, updates=first.updates)
    for value in values[3:]:
        second.update({"w": value})
    assert torch.equal(whole.averages["w"], second.averages["w"])


def test_lent_weights_are_given_back_bit_by_bit_also_after_an_error() -> None:
    module = nn.Linear(3, 2)
    before = module.weight.detach().clone()
    with pytest.raises(RuntimeError, match="stop"), lent(module, {"weight": torch.ones(2, 3)}):
        assert (module.weight == 1).all()
        raise RuntimeError("stop")
    assert torch.equal(module.weight, before)
    with pytest.raises(ValueError, match="not a parameter"), lent(module, {"other": torch.ones(1)}):
        pass


def test_an_average_is_no_view_of_the_weights() -> None:
    weight = torch.zeros(2)
    ema = Ema({"w": weight})
    weight += 1
    assert (ema.averages["w"] == 0).all()
    with pytest.raises(ValueError, match="decay"):
        Ema({"w": weight}, decay=1.0)
