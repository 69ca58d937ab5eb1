"""What a call costs, and what becomes of the money when it fails."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from decimal import Decimal
from typing import Any, ClassVar

import numpy as np
import pytest

from privolve.adapters.contract import (
    AdapterError,
    Answered,
    Cause,
    EmbedRequest,
    Image,
    ImageRequest,
    Location,
    Message,
    ModelIdentity,
    Stopped,
    TextRequest,
    Transient,
    Usage,
)
from privolve.adapters.models import Facts, Price
from privolve.adapters.roles import GatewayError
from privolve.adapters.scripted import ScriptedConfig
from privolve.adapters.wrappers.metered import PRIVATE_TRIES, MoneyExceeded, Spending
from privolve.adapters.wrappers.retrying import Patience
from privolve.privacy.private import OperationalError

QUICK = Patience(first_wait_s=0.0, deadline_s=5.0)


class Paid:
    """Answers by a function; a call is worth 50 at worst and 30 in fact."""

    location = Location.REMOTE
    identity = ModelIdentity(provider="paid", model="m")

    def __init__(self, answer: Any = None) -> None:
        self.calls = 0
        self._answer = answer or (lambda request: "words")

    def estimate(self, request: Any, /) -> Usage:
        return Usage(input_tokens=10, output_tokens=20)

    async def answer(self, request: Any, /) -> Any:
        return (await self.answer_metered(request)).reply

    async def answer_metered(self, request: Any, /) -> Answered[Any]:
        self.calls += 1
        reply = self._answer(request)
        if asyncio.iscoroutine(reply):
            reply = await reply
        return reply if isinstance(reply, Answered) else Answered(reply, Usage(input_tokens=10, output_tokens=10))

    async def close(self) -> None:
        pass


class PaidConfig(ScriptedConfig):
    location: ClassVar[Location] = Location.REMOTE
    priced: bool = True

    @property
    def facts(self) -> Facts:
        price = Price(input=Decimal(1), output=Decimal(2)) if self.priced else None
        return Facts(provider="paid", model="m", price=price)


def text(draw: int = 0) -> TextRequest:
    return TextRequest(messages=(Message(role="user", content="a"),), draw=draw)


def opened(gateway, adapter: Paid, *, priced: bool = True, **options):
    return gateway({"it": PaidConfig(adapter=adapter, priced=priced)}, patience=QUICK, **options)


def failing(*failures: Exception):
    left = list(failures)

    def answer(request: Any) -> str:
        if left:
            raise left.pop(0)
        return "words"

    return answer


def test_a_call_costs_what_was_reported_and_a_hit_costs_nothing(gateway):
    adapter = Paid()
    for _ in range(2):
        one = opened(gateway, adapter)
        assert one.open("it").send([text(0), text(1)]) == ["words", "words"]
    assert adapter.calls == 2
    assert one.spent() == {"it": 60}
    assert one.money().spent == 60


@pytest.mark.parametrize(
    ("failure", "spent", "possible"),
    [
        (Transient("429", cause=Cause.RATE, wait_s=0.0), 30, 0),
        (Transient("down", cause=Cause.CONNECTION), 30, 0),
        (Transient("dropped", possibly_billed=True, cause=Cause.TIMEOUT), 80, 50),
        (Transient("garbled", possibly_billed=True, usage=Usage(input_tokens=7), cause=Cause.MALFORMED), 37, 0),
    ],
)
def test_a_failed_try_costs_what_it_may_have_been_billed(gateway, failure, spent, possible):
    one = opened(gateway, Paid(failing(failure)))
    assert one.open("it").send([text()]) == ["words"]
    money = one.money()
    assert (money.spent, money.possible, money.reserved) == (spent, possible, 0)


def test_unknown_usage_costs_what_was_reserved(gateway):
    one = opened(gateway, Paid(lambda _: Answered("words", Usage(reported=False))))
    one.open("it").send([text()])
    assert one.money().spent == 50


def test_a_reply_of_a_wrong_form_is_paid_for_and_not_kept(gateway):
    for _ in range(2):
        one = opened(gateway, Paid(lambda _: 3))
        with pytest.raises(AdapterError, match="'it' gave no usable reply"):
            one.open("it").send([text()])
    assert one.money().spent == 60


def test_an_error_of_our_own_counts_as_possibly_billed_and_leaves_nothing_reserved(gateway):
    one = opened(gateway, Paid(failing(RuntimeError("a bug"))))
    with pytest.raises(RuntimeError):
        one.open("it").send([text()])
    money = one.money()
    assert (money.spent, money.possible, money.reserved) == (50, 50, 0)


def test_a_call_that_takes_too_long_may_have_been_billed(gateway):
    async def hang(_: Any) -> str:
        await asyncio.sleep(60)
        return ""

    one = gateway({"it": PaidConfig(adapter=Paid(hang))}, patience=Patience(deadline_s=0.1))
    with pytest.raises(Transient, match=r"no reply within 0.1 s"):
        one.open("it").send([text()])
    assert one.money().possible == 50


def test_the_budget_stops_before_it_is_passed_and_what_was_paid_is_kept(gateway):
    adapter = Paid()
    one = opened(gateway, adapter, spending=Spending(max_cost=200))
    with pytest.raises(MoneyExceeded) as stopped:
        one.open("it").send([text(draw) for draw in range(20)])
    assert adapter.calls == 6  # 180 spent; the seventh may cost 50.
    assert "the budget of $0.0002 is used up: $0.00018 spent" in str(stopped.value)
    more = opened(gateway, adapter, spending=Spending(max_cost=2000))
    assert len(more.open("it").send([text(draw) for draw in range(20)])) == 20
    assert adapter.calls == 20
    assert more.money().spent == 600


def test_a_budget_that_cannot_pay_once_says_so_before_anything_is_sent(gateway):
    adapter = Paid()
    with pytest.raises(MoneyExceeded, match=r"may cost \$0.00005"):
        opened(gateway, adapter, spending=Spending(max_cost=49)).open("it").send([text()])
    assert adapter.calls == 0


def test_an_unknown_price_is_refused_under_a_budget_unless_it_is_allowed(gateway):
    with pytest.raises(GatewayError, match=r"the price of 'm' is unknown.*PRIVOLVE_MODELS.*allow_unknown_prices"):
        opened(gateway, Paid(), priced=False, spending=Spending(max_cost=100)).open("it")
    allowed = Spending(max_cost=100, allow_unknown_prices=True)
    one = opened(gateway, Paid(), priced=False, spending=allowed)
    assert one.open("it").send([text()]) == ["words"]
    assert one.money().spent == 0
    assert opened(gateway, Paid(), priced=False).open("it").send([text(1)]) == ["words"]


def test_money_is_counted_by_run_also_where_runs_share_answers(gateway):
    adapter = Paid()
    first = opened(gateway, adapter, namespace="shared", scope="first")
    second = opened(gateway, adapter, namespace="shared", scope="second")
    first.open("it").send([text(0)])
    second.open("it").send([text(0), text(1)])
    assert (first.money().spent, second.money().spent) == (30, 30)


def test_an_image_whose_reply_was_lost_is_asked_again_only_by_policy(gateway):
    blank = Image(np.zeros((4, 4, 3), dtype=np.uint8))
    request = ImageRequest(prompt="a", draw=0, size=(4, 4))

    def lossy():
        left = [Transient("dropped", possibly_billed=True, cause=Cause.TIMEOUT)]

        def answer(_: Any) -> Image:
            if left:
                raise left.pop()
            return blank

        return answer

    careful = opened(gateway, Paid(lossy()), spending=Spending(images_again=False))
    with pytest.raises(Stopped, match=r"an image that was sent before .* may have been billed"):
        careful.open("it").send([request])
    generous = opened(gateway, Paid(), spending=Spending(images_again=False), namespace="texts")
    assert generous.open("it").send([text()]) == ["words"]
    again = opened(gateway, Paid(lossy()), namespace="another")
    assert again.open("it").send([request])[0].pixels.shape == (4, 4, 3)


def test_private_calls_leave_only_a_row_a_chunk_of_public_amount(gateway, images, tmp_path):
    from privolve.cache.sqlite import SqliteStore

    class Eye(Paid):
        async def answer_metered(self, request: EmbedRequest, /) -> Answered[Any]:
            used = int(request.content.pixels.sum()) % 10 if isinstance(request.content, Image) else 0
            vector = np.ones(3, dtype=np.float32)
            return Answered(vector, Usage(input_tokens=used, request_id="secret", raw={"secret": used}))

    one = opened(gateway, Eye(), trust=["it"])
    one.open_trusted("it").embed(images(5))
    store = SqliteStore(tmp_path / "shared" / "cache.sqlite")
    rows = store.submit(
        lambda open_: open_.connection.execute(
            "select key, charged, usage, request_id from attempts where key is null"
        ).fetchall()
    ).result()[0]
    store.close()
    assert rows == [(None, 50 * PRIVATE_TRIES * slots, f'{{"slots": {slots}}}', "") for slots in (4, 1)]


def test_a_wider_embedding_than_the_first_is_no_reply(gateway):
    one = opened(gateway, Paid(lambda request: np.ones(len(request.content), dtype=np.float32)))
    with pytest.raises(AdapterError, match="an embedding of 3 numbers, not 2"):
        one.open("it").send([EmbedRequest(content="aa")])
        one.open("it").send([EmbedRequest(content="aaa")])


def test_private_calls_stop_as_an_operational_failure_when_the_money_is_gone(gateway, images):
    eye = Paid(lambda _: np.ones(3, dtype=np.float32))
    one = opened(gateway, eye, trust=["it"], spending=Spending(max_cost=60))
    with pytest.raises(OperationalError):
        one.open_trusted("it").embed(images(5))


def test_a_refusal_is_kept_and_asked_again_only_where_that_is_wanted(gateway):
    from privolve.adapters.contract import Refusal

    refuses = True

    def answer(request: TextRequest) -> Any:
        return Refusal("unsafe") if refuses and request.draw < 2 else f"words {request.draw}"

    adapter = Paid(answer)
    asked = [text(draw) for draw in range(4)]
    assert opened(gateway, adapter).open("it").send(asked)[:2] == [Refusal("unsafe")] * 2
    again = opened(gateway, adapter, retry_refused=True)
    assert again.open("it").send(asked)[:2] == [Refusal("unsafe")] * 2
    again.open("it").send(asked)  # Once a process.
    assert adapter.calls == 6
    refuses = False
    assert opened(gateway, adapter).open("it").send(asked)[:2] == [Refusal("unsafe")] * 2
    replies = opened(gateway, adapter, retry_refused=True).open("it").send(asked)
    assert replies == ["words 0", "words 1", "words 2", "words 3"]
    assert adapter.calls == 8
    assert opened(gateway, adapter).open("it").send(asked) == replies
    assert opened(gateway, adapter).money().reserved == 0


def test_an_interrupted_batch_keeps_what_was_under_way_and_reserves_nothing(gateway):
    started, release = threading.Event(), threading.Event()
    count: Counter[int] = Counter()

    async def slow(request: TextRequest) -> str:
        count[request.draw] += 1
        started.set()
        while not release.is_set():
            await asyncio.sleep(0.001)
        return "words"

    one = opened(gateway, Paid(slow), concurrency=3)
    stream = one.open("it")
    failed: list[BaseException] = []

    def work() -> None:
        try:
            stream.send([text(draw) for draw in range(20)])
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    started.wait(5)
    threading.Timer(0.05, release.set).start()
    one.close()
    assert one.money().reserved == 0
    assert 1 <= len(count) <= 20
    assert opened(gateway, Paid()).open("it").send([text(0)]) == ["words"]
    assert count[0] == 1
