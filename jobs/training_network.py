"""The network of a training before anything private is asked: its size, its gradients, and whether these are right here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ..trainers.course import DiffusionMethod
from .train import TrainConfig
from .training_design import Design, gradient_chunk, micro_batch

if TYPE_CHECKING:
    from torch import nn

    from ..trainers.diffusion.losses import DiffusionLoss
    from ..trainers.gradients import Batch, Engine, Precision


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """What DP-SGD will train, at public random weights. It sees public random input alone."""

    config: TrainConfig
    module: nn.Module
    trained: tuple[str, ...]
    parameters: int
    """How many numbers `trained` are."""
    loss: DiffusionLoss
    precision: Precision
    seen: tuple[int, int, int]
    """Channels, height and width of its input."""
    rows: int
    """Records at a time."""
    chunk: int | None
    device: str

    @classmethod
    def of(cls, config: TrainConfig, design: Design) -> Self | None:
        """None for a method without DP-SGD."""
        trainer = config.trainer
        if design.sgd is None or not isinstance(trainer, DiffusionMethod):
            return None
        from ..trainers import gradients
        from ..trainers.workspace import chosen_device

        module, device = trainer.module(design.shape, config.seed), chosen_device(config.performance.device)
        trainer.prepared(module, None)
        trained = trainer.trained(module)
        parameters = gradients.trained_parameters(module, trained)
        return cls(
            config=config,
            module=module.to(device),
            trained=trained,
            parameters=sum(value.numel() for value in parameters.values()),
            loss=trainer.loss(design.shape, private=True),
            precision=trainer.precision,
            seen=trainer.seen(design.shape),
            rows=micro_batch(config, design),
            chunk=gradient_chunk(config, design),
            device=device,
        )

    def batch(self, records: int) -> Batch:
        """Random input of the shapes to come."""
        from ..trainers.diffusion.losses import public_batch

        channels, height, width = self.seen
        made = public_batch(self.loss, records=records, channels=channels, height=height, width=width)
        return {name: value.to(self.device) for name, value in made.items()}

    def engine(self, *, compiled: bool) -> Engine:
        from ..trainers import gradients

        return gradients.engine(
            self.config.performance.gradients,
            self.module,
            gradients.in_precision(self.loss.losses, self.precision),
            self.trained,
            self.chunk,
            public=self.batch(self.rows),
            compiled=compiled,
        )

    def check(self) -> None:
        """Raises EngineRefused where gradients are not those of single records, or cannot be computed as the job asks."""
        from ..trainers import gradients

        gradients.self_check(
            self.engine(compiled=self.config.performance.compile),
            self.module,
            self.loss.losses,
            self.trained,
            self.batch(3),
            precision=self.precision,
        )
