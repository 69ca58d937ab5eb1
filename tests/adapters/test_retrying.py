from __future__ import annotations

import asyncio

import pytest

from privolve.adapters.contract import Stopped, Transient
from privolve.adapters.scripted import Scripted, ScriptedAsync
from privolve.adapters.wrappers.retrying import Patience, Retrying, RetryingAsync


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, wait_s: float) -> None:
        self.slept.append(wait_s)
        self.now += wait_s

    async def sleep_async(self, wait_s: float) -> None:
        self.sleep(wait_s)


class Failing:
    """Raises what it is given, one failure a call, then answers."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls = 0

    def __call__(self, request: object) -> object:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return request

    async def later(self, request: object) -> object:
        return self(request)


@pytest.fixture(params=["batch", "async"])
def ask(request):
    """Asks one request of a failing adapter through the wrapper of either face."""

    def send(failing: Failing, clock: Clock, **options) -> object:
        patience = Patience(**{"jitter": lambda: 1.0, **options})
        if request.param == "batch":
            wrapped = Retrying(Scripted(failing), patience, clock=clock, sleep=clock.sleep)
            return wrapped.send(["question"])[0]
        wrapped = RetryingAsync(ScriptedAsync(failing.later), patience, clock=clock, sleep=clock.sleep_async)
        return asyncio.run(wrapped.answer("question"))

    return send


def test_a_transient_failure_is_asked_again(ask):
    failing, clock = Failing(Transient("a"), Transient("b")), Clock()
    assert ask(failing, clock) == "question"
    assert failing.calls == 3


def test_waits_double_up_to_the_longest(ask):
    clock = Clock()
    ask(Failing(*[Transient("busy")] * 6), clock, first_wait_s=1.0, longest_wait_s=10.0)
    assert clock.slept == [1, 2, 4, 8, 10, 10]


def test_the_jitter_is_full(ask):
    clock = Clock()
    ask(Failing(*[Transient("busy")] * 3), clock, jitter=lambda: 0.25, first_wait_s=1.0)
    assert clock.slept == [0.25, 0.5, 1.0]


def test_the_providers_own_word_is_honoured(ask):
    clock = Clock()
    ask(Failing(Transient("busy", wait_s=12.5), Transient("busy", wait_s=0.0)), clock, longest_wait_s=1.0)
    assert clock.slept == [12.5, 0.0]


def test_one_deadline_bounds_it_all(ask):
    failing, clock = Failing(*[Transient(str(number)) for number in range(100)]), Clock()
    with pytest.raises(Transient):
        ask(failing, clock, first_wait_s=1.0, deadline_s=10.0)
    assert clock.now < 10.0
    assert failing.calls == 4


def test_a_wait_past_the_deadline_is_not_begun(ask):
    clock = Clock()
    with pytest.raises(Transient, match="later"):
        ask(Failing(Transient("later", wait_s=700.0)), clock)
    assert clock.slept == []


@pytest.mark.parametrize("failure", [Stopped("no money"), ValueError("a bug"), OSError("no route")])
def test_nothing_else_is_asked_again(ask, failure):
    failing = Failing(failure)
    with pytest.raises(type(failure)):
        ask(failing, Clock())
    assert failing.calls == 1


def test_a_reply_that_never_ends_is_cut_at_the_deadline():
    async def hang(_: object) -> object:
        await asyncio.sleep(60)
        return None

    wrapped = RetryingAsync(ScriptedAsync(hang), Patience(deadline_s=0.05))
    with pytest.raises(Transient, match=r"no reply within 0.05 s"):
        asyncio.run(wrapped.answer("question"))
