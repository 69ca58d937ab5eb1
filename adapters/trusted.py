"""An adapter that may see private records, because it is local or its role is trusted.

`gateway.py` decides who gets one, and lends the door by which alone it looks at records; `trusted_rows.py` asks, a row a
slot. Formal guarantee: none for what a trusted remote role receives. What it answers stays `Private`, in files of the
private folder, so that nothing is asked twice after a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ..cache.private_rows import Columns, MemoryRows, PrivateRows, Rows
from ..data.private_set import PrivateSet, Records
from ..data.voters import Voters
from ..privacy.private import OperationalError, Private
from .contract import AdapterError, AsyncAdapter, CaptionRequest, EmbedRequest, Image, ImageRequest, Refusal
from .roles import GatewayError, Role
from .trusted_rows import (
    AsyncAsker,
    BatchAsker,
    Question,
    RowRecords,
    binding,
    blank_of,
    fill,
    is_declared,
    largest_of,
    operational,
    rows_name,
)
from .wrappers.retrying import RetryingAsync
from .wrappers.streaming import Bridged

T = TypeVar("T")

CAPTION_BYTES = 4096
"""The row of a private caption: its length in four bytes, its UTF-8, zeros. A longer caption is cut."""


class Door(Protocol):
    """What `look` makes of the raw records, private again; its errors name the stage and nothing else."""

    def __call__(self, records: Private[Records], look: Callable[[Records], T], /, *, stage: str) -> Private[T]: ...


class TrustedAdapter:
    """A role that may see private records. Its answers are private, one row a slot; what a crash left is gone on with."""

    def __init__(
        self,
        role: Role,
        *,
        door: Door,
        private_dir: Path,
        key: bytes,
        chunk: int,
        bridge: Callable[[AsyncAdapter[Any, Any]], Bridged],
    ) -> None:
        self._role = role
        self._door = door
        self._private_dir = private_dir
        self._key = key
        self._chunk = chunk
        self._bridge = bridge

    def embed(self, private: PrivateSet) -> Private[Voters]:
        """The features of every record. A record whose features are not finite, or not of the public width, is a ghost."""
        blank = blank_of(private)
        width = self._width(blank)
        question = Question(
            request=lambda content: EmbedRequest(content=_content(content)),
            row=partial(_vector_row, width=width),
            row_bytes=4 * width,
            content=is_declared(private),
            blank=_raw(blank),
            largest=_raw(largest_of(private)),
        )

        def voters(records: Records) -> Voters:
            rows = self._answered(private, records, question, {"verb": "embed", "width": width})
            return Voters(embeddings=rows.payload.view(np.dtype("<f4")), labels=rows.labels, valid=rows.valid)

        return self._door(private.records, voters, stage=f"embedding by {self._role.name!r}")

    def caption(self, private: PrivateSet, *, prompt: str, max_tokens: int | None = None) -> PrivateSet:
        """The set with every image replaced by words about it; a refused image is a ghost."""
        if private.size is None:
            raise GatewayError(f"{private.name!r} holds texts; only images can be captioned")
        question = Question(
            request=lambda content: CaptionRequest(image=Image(content), prompt=prompt, draw=0, max_tokens=max_tokens),
            row=_caption_row,
            row_bytes=CAPTION_BYTES,
            content=is_declared(private),
            blank=_raw(blank_of(private)),
            largest=_raw(largest_of(private)),
        )
        about = {"verb": "caption", "prompt": prompt, "max_tokens": max_tokens}
        self._probe(question)

        def captions(records: Records) -> Records:
            return RowRecords(records.ids, self._answered(private, records, question, about), _caption)

        stage = f"captioning by {self._role.name!r}"
        derived = self._door(private.records, captions, stage=stage)
        return _derived(private, derived, size=None, channels=0, text_bytes=CAPTION_BYTES - 4)

    def paint(self, private: PrivateSet, *, size: tuple[int, int], channels: int) -> PrivateSet:
        """The set with every text replaced by an image of what it says; a refused text is a ghost."""
        if private.size is not None:
            raise GatewayError(f"{private.name!r} holds images; only texts can be painted")
        shape = (size[1], size[0], channels)
        question = Question(
            request=lambda content: ImageRequest(prompt=content, draw=0, size=size, channels=channels),
            row=partial(_image_row, shape=shape),
            row_bytes=shape[0] * shape[1] * shape[2],
            content=is_declared(private),
            blank=blank_of(private),
            largest=largest_of(private),
        )
        about = {"verb": "paint", "size": list(size), "channels": channels}
        self._probe(question)

        def images(records: Records) -> Records:
            rows = self._answered(private, records, question, about)
            return RowRecords(records.ids, rows, lambda row: np.array(row).reshape(shape))

        stage = f"painting by {self._role.name!r}"
        derived = self._door(private.records, images, stage=stage)
        return _derived(private, derived, size=size, channels=channels)

    def _answered(self, private: PrivateSet, records: Records, question: Question, about: Mapping[str, Any]) -> Columns:
        """Every slot's row, from the file of an earlier try where there is one."""
        role = self._role
        adapter = role.adapter
        if isinstance(adapter, RetryingAsync):
            asker = AsyncAsker(adapter, self._bridge, role.name)
        else:
            asker = BatchAsker(adapter, role.name)
        with operational(role.name):
            if len(records) != private.count:
                raise OperationalError(
                    f"{private.name!r} holds another number of slots than it declares; nothing was charged"
                )
            rows = self._rows(private, records, question, about)
            try:
                report = partial(role.tally.slots, total=private.count)
                return fill(rows, records, question, asker, chunk=self._chunk, pay=role.pay, report=report)
            finally:
                rows.close()

    def _rows(self, private: PrivateSet, records: Records, question: Question, about: Mapping[str, Any]) -> Rows:
        if self._role.config.cheap:
            return MemoryRows(slots=private.count, row_bytes=question.row_bytes)
        form = {"size": private.size, "channels": private.channels, "text_bytes": private.text_bytes}
        public = {
            "set": private.name,
            "partition": private.partition,
            "declaration": private.declaration,
            "classes": private.classes,
            "form": form,
            "role": self._role.name,
            "identity": self._role.identity,
            "settings": self._role.config.settings(),
            "ask": about,
        }
        path = self._private_dir / f"{rows_name(self._key, about=public)}.rows"
        bound = binding(self._key, records=records, about=public)
        return PrivateRows(path, slots=private.count, row_bytes=question.row_bytes, binding=bound)

    def _probe(self, question: Question) -> None:
        """A remote role that fails on a blank fails here, in public and before any record: whatever the records are."""
        if self._role.advance is not None:
            self._role.now.send([question.request(question.blank)])

    def _width(self, blank: Image | str) -> int:
        """How many features a record has, from a public blank."""
        reply = self._role.now.send([EmbedRequest(content=blank)])[0]
        if isinstance(reply, Refusal):
            raise AdapterError(
                f"{self._role.name!r} refuses to embed a blank, so its width is unknown; use another adapter"
            )
        return len(reply)


def _derived(
    private: PrivateSet,
    records: Private[Records],
    *,
    size: tuple[int, int] | None,
    channels: int,
    text_bytes: int = 0,
) -> PrivateSet:
    return PrivateSet(
        name=private.name,
        partition=private.partition,
        records=records,
        count=private.count,
        classes=private.classes,
        size=size,
        channels=channels,
        text_bytes=text_bytes,
        declaration=private.declaration,
    )


def _content(content: np.ndarray[Any, Any] | str) -> Image | str:
    return content if isinstance(content, str) else Image(content)


def _raw(content: Image | str) -> np.ndarray[Any, Any] | str:
    return content if isinstance(content, str) else content.pixels


def _vector_row(reply: Any, *, width: int) -> npt.NDArray[np.uint8] | None:
    """Float32 bytes of a finite vector of the public width; anything else is no answer."""
    if not isinstance(reply, np.ndarray):
        return None
    vector = cast("np.ndarray[Any, np.dtype[Any]]", reply)
    if vector.shape != (width,) or vector.dtype != np.float32 or not bool(np.isfinite(vector).all()):
        return None
    return np.ascontiguousarray(vector, dtype="<f4").view(np.uint8)


def _caption_row(reply: Any) -> npt.NDArray[np.uint8] | None:
    if not isinstance(reply, str):
        return None
    text = reply.encode("utf-8", "replace")[: CAPTION_BYTES - 4].decode("utf-8", "ignore").encode()
    return np.frombuffer((len(text).to_bytes(4, "little") + text).ljust(CAPTION_BYTES, b"\0"), dtype=np.uint8)


def _caption(row: npt.NDArray[np.uint8]) -> str:
    data = row.tobytes()
    return data[4 : 4 + int.from_bytes(data[:4], "little")].decode()


def _image_row(reply: Any, *, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8] | None:
    if not isinstance(reply, Image) or reply.pixels.shape != shape:
        return None
    return np.ascontiguousarray(reply.pixels).reshape(-1)
