"""Per-record gradients: one flat row a record, by engines that agree with a loop over single records.

A record's row is the gradient of that record's loss alone. Where a record has several noise draws or augmentations, the loss
is already their mean, so there is one row a record whatever their number, and clipping that row bounds the whole record.

    vmap    torch.func: chunks of `vmap(grad)`; the default on CPU
    hooks   opacus, with convolutions corrected: opacus 1.6.0 reads channels-last activations in the wrong order
    loop    one record after the other; slow; what the others are compared with

Ghost clipping is not an engine. It forms only the sum of clipped gradients, while noise on a lattice needs each clipped
gradient truncated before the sum (`privacy/lattice.py`), and it sees the norms of draws, not of records. `Ghost` is here to be
measured and to show its faults.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

Batch = Mapping[str, Tensor]
"""Named tensors of one leading dimension: row i belongs to record i, of a fixed public number of rows."""

Kind = Literal["auto", "vmap", "hooks", "loop"]

Precision = Literal["fp32", "bf16"]
"""Of the products in a network. Parameters and the rows of gradients are float32 in both."""

TOLERANCE = 1e-3
"""How far an engine's gradient of a record may be from the loop's, of its norm: what the order of sums does in float32."""

_ROUNDED = 3.0
"""How many times further off than the loop in bfloat16 an engine may be; measured are about 1, and 40 of a wrong one."""

T = TypeVar("T")


class EngineRefused(ValueError):
    """An engine that cannot be trusted with this network, or does not exist."""


class Net(Protocol):
    """The network as a loss sees it: called like the module. Rows of one record lie together, equally many for each."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


class Losses(Protocol):
    """The loss of each record (b,): value i depends on row i alone and is the mean over its draws."""

    def __call__(self, net: Net, batch: Batch) -> Tensor: ...


class Engine(Protocol):
    """Gradients of `losses` with regard to the parameters `trained` of `module`, as they are at the time of the call."""

    def per_record(self, batch: Batch) -> Iterator[Tensor]:
        """Chunks (c, P) float32, rows in order; P counts the trained parameters, flattened in the order of `trained`.

        A chunk is the caller's: it may be changed in place.
        """
        ...


def engine(
    kind: Kind,
    module: nn.Module,
    losses: Losses,
    trained: Sequence[str],
    chunk: int | None = None,
    *,
    public: Batch | None = None,
    compiled: bool = False,
) -> Engine:
    """The engine `kind`, `chunk` records at a time; without one, as many as keep the cores busy and stay in the cache.

    `auto` is `vmap` on a CPU; elsewhere the fastest on `public`, random input of the shapes to come, where it is given.
    `compiled` is for `vmap`, the one way that is a single program; the others run as they are.
    Raises EngineRefused for layers that mix records or draw by position, and for names that are not parameters.
    """
    trained = tuple(trained)
    refuse_mixing(module)
    trained_parameters(module, trained)
    if kind == "auto":
        if next(module.parameters()).device.type != "cpu" and public is not None:
            return fastest(module, losses, trained, public, chunk=chunk, compiled=compiled)
        kind = "vmap"
    if kind not in _ENGINES:
        raise EngineRefused(f"gradient engine {kind!r} is not one of auto, {', '.join(_ENGINES)}{_why_not(kind)}")
    if chunk is not None and chunk < 1:
        raise EngineRefused(f"a chunk has at least 1 record, not {chunk}")
    made = _ENGINES[kind](module=module, losses=losses, trained=trained, chunk=chunk)
    if not compiled or not isinstance(made, Vmap):
        return made
    if chunk is None and public is not None:  # A chunk is filled up: with fewer rows at a time it must shrink too.
        chunk = min(_chunk_for(public), _rows(public))
    return replace(made, compiled=True, chunk=chunk)


def in_precision(losses: Losses, precision: Precision) -> Losses:
    """`losses` with the products of the network in `precision`; each record alone, as before."""
    if precision == "fp32":
        return losses

    def rounded(net: Net, batch: Batch) -> Tensor:
        kind = next(iter(batch.values())).device.type
        # Without a cache, which would keep values of another record's pass.
        with torch.autocast(kind, torch.bfloat16, cache_enabled=False):
            return losses(net, batch)

    return rounded


def trained_parameters(module: nn.Module, trained: Sequence[str]) -> dict[str, nn.Parameter]:
    """The parameters `trained` in that order. Raises EngineRefused for unknown or repeated names, and for none."""
    known = dict(module.named_parameters())
    unknown = [name for name in trained if name not in known]
    if unknown or not trained or len(set(trained)) != len(trained):
        wrong = f"{unknown[0]!r} is not a parameter" if unknown else "no name, or one twice"
        raise EngineRefused(f"trained parameters: {wrong}; the network has {', '.join(list(known)[:4])}, ...")
    return {name: known[name] for name in trained}


def compiled(function: Callable[..., T]) -> Callable[..., T]:
    """`function` as one program for each shape that it is called with, by `torch.compile`: in its first call, for minutes.

    Raises EngineRefused, in that call, where it cannot be compiled, and MemoryError where memory is not enough.
    """
    import torch._dynamo as dynamo
    from torch._dynamo.exc import TorchDynamoException

    # Beyond its limit it would go on without compiling; the programs of all engines of a process count together.
    dynamo.config.recompile_limit = max(dynamo.config.recompile_limit, _PROGRAMS)
    program = torch.compile(function, dynamic=False)

    def run(*args: Any, **kwargs: Any) -> T:
        try:
            return program(*args, **kwargs)
        except TorchDynamoException as error:
            said = str(error).strip()
            if _says_out_of_memory(said):
                raise MemoryError(said.splitlines()[0]) from error
            why = (said.splitlines() or [type(error).__name__])[0]
            need = "a C++ compiler is needed, or " if "InvalidCxxCompiler" in said else ""
            raise EngineRefused(
                f"the network cannot be compiled here ({why}); {need}set performance.compile = false"
            ) from error

    return run


def unflatten(flat: Tensor, module: nn.Module, trained: Sequence[str]) -> dict[str, Tensor]:
    """The flat vector (P,) as views in the shapes of the parameters `trained`."""
    parameters = trained_parameters(module, trained)
    pieces = flat.split([parameter.numel() for parameter in parameters.values()])
    return {name: piece.view(parameters[name].shape) for name, piece in zip(parameters, pieces, strict=True)}


def refuse_mixing(module: nn.Module) -> None:
    """Raise EngineRefused for a layer with which a record's gradient depends on other records or on its position."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise EngineRefused(
                f"layer {name!r} ({type(layer).__name__}) mixes the records of a batch, so that no clipping bounds one "
                "of them; use GroupNorm"
            )
        if isinstance(layer, nn.modules.instancenorm._InstanceNorm) and layer.track_running_stats:
            raise EngineRefused(f"layer {name!r} keeps statistics of private records; set track_running_stats = False")
        if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0:
            raise EngineRefused(
                f"layer {name!r} draws by the position in the batch, not by the record; set dropout = 0"
            )


def self_check(
    candidate: Engine,
    module: nn.Module,
    losses: Losses,
    trained: Sequence[str],
    public: Batch,
    *,
    precision: Precision = "fp32",
) -> float:
    """The largest relative error of a record's gradient against a loop over single records, on public random input.

    The loop is in float32, as `losses` are. In bfloat16 every engine rounds in its own way: a candidate may then be further off by
    a few times what the loop in bfloat16 is. Raises EngineRefused where the error is larger or not a number; and where a row
    changes with another record, by more than it does from one pass to the next (on a CPU: by a bit). The parameters are moved from
    where they are while this runs, and put back: at its start an output layer is zero, and with it every gradient below.
    """
    trained = tuple(trained)
    reference = Loop(module=module, losses=losses, trained=trained)
    other = {name: torch.cat([value[1:2], value[1:]]) for name, value in public.items()}
    with _moved(module):
        expected = _all_rows(reference, public)
        found, again, changed = (_all_rows(candidate, batch) for batch in (public, public, other))
        tolerance = TOLERANCE
        if precision != "fp32":
            rounded = Loop(module=module, losses=in_precision(losses, precision), trained=trained)
            tolerance += _ROUNDED * _error(_all_rows(rounded, public), expected)
    if found.shape != expected.shape:
        raise EngineRefused(f"the gradient engine gave rows {tuple(found.shape)} for {tuple(expected.shape)}")
    error = _error(found, expected)
    if not error <= tolerance:
        raise EngineRefused(
            f"the gradients of {type(candidate).__name__} differ from a loop over single records by {error:.1e} of their "
            f"norm (at most {tolerance:.0e}) on public random input; with them no epsilon holds. {_way_out(candidate)}"
        )
    if not (changed - found)[1:].abs().max() <= 4 * (again - found).abs().max():
        raise EngineRefused(
            f"a gradient of {type(candidate).__name__} changes with another record, on public random input; with it no epsilon "
            f"holds. {_way_out(candidate)}"
        )
    return error


def fastest(
    module: nn.Module,
    losses: Losses,
    trained: Sequence[str],
    public: Batch,
    *,
    chunk: int | None = None,
    kinds: Sequence[Kind] = ("vmap", "hooks"),
    compiled: bool = False,
) -> Engine:
    """The quickest of `kinds`, each at the largest chunk that fits, timed on public random input."""
    timed: list[tuple[float, Engine]] = []
    rows = _rows(public)
    for kind in kinds:

        def attempt(size: int, kind: Kind = kind) -> tuple[float, Engine]:
            tried = engine(kind, module, losses, trained, size, compiled=compiled)
            _run_through(tried, public)
            start = time.perf_counter()
            _run_through(tried, public)
            return time.perf_counter() - start, tried

        timed.append(fitting_chunk(attempt, start=chunk or rows))
    return min(timed, key=lambda pair: pair[0])[1]


def fitting_chunk(attempt: Callable[[int], T], *, start: int) -> T:
    """What `attempt(chunk)` gives for the first of start, start/2, start/4 ... that memory is enough for.

    For public random input only: which records fit must not be seen in the chunk. Raises MemoryError where one is too many.
    """
    size = start
    while True:
        try:
            return attempt(size)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if size == 1:
            raise MemoryError("the gradient of a single record does not fit into memory; use a smaller network")
        size = max(1, size // 2)


# ---- the engines -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Loop:
    """One record after the other, by ordinary autograd."""

    module: nn.Module
    losses: Losses
    trained: tuple[str, ...]
    chunk: int | None = 1

    def per_record(self, batch: Batch) -> Iterator[Tensor]:
        for part in _chunks(batch, 1):
            fixed, free = _values(self.module, self.trained)
            for value in free.values():
                value.requires_grad_()
            net = _functional(self.module, {**fixed, **free})
            found = torch.autograd.grad(
                self.losses(net, part).sum(), list(free.values()), allow_unused=True, materialize_grads=True
            )
            yield torch.cat([gradient.reshape(1, -1).float() for gradient in found], dim=1)


@dataclass(frozen=True, kw_only=True)
class Vmap:
    """`vmap(grad)` over chunks: the same program for each record, so that mixing them cannot be written.

    Compiled, every chunk has the same number of rows, the last one filled up: one program, which a check on a few rows sees too.
    """

    module: nn.Module
    losses: Losses
    trained: tuple[str, ...]
    chunk: int | None
    compiled: bool = False

    def per_record(self, batch: Batch) -> Iterator[Tensor]:
        size = self.chunk or _chunk_for(batch)
        for part in _chunks(batch, size):
            fixed, free = _values(self.module, self.trained)
            rows = _rows(part)
            if self.compiled and rows < size:
                part = {
                    name: torch.cat([value, value[-1:].expand(size - rows, *value.shape[1:])])
                    for name, value in part.items()
                }
            yield _joined(self._gradients(free, fixed, part), self.trained)[:rows]

    @cached_property
    def _gradients(self) -> Callable[..., dict[str, Tensor]]:
        def loss(free: dict[str, Tensor], fixed: dict[str, Tensor], row: dict[str, Tensor]) -> Tensor:
            alone = {name: value.unsqueeze(0) for name, value in row.items()}
            return self.losses(_functional(self.module, {**fixed, **free}), alone).sum()

        gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, None, 0), randomness="error")
        return compiled(gradients) if self.compiled else gradients


@dataclass(frozen=True, kw_only=True)
class OpacusHooks:
    """opacus: gradients by layer from activations and what is propagated back, with contiguous convolutions.

    It forms a gradient for each draw and adds them up afterwards, so memory grows with their number.
    """

    module: nn.Module
    losses: Losses
    trained: tuple[str, ...]
    chunk: int | None

    def __post_init__(self) -> None:
        correct_opacus()

    def per_record(self, batch: Batch) -> Iterator[Tensor]:
        from opacus.grad_sample import GradSampleHooks

        for part in _chunks(batch, self.chunk or _chunk_for(batch)):
            with _only_trained(self.module, self.trained) as parameters:
                hooks = GradSampleHooks(self.module, loss_reduction="sum", strict=True)
                try:
                    _backward(self.losses(self.module, part).sum())
                    found = {name: _by_record(parameters[name], _rows(part)) for name in self.trained}
                finally:
                    hooks.cleanup()
            yield _joined(found, self.trained)


@dataclass(frozen=True, kw_only=True)
class Ghost:
    """opacus's ghost clipping: norms first, then the sum of clipped gradients by a second pass. Never used on records.

    Only for one draw a record: the rows that it measures are those of the network.
    """

    module: nn.Module
    losses: Losses
    trained: tuple[str, ...]
    corrected: bool = True

    def __post_init__(self) -> None:
        if self.corrected:
            correct_opacus()

    def clipped_sum(self, batch: Batch, clip_norm: float) -> tuple[Tensor, Tensor]:
        """The sum (P,) of gradients clipped to `clip_norm`, and the norms (b,) by which it clipped."""
        from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleHooksFastGradientClipping

        with _only_trained(self.module, self.trained) as parameters:
            hooks = GradSampleHooksFastGradientClipping(
                self.module,
                loss_reduction="sum",
                max_grad_norm=clip_norm,  # pyright: ignore[reportArgumentType]
                use_ghost_clipping=True,
            )
            try:
                losses = self.losses(self.module, batch)
                _backward(losses.sum(), retain_graph=True)
                norms = hooks.get_norm_sample().detach().clone()
                if len(norms) != _rows(batch):
                    raise EngineRefused(
                        f"ghost clipping saw {len(norms)} rows of {_rows(batch)} records: it clips draws"
                    )
                weights = hooks.get_clipping_coef().detach()
                for parameter in parameters.values():
                    parameter.grad = None
                hooks.disable_hooks()
                _backward((weights * losses).sum())
                pieces = [
                    torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                    for parameter in parameters.values()
                ]
                return torch.cat([piece.reshape(-1) for piece in pieces]), norms
            finally:
                hooks.cleanup()


def correct_opacus() -> None:
    """Give opacus a convolution sampler that reads contiguous activations. Raises EngineRefused without opacus.

    `unfold2d` of opacus 1.6.0 takes strides for granted: for channels-last activations, which attention leaves behind, its
    gradients are wrong and its ghost norms too small, without an error.
    """
    try:
        from opacus.grad_sample import register_grad_sampler
        from opacus.grad_sample.conv import compute_conv_grad_sample
    except ImportError as error:
        raise EngineRefused("engine 'hooks' needs opacus: pip install 'privolve[train]', or use 'vmap'") from error

    @register_grad_sampler([nn.Conv1d, nn.Conv2d, nn.Conv3d])
    def contiguous(layer: nn.Conv2d, activations: list[Tensor], backprops: Tensor) -> dict[nn.Parameter, Tensor]:  # pyright: ignore[reportUnusedFunction]
        return compute_conv_grad_sample(layer, [activations[0].contiguous()], backprops.contiguous())


# ---- what they share -------------------------------------------------------------------------------------------------

_NUMBERS_AT_ONCE, _RECORDS_AT_ONCE = 25_600, 64
"""Measured on a CPU: 16 records of one draw of 28 x 28, 4 of 8 draws. What is kept for the way back grows with them."""

_PROGRAMS = 256
"""More than engines and shapes of one process."""

_ENGINES: dict[str, Callable[..., Engine]] = {"vmap": Vmap, "hooks": OpacusHooks, "loop": Loop}


def _why_not(kind: str) -> str:
    if kind != "ghost":
        return ""
    return ": ghost clipping gives no gradient of a record, which noise on a lattice needs before the sum; use 'vmap'"


def _all_rows(engine: Engine, batch: Batch) -> Tensor:
    return torch.cat([rows.clone() for rows in engine.per_record(batch)]).double()


def _error(found: Tensor, expected: Tensor) -> float:
    """The largest relative error of a row; NaN if a number is."""
    return ((found - expected).norm(dim=1) / expected.norm(dim=1).clamp_min(1e-30)).max().item()


def _way_out(candidate: Engine) -> str:
    if not isinstance(candidate, Vmap):
        return "Set performance.gradients = 'vmap'"
    return "Set performance.compile = false" if candidate.compiled else "Take another network, or precision = 'fp32'"


def _rows(batch: Batch) -> int:
    lengths = {len(value) for value in batch.values()}
    if len(lengths) != 1:
        raise EngineRefused(f"the tensors of a batch have one number of rows, not {sorted(lengths)}")
    return lengths.pop()


def _chunk_for(batch: Batch) -> int:
    """By the shapes alone: draws and pixels make a record large, whatever the network."""
    rows = max(_rows(batch), 1)
    numbers = max(sum(value.numel() for value in batch.values()) // rows, 1)
    return min(max(_NUMBERS_AT_ONCE // numbers, 1), _RECORDS_AT_ONCE)


def _chunks(batch: Batch, size: int) -> Iterator[dict[str, Tensor]]:
    for start in range(0, _rows(batch), size):
        yield {name: value[start : start + size] for name, value in batch.items()}


def _values(module: nn.Module, trained: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Fixed and trained tensors of the module, detached, as they are now."""
    wanted = set(trained)
    everything = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    fixed = {name: value.detach() for name, value in everything.items() if name not in wanted}
    return fixed, {name: everything[name].detach() for name in trained}


def _functional(module: nn.Module, values: dict[str, Tensor]) -> Net:
    def net(*args: Any, **kwargs: Any) -> Any:
        return torch.func.functional_call(module, values, args, kwargs)

    return net


def _joined(gradients: dict[str, Tensor], trained: Sequence[str]) -> Tensor:
    """One flat row a record; each piece is let go as soon as it is copied."""
    rows = len(gradients[trained[0]])
    width = sum(gradients[name][0].numel() for name in trained)
    flat = gradients[trained[0]].new_empty((rows, width), dtype=torch.float32)
    start = 0
    for name in trained:
        piece = gradients.pop(name).reshape(rows, -1)
        flat[:, start : start + piece.shape[1]] = piece
        start += piece.shape[1]
    return flat


def _by_record(parameter: nn.Parameter, records: int) -> Tensor:
    """opacus's rows of one parameter, added up over the draws of each record."""
    rows: Any = getattr(parameter, "grad_sample", None)
    if rows is None:
        return parameter.new_zeros((records, *parameter.shape))
    if isinstance(rows, list):
        rows = torch.stack(rows).sum(0)
    if len(rows) % records:
        raise EngineRefused(f"a layer saw {len(rows)} rows of {records} records; use engine = 'vmap'")
    return rows.view(records, -1, *parameter.shape).sum(1)


@contextmanager
def _only_trained(module: nn.Module, trained: Sequence[str]) -> Iterator[dict[str, nn.Parameter]]:
    """Gradients for the trained parameters alone, in training mode as opacus wants it; everything as before afterwards."""
    parameters = trained_parameters(module, trained)
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in module.parameters()]
    modes = [(each, each.training) for each in module.modules()]
    try:
        for parameter, _, _ in before:
            parameter.requires_grad_(False)
            parameter.grad = None
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        module.train()
        yield parameters
    finally:
        for parameter, requires, gradient in before:
            parameter.grad = gradient
            parameter.requires_grad_(requires)
        for each, mode in modes:
            each.training = mode
            each.__dict__.pop("activations", None)  # of opacus, where a pass ended early


@contextmanager
def _moved(module: nn.Module, by: float = 0.05) -> Iterator[None]:
    """The module at another place, a public random step of `by` away in each parameter; put back bit by bit."""
    parameters = list(module.parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    draw = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for parameter in parameters:
                step = torch.randn(parameter.shape, generator=draw).to(parameter.device, parameter.dtype)
                parameter.add_(step, alpha=by)
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)


def _backward(loss: Tensor, *, retain_graph: bool = False) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        loss.backward(retain_graph=retain_graph)


def _run_through(tried: Engine, batch: Batch) -> None:
    for rows in tried.per_record(batch):
        del rows
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or _says_out_of_memory(str(error))


def _says_out_of_memory(said: str) -> bool:
    return any(words in said for words in ("not enough memory", "can't allocate memory", "out of memory"))
