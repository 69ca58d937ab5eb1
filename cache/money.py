"""Money: what a run may spend, reserved before a request is sent, settled when its answer is kept, in one database.

    reserved ──> sent ──> settled      the answer is kept and the reported usage charged, in one transaction
        │         └─────> lost         nobody knows whether it was billed: the reservation counts as spent
        └─────> refunded               never sent, or certainly not billed

An attempt that is reserved or sent is also the lease on its place: no other process asks the same question meanwhile.
Amounts are millionths of a dollar, whole numbers. Reserving is one conditional update, so that spent + reserved never
passes the cap, whoever else reserves at the same time. What a killed process left is told by its owner's lock, not by
a clock: its reservations that were not sent return, those that were sent are lost.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal
from functools import partial
from typing import Any

from .keys import Address
from .store import Answers, Saved, Store, Transaction

MICRO = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Charge:
    """What one attempt cost in the end, and by what account: enough to compute it again."""

    micro: int
    price_version: str = ""
    model: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict[str, Any])
    request_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """The money of one scope. `possible`: the part of `spent` of which nobody knows whether it was billed."""

    cap: int | None = None
    reserved: int = 0
    spent: int = 0
    possible: int = 0


@dataclass(frozen=True)
class Reserved:
    """Go on with this attempt."""

    attempt: int


@dataclass(frozen=True)
class Answered:
    """Another was first; its reply."""

    saved: Saved


@dataclass(frozen=True)
class Busy:
    """Another process asks the same question now."""


@dataclass(frozen=True)
class Later:
    """The budget has room only when some of what is reserved is settled for less."""


@dataclass(frozen=True)
class UsedUp:
    """The budget cannot pay for this attempt, whatever becomes of the others."""

    totals: Totals


@dataclass(frozen=True)
class LostBefore:
    """An earlier attempt was sent and its reply lost: it may have been billed, and is not to be sent again unasked."""


Outcome = Reserved | Answered | Busy | Later | UsedUp | LostBefore


def micro(dollars: float) -> int:
    """Millionths of a dollar, rounded down.

    >>> micro(0.29)
    290000
    """
    return int((Decimal(str(dollars)) * MICRO).to_integral_value(ROUND_FLOOR))


def dollars(amount: int) -> str:
    """An amount for a reader.

    >>> dollars(1_234_567), dollars(420)
    ('$1.23', '$0.00042')
    """
    return f"${amount / MICRO:,.2f}" if amount >= MICRO // 100 or amount == 0 else f"${amount / MICRO:.6f}".rstrip("0")


class Money:
    """The budget of one scope (a run) in a store. `cap` None: count only. What earlier processes left is recovered here."""

    def __init__(
        self, store: Store, *, scope: str, cap: int | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._scope = scope
        self._clock = clock
        store.submit(partial(_open, scope=scope, cap=cap)).result()
        self.recover()

    @property
    def store(self) -> Store:
        return self._store

    def reserve(
        self, role: str, amount: int, *, place: Address | None, again: bool = True, fresh: bool = False
    ) -> Future[Outcome]:
        """Take the lease on `place` and the most that the attempt can cost.

        `again` False: refuse where an earlier attempt for the place was lost. `fresh`: whatever answer is there.
        """
        reserve = partial(self._reserve, role=role, amount=amount, place=place, again=again, fresh=fresh)
        return _first(self._store.submit(reserve))

    def sent(self, attempt: int) -> Future[None]:
        """The request goes out now: from here on it may be billed."""
        return _first(self._store.submit(partial(_mark_sent, attempt=attempt)))

    def settle(
        self, attempt: int, charge: Charge, answers: Answers = (), *, replace: bool = False
    ) -> Future[tuple[None, list[Saved]]]:
        """Charge what it cost and keep the answers, together. The future has what now lies at their places."""
        end = partial(_end, attempt=attempt, state="settled", charge=charge, now=self._now())
        return self._store.submit(end, answers, replace=replace)

    def refund(self, attempt: int) -> Future[None]:
        """It was not sent, or certainly not billed."""
        return _first(
            self._store.submit(partial(_end, attempt=attempt, state="refunded", charge=None, now=self._now()))
        )

    def lose(self, attempt: int, charge: Charge | None = None) -> Future[None]:
        """It was sent and may have been billed: `charge` if that was said, else all that was reserved."""
        return _first(self._store.submit(partial(_end, attempt=attempt, state="lost", charge=charge, now=self._now())))

    def totals(self) -> Totals:
        return self._store.submit(partial(_totals, scope=self._scope)).result()[0]

    def by_role(self) -> Mapping[str, int]:
        """Spent so far, by role."""
        return self._store.submit(partial(_by_role, scope=self._scope)).result()[0]

    def recover(self) -> int:
        """End what processes that are gone left under way, in any scope; how many attempts that were."""
        return self._store.submit(self._recover).result()[0]

    def _reserve(
        self, open_: Transaction, *, role: str, amount: int, place: Address | None, again: bool, fresh: bool
    ) -> Outcome:
        execute = open_.connection.execute
        if place is not None:
            saved = None if fresh else open_.find(place)
            if saved is not None:
                return Answered(saved)
            live = execute(
                "select owner from attempts where key = ? and namespace = ? and draw = ? and state in ('reserved', 'sent')",
                place.place,
            ).fetchone()
            if live is not None:
                if self._store.is_alive(live[0]):
                    return Busy()
                _recover_owner(open_, live[0], self._now())
            if not again and _was_lost(open_, place):
                return LostBefore()
        room = execute(
            "update budgets set reserved = reserved + ?1 where scope = ?2 and (cap is null or spent + reserved + ?1 <= cap)",
            (amount, self._scope),
        ).rowcount
        if not room:
            totals = _totals(open_, scope=self._scope)
            impossible = totals.cap is not None and totals.spent + amount > totals.cap
            return UsedUp(totals) if impossible else Later()
        row = execute(
            "insert into attempts (key, namespace, draw, scope, role, owner, state, reserved, at_ms) "
            "values (?, ?, ?, ?, ?, ?, 'reserved', ?, ?)",
            (
                *(place.place if place else (None, None, None)),
                self._scope,
                role,
                self._store.owner,
                amount,
                self._now(),
            ),
        ).lastrowid
        assert row is not None
        return Reserved(row)

    def _recover(self, open_: Transaction) -> int:
        owners = open_.connection.execute(
            "select distinct owner from attempts where state in ('reserved', 'sent')"
        ).fetchall()
        return sum(_recover_owner(open_, owner, self._now()) for (owner,) in owners if not self._store.is_alive(owner))

    def _now(self) -> int:
        return int(self._clock() * 1000)


def _open(open_: Transaction, *, scope: str, cap: int | None) -> None:
    open_.connection.execute(
        "insert into budgets (scope, cap, reserved, spent, possible) values (?, ?, 0, 0, 0) "
        "on conflict (scope) do update set cap = excluded.cap",
        (scope, cap),
    )


def _mark_sent(open_: Transaction, *, attempt: int) -> None:
    open_.connection.execute("update attempts set state = 'sent' where id = ? and state = 'reserved'", (attempt,))


def _end(open_: Transaction, *, attempt: int, state: str, charge: Charge | None, now: int) -> None:
    """End a live attempt; one that has ended already stays as it is."""
    execute = open_.connection.execute
    row = execute(
        "select scope, reserved from attempts where id = ? and state in ('reserved', 'sent')", (attempt,)
    ).fetchone()
    if row is None:
        return
    scope, reserved = row
    spent = 0 if state == "refunded" else reserved if charge is None else charge.micro
    about = charge or Charge(micro=spent)
    execute(
        "update attempts set state = ?, charged = ?, model = ?, price_version = ?, usage = ?, request_id = ?, done_ms = ? "
        "where id = ?",
        (
            state,
            spent,
            about.model,
            about.price_version,
            json.dumps(dict(about.usage), default=str),
            about.request_id,
            now,
            attempt,
        ),
    )
    execute(
        "update budgets set reserved = reserved - ?, spent = spent + ?, possible = possible + ? where scope = ?",
        (reserved, spent, spent if state == "lost" else 0, scope),
    )


def _recover_owner(open_: Transaction, owner: str, now: int) -> int:
    rows = open_.connection.execute(
        "select id, state from attempts where owner = ? and state in ('reserved', 'sent')", (owner,)
    ).fetchall()
    for attempt, state in rows:
        _end(open_, attempt=attempt, state="lost" if state == "sent" else "refunded", charge=None, now=now)
    return len(rows)


def _was_lost(open_: Transaction, place: Address) -> bool:
    return (
        open_.connection.execute(
            "select 1 from attempts where key = ? and namespace = ? and draw = ? and state = 'lost' limit 1",
            place.place,
        ).fetchone()
        is not None
    )


def _totals(open_: Transaction, *, scope: str) -> Totals:
    row = open_.connection.execute(
        "select cap, reserved, spent, possible from budgets where scope = ?", (scope,)
    ).fetchone()
    return Totals() if row is None else Totals(cap=row[0], reserved=row[1], spent=row[2], possible=row[3])


def _by_role(open_: Transaction, *, scope: str) -> Mapping[str, int]:
    rows: Sequence[tuple[str, int]] = open_.connection.execute(
        "select role, sum(coalesce(charged, 0)) from attempts where scope = ? group by role order by role", (scope,)
    ).fetchall()
    return dict(rows)


def _first(pair: Future[tuple[Any, list[Saved]]]) -> Future[Any]:
    """The work's own result."""
    alone: Future[Any] = Future()

    def done(pair: Future[tuple[Any, list[Saved]]]) -> None:
        error = pair.exception()
        if error is not None:
            alone.set_exception(error)
        else:
            alone.set_result(pair.result()[0])

    pair.add_done_callback(done)
    return alone
