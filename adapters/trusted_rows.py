"""Trusted rows: what a trusted adapter says about private records, a row a slot.

What is done with raw records behind the door of `gateway.py`; `trusted.py` says what is asked.

Formal guarantee: row i is a function of record i and of public values. A ghost's place in a batch holds a public
blank, so batches have public sizes and no row moves another. A failure that comes with a record alone (blanks in all
other places, or a blank asked beside it) makes a ghost of it; a failure that comes without it, or that has an operational
cause, stops the stage with words that no record chose. Progress counts slots, and so does what is paid.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..cache.keys import canonical_json
from ..cache.private_rows import Columns, Rows, RowsBusy
from ..data.private_set import PrivateSet, Record, Records
from ..data.voters import GHOST_LABEL
from ..privacy.private import OperationalError
from .contract import Adapter, AdapterUnavailable, AsyncAdapter, Cause, Image, Rejected, Stopped, Transient
from .wrappers.metered import MoneyExceeded, Probe
from .wrappers.streaming import Bridged

BLANK_TEXT = "blank"
"""Stands in a ghost's place. Not empty: some servers refuse an empty text, and a public blank must be answerable."""

_OPERATIONAL = (Transient, Stopped, AdapterUnavailable, OSError, MemoryError, OperationalError)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of every slot: a request from a record's content, and a row of fixed size from a reply."""

    request: Callable[[Any], Any]
    row: Callable[[Any], npt.NDArray[np.uint8] | None]
    """The reply's bytes, or None if it is no usable answer: a ghost."""
    row_bytes: int
    content: Callable[[Any], bool]
    """Whether a record's content is of the declared form."""
    blank: Any
    """A content of the declared form that stands in a ghost's place."""
    largest: Any
    """A public content of the declared form such that no other costs more to ask about."""


Answers = Generator[dict[int, Any]]


class Asker(Protocol):
    """Answers a chunk of slots, in groups of {position in the chunk: reply, or None for a ghost}."""

    def answers(self, requests: Sequence[Any], blank: Any, done: npt.NDArray[np.bool_], /) -> Answers: ...


def fill(
    rows: Rows,
    records: Records,
    question: Question,
    asker: Asker,
    *,
    chunk: int,
    pay: Callable[[Any, int], None],
    report: Callable[[int, int, int], None],
) -> Columns:
    """Give every slot its row; slots that have one are not asked again.

    `pay(the largest request, slots)` before anything of a chunk is asked, whichever of its slots are done;
    `report(fresh, among, done)` after it.
    """
    done = rows.done()
    for start in range(0, len(done), chunk):
        slots = np.arange(start, min(start + chunk, len(done)), dtype=np.int64)
        before = done[slots]
        if not before.all():
            pay(question.request(question.largest), len(slots))
            _fill_chunk(rows, records, question, asker, slots, before)
        report(int((~before).sum()), len(slots), int(slots[-1]) + 1)
    return rows.columns()


def _fill_chunk(
    rows: Rows,
    records: Records,
    question: Question,
    asker: Asker,
    slots: npt.NDArray[np.int64],
    done: npt.NDArray[np.bool_],
) -> None:
    blank = question.request(question.blank)
    with _silence():
        read = _read(records, range(int(slots[0]), int(slots[-1]) + 1), question)
    requests = [blank if record is None else question.request(record.content) for record in read]
    with closing(asker.answers(requests, blank, done)) as groups:
        for group in groups:
            positions = np.array(sorted(group), dtype=np.int64)
            payload = np.zeros((len(positions), question.row_bytes), dtype=np.uint8)
            labels = np.full(len(positions), GHOST_LABEL, dtype=np.int64)
            valid = np.zeros(len(positions), dtype=np.bool_)
            for place, position in enumerate(positions.tolist()):
                record, reply = read[position], group[position]
                row = None if record is None or reply is None else question.row(reply)
                if record is not None and row is not None:
                    payload[place], labels[place], valid[place] = row, record.label, True
            rows.write(slots[positions], payload, labels, valid)


class BatchAsker:
    """Asks a batch adapter for a whole chunk, whichever of its slots are done, so that a batch is always the same."""

    def __init__(self, adapter: Adapter[Any, Any], role: str) -> None:
        self._adapter = adapter
        self._role = role

    def answers(self, requests: Sequence[Any], blank: Any, done: npt.NDArray[np.bool_], /) -> Answers:
        replies = self._try(requests)
        if replies is None:
            replies = self._one_by_one(requests, blank)
        yield dict(enumerate(replies))

    def _one_by_one(self, requests: Sequence[Any], blank: Any) -> list[Any]:
        """Each record in its own place of a batch of blanks: a failure that comes with it is its own."""
        blanks = [blank] * len(requests)
        if self._try(blanks) is None:
            raise OperationalError(f"{self._role!r} fails on a batch of {len(requests)} blanks; nothing was charged")
        replies: list[Any] = []
        for position, request in enumerate(requests):
            alone = self._try([*blanks[:position], request, *blanks[position + 1 :]])
            replies.append(None if alone is None else alone[position])
        return replies

    def _try(self, requests: Sequence[Any]) -> Sequence[Any] | None:
        try:
            with _silence():
                replies = self._adapter.send(requests)
            return replies if len(replies) == len(requests) else None
        except Exception as error:  # Whether it is the record's or the adapter's own is tried with blanks
            if _is_operational(error):
                raise
            return None


class AsyncAsker:
    """Asks an async adapter for the slots of a chunk that are not done, each alone; yields them as they finish."""

    def __init__(self, adapter: AsyncAdapter[Any, Any], bridge: Callable[[AsyncAdapter[Any, Any]], Bridged], role: str):
        self._adapter = adapter
        self._bridge = bridge
        self._role = role

    def answers(self, requests: Sequence[Any], blank: Any, done: npt.NDArray[np.bool_], /) -> Answers:
        open_positions = np.flatnonzero(~done).tolist()
        bridged = self._bridge(_Settled(self._adapter, blank, self._role))
        with _silence():
            for group in bridged.stream([requests[position] for position in open_positions]):
                yield {open_positions[index]: reply.reply for index, reply in group}


@dataclass(frozen=True)
class _Settlement:
    reply: Any


class _Settled:
    """An async adapter whose failure on a record is a value, if a blank is answered at the same time.

    The adapter takes a blank as a `Probe`.
    """

    def __init__(self, adapter: AsyncAdapter[Any, Any], blank: Any, role: str) -> None:
        self._adapter = adapter
        self._blank = blank
        self._role = role
        self.location = adapter.location
        self.identity = adapter.identity

    async def answer(self, request: Any, /) -> _Settlement:
        settlement = await self._try(request)
        if settlement is None and await self._try(Probe(self._blank)) is None:
            raise OperationalError(f"{self._role!r} fails on a blank; nothing was charged")
        return settlement or _Settlement(None)

    async def _try(self, request: Any) -> _Settlement | None:
        try:
            return _Settlement(await self._adapter.answer(request))
        except Exception as error:  # As in BatchAsker.
            if _is_operational(error):
                raise
            return None

    async def close(self) -> None:
        await self._adapter.close()


def binding(key: bytes, *, records: Records, about: Any) -> bytes:
    """The keyed digest that ties rows to their set, model and question. Without `key` it tells nothing."""
    digest = hashlib.blake2b(key=_subkey(key, b"privolve rows binding"), digest_size=32)
    described = canonical_json(about).encode()
    digest.update(len(described).to_bytes(8, "little") + described)
    for part in records.parts():
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


def rows_name(key: bytes, *, about: Any) -> str:
    """The file name of rows, the same whatever the records are."""
    return hmac.new(_subkey(key, b"privolve rows name"), canonical_json(about).encode(), hashlib.sha256).hexdigest()[
        :40
    ]


class RowRecords:
    """Rows as records of a derived private set: captions of its images, images of its captions."""

    def __init__(
        self,
        ids: Sequence[str],
        columns: Columns,
        content: Callable[[npt.NDArray[np.uint8]], np.ndarray[Any, Any] | str],
    ) -> None:
        self._ids = tuple(ids)
        self._payload = columns.payload
        self._labels = columns.labels
        self._valid = columns.valid
        self._content = content

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def read(self, slot: int) -> Record | None:
        if not self._valid[slot]:
            return None
        return Record(self._content(self._payload[slot]), int(self._labels[slot]))

    def read_many(self, start: int, stop: int) -> Sequence[Record | None]:
        return [self.read(slot) for slot in range(start, stop)]

    def raw(self, slot: int) -> bytes:
        head = bytes([bool(self._valid[slot])]) + self._labels[slot].astype("<i8").tobytes()
        return head + self._payload[slot].tobytes()

    def parts(self) -> Iterator[bytes]:
        for slot in range(len(self)):
            yield self.raw(slot)


def blank_of(private: PrivateSet) -> Image | str:
    """A public content of the set's declared form."""
    if private.size is None:
        return BLANK_TEXT
    width, height = private.size
    return Image(np.zeros((height, width, private.channels), dtype=np.uint8))


def largest_of(private: PrivateSet) -> Image | str:
    """A public content of the set's declared form that costs no less to ask about than any other: as long as a text may be."""
    return "x" * private.text_bytes if private.size is None else blank_of(private)


def is_declared(private: PrivateSet) -> Callable[[Any], bool]:
    """Whether a content has the form that the set declares."""
    if private.size is None:
        return lambda content: isinstance(content, str) and _bytes_of(content) <= private.text_bytes
    width, height = private.size
    shape = (height, width, private.channels)

    def fits(content: Any) -> bool:
        return isinstance(content, np.ndarray) and content.dtype == np.uint8 and content.shape == shape

    return fits


def _bytes_of(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _is_operational(error: Exception) -> bool:
    """Whether a failure has a cause other than the request: then no record is judged by it."""
    if isinstance(error, Rejected) or (isinstance(error, Transient) and error.cause is Cause.MALFORMED):
        return False
    return isinstance(error, _OPERATIONAL)


@contextmanager
def operational(role: str) -> Iterator[None]:
    """Failures with an operational cause become an `OperationalError` whose words no record chose."""
    again = "nothing was charged; run the same command again to go on"
    try:
        yield
    except OperationalError as error:
        words = str(error)
    except MoneyExceeded as error:
        words = str(error)  # Private requests are paid in advance, by public figures.
    except Transient:
        words = f"{role!r} gave no answer before its deadline; {again}"
    except Stopped:
        words = f"{role!r} stopped: its key, its account or its model needs you; {again}"
    except AdapterUnavailable:
        words = f"{role!r} cannot be opened; {again}"
    except RowsBusy:
        words = f"the private rows of {role!r} are in use by another process; {again}"
    except OSError as error:
        cause = os.strerror(error.errno) if error.errno else type(error).__name__
        words = f"{role!r} stopped: {cause}; {again}"
    except MemoryError:
        words = f"{role!r} ran out of memory; {again}"
    else:
        return
    raise OperationalError(words) from None


def _read(records: Records, slots: range, question: Question) -> list[Record | None]:
    """The records of some slots; one that cannot be decoded, or has not the declared form, is a ghost in its slot."""
    try:
        read = list(records.read_many(slots.start, slots.stop))
    except (OSError, MemoryError):
        raise
    except Exception:  # noqa: BLE001  one of them: each alone tells which
        read = [_read_one(records, slot) for slot in slots]
    return [record if record is not None and question.content(record.content) else None for record in read]


def _read_one(records: Records, slot: int) -> Record | None:
    try:
        return records.read(slot)
    except (OSError, MemoryError):
        raise
    except Exception:  # noqa: BLE001
        return None


@contextmanager
def _silence() -> Iterator[None]:
    """No warning and no log line while an adapter looks at a record: their text may hold it, and their number tells."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _subkey(key: bytes, purpose: bytes) -> bytes:
    return hmac.new(key, purpose, hashlib.sha256).digest()
