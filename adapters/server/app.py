"""The server itself, with FastAPI and uvicorn: the extra `serve`.

It listens on loopback. Elsewhere it needs a token. Without one it checks that a request was addressed to loopback and
says that it is JSON, so that no web page can reach it through a browser.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
import threading
import time
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from ...cache.store import StoreError
from ..contract import (
    AdapterConfig,
    AdapterError,
    AdapterUnavailable,
    CaptionRequest,
    EmbedRequest,
    ImageRequest,
    ImageVariationRequest,
    Stopped,
    TextRequest,
    Transient,
    Usage,
)
from ..gateway import Gateway
from ..roles import GatewayError
from . import translation
from .asking import Asking, Draws
from .forms import form_body, json_body
from .translation import IMAGES_REFUSED, Unacceptable
from .usages import Usages

RUN_HEADER = "x-privolve-run"
SIGN_OF_LIFE_S = 5.0
"""For how long a stream is silent at most."""


class ServerError(ValueError):
    """The server cannot be started as told; the message is one line."""


def check_address(host: str, *, token: str | None) -> None:
    """Refuse to listen where others can reach it without a token."""
    if token is not None and len(token) < 16:
        raise ServerError("the token has fewer than 16 characters; use a longer one")
    if token is None and not _is_loopback(host):
        raise ServerError(
            f"{host!r} can be reached by others: name the environment variable that holds a token with --token-env, "
            "or listen on 127.0.0.1"
        )


def application(
    gateway: Gateway,
    configs: Mapping[str, AdapterConfig],
    *,
    token: str | None = None,
    inputs_are_public: bool = False,
    at_once: int = 64,
    usages: Usages | None = None,
) -> FastAPI:
    """The gateway's roles under /v1. Opens them all, so that what cannot be opened fails before anybody asks.

    `usages`: what the gateway told of its answers; without it, replies say that they took nothing.
    """
    billed = usages or Usages()
    roles = {role: Asking(gateway.open(role), at_once=at_once) for role in configs}
    started = int(time.time())
    draws = Draws()

    def admit(request: Request) -> None:
        _admit(request, token)

    app = FastAPI(title="privolve", openapi_url=None, docs_url=None, redoc_url=None, dependencies=[Depends(admit)])
    app.state.roles = tuple(roles.values())
    _explain_errors(app)

    async def ask(request: Request, body: Mapping[str, Any], question: Any) -> tuple[str, list[Any], Usage]:
        """Ask for the samples of one question; gives the role, them, and what they took."""
        role = _role(configs, body, type(question))
        run = request.headers.get(RUN_HEADER, "")
        count = translation.choices(body)
        wanted = draws.of(role, question, count=count, run=run, seed=translation.seed(body))
        questions = [replace(question, draw=draw) for draw in wanted]
        replies = list(await roles[role].ask(questions))
        return role, replies, billed.taken(role, questions)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Any:
        body = await json_body(request)
        question = translation.chat_request(body, images_allowed=inputs_are_public)

        async def answered() -> dict[str, Any]:
            role, replies, usage = await ask(request, body, question)
            return translation.chat_reply(role, f"chatcmpl-{uuid4().hex}", int(time.time()), replies, usage)

        if body.get("stream") is not True:
            return JSONResponse(await answered())
        reply = asyncio.create_task(answered())
        await asyncio.wait({reply}, timeout=SIGN_OF_LIFE_S)
        if reply.done():
            reply.result()  # An error in time has a status.
        events = _streamed(reply, with_usage=translation.wants_usage(body))
        return StreamingResponse(events, media_type="text/event-stream")

    @app.post("/v1/images/generations")
    async def images(request: Request) -> Any:
        body = await json_body(request)
        _, replies, usage = await ask(request, body, translation.image_request(body))
        return JSONResponse(translation.image_reply(int(time.time()), replies, usage))

    async def vary(request: Request, *, is_edit: bool) -> Any:
        if not inputs_are_public:
            raise Unacceptable(IMAGES_REFUSED, status=403, param="image", code="images_not_public")
        body, files = await form_body(request, has_token=token is not None)
        question = translation.variation_request(body, files, is_edit=is_edit)
        _, replies, usage = await ask(request, body, question)
        return JSONResponse(translation.image_reply(int(time.time()), replies, usage))

    @app.post("/v1/images/edits")
    async def edits(request: Request) -> Any:
        return await vary(request, is_edit=True)

    @app.post("/v1/images/variations")
    async def variations(request: Request) -> Any:
        return await vary(request, is_edit=False)

    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> Any:
        body = await json_body(request)
        questions = translation.embed_requests(body)
        role = _role(configs, body, EmbedRequest)
        replies = list(await roles[role].ask(questions))
        return JSONResponse(translation.embed_reply(body, role, replies, billed.taken(role, questions)))

    @app.get("/v1/models")
    async def models() -> Any:
        return JSONResponse({"object": "list", "data": [_described(role, started) for role in sorted(configs)]})

    @app.get("/v1/models/{role}")
    async def model(role: str) -> Any:
        if role not in configs:
            raise _no_role(configs, role)
        return JSONResponse(_described(role, started))

    return app


class Server:
    """An application, listening. `port` 0 takes a free one; in a `with` it runs in a thread of its own."""

    def __init__(self, app: FastAPI, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._app = app
        self._socket = _listening(host, port)
        self._host, self.port = host, self._socket.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="error",
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=30,
            )
        )
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}/v1"

    def run(self) -> None:
        """Serve until interrupted; what is already asked is waited for, because it is paid for."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            for role in self._app.state.roles:
                role.close()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.run, name="privolve-server", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(timeout=30)


def _listening(host: str, port: int) -> socket.socket:
    """A socket that already takes connections, so that whoever reads the address can use it."""
    # getaddrinfo would take a larger one modulo 2^16.
    if not 0 <= port < 2**16:
        raise ServerError(f"{host}:{port} cannot be listened on: a port is below 65536; name another --port")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        raise ServerError(f"{host}:{port} cannot be listened on: {error.strerror}; name another --port") from None
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _admit(request: Request, token: str | None) -> None:
    if token is not None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode("utf-8", "surrogateescape")):
            raise Unacceptable("the token is wrong or missing", status=401, code="invalid_api_key")
        return
    host = request.headers.get("host", "")
    name = host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    if not _is_loopback(name):
        raise Unacceptable("this server answers to its loopback address only", status=403, code="wrong_host")


def _role(configs: Mapping[str, AdapterConfig], body: Mapping[str, Any], asked: type) -> str:
    """The role that `model` names, if its adapter answers what is asked."""
    role = body.get("model")
    if not isinstance(role, str) or role not in configs:
        raise _no_role(configs, role)
    if not issubclass(asked, configs[role].answers):
        able = [name for name, config in configs.items() if issubclass(asked, config.answers)]
        raise Unacceptable(
            f"{role!r} {_CANNOT[asked]}; roles that can: {_listed(able)}", param="model", code="wrong_role"
        )
    return role


_CANNOT: Mapping[type, str] = {
    TextRequest: "writes no text",
    CaptionRequest: "sees no images",
    ImageRequest: "paints no images",
    ImageVariationRequest: "varies no images",
    EmbedRequest: "embeds nothing",
}


def _no_role(configs: Mapping[str, AdapterConfig], role: object) -> Unacceptable:
    return Unacceptable(
        f"{role!r} is no role here; `model` names one of: {_listed(configs)}",
        status=404,
        param="model",
        code="model_not_found",
    )


def _listed(roles: Collection[str]) -> str:
    return ", ".join(sorted(roles)) or "none"


def _described(role: str, started: int) -> dict[str, Any]:
    return {"id": role, "object": "model", "created": started, "owned_by": "privolve"}


async def _streamed(reply: asyncio.Task[dict[str, Any]], *, with_usage: bool) -> AsyncIterator[str]:
    """The reply as events, and comments until it is there, so that nobody in between takes silence for an end."""
    while not reply.done():
        yield ": asked, and waiting for the model\n\n"
        await asyncio.wait({reply}, timeout=SIGN_OF_LIFE_S)
    try:
        events = translation.chat_events(reply.result(), with_usage=with_usage)
    except Exception as error:  # noqa: BLE001  its status is sent already: an event says it instead
        events = [f"data: {bytes(_explained(error).body).decode()}\n\n"]
    for event in events:
        yield event


def _explain_errors(app: FastAPI) -> None:
    """Errors in OpenAI's form. The gateway has already been patient: clients are told not to try again."""

    async def handler(_request: Request, error: Exception) -> JSONResponse:
        return _explained(error)

    for kind in (Unacceptable, AdapterError, GatewayError, StoreError, HTTPException, Exception):
        app.add_exception_handler(kind, handler)


def _explained(error: Exception) -> JSONResponse:
    def answer(status: int, message: str, *, kind: str, code: str | None, param: str | None = None) -> JSONResponse:
        line = " ".join(message.split())
        headers = {"x-should-retry": "false"}
        return JSONResponse(translation.error(line, kind=kind, code=code, param=param), status, headers)

    def about(status: int, kind: str, code: str, words: str = "") -> JSONResponse:
        return answer(status, words or str(error), kind=kind, code=code)

    match error:
        case Unacceptable():
            return answer(error.status, str(error), kind="invalid_request_error", code=error.code, param=error.param)
        case Transient():
            response = about(503, "server_error", "still_failing")
            if error.wait_s is not None:
                response.headers["retry-after"] = str(max(1, round(error.wait_s)))
            return response
        case Stopped():
            return about(403, "stopped", "stopped")
        case AdapterUnavailable():
            return about(503, "server_error", "unavailable")
        case AdapterError():
            return about(502, "server_error", "no_usable_reply")
        case GatewayError():
            return about(400, "invalid_request_error", "gateway")
        case StoreError():
            return about(500, "server_error", "cache")
        case HTTPException():
            known = "chat/completions, images/generations, images/edits, images/variations, embeddings and models"
            words = f"{error.detail}; under /v1 there are {known}"
            return about(error.status_code, "invalid_request_error", "unknown_url", words)
        case _:
            # What we did not foresee may quote what was sent: only its type leaves.
            return about(500, "server_error", "internal_error", type(error).__name__)
