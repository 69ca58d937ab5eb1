"""Several processes, as `torchrun` starts them: the first runs the job, the others help it with the private training.

What passes between them here is public or released: the noise multiplier, a painted public set, results of public stages,
answers of the ledger. Within a training it is what `trainers/ranks.py` says: sums of integers, and the sum with its noise.
The others hold no ledger, write no file and say nothing.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np

from ..privacy import arrays
from ..privacy.private import OperationalError

Message = tuple[dict[str, Any], dict[str, np.ndarray]]
"""JSON and arrays."""

_PATIENCE = timedelta(days=30)
"""A public stage of the first process may take as long as it likes."""


def size() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_helper() -> bool:
    """Whether this is another process than the first."""
    return size() > 1 and int(os.environ.get("RANK", "0")) > 0


def share(document: Mapping[str, Any] | None = None, content: Mapping[str, np.ndarray] | None = None) -> Message:
    """What the first process gives, in all of them; helpers give nothing, and wait for it.

    Raises OperationalError where another process is gone.
    """
    given: Message = (dict(document or {}), dict(content or {}))
    if size() == 1:
        return given
    import torch

    _connect()
    whole = json.dumps(given[0]).encode()
    packed = arrays.npz(given[1])
    lengths = torch.tensor([len(whole), len(packed)], dtype=torch.int64)
    try:
        torch.distributed.broadcast(lengths, src=0)
        both = torch.empty(int(lengths.sum()), dtype=torch.uint8)
        if not is_helper():
            both = torch.frombuffer(bytearray(whole + packed), dtype=torch.uint8)
        torch.distributed.broadcast(both, src=0)
    except RuntimeError:
        raise OperationalError("another process of this training is gone; give the same command again") from None
    if not is_helper():
        return given
    received = both.numpy().tobytes()
    with np.load(io.BytesIO(received[int(lengths[0]) :]), allow_pickle=False) as found:
        return json.loads(received[: int(lengths[0])]), dict(found)


@contextmanager
def together() -> Iterator[None]:
    """While this lasts the processes may be connected; nothing is left connected after it."""
    try:
        yield
    finally:
        if size() > 1:
            import torch

            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


def _connect() -> None:
    import torch

    if torch.distributed.is_initialized():
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    torch.distributed.init_process_group(backend, timeout=_PATIENCE)
