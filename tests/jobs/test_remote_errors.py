"""What can be wrong with a remote model, through the command line: one line, at once, with the key nowhere."""

from __future__ import annotations

import io
import logging
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import pytest

from privolve.adapters.stub import Stub
from privolve.cache.sqlite import SqliteStore

pytest.importorskip("openai")

KEY = "sk-canary-Rb7Wd-of-the-command-line"
EVOLUTION = '{ iterations = 1, count = 4, variations = 1, initial_prompt = "glyphs", variation_prompt = "glyphs-fill" }'


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", KEY)


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub() as stub:
        yield stub


def openai(url: str, model: str = "gpt-6-luna", more: str = 'provider = "openai"') -> str:
    return f'{{ kind = "openai", model = "{model}", base_url = "{url}", api_key_env = "A_KEY", {more} }}'


def written_by(writer: str, **changed: Any) -> dict[str, Any]:
    """A job whose captions a remote model writes, and whose candidates are those captions."""
    return {
        "adapters": f'{{ writer = {writer}, painter = {{ kind = "glyph-painter" }}, captioner = {{ kind = '
        '"glyph-captioner", characters = "01", per_character = 20 }, eye = { kind = "hashing" } }',
        "evolution": EVOLUTION.replace("}", ', voting = "text" }'),
        "evaluation": "{}",
        **changed,
    }


def refused(work: Any, *arguments: str, code: int) -> str:
    """The one line of a command that stops at once; the key is in none of what it left."""
    began = time.monotonic()
    outcome = work("run", "job.toml", "--out", "run", *arguments)
    assert outcome.code == code, outcome.err
    assert time.monotonic() - began < 10
    assert KEY not in outcome.out + outcome.err
    key_is_in_no_file(work)
    return outcome.line


def key_is_in_no_file(work: Any) -> None:
    files = [path for path in work.folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_a_wrong_key_is_one_line_at_once_and_asked_with_no_more(work) -> None:
    with Stub({"keys": ["sk-another"]}) as stub:
        work.job("dpiti", **written_by(openai(stub.openai_url)), performance="{ concurrency = 1 }")
        line = refused(work, code=3)
        assert "access denied (401" in line
        assert "check the key in A_KEY" in line
        assert len(stub.requests) == 1


def test_a_key_that_is_not_set_is_one_line_before_anything_is_charged(work, stub, monkeypatch) -> None:
    monkeypatch.delenv("A_KEY")
    work.job("dpiti", **written_by(openai(stub.openai_url)))
    assert "the environment variable A_KEY is not set; export it" in refused(work, code=2)
    assert stub.requests == []


def test_a_wrong_model_name_is_one_line_at_once(work) -> None:
    with Stub({"models": [{"id": "gpt-6-luna"}]}) as stub:
        work.job("dpiti", **written_by(openai(stub.openai_url, "gpt-6-lana")), performance="{ concurrency = 1 }")
        line = refused(work, code=3)
        assert "openai 'gpt-6-lana'" in line
        assert "there is no such model or path" in line
        assert "check `model`" in line
        assert len(stub.requests) == 1


def test_a_model_that_was_shut_down_is_refused_with_its_replacement(work) -> None:
    writer = '{ kind = "openai", model = "gpt-3.5-turbo", api_key_env = "A_KEY" }'
    work.job("dpiti", **written_by(writer))
    line = refused(work, code=2)
    assert "'gpt-3.5-turbo' was shut down by its provider" in line
    assert "use 'gpt-5.6-terra'" in line


def test_a_host_that_cannot_be_reached_is_one_line_after_three_knocks(work) -> None:
    work.job("dpiti", **written_by(openai("http://127.0.0.1:9/v1")))
    line = refused(work, code=3)
    assert "cannot be reached; check `base_url` and the network" in line


def test_a_host_without_a_name_server_is_one_line(work) -> None:
    work.job("dpiti", **written_by(openai("https://no-such-host.invalid/v1")))
    line = refused(work, code=3)
    assert "no-such-host.invalid" in line
    assert "check `base_url` and the network" in line


@pytest.mark.parametrize(
    ("writer", "words"),
    [
        (openai("http://127.0.0.1:9/v1", more='provider = "nobody"'), "the known providers are azure, compatible"),
        (openai("http://example.com/v1"), "must be https"),
        (openai("https://user:secret@example.com/v1"), "keys stay in the environment"),
        (
            '{ kind = "opnai", model = "m" }',
            "there is no adapter of kind 'opnai'; did you mean 'openai'? known kinds: ",
        ),
        ('{ kind = "dashscope", model = "qwen3.7-plus" }', "adapters.writer: adapters.region: Field required"),
        (f'{{ kind = "openai", model = "m", api_key_env = "{KEY}" }}', "adapters.writer: adapters.api_key_env: "),
        (f'{{ kind = "openai", model = "m", api_key = "{KEY}" }}', "'api_key' is not a setting of kind 'openai'"),
    ],
)
def test_a_wrong_provider_or_place_is_one_line_and_repeats_no_secret(work, writer: str, words: str) -> None:
    job = work.job("dpiti", **written_by(writer))
    for command in ("plan", "run"):
        outcome = work(command, "job.toml")
        assert outcome.code == 2
        assert words in outcome.line
        assert KEY not in outcome.err
        assert "secret" not in outcome.err
    assert job.exists()
    assert not (work.folder / "ledgers").exists()


def test_a_budget_that_is_used_up_stops_in_one_line_and_a_larger_one_goes_on(work, stub) -> None:
    work.job("dpiti", **written_by(openai(stub.openai_url)))
    line = refused(work, "--set", "budget.max_cost=0.0000001", code=3)
    assert "the budget of $0.00 is used up" in line
    assert "raise budget.max_cost" in line
    assert [request for request in stub.requests if request.method == "POST"] == []


def test_a_model_of_unknown_price_is_refused_under_a_budget(work, stub) -> None:
    work.job("dpiti", **written_by(openai(stub.openai_url, "a-model-of-ours")))
    line = refused(work, "--set", "budget.max_cost=1", code=2)
    assert "the price of 'a-model-of-ours' is unknown" in line
    assert stub.requests == []


def test_a_replay_miss_names_what_differs(work, stub) -> None:
    work.job("dpiti", **written_by(openai(stub.openai_url)))
    assert work("run", "job.toml", "--out", "one", "--reuse", "pair").code == 0
    asked = len(stub.requests)
    replay = ("--reuse", "pair", "--set", 'performance.cache_mode="replay"')
    missing = work("run", "job.toml", "--out", "two", *replay, "--set", "evolution.temperature=0.3")
    assert missing.code == 2
    assert "replay: no answer of 'writer' is kept" in missing.line
    assert "temperature" in missing.line
    assert len(stub.requests) == asked


def test_a_cache_that_another_process_holds_is_one_line(work, stub, monkeypatch) -> None:
    work.job("dpiti", **written_by(openai(stub.openai_url)))
    monkeypatch.setitem(SqliteStore.__init__.__kwdefaults__, "wait_s", 0.1)
    place = work.folder / "experiments" / ".cache" / "answers.db"
    SqliteStore(place).close()
    other = sqlite3.connect(place, isolation_level=None)
    other.execute("begin exclusive")
    try:
        line = refused(work, code=3)
    finally:
        other.execute("rollback")
        other.close()
    assert "answers.db" in line
    assert "another process" in line
    assert work("run", "job.toml", "--out", "run").code == 0


def test_a_key_is_in_no_log_no_traceback_no_file_and_no_page(work, stub) -> None:
    """A whole run, failures with all that --debug shows, and the doctor, with every logger at DEBUG."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    loggers = [logging.getLogger(name) for name in ("", "openai", "httpx2", "httpcore2", "httpx", "asyncio")]
    levels = [each.level for each in loggers]
    logging.getLogger().addHandler(handler)
    for each in loggers:
        each.setLevel(logging.DEBUG)
    told: list[str] = []

    def do(*arguments: str, code: int) -> None:
        outcome = work(*arguments)
        assert outcome.code == code, outcome.err
        told.extend((outcome.out, outcome.err))

    try:
        work.job("dpiti", **written_by(openai(stub.openai_url)))
        do("--debug", "run", "job.toml", "--out", "run", code=0)
        do("--debug", "doctor", "job.toml", code=0)
        do("cache", "stats", code=0)
        do("cache", "export", "shared.db", "--public", code=0)
        for name, rule in (("a", "bad-key"), ("b", "model-gone"), ("c", "bad-request"), ("d", "forbidden")):
            with Stub({"rules": [{"fault": rule}]}) as failing:
                work.job("dpiti", **written_by(openai(failing.openai_url)), seed=str(len(name)))
                do("--debug", "run", "job.toml", "--out", name, code=3)
        with Stub({"rules": [{"fault": "html"}]}) as failing:
            work.job("dpiti", **written_by(openai(failing.openai_url)), seed="9")
            do("--debug", "run", "job.toml", "--out", "e", code=3)
    finally:
        logging.getLogger().removeHandler(handler)
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
    assert any("Traceback" in each for each in told)
    assert len(said.getvalue()) > 1000, "nothing was logged, so its silence would say nothing"
    assert KEY not in said.getvalue()
    assert not [each for each in told if KEY in each]
    assert {request.headers["authorization"] for request in stub.requests} == {f"Bearer {KEY}"}
    key_is_in_no_file(work)
