"""Rates and concurrency, on simulated time."""

from __future__ import annotations

import asyncio

import pytest

from privolve.adapters.contract import Cause, Stopped, Transient, Usage
from privolve.adapters.wrappers.limited import BURST_S, Bucket, Gate, Limits, Slots, told


def usage(tokens: int = 0, images: int = 0) -> Usage:
    return Usage(input_tokens=tokens, images=images)


async def through(gate: Gate, most: Usage, clock, took_s: float = 0.0, used: Usage | None = None) -> float:
    """One request; when it was sent."""
    async with gate.entered(most) as passage:
        sent = clock.now()
        if took_s:
            await clock.sleep(took_s)
        passage.succeeded(used or most)
    return sent


def times(simulated, gate: Gate, requests: list[Usage], took_s: float = 0.0) -> list[float]:
    async def all_of_them() -> list[float]:
        return await asyncio.gather(*(through(gate, most, simulated.clock, took_s) for most in requests))

    return simulated.run(all_of_them())


def test_buckets_start_empty_and_never_let_more_through_than_the_rate(simulated):
    gate = Gate(concurrency=1000, limits=Limits(requests=600), clock=simulated.clock)
    sent = times(simulated, gate, [usage()] * 120)
    assert sent[0] == pytest.approx(0.1)  # 600 a minute are 10 a second, and the first has to be earned.
    assert sent == pytest.approx([0.1 * (n + 1) for n in range(120)])


def test_a_pause_earns_a_burst_of_bounded_size(simulated):
    bucket = Bucket(600, clock=simulated.clock)

    async def work() -> list[float]:
        await simulated.sleep(3600)
        sent = []
        for _ in range(200):
            await bucket.take(1)
            sent.append(simulated.now - 3600)
        return sent

    sent = simulated.run(work())
    burst = int(600 * BURST_S / 60)
    assert sent[burst - 1] == 0.0
    assert sent[burst] > 0.0
    # Over any minute: the rate, and one burst at most.
    assert sum(at <= 10.0 for at in sent) <= 600 * 10 / 60 + burst


def test_a_request_larger_than_the_bucket_goes_alone_and_is_paid_back(simulated):
    gate = Gate(concurrency=10, limits=Limits(tokens=6000), clock=simulated.clock)
    first, second = times(simulated, gate, [usage(tokens=5000), usage(tokens=100)])
    assert first == pytest.approx(BURST_S)  # When the bucket is full, which holds 600.
    assert second == pytest.approx(first + (5000 - 600 + 100) / 100)


def test_what_was_reserved_and_not_used_comes_back(simulated):
    gate = Gate(concurrency=10, limits=Limits(tokens=6000), clock=simulated.clock)

    async def work() -> float:
        await through(gate, usage(tokens=500), simulated.clock, used=usage(tokens=100))
        return await through(gate, usage(tokens=400), simulated.clock)

    assert simulated.run(work()) == pytest.approx(5.0)  # Not 9: 400 of the 500 came back.


def test_the_pace_follows_what_is_used_not_what_is_at_most_used(simulated):
    """6,000 tokens a minute, 500 at most a request and 100 in fact: sixty a minute, not twelve."""
    gate = Gate(concurrency=1, limits=Limits(tokens=6000), clock=simulated.clock)

    async def work() -> float:
        for _ in range(60):
            await through(gate, usage(tokens=500), simulated.clock, used=usage(tokens=100))
        began = simulated.now
        for _ in range(60):
            await through(gate, usage(tokens=500), simulated.clock, used=usage(tokens=100))
        return simulated.now - began

    assert simulated.run(work()) == pytest.approx(60.0, rel=0.1)


def test_the_correction_of_estimates_never_passes_them_and_forgets(simulated):
    gate = Gate(concurrency=1, clock=simulated.clock)
    correction = gate.correction
    for used in [100] * 100:
        correction.learn(500, used)
    assert correction.of(500) == pytest.approx(100, rel=0.01)
    for _ in range(100):
        correction.learn(500, 5000)
    assert correction.of(500) == pytest.approx(500, rel=0.01)
    correction.learn(0, 10)


def test_images_have_a_limit_of_their_own(simulated):
    gate = Gate(concurrency=10, limits=Limits(images=5), clock=simulated.clock)
    assert times(simulated, gate, [usage(images=1)] * 3) == pytest.approx([12.0, 24.0, 36.0])


def test_a_429_pauses_everybody_and_halves_the_number_at_once_once_a_window(simulated):
    gate = Gate(concurrency=64, clock=simulated.clock)
    failure = Transient("slow down", wait_s=7.0, cause=Cause.RATE)

    async def refused() -> None:
        async with gate.entered(usage()) as passage:
            await simulated.sleep(1.0)
            passage.failed(failure)

    async def work() -> float:
        await asyncio.gather(*(refused() for _ in range(64)))
        return await through(gate, usage(), simulated.clock)

    assert simulated.run(work()) == pytest.approx(8.0)
    assert gate.slots.limit == 32  # 64 failures of one moment are one sign.


def test_the_number_at_once_grows_by_one_for_each_round_of_successes(simulated):
    slots = Slots(16, clock=simulated.clock)
    slots.overloaded()
    assert slots.limit == 8
    for _ in range(8):
        slots.succeeded()
    assert slots.limit == 9
    for _ in range(1000):
        slots.succeeded()
    assert slots.limit == 16


def test_no_more_are_under_way_than_there_are_slots_whatever_is_cancelled():
    most = under_way = 0

    async def work() -> None:
        nonlocal most, under_way
        gate = Gate(concurrency=5)

        async def one(number: int) -> None:
            nonlocal most, under_way
            async with gate.entered(usage()):
                under_way += 1
                most = max(most, under_way)
                try:
                    await asyncio.sleep(0.001 * (number % 4))
                finally:
                    under_way -= 1

        tasks = [asyncio.ensure_future(one(number)) for number in range(200)]
        for task in tasks[::3]:
            asyncio.get_running_loop().call_later(0.0005 * (id(task) % 20), task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        # All slots are free again.
        await asyncio.wait_for(asyncio.gather(*(one(0) for _ in range(20))), 5)

    asyncio.run(work())
    assert most == 5
    assert under_way == 0


@pytest.mark.parametrize(
    ("reset", "expected"), [("1.2s", 500.0), ("1s", 600.0), ("1m0s", 10.0), ("20ms", None), ("soon", None), ("", None)]
)
def test_limits_are_learned_from_headers(reset, expected):
    headers = {
        "X-RateLimit-Limit-Requests": "500",
        "x-ratelimit-remaining-requests": "490",
        "x-ratelimit-reset-requests": reset,
        "x-ratelimit-limit-tokens": "-1",
        "x-ratelimit-remaining-tokens": "0",
    }
    assert told(headers) == Limits(requests=None if expected is None else pytest.approx(expected))


def test_a_declared_limit_is_not_overruled_by_headers(simulated):
    gate = Gate(concurrency=4, limits=Limits(requests=60), clock=simulated.clock)
    gate.learn(Limits(requests=6000, tokens=1000))
    assert gate.requests.rate == 60
    assert gate.tokens.rate == 1000


# The breaker


def down(cause: Cause = Cause.SERVER) -> Transient:
    return Transient("it is down", cause=cause)


async def failing(gate: Gate, clock, failure: Transient, *, breaker: bool = True) -> float:
    async with gate.entered(usage(), breaker=breaker) as passage:
        sent = clock.now()
        passage.failed(failure)
    return sent


def test_five_failures_in_a_row_open_the_breaker_and_one_request_probes(simulated):
    gate = Gate(concurrency=64, clock=simulated.clock)

    async def work() -> tuple[list[float], list[float]]:
        failed = [await failing(gate, simulated.clock, down()) for _ in range(7)]
        after = await asyncio.gather(*(through(gate, usage(), simulated.clock, took_s=1.0) for _ in range(10)))
        return failed, sorted(after)

    failed, after = simulated.run(work())
    assert failed == [0, 0, 0, 0, 0, 2.0, 6.0]  # The sixth and the seventh are probes, after 2 and 4 seconds.
    assert after[0] == 14.0
    assert after[1:] == [15.0] * 9  # When the probe came back.


@pytest.mark.parametrize("cause", [Cause.RATE, Cause.MALFORMED])
def test_an_answer_of_any_kind_closes_it(simulated, cause):
    gate = Gate(concurrency=4, clock=simulated.clock)

    async def work() -> list[float]:
        for _ in range(5):
            await failing(gate, simulated.clock, down(Cause.CONNECTION))
        return [await failing(gate, simulated.clock, down(cause)) for _ in range(3)]

    assert simulated.run(work()) == [2.0, 2.0, 2.0]


def test_an_outage_ends_in_the_providers_own_error(simulated):
    gate = Gate(concurrency=4, clock=simulated.clock, outage_s=100.0)

    async def work() -> None:
        while True:
            await failing(gate, simulated.clock, down())

    with pytest.raises(Transient, match="it is down") as raised:
        simulated.run(work())
    assert raised.value.tries == 1
    assert 100.0 <= simulated.now <= 200.0


def test_a_closed_account_stops_every_role_that_uses_it(simulated):
    gate = Gate(concurrency=4, clock=simulated.clock)

    async def work() -> None:
        async with gate.entered(usage()) as passage:
            passage.stopped(Stopped("no money"))
        await through(gate, usage(), simulated.clock)

    with pytest.raises(Stopped, match="no money"):
        simulated.run(work())


def test_private_roles_have_no_breaker(simulated):
    gate = Gate(concurrency=4, clock=simulated.clock)

    async def work() -> list[float]:
        return [await failing(gate, simulated.clock, down(), breaker=False) for _ in range(20)]

    assert simulated.run(work()) == [0.0] * 20
    assert not gate.breaker.is_open


def test_a_probe_that_is_cancelled_leaves_room_for_the_next(simulated):
    gate = Gate(concurrency=4, clock=simulated.clock)

    async def work() -> float:
        for _ in range(5):
            await failing(gate, simulated.clock, down())
        probe = asyncio.ensure_future(through(gate, usage(), simulated.clock, took_s=1000))
        await simulated.sleep(3)
        probe.cancel()
        return await through(gate, usage(), simulated.clock)

    assert simulated.run(work()) == 3.0
