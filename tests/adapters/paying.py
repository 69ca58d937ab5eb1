"""A process to be killed: asks a remote model that costs money and fails now and then; writes down what it was sent.

Called as `python paying.py FOLDER COUNT CONCURRENCY CAP FAULTS SEED`.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

from privolve.adapters.contract import (
    Answered,
    Cause,
    Location,
    Message,
    ModelIdentity,
    Refusal,
    TextRequest,
    Transient,
    Usage,
)
from privolve.adapters.gateway import Gateway
from privolve.adapters.models import Facts, Price
from privolve.adapters.scripted import ScriptedConfig
from privolve.adapters.wrappers.metered import Spending
from privolve.adapters.wrappers.retrying import Patience
from privolve.cache.sqlite import SqliteStore

WORST = Usage(input_tokens=10, output_tokens=20)
FACTS = Facts(provider="paying", model="m", price=Price(input=Decimal(1), output=Decimal(2)))
"""Ten and forty millionths of a dollar: fifty at worst."""


class PayingConfig(ScriptedConfig):
    location: ClassVar[Location] = Location.REMOTE

    @property
    def facts(self) -> Facts:
        return FACTS


class Paying:
    location = Location.REMOTE
    identity = ModelIdentity(provider="paying", model="m")

    def __init__(self, folder: Path, faults: float, seed: int) -> None:
        self._log = os.open(folder / "sent", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._faults = faults
        self._random = random.Random(seed)

    def estimate(self, request: Any, /) -> Usage:
        return WORST

    async def answer(self, request: Any, /) -> Any:
        return (await self.answer_metered(request)).reply

    async def answer_metered(self, request: Any, /) -> Answered[Any]:
        output = self._random.randrange(21)
        os.write(self._log, b"s %d 0\n" % request.draw)
        await asyncio.sleep(self._random.random() * 0.004)
        if self._random.random() < self._faults:
            raise self._failure(request.draw)
        os.write(self._log, b"a %d %d\n" % (request.draw, 10 + 2 * output))
        usage = Usage(input_tokens=10, output_tokens=output, raw={"completion_tokens": output}, request_id="r")
        if request.draw % 100 == 99:
            return Answered(Refusal("unsafe"), usage)
        return Answered(f"reply {request.draw} {os.urandom(4).hex()}", usage)

    def _failure(self, draw: int) -> Transient:
        kind = self._random.randrange(5)
        if kind == 0:
            return Transient("429", cause=Cause.RATE, wait_s=0.0)
        if kind == 1:
            return Transient("500", cause=Cause.MALFORMED)
        if kind == 2:
            return Transient("unreachable", cause=Cause.CONNECTION)
        # The provider did the work, and nobody here hears of it.
        os.write(self._log, b"l %d 50\n" % draw)
        if kind == 3:
            return Transient("dropped", cause=Cause.TIMEOUT, possibly_billed=True)
        return Transient("garbled", cause=Cause.MALFORMED, possibly_billed=True, usage=WORST)

    async def close(self) -> None:
        pass


def main(folder: Path, count: int, concurrency: int, cap: int, faults: float, seed: int) -> None:
    store = SqliteStore(folder / "cache.db")
    config = PayingConfig(adapter=Paying(folder, faults, seed))
    with Gateway(
        {"writer": config},
        store=store,
        private_dir=folder / "private",
        key=b"k" * 32,
        namespace="run",
        concurrency=concurrency,
        spending=Spending(max_cost=cap),
        patience=Patience(first_wait_s=0.002, longest_wait_s=0.02),
    ) as gateway:
        requests = [TextRequest(messages=(Message(role="user", content="a"),), draw=draw) for draw in range(count)]
        print(*gateway.open("writer").send(requests), sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6]))
