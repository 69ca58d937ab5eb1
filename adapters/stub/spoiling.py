"""Good answers made bad: what servers send with status 200 that is no answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .asked import Dialect
from .refusals import words
from .script import Fault

_CONTENT = frozenset({"content", "b64_json", "url", "embedding", "image", "text"})
_LISTS = frozenset({"choices", "data", "results", "embeddings"})


def spoiled(payload: dict[str, Any], fault: Fault | None, dialect: Dialect) -> dict[str, Any]:
    """The payload as the fault leaves it; faults that do not concern payloads leave it as it is."""
    if fault is Fault.WRONG_JSON:
        return {"foo": 1}
    if fault is Fault.ERROR_IN_BODY:
        return words(Fault.MODERATED, dialect)
    if fault is Fault.NO_CONTENT:
        return _walked(
            payload, _CONTENT, lambda value: value if isinstance(value, list | dict) and not _leaf(value) else None
        )
    if fault is Fault.NO_CHOICES:
        return _walked(payload, _LISTS, lambda value: [] if isinstance(value, list) else value)
    if fault is Fault.TOO_MANY_CHOICES:
        return _walked(payload, _LISTS, lambda value: value * 2 if isinstance(value, list) else value)
    if fault is Fault.BAD_IMAGE:
        return _walked(payload, frozenset({"b64_json"}), lambda value: value[: len(value) // 8 * 4])
    if fault is Fault.MODERATED_ANSWER:
        return _moderated(payload)
    return payload


def spoiled_bytes(body: bytes, fault: Fault | None) -> bytes:
    """The body as the fault leaves it, whole or not."""
    if fault is Fault.TRUNCATED_JSON:
        return body[: len(body) // 2]
    if fault is Fault.EMPTY:
        return b""
    return body


def dumped(payload: Any) -> bytes:
    return json.dumps(payload, separators=(",", ":")).encode()


def _leaf(value: Any) -> bool:
    """A list of numbers is a vector; of parts, a message."""
    return isinstance(value, list) and all(isinstance(item, float | int) for item in value)


def _walked(value: Any, names: frozenset[str], change: Callable[[Any], Any]) -> Any:
    if isinstance(value, list):
        return [_walked(item, names, change) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: _walked(change(inner) if name in names else inner, names, change) for name, inner in value.items()}


def _moderated(value: Any) -> Any:
    """Answers cut off by a content filter."""
    if isinstance(value, list):
        return [_moderated(item) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {name: _moderated(inner) for name, inner in value.items()}
    if "finish_reason" in changed:
        changed["finish_reason"] = "content_filter"
        if isinstance(changed.get("message"), dict):
            changed["message"] |= {"content": "", "refusal": "I can't help with that."}
    return changed
