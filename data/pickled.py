"""The one structure of CIFAR's Python version, read without unpickling: a dictionary of lists, texts and a uint8 array.

A pickle is a program for a small machine that may call anything. This reader runs the few instructions that such a
dictionary needs, on values of its own; a name that the program looks up is compared with the five that numpy's arrays
use, and nothing is ever imported or called.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import Damaged

MAX_STEPS = 20_000_000


@dataclass(frozen=True)
class _Name:
    """A name that was looked up: never more than its text."""

    text: str


class _Array:
    """A uint8 array whose state is still to come."""

    def __init__(self) -> None:
        self.value: np.ndarray | None = None


@dataclass(frozen=True)
class _Dtype:
    code: str


class _Mark:
    pass


_RECONSTRUCT = tuple(_Name(f"{package}.multiarray _reconstruct") for package in ("numpy.core", "numpy._core"))
_NDARRAY, _DTYPE, _ENCODE = _Name("numpy ndarray"), _Name("numpy dtype"), _Name("_codecs encode")
_KNOWN = frozenset({*_RECONSTRUCT, _NDARRAY, _DTYPE, _ENCODE})
_NUMBERS = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "INT", "LONG"})
_TEXTS = frozenset({"BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE"})
_BYTES = frozenset({"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"})


def read(content: bytes, *, where: str) -> dict[str, Any]:
    """The dictionary, with its keys as text: numbers, text, lists of them, and uint8 arrays.

    Raises `Damaged` for anything else.
    """
    try:
        value = _run(content)
    except Damaged as refused:
        raise Damaged(f"{where}: {refused}") from None
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, UnicodeError):
        raise Damaged(f"{where}: it is no batch of CIFAR's Python version; fetch it again") from None
    if not isinstance(value, dict):
        raise Damaged(f"{where}: it holds no dictionary; fetch it again")
    return {_text(key): each.value if isinstance(each, _Array) else each for key, each in value.items()}


def _run(content: bytes) -> Any:
    stack: list[Any] = []
    memory: dict[int, Any] = {}
    argument: Any
    for steps, (code, argument, _) in enumerate(pickletools.genops(content)):
        name = code.name
        if steps > MAX_STEPS:
            raise Damaged("its program is too long")
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            return stack.pop()
        if name in _NUMBERS:
            stack.append(int(argument))
        elif name in _TEXTS:
            stack.append(argument)
        elif name in _BYTES:
            stack.append(bytes(argument))
        elif name in ("NONE", "NEWTRUE", "NEWFALSE"):
            stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name == "EMPTY_TUPLE":
            stack.append(())
        elif name == "MARK":
            stack.append(_Mark())
        elif name == "MEMOIZE":
            memory[len(memory)] = stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memory[int(argument)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memory[int(argument)])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("TUPLE", "LIST", "DICT"):
            items = _since_mark(stack)
            stack.append(tuple(items) if name == "TUPLE" else items if name == "LIST" else _pairs(items))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else _since_mark(stack)
            _of(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = _since_mark(stack) if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            _of(stack[-1], dict).update(_pairs(items))
        elif name == "GLOBAL":
            stack.append(_known(_Name(argument)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_known(_Name(f"{module} {attribute}")))
        elif name == "REDUCE":
            arguments, called = stack.pop(), stack.pop()
            stack.append(_made(called, arguments))
        elif name == "BUILD":
            state = stack.pop()
            _build(stack[-1], state)
        else:
            raise Damaged(f"it uses the pickle instruction {name}, which no batch of images needs")
    raise Damaged("it is cut short")


def _known(name: _Name) -> _Name:
    if name not in _KNOWN:
        raise Damaged(f"it looks up {name.text[:80]!r}, which no batch of images needs; nothing of it was run")
    return name


def _made(called: Any, arguments: Any) -> Any:
    """What a call would have made, for the three calls of a pickled uint8 array."""
    if called in _RECONSTRUCT and arguments[0] == _NDARRAY:
        return _Array()
    if called == _DTYPE and arguments[0] in ("u1", b"u1"):
        return _Dtype("u1")
    if called == _ENCODE and arguments[1] in ("latin1", "latin-1"):
        return _latin(arguments[0])
    raise Damaged("it makes a value that no batch of images needs; nothing of it was run")


def _build(target: Any, state: Any) -> None:
    if isinstance(target, _Dtype):
        return
    _, shape, dtype, column_major, data = state
    if not isinstance(target, _Array) or not isinstance(dtype, _Dtype) or column_major:
        raise Damaged("it holds an array of another kind than uint8 in rows")
    stored = data if isinstance(data, bytes) else _latin(data)
    if not all(isinstance(length, int) and length >= 0 for length in shape) or math.prod(shape) != len(stored):
        raise Damaged("the shape of its array and its size do not agree")
    target.value = np.frombuffer(stored, dtype=np.uint8).reshape(shape)


def _since_mark(stack: list[Any]) -> list[Any]:
    place = max(place for place, value in enumerate(stack) if isinstance(value, _Mark))
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


def _of(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise Damaged("its program does not fit its values")
    return value


def _text(key: Any) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


def _latin(text: str) -> bytes:
    """The bytes of a text of Python 2."""
    return text.encode("latin-1")
