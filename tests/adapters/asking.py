"""A process to be killed: sends requests to an adapter that writes down each request it answers, in a file.

Called as `python asking.py FOLDER public|trusted batch|async`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from privolve.adapters.contract import EmbedRequest, Image, Message, ModelIdentity, TextRequest
from privolve.adapters.gateway import Gateway
from privolve.adapters.scripted import Scripted, ScriptedAsync, ScriptedConfig
from privolve.cache.sqlite import SqliteStore
from privolve.data.private_set import PrivateSet, Record
from privolve.privacy.private import Private, open_private

COUNT, CHUNK = 60, 6
REQUESTS = [TextRequest(messages=(Message(role="user", content="a"),), draw=draw) for draw in range(COUNT)]


class Numbered:
    """Record i holds the number i + 1."""

    ids = tuple(str(slot) for slot in range(COUNT))

    def __len__(self) -> int:
        return COUNT

    def read(self, slot: int) -> Record:
        return Record(np.full((1, 1, 1), slot + 1, dtype=np.uint8), 0)

    def read_many(self, start: int, stop: int) -> list[Record]:
        return [self.read(slot) for slot in range(start, stop)]

    def raw(self, slot: int) -> bytes:
        return bytes([slot])

    def parts(self) -> Iterator[bytes]:
        return (self.raw(slot) for slot in range(COUNT))


def number_of(request: Any) -> int:
    if isinstance(request, EmbedRequest):
        assert isinstance(request.content, Image)
        return int(request.content.pixels[0, 0, 0]) - 1
    return request.draw


def answer(request: Any) -> Any:
    time.sleep(0.001)
    with (FOLDER / "answered").open("a") as file:
        file.write(f"{number_of(request)}\n")
    if isinstance(request, EmbedRequest):
        return np.array([number_of(request)], dtype=np.float32)
    return f"reply {number_of(request)} {os.urandom(8).hex()}"


async def answer_later(request: Any) -> Any:
    await asyncio.sleep(0.002 * (number_of(request) % 3))
    return answer(request)


def main(side: str, face: str) -> list[Any]:
    identity = ModelIdentity(provider="scripted", model="counting")
    batch, later = Scripted(answer, identity=identity), ScriptedAsync(answer_later, identity=identity)
    store = SqliteStore(FOLDER / "cache.sqlite")
    options = {"store": store, "private_dir": FOLDER / "private", "key": b"k" * 32, "namespace": "run"}
    with Gateway(
        {"it": ScriptedConfig(adapter=batch if face == "batch" else later)},
        chunk=CHUNK,
        concurrency=CHUNK,
        trust=["it"],
        **options,
    ) as gateway:
        if side == "public":
            return list(gateway.open("it").send(REQUESTS))
        private = PrivateSet(
            name="numbers",
            partition="train",
            records=Private(Numbered()),
            count=COUNT,
            classes=("a",),
            size=(1, 1),
            channels=1,
            text_bytes=0,
            declaration="",
        )
        voters = open_private(gateway.open_trusted("it").embed(private))
        return voters.embeddings[:, 0].tolist()


if __name__ == "__main__":
    FOLDER = Path(sys.argv[1])
    print(*main(sys.argv[2], sys.argv[3]), sep="\n")
