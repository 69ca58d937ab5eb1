"""Engines of per-record gradients agree with a loop over single records, on the real networks, or are refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from privolve.trainers.diffusion.latent import LatentUNet
from privolve.trainers.diffusion.latent import trained_part as latent_part
from privolve.trainers.diffusion.losses import DiffusionLoss, public_batch
from privolve.trainers.diffusion.sizes import LatentUNetConfig, UNetConfig, sized
from privolve.trainers.diffusion.unet import UNet, trained_part
from privolve.trainers.gradients import (
    TOLERANCE,
    Batch,
    Engine,
    EngineRefused,
    Ghost,
    Kind,
    Loop,
    Net,
    Precision,
    Vmap,
    engine,
    fastest,
    fitting_chunk,
    in_precision,
    self_check,
    unflatten,
)

needs_opacus = pytest.mark.skipif(importlib.util.find_spec("opacus") is None, reason="opacus is not installed")
KINDS = ["vmap", pytest.param("hooks", marks=needs_opacus)]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_num_threads(before)


def moved(module: nn.Module) -> nn.Module:
    """Away from its start, where the zero output layer has no gradient pass."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    return module


def attending() -> UNet:
    """A U-Net with everything that the real ones have: two levels, attention in both, an odd side."""
    config = UNetConfig(
        image_width=7, image_height=7, channels=1, classes=3, width=8, multipliers=(1, 2), blocks=1, attention=(7, 4)
    )
    return UNet(config)


def plain_loop(module: nn.Module, loss: DiffusionLoss, batch: Batch, names: tuple[str, ...]) -> Tensor:
    """Rows by nothing but autograd: no code of the engines."""
    parameters = dict(module.named_parameters())
    rows = []
    for at in range(len(batch["label"])):
        module.zero_grad(set_to_none=True)
        loss.losses(module, {name: value[at : at + 1] for name, value in batch.items()}).sum().backward()
        pieces = [parameters[name].grad for name in names]
        rows.append(torch.cat([torch.zeros(1) if piece is None else piece.reshape(-1) for piece in pieces]))
    module.zero_grad(set_to_none=True)
    return torch.stack(rows)


@pytest.mark.parametrize("kind", [*KINDS, "loop"])
@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("network", ["attending", "tiny", "patched", "latent"])
def test_an_engine_gives_what_a_loop_over_single_records_gives(kind: str, draws: int, network: str) -> None:
    loss = DiffusionLoss(classes=3, multiplicity=draws)
    if network == "latent":
        module = LatentUNet(LatentUNetConfig(height=4, width_in=4, channels=3, classes=3, width=8, multipliers=(1, 1)))
        side, channels, names = 4, 3, latent_part(module)
    else:
        side, channels = (7, 1) if network == "attending" else (8, 1)
        module = attending() if network == "attending" else UNet(sized(network, **square(8), channels=1, classes=3))
        names = trained_part(module)
    moved(module)
    batch = public_batch(loss, records=5, channels=channels, height=side, width=side)
    expected = plain_loop(module, loss, batch, names)
    chunks = list(engine(kind, module, loss.losses, names, 3).per_record(batch))  # type: ignore[arg-type]
    found = torch.cat(chunks)
    assert found.dtype == torch.float32 and found.shape == expected.shape
    assert (found - expected).norm() < 1e-5 * expected.norm()
    assert ((found - expected).norm(dim=1) < 1e-4 * expected.norm(dim=1)).all()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_compiled_network_gives_the_rows_of_the_loop_each_of_its_own_record() -> None:
    config = UNetConfig(
        image_width=7, image_height=7, channels=1, classes=3, width=4, multipliers=(1,), blocks=1, attention=(7,)
    )
    loss = DiffusionLoss(classes=3, multiplicity=2)
    module = moved(UNet(config))
    names = trained_part(module)
    compiled = engine("vmap", module, loss.losses, names, 3, compiled=True)
    for records in (5, 3):
        batch = public_batch(loss, records=records, channels=1, height=7, width=7, seed=records)
        found = torch.cat(list(compiled.per_record(batch)))
        expected = plain_loop(module, loss, batch, names)
        assert found.shape == expected.shape
        assert ((found - expected).norm(dim=1) < 1e-4 * expected.norm(dim=1)).all()
        other = {name: value.clone() for name, value in batch.items()}
        other["image"][1] = -other["image"][1]
        changed = torch.cat(list(compiled.per_record(other)))
        kept = [row for row in range(records) if row != 1]
        assert torch.equal(changed[kept], found[kept]) and not torch.equal(changed[1], found[1])


def test_a_compiled_program_has_one_shape_and_follows_the_weights() -> None:
    module = nn.Linear(3, 1)
    seen: list[int] = []

    def losses(net: Net, batch: Batch) -> Tensor:
        return net(batch["x"])[:, 0].square()

    compiled = engine("vmap", module, losses, ("weight",), 4, compiled=True)
    program = compiled._gradients  # type: ignore[attr-defined]
    compiled.__dict__["_gradients"] = lambda free, fixed, row: (seen.append(len(row["x"])), program(free, fixed, row))[
        1
    ]
    for weight in (0.5, 2.0):
        with torch.no_grad():
            module.weight.fill_(weight)
        x = torch.randn(6, 3)
        expected = 2 * module(x).detach() * x
        assert torch.allclose(torch.cat(list(compiled.per_record({"x": x}))), expected, rtol=1e-5)
    assert seen == [4, 4, 4, 4]


def test_a_compiled_chunk_is_no_larger_than_what_comes_at_a_time() -> None:
    module, batch = nn.Linear(3, 1), {"x": torch.zeros(5, 3)}

    def losses(net: Net, batch: Batch) -> Tensor:
        return net(batch["x"])[:, 0]

    compiled = engine("vmap", module, losses, ("weight",), public=batch, compiled=True)
    assert isinstance(compiled, Vmap) and compiled.chunk == 5
    given = engine("vmap", module, losses, ("weight",), 2, public=batch, compiled=True)
    assert isinstance(given, Vmap) and given.chunk == 2


def test_without_a_compiler_a_compiled_engine_is_refused_in_one_line() -> None:
    import torch._inductor.config as inductor

    module = nn.Linear(3, 1)
    compiled = engine("vmap", module, lambda net, batch: net(batch["x"])[:, 0], ("weight",), 2, compiled=True)
    with (
        inductor.patch({"cpp.cxx": (None, "/nonexistent/c++"), "force_disable_caches": True}),
        pytest.raises(
            EngineRefused, match=r"\Athe network cannot be compiled here .* compiler is needed, .* = false\Z"
        ),
    ):
        list(compiled.per_record({"x": torch.ones(2, 3)}))


@pytest.mark.parametrize("kind", [*KINDS, "loop"])
def test_with_products_in_bfloat16_rows_are_float32_near_those_of_float32_and_each_of_its_own_record(
    kind: Kind,
) -> None:
    loss = DiffusionLoss(classes=3, multiplicity=2)
    module = moved(UNet(sized("tiny", **square(8), channels=1, classes=3)))
    names = trained_part(module)
    batch = public_batch(loss, records=5, channels=1, height=8, width=8)
    expected = plain_loop(module, loss, batch, names)
    half = engine(kind, module, in_precision(loss.losses, "bf16"), names, 3)
    found = torch.cat(list(half.per_record(batch)))
    assert found.dtype == torch.float32
    error = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert (error < 0.1).all() and (error > TOLERANCE).all()
    other = {name: value.clone() for name, value in batch.items()}
    other["image"][4] = -other["image"][4]
    changed = torch.cat(list(half.per_record(other)))
    assert torch.equal(changed[:4], found[:4]) and not torch.equal(changed[4], found[4])


@pytest.mark.parametrize("seed", [0, 6, 11])
def test_the_self_check_passes_what_rounding_does_and_no_more(seed: int) -> None:
    loss = DiffusionLoss(classes=3, multiplicity=4)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = UNet(sized("tiny", **square(8), channels=1, classes=3))
    names = trained_part(module)
    batch = public_batch(loss, records=3, channels=1, height=8, width=8)
    half = engine("vmap", module, in_precision(loss.losses, "bf16"), names, 1)
    assert self_check(half, module, loss.losses, names, batch, precision="bf16") > TOLERANCE
    with pytest.raises(EngineRefused, match="differ from a loop"):
        self_check(half, module, loss.losses, names, batch)
    for factor in (0.8, 1.2):
        with pytest.raises(EngineRefused, match="differ from a loop"):
            self_check(Scaled(half, factor), module, loss.losses, names, batch, precision="bf16")


@dataclass(frozen=True)
class Mixing:
    """A right engine to whose rows a little of the next record's is added."""

    engine: Engine
    share: float

    def per_record(self, batch: Batch) -> Iterator[Tensor]:
        rows = torch.cat(list(self.engine.per_record(batch)))
        yield rows + self.share * rows.roll(1, dims=0)


@pytest.mark.parametrize(("share", "precision"), [(1e-5, "fp32"), (1e-2, "bf16")])
def test_the_self_check_refuses_rows_that_hold_a_little_of_another_record(share: float, precision: Precision) -> None:
    loss = DiffusionLoss(classes=3)
    module = UNet(sized("tiny", **square(8), channels=1, classes=3))
    names = trained_part(module)
    batch = public_batch(loss, records=3, channels=1, height=8, width=8)
    right = engine("vmap", module, in_precision(loss.losses, precision), names, 3)
    self_check(right, module, loss.losses, names, batch, precision=precision)
    with pytest.raises(EngineRefused, match="changes with another record"):
        self_check(Mixing(right, share), module, loss.losses, names, batch, precision=precision)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_trained_parameters_have_a_gradient_and_the_module_is_left_as_it_was(kind: str) -> None:
    loss = DiffusionLoss(classes=3, multiplicity=2)
    module = moved(attending())
    module.eval()
    module.get_parameter("entry.bias").requires_grad_(False)
    names = trained_part(module, "attention")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    batch = public_batch(loss, records=3, channels=1, height=7, width=7)
    expected = plain_loop(module, loss, batch, names[:1])
    rows = torch.cat(list(engine(kind, module, loss.losses, names, 2).per_record(batch)))  # type: ignore[arg-type]
    assert rows.shape == (3, sum(module.get_parameter(name).numel() for name in names))
    torch.testing.assert_close(rows[:, : expected.shape[1]], expected, rtol=1e-4, atol=1e-6)
    assert not module.training and all(parameter.grad is None for parameter in module.parameters())
    assert not module.get_parameter("entry.bias").requires_grad
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert not any("grad_sample" in vars(parameter) for parameter in module.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_depends_on_its_own_record_alone(kind: str) -> None:
    loss = DiffusionLoss(classes=3, multiplicity=2)
    module = moved(attending())
    names = trained_part(module)
    batch = dict(public_batch(loss, records=4, channels=1, height=7, width=7))
    tried = engine(kind, module, loss.losses, names, 4)  # type: ignore[arg-type]
    before = torch.cat(list(tried.per_record(batch)))
    other = public_batch(loss, records=4, channels=1, height=7, width=7, seed=9)
    mixed = {name: torch.cat([value[:1], other[name][1:]]) for name, value in batch.items()}
    after = torch.cat(list(tried.per_record(mixed)))
    assert (before[0] - after[0]).norm() < 1e-5 * before[0].norm()
    assert all((before[at] - after[at]).norm() > 0.1 * before[at].norm() for at in (1, 2, 3))


def test_draws_are_averaged_before_the_gradient() -> None:
    loss = DiffusionLoss(classes=3, multiplicity=4)
    module = moved(attending())
    names = trained_part(module)
    batch = public_batch(loss, records=2, channels=1, height=7, width=7)
    rows = torch.cat(list(engine("vmap", module, loss.losses, names, 2).per_record(batch)))
    single = []
    for at in range(4):
        one = {**batch, "level": batch["level"][:, at : at + 1], "noise": batch["noise"][:, at : at + 1]}
        single.append(torch.cat(list(engine("vmap", module, loss.losses, names, 2).per_record(one))))
    mean = torch.stack(single).mean(0)
    assert (rows - mean).norm() < 1e-5 * mean.norm()
    assert (rows - torch.stack(single).sum(0)).norm() > rows.norm()


def test_a_flat_row_unfolds_into_the_parameters_in_the_order_of_their_names() -> None:
    loss = DiffusionLoss(classes=3)
    module = moved(attending())
    names = trained_part(module)
    batch = public_batch(loss, records=1, channels=1, height=7, width=7)
    row = torch.cat(list(engine("vmap", module, loss.losses, names).per_record(batch)))[0]
    loss.losses(module, batch).sum().backward()
    for name, piece in unflatten(row, module, names).items():
        torch.testing.assert_close(piece, module.get_parameter(name).grad, rtol=1e-4, atol=1e-6)


# ---- the fault of opacus, and the self-check -------------------------------------------------------------------------


class ChannelsLast(nn.Module):
    """A convolution whose input is channels-last, as diffusers' attention leaves it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x.contiguous(memory_format=torch.channels_last))


def _squares(net, batch: Batch) -> Tensor:
    return net(batch["x"]).square().mean(dim=(1, 2, 3))


def _images(records: int = 5) -> Batch:
    return {"x": torch.randn((records, 4, 6, 6), generator=torch.Generator().manual_seed(0))}


@needs_opacus
def test_opacus_is_wrong_for_channels_last_activations_and_the_self_check_refuses_it() -> None:
    from opacus.grad_sample import GradSampleHooks, register_grad_sampler
    from opacus.grad_sample.conv import compute_conv_grad_sample

    convolutions = [nn.Conv1d, nn.Conv2d, nn.Conv3d]
    module, batch = ChannelsLast(), _images()
    names = ("convolution.weight", "convolution.bias")
    exact = torch.cat(list(Loop(module=module, losses=_squares, trained=names).per_record(batch)))
    hooks = engine("hooks", module, _squares, names, 8)
    assert self_check(hooks, module, _squares, names, batch) < 1e-5
    corrected = GradSampleHooks.GRAD_SAMPLERS[nn.Conv2d]
    try:
        register_grad_sampler(convolutions)(compute_conv_grad_sample)
        found = torch.cat(list(hooks.per_record(batch)))
        _, norms = Ghost(module=module, losses=_squares, trained=names, corrected=False).clipped_sum(batch, 1.0)
        if (found - exact).norm() < 1e-4 * exact.norm():
            pytest.skip("this opacus is right for channels-last activations: the correction may go")
        assert (found - exact).norm() > 0.3 * exact.norm()
        assert (norms < 0.9 * exact.norm(dim=1)).all(), "ghost norms too small: the clipped gradient exceeds its bound"
        with pytest.raises(EngineRefused, match="no epsilon holds"):
            self_check(hooks, module, _squares, names, batch)
    finally:
        register_grad_sampler(convolutions)(corrected)


@needs_opacus
def test_ghost_clipping_corrected_gives_norms_and_the_clipped_sum_of_the_loop() -> None:
    loss = DiffusionLoss(classes=3)
    module = moved(attending())
    names = trained_part(module)
    batch = public_batch(loss, records=4, channels=1, height=7, width=7)
    rows = plain_loop(module, loss, batch, names)
    clip = rows.norm(dim=1).median().item()
    found, norms = Ghost(module=module, losses=loss.losses, trained=names).clipped_sum(batch, clip)
    torch.testing.assert_close(norms, rows.norm(dim=1), rtol=1e-4, atol=0)
    expected = (rows * (clip / rows.norm(dim=1)).clamp(max=1)[:, None]).sum(0)
    assert (found - expected).norm() < 1e-4 * expected.norm()


@needs_opacus
def test_ghost_clipping_of_several_draws_is_refused_because_it_would_clip_each() -> None:
    loss = DiffusionLoss(classes=3, multiplicity=2)
    module = moved(attending())
    batch = public_batch(loss, records=2, channels=1, height=7, width=7)
    with pytest.raises(EngineRefused, match="clips draws"):
        Ghost(module=module, losses=loss.losses, trained=trained_part(module)).clipped_sum(batch, 1.0)


@dataclass(frozen=True)
class Scaled:
    """Vmap, with the rows of one record a little wrong."""

    inner: Vmap
    factor: float

    def per_record(self, batch: Batch) -> Iterator[Tensor]:
        for at, rows in enumerate(self.inner.per_record(batch)):
            yield rows * (self.factor if at == 1 else 1.0)


@pytest.mark.parametrize("factor", [0.99, 1.01, float("nan")])
def test_the_self_check_refuses_an_engine_with_one_wrong_record(factor: float) -> None:
    loss = DiffusionLoss(classes=3)
    module = attending()
    names = trained_part(module)
    batch = public_batch(loss, records=4, channels=1, height=7, width=7)
    right = Vmap(module=module, losses=loss.losses, trained=names, chunk=2)
    before = [parameter.clone() for parameter in module.parameters()]
    assert self_check(right, module, loss.losses, names, batch) < 1e-5
    with pytest.raises(EngineRefused, match="differ from a loop"):
        self_check(Scaled(right, factor), module, loss.losses, names, batch)
    assert all(torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))


def test_the_self_check_sees_below_an_output_layer_that_starts_at_zero() -> None:
    loss = DiffusionLoss(classes=3)
    module = attending()
    names = ("entry.weight",)
    batch = public_batch(loss, records=2, channels=1, height=7, width=7)
    assert torch.cat(list(engine("vmap", module, loss.losses, names).per_record(batch))).abs().max() == 0
    wrong = Scaled(Vmap(module=module, losses=loss.losses, trained=names, chunk=1), 1.5)
    with pytest.raises(EngineRefused):
        self_check(wrong, module, loss.losses, names, batch)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d(4), nn.SyncBatchNorm(4), nn.InstanceNorm2d(4, track_running_stats=True)]
)
def test_a_layer_that_mixes_records_is_refused_in_one_line(layer: nn.Module) -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 3), layer)
    with pytest.raises(EngineRefused) as refused:
        engine("vmap", module, _squares, ("0.weight",))
    assert "\n" not in str(refused.value) and "'1'" in str(refused.value)


def test_dropout_is_refused_and_dropout_of_nothing_is_not() -> None:
    with pytest.raises(EngineRefused, match="set dropout = 0"):
        engine("vmap", nn.Sequential(nn.Conv2d(4, 4, 3), nn.Dropout(0.1)), _squares, ("0.weight",))
    module = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Dropout(0.0))
    assert len(list(engine("vmap", module, _squares, ("0.weight",), 2).per_record(_images(4)))) == 2


@pytest.mark.parametrize("names", [(), ("no.such",), ("convolution.weight", "convolution.weight")])
def test_names_that_are_not_parameters_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(EngineRefused, match="trained parameters"):
        engine("vmap", ChannelsLast(), _squares, names)


def test_ghost_is_no_engine_and_says_why() -> None:
    with pytest.raises(EngineRefused, match="ghost clipping gives no gradient of a record"):
        engine("ghost", ChannelsLast(), _squares, ("convolution.weight",))  # type: ignore[arg-type]


def test_a_batch_of_tensors_of_different_lengths_is_refused() -> None:
    batch = {**_images(4), "y": torch.zeros(3)}
    with pytest.raises(EngineRefused, match="one number of rows"):
        list(engine("vmap", ChannelsLast(), _squares, ("convolution.weight",)).per_record(batch))


# ---- memory and choice -----------------------------------------------------------------------------------------------


def test_the_chunk_is_halved_until_memory_is_enough() -> None:
    tried: list[int] = []

    def attempt(size: int) -> int:
        tried.append(size)
        if size > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return size

    assert fitting_chunk(attempt, start=20) == 2 and tried == [20, 10, 5, 2]


def test_a_record_that_does_not_fit_alone_is_out_of_memory_and_other_errors_pass() -> None:
    def never(size: int) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    with pytest.raises(MemoryError, match="smaller network"):
        fitting_chunk(never, start=3)

    def other(size: int) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        fitting_chunk(other, start=3)


def test_without_a_chunk_as_many_records_go_together_as_their_draws_and_pixels_allow() -> None:
    module = nn.Conv2d(4, 1, 1)

    def lengths(records: int, side: int) -> list[int]:
        batch = {"x": torch.zeros(records, 4, side, side)}
        return [len(rows) for rows in engine("vmap", module, _squares, ("weight",)).per_record(batch)]

    assert lengths(100, 2) == [64, 36]
    assert lengths(17, 20) == [16, 1]
    assert lengths(2, 100) == [1, 1]


def test_the_default_on_a_cpu_is_vmap_and_the_quickest_is_one_that_was_asked_for() -> None:
    module = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.SiLU(), nn.Conv2d(6, 4, 3))
    assert isinstance(engine("auto", module, _squares, ("0.weight",)), Vmap)
    quickest = fastest(module, _squares, ("0.weight",), _images(8), kinds=("vmap",))
    assert isinstance(quickest, Vmap) and quickest.chunk == 8


def square(side: int) -> dict[str, int]:
    return {"image_width": side, "image_height": side}
