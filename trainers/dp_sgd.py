"""DP-SGD: a whole training as one mechanism.

Each step draws its records by Poisson sampling, clips the gradient of every one, and adds noise once to the sum of all
(Abadi et al., 2016), on a lattice so that the sum is exact. Everything after that sum is post-processing: division by the
public constant q N, the optimizer, the average of the weights, checkpoints, what is sampled later.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, final

import numpy as np
import torch
from torch import Tensor, nn

from ..data.training_records import TrainingRecords
from ..privacy import lattice
from ..privacy.failpoint import failpoint
from ..privacy.lattice import RESOLUTION, SHRINK
from ..privacy.ledger import Ledger
from ..privacy.ledger_book import plan_digest
from ..privacy.mechanism import JSON, SampledGaussian
from ..privacy.private import OperationalError, Private
from ..privacy.randomness import SecretRng
from . import gradients
from .contract import Arrays, TrainerError, digest
from .gradients import Batch, Engine, Losses, Precision
from .optimizers import Average, Optimizer
from .ranks import Ranks, ranks
from .workspace import Workspace

EngineOf = Callable[["Task"], Engine]


class Rows(Protocol):
    """What the network is given: public randomness included, which is a function of (public seed, step, slot) alone."""

    def __call__(self, pixels: np.ndarray, labels: np.ndarray, slots: np.ndarray, step: int, /) -> Batch:
        """`pixels` uint8 (b, height, width, channels), `labels` int64 (b,), `slots` int64 (b,); row i depends on row i alone.

        Blanks have label 0; what becomes of them is multiplied by zero.
        """
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """What is trained: `trained` names the parameters of `module` that get gradients, and noise; the others stay.

    `image` is the public (height, width, channels) of the records; `precision` that of the products in the network, forward and
    back, while weights, norms, sums and noise are float32 or wider.
    """

    module: nn.Module
    losses: Losses
    trained: tuple[str, ...]
    rows: Rows
    image: tuple[int, int, int]
    precision: Precision = "fp32"


@dataclass(frozen=True, kw_only=True)
class DPSGD:
    """The public parameters of a training, before its noise is known."""

    steps: int
    sampling_probability: float
    clip_norm: float = 1.0
    clip: Literal["norm", "automatic"] = "norm"
    """`norm`: g min(1, C/|g|). `automatic`: g C/(|g| + gamma), so that every record counts (Bu et al., 2023)."""
    gamma: float = 0.01
    optimizer: Optimizer = field(default_factory=Optimizer)
    ema: Average = field(default_factory=Average)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.steps != int(self.steps):
            raise TrainerError(f"steps = {self.steps}: a training has a whole number of steps, at least 1")
        if not 0 < self.sampling_probability <= 1:
            raise TrainerError(
                f"sampling_probability = {self.sampling_probability}: it must be above 0 and at most 1; lower the batch size"
            )
        if not 0 < self.clip_norm < math.inf:
            raise TrainerError(f"clip_norm = {self.clip_norm}: it must be a finite number above 0")
        if self.clip not in ("norm", "automatic"):
            raise TrainerError(f"clip = {self.clip!r} is not known; there are norm and automatic")
        if not 0 < self.gamma < math.inf:
            raise TrainerError(f"gamma = {self.gamma}: it must be a finite number above 0")

    def with_noise(self, noise_multiplier: float, /) -> NoisySGD:
        return NoisySGD(config=self, noise_multiplier=noise_multiplier)


@dataclass(frozen=True, kw_only=True)
class NoisySGD:
    """A calibrated training that has nothing to train yet."""

    config: DPSGD
    noise_multiplier: float

    @property
    def cost(self) -> SampledGaussian:
        return SampledGaussian(
            probability=self.config.sampling_probability,
            noise_multiplier=self.noise_multiplier,
            steps=self.config.steps,
        )

    def training(
        self, task: Task, start: Arrays | None, workspace: Workspace, *, engine: EngineOf | None = None
    ) -> Training:
        """The mechanism that trains `task` from `start`, values by parameter name, or from the module as it is.

        Changes the module's parameters. Raises EngineRefused for layers that mix records or draw by position.
        """
        gradients.refuse_mixing(task.module)
        gradients.trained_parameters(task.module, task.trained)
        _load(task.module, start or {})
        return Training(self, task, workspace, engine)


@final
class Training:
    """The mechanism. Returns {"weights/NAME", "ema/NAME"}: float32 arrays of every trained parameter.

    Formal guarantee (zero-out): N, the rate q, the steps, the shapes of batches and the divisor q N are public. In each step
    every slot is drawn with probability q, independently of all others and of what it holds. A drawn record adds one vector
    to the sum, which depends on the record, its slot, the step and the weights so far: the gradient of its loss, the mean
    over its draws, cut to L2 norm at most C (checked, in integers). A ghost keeps its row, is blank there, and adds zero, as
    does a record without a finite gradient. Each coordinate of the sum gets noise of standard deviation sigma C. So a step is
    a Poisson-sampled Gaussian mechanism of the weights so far, and all steps cost SampledGaussian(q, sigma, steps). Noise lies
    on trained parameters, and no others change. How the rows are cut into batches, chunks and processes cannot be seen in the
    sum, which is one of integers; a batch without records is a step with noise alone.
    """

    def __init__(self, sgd: NoisySGD, task: Task, workspace: Workspace, engine: EngineOf | None = None) -> None:
        """By `NoisySGD.training` only."""
        self.sgd = sgd
        self.task = task
        self.workspace = workspace
        self._engine_of = engine
        self._prepared: tuple[int, Engine] | None = None
        self._ranks = ranks(workspace.device)
        self._start = digest({name: value.detach().cpu().numpy() for name, value in task.module.state_dict().items()})
        self._begin = _flat(task)

    @property
    def cost(self) -> SampledGaussian:
        return self.sgd.cost

    def describe(self) -> Mapping[str, JSON]:
        config = self.sgd.config
        return {
            "mechanism": "dp-sgd",
            "steps": config.steps,
            "sampling_probability": config.sampling_probability,
            "noise_multiplier": self.sgd.noise_multiplier,
            "clip_norm": config.clip_norm,
            "clip": config.clip if config.clip == "norm" else f"automatic, gamma {config.gamma!r}",
            "optimizer": config.optimizer.describe(),
            "ema": config.ema.decay,
            "trained": list(self.task.trained),
            "precision": self.task.precision,
            "start": self._start,
            "code": _source(),
            "torch": str(torch.__version__),
        }

    def prepare(self) -> None:
        """Find the batch and the engine that fit into memory, on public random input; nothing of it depends on a record.

        Raises EngineRefused for gradients that are not those of single records, and MemoryError if nothing fits.
        """
        if self._prepared is not None:
            return
        task, workspace = self.task, self.workspace
        losses = gradients.in_precision(task.losses, task.precision)
        task.module.to(workspace.device)
        draw = np.random.default_rng(0)

        def public(rows: int) -> Batch:
            pixels = draw.integers(0, 256, (rows, *task.image), dtype=np.uint8)
            zeros = np.zeros(rows, dtype=np.int64)
            return _on(workspace.device, task.rows(pixels, zeros, zeros, 0))

        def attempt(rows: int) -> tuple[int, Engine]:
            if self._engine_of is not None:
                engine = self._engine_of(replace(task, losses=losses))
            else:
                chunk = None if workspace.chunk is None else min(workspace.chunk, rows)
                engine = gradients.engine(
                    workspace.engine,
                    task.module,
                    losses,
                    task.trained,
                    chunk,
                    public=public(rows),
                    compiled=workspace.compiled,
                )
            for _ in engine.per_record(public(rows)):
                pass
            return rows, engine

        rows, engine = gradients.fitting_chunk(attempt, start=workspace.micro_batch)
        gradients.self_check(engine, task.module, task.losses, task.trained, public(_CHECKED), precision=task.precision)
        self._prepared = rows, engine

    def __call__(self, secret: SecretRng, data: TrainingRecords, /) -> Mapping[str, np.ndarray]:
        try:
            return self._run(secret, data)
        except gradients.EngineRefused:
            raise OperationalError(
                "the network could not be compiled again in the middle of its training; set performance.compile = false, and give "
                "the same command again"
            ) from None
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            raise OperationalError(
                "the training ran out of memory, though a batch of this size had fitted before; end what else uses it, or "
                "lower performance.micro_batch, and give the same command again"
            ) from None

    def _run(self, secret: SecretRng, data: TrainingRecords) -> Mapping[str, np.ndarray]:
        config, resumed, rank = self.sgd.config, self.workspace.resumed, self._ranks.rank
        self.prepare()
        self._refuse_other_records(data)
        summed = self._summed(data)
        state = _Progress.begun(config, _viewed(self.task, self._begin.to(self.workspace.device, copy=True)))
        if resumed is not None:
            state.restore(resumed.step, resumed.arrays)

        # Rank 0 draws first, which charges; then all begin where it begins.
        first = self._mask(secret, data) if rank == 0 and state.step < config.steps else None
        state.copy_from_first(self._ranks)

        while state.step < config.steps:
            mine = self._mask(secret, data) if first is None else first
            first = None
            failpoint("dp-sgd-after-mask")
            noisy = self._noisy_sum(secret, summed, mine, state.step)
            failpoint("dp-sgd-after-noise")
            state.move(config, noisy / (config.sampling_probability * len(data)))
            if rank == 0:
                self.workspace.reached(state.step, config.steps, state.arrays, shown=lambda: self._named(state.average))
        named = {"weights": self._named(state.weights), "ema": self._named(state.average)}
        return {f"{kind}/{name}": value for kind, values in named.items() for name, value in values.items()}

    def _refuse_other_records(self, data: TrainingRecords) -> None:
        """Every process reads what the first reads, and what the ledger binds: else records would count that it never saw."""
        if self._ranks.size == 1:
            return
        whole = hashlib.sha256()
        for part in data.parts():
            whole.update(len(part).to_bytes(8, "big") + part)
        mine = torch.from_numpy(np.frombuffer(whole.digest(), dtype=np.int64).copy()).to(self.workspace.device)
        first = mine.clone()
        self._ranks.copy_from_first(first)
        differing = (mine != first).any().to(torch.int64).reshape(1)
        self._ranks.add_up(differing)
        if int(differing):
            raise OperationalError(
                "the processes of this training read different records; give all of them the same files, and the same command "
                "again"
            )

    def _mask(self, secret: SecretRng, data: TrainingRecords) -> np.ndarray:
        """Which slots of this process take part: of those that leave its rank when divided by the number of processes."""
        shard = len(range(self._ranks.rank, len(data), self._ranks.size))
        return secret.mask(shard, self.sgd.config.sampling_probability)

    def _noisy_sum(self, secret: SecretRng, summed: _Summed, mine: np.ndarray, step: int) -> np.ndarray:
        """The sum of one step over all processes, with its noise: float64 (P,), the same everywhere."""
        config = self.sgd.config
        total = summed.of(np.flatnonzero(mine) * self._ranks.size + self._ranks.rank, step)
        self._ranks.add_up(total)
        noisy = torch.empty(total.shape, dtype=torch.float64, device=total.device)
        if self._ranks.rank == 0:
            drawn = lattice.noisy(
                total.cpu().numpy(),
                clip_norm=config.clip_norm,
                noise_multiplier=self.sgd.noise_multiplier,
                secret=secret,
            )
            noisy.copy_(torch.from_numpy(drawn))
        self._ranks.copy_from_first(noisy)
        return noisy.cpu().numpy()

    def _summed(self, data: TrainingRecords) -> _Summed:
        assert self._prepared is not None
        rows, engine = self._prepared
        if data.pixels.shape[1:] != self.task.image:
            raise ValueError("the records have another shape than the task")
        workspace = self.workspace
        log = workspace.log_every if self._ranks.rank == 0 else 0
        return _Summed(
            task=self.task,
            config=self.sgd.config,
            workspace=workspace,
            engine=engine,
            rows=rows,
            data=data,
            log_every=log,
        )

    def _named(self, flat: Tensor) -> dict[str, np.ndarray]:
        pieces = gradients.unflatten(flat, self.task.module, self.task.trained)
        return {name: piece.detach().cpu().numpy().copy() for name, piece in pieces.items()}


def release_training(
    ledger: Ledger, training: Training, data: Private[TrainingRecords], *, name: str, question: str
) -> Mapping[str, np.ndarray]:
    """Release a training under `name`, from its newest durable checkpoint on if it was begun before.

    Raises CheckpointRefused for a checkpoint of another plan, and LedgerError for one that is too old.
    """
    found = ledger.book.release_named(name)
    checkpoint = training.workspace.bind(
        key=ledger.key,
        belongs_to={
            "ledger": ledger.id,
            "release": name,
            "plan": "" if found is None else plan_digest(found[0]),
            "question": question,
            "mechanism": dict(training.describe()),
        },
        before_showing=lambda shown: ledger.shown(name, shown),
    )
    attempts = ledger.book.attempts(name)
    if not attempts or attempts[-1].outcome != "released":
        training.prepare()
    outputs = ledger.release(training, data, name=name, question=question, checkpoint=checkpoint)
    training.workspace.clear()
    return outputs


# --- the sum of a step ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class _Summed:
    """The clean sum of a step, in units of C / RESOLUTION. It stays inside the mechanism."""

    task: Task
    config: DPSGD
    workspace: Workspace
    engine: Engine
    rows: int
    data: TrainingRecords
    log_every: int

    def of(self, slots: np.ndarray, step: int) -> Tensor:
        """int64 (P,) over the records of `slots`; zero, without a look at the network, if there are none."""
        device = self.workspace.device
        known = gradients.trained_parameters(self.task.module, self.task.trained)
        total = torch.zeros(sum(value.numel() for value in known.values()), dtype=torch.int64, device=device)
        norms: list[Tensor] = []
        for batch, counts in self._batches(slots, step):
            first = 0
            for chunk in self.engine.per_record(batch):
                points, norm = clipped_to_lattice(chunk, self.config)
                points[~counts[first : first + len(chunk)]] = 0.0
                first += len(chunk)
                norms.append(norm)
                for group in points.split(_EXACT_ROWS):
                    total += group.sum(dim=0).to(torch.int64)
            if first != self.rows:
                raise RuntimeError(f"the engine gave {first} rows for {self.rows}")
        if self.log_every and step % self.log_every == 0:
            self._log(slots, step, norms)
        return total

    def _batches(self, slots: np.ndarray, step: int) -> Iterator[tuple[Batch, Tensor]]:
        """All of `slots` in batches of one shape, and which of their rows count; a ghost keeps its row and is blank."""
        for start in range(0, len(slots), self.rows):
            some = slots[start : start + self.rows]
            valid = self.data.valid[some]
            pixels = np.zeros((self.rows, *self.data.pixels.shape[1:]), dtype=np.uint8)
            labels, padded = np.zeros(self.rows, dtype=np.int64), np.zeros(self.rows, dtype=np.int64)
            counts = np.zeros(self.rows, dtype=np.bool_)
            pixels[: len(some)] = np.where(valid[:, None, None, None], self.data.pixels[some], np.uint8(0))
            labels[: len(some)] = np.where(valid, self.data.labels[some], 0)
            padded[: len(some)] = some
            counts[: len(some)] = valid
            batch = self.task.rows(pixels, labels, padded, step)
            yield _on(self.workspace.device, batch), torch.from_numpy(counts).to(self.workspace.device)

    def _log(self, slots: np.ndarray, step: int, norms: list[Tensor]) -> None:
        """For the operator's eyes: the loss of the first batch, the norms of all gradients, blanks among them."""
        line: dict[str, Any] = {"records": len(slots)}
        if norms:
            batch, counts = next(self._batches(slots, step))
            with torch.no_grad():  # By single records: no more memory than a gradient took.
                losses = torch.cat(
                    [
                        self.task.losses(
                            self.task.module, {name: value[row : row + 1] for name, value in batch.items()}
                        )
                        for row in torch.nonzero(counts).flatten()[:_LOGGED].tolist()
                    ]
                    or [torch.zeros(1)]
                )
            found = torch.cat(norms)
            line |= {
                "loss": float(losses.mean()),
                "gradient_norm_median": float(found.median()),
                "clipped": float((found > self.config.clip_norm).double().mean()),
            }
        self.workspace.log(step, line)


_CHECKED = 3
"""Public random records on which the gradients are checked."""

_LOGGED = 32
"""Records whose loss the private log averages."""

_EXACT_ROWS = 16
"""So many integers of at most RESOLUTION = 2^20 add up exactly in float32."""

_COLUMNS = 2**14


def clipped_to_lattice(rows: Tensor, config: DPSGD) -> tuple[Tensor, Tensor]:
    """Gradients float32 (c, P), clipped and cut toward zero to whole multiples of C / RESOLUTION, and their norms (c,).

    The integers, still float32, take the place of `rows`. A row that is not finite, or whose squares add up to more than
    RESOLUTION^2, is zero; so every row has L2 norm at most C, whatever the norms before were rounded to.
    """
    norms = _squares(rows).sqrt()
    wanted = norms + config.gamma if config.clip == "automatic" else norms.clamp_min(config.clip_norm)
    rows.mul_((SHRINK * RESOLUTION / wanted).to(torch.float32)[:, None]).trunc_()
    usable = torch.isfinite(norms) & (_squares(rows) <= float(RESOLUTION) ** 2)
    rows[~usable] = 0.0
    return rows, norms


def _squares(rows: Tensor) -> Tensor:
    """The squared L2 norm of each row in float64; by blocks of columns, which stay in the cache."""
    total = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    for block in rows.split(_COLUMNS, dim=1):
        total += torch.linalg.vector_norm(block, dim=1, dtype=torch.float64).square()
    return total


# --- what is moved ----------------------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False)
class _Progress:
    """Weights, their average and the optimizer's memory after `step` steps, flat; the module's parameters are views."""

    step: int
    weights: Tensor
    average: Tensor
    memory: dict[str, Tensor]

    @classmethod
    def begun(cls, config: DPSGD, weights: Tensor) -> _Progress:
        return cls(step=0, weights=weights, average=weights.clone(), memory=config.optimizer.begin(weights))

    def move(self, config: DPSGD, direction: np.ndarray) -> None:
        gradient = torch.from_numpy(direction).to(self.weights)
        config.optimizer.move(self.weights, gradient, self.memory, step=self.step, steps=config.steps)
        self.step += 1
        config.ema.move(self.average, self.weights, step=self.step)

    def tensors(self) -> dict[str, Tensor]:
        return {"weights": self.weights, "ema": self.average, **self.memory}

    def arrays(self) -> Arrays:
        return {name: tensor.cpu().numpy() for name, tensor in self.tensors().items()}

    def restore(self, step: int, arrays: Arrays) -> None:
        self.step = step
        for name, tensor in self.tensors().items():
            tensor.copy_(torch.from_numpy(arrays[name]))

    def copy_from_first(self, ranks: Ranks) -> None:
        """Begin everywhere where rank 0 begins."""
        step = torch.tensor([self.step], dtype=torch.int64, device=self.weights.device)
        for tensor in (step, *self.tensors().values()):
            ranks.copy_from_first(tensor)
        self.step = int(step)


def _flat(task: Task) -> Tensor:
    """The trained parameters as one vector, a copy."""
    known = gradients.trained_parameters(task.module, task.trained)
    for name, value in known.items():
        if value.dtype != torch.float32:
            raise TrainerError(f"parameter {name!r} is {value.dtype}; what is trained must be float32")
    return torch.cat([value.detach().reshape(-1) for value in known.values()])


def _viewed(task: Task, flat: Tensor) -> Tensor:
    """`flat`, of which the module's trained parameters are views from here on."""
    known = gradients.trained_parameters(task.module, task.trained)
    for name, view in gradients.unflatten(flat, task.module, task.trained).items():
        known[name].data = view
    return flat


def _load(module: nn.Module, start: Arrays) -> None:
    """Set parameters and buffers by name."""
    unknown = sorted(set(start) - set(module.state_dict()))
    if unknown:
        raise TrainerError(f"the start has {unknown[0]!r}, which the network has not; it was made for another network")
    state = module.state_dict()
    with torch.no_grad():
        for name, value in start.items():
            if tuple(state[name].shape) != value.shape:
                raise TrainerError(
                    f"the start has {name!r} of shape {value.shape}, the network {tuple(state[name].shape)}"
                )
            state[name].copy_(torch.from_numpy(np.array(value)))


def _on(device: str, batch: Batch) -> Batch:
    return {name: value.to(device) for name, value in batch.items()}


def _source() -> str:
    """sha256 over the source of this package: a record's gradient, its clipping and its randomness depend on most of it."""
    whole = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        content = path.read_bytes()
        whole.update(len(content).to_bytes(8, "big") + content)
    return whole.hexdigest()
