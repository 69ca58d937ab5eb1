"""Several processes that train one model: sums of integers and copies pass between them, nothing else.

Integers add up exactly in any order, so as many processes as there are give, for the same masks, what one would have given.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Protocol, final

import torch
from torch import Tensor


class Ranks(Protocol):
    """This process among `size`. Rank 0 holds the ledger, the checkpoints and the noise."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def add_up(self, total: Tensor) -> None:
        """Replace `total`, int64, by its sum over all processes."""
        ...

    def copy_from_first(self, values: Tensor) -> None:
        """Replace `values` by those of rank 0."""
        ...


@final
class Alone:
    """One process."""

    rank, size = 0, 1

    def add_up(self, total: Tensor) -> None:
        pass

    def copy_from_first(self, values: Tensor) -> None:
        pass


@final
class Together:
    """The processes of torch.distributed, which `torchrun` starts."""

    def __init__(self) -> None:
        self.rank = torch.distributed.get_rank()
        self.size = torch.distributed.get_world_size()

    def add_up(self, total: Tensor) -> None:
        torch.distributed.all_reduce(total)

    def copy_from_first(self, values: Tensor) -> None:
        torch.distributed.broadcast(values, src=0)


def ranks(device: str = "cpu") -> Ranks:
    """All processes that `torchrun` started with this one, connected at the first call; alone without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Alone()
    if not torch.distributed.is_initialized():
        backend = "nccl" if device.startswith("cuda") else "gloo"
        torch.distributed.init_process_group(backend, timeout=timedelta(hours=2))
    return Together()
