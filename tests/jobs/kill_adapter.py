"""A painter, writer and eye as one pays for them: an answer costs, differs each time, and is written down before it is given.

Installed by the kill tests as a distribution of its own. It also kills the process before its nth change of a file, if
`COUNTING_KILL_AT_CHANGE` says which: between two steps of a file's protocol no failpoint is needed.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from privolve.adapters.contract import (
    AdapterConfig,
    EmbedRequest,
    Image,
    ImageRequest,
    ImageVariationRequest,
    Location,
    ModelIdentity,
    TextRequest,
)

LOG = os.open(os.environ["COUNTING_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
ATTEMPT = os.environ["COUNTING_ATTEMPT"]
PAUSE_S = float(os.environ.get("COUNTING_PAUSE_S", "0"))


class Counting:
    """Answers in batches; every batch is a line of the log: attempt, digests of the requests."""

    location = Location.REMOTE
    identity = ModelIdentity(provider="counting", model="one")

    def send(self, requests: Sequence[Any], /) -> list[Any]:
        time.sleep(PAUSE_S)
        replies = [answer(request) for request in requests]
        os.write(LOG, f"{' '.join([ATTEMPT, *map(digest, requests)])}\n".encode())
        os.fsync(LOG)
        return replies


class CountingConfig(AdapterConfig):
    kind: str = "counting"
    answers: ClassVar[tuple[type, ...]] = (TextRequest, ImageRequest, ImageVariationRequest, EmbedRequest)
    location: ClassVar[Location] = Location.REMOTE

    def open(self) -> Counting:
        return Counting()


def answer(request: Any) -> Any:
    """Another one every time, but for features, which tests compute again."""
    if isinstance(request, EmbedRequest):
        assert isinstance(request.content, Image)
        return request.content.pixels.reshape(-1).astype(np.float32) / 255
    if isinstance(request, TextRequest):
        return f"a thin seven, number {os.urandom(4).hex()}"
    if isinstance(request, ImageRequest):
        shape = (request.size[1], request.size[0], request.channels)
    else:
        shape = request.image.pixels.shape
    return Image(
        np.frombuffer(os.urandom(int(np.prod(shape))), dtype=np.uint8).reshape(shape), recipe=os.urandom(4).hex()
    )


def digest(request: Any) -> str:
    whole = hashlib.sha256(type(request).__name__.encode())
    for name, value in sorted(vars(request).items()):
        content = value.recipe.encode() + value.pixels.tobytes() if isinstance(value, Image) else repr(value).encode()
        whole.update(f"{name} {len(content)} ".encode() + content)
    return whole.hexdigest()[:24]


# --- death at a change of a file --------------------------------------------------------------------------------------

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"}
_left = int(os.environ.get("COUNTING_KILL_AT_CHANGE", "0"))


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    global _left
    if event == "open":
        _, _, flags = arguments
        if not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)):
            return
    elif event not in _CHANGES:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


if _left:
    sys.addaudithook(_watch)
