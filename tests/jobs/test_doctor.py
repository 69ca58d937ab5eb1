"""`privolve doctor`: what is installed, which keys are set, and what the servers of a job's models say of them."""

from __future__ import annotations

from datetime import date

import pytest

from privolve.adapters import models

KEY = "sk-canary-of-the-doctor"


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("openai")
    from privolve.adapters.stub import Stub

    monkeypatch.setenv("A_KEY", KEY)
    with Stub({"models": [{"id": "gpt-6-luna", "shutdown_date": "2030-01-31"}, {"id": "gpt-4o-mini"}]}) as stub:
        yield stub


def examined(work, writer: str) -> str:
    work.job(
        "dpiti",
        adapters=f'{{ writer = {{ {writer} }}, painter = {{ kind = "glyph-painter" }}, eye = {{ kind = "pixels" }} }}',
    )
    outcome = work("--debug", "doctor", "job.toml")
    assert (outcome.code, outcome.err) == (0, "")
    assert KEY not in outcome.out
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("  writer ")]
    return line


def openai(model: str, url: str, more: str = 'api_key_env = "A_KEY", provider = "openai"') -> str:
    return f'kind = "openai", model = "{model}", base_url = "{url}", {more}'


def test_shutdown_dates_are_compared_with_the_servers_list(work, stub) -> None:
    ours = models.facts("openai", "gpt-4o-mini").shutdown
    assert ours is not None
    sooner = examined(work, openai("gpt-6-luna", stub.openai_url))
    assert "the server's list says that it shuts down on 2030-01-31, our facts say no such day" in sooner
    longer = examined(work, openai("gpt-4o-mini", stub.openai_url))
    assert f"it has no day on which it shuts down, our facts say {ours}" in longer
    assert [request.path for request in stub.requests] == ["/v1/models/gpt-6-luna", "/v1/models/gpt-4o-mini"]


def test_a_list_that_agrees_is_said_to_agree(work, stub, monkeypatch) -> None:
    facts = work.folder / "facts.toml"
    facts.write_text('[[model]]\nprovider = "openai"\nnames = ["gpt-6-luna"]\nshutdown = 2030-01-31\n')
    monkeypatch.setenv(models.OVERRIDES, str(facts))
    assert "the server's list agrees: it shuts down on 2030-01-31" in examined(
        work, openai("gpt-6-luna", stub.openai_url)
    )


def test_a_model_that_the_server_does_not_list_is_told(work, stub) -> None:
    assert "there is no such model" in examined(work, openai("gpt-5-mini", stub.openai_url))


def test_without_a_key_or_a_server_it_goes_on_and_says_so(work, stub, monkeypatch) -> None:
    asked = openai("gpt-6-luna", "http://127.0.0.1:9/v1")
    assert "cannot be read: openai 'gpt-6-luna' at 127.0.0.1: cannot be reached" in examined(work, asked)
    monkeypatch.delenv("A_KEY")
    assert "the environment variable A_KEY is not set" in examined(work, openai("gpt-6-luna", stub.openai_url))
    assert stub.requests == []


def test_a_wrong_key_is_told_without_the_key(work, monkeypatch) -> None:
    pytest.importorskip("openai")
    from privolve.adapters.stub import Stub

    monkeypatch.setenv("A_KEY", KEY)
    with Stub({"keys": ["sk-another"]}) as stub:
        assert "access denied (401" in examined(work, openai("gpt-6-luna", stub.openai_url))


def test_local_models_and_models_without_a_list_ask_nobody(work, stub) -> None:
    assert "lexicon: nothing to note" in examined(work, 'kind = "lexicon"')
    qwen = f'kind = "dashscope", model = "qwen3.7-plus", region = "ap-southeast-1", base_url = "{stub.dashscope_url}"'
    assert "its provider has no list to ask" in examined(work, f'{qwen}, api_key_env = "A_KEY"')
    assert stub.requests == []


def test_without_a_job_it_says_how_many_models_are_about_to_stop(work, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    outcome = work("doctor")
    assert f"{len(models.near_shutdown(date.today()))} have stopped or stop within 60 days" in outcome.out
    assert KEY not in outcome.out
