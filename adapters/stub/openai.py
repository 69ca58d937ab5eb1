"""OpenAI's protocol at the stub: chat with vision and streaming, images, embeddings, models, files, batches."""

from __future__ import annotations

import base64
import json
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from .. import models as catalogue
from ..remote.estimate import painted_tokens
from . import answers
from .asked import Asked, Dialect, input_tokens
from .refusals import refusal
from .script import BatchEnd, Fault, Model, Script
from .wire import Outgoing

MODELS = (
    Model(id="gpt-4o-mini", shutdown_date="2027-01-14"),
    Model(id="gpt-6-luna"),
    Model(id="gpt-image-2"),
    Model(id="text-embedding-3-small"),
)
COMPATIBLE_MODELS = (Model(id="qwen-plus"), Model(id="qwen3-vl-plus"), Model(id="text-embedding-v4"))

_CREATED = 1_760_000_000


def chat(asked: Asked) -> dict[str, Any] | Outgoing:
    messages = asked.fields.get("messages")
    if not isinstance(messages, list) or not messages:
        return bad(asked, "Missing required parameter: 'messages'.")
    most = asked.fields.get("max_completion_tokens", asked.fields.get("max_tokens"))
    choices: list[dict[str, Any]] = []
    used = 0
    for index in range(_count(asked)):
        text = answers.sentence(asked.bytes_of(index))
        if (
            isinstance(asked.fields.get("response_format"), Mapping)
            and asked.fields["response_format"].get("type") != "text"
        ):
            text = json.dumps({"text": text})
        cut = " ".join(text.split()[: int(most)]) if isinstance(most, int) else text
        used += answers.tokens(cut) if not isinstance(most, int) else min(answers.tokens(cut), most)
        message = {"role": "assistant", "content": cut, "refusal": None}
        reason = "stop" if cut == text else "length"
        choices.append({"index": index, "message": message, "logprobs": None, "finish_reason": reason})
    asked_tokens = input_tokens(messages)
    return {
        "id": f"chatcmpl-{asked.bytes_of().hex()[:24]}",
        "object": "chat.completion",
        "created": _CREATED,
        "model": asked.model,
        "system_fingerprint": "fp_stub",
        "choices": choices,
        "usage": {
            "prompt_tokens": asked_tokens,
            "completion_tokens": used,
            "total_tokens": asked_tokens + used,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


def streamed(asked: Asked, payload: Mapping[str, Any]) -> Outgoing:
    """A whole chat answer as server-sent events, a word at a time."""
    common = {name: payload.get(name) for name in ("id", "created", "model", "system_fingerprint")}
    common["object"] = "chat.completion.chunk"
    events: list[Any] = []

    def delta(index: int, said: Mapping[str, Any], reason: str | None) -> None:
        events.append({**common, "choices": [{"index": index, "delta": said, "finish_reason": reason}]})

    for choice in payload.get("choices", []):
        index, text = choice["index"], choice["message"]["content"]
        delta(index, {"role": "assistant", "content": ""}, None)
        for word in (text or "").split(" "):
            delta(index, {"content": word if word == (text or "").split(" ")[0] else f" {word}"}, None)
        delta(index, {}, choice["finish_reason"])
    options = asked.fields.get("stream_options")
    if isinstance(options, Mapping) and options.get("include_usage"):
        events.append({**common, "choices": [], "usage": payload.get("usage")})
    parts = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    return Outgoing(content_type="text/event-stream", parts=(*parts, b"data: [DONE]\n\n"))


def image(asked: Asked) -> dict[str, Any] | Outgoing:
    """Generations, edits and variations alike: new pictures of the size asked."""
    newer = asked.model.startswith(("gpt-image", "chatgpt-image"))
    if newer and "response_format" in asked.fields:
        return bad(asked, "Unknown parameter: 'response_format'.")
    if asked.path.endswith(("/edits", "/variations")) and not any(
        upload.name.startswith("image") for upload in asked.uploads
    ):
        return bad(asked, "Missing required parameter: 'image'.")
    if not asked.path.endswith("/variations") and not asked.fields.get("prompt"):
        return bad(asked, "Missing required parameter: 'prompt'.")
    size = answers.size_of(asked.fields.get("size"))
    if size is None:
        return bad(asked, "Invalid value: 'size'.")
    kind = str(asked.fields.get("output_format", "png"))
    if kind not in ("png", "jpeg", "webp"):
        return bad(asked, "Invalid value: 'output_format'.")
    by_url = not newer and asked.fields.get("response_format", "url") == "url"
    data: list[dict[str, Any]] = []
    for index in range(_count(asked)):
        seed = asked.bytes_of(index)
        if by_url:
            data.append({"url": result_url(asked, seed, size)})
        else:
            picture = answers.as_format(answers.png(seed, *size), kind)
            data.append({"b64_json": base64.b64encode(picture).decode()})
    read = answers.tokens(str(asked.fields.get("prompt", ""))) + 1
    quality = str(asked.fields.get("quality", "auto"))
    drawn = len(data) * painted_tokens(catalogue.facts("openai", asked.model), size, quality=quality)
    shown = 85 * sum(upload.name.startswith("image") for upload in asked.uploads)
    usage = {
        "input_tokens": read + shown,
        "output_tokens": drawn,
        "total_tokens": read + shown + drawn,
        "input_tokens_details": {"text_tokens": read, "image_tokens": shown},
    }
    return {"created": _CREATED, "data": data, "usage": usage}


def embeddings(asked: Asked) -> dict[str, Any] | Outgoing:
    given = asked.fields.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        return bad(asked, "Missing required parameter: 'input'.")
    dimensions = asked.fields.get("dimensions", 3072 if asked.model.endswith("large") else 1536)
    if not isinstance(dimensions, int) or not 0 < dimensions <= 8192:
        return bad(asked, "Invalid value: 'dimensions'.")
    packed = asked.fields.get("encoding_format") == "base64"
    data: list[dict[str, Any]] = []
    for index, text in enumerate(texts):
        vector = answers.vector(str(text), dimensions)
        value = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode() if packed else vector
        data.append({"object": "embedding", "index": index, "embedding": value})
    read = sum(answers.tokens(str(text)) for text in texts)
    usage = {"prompt_tokens": read, "total_tokens": read}
    return {"object": "list", "model": asked.model, "data": data, "usage": usage}


def models(asked: Asked) -> dict[str, Any] | Outgoing:
    known = asked.script.models or (MODELS if asked.dialect is Dialect.OPENAI else COMPATIBLE_MODELS)
    listed = [
        {"id": each.id, "object": "model", "created": _CREATED, "owned_by": "stub", "shutdown_date": each.shutdown_date}
        for each in known
    ]
    name = asked.path.rpartition("/models")[2].strip("/")
    if not name:
        return {"object": "list", "data": listed}
    found = next((each for each in listed if each["id"] == name), None)
    return found or refusal(Fault.MODEL_GONE, asked.dialect) or {}


class Batches:
    """Uploaded files and the batches made of them; a batch is done after `polls` looks at it."""

    def __init__(self, answer: Callable[[Asked, str, dict[str, Any]], tuple[int, Any]]) -> None:
        self._answer = answer
        self._files: dict[str, tuple[str, bytes]] = {}
        self._batches: dict[str, dict[str, Any]] = {}
        self._looks: dict[str, int] = {}
        self._ends: dict[str, BatchEnd] = {}

    def files(self, asked: Asked) -> dict[str, Any] | Outgoing:
        name = asked.path.partition("/files")[2].strip("/")
        if asked.method == "POST":
            if not asked.uploads:
                return bad(asked, "Missing required parameter: 'file'.")
            upload = asked.uploads[0]
            return self._described(
                self._keep(upload.filename, upload.content), str(asked.fields.get("purpose", "batch"))
            )
        if not name:
            return {
                "object": "list",
                "data": [self._described(each, "batch") for each in self._files],
                "has_more": False,
            }
        name, _, rest = name.partition("/")
        if name not in self._files:
            return bad(asked, f"No such file: {name}")
        if asked.method == "DELETE":
            del self._files[name]
            return {"id": name, "object": "file", "deleted": True}
        if rest == "content":
            return Outgoing(body=self._files[name][1], content_type="application/octet-stream")
        return self._described(name, "batch")

    def batches(self, asked: Asked) -> dict[str, Any] | Outgoing:
        name = asked.path.partition("/batches")[2].strip("/")
        if not name and asked.method == "POST":
            return self._start(asked)
        if not name:
            return self._listed(asked)
        name, _, rest = name.partition("/")
        batch = self._batches.get(name)
        if batch is None:
            return bad(asked, f"No such batch: {name}")
        if rest == "cancel":
            batch |= {"status": "cancelled", "cancelled_at": int(time.time())}
        elif batch["status"] == "in_progress":
            self._looks[name] += 1
            if self._looks[name] > asked.script.polls:
                self._finish(asked, batch)
        return batch

    def _listed(self, asked: Asked) -> dict[str, Any]:
        """The newest first, a page at a time."""
        query = dict(parse_qsl(asked.query))
        everything = [*reversed(self._batches.values())]
        after = query.get("after", "")
        names = [each["id"] for each in everything]
        start = names.index(after) + 1 if after in names else 0
        stop = start + int(query.get("limit", "20"))
        return {"object": "list", "data": everything[start:stop], "has_more": stop < len(everything)}

    def _start(self, asked: Asked) -> dict[str, Any] | Outgoing:
        source = str(asked.fields.get("input_file_id", ""))
        if source not in self._files:
            return bad(asked, "Invalid 'input_file_id'.")
        name = f"batch_{len(self._batches) + 1}"
        lines = [line for line in self._files[source][1].splitlines() if line.strip()]
        self._looks[name] = 0
        self._batches[name] = {
            "id": name,
            "object": "batch",
            "endpoint": asked.fields.get("endpoint"),
            "input_file_id": source,
            "completion_window": asked.fields.get("completion_window", "24h"),
            "status": "in_progress",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": int(time.time()),
            "metadata": asked.fields.get("metadata"),
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
        }
        self._ends[name] = _end_of(asked.script, len(self._batches))
        if self._ends[name] is BatchEnd.LOST_REPLY:
            return refusal(Fault.SERVER_ERROR, asked.dialect) or {}
        return self._batches[name]

    def _finish(self, asked: Asked, batch: dict[str, Any]) -> None:
        """Answer every line; the output is in no order that anybody may rely on."""
        end = self._ends[batch["id"]]
        if end in (BatchEnd.FAILED, BatchEnd.QUEUE_FULL):
            code = "invalid_json_line" if end is BatchEnd.FAILED else "token_limit_exceeded"
            told = {"code": code, "message": "The batch cannot be taken.", "line": 1, "param": None}
            batch |= {"status": "failed", "errors": {"object": "list", "data": [told]}, "failed_at": int(time.time())}
            return
        cut = end in (BatchEnd.EXPIRED, BatchEnd.CANCELLED)
        good: list[bytes] = []
        bad_ones: list[bytes] = []
        lines = [line for line in self._files[batch["input_file_id"]][1].splitlines() if line.strip()]
        for number, line in enumerate(lines):
            request = json.loads(line)
            if cut and number % 2:
                why = {"code": "batch_expired", "message": "This request could not be executed before it expired."}
                if end is BatchEnd.EXPIRED:
                    late = {"id": f"late_{number}", "custom_id": request["custom_id"], "response": None, "error": why}
                    bad_ones.append(json.dumps(late).encode())
                continue
            status, body = self._answer(asked, str(request["url"]), request["body"])
            response = {"status_code": status, "request_id": "stub", "body": body}
            said = {
                "id": f"batch_req_{len(good) + len(bad_ones)}",
                "custom_id": request["custom_id"],
                "response": response,
            }
            (good if status == 200 else bad_ones).append(json.dumps({**said, "error": None}).encode())
        if end is BatchEnd.TWICE:
            good *= 2
        batch["output_file_id"] = self._keep("output.jsonl", b"\n".join(reversed(good)) + b"\n") if good else None
        batch["error_file_id"] = self._keep("errors.jsonl", b"\n".join(bad_ones) + b"\n") if bad_ones else None
        batch["request_counts"] |= {"completed": len(good), "failed": len(bad_ones)}
        batch |= {"status": str(end) if cut else "completed", "completed_at": int(time.time())}

    def _keep(self, filename: str, content: bytes) -> str:
        name = f"file-{len(self._files) + 1}"
        self._files[name] = (filename, content)
        return name

    def _described(self, name: str, purpose: str) -> dict[str, Any]:
        filename, content = self._files[name]
        return {
            "id": name,
            "object": "file",
            "bytes": len(content),
            "created_at": _CREATED,
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
        }


def result_url(asked: Asked, seed: bytes, size: tuple[int, int]) -> str:
    """Where a picture can be fetched; the address holds all that it is drawn from."""
    return f"{asked.root}/results/{seed.hex()}-{size[0]}x{size[1]}.png"


def _end_of(script: Script, number: int) -> BatchEnd:
    """Of the `number`-th batch."""
    return script.batches[number - 1] if number <= len(script.batches) else BatchEnd.COMPLETED


def bad(asked: Asked, message: str) -> Outgoing:
    answer = refusal(Fault.BAD_REQUEST, asked.dialect, message=message)
    assert answer is not None
    return answer


def _count(asked: Asked) -> int:
    count = str(asked.fields.get("n", 1) or 1)
    return max(1, min(128, int(count))) if count.isdecimal() else 1
