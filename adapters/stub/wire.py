"""The stub's wire: HTTP/1.1 with keep-alive, over asyncio, one small state machine a connection and no task a request.

Small enough that 64 clients at once cost the stub less than they cost themselves, and low enough to misbehave in ways
that a well-kept server cannot: to go silent, drip, and break off in the middle of a body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

LARGEST_BODY = 256 * 2**20

_REASONS = {
    200: "OK", 307: "Temporary Redirect", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict", 413: "Content Too Large",
    429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable",
    504: "Gateway Timeout",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """One request as it came: header names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> str:
        return urlsplit(self.target).query


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """One response. `parts`, where given, is a streamed body: sent chunk by chunk, `pace_s` apart."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[bytes, ...] = ()
    pace_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """How a response goes out: when, and what befalls it on the way."""

    after_s: float = 0.0
    silent: bool = False
    """Nothing is ever sent; the client's own patience ends it."""
    reset: bool = False
    """The connection is reset instead of an answer."""
    twice: bool = False
    """The whole response is sent a second time, where nobody asked for one."""
    drip_s: float = 0.0
    """One small piece of the response every so often; 0: all at once."""
    pieces: int = 40
    """Into how many pieces a dripping response falls."""
    cut: bool = False
    """The connection closes in the middle of the body."""


Finished = Callable[[bool], None]
"""Told once when a response is over, and whether the whole of it was handed to the network."""
Answer = tuple[Outgoing, Delivery, Finished]
Handler = Callable[[Incoming], Answer]


class Connection(asyncio.Protocol):
    """Requests of one connection, answered one after another."""

    def __init__(self, handler: Handler, open_ones: set[Connection]) -> None:
        self._handler = handler
        self._open_ones = open_ones
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._finished: Finished | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open_ones.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open_ones.discard(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._over(whole=False)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._busy:
            self._next()

    def _next(self) -> None:
        """Take the next whole request out of what was received, if it is there."""
        try:
            incoming = _take(self._received)
        except ValueError as error:
            self._write(_head(Outgoing(status=400, content_type="text/plain"), len(str(error)), close=True))
            self._write(str(error).encode())
            self._close()
            return
        if incoming is None:
            return
        self._busy = True
        outgoing, delivery, self._finished = self._handler(incoming)
        if delivery.silent:
            return
        close = incoming.headers.get("connection", "").lower() == "close"
        self._later(delivery.after_s, lambda: self._deliver(outgoing, delivery, close=close))

    def _deliver(self, outgoing: Outgoing, delivery: Delivery, *, close: bool) -> None:
        if self._transport is None:
            return
        if delivery.reset:
            self._transport.abort()
            return
        if outgoing.parts:
            head = _head(outgoing, None, close=close)
            pieces = [_chunk(part) for part in outgoing.parts]
            kept = pieces[: len(pieces) // 2] if delivery.cut else [*pieces, _chunk(b"")]
            self._pieces([head, *kept], outgoing.pace_s or delivery.drip_s, close=close, whole=not delivery.cut)
            return
        body = outgoing.body
        head = _head(outgoing, len(body), close=close)
        if delivery.cut:
            self._write(head + body[: len(body) // 2])
            self._done(close=True, whole=False)
        elif delivery.drip_s:
            size = max(1, -(-len(body) // delivery.pieces))
            pieces = [body[start : start + size] for start in range(0, len(body), size)]
            self._pieces([head, *pieces], delivery.drip_s, close=close)
        else:
            self._write((head + body) * (2 if delivery.twice else 1))
            self._done(close=close)

    def _pieces(self, pieces: list[bytes], pace_s: float, *, close: bool, whole: bool = True) -> None:
        if self._transport is None:
            return
        now = 1 if pace_s else len(pieces)
        self._write(b"".join(pieces[:now]))
        if now >= len(pieces):
            self._done(close=close or not whole, whole=whole)
            return
        self._later(pace_s, lambda: self._pieces(pieces[1:], pace_s, close=close, whole=whole))

    def _over(self, *, whole: bool) -> None:
        finished, self._finished = self._finished, None
        if finished is not None:
            finished(whole)

    def _done(self, *, close: bool, whole: bool = True) -> None:
        self._over(whole=whole)
        if close:
            self._close()
            return
        self._busy = False
        if self._received and self._transport is not None:
            self._next()

    def _later(self, after_s: float, step: Callable[[], None]) -> None:
        if after_s > 0:
            self._timer = asyncio.get_running_loop().call_later(after_s, step)
        else:
            step()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _take(received: bytearray) -> Incoming | None:
    """The first request in `received`, removed from it; None while it is not whole. Raises ValueError on nonsense."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *lines = received[:end].decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    target, _, version = rest.partition(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError("this stub speaks HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    start = end + 4
    if "chunked" in headers.get("transfer-encoding", "").lower():
        whole = _dechunked(received, start)
        if whole is None:
            return None
        body, stop = whole
    else:
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > LARGEST_BODY:
            raise ValueError("the content-length is no size that this stub takes")
        stop = start + int(length)
        if len(received) < stop:
            return None
        body = bytes(received[start:stop])
    del received[:stop]
    return Incoming(method=method, target=target, headers=headers, body=body)


def _dechunked(received: bytearray, start: int) -> tuple[bytes, int] | None:
    """The body of a chunked request and where it ends; None while it is not whole."""
    body = bytearray()
    while True:
        line_end = received.find(b"\r\n", start)
        if line_end < 0:
            return None
        try:
            size = int(bytes(received[start:line_end]).partition(b";")[0], 16)
        except ValueError:
            raise ValueError("a chunk has no size") from None
        start = line_end + 2
        if len(received) < start + size + 2:
            return None
        body += received[start : start + size]
        start += size + 2
        if size == 0:
            return bytes(body), start


def _head(outgoing: Outgoing, length: int | None, *, close: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {outgoing.status} {_REASONS.get(outgoing.status, 'Unknown')}",
        f"content-type: {outgoing.content_type}",
        "transfer-encoding: chunked" if length is None else f"content-length: {length}",
        f"connection: {'close' if close else 'keep-alive'}",
    ]
    lines += [f"{name}: {value}" for name, value in outgoing.headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
