"""Cached: asks only what the store does not hold, and keeps each group of answers before the next is asked.

A refusal is an answer and is kept too. Equal requests of one batch (their `draw` included) are asked once.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import PIL.Image

from ...cache.keys import Address, Addressing
from ...cache.store import REFUSAL, Saved, Store, StoreDamaged
from ...privacy.failpoint import failpoint
from ..contract import Image, Location, ModelIdentity, Refusal
from .single_flight import Asked
from .streaming import Heard, Stream

_RAW_BYTES = 64 * 1024
"""Images up to this size are kept as raw pixels, larger ones as PNG: exact either way."""


class Cached:
    """One role's adapter behind a store. `kept_below`: the stream takes requests as `Asked` and keeps its answers itself."""

    def __init__(
        self,
        stream: Stream,
        *,
        store: Store,
        addressing: Addressing,
        identity: ModelIdentity,
        location: Location,
        heard: Heard,
        kept_below: bool = False,
    ) -> None:
        self._stream = stream
        self._store = store
        self._addressing = addressing
        self._identity = identity
        self._location = location
        self._heard = heard
        self._kept_below = kept_below

    @property
    def location(self) -> Location:
        return self._location

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    def send(self, requests: Sequence[Any], /) -> list[Any]:
        addresses = [self._addressing.of(request) for request in requests]
        first: dict[tuple[str, str, int], int] = {}
        for index, address in enumerate(addresses):
            first.setdefault(address.place, index)
        asked = list(first.values())

        # What is there, in one read.
        replies: dict[tuple[str, str, int], Any] = {}
        missing: list[int] = []
        for index, saved in zip(asked, self._store.get([addresses[index] for index in asked]), strict=True):
            if saved is None:
                missing.append(index)
            else:
                replies[addresses[index].place] = decode(saved)
        total = len(requests)
        done = total - len(missing)
        if done:
            there = [replies[address.place] for address in addresses if address.place in replies]
            self._heard(there, fresh=False, done=done, total=total)

        # What is not, each group durable before the next.
        wanted = [
            Asked(requests[index], addresses[index]) if self._kept_below else requests[index] for index in missing
        ]
        for group in self._stream.stream(wanted):
            answers = [(addresses[missing[position]], reply) for position, reply in group]
            kept = {address.place: reply for address, reply in answers} if self._kept_below else self._keep(answers)
            replies.update(kept)
            done += len(kept)
            self._heard(list(kept.values()), fresh=True, done=done, total=total)
        return [replies[address.place] for address in addresses]

    def _keep(self, answers: Sequence[tuple[Address, Any]]) -> dict[tuple[str, str, int], Any]:
        """What now lies at each address: where another process was first, its reply."""
        encoded = [(address, encode(reply)) for address, reply in answers]
        failpoint("cache-before-put")
        kept = self._store.put(encoded)
        failpoint("cache-after-put")
        return {
            address.place: reply if now is ours else decode(now)
            for (address, reply), (_, ours), now in zip(answers, encoded, kept, strict=True)
        }


def encode(reply: Any) -> Saved:
    """A reply as bytes, exactly."""
    if isinstance(reply, str):
        return Saved(kind="text", payload=reply.encode("utf-8", "surrogatepass"))
    if isinstance(reply, Refusal):
        return Saved(kind=REFUSAL, payload=reply.reason.encode("utf-8", "surrogatepass"))
    if isinstance(reply, np.ndarray):
        return Saved(kind="vector", payload=cast("np.ndarray[Any, Any]", reply).astype("<f4").tobytes())
    if isinstance(reply, Image):
        about = json.dumps({"shape": list(reply.pixels.shape), "recipe": reply.recipe})
        if reply.pixels.nbytes <= _RAW_BYTES:
            return Saved(kind="pixels", payload=reply.pixels.tobytes(), about=about)
        return Saved(kind="png", payload=_png(reply.pixels), about=about)
    raise TypeError(f"a reply of type {type(reply).__name__} cannot be kept")


def decode(saved: Saved) -> Any:
    """The reply that was encoded."""
    if saved.kind == "text":
        return saved.payload.decode("utf-8", "surrogatepass")
    if saved.kind == REFUSAL:
        return Refusal(saved.payload.decode("utf-8", "surrogatepass"))
    if saved.kind == "vector":
        return np.frombuffer(saved.payload, dtype="<f4").astype(np.float32, copy=False)
    if saved.kind in ("pixels", "png"):
        about = json.loads(saved.about)
        flat = np.frombuffer(saved.payload, np.uint8) if saved.kind == "pixels" else _pixels(saved.payload)
        return Image(flat.reshape(about["shape"]), recipe=about["recipe"])
    raise StoreDamaged(
        f"the cache holds a reply of an unknown kind {saved.kind!r}; update privolve or name another cache"
    )


def _png(pixels: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    flat = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    PIL.Image.fromarray(np.ascontiguousarray(flat)).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _pixels(png: bytes) -> np.ndarray[Any, Any]:
    with PIL.Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        return np.array(image)
