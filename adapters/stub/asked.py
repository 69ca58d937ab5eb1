"""One request to the stub, understood: its protocol, its model, its fields, and which sample of it is wanted."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .answers import Bytes, tokens
from .script import Script
from .wire import Incoming


class Dialect(StrEnum):
    OPENAI = "openai"
    DASHSCOPE = "dashscope"
    COMPATIBLE = "dashscope, compatible mode"
    """OpenAI's protocol with DashScope's errors."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file in a form."""

    name: str
    filename: str
    content: bytes


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an endpoint answers. `sample` counts the equal requests answered before; `seed` is the script's."""

    dialect: Dialect
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    model: str
    fields: Mapping[str, Any]
    uploads: tuple[Upload, ...]
    essence: bytes
    sample: int
    script: Script
    root: str
    """The stub's own address, for the URLs that it hands out."""
    same: bool = False
    """Whether a fault has made every answer the same."""

    def bytes_of(self, index: int = 0) -> bytes:
        """What the answer's `index`-th choice is made of."""
        if self.same:
            return b"same"
        sample = 0 if not self.script.fresh or self.fields.get("temperature") == 0 else self.sample
        return Bytes(self.script.seed, self.essence, sample, index).digest


def dialect_of(path: str) -> Dialect:
    if path.startswith("/api/v1/"):
        return Dialect.DASHSCOPE
    return Dialect.COMPATIBLE if path.startswith("/compatible-mode/") else Dialect.OPENAI


def fields_of(incoming: Incoming) -> tuple[dict[str, Any], tuple[Upload, ...], bytes]:
    """The fields and files of a JSON or form body, and its bytes without what is random in them."""
    kind = incoming.headers.get("content-type", "")
    if kind.startswith("multipart/form-data"):
        found = re.search(r'boundary="?([^";]+)', kind)
        boundary = found[1].encode("latin-1") if found else b""
        fields, uploads = _form(incoming.body, boundary)
        return fields, uploads, incoming.body.replace(boundary, b"") if boundary else incoming.body
    if not incoming.body:
        return {}, (), b""
    try:
        fields = json.loads(incoming.body)
    except ValueError:
        fields = None
    return (fields if isinstance(fields, dict) else {"$not-json": True}), (), incoming.body


def words_in(value: Any) -> str:
    """Every text under `value`, images and other files left out."""
    if isinstance(value, str):
        return "" if value.startswith("data:") else value
    if isinstance(value, Mapping):
        return " ".join(filter(None, (words_in(each) for key, each in value.items() if key not in ("type", "role"))))
    return " ".join(filter(None, map(words_in, value))) if isinstance(value, list) else ""


def images_in(value: Any) -> int:
    """How many images lie under `value`."""
    if isinstance(value, str):
        return int(value.startswith("data:image/"))
    if isinstance(value, Mapping):
        return sum(map(images_in, value.values()))
    return sum(map(images_in, value)) if isinstance(value, list) else 0


def input_tokens(messages: Any) -> int:
    """What a conversation is said to have cost: its words, four tokens a message, 85 an image."""
    count = len(messages) if isinstance(messages, list) else 1
    return tokens(words_in(messages)) + 4 * count + 85 * images_in(messages)


def _form(body: bytes, boundary: bytes) -> tuple[dict[str, Any], tuple[Upload, ...]]:
    fields: dict[str, Any] = {}
    uploads: list[Upload] = []
    if not boundary:
        return fields, ()
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        content = content.removesuffix(b"\r\n")
        said = head.decode("latin-1")
        name = re.search(r'\bname="([^"]*)"', said)
        filename = re.search(r'\bfilename="([^"]*)"', said)
        if name is None:
            continue
        if filename is None:
            fields[name[1]] = content.decode("utf-8", "replace")
        else:
            uploads.append(Upload(name=name[1], filename=filename[1], content=content))
    return fields, tuple(uploads)
