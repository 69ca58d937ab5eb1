"""Batches that fit, in order, and always of one shape."""

from __future__ import annotations

import logging

import pytest
import torch

from privolve.adapters.contract import AdapterUnavailable
from privolve.adapters.local.batches import Batches, is_out_of_memory

FAILURES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    RuntimeError("MPS backend out of memory"),
]


def up_to(fits: int, failure: Exception, seen: list[int]):
    def work(items: list[int]) -> list[int]:
        seen.append(len(items))
        if len(items) > fits:
            raise failure
        return [item * 10 for item in items]

    return work


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: str(failure)[:20] or "MemoryError")
@pytest.mark.parametrize("full", [False, True])
def test_a_batch_that_does_not_fit_is_halved_and_stays_so(failure, full):
    batches, seen = Batches(16, kind="test", full=full), []
    assert batches.run(range(20), up_to(5, failure, seen)) == [number * 10 for number in range(20)]
    assert batches.size == 4
    assert seen[:2] == [16, 8]
    seen.clear()
    assert batches.run(range(6), up_to(5, failure, seen)) == [number * 10 for number in range(6)]
    assert seen == ([4, 4] if full else [4, 2])


def test_halving_starts_from_what_was_tried():
    batches, seen = Batches(100, kind="test", full=False), []
    batches.run(range(6), up_to(3, MemoryError(), seen))
    assert seen == [6, 3, 3]


def test_one_request_that_does_not_fit_is_an_error_with_a_way_out(caplog):
    with (
        caplog.at_level(logging.CRITICAL),
        pytest.raises(AdapterUnavailable, match="not enough memory for one request"),
    ):
        Batches(4, kind="test", full=True).run(range(3), up_to(0, MemoryError(), []))


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("out of memory")])
def test_another_failure_is_not_tried_again(error):
    seen: list[int] = []
    with pytest.raises(type(error)):
        Batches(4, kind="test", full=True).run(range(9), up_to(0, error, seen))
    assert seen == [4]
    assert not is_out_of_memory(error)


def test_fitting_to_a_public_item_settles_the_size_before_any_record():
    batches, seen = Batches(64, kind="test", full=True), []
    batches.fit(0, up_to(9, MemoryError(), []))
    assert batches.size == 8
    batches.run(range(20), up_to(9, MemoryError(), seen))
    assert seen == [8, 8, 8]


def test_only_items_of_one_shape_share_a_batch_and_order_is_kept():
    batches, groups = Batches(3, kind="test", full=True), []

    def work(items: list[str]) -> list[str]:
        groups.append({len(item) for item in items})
        return [item.upper() for item in items]

    words = ["a", "bb", "c", "dd", "e", "f", "gg", "hhh"]
    assert batches.run(words, work, shape=len) == [word.upper() for word in words]
    assert all(len(group) == 1 for group in groups)


def test_nothing_is_asked_for_nothing():
    assert Batches(3, kind="test", full=True).run([], up_to(0, MemoryError(), [])) == []
