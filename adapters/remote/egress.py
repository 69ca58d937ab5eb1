"""Egress: the HTTP client under a provider's SDK, which sends what it must to whom it may and nothing else.

Whatever the SDK or the environment does above it, a request leaves only for the endpoint's own origin, with an
allow-list of headers and the key put on here; proxies and other settings of the environment are not read; a redirect is
an error and delivers no body; a reply is cut off at a size limit and must come uncompressed, so the limit holds.

SDKs build on httpx or on httpx2; the client is made of the module that is handed in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pydantic import SecretStr

from .endpoint import Endpoint

HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "host",
        "transfer-encoding",
        "user-agent",
        "x-dashscope-async",
    }
)
"""What a request may carry. Not: organisations and keys that SDKs read from the environment, telemetry, session ids."""
_ALLOWED = frozenset(name.encode("ascii") for name in HEADERS)


class EgressError(Exception):
    """A request or a reply that the rules of egress stop. Not of httpx's tree, so that no SDK retries or hides it."""


class Elsewhere(EgressError):
    """A request for an origin that is not allowed."""


class Redirected(EgressError):
    """The server sends us elsewhere."""

    def __init__(self, status: int) -> None:
        super().__init__(f"a redirect ({status}), which is not followed")


class TooLarge(EgressError):
    """A reply over the limit, or a compressed one, whose size nobody asked for."""


@dataclass(frozen=True, eq=False)
class _Headers:
    raw: list[tuple[bytes, bytes]]


@dataclass(frozen=True, eq=False)
class _Leaving:
    """What a transport reads of a request. Not the request itself, which errors hold on to: that one never has the key."""

    method: str
    url: Any
    headers: _Headers
    stream: Any
    extensions: Any


def guarded_client(
    http: ModuleType,
    *,
    allows: Callable[[str, str, int], bool],
    secrets: Mapping[str, str | SecretStr],
    max_bytes: int,
    connect_s: float,
    base_url: str = "",
    params: Mapping[str, str] | None = None,
) -> Any:
    """An async client of `http` (httpx or httpx2) that keeps the rules above.

    `allows` judges (scheme, host, port); `secrets` are headers added as the request leaves, the key among them. There
    is no time limit but on connecting: the caller has one deadline over all.
    """

    class Capped(http.AsyncByteStream):  # type: ignore[name-defined, misc]
        def __init__(self, stream: Any, guard: Guard, pool: Any) -> None:
            self._stream = stream
            self._guard = guard
            self._pool = pool
            self._is_open = True

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            try:
                async for part in self._stream:
                    size += len(part)
                    if size > max_bytes:
                        raise TooLarge(f"a reply of more than {max_bytes} bytes")
                    yield part
            except BaseException:
                await self._end(is_whole=False)
                raise

        async def aclose(self) -> None:
            try:
                await self._stream.aclose()
            except BaseException:
                await self._end(is_whole=False)
                raise
            await self._end(is_whole=True)

        async def _end(self, *, is_whole: bool) -> None:
            is_open, self._is_open = self._is_open, False
            if is_open and is_whole:
                self._guard.keep(self._pool)
            elif is_open:
                await self._guard.drop(self._pool)

    class Guard(http.AsyncBaseTransport):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            # A pool looks at each of its idle connections for each request, so each has one, and the last used goes first.
            self._trusted = http.create_ssl_context(trust_env=False)
            self._idle: list[Any] = []
            self._all: list[Any] = []

        async def handle_async_request(self, request: Any) -> Any:
            url = request.url
            port = url.port or (443 if url.scheme == "https" else 80)
            if not allows(url.scheme, url.host, port):
                raise Elsewhere(f"a request for {url.scheme}://{url.host}, which is not the endpoint")
            headers = [one for one in request.headers.raw if one[0].lower() in _ALLOWED]
            for name, value in secrets.items():
                secret = value.get_secret_value() if isinstance(value, SecretStr) else value
                headers.append((name.encode("ascii"), secret.encode("ascii")))
            pool = self._idle.pop() if self._idle else self._connected()
            try:
                response = await pool.handle_async_request(
                    _Leaving(request.method, url, _Headers(headers), request.stream, request.extensions)
                )
            except BaseException:
                await self.drop(pool)
                raise
            stream = Capped(response.stream, self, pool)
            problem: EgressError | None = None
            if 300 <= response.status_code < 400:
                problem = Redirected(response.status_code)
            elif response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
                problem = TooLarge("a compressed reply, which was not asked for")
            if problem is not None:
                await stream.aclose()
                raise problem
            response.stream = stream
            return response

        def keep(self, pool: Any) -> None:
            self._idle.append(pool)

        async def drop(self, pool: Any) -> None:
            """Whatever broke off: a call that is cancelled twice leaves a connection neither in use nor free."""
            self._all.remove(pool)
            with suppress(Exception):
                await asyncio.shield(pool.aclose())

        def _connected(self) -> Any:
            limits = http.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=15.0)
            pool = http.AsyncHTTPTransport(verify=self._trusted, trust_env=False, retries=0, limits=limits)
            self._all.append(pool)
            return pool

        async def aclose(self) -> None:
            for pool in tuple(self._all):
                await pool.aclose()

    guard = Guard()

    class Client(http.AsyncClient):  # type: ignore[name-defined, misc]
        async def send(self, request: Any, *, stream: bool = False, **_: Any) -> Any:
            """As it is, to the guard: no login, redirect, cookie or hook is between, nor the time that looking for them takes."""
            if self.is_closed:
                raise EgressError("a request after the client was closed")
            response = await guard.handle_async_request(request)
            response.request = request
            if not stream:
                try:
                    await response.aread()
                except BaseException:
                    await response.aclose()
                    raise
            return response

    return Client(
        transport=guard,
        trust_env=False,
        follow_redirects=False,
        base_url=base_url,
        headers={"accept-encoding": "identity"},
        params=dict(params or {}),
        timeout=http.Timeout(None, connect=connect_s),
    )


def only(endpoint: Endpoint) -> Callable[[str, str, int], bool]:
    """Allows the endpoint's origin alone."""
    return lambda scheme, host, port: (scheme, host.lower(), port) == endpoint.origin


def find(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    """The error of that kind that `error` is or was caused by."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, kind):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
