"""DashScope's own protocol at the stub: text and multimodal generation, image tasks with polling, embeddings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from . import answers
from .asked import Asked, images_in, input_tokens, words_in
from .openai import bad, result_url
from .script import Fault
from .wire import Outgoing

_DRAWS = ("wan", "qwen-image", "z-image")
"""How the names of models begin that answer multimodal generation with pictures."""


def text(asked: Asked) -> dict[str, Any] | Outgoing:
    messages = _input(asked).get("messages") or (
        [{"role": "user", "content": prompt}] if (prompt := _input(asked).get("prompt")) else None
    )
    if not isinstance(messages, list) or not messages:
        return bad(asked, "Required input is missing: messages or prompt.")
    said = _sentences(asked)
    read, used = input_tokens(messages), _used(asked, said)
    if _parameters(asked).get("result_format") == "message":
        output: dict[str, Any] = {
            "choices": [
                {"finish_reason": reason, "message": {"role": "assistant", "content": each}} for each, reason in said
            ]
        }
    else:
        output = {"text": said[0][0], "finish_reason": said[0][1]}
    return _whole(asked, output, {"input_tokens": read, "output_tokens": used, "total_tokens": read + used})


def multimodal(asked: Asked) -> dict[str, Any] | Outgoing:
    """Words about images, or, from a model that draws, images."""
    messages = _input(asked).get("messages")
    if not isinstance(messages, list) or not messages:
        return bad(asked, "Required input is missing: messages.")
    if asked.model.startswith(_DRAWS):
        return image(asked)
    said = _sentences(asked)
    read, used = input_tokens(messages), _used(asked, said)
    choices = [
        {"finish_reason": reason, "message": {"role": "assistant", "content": [{"text": each}]}}
        for each, reason in said
    ]
    usage = {
        "input_tokens": read,
        "output_tokens": used,
        "total_tokens": read + used,
        "image_tokens": 85 * images_in(messages),
    }
    return _whole(asked, {"choices": choices}, usage)


def image(asked: Asked) -> dict[str, Any] | Outgoing:
    """The whole result of an image task: addresses of pictures."""
    parameters = _parameters(asked)
    if not words_in(_input(asked)):
        return bad(asked, "Required input is missing: prompt.")
    size = answers.size_of(parameters.get("size"))
    if size is None:
        return bad(asked, "The size does not match.")
    urls = [result_url(asked, asked.bytes_of(index), size) for index in range(_count(parameters))]
    usage = {"image_count": len(urls)}
    if "messages" in _input(asked):
        choices = [
            {"finish_reason": "stop", "message": {"role": "assistant", "content": [{"type": "image", "image": url}]}}
            for url in urls
        ]
        return _whole(asked, {"choices": choices, "finished": True}, usage)
    results = [{"url": url} for url in urls]
    metrics = {"TOTAL": len(urls), "SUCCEEDED": len(urls), "FAILED": 0}
    return _whole(asked, {"results": results, "task_metrics": metrics}, usage)


def embeddings(asked: Asked) -> dict[str, Any] | Outgoing:
    """Of texts, and of texts and images together: an image's vector is that of its bytes."""
    given = _input(asked)
    contents = given.get("texts") or [words_in(each) or str(each) for each in given.get("contents", [])]
    contents = [contents] if isinstance(contents, str) else contents
    if not contents:
        return bad(asked, "Required input is missing: texts or contents.")
    dimensions = int(_parameters(asked).get("dimension", 1024))
    place = "text_index" if given.get("texts") else "index"
    vectors = [
        {place: index, "embedding": answers.vector(str(each), dimensions)} for index, each in enumerate(contents)
    ]
    read = sum(answers.tokens(str(each)) for each in contents)
    return _whole(asked, {"embeddings": vectors}, {"input_tokens": read, "total_tokens": read})


def streamed(asked: Asked, payload: Mapping[str, Any]) -> Outgoing:
    """A whole text answer as server-sent events; each holds the next word, or with them all those before."""
    incremental = bool(_parameters(asked).get("incremental_output"))
    choices = payload.get("output", {}).get("choices") or [{}]
    content = choices[0].get("message", {}).get("content") or payload.get("output", {}).get("text") or ""
    listed = isinstance(content, list)
    said: str = words_in(content)
    words, parts = said.split(" "), []
    for number in range(1, len(words) + 1):
        piece = words[number - 1] if incremental else " ".join(words[:number])
        piece = f" {piece}" if incremental and number > 1 else piece
        reason = "stop" if number == len(words) else "null"
        message = {"role": "assistant", "content": [{"text": piece}] if listed else piece}
        output = {"choices": [{"finish_reason": reason, "message": message}]}
        event = json.dumps({"output": output, "usage": payload.get("usage"), "request_id": payload.get("request_id")})
        parts.append(f"id:{number}\nevent:result\n:HTTP_STATUS/200\ndata:{event}\n\n".encode())
    return Outgoing(content_type="text/event-stream;charset=UTF-8", parts=tuple(parts))


class Tasks:
    """Asynchronous tasks: begun by one call, asked after by others, done after `polls` looks."""

    def __init__(self) -> None:
        self._tasks: dict[str, dict[str, Any]] = {}
        self._looks: dict[str, int] = {}

    def begin(self, asked: Asked, fault: Fault | None) -> dict[str, Any] | Outgoing:
        """`moderated-answer` lets the task begin and fail."""
        done = image(asked)
        if isinstance(done, Outgoing):
            return done
        name = f"task-{len(self._tasks) + 1}-{asked.bytes_of().hex()[:12]}"
        if fault is Fault.MODERATED_ANSWER:
            message = "Output data may contain inappropriate content."
            done["output"] = {"code": "DataInspectionFailed", "message": message, "task_status": "FAILED"}
        self._tasks[name] = done
        self._looks[name] = 0
        return {"output": {"task_id": name, "task_status": "PENDING"}, "request_id": done["request_id"]}

    def look(self, asked: Asked) -> dict[str, Any] | Outgoing:
        name = asked.path.partition("/tasks/")[2].partition("/")[0]
        done = self._tasks.get(name)
        if done is None:
            return {"output": {"task_id": name, "task_status": "UNKNOWN"}, "request_id": "stub"}
        self._looks[name] += 1
        if self._looks[name] <= asked.script.polls:
            return {"output": {"task_id": name, "task_status": "RUNNING"}, "request_id": done["request_id"]}
        return {**done, "output": {"task_id": name, "task_status": "SUCCEEDED", **done["output"]}}


def _sentences(asked: Asked) -> list[tuple[str, str]]:
    """Each choice's words and why they end."""
    parameters = _parameters(asked)
    most = parameters.get("max_tokens")
    said: list[tuple[str, str]] = []
    for index in range(_count(parameters)):
        whole = answers.sentence(asked.bytes_of(index))
        cut = " ".join(whole.split()[:most]) if isinstance(most, int) else whole
        said.append((cut, "stop" if cut == whole else "length"))
    return said


def _used(asked: Asked, said: list[tuple[str, str]]) -> int:
    """The tokens of what was said: no choice has more than were asked for."""
    most = _parameters(asked).get("max_tokens")
    counts = [answers.tokens(each) for each, _ in said]
    return sum(min(count, most) if isinstance(most, int) else count for count in counts)


def _whole(asked: Asked, output: dict[str, Any], usage: dict[str, int]) -> dict[str, Any]:
    return {"request_id": f"stub-{asked.bytes_of().hex()[:16]}", "output": output, "usage": usage}


def _input(asked: Asked) -> Mapping[str, Any]:
    given = asked.fields.get("input")
    return given if isinstance(given, Mapping) else {}


def _parameters(asked: Asked) -> Mapping[str, Any]:
    given = asked.fields.get("parameters")
    return given if isinstance(given, Mapping) else {}


def _count(parameters: Mapping[str, Any]) -> int:
    count = parameters.get("n", 1)
    return max(1, min(16, count)) if isinstance(count, int) else 1
