"""The gateway beside the bare openai SDK: 64 requests at once to `privolve stub` in a process of its own; and its store.

python benchmarks/gateway.py                    rates at 50 ms and 2 s, CPU a call, cache hits, durable writes
python benchmarks/gateway.py --check            the same; fails where a figure misses its bound

Both send the same requests, in turns, from this process; CPU seconds are this process's, all its threads together. The
gateway's part holds all that a job gets: cache keys, the reservation, "sent" and the reply durable in SQLite, egress rules.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from privolve.adapters.contract import Message, TextRequest
from privolve.adapters.gateway import Gateway
from privolve.adapters.models import Price
from privolve.adapters.remote.openai import OpenAIConfig
from privolve.adapters.wrappers.metered import Spending
from privolve.cache.keys import Addressing
from privolve.cache.sqlite import SqliteStore
from privolve.cache.store import Saved

AT_ONCE = 64
MODEL = "gpt-4o-mini"
PROMPT = "Write a caption of a photo of a bedroom, in one sentence, with the bed, the light and the furniture. "
KEY_NAME = "PRIVOLVE_BENCHMARK_KEY"
_draws = count()


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What one side did in one turn."""

    per_s: float
    cpu_ms: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=3000, help="at 50 ms, of each side and turn")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side is timed, in turns")
    parser.add_argument("--only", choices=("fast", "slow", "store"), help="one part")
    parser.add_argument("--check", action="store_true", help="fail where a figure misses its bound")
    asked = parser.parse_args()
    os.environ[KEY_NAME] = "held-by-nobody"
    bounds: list[tuple[str, float, float, bool]] = []
    with tempfile.TemporaryDirectory() as folder:
        if asked.only in (None, "fast"):
            bounds += fast(Path(folder), asked.requests, asked.rounds)
        if asked.only in (None, "slow"):
            bounds += slow(Path(folder))
        if asked.only in (None, "store"):
            bounds += store(Path(folder))
    for what, value, bound, is_least in bounds:
        held = value >= bound if is_least else value <= bound
        print(
            f"{'holds ' if held else 'MISSES'}  {what}: {value:,.2f}, {'at least' if is_least else 'at most'} {bound:,g}"
        )
    missed = [what for what, value, bound, is_least in bounds if (value < bound) == is_least and value != bound]
    return 1 if asked.check and missed else 0


def fast(folder: Path, requests: int, rounds: int) -> list[tuple[str, float, float, bool]]:
    """50 ms: what the SDK can do on this machine is the measure, not 64 / 0.05."""
    print(f"50 ms, {AT_ONCE} at once, {requests:,} requests a turn (ideal: {AT_ONCE / 0.05:,.0f}/s)")
    shares: list[float] = []
    more: list[float] = []
    with stub(folder, latency_s=0.05) as url:
        sides: dict[str, Callable[[int], Rate]] = {
            "bare": partial(bare, url),
            "gateway": partial(through_gateway, url, folder),
        }
        for side in sides.values():
            side(AT_ONCE * 4)  # Imports and connections.
        for turn in range(rounds):
            order = list(sides) if turn % 2 == 0 else list(reversed(sides))
            measured = {side: sides[side](requests) for side in order}
            theirs, ours = measured["bare"], measured["gateway"]
            shares.append(ours.per_s / theirs.per_s)
            more.append(ours.cpu_ms - theirs.cpu_ms)
            print(
                f"  openai SDK {theirs.per_s:7,.0f}/s {theirs.cpu_ms:5.2f} ms CPU   gateway {ours.per_s:7,.0f}/s "
                f"{ours.cpu_ms:5.2f} ms CPU   {shares[-1]:.0%}"
            )
    return [
        ("50 ms: share of the bare SDK's rate", statistics.median(shares), 0.9, True),
        ("50 ms: CPU beyond the bare SDK, ms a call", statistics.median(more), 1.0, False),
    ]


def slow(folder: Path) -> list[tuple[str, float, float, bool]]:
    requests = AT_ONCE * 10
    with stub(folder, latency_s=2.0) as url:
        through_gateway(url, folder, 1)
        ours = through_gateway(url, folder, requests)
    print(f"2 s, {AT_ONCE} at once, {requests} requests: {ours.per_s:.1f}/s, {ours.cpu_ms:.2f} ms CPU")
    return [("2 s: share of the ideal rate", ours.per_s / (AT_ONCE / 2.0), 0.9, True)]


def store(folder: Path, *, answers: int = 20_000) -> list[tuple[str, float, float, bool]]:
    kept = SqliteStore(folder / "store" / "answers.db")
    addressing = Addressing({"provider": "p", "model": "m"}, namespace="run")
    addresses = [addressing.of(request(draw)) for draw in range(answers)]
    saved = Saved(kind="text", payload=b"A quiet bedroom with an iron bed, " * 8)

    start = time.perf_counter()
    waiting: list[Any] = []
    for address in addresses:
        waiting.append(kept.submit(lambda _: None, [(address, saved)]))
        if len(waiting) >= AT_ONCE:
            waiting.pop(0).result()
    for each in waiting:
        each.result()
    writes = answers / (time.perf_counter() - start)
    print(f"durable writes, one answer each, {AT_ONCE} waiting: {writes:,.0f}/s")

    best = 0.0
    with gateway("https://api.openai.com/v1", folder / "hits") as (opened, store_):
        role = opened.open("writer")
        asked = [request(draw) for draw in range(answers)]
        addressing = role._addressing  # type: ignore[attr-defined]
        for first in range(0, answers, 500):
            store_.put([(addressing.of(each), saved) for each in asked[first : first + 500]])
        for _ in range(5):
            start = time.process_time()
            for first in range(0, answers, 500):
                role.send(asked[first : first + 500])
            best = max(best, answers / (time.process_time() - start))
    print(f"cache hits through the gateway, in batches of 500: {best:,.0f}/s")
    return [("durable writes a second", writes, 2000, True), ("cache hits a CPU second", best, 20_000, True)]


def bare(url: str, requests: int) -> Rate:
    """The SDK alone, as its manual shows it, with our adapter's settings."""
    import httpx2
    import openai

    async def work() -> None:
        http = httpx2.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=15.0),
            timeout=httpx2.Timeout(None, connect=10.0),
        )
        client = openai.AsyncOpenAI(api_key="any", base_url=url, max_retries=0, http_client=http)
        left = iter(range(requests))

        async def worker() -> None:
            for _ in left:
                reply = await client.chat.completions.create(
                    model=MODEL,
                    messages=[{"role": "user", "content": f"{PROMPT}{next(_draws)}"}],
                    max_tokens=100,
                    temperature=1.0,
                    store=False,
                )
                assert reply.choices[0].message.content

        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
        await client.close()

    return timed(lambda: asyncio.run(work()), requests)


def through_gateway(url: str, folder: Path, requests: int) -> Rate:
    with gateway(url, folder / f"gateway-{next(_draws)}") as (opened, _):
        role = opened.open("writer")
        asked = [request(next(_draws)) for _ in range(requests)]

        def work() -> None:
            assert all(isinstance(reply, str) and reply for reply in role.send(asked))

        return timed(work, requests)


def request(draw: int) -> TextRequest:
    message = Message(role="user", content=f"{PROMPT}{draw}")
    return TextRequest(messages=(message,), draw=draw, temperature=1.0, max_tokens=100)


def timed(work: Callable[[], None], requests: int) -> Rate:
    start, cpu = time.perf_counter(), time.process_time()
    work()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    return Rate(per_s=requests / seconds, cpu_ms=1000 * cpu_seconds / requests)


@contextmanager
def gateway(url: str, folder: Path) -> Iterator[tuple[Gateway, SqliteStore]]:
    kept = SqliteStore(folder / "answers.db")
    price = Price(input=Decimal("0.15"), output=Decimal("0.6"))
    config = OpenAIConfig(model=MODEL, base_url=url, provider="openai", api_key_env=KEY_NAME, price=price)
    with Gateway(
        {"writer": config},
        store=kept,
        private_dir=folder / "private",
        key=b"k" * 32,
        namespace="run",
        concurrency=AT_ONCE,
        limits={"writer": _unlimited()},
        spending=Spending(max_cost=10**12),
    ) as opened:
        yield opened, kept
    kept.close()


def _unlimited() -> Any:
    from privolve.adapters.wrappers.limited import Limits

    return Limits()


@contextmanager
def stub(folder: Path, *, latency_s: float) -> Iterator[str]:
    """A stub in a process of its own; its address."""
    script = folder / f"script-{latency_s:g}.toml"
    script.write_text(f"latency_s = {latency_s}\n", encoding="utf-8")
    command: Sequence[str] = [sys.executable, "-m", "privolve.cli", "stub", "--script", str(script)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
