"""Keys: what must be equal for a saved reply to stand in for a new one.

Everything counts: who answers (its identity), how it was set up (its settings) and every field of the request. Only
`draw` stands beside the key, because it says which of several replies to the same question is meant: an answer's
place in the store is (key, namespace, draw). Nothing is normalised but numbers: 1 and 1.0 agree.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from hashlib import blake2b
from typing import Any, cast

import numpy as np

VERSION = "k1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where one reply lies. `canonical` is the JSON whose hash `key` is: stored beside the reply and compared on a hit."""

    key: str
    namespace: str
    draw: int
    canonical: str

    @property
    def place(self) -> tuple[str, str, int]:
        return self.key, self.namespace, self.draw


class Addressing:
    """The addresses of one role's requests.

    `namespace` separates runs: a new run draws anew. A request without a `draw` is not a sample (an embedding), so
    every run shares its reply.
    """

    def __init__(self, identity: Any, *, settings: Mapping[str, Any] | None = None, namespace: str = "") -> None:
        self._before = f'{{"identity":{canonical_json(identity)},"request":'
        self._after = f',"settings":{canonical_json(settings or {})},"version":"{VERSION}"}}'
        self._namespace = namespace

    def of(self, request: Any) -> Address:
        if not is_dataclass(request) or isinstance(request, type):
            raise TypeError(f"a request is a dataclass, not {type(request).__name__}")
        content = _plain_dataclass(request)
        draw = content.pop("draw", None)
        text = f"{self._before}{_dumps(content)}{self._after}"
        key = f"{VERSION}:{blake2b(text.encode(), digest_size=32).hexdigest()}"
        if draw is None:
            return Address(key=key, namespace="", draw=0, canonical=text)
        return Address(key=key, namespace=self._namespace, draw=int(draw), canonical=text)


def request_key(identity: Any, request: Any, *, settings: Mapping[str, Any] | None = None) -> str:
    """The key of one request: 'k1:' and 64 hexadecimal digits."""
    return Addressing(identity, settings=settings).of(request).key


def canonical_json(value: Any) -> str:
    """JSON with one spelling for each value: sorted keys, no spaces, ASCII, integral floats as integers, no NaN.

    Dataclasses carry their type's name; arrays stand as the hash of their exact bytes with type and shape.

    >>> canonical_json({"b": 1.0, "a": (True, None)})
    '{"a":[true,null],"b":1}'
    """
    return _dumps(_plain(value))


def _dumps(plain: Any) -> str:
    # ASCII, because a lone surrogate in a prompt has no UTF-8.
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a request cannot hold {value}: it has no JSON")
        return int(value) if value.is_integer() else float(value)
    if isinstance(value, np.ndarray):
        return _plain_array(cast("np.ndarray[Any, np.dtype[Any]]", value))
    if is_dataclass(value) and not isinstance(value, type):
        return _plain_dataclass(value)
    if isinstance(value, bytes):
        return {"$bytes": blake2b(value, digest_size=32).hexdigest()}
    if isinstance(value, Mapping):
        return _plain_mapping(cast("Mapping[Any, Any]", value))
    if isinstance(value, Sequence):
        return [_plain(item) for item in cast("Sequence[Any]", value)]
    raise TypeError(f"a request cannot hold a value of type {type(value).__name__}")


def _plain_mapping(value: Mapping[Any, Any]) -> dict[str, Any]:
    # json would write the key True as "true" in silence.
    for name in value:
        if not isinstance(name, str):
            raise TypeError(f"a request cannot hold a mapping with the key {name!r}: keys are strings")
    return {name: _plain(item) for name, item in value.items()}


def _plain_dataclass(value: Any) -> dict[str, Any]:
    kind = cast("type[Any]", type(value))
    plain = {name: _plain(getattr(value, name)) for name in _names(kind)}
    plain["$type"] = kind.__name__
    return plain


def _plain_array(value: np.ndarray[Any, np.dtype[Any]]) -> dict[str, Any]:
    if value.dtype.hasobject:
        raise TypeError("a request cannot hold an array of objects")
    digest = blake2b(np.ascontiguousarray(value).data, digest_size=32).hexdigest()
    return {"$array": digest, "dtype": value.dtype.str, "shape": list(value.shape)}


@cache
def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))
