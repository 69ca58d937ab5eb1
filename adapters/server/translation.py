"""Between OpenAI's bodies and our requests. What cannot be honoured is refused by name, never dropped in silence."""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image

from ..contract import (
    CaptionRequest,
    EmbedRequest,
    Image,
    ImageRequest,
    ImageVariationRequest,
    Message,
    Refusal,
    TextRequest,
    Usage,
)

LARGEST_SIDE = 4096
MOST_CHOICES = 128
MOST_TEXTS = 2048
IMAGES_REFUSED = (
    "this server takes no images: they may be private, and it cannot tell; if yours are public, start it with "
    "--inputs-are-public"
)

UNREADABLE = "an image could not be read: PNG, JPEG, WebP or GIF, in base64 or as a file"

_SAYS_NOTHING = frozenset(
    {
        "metadata",
        "model",
        "n",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "seed",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "user",
    }
)
"""Fields that are read elsewhere or change no answer."""
_DEFAULTS: Mapping[str, Any] = {
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logprobs": False,
    "logit_bias": {},
    "response_format": {"type": "text"},
    "modalities": ["text"],
    "tools": [],
    "moderation": "auto",
    "quality": "auto",
    "background": "auto",
    "output_format": "png",
}
"""Fields that are taken only with the value that asks for nothing."""


class Unacceptable(Exception):
    """A request that cannot be asked of the role; one line, and where known the field."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str = "unsupported") -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


def chat_request(body: Mapping[str, Any], *, images_allowed: bool) -> TextRequest | CaptionRequest:
    """A chat as a question to a writer, or, if it shows an image, to a captioner. Its draw is 0."""
    _check_fields(body, {"messages", "temperature", "max_tokens", "max_completion_tokens"})
    messages: list[Message] = []
    images: list[Image] = []
    for index, given in enumerate(_list(body, "messages")):
        if not isinstance(given, Mapping) or not isinstance(given.get("role"), str):
            raise Unacceptable("a message is an object with `role` and `content`", param=f"messages.{index}")
        text, seen = _content(given.get("content"), f"messages.{index}.content", images_allowed=images_allowed)
        messages.append(Message(role=given["role"], content=text))
        images += seen
    most = _number(body, "max_completion_tokens", int) or _number(body, "max_tokens", int)
    if most is not None and most < 1:
        raise Unacceptable("`max_completion_tokens` is at least 1", param="max_completion_tokens")
    temperature = _number(body, "temperature", float)
    if not images:
        return TextRequest(messages=tuple(messages), draw=0, temperature=temperature, max_tokens=most)
    if len(images) > 1:
        raise Unacceptable("a captioner sees one image a request", param="messages")
    if temperature is not None:
        raise Unacceptable("a captioner's temperature is a setting of its adapter", param="temperature")
    if any(message.role not in ("user", "system", "developer") for message in messages):
        raise Unacceptable("a captioner holds no conversation: send one message of the user", param="messages")
    prompt = "\n".join(message.content for message in messages if message.content)
    return CaptionRequest(image=images[0], prompt=prompt, draw=0, max_tokens=most)


def image_request(body: Mapping[str, Any]) -> ImageRequest:
    """Its draw is 0; its size 1024 x 1024 unless one is asked for."""
    _check_fields(body, {"prompt", "size", "response_format"})
    return ImageRequest(prompt=_prompt(body), draw=0, size=_size(body) or (1024, 1024))


def variation_request(
    body: Mapping[str, Any], files: Mapping[str, Sequence[bytes]], *, is_edit: bool
) -> ImageVariationRequest:
    """An edit of an image by a prompt, or a variation of it: one request, draw 0, of the image's own size.

    `degree` in [0, 1], 0.5 unless given, is a field of ours: OpenAI's protocol has no word for how much may change.
    """
    _check_fields(body, {"size", "response_format", "degree", *(("prompt",) if is_edit else ())})
    more = sorted(files.keys() - {"image"})
    if more:
        raise Unacceptable(f"`{more[0]}` cannot be asked through the gateway; leave it out", param=more[0])
    if len(files.get("image", ())) != 1:
        raise Unacceptable("`image` is one image, as a file of the form", param="image")
    image = _opened(files["image"][0], "image")
    height, width = image.pixels.shape[:2]
    if _size(body) not in (None, (width, height)):
        raise Unacceptable(f"a variation has the size of its image, {width}x{height}; leave `size` out", param="size")
    degree = _number(body, "degree", float)
    if degree is not None and not 0 <= degree <= 1:
        raise Unacceptable("`degree` is between 0 and 1", param="degree")
    return ImageVariationRequest(
        image=image, prompt=_prompt(body) if is_edit else "", degree=0.5 if degree is None else degree, draw=0
    )


def embed_requests(body: Mapping[str, Any]) -> list[EmbedRequest]:
    """One request a text."""
    _check_fields(body, {"input", "encoding_format", "dimensions"})
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise Unacceptable("`input` is a text or a list of texts", param="input")
    if len(texts) > MOST_TEXTS:
        raise Unacceptable(f"`input` has more than {MOST_TEXTS} texts", param="input")
    if body.get("encoding_format") not in (None, "float", "base64"):
        raise Unacceptable("`encoding_format` is float or base64", param="encoding_format")
    return [EmbedRequest(content=text) for text in texts]


def choices(body: Mapping[str, Any]) -> int:
    """How many answers are asked for."""
    count = _number(body, "n", int)
    if count is not None and not 0 < count <= MOST_CHOICES:
        raise Unacceptable(f"`n` is between 1 and {MOST_CHOICES}", param="n")
    return count or 1


def seed(body: Mapping[str, Any]) -> int | None:
    return _number(body, "seed", int)


def chat_reply(model: str, name: str, created: int, replies: Sequence[str | Refusal], usage: Usage) -> dict[str, Any]:
    """A chat completion; a refusal ends as OpenAI's own do."""
    said: list[dict[str, Any]] = []
    for index, reply in enumerate(replies):
        if isinstance(reply, Refusal):
            message, reason = {"role": "assistant", "content": None, "refusal": reply.reason}, "content_filter"
        else:
            message, reason = {"role": "assistant", "content": reply, "refusal": None}, "stop"
        said.append({"index": index, "message": message, "logprobs": None, "finish_reason": reason})
    return {
        "id": name,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": said,
        "usage": {"completion_tokens": usage.output_tokens, **_read(usage)},
    }


def chat_events(reply: Mapping[str, Any], *, with_usage: bool = False) -> list[str]:
    """The same as server-sent events: the whole answer, in words. The gateway keeps no half answers."""
    common = {**reply, "object": "chat.completion.chunk"}
    usage = common.pop("usage")
    events: list[dict[str, Any]] = []
    for choice in reply["choices"]:
        index, message = choice["index"], choice["message"]
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": piece} for piece in re.findall(r"\s*\S+\s*$|\s*\S+|\s+", message["content"] or "")]
        if message["refusal"]:
            deltas.append({"refusal": message["refusal"]})
        events += [{**common, "choices": [{"index": index, "delta": delta, "finish_reason": None}]} for delta in deltas]
        events.append({**common, "choices": [{"index": index, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    if with_usage:
        events.append({**common, "choices": [], "usage": usage})
    return [*(f"data: {json.dumps(event)}\n\n" for event in events), "data: [DONE]\n\n"]


def wants_usage(body: Mapping[str, Any]) -> bool:
    """Whether a stream is to end with its usage."""
    options = body.get("stream_options")
    return isinstance(options, Mapping) and options.get("include_usage") is True


def image_reply(created: int, replies: Sequence[Image | Refusal], usage: Usage) -> dict[str, Any]:
    pictures: list[Image] = []
    for reply in replies:
        if isinstance(reply, Refusal):
            raise Unacceptable(reply.reason, code="moderation_blocked", param="prompt")
        pictures.append(reply)
    return {
        "created": created,
        "data": [{"b64_json": base64.b64encode(_png(each)).decode()} for each in pictures],
        "usage": {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        },
    }


def embed_reply(
    body: Mapping[str, Any], model: str, replies: Sequence[np.ndarray | Refusal], usage: Usage
) -> dict[str, Any]:
    wanted = _number(body, "dimensions", int)
    data: list[dict[str, Any]] = []
    for index, reply in enumerate(replies):
        if isinstance(reply, Refusal):
            raise Unacceptable(reply.reason, code="moderation_blocked", param=f"input.{index}")
        if wanted is not None and wanted != len(reply):
            raise Unacceptable(f"{model!r} gives {len(reply)} dimensions, no other number", param="dimensions")
        values = [float(value) for value in reply]
        packed = base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
        coded: Any = packed if body.get("encoding_format") == "base64" else values
        data.append({"object": "embedding", "index": index, "embedding": coded})
    return {"object": "list", "model": model, "data": data, "usage": _read(usage)}


def error(message: str, *, kind: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _read(usage: Usage) -> dict[str, int]:
    return {"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens + usage.output_tokens}


def _prompt(body: Mapping[str, Any]) -> str:
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise Unacceptable("`prompt` is missing", param="prompt")
    return prompt


def _size(body: Mapping[str, Any]) -> tuple[int, int] | None:
    """(width, height), if one is asked for; refuses what no request for images can be answered with."""
    if body.get("response_format") not in (None, "b64_json"):
        raise Unacceptable("pictures come as `b64_json`; there is no address for them", param="response_format")
    if body.get("stream") is True:
        raise Unacceptable("pictures come whole; leave `stream` out", param="stream")
    size = body.get("size") or "auto"
    if size == "auto":
        return None
    found = re.fullmatch(r"(\d{1,4})x(\d{1,4})", str(size))
    if found is None or not all(0 < int(side) <= LARGEST_SIDE for side in found.groups()):
        raise Unacceptable(f"`size` is WIDTHxHEIGHT, up to {LARGEST_SIDE} each", param="size")
    return int(found[1]), int(found[2])


def _check_fields(body: Mapping[str, Any], read: set[str]) -> None:
    for name, value in body.items():
        if name in read or name in _SAYS_NOTHING or value is None:
            continue
        if name not in _DEFAULTS or value != _DEFAULTS[name]:
            raise Unacceptable(
                f"`{name}` cannot be asked through the gateway; leave it out, or set it at the role's adapter",
                param=name,
            )


def _list(body: Mapping[str, Any], name: str) -> list[Any]:
    value = body.get(name)
    if not isinstance(value, list) or not value:
        raise Unacceptable(f"`{name}` is missing", param=name)
    return value


def _number(body: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise Unacceptable(f"`{name}` is a number", param=name)
    return kind(value)


def _content(content: Any, where: str, *, images_allowed: bool) -> tuple[str, list[Image]]:
    if content is None or isinstance(content, str):
        return content or "", []
    if not isinstance(content, list):
        raise Unacceptable("content is a text or a list of parts", param=where)
    texts: list[str] = []
    images: list[Image] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image_url":
            if not images_allowed:
                raise Unacceptable(IMAGES_REFUSED, status=403, code="images_not_public", param=where)
            images.append(_image(part.get("image_url"), where))
        else:
            raise Unacceptable("a part of content is a text or an image_url", param=where)
    return "\n".join(texts), images


def _image(given: Any, where: str) -> Image:
    """The image of a data: URI. Nothing is fetched: an address would make this server a proxy."""
    url = given.get("url") if isinstance(given, Mapping) else None
    if isinstance(given, Mapping) and given.get("detail") not in (None, "auto"):
        raise Unacceptable("`detail` is a setting of the role's adapter; leave it out", param=where)
    found = re.match(r"data:image/[\w.+-]+;base64,", url) if isinstance(url, str) else None
    if url is None or found is None:
        raise Unacceptable("an image comes as a data: URI with base64; addresses are not fetched", param=where)
    try:
        raw = base64.b64decode(url[found.end() :], validate=True)
    except binascii.Error:
        raise Unacceptable(UNREADABLE, param=where) from None
    return _opened(raw, where)


def _opened(raw: bytes, where: str) -> Image:
    try:
        with PIL.Image.open(io.BytesIO(raw), formats=["PNG", "JPEG", "WEBP", "GIF"]) as opened:
            if max(opened.size) > LARGEST_SIDE:
                raise Unacceptable(f"an image has at most {LARGEST_SIDE} pixels a side", param=where)
            pixels = np.array(opened.convert("L" if opened.mode in ("1", "L") else "RGB"))
    except (OSError, ValueError, PIL.Image.DecompressionBombError):
        raise Unacceptable(UNREADABLE, param=where) from None
    return Image(pixels[:, :, None] if pixels.ndim == 2 else pixels)


def _png(image: Image) -> bytes:
    out = io.BytesIO()
    flat = image.pixels[:, :, 0] if image.pixels.shape[2] == 1 else image.pixels
    PIL.Image.fromarray(np.ascontiguousarray(flat)).save(out, format="PNG", compress_level=1)
    return out.getvalue()
