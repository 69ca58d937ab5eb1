"""Bodies of requests: JSON, or a form with files, of a bounded size and never from a web page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from python_multipart import create_form_parser
from python_multipart.exceptions import FormParserError

from .translation import Unacceptable

LARGEST_BODY = 64 * 2**20
_BROWSERS = ("origin", "sec-fetch-site")
"""Headers that every browser sends with a form to another site and no program does."""


async def json_body(request: Request) -> dict[str, Any]:
    """The JSON of a request, declared as JSON, which no form of a web page can do."""
    if _kind(request) != "application/json":
        raise Unacceptable("the body is JSON, and the content-type says so", status=415, code="unsupported_media_type")
    try:
        body = json.loads(await _received(request))
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Unacceptable("the body is not a JSON object", code="invalid_json")
    return body


async def form_body(request: Request, *, has_token: bool) -> tuple[dict[str, Any], Mapping[str, list[bytes]]]:
    """The fields of a form, numbers as such, and its files by field, without their names.

    A web page may send a form to any server that its browser reaches; without a token such a one is refused.
    """
    if _kind(request) != "multipart/form-data":
        raise Unacceptable(
            "the body is a form with files: multipart/form-data", status=415, code="unsupported_media_type"
        )
    if not has_token and any(name in request.headers for name in _BROWSERS):
        raise Unacceptable("forms of web pages are not taken", status=403, code="wrong_origin")
    received = await _received(request)
    fields: dict[str, Any] = {}
    files: dict[str, list[bytes]] = {}

    def on_field(field: Any) -> None:
        fields[_name(field)] = _value((field.value or b"").decode("utf-8", "replace"))

    def on_file(file: Any) -> None:
        file.file_object.seek(0)
        files.setdefault(_name(file), []).append(file.file_object.read())

    try:
        parser = create_form_parser(
            {"Content-Type": request.headers["content-type"].encode("latin-1")},
            on_field,
            on_file,
            config={"MAX_MEMORY_FILE_SIZE": LARGEST_BODY},
        )
        parser.write(received)
        parser.finalize()
    except (FormParserError, ValueError):
        raise Unacceptable("the form cannot be read", code="invalid_form") from None
    return fields, files


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _received(request: Request) -> bytes:
    received = bytearray()
    async for piece in request.stream():
        received += piece
        if len(received) > LARGEST_BODY:
            raise Unacceptable("the body is larger than 64 MiB", status=413, code="too_large")
    return bytes(received)


def _name(part: Any) -> str:
    """`image[]` is one of a list under `image`."""
    return (part.field_name or b"").decode("utf-8", "replace").removesuffix("[]")


def _value(text: str) -> Any:
    """A form has texts alone: what is a number or true or false in JSON is that."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, bool | int | float) else text
