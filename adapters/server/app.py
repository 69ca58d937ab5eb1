"""The server itself, with FastAPI and uvicorn: the extra `serve`.

It listens on loopback. Elsewhere it needs a token. Without one it checks that a request was addressed to loopback and
says that it is JSON, so that no web page can reach it through a browser.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
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
    Stopped,
    TextRequest,
    Transient,
)
from ..gateway import Gateway, GatewayError
from . import translation
from .asking import Asking, Draws
from .translation import Unacceptable

LARGEST_BODY = 64 * 2**20
RUN_HEADER = "x-privolve-run"


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
) -> FastAPI:
    """The gateway's roles under /v1. Opens them all, so that what cannot be opened fails before anybody asks."""
    roles = {role: Asking(gateway.open(role), at_once=at_once) for role in configs}
    started = int(time.time())
    draws = Draws()

    def admit(request: Request) -> None:
        _admit(request, token)

    app = FastAPI(title="privolve", openapi_url=None, docs_url=None, redoc_url=None, dependencies=[Depends(admit)])
    app.state.roles = tuple(roles.values())
    _explain_errors(app)

    async def ask(request: Request, body: Mapping[str, Any], question: Any) -> tuple[str, list[Any]]:
        """Ask for the samples of one question; gives the role and them."""
        role = _role(configs, body, type(question))
        run = request.headers.get(RUN_HEADER, "")
        count = translation.choices(body)
        wanted = draws.of(role, question, count=count, run=run, seed=translation.seed(body))
        return role, list(await roles[role].ask([replace(question, draw=draw) for draw in wanted]))

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Any:
        body = await _body(request)
        question = translation.chat_request(body, images_allowed=inputs_are_public)
        role, replies = await ask(request, body, question)
        reply = translation.chat_reply(role, f"chatcmpl-{uuid4().hex}", int(time.time()), replies)
        if body.get("stream") is True:
            return StreamingResponse(iter(translation.chat_events(reply)), media_type="text/event-stream")
        return JSONResponse(reply)

    @app.post("/v1/images/generations")
    async def images(request: Request) -> Any:
        body = await _body(request)
        _, replies = await ask(request, body, translation.image_request(body))
        return JSONResponse(translation.image_reply(int(time.time()), replies))

    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> Any:
        body = await _body(request)
        questions = translation.embed_requests(body)
        role = _role(configs, body, EmbedRequest)
        return JSONResponse(translation.embed_reply(body, role, list(await roles[role].ask(questions))))

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


async def _body(request: Request) -> dict[str, Any]:
    """The JSON of a request: of a bounded size, and declared as JSON, which no form of a web page can do."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Unacceptable("the body is JSON, and the content-type says so", status=415, code="unsupported_media_type")
    received = bytearray()
    async for piece in request.stream():
        received += piece
        if len(received) > LARGEST_BODY:
            raise Unacceptable("the body is larger than 64 MiB", status=413, code="too_large")
    try:
        body = json.loads(received)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Unacceptable("the body is not a JSON object", code="invalid_json")
    return body


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


def _explain_errors(app: FastAPI) -> None:
    """Errors in OpenAI's form. The gateway has already been patient: clients are told not to try again."""

    def answer(status: int, message: str, *, kind: str, code: str | None, param: str | None = None) -> JSONResponse:
        line = " ".join(message.split())
        headers = {"x-should-retry": "false"}
        return JSONResponse(translation.error(line, kind=kind, code=code, param=param), status, headers)

    def handle(kind: type[Exception], make: Callable[[Any], JSONResponse]) -> None:
        async def handler(_request: Request, error: Exception) -> JSONResponse:
            return make(error)

        app.add_exception_handler(kind, handler)

    def unacceptable(error: Unacceptable) -> JSONResponse:
        return answer(error.status, str(error), kind="invalid_request_error", code=error.code, param=error.param)

    def transient(error: Transient) -> JSONResponse:
        response = answer(503, str(error), kind="server_error", code="still_failing")
        if error.wait_s is not None:
            response.headers["retry-after"] = str(max(1, round(error.wait_s)))
        return response

    handle(Unacceptable, unacceptable)
    handle(Transient, transient)
    handle(Stopped, lambda error: answer(403, str(error), kind="stopped", code="stopped"))
    handle(AdapterUnavailable, lambda error: answer(503, str(error), kind="server_error", code="unavailable"))
    handle(AdapterError, lambda error: answer(502, str(error), kind="server_error", code="no_usable_reply"))
    handle(GatewayError, lambda error: answer(400, str(error), kind="invalid_request_error", code="gateway"))
    handle(StoreError, lambda error: answer(500, str(error), kind="server_error", code="cache"))
    handle(
        HTTPException,
        lambda error: answer(
            error.status_code,
            f"{error.detail}; under /v1 there are chat/completions, images/generations, embeddings and models",
            kind="invalid_request_error",
            code="unknown_url",
        ),
    )
    # What we did not foresee may quote what was sent: only its type leaves.
    handle(Exception, lambda error: answer(500, type(error).__name__, kind="server_error", code="internal_error"))
