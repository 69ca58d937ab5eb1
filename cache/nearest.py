"""Nearest: which kept question is most like one that is not kept, and where the two differ first."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

_SHOWN = 60


def difference(asked: str, kept: Iterable[str]) -> str:
    """One line that names the first differing field of the nearest kept question; "" if none is kept.

    >>> difference('{"identity":{"model":"a"},"request":{"x":1}}', ['{"identity":{"model":"b"},"request":{"x":1}}'])
    'identity.model is "a", and "b" in the nearest kept question'
    """
    wanted = dict(_leaves(json.loads(asked)))
    best: dict[str, Any] = {}
    most = -1
    for text in kept:
        leaves = dict(_leaves(json.loads(text)))
        equal = sum(place in leaves and leaves[place] == value for place, value in wanted.items())
        if equal > most:
            most, best = equal, leaves
    if most < 0:
        return ""
    for place in [*wanted, *best]:
        if wanted.get(place, _ABSENT) != best.get(place, _ABSENT):
            ours, theirs = _short(wanted.get(place, _ABSENT)), _short(best.get(place, _ABSENT))
            return f"{place} is {ours}, and {theirs} in the nearest kept question"
    return ""


_ABSENT = object()


def _leaves(value: Any, place: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in cast("Mapping[str, Any]", value).items():
            yield from _leaves(inner, f"{place}.{name}" if place else name)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, inner in enumerate(cast("Sequence[Any]", value)):
            yield from _leaves(inner, f"{place}[{number}]")
    else:
        yield place, value


def _short(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
