"""Batches: requests that a provider does when it has time, from the intent to the last of its answers.

    opened ──> uploaded ──> running ──> settled
       its attempts are `batch`: reserved, leased, and nobody's to recover but by looking the batch up at the provider

The intent is durable before anything is uploaded, with a token that goes into the provider's own record: a batch whose
id was lost by a crash is found again by it. Whoever asks for one of its places takes over the batch of a process that is gone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from .store import Store, Transaction

Place = tuple[str, str, int]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is known of a batch here. `remote` is the provider's id, "" before it is known; `attempts` are those left."""

    id: int
    token: str
    endpoint: str
    remote: str
    attempts: dict[Place, int]


class Batches:
    """The batches of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # Futures as of `Store.submit`: the first of the pair is the result.

    def open(self, *, token: str, endpoint: str, attempts: Sequence[int], now_ms: int) -> Future[tuple[int, Any]]:
        """Turn reserved attempts into a batch of our own; its number here."""
        work = partial(_open, token=token, endpoint=endpoint, attempts=list(attempts), now_ms=now_ms)
        return self._store.submit(partial(work, owner=self._store.owner))

    def created(self, batch: int, remote: str) -> Future[tuple[None, Any]]:
        """Keep the provider's id."""
        return self._store.submit(partial(_created, batch=batch, remote=remote))

    def take(self, batch: int) -> Future[tuple[Kept | None, Any]]:
        """Make a batch ours, unless another process that lives has it."""
        return self._store.submit(self._take_one(batch))

    def close(self, batch: int) -> Future[tuple[None, Any]]:
        """The batch is over, if none of its attempts is left."""
        return self._store.submit(partial(_close, batch=batch))

    def _take_one(self, batch: int) -> Callable[[Transaction], Kept | None]:
        def take(open_: Transaction) -> Kept | None:
            execute = open_.connection.execute
            row = execute("select token, endpoint, remote, owner from batches where id = ?", (batch,)).fetchone()
            if row is None:
                return None
            token, endpoint, remote, owner = row
            if owner != self._store.owner and self._store.is_alive(owner):
                return None
            execute("update batches set owner = ? where id = ?", (self._store.owner, batch))
            left = execute(
                "select key, namespace, draw, id from attempts where batch = ? and state = 'batch'", (batch,)
            ).fetchall()
            attempts = {(key, namespace, draw): attempt for key, namespace, draw, attempt in left}
            return Kept(id=batch, token=token, endpoint=endpoint, remote=remote, attempts=attempts)

        return take


def _open(open_: Transaction, *, token: str, endpoint: str, attempts: list[int], owner: str, now_ms: int) -> int:
    execute = open_.connection.execute
    batch = execute(
        "insert into batches (token, endpoint, remote, owner, state, at_ms) values (?, ?, '', ?, 'open', ?)",
        (token, endpoint, owner, now_ms),
    ).lastrowid
    assert batch is not None
    execute(
        "update attempts set state = 'batch', batch = ? "
        "where state = 'reserved' and id in (select value from json_each(?))",
        (batch, json.dumps(attempts)),
    )
    return batch


def _created(open_: Transaction, *, batch: int, remote: str) -> None:
    open_.connection.execute("update batches set remote = ?, state = 'running' where id = ?", (remote, batch))


def _close(open_: Transaction, *, batch: int) -> None:
    open_.connection.execute(
        "update batches set state = 'settled' where id = ?1 "
        "and not exists (select 1 from attempts where batch = ?1 and state = 'batch')",
        (batch,),
    )
