"""Money: what a run may spend, reserved before a request is sent, settled when its answer is kept, in one database.

    reserved ──> sent ──> settled      the answer is kept and the reported usage charged, in one transaction
        │         └─────> lost         nobody knows whether it was billed: the reservation counts as spent
        ├─────> refunded               never sent, or certainly not billed
        └─────> batch ──> settled, lost or refunded, when the provider's batch is looked up (`batches.py`)

An attempt that is reserved, sent or in a batch is the lease on its place: no other process asks the same question meanwhile.
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
from .statements import MOST_TOGETHER, flat, values
from .store import Answers, Saved, Store, Together, Transaction

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


@dataclass(frozen=True)
class InBatch:
    """It was asked in a batch whose answers were not fetched yet, and whose process is gone or this one."""

    batch: int


Outcome = Reserved | Answered | Busy | Later | UsedUp | LostBefore | InBatch


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What one `reserve` wants."""

    role: str
    amount: int
    place: Address | None
    again: bool
    fresh: bool
    sent: bool


@dataclass(frozen=True)
class _Ending:
    attempt: int
    state: str
    charge: Charge | None
    now: int


_BEGUN = """
insert into attempts (id, key, namespace, draw, scope, role, owner, state, reserved, at_ms) values {rows}
"""
_LIVE_AT = """
select v.column1, coalesce(b.owner, a.owner), a.batch from (values {rows}) v cross join attempts a
on a.key = v.column2 and a.namespace = v.column3 and a.draw = v.column4 and a.state in ('reserved', 'sent', 'batch')
left join batches b on b.id = a.batch
"""
_LIVE_OF = """
select json_group_array(json_array(id, scope, reserved)) from attempts
where id in (select value from json_each(?)) and state in ('reserved', 'sent', 'batch')
"""
_ENDED = """
update attempts set state = v.column2, charged = v.column3, model = v.column4, price_version = v.column5,
usage = v.column6, request_id = v.column7, done_ms = v.column8
from (values {rows}) v where attempts.id = v.column1
"""


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
        self,
        role: str,
        amount: int,
        *,
        place: Address | None,
        again: bool = True,
        fresh: bool = False,
        sent: bool = False,
    ) -> Future[Outcome]:
        """Take the lease on `place` and the most that the attempt can cost.

        `again` False: refuse where an earlier attempt for the place was lost. `fresh`: whatever answer is there.
        `sent`: the request goes out as soon as this is durable, and may be billed from then on.
        """
        asked = _Asked(role=role, amount=amount, place=place, again=again, fresh=fresh, sent=sent)
        return self._together(self._reserve, asked, rank=2)

    def sent(self, attempt: int) -> Future[None]:
        """The request goes out now: from here on it may be billed."""
        return self._together(_mark_sent, attempt, rank=0)

    def settle(
        self, attempt: int, charge: Charge, answers: Answers = (), *, replace: bool = False
    ) -> Future[tuple[None, list[Saved]]]:
        """Charge what it cost and keep the answers, together. The future has what now lies at their places."""
        ending = _Ending(attempt, "settled", charge, self.now_ms())
        return self._store.submit(Together(do=_end, item=ending, rank=1), answers, replace=replace)

    def refund(self, attempt: int) -> Future[None]:
        """It was not sent, or certainly not billed."""
        return self._together(_end, _Ending(attempt, "refunded", None, self.now_ms()), rank=1)

    def lose(self, attempt: int, charge: Charge | None = None) -> Future[None]:
        """It was sent and may have been billed: `charge` if that was said, else all that was reserved."""
        return self._together(_end, _Ending(attempt, "lost", charge, self.now_ms()), rank=1)

    def totals(self) -> Totals:
        return self._store.submit(partial(_totals, scope=self._scope)).result()[0]

    def by_role(self) -> Mapping[str, int]:
        """Spent so far, by role."""
        return self._store.submit(partial(_by_role, scope=self._scope)).result()[0]

    def recover(self) -> int:
        """End what processes that are gone left under way, in any scope; how many attempts that were."""
        return self._store.submit(self._recover).result()[0]

    def _together(self, do: Callable[[Transaction, Sequence[Any]], Sequence[Any]], item: Any, *, rank: int) -> Any:
        return _first(self._store.submit(Together(do=do, item=item, rank=rank)))

    def _reserve(self, open_: Transaction, asked: Sequence[_Asked]) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        self._look(open_, asked, outcomes)
        granted = self._granted(open_, [index for index in range(len(asked)) if index not in outcomes], asked, outcomes)
        if granted:
            self._begin(open_, granted, asked, outcomes)
        return [outcomes[index] for index in range(len(asked))]

    def _look(self, open_: Transaction, asked: Sequence[_Asked], outcomes: dict[int, Outcome]) -> None:
        """Which of them are answered, or asked by another, or were lost before."""
        placed = [(index, each.place) for index, each in enumerate(asked) if each.place is not None]
        wanted = [(index, place) for index, place in placed if not asked[index].fresh]
        if wanted:
            found = open_.find([place for _, place in wanted])
            outcomes |= {
                index: Answered(saved) for (index, _), saved in zip(wanted, found, strict=True) if saved is not None
            }
        rows = [(index, *place.place) for index, place in placed if index not in outcomes]
        if not rows:
            return
        live = open_.connection.execute(_LIVE_AT.format(rows=values(rows)), flat(rows)).fetchall()
        for owner in {owner for _, owner, _ in live}:
            mine = owner == self._store.owner
            if self._store.is_alive(owner):
                outcomes |= {
                    index: InBatch(batch) if mine and batch is not None else Busy()
                    for index, whose, batch in live
                    if whose == owner
                }
            else:
                outcomes |= {
                    index: InBatch(batch) for index, whose, batch in live if whose == owner and batch is not None
                }
                _recover_owner(open_, owner, self.now_ms())
        first: set[tuple[str, str, int]] = set()
        for index, place in placed:
            if index in outcomes:
                continue
            if place.place in first:
                outcomes[index] = Busy()
            elif not asked[index].again and _was_lost(open_, place):
                outcomes[index] = LostBefore()
            first.add(place.place)

    def _granted(
        self, open_: Transaction, left: list[int], asked: Sequence[_Asked], outcomes: dict[int, Outcome]
    ) -> list[int]:
        """For which of them there is room: for all at once, or for one after another."""
        if not left or self._has_room(open_, sum(asked[index].amount for index in left)):
            return left
        granted: list[int] = []
        for index in left:
            amount = asked[index].amount
            if self._has_room(open_, amount):
                granted.append(index)
                continue
            totals = _totals(open_, scope=self._scope)
            impossible = totals.cap is not None and totals.spent + amount > totals.cap
            outcomes[index] = UsedUp(totals) if impossible else Later()
        return granted

    def _has_room(self, open_: Transaction, amount: int) -> bool:
        return bool(
            open_.connection.execute(
                "update budgets set reserved = reserved + ?1 where scope = ?2 and (cap is null or spent + reserved + ?1 <= cap)",
                (amount, self._scope),
            ).rowcount
        )

    def _begin(
        self, open_: Transaction, granted: list[int], asked: Sequence[_Asked], outcomes: dict[int, Outcome]
    ) -> None:
        following = open_.connection.execute("select coalesce(max(id), 0) + 1 from attempts").fetchone()[0]
        now, owner = self.now_ms(), self._store.owner
        rows: list[tuple[Any, ...]] = []
        for attempt, index in enumerate(granted, following):
            each = asked[index]
            place = each.place.place if each.place else (None, None, None)
            state = "sent" if each.sent else "reserved"
            rows.append((attempt, *place, self._scope, each.role, owner, state, each.amount, now))
            outcomes[index] = Reserved(attempt)
        open_.connection.execute(_BEGUN.format(rows=values(rows)), flat(rows))

    def _recover(self, open_: Transaction) -> int:
        owners = open_.connection.execute(
            "select distinct owner from attempts where state in ('reserved', 'sent')"
        ).fetchall()
        return sum(
            _recover_owner(open_, owner, self.now_ms()) for (owner,) in owners if not self._store.is_alive(owner)
        )

    def now_ms(self) -> int:
        return int(self._clock() * 1000)


def _open(open_: Transaction, *, scope: str, cap: int | None) -> None:
    open_.connection.execute(
        "insert into budgets (scope, cap, reserved, spent, possible) values (?, ?, 0, 0, 0) "
        "on conflict (scope) do update set cap = excluded.cap",
        (scope, cap),
    )


def _mark_sent(open_: Transaction, attempts: Sequence[int]) -> list[None]:
    open_.connection.execute(
        "update attempts set state = 'sent' where state = 'reserved' and id in (select value from json_each(?))",
        (json.dumps(list(attempts)),),
    )
    return [None] * len(attempts)


def _end(open_: Transaction, endings: Sequence[_Ending]) -> list[None]:
    """End live attempts; one that has ended already stays as it is."""
    execute = open_.connection.execute
    first: dict[int, _Ending] = {}
    for each in endings:
        first.setdefault(each.attempt, each)
    # One row, whatever their number: each row that is fetched costs a wait of its own.
    live = json.loads(execute(_LIVE_OF, (json.dumps(list(first)),)).fetchone()[0])
    changes: dict[str, list[int]] = {}
    rows: list[tuple[Any, ...]] = []
    for attempt, scope, reserved in live:
        ending = first[attempt]
        spent = 0 if ending.state == "refunded" else reserved if ending.charge is None else ending.charge.micro
        about = ending.charge or Charge(micro=spent)
        usage = json.dumps(dict(about.usage), default=str)
        told = (about.model, about.price_version, usage, about.request_id, ending.now)
        rows.append((attempt, ending.state, spent, *told))
        change = changes.setdefault(scope, [0, 0, 0])
        change[0] += reserved
        change[1] += spent
        change[2] += spent if ending.state == "lost" else 0
    if rows:
        execute(_ENDED.format(rows=values(rows)), flat(rows))
    for scope, (reserved, spent, possible) in changes.items():
        execute(
            "update budgets set reserved = reserved - ?, spent = spent + ?, possible = possible + ? where scope = ?",
            (reserved, spent, possible, scope),
        )
    return [None] * len(endings)


def _recover_owner(open_: Transaction, owner: str, now: int) -> int:
    rows = open_.connection.execute(
        "select id, state from attempts where owner = ? and state in ('reserved', 'sent')", (owner,)
    ).fetchall()
    for start in range(0, len(rows), MOST_TOGETHER):
        _end(
            open_,
            [
                _Ending(attempt, "lost" if state == "sent" else "refunded", None, now)
                for attempt, state in rows[start : start + MOST_TOGETHER]
            ],
        )
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
