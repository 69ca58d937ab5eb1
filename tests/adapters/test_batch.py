"""Requests by OpenAI's Batch API, with the real SDK, at the stub: paid once, at half price, whoever is killed when."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openai")

from privolve.adapters.contract import (
    EmbedRequest,
    Image,
    ImageRequest,
    ImageVariationRequest,
    Message,
    Refusal,
    Stopped,
    TextRequest,
    Transient,
)
from privolve.adapters.remote.openai import OpenAIConfig
from privolve.adapters.roles import GatewayError
from privolve.adapters.stub import Stub
from privolve.adapters.wrappers.metered import MoneyExceeded, Spending
from privolve.adapters.wrappers.retrying import Patience

SCRIPT = Path(__file__).with_name("batching.py")
QUICK = Patience(first_wait_s=0.0, deadline_s=5.0)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with Stub() as running:
        yield running


def writer(stub: Stub, **options: Any) -> OpenAIConfig:
    about = {"model": "gpt-4o-mini", "mode": "batch", "batch_poll_s": 0.01, "provider": "openai", **options}
    return OpenAIConfig(base_url=stub.openai_url, **about)


def text(draw: int, content: str = "") -> TextRequest:
    message = Message(role="user", content=content or f"A bedroom, number {draw % 7}.")
    return TextRequest(messages=(message,), draw=draw, max_tokens=60)


def texts(count: int) -> list[TextRequest]:
    return [text(draw) for draw in range(count)]


def opened(gateway: Any, config: OpenAIConfig, **options: Any) -> Any:
    return gateway({"writer": config}, patience=QUICK, **options)


def posts(stub: Stub, path: str) -> list[Any]:
    return [each for each in stub.requests if each.method == "POST" and each.path == path]


def books(path: Path) -> tuple[dict[str, int], tuple[int, int, int], int]:
    """Attempts by state, (reserved, spent, possible), and the number of answers."""
    with sqlite3.connect(path) as cache:
        states = dict(cache.execute("select state, count(*) from attempts group by state").fetchall())
        money = cache.execute("select sum(reserved), sum(spent), sum(possible) from budgets").fetchone()
        return states, money, cache.execute("select count(*) from samples").fetchone()[0]


def test_a_batch_is_one_file_and_costs_half(gateway: Any, stub: Stub) -> None:
    one = opened(gateway, writer(stub), spending=Spending(max_cost=10**6))
    replies = one.open("writer").send(texts(12))
    assert len(replies) == 12
    assert all(isinstance(reply, str) and reply for reply in replies)
    assert posts(stub, "/v1/chat/completions") == []
    assert len(posts(stub, "/v1/files")) == len(posts(stub, "/v1/batches")) == 1
    live = gateway({"writer": writer(stub, mode="live")}, patience=QUICK, namespace="live", scope="live")
    live.open("writer").send(texts(12))
    # Each call is rounded up by itself, and the stub's words differ.
    assert one.money().spent == pytest.approx(live.money().spent / 2, rel=0.2)
    assert one.money().reserved == 0
    # What was kept serves both modes.
    again = opened(gateway, writer(stub, mode="live"))
    assert again.open("writer").send(texts(12)) == replies
    assert len(posts(stub, "/v1/chat/completions")) == 12


def test_a_line_says_what_a_call_says(gateway: Any, stub: Stub) -> None:
    opened(gateway, writer(stub)).open("writer").send([text(0)])
    opened(gateway, writer(stub, mode="live"), namespace="live").open("writer").send([text(0)])
    file = posts(stub, "/v1/files")[0].body
    line = json.loads(next(part for part in file.split(b"\r\n") if part.startswith(b'{"custom_id"')))
    assert line["body"] == posts(stub, "/v1/chat/completions")[0].json()
    assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
    assert len(line["custom_id"]) <= 64


def test_pictures_and_embeddings_have_batches_and_variations_are_asked_at_once(gateway: Any, stub: Stub) -> None:
    blank = Image(np.zeros((64, 64, 3), dtype=np.uint8))
    painter = gateway({"it": writer(stub, model="gpt-image-2", image_size="64x64")}, patience=QUICK).open("it")
    variation = ImageVariationRequest(image=blank, prompt="a", degree=0.5, draw=0)
    replies = painter.send([ImageRequest(prompt="a", draw=0, size=(64, 64)), variation])
    assert [reply.pixels.shape for reply in replies] == [(64, 64, 3)] * 2
    assert posts(stub, "/v1/images/generations") == []
    assert len(posts(stub, "/v1/images/edits")) == 1
    eye = gateway({"it": writer(stub, model="text-embedding-3-small")}, patience=QUICK).open("it")
    assert eye.send([EmbedRequest(content="a room")])[0].shape == (1536,)
    assert posts(stub, "/v1/embeddings") == []


@pytest.mark.parametrize("end", ["twice", "expired", "cancelled", "queue-full", "lost-reply"])
def test_whatever_becomes_of_a_batch_every_request_is_answered_and_paid_once(
    gateway: Any, stub: Stub, tmp_path: Path, end: str
) -> None:
    stub.follow({"batches": [end]})
    one = opened(gateway, writer(stub))
    replies = one.open("writer").send(texts(11))
    assert all(isinstance(reply, str) for reply in replies)
    states, (reserved, _, possible), answers = books(tmp_path / "shared" / "cache.sqlite")
    asked_again = {"expired": 5, "cancelled": 5, "queue-full": 11}.get(end, 0)
    assert states == {"settled": 11} | ({"refunded": asked_again} if asked_again else {})
    assert (reserved, possible, answers) == (0, 0, 11)
    assert len(posts(stub, "/v1/batches")) == (2 if asked_again else 1)


def test_a_batch_that_is_not_accepted_stops_and_reserves_nothing(gateway: Any, stub: Stub) -> None:
    stub.follow({"batches": ["failed"]})
    one = opened(gateway, writer(stub))
    with pytest.raises(Stopped, match=r"the batch was not accepted: The batch cannot be taken\."):
        one.open("writer").send(texts(3))
    assert (one.money().reserved, one.money().spent) == (0, 0)


def test_lines_that_fail_are_asked_again_and_a_refused_one_is_an_answer(gateway: Any, stub: Stub) -> None:
    stub.follow(
        {
            "rules": [
                {"contains": "the refused one", "path": "*/chat/completions", "fault": "moderated"},
                {"path": "*/chat/completions", "attempt": 1, "nth": [2, 3], "fault": "server-error"},
                {"path": "*/chat/completions", "attempt": 1, "nth": 5, "fault": "no-content"},
            ]
        }
    )
    one = opened(gateway, writer(stub))
    replies = one.open("writer").send([*texts(6), text(6, "the refused one")])
    assert all(isinstance(reply, str) for reply in replies[:6])
    assert isinstance(replies[6], Refusal)
    assert len(posts(stub, "/v1/batches")) == 2
    assert one.money().reserved == 0


def test_a_line_that_always_fails_ends_in_its_error_and_the_others_are_kept(
    gateway: Any, stub: Stub, tmp_path: Path
) -> None:
    stub.follow({"rules": [{"contains": "hopeless", "fault": "server-error", "path": "*/chat/completions"}]})
    with pytest.raises(Transient, match="the server failed"):
        opened(gateway, writer(stub)).open("writer").send([*texts(3), text(3, "hopeless")])
    assert books(tmp_path / "shared" / "cache.sqlite")[2] == 3


def test_money_is_reserved_before_the_file_goes_up(gateway: Any, stub: Stub) -> None:
    one = opened(gateway, writer(stub), spending=Spending(max_cost=10))
    with pytest.raises(MoneyExceeded, match="the budget of"):
        one.open("writer").send([text(0, "word " * 2000)])
    assert stub.requests == []
    # What can be paid is asked and kept.
    some = opened(gateway, writer(stub), spending=Spending(max_cost=100))
    with pytest.raises(MoneyExceeded):
        some.open("writer").send(texts(20))
    assert 0 < some.money().spent <= 100
    assert len(posts(stub, "/v1/batches")) >= 1


def test_a_model_without_a_batch_price_is_refused_under_a_budget(gateway: Any, stub: Stub) -> None:
    config = writer(stub, provider="compatible", price={"input": 1, "output": 1})
    with pytest.raises(GatewayError, match="price"):
        opened(gateway, config, spending=Spending(max_cost=100)).open("writer")
    assert opened(gateway, config).open("writer").send([text(0)])


def test_faults_on_the_way_are_waited_out(gateway: Any, stub: Stub) -> None:
    stub.follow(
        {
            "rules": [
                {"path": "*/files", "nth": 1, "fault": "server-error"},
                {"path": "*/batches", "nth": 1, "fault": "rate-limited", "retry_after_s": 0},
                {"path": "*/batches/*", "nth": [1, 3], "fault": "drop"},
                {"path": "*/content", "nth": 1, "fault": "unavailable"},
            ]
        }
    )
    assert len(opened(gateway, writer(stub)).open("writer").send(texts(4))) == 4
    assert len(posts(stub, "/v1/batches")) == 2


def test_a_role_that_asks_live_says_that_a_batch_has_its_answers(gateway: Any, stub: Stub) -> None:
    stub.follow({"rules": [{"path": "*/batches/*", "fault": "bad-key"}]})
    with pytest.raises(Stopped, match="access denied"):
        opened(gateway, writer(stub)).open("writer").send(texts(2))
    with pytest.raises(Stopped, match='set mode = "batch"'):
        opened(gateway, writer(stub, mode="live")).open("writer").send(texts(2))
    stub.follow(None)
    assert len(opened(gateway, writer(stub)).open("writer").send(texts(2))) == 2
    assert len(posts(stub, "/v1/batches")) == 1


# Kills


@pytest.fixture(scope="module")
def forks() -> Iterator[tuple[Stub, subprocess.Popen[str]]]:
    """A stub, and a process whose forks ask it for 14 texts."""
    with Stub() as stub:
        command = [sys.executable, str(SCRIPT), stub.openai_url, "14"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        yield stub, process
        process.communicate(timeout=60)


def asked(process: subprocess.Popen[str], folder: Path, failpoint: str = "") -> int:
    """How a fork ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{folder} {failpoint}\n")
    process.stdin.flush()
    return int(process.stdout.readline())


@pytest.mark.parametrize(
    "failpoint",
    [
        "batch-opened",
        "batch-uploaded",
        "batch-created",
        "batch-id-kept",
        "batch-fetched",
        "batch-settling:5",
        "batch-settled",
    ],
)
def test_a_kill_at_any_step_pays_nothing_twice_and_the_same_command_goes_on(
    forks: tuple[Stub, subprocess.Popen[str]], tmp_path: Path, failpoint: str
) -> None:
    stub, process = forks
    stub.clear()
    assert asked(process, tmp_path, failpoint) == -signal.SIGKILL
    assert asked(process, tmp_path) == 0
    said = (tmp_path / "said").read_text()
    assert len(said.splitlines()) == 14
    assert len(posts(stub, "/v1/batches")) == 1
    states, (reserved, spent, possible), answers = books(tmp_path / "cache.db")
    assert states.pop("settled") == answers == 14
    assert set(states) <= {"refunded"}
    assert (reserved, possible) == (0, 0)
    assert spent > 0
    requests = len(stub.requests)
    assert asked(process, tmp_path) == 0
    assert (tmp_path / "said").read_text() == said
    assert len(stub.requests) == requests
