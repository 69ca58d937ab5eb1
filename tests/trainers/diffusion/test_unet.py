"""U-Nets have the sizes of their papers, take any image, and treat each row alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from privolve.trainers.diffusion.sizes import UNetConfig, sized
from privolve.trainers.diffusion.unet import UNet, parameters_of, trained_part


def square(side: int, channels: int = 1, classes: int = 10) -> dict[str, int]:
    return {"image_width": side, "image_height": side, "channels": channels, "classes": classes}


def moved(module: nn.Module) -> nn.Module:
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    return module


@pytest.mark.parametrize(
    ("size", "shape", "count"),
    [
        ("1.5M", square(28), 1_485_217),
        ("1.5M", square(28, classes=1000), 1_516_897),
        ("3.8M", square(32, 3), 3_835_619),
        ("3.8M", square(32, 3, 1000), 3_867_299),
        ("11.1M", square(32, 3), 11_172_547),
        ("19.6M", square(32, 3), 19_646_467),
        ("44.2M", square(32, 3), 44_166_147),
        ("78.5M", square(32, 3), 78_483_459),
    ],
)
def test_the_sizes_are_those_of_the_published_networks_to_the_last_parameter(size, shape, count) -> None:
    with torch.device("meta"):
        assert parameters_of(UNet(sized(size, **shape))) == count


@pytest.mark.parametrize("side", [8, 14, 28])
def test_tiny_patched_and_small_are_for_a_cpu(side: int) -> None:
    with torch.device("meta"):
        assert 30_000 < parameters_of(UNet(sized("tiny", **square(side)))) < 60_000
        assert 60_000 < parameters_of(UNet(sized("patched", **square(side)))) < 90_000
        assert 400_000 < parameters_of(UNet(sized("small", **square(side)))) < 500_000


def test_the_attention_part_is_that_of_dp_ldm_sd_less_what_has_no_gradient() -> None:
    with torch.device("meta"):
        network = UNet(sized("3.8M", **square(32, 3, 1000)))
    names = trained_part(network, "attention")
    without_gradient = sum(
        parameter.numel() for name, parameter in network.named_parameters() if name.endswith("keys.bias")
    )
    assert sum(network.get_parameter(name).numel() for name in names) + without_gradient == 317_856


def test_the_part_that_is_left_out_has_no_gradient_and_the_rest_has() -> None:
    network = moved(UNet(UNetConfig(**square(7, classes=2), width=8, multipliers=(1, 2), blocks=1, attention=(7,))))
    network(torch.randn(4, 1, 7, 7), torch.randn(4), torch.tensor([0, 1, 2, 0])).square().sum().backward()
    kept = set(trained_part(network))  # type: ignore[arg-type]
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        size = parameter.grad.norm() / parameter.numel() ** 0.5
        assert (size > 1e-4) if name in kept else (size < 1e-4), name
    assert len(kept) < len(list(network.parameters()))


@pytest.mark.parametrize("size", ["tiny", "1.5M", "19.6M"])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (7, 13), (9, 5)])
def test_any_size_of_image_goes_through(size, height: int, width: int) -> None:
    with torch.device("meta"):
        network = UNet(sized(size, image_width=width, image_height=height, channels=2, classes=3))
        found = network(torch.empty(2, 2, height, width), torch.empty(2), torch.empty(2, dtype=torch.int64))
    assert found.shape == (2, 2, height, width)


def test_the_levels_that_attend_are_those_of_the_named_resolutions() -> None:
    with torch.device("meta"):
        network = UNet(sized("11.1M", **square(28)))
    attending = {name.split(".attention")[0] for name, _ in network.named_modules() if name.endswith(".attention")}
    assert attending == {
        "encoder.1.0",
        "encoder.1.1",
        "encoder.2.0",
        "encoder.2.1",
        "middle_in",
        "decoder.0.2",
        "decoder.1.2",
    }


def test_the_output_is_zero_before_training() -> None:
    network = UNet(sized("tiny", **square(8)))
    assert network(torch.randn(3, 1, 8, 8), torch.randn(3), torch.tensor([0, 5, 10])).abs().max() == 0


def test_the_null_class_is_a_class_of_its_own() -> None:
    network = moved(UNet(sized("tiny", **square(8, classes=3))))
    x, noise = torch.randn(1, 1, 8, 8).expand(4, -1, -1, -1), torch.zeros(4)
    found = network(x, noise, torch.tensor([0, 1, 2, 3]))
    apart = torch.cdist(found.flatten(1), found.flatten(1)) + torch.eye(4)
    assert (apart > 1e-3).all() and network.config.null == 3
    with pytest.raises(IndexError):
        network(x, noise, torch.tensor([0, 1, 2, 4]))


def test_a_network_without_classes_has_the_null_label_alone() -> None:
    network = UNet(sized("tiny", **square(8, classes=0)))
    assert network.label.num_embeddings == 1 and network.config.null == 0


def test_a_row_is_the_same_alone_and_among_others() -> None:
    network = moved(UNet(UNetConfig(**square(7), width=8, multipliers=(1, 2), blocks=1, attention=(7, 4))))
    x, noise, labels = torch.randn(5, 1, 7, 7), torch.randn(5), torch.tensor([0, 3, 10, 4, 1])
    whole = network(x, noise, labels)
    for at in range(5):
        torch.testing.assert_close(network(x[at : at + 1], noise[at : at + 1], labels[at : at + 1])[0], whole[at])
        assert not torch.allclose(network(x[at : at + 1], noise[at : at + 1] + 1, labels[at : at + 1])[0], whole[at])


def test_no_layer_keeps_state_of_what_it_saw() -> None:
    assert not list(UNet(sized("small", **square(8))).buffers())


def test_a_size_that_does_not_exist_is_an_error_that_lists_those_that_do() -> None:
    with pytest.raises(ValueError, match="tiny, patched, small"):
        sized("huge", **square(8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one multiplier"):
        UNetConfig(**square(8), multipliers=())
    with pytest.raises(ValueError, match="at least 1"):
        UNetConfig(**square(0))
    with pytest.raises(ValueError, match="squares of 2 pixels, and an image of 7 x 7 is not made of these"):
        sized("patched", **square(7))


def test_a_patched_network_answers_pixel_by_pixel_where_it_was_asked() -> None:
    """With weights that pass on the four pixels of a square, each comes out where it went in."""
    network = UNet(sized("patched", **square(8)))
    x = torch.rand(2, 1, 8, 8)
    seen: list[torch.Tensor] = []
    network.entry.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network.exit.register_forward_hook(lambda *_: seen[0])
    assert torch.equal(network(x, torch.zeros(2), torch.zeros(2, dtype=torch.int64)), x)
    assert seen[0].shape == (2, 4, 4, 4)
