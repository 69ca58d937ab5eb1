"""What a server of OpenAI's protocol answered: replies, usage and failures, read by our own strict rules.

The SDK hands back objects full of None, or a page of HTML, as success, so it reads nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..contract import (
    CaptionRequest,
    EmbedRequest,
    Image,
    ImageRequest,
    ImageVariationRequest,
    Refusal,
    Reply,
    Request,
    TextRequest,
    Usage,
)
from .errors import Failure, Meaning, Origin, malformed, meaning, settle
from .estimate import asked_size
from .pictures import NoPicture, fitted, from_base64
from .provider import counted, sayable


class Replies:
    """The answers of one model. `bound` is the most that the request can have consumed."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin

    def body(self, response: Any, bound: Usage) -> Mapping[str, Any]:
        """The `checked` JSON of a response that claims success."""
        where = self._origin.where
        body = parsed(response.content)
        if body is None:
            kind = response.headers.get("content-type", "no type").partition(";")[0]
            malformed(where, f"a reply that is not JSON ({kind})", usage=bound)
        return self.checked(body, response.headers, bound)

    def checked(self, body: Any, headers: Mapping[str, str], bound: Usage) -> Mapping[str, Any]:
        """The body, if it is an object that tells no failure; a refusal becomes {"refused": why}."""
        where = self._origin.where
        if not isinstance(body, dict):
            malformed(where, "a reply that is no JSON object", usage=bound)
        told = body.get("error")
        if isinstance(told, dict) and told:
            failure = as_failure(told, 200, headers)
            if meaning(self._origin.provider, failure) is Meaning.INVALID:
                malformed(
                    where, f"an error in a reply that claims success ({failure.code or failure.type})", usage=bound
                )
            settled = settle(self._origin, failure)
            return {"refused": settled.reason}
        return body

    def usage(self, body: Mapping[str, Any], headers: Mapping[str, str], bound: Usage) -> Usage:
        """What the server says that it took; our bound where it says nothing."""
        raw = body.get("usage")
        model = body.get("model")
        said = replace(
            bound,
            raw=raw if isinstance(raw, dict) else {},
            resolved_model=model if isinstance(model, str) else "",
            request_id=headers.get("x-request-id", ""),
        )
        taken = counted(said.raw, "prompt_tokens", "input_tokens")
        given = counted(said.raw, "completion_tokens", "output_tokens")
        if taken is None or (given is None and bound.output_tokens):
            return said
        return replace(said, input_tokens=taken, output_tokens=given or 0, reported=True)

    async def reply(self, request: Request, body: Mapping[str, Any], usage: Usage) -> Reply | Refusal:
        if "refused" in body:
            return Refusal(str(body["refused"]))
        if isinstance(request, TextRequest | CaptionRequest):
            return self._text(body, usage)
        if isinstance(request, EmbedRequest):
            return self._vector(body, usage)
        return await self._image(request, body, usage)

    def _text(self, body: Mapping[str, Any], usage: Usage) -> str | Refusal:
        choice = self._single(body.get("choices"), "choice", usage)
        message = choice.get("message")
        if not isinstance(message, dict):
            malformed(self._origin.where, "a choice without a message", usage=usage)
        if choice.get("finish_reason") == "content_filter":
            return Refusal("content_filter")
        if message.get("refusal"):
            return Refusal("refused by the model")
        content = message.get("content")
        if isinstance(content, str) and content.strip():
            # A text that ends at `max_tokens` is what was asked for: no longer than that.
            return sayable(content)
        if choice.get("finish_reason") == "length":
            malformed(
                self._origin.where,
                "all tokens were spent before the first word; raise `max_tokens` or lower `reasoning_effort`",
                usage=usage,
            )
        malformed(self._origin.where, "a message without content", usage=usage)

    def _vector(self, body: Mapping[str, Any], usage: Usage) -> np.ndarray:
        values = self._single(body.get("data"), "embedding", usage).get("embedding")
        if not isinstance(values, list) or not values:
            malformed(self._origin.where, "an embedding without numbers", usage=usage)
        if not all(isinstance(value, int | float) and abs(value) < 1e30 for value in values):
            malformed(self._origin.where, "an embedding that holds something else than numbers", usage=usage)
        # Whether its width is that of the others is for the gateway to say: this reply may be of a private record.
        return np.asarray(values, dtype=np.float32)

    async def _image(
        self, request: ImageRequest | ImageVariationRequest, body: Mapping[str, Any], usage: Usage
    ) -> Image:
        encoded = self._single(body.get("data"), "image", usage).get("b64_json")
        if not isinstance(encoded, str) or not encoded:
            malformed(self._origin.where, 'no image in the reply itself; set `image_format = "b64_json"`', usage=usage)
        channels = request.channels if isinstance(request, ImageRequest) else request.image.pixels.shape[2]
        try:
            return await asyncio.to_thread(_picture, encoded, asked_size(request), channels)
        except NoPicture as error:
            problem = str(error)
        malformed(self._origin.where, problem, usage=usage)

    def _single(self, items: Any, what: str, usage: Usage) -> dict[str, Any]:
        """The one item that was asked for."""
        if not isinstance(items, list) or not items:
            malformed(self._origin.where, f"a reply without {what}", usage=usage)
        if len(items) != 1 or not isinstance(items[0], dict):
            malformed(self._origin.where, f"not one {what}, as was asked for", usage=usage)
        return items[0]


def parsed(content: bytes) -> Any:
    """None for what is no JSON; the error that would say so holds the content."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def as_failure(body: Mapping[str, Any], status: int, headers: Mapping[str, str]) -> Failure:
    """The failure that an error object tells."""
    inner = body.get("innererror")
    code = str(body.get("code") or "")
    if isinstance(inner, dict) and inner.get("code"):
        # Azure tells a block by its content filter only here.
        code = (
            str(inner["code"])
            if meaning("azure", Failure(status=status, code=code, headers={})) is Meaning.INVALID
            else code
        )
    return Failure(
        status=status,
        code=code,
        type=str(body.get("type") or ""),
        message=str(body.get("message") or ""),
        headers=headers,
    )


def rate(headers: Any) -> dict[str, str]:
    """What the server says of its limits."""
    return {
        name.decode("latin-1").lower(): value.decode("latin-1")
        for name, value in headers.raw
        if name[:12].lower() == b"x-ratelimit-"
    }


def _picture(encoded: str, size: tuple[int, int], channels: int) -> Image:
    return fitted(from_base64(encoded), size, channels)
