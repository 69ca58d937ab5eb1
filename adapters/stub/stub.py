"""The stub itself: it listens, keeps what it was sent, and answers as its script says."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from . import answers, dashscope, openai
from .asked import Asked, Dialect, dialect_of, fields_of
from .refusals import of_status, refusal
from .script import Fate, Fault, Rule, Script
from .spoiling import dumped, spoiled, spoiled_bytes
from .wire import Answer, Connection, Delivery, Incoming, Outgoing

HOST = "127.0.0.1"
COUNTS = "/stub/counts"


class StubError(ValueError):
    """The stub cannot listen where it was told to; the message is one line."""


@dataclass(kw_only=True)
class Recorded:
    """One request as it reached the stub. `headers` have names in lower case; `at_s` is of a monotonic clock."""

    number: int
    at_s: float
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    model: str
    fault: Fault | None
    status: int
    """What was to be answered; 0 where the fault was to send no answer at all."""
    answered: bool = False
    """Whether the whole response was handed to the network."""

    def json(self) -> Any:
        return json.loads(self.body)


class Stub:
    """A scripted provider of both protocols on loopback, in a thread of its own.

        with Stub({"rules": [{"nth": 1, "fault": "rate-limited"}]}) as stub:
            client = OpenAI(base_url=stub.openai_url, api_key="any")

    `requests` holds everything that was sent to it, unless `keep` is False; the counts are kept in any case.
    """

    def __init__(
        self, script: Script | Mapping[str, Any] | Path | str | None = None, *, port: int = 0, keep: bool = True
    ) -> None:
        self.requests: list[Recorded] = []
        self.counts: Counter[str] = Counter()
        """`requests`, `answered`, `connections`, `most-at-once`, and each status and fault by name."""
        self._keep = keep
        self._fate = Fate(Script.of(script))
        self._port = port
        self._samples: Counter[bytes] = Counter()
        self._at_once = 0
        self._batches = openai.Batches(self._batch_line)
        self._tasks = dashscope.Tasks()
        self._connections: set[Connection] = set()
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] = lambda: None

    def __enter__(self) -> Self:
        started = threading.Event()
        failed: list[StubError] = []

        def run() -> None:
            try:
                asyncio.run(self._serve(started.set))
            except StubError as error:
                failed.append(error)
                started.set()

        self._thread = threading.Thread(target=run, name="privolve-stub", daemon=True)
        self._thread.start()
        started.wait()
        if failed:
            raise failed[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def serve(self, listening: Callable[[], None] = lambda: None) -> None:
        """Serve in this thread until it is interrupted; `listening` is called once the port is open."""
        asyncio.run(self._serve(listening))

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}"

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def dashscope_url(self) -> str:
        return f"{self.url}/api/v1"

    @property
    def compatible_url(self) -> str:
        return f"{self.url}/compatible-mode/v1"

    def follow(self, script: Script | Mapping[str, Any] | Path | str | None) -> None:
        """Go on by another script, counting from the start."""
        self._fate = Fate(Script.of(script))

    def clear(self) -> None:
        """Forget what was recorded and counted."""
        self.requests.clear()
        self.counts.clear()

    async def _serve(self, listening: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(stopped.set)
        try:
            server = await loop.create_server(self._connection, HOST, self._port, backlog=1024)
        except (OSError, OverflowError) as error:
            raise StubError(f"port {self._port} of {HOST} cannot be listened on: {error}; name another") from None
        self._port = server.sockets[0].getsockname()[1]
        listening()
        try:
            await stopped.wait()
        finally:
            self._stop = lambda: None
            server.close()
            for connection in list(self._connections):
                connection.abort()
            # The aborted connections' last callbacks.
            await asyncio.sleep(0)

    def _connection(self) -> Connection:
        self.counts["connections"] += 1
        return Connection(self._handle, self._connections)

    def _handle(self, incoming: Incoming) -> Answer:
        path = incoming.path
        if path == COUNTS:
            return Outgoing(body=dumped(dict(self.counts))), Delivery(), _nothing
        dialect = dialect_of(path)
        fields, uploads, essence = fields_of(incoming)
        model = _model(path, fields)
        essence = f"{incoming.method} {path} ".encode() + essence
        rule, latency_s = self._fate.of(path=path, model=model, body=incoming.body, essence=essence)
        asked = Asked(
            dialect=dialect,
            method=incoming.method,
            path=path,
            query=incoming.query,
            headers=incoming.headers,
            model=model,
            fields=fields,
            uploads=uploads,
            essence=essence,
            sample=self._samples[essence],
            script=self._fate.script,
            root=self.url,
        )
        self._at_once += 1
        self.counts["requests"] += 1
        self.counts["most-at-once"] = max(self.counts["most-at-once"], self._at_once)
        fault = _fault(rule, dialect)
        most = self._fate.script.at_once
        if most is not None and self._at_once > most:
            rule, fault = None, Fault.RATE_LIMITED
        outgoing = self._answer(asked, rule, fault, target=incoming.target)
        delivery = _delivery(rule, fault, latency_s)
        never = delivery.silent or delivery.reset
        if outgoing.status == 200 and not never:
            self._samples[essence] += 1
        record = Recorded(
            number=self.counts["requests"],
            at_s=time.monotonic(),
            method=incoming.method,
            path=path,
            query=incoming.query,
            headers=incoming.headers,
            body=incoming.body,
            model=model,
            fault=fault,
            status=0 if never else outgoing.status,
        )
        self.counts[f"status-{record.status}"] += 1
        if fault is not None:
            self.counts[f"fault-{fault}"] += 1
        if self._keep:
            self.requests.append(record)

        def finished(whole: bool) -> None:
            self._at_once -= 1
            if whole:
                record.answered = True
                self.counts["answered"] += 1

        headers = {"x-request-id": f"req_{record.number}", **self._fate.script.headers, **outgoing.headers}
        return replace(outgoing, headers=headers), delivery, finished

    def _answer(self, asked: Asked, rule: Rule | None, fault: Fault | None, *, target: str) -> Outgoing:
        if fault is not None:
            refused = refusal(fault, asked.dialect, rule, target=target)
            if refused is not None:
                return refused
        refused = self._not_admitted(asked)
        if refused is not None:
            return refused
        asked = replace(asked, same=fault is Fault.SAME_ANSWER)
        answer = self._routed(asked, fault)
        if isinstance(answer, Outgoing):
            broken = fault in (Fault.BAD_IMAGE, Fault.TRUNCATED_JSON, Fault.NO_CONTENT, Fault.EMPTY)
            kept = spoiled_bytes(answer.body, Fault.EMPTY if fault is Fault.NO_CONTENT else Fault.TRUNCATED_JSON)
            return replace(answer, body=kept) if broken and answer.status == 200 else answer
        answer = spoiled(answer, fault, asked.dialect)
        if fault not in (Fault.WRONG_JSON, Fault.ERROR_IN_BODY, Fault.TRUNCATED_JSON, Fault.EMPTY):
            if asked.fields.get("stream") is True and asked.path.endswith("/chat/completions"):
                return openai.streamed(asked, answer)
            if asked.headers.get("x-dashscope-sse") == "enable":
                return dashscope.streamed(asked, answer)
        return Outgoing(body=spoiled_bytes(dumped(answer), fault))

    def _not_admitted(self, asked: Asked) -> Outgoing | None:
        if asked.path.startswith("/results/"):
            return None
        script = asked.script
        key = asked.headers.get("api-key") or asked.headers.get("authorization", "").removeprefix("Bearer ")
        if not key or (script.keys and key not in script.keys):
            return refusal(Fault.BAD_KEY, asked.dialect)
        if "$not-json" in asked.fields:
            return refusal(Fault.BAD_REQUEST, asked.dialect, message="The body is not valid JSON.")
        if script.models and asked.model and asked.model not in {each.id for each in script.models}:
            return refusal(Fault.MODEL_GONE, asked.dialect)
        return None

    def _routed(self, asked: Asked, fault: Fault | None) -> dict[str, Any] | Outgoing:
        path = asked.path
        if path.startswith("/results/"):
            return _result(path)
        if asked.dialect is Dialect.DASHSCOPE:
            return self._dashscope(asked, fault)
        if "/files" in path:
            return self._batches.files(asked)
        if "/batches" in path:
            return self._batches.batches(asked)
        if "/models" in path:
            return openai.models(asked)
        for end, endpoint in _OPENAI.items():
            if path.endswith(end):
                return endpoint(asked) if asked.method == "POST" else openai.bad(asked, "Only POST is allowed here.")
        return replace(openai.bad(asked, f"Unknown request URL: {asked.method} {path}."), status=404)

    def _dashscope(self, asked: Asked, fault: Fault | None) -> dict[str, Any] | Outgoing:
        path = asked.path
        if "/tasks/" in path:
            return self._tasks.look(asked)
        if path.endswith(("/image-synthesis", "/image-generation/generation")):
            if asked.headers.get("x-dashscope-async") != "enable":
                return openai.bad(asked, "This service takes asynchronous calls only.")
            return self._tasks.begin(asked, fault)
        for end, endpoint in _DASHSCOPE.items():
            if path.endswith(end):
                return endpoint(asked)
        return replace(openai.bad(asked, f"No such service: {path}."), status=404)

    def _batch_line(self, asked: Asked, path: str, fields: dict[str, Any]) -> tuple[int, Any]:
        """A line of a batch meets the same script as a request of its own."""
        body = dumped(fields)
        essence = f"POST {path} ".encode() + body
        model = _model(path, fields)
        rule, _ = self._fate.of(path=path, model=model, body=body, essence=essence)
        fault = _fault(rule, asked.dialect)
        line = replace(
            asked,
            method="POST",
            path=path,
            model=model,
            fields={**fields, "stream": False},
            uploads=(),
            essence=essence,
            sample=self._samples[essence],
        )
        self._samples[essence] += 1
        outgoing = self._answer(line, rule, fault, target=path)
        try:
            return outgoing.status, json.loads(outgoing.body)
        except ValueError:
            return 500, None


_OPENAI: Mapping[str, Callable[[Asked], dict[str, Any] | Outgoing]] = {
    "/chat/completions": openai.chat,
    "/images/generations": openai.image,
    "/images/edits": openai.image,
    "/images/variations": openai.image,
    "/embeddings": openai.embeddings,
}
_DASHSCOPE: Mapping[str, Callable[[Asked], dict[str, Any] | Outgoing]] = {
    "/text-generation/generation": dashscope.text,
    "/multimodal-generation/generation": dashscope.multimodal,
    "/text-embedding/text-embedding": dashscope.embeddings,
    "/multimodal-embedding/multimodal-embedding": dashscope.embeddings,
}


def _nothing(_whole: bool) -> None:
    """A look at the counts counts for nothing."""


def _model(path: str, fields: Mapping[str, Any]) -> str:
    """The model that the body names, or, at Azure, the deployment in the path."""
    if fields.get("model"):
        return str(fields["model"])
    found = re.search(r"/deployments/([^/]+)/", path)
    return found[1] if found else ""


def _fault(rule: Rule | None, dialect: Dialect) -> Fault | None:
    if rule is None:
        return None
    return of_status(rule.status, dialect) if rule.fault is None and rule.status is not None else rule.fault


def _delivery(rule: Rule | None, fault: Fault | None, latency_s: float) -> Delivery:
    return Delivery(
        after_s=latency_s,
        silent=fault is Fault.SILENCE,
        reset=fault is Fault.RESET,
        twice=fault is Fault.DUPLICATE,
        drip_s=rule.pace_s if rule is not None and fault is Fault.DRIP else 0.0,
        pieces=rule.pieces if rule is not None else 40,
        cut=fault is Fault.DROP,
    )


def _result(path: str) -> Outgoing:
    found = re.fullmatch(r"/results/([0-9a-f]{1,64})-(\d+x\d+)\.png", path)
    size = answers.size_of(found[2]) if found else None
    if found is None or size is None:
        return Outgoing(status=404, body=b"no such result", content_type="text/plain")
    return Outgoing(body=answers.png(bytes.fromhex(found[1]), *size), content_type="image/png")
