"""Equal requests that come at the same time are one."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest

from privolve.adapters.contract import Message, Stopped, TextRequest
from privolve.adapters.scripted import ScriptedAsync, ScriptedConfig
from privolve.adapters.wrappers.single_flight import Asked, Flights
from privolve.cache.keys import Address


def asked(name: str = "a") -> Asked:
    return Asked(name, Address(key=name, namespace="run", draw=0, canonical="{}"))


def test_equal_requests_share_a_reply_and_later_ones_are_asked_anew():
    count: Counter[str] = Counter()

    async def ask(one: Asked) -> str:
        count[one.request] += 1
        await asyncio.sleep(0.001)
        return f"{one.request}{count[one.request]}"

    async def work() -> list[str]:
        flights = Flights()
        together = [flights.reply(asked(name), ask) for name in "aabab"]
        return [*await asyncio.gather(*together), await flights.reply(asked("a"), ask)]

    assert asyncio.run(work()) == ["a1", "a1", "b1", "a1", "b1", "a2"]


def test_a_failure_is_everybodys_and_ends_there():
    async def fail(_: Asked) -> str:
        await asyncio.sleep(0)
        raise Stopped("no")

    async def work() -> list[object]:
        flights = Flights()
        return await asyncio.gather(*(flights.reply(asked(), fail) for _ in range(3)), return_exceptions=True)

    assert [str(each) for each in asyncio.run(work())] == ["no"] * 3


@pytest.mark.parametrize(("sent", "waiters", "goes_on"), [(True, 1, True), (False, 2, True), (False, 1, False)])
def test_a_waiter_that_is_cancelled_does_not_cancel_what_was_sent_or_is_waited_for(sent, waiters, goes_on):
    ended: list[str] = []

    async def ask(one: Asked) -> str:
        one.is_sent = sent
        try:
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        ended.append("answered")
        return "reply"

    async def work() -> list[object]:
        flights = Flights()
        tasks = [asyncio.ensure_future(flights.reply(asked(), ask)) for _ in range(waiters)]
        await asyncio.sleep(0.005)
        tasks[0].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.03)
        return results

    results = asyncio.run(work())
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == ["reply"] * (waiters - 1)
    assert ended == (["answered"] if goes_on else ["cancelled"])


def test_closing_waits_for_what_was_sent_and_gives_up_the_rest():
    ended: list[str] = []

    async def ask(one: Asked) -> str:
        one.is_sent = one.request == "sent"
        try:
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            ended.append(f"{one.request} given up")
            raise
        ended.append(f"{one.request} answered")
        return ""

    async def work() -> None:
        flights = Flights()
        waiters = [asyncio.ensure_future(flights.reply(asked(name), ask)) for name in ("sent", "queued")]
        await asyncio.sleep(0.001)
        await flights.finish(within_s=1.0)
        await asyncio.gather(*waiters, return_exceptions=True)

    asyncio.run(work())
    assert sorted(ended) == ["queued given up", "sent answered"]


def test_two_threads_and_two_roles_that_ask_the_same_at_once_pay_once(gateway):
    sent: Counter[int] = Counter()

    async def slow(request: TextRequest) -> str:
        sent[request.draw] += 1
        await asyncio.sleep(0.01)
        return f"{request.draw}"

    adapter = ScriptedAsync(slow)
    opened = gateway({role: ScriptedConfig(adapter=adapter) for role in ("writer", "other")})
    requests = [TextRequest(messages=(Message(role="user", content="a"),), draw=draw) for draw in range(30)]
    replies: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda role=role: replies.append(opened.open(role).send(requests)))
        for role in ("writer", "writer", "other")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == [[f"{draw}" for draw in range(30)]] * 3
    assert sent == Counter(range(30))
