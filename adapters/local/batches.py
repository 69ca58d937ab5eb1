"""Batches: how many requests a model takes at once, found by halving until they fit into memory.

A full batch is filled with repeats of its first item. So the shapes that a model computes with never depend on how many
requests there are, and on a CPU a reply has the same bits whatever is sent beside it.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from ..contract import AdapterUnavailable

T = TypeVar("T")
R = TypeVar("R")

_LOG = logging.getLogger(__name__)
_SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")


class Batches:
    """One model's batches. One batch runs at a time, whatever thread asks."""

    def __init__(self, size: int, *, kind: str, full: bool) -> None:
        self.size = size
        self._kind = kind
        self._full = full
        self._lock = threading.Lock()

    def run(
        self, items: Sequence[T], work: Callable[[list[T]], Sequence[R]], *, shape: Callable[[T], Hashable] = type
    ) -> list[R]:
        """`work` of every item, in order; only items of one shape share a batch."""
        groups: dict[Hashable, list[int]] = {}
        for index, item in enumerate(items):
            groups.setdefault(shape(item), []).append(index)
        results: dict[int, R] = {}
        with self._lock:
            for waiting in groups.values():
                while waiting:
                    batch = waiting[: self.size]
                    answers = self._tried([items[index] for index in batch], work)
                    if answers is not None:
                        results.update(zip(batch, answers, strict=True))
                        waiting = waiting[len(batch) :]
        return [results[index] for index in range(len(items))]

    def fit(self, item: T, work: Callable[[list[T]], Sequence[object]]) -> None:
        """Find a size that fits by running full batches of a public item, so that no private record ever decides it."""
        self.run([item] * self.size, work)

    def _tried(self, items: list[T], work: Callable[[list[T]], Sequence[R]]) -> Sequence[R] | None:
        """What `work` gives, or None and a smaller size if it did not fit."""
        filler = [items[0]] * (self.size - len(items)) if self._full else []
        try:
            return work(items + filler)[: len(items)]
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if self.size == 1:
                raise AdapterUnavailable(
                    f"{self._kind}: there is not enough memory for one request; set `dtype` or `offload`, or choose a "
                    "smaller model"
                ) from None
        # Out of the `except`, so that what the failed batch held is free.
        self.size = max(1, min(self.size, len(items) + len(filler)) // 2)
        _LOG.warning("%s: out of memory; going on with batches of %d", self._kind, self.size)
        _free()
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of any device says that memory is short."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def _free() -> None:
    import sys

    gc.collect()
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()
