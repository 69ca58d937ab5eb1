"""The budget: never passed, whoever reserves at the same time and whoever is killed meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privolve.cache.keys import Address
from privolve.cache.money import (
    Answered,
    Busy,
    Charge,
    Later,
    LostBefore,
    Money,
    Reserved,
    Totals,
    UsedUp,
    dollars,
    micro,
)
from privolve.cache.sqlite import SqliteStore
from privolve.cache.store import MemoryStore, Saved, Transaction

PLACE = Address(key="k1:a", namespace="run", draw=0, canonical="{}")


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "cache.db")
    yield store
    store.close()


def reserved(future: Future) -> int:
    outcome = future.result()
    assert isinstance(outcome, Reserved)
    return outcome.attempt


def test_money_is_reserved_then_settled_at_what_it_cost(store):
    money = Money(store, scope="run", cap=100)
    attempt = reserved(money.reserve("writer", 40, place=PLACE))
    assert money.totals() == Totals(cap=100, reserved=40, spent=0)
    money.sent(attempt).result()
    money.settle(attempt, Charge(micro=25), [(PLACE, Saved(kind="text", payload=b"words"))]).result()
    assert money.totals() == Totals(cap=100, reserved=0, spent=25)
    assert money.by_role() == {"writer": 25}
    assert store.get([PLACE])[0].payload == b"words"


def test_what_was_not_billed_returns_and_what_may_have_been_does_not(store):
    money = Money(store, scope="run", cap=100)
    money.refund(reserved(money.reserve("writer", 40, place=None))).result()
    assert money.totals() == Totals(cap=100)
    lost = reserved(money.reserve("writer", 40, place=None))
    money.sent(lost).result()
    money.lose(lost).result()
    assert money.totals() == Totals(cap=100, spent=40, possible=40)
    money.lose(lost).result()  # An attempt ends once.
    assert money.totals().spent == 40


def test_a_budget_that_others_have_reserved_is_waited_for_and_a_spent_one_is_not(store):
    money = Money(store, scope="run", cap=100)
    attempt = reserved(money.reserve("writer", 80, place=None))
    assert isinstance(money.reserve("writer", 80, place=None).result(), Later)
    money.settle(attempt, Charge(micro=30)).result()
    outcome = money.reserve("writer", 80, place=None).result()
    assert isinstance(outcome, UsedUp)
    assert outcome.totals.spent == 30
    assert isinstance(money.reserve("writer", 70, place=None).result(), Reserved)


def test_scopes_have_budgets_of_their_own(store):
    one, other = Money(store, scope="one", cap=10), Money(store, scope="other", cap=None)
    reserved(one.reserve("writer", 10, place=None))
    reserved(other.reserve("writer", 10_000, place=None))
    assert (one.totals().reserved, other.totals().reserved) == (10, 10_000)


def test_a_raised_cap_holds_from_then_on_and_what_was_spent_stays(store):
    first = Money(store, scope="run", cap=10)
    first.settle(reserved(first.reserve("writer", 10, place=None)), Charge(micro=10)).result()
    again = Money(store, scope="run", cap=30)
    assert again.totals() == Totals(cap=30, spent=10)
    assert isinstance(again.reserve("writer", 21, place=None).result(), UsedUp)
    assert isinstance(again.reserve("writer", 20, place=None).result(), Reserved)


def test_one_place_has_one_attempt_at_a_time_and_then_an_answer(store):
    money = Money(store, scope="run")
    attempt = reserved(money.reserve("writer", 1, place=PLACE))
    assert isinstance(money.reserve("writer", 1, place=PLACE).result(), Busy)
    money.settle(attempt, Charge(micro=1), [(PLACE, Saved(kind="text", payload=b"words"))]).result()
    outcome = money.reserve("writer", 1, place=PLACE).result()
    assert isinstance(outcome, Answered)
    assert outcome.saved.payload == b"words"
    assert money.totals() == Totals(spent=1)


def test_what_was_lost_is_not_sent_again_where_that_needs_asking(store):
    money = Money(store, scope="run")
    money.lose(reserved(money.reserve("painter", 1, place=PLACE))).result()
    assert isinstance(money.reserve("painter", 1, place=PLACE, again=False).result(), LostBefore)
    assert isinstance(money.reserve("painter", 1, place=PLACE).result(), Reserved)


def test_a_charge_is_kept_with_all_that_it_takes_to_compute_it_again(tmp_path):
    store = SqliteStore(tmp_path / "cache.db")
    money = Money(store, scope="run")
    attempt = reserved(money.reserve("writer", 9, place=PLACE))
    usage = {"input_tokens": 3, "raw": {"prompt_tokens": 3}}
    money.settle(
        attempt, Charge(micro=4, price_version="2026-11-22", model="m-1", usage=usage, request_id="req-7")
    ).result()

    def read(open_: Transaction):
        return open_.connection.execute(
            "select charged, price_version, model, usage, request_id from attempts"
        ).fetchall()

    assert store.submit(read).result()[0] == [
        (4, "2026-11-22", "m-1", '{"input_tokens": 3, "raw": {"prompt_tokens": 3}}', "req-7")
    ]
    store.close()


STEPS = st.lists(
    st.tuples(st.sampled_from(["reserve", "sent", "settle", "refund", "lose"]), st.integers(0, 60), st.floats(0, 1)),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(0, 200))
def test_whatever_happens_the_books_balance_within_the_cap(steps, cap):
    money = Money(MemoryStore(), scope="run", cap=cap)
    live: list[tuple[int, int]] = []
    spent = 0
    for step, amount, share in steps:
        if step == "reserve":
            outcome = money.reserve("writer", amount, place=None).result()
            fits = spent + sum(each for _, each in live) + amount <= cap
            assert isinstance(outcome, Reserved) == fits
            if isinstance(outcome, Reserved):
                live.append((outcome.attempt, amount))
        elif live:
            attempt, most = live[amount % len(live)]
            if step == "sent":
                money.sent(attempt).result()
                continue
            live.remove((attempt, most))
            cost = int(share * most)
            if step == "settle":
                money.settle(attempt, Charge(micro=cost)).result()
                spent += cost
            elif step == "refund":
                money.refund(attempt).result()
            else:
                money.lose(attempt).result()
                spent += most
        totals = money.totals()
        assert totals.spent == spent
        assert totals.reserved == sum(each for _, each in live)
        assert totals.spent + totals.reserved <= cap


@pytest.mark.parametrize(("given_", "expected"), [(0.29, 290_000), (5, 5_000_000), (1e-7, 0), (19.99, 19_990_000)])
def test_dollars_become_whole_millionths_never_more(given_, expected):
    assert micro(given_) == expected


def test_amounts_are_read_by_people():
    assert [dollars(each) for each in (0, 420, 1_234_567, 12_345_678_901)] == [
        "$0.00",
        "$0.00042",
        "$1.23",
        "$12,345.68",
    ]


# Processes

SPENDER = """
import os, random, signal, sys, time
from pathlib import Path
from privolve.cache.money import Charge, Money, Reserved, UsedUp
from privolve.cache.sqlite import SqliteStore

folder, cap, worst, kills = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "kills"
money = Money(SqliteStore(folder / "cache.db"), scope="run", cap=cap)
billed = os.open(folder / "billed", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
print("ready", flush=True)
while True:
    asked = [money.reserve("writer", worst, place=None) for _ in range(8)]
    outcomes = [each.result() for each in asked]
    granted = [each.attempt for each in outcomes if isinstance(each, Reserved)]
    for attempt in granted:
        money.sent(attempt)
    [money.sent(attempt).result() for attempt in granted[-1:]]
    for attempt in granted:
        cost = random.randrange(worst + 1)
        os.write(billed, b"%d\\n" % cost)  # The provider's own books.
        if kills and random.random() < 0.02:
            os.kill(os.getpid(), signal.SIGKILL)
        money.settle(attempt, Charge(micro=cost))
    if not granted and any(isinstance(each, UsedUp) for each in outcomes):
        break
    if not granted:
        time.sleep(0.01)
money.settle(0, Charge(micro=0)).result()
"""


def spend(folder: Path, processes: int, *, cap: int, worst: int, kills: bool) -> list[int]:
    command = [sys.executable, "-c", SPENDER, str(folder), str(cap), str(worst), "kills" if kills else "no"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    codes = []
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode in (0, -signal.SIGKILL), errors
        codes.append(process.returncode)
    return codes


def billed(folder: Path) -> int:
    return sum(int(line) for line in (folder / "billed").read_text().split())


def totals(folder: Path, cap: int) -> Totals:
    store = SqliteStore(folder / "cache.db")
    found = Money(store, scope="run", cap=cap).totals()
    store.close()
    return found


def test_twelve_processes_do_not_overspend(tmp_path):
    cap, worst = 6000, 50
    assert set(spend(tmp_path, 12, cap=cap, worst=worst, kills=False)) == {0}
    found = totals(tmp_path, cap)
    assert found.spent == billed(tmp_path) <= cap
    assert found.reserved == 0
    assert found.spent > cap - worst


def test_processes_that_are_killed_do_not_overspend_and_leave_nothing_reserved(tmp_path):
    cap, worst = 3000, 50
    codes = spend(tmp_path, 6, cap=cap, worst=worst, kills=True)
    found = totals(tmp_path, cap)
    assert -signal.SIGKILL in codes or found.spent > cap - worst
    # What the provider billed is covered: settled, or kept as possibly billed.
    assert billed(tmp_path) <= found.spent <= cap
    assert found.reserved == 0


def test_a_killed_processs_reservations_return_and_what_it_sent_is_lost(tmp_path):
    script = """
import os, signal, sys
from pathlib import Path
from privolve.cache.keys import Address
from privolve.cache.money import Money
from privolve.cache.sqlite import SqliteStore
money = Money(SqliteStore(Path(sys.argv[1])), scope="run", cap=100)
place = [Address(key="k1:a", namespace="run", draw=draw, canonical="{}") for draw in range(2)]
money.reserve("writer", 10, place=place[0]).result()
money.sent(money.reserve("writer", 7, place=place[1]).result().attempt).result()
os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "cache.db"
    store = SqliteStore(path)
    process = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60)
    assert process.returncode == -signal.SIGKILL, process.stderr
    # A process that runs on takes over the place of one that is gone.
    money = Money(store, scope="another")
    assert totals(tmp_path, 100) == Totals(cap=100, spent=7, possible=7)
    assert isinstance(money.reserve("writer", 1, place=PLACE).result(), Reserved)
    store.close()
