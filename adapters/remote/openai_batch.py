"""OpenAI's Batch API: requests as lines of a file, done within a day at half the price.

What goes over the wire: the file up, the batch, a look at it now and then, its files down. When to do which, and what it
costs, is for `wrappers/batched.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..contract import Answered, ImageVariationRequest, Refusal, Reply, Request, Transient
from ..wrappers.batched import MARK, Line, Look, Progress
from .errors import malformed

if TYPE_CHECKING:
    from .openai import OpenAI

WINDOW = "24h"
PAGE = 100
MOST_PAGES = 50
_ENDS = {
    "completed": Progress.DONE,
    "expired": Progress.DONE,
    "cancelled": Progress.DONE,
    "failed": Progress.FAILED,
}
_WAITS = frozenset({"token_limit_exceeded", "rate_limit_exceeded"})
"""A batch that fails because of these was not looked at: the queue was full."""


class OpenAIBatches:
    """One model's batches, over the same client and by the same rules as its live calls."""

    def __init__(self, adapter: OpenAI) -> None:
        self._adapter = adapter
        self._wire = adapter.wire
        self._origin = adapter.origin

    def line(self, request: Request, custom_id: str) -> Line | None:
        """The request as a line of a batch file; None for what is a form on the wire, and so cannot be one."""
        if isinstance(request, ImageVariationRequest):
            return None
        path, body = self._adapter.body(request)
        endpoint = f"/v1{path}"
        text = json.dumps({"custom_id": custom_id, "method": "POST", "url": endpoint, "body": body}, ensure_ascii=False)
        return Line(endpoint=endpoint, text=text.encode() + b"\n", paints="images" in path)

    async def upload(self, content: bytes) -> str:
        body = await self._wire.posted("/files", {"purpose": "batch"}, file=("file", ("batch.jsonl", content)))
        return self._text(body, "id")

    async def create(self, file: str, *, endpoint: str, token: str) -> Look:
        asked = {"input_file_id": file, "endpoint": endpoint, "completion_window": WINDOW, "metadata": {MARK: token}}
        return self._look(await self._wire.posted("/batches", asked))

    async def look(self, remote: str) -> Look:
        return self._look(await self._wire.got(f"/batches/{remote}"))

    async def find(self, token: str) -> Look | None:
        """The batch that carries the token, if there is one."""
        after = ""
        for _ in range(MOST_PAGES):
            page = await self._wire.got(f"/batches?limit={PAGE}{after}")
            listed = page.get("data")
            if not isinstance(listed, list):
                malformed(self._origin.where, "a list of batches that is none")
            for each in listed:
                about = each.get("metadata") if isinstance(each, dict) else None
                if isinstance(about, Mapping) and about.get(MARK) == token:
                    return self._look(each)
            if not page.get("has_more") or not listed:
                return None
            after = f"&after={self._text(listed[-1], 'id')}"
        return None

    async def lines(self, look: Look) -> list[tuple[str, Any]]:
        """(custom id, the line) of everything that the provider says of a batch, in any order, perhaps twice."""
        found: list[tuple[str, Any]] = []
        for file in look.files:
            for text in (await self._wire.fetched(f"/files/{file}/content")).splitlines():
                line = _object(text)
                if line is not None and isinstance(line.get("custom_id"), str):
                    found.append((line["custom_id"], line))
        return found

    async def read(self, request: Request, line: Any) -> Answered[Reply | Refusal]:
        """What a line answers; raises Transient for what is worth asking again, Stopped for what is not."""
        response, error = line.get("response"), line.get("error")
        if isinstance(response, dict) and isinstance(response.get("status_code"), int):
            body = response.get("body")
            return await self._adapter.read(
                request, response["status_code"], body, request_id=str(response.get("request_id") or "")
            )
        code = error.get("code") if isinstance(error, dict) else None
        # Expired or cancelled before its turn came: not done and not billed.
        raise Transient(f"{self._origin.where}: a line of a batch was not done ({code or 'no reason given'})")

    def _look(self, body: Mapping[str, Any]) -> Look:
        status = self._text(body, "status")
        progress = _ENDS.get(status, Progress.WAITS)
        files = tuple(body[name] for name in ("output_file_id", "error_file_id") if isinstance(body.get(name), str))
        why, again = "", False
        if progress is Progress.FAILED:
            errors = list(_errors(body))
            codes = {str(each.get("code") or "") for each in errors}
            again = bool(codes & _WAITS)
            said = str(errors[0].get("message") or "") if errors else "no reason given"
            why = f"{self._origin.where}: the batch was not accepted: {self._origin.shown(said)}"
        return Look(remote=self._text(body, "id"), progress=progress, files=files, why=why, again=again)

    def _text(self, body: Any, name: str) -> str:
        value = body.get(name) if isinstance(body, Mapping) else None
        if not isinstance(value, str) or not value:
            malformed(self._origin.where, f"a batch or file without {name}")
        return value


def _errors(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    told = body.get("errors")
    for each in (told.get("data") if isinstance(told, Mapping) else None) or []:
        if isinstance(each, Mapping):
            yield each


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
