"""What goes wrong when an adapter is opened or asked, and how it is told: the right class, one line, soon, without the key."""

from __future__ import annotations

import time

import pytest

from privolve.adapters.contract import AdapterUnavailable, Cause, Stopped, Transient
from privolve.adapters.registry import AdapterConfigError
from privolve.adapters.stub import Stub


def the_line(caught: pytest.ExceptionInfo[Exception], tools) -> str:
    line = str(caught.value)
    assert "\n" not in line
    assert tools.KEY not in line
    assert 20 < len(line) < 500
    return line


def test_what_is_not_there_is_told_in_a_line_within_a_second(case, config, adapter, tools) -> None:
    """`adapter`: the libraries are imported, as after the first open of a process."""
    if not case.unavailable:
        pytest.skip("nothing that it needs can be missing")
    missing = config(case.unavailable)
    began = time.monotonic()
    with pytest.raises(AdapterUnavailable) as caught:
        missing.open()
    assert time.monotonic() - began < 1.0
    the_line(caught, tools)


def test_an_option_that_is_none_is_told_with_those_there_are(case, config, tools) -> None:
    with pytest.raises(AdapterConfigError, match="'no_such_option' is not a setting of kind") as caught:
        config({"no_such_option": 1})
    assert "its settings: " in the_line_of_any_length(caught)


def the_line_of_any_length(caught: pytest.ExceptionInfo[Exception]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_key_in_place_of_its_name_is_refused_and_not_repeated(remote_case, config, tools) -> None:
    with pytest.raises(AdapterConfigError) as caught:
        config({"api_key_env": tools.KEY})
    assert tools.KEY not in the_line_of_any_length(caught)


def asked(script: dict, case, config, tools, **settings) -> tuple[pytest.ExceptionInfo[Exception], Stub]:
    """What one request raises, without anybody who tries again, and who heard it."""
    with Stub({"polls": 0, **script}) as stub, pytest.raises((Stopped, Transient)) as caught:
        tools.send(config(settings, stub=stub).open(), case.requests()[:1])
    return caught, stub


@pytest.mark.parametrize("fault", ["bad-key", "forbidden", "no-money", "model-gone"])
def test_what_a_person_must_put_right_stops_at_once(remote_case, config, tools, fault: str) -> None:
    caught, stub = asked({"rules": [{"fault": fault}]}, remote_case, config, tools)
    assert isinstance(caught.value, Stopped)
    assert len(stub.requests) == 1
    line = the_line(caught, tools)
    words = {
        "bad-key": "CONFORMANCE_KEY",
        "forbidden": "access denied",
        "no-money": "top it up",
        "model-gone": "`model`",
    }
    assert words[fault] in line


def test_a_wrong_key_is_not_shown_even_if_the_server_sends_it_back(remote_case, config, tools) -> None:
    caught, _ = asked({"keys": ["another"]}, remote_case, config, tools)
    assert isinstance(caught.value, Stopped)
    assert tools.KEY[:12] not in the_line(caught, tools)
    assert tools.KEY not in repr(caught.value.__cause__) + repr(caught.value.__context__)


@pytest.mark.parametrize("fault", ["rate-limited", "slow-down", "tokens-limited"])
def test_a_limit_is_worth_waiting_for_as_long_as_it_says(remote_case, config, tools, fault: str) -> None:
    caught, stub = asked({"rules": [{"fault": fault, "retry_after_s": 7}]}, remote_case, config, tools)
    error = caught.value
    assert isinstance(error, Transient)
    assert (error.cause, error.wait_s, error.possibly_billed) == (Cause.RATE, 7.0, False)
    assert len(stub.requests) == 1
    the_line(caught, tools)


@pytest.mark.parametrize("fault", ["server-error", "bad-gateway", "unavailable", "gateway-timeout"])
def test_a_server_that_fails_is_worth_another_try(remote_case, config, tools, fault: str) -> None:
    caught, stub = asked({"rules": [{"fault": fault}]}, remote_case, config, tools)
    assert isinstance(caught.value, Transient)
    assert caught.value.cause is Cause.SERVER
    assert len(stub.requests) == 1
    the_line(caught, tools)


@pytest.mark.parametrize("fault", ["wrong-json", "truncated-json", "empty", "html"])
def test_a_success_that_is_no_answer_is_not_taken_for_one(remote_case, config, tools, fault: str) -> None:
    caught, _ = asked({"rules": [{"fault": fault}]}, remote_case, config, tools)
    error = caught.value
    assert isinstance(error, Transient)
    assert (error.cause, error.tries) == (Cause.MALFORMED, 2)
    assert error.possibly_billed or error.usage is not None
    the_line(caught, tools)


@pytest.mark.parametrize("fault", ["drop", "reset"])
def test_a_connection_that_breaks_may_have_cost_something(remote_case, config, tools, fault: str) -> None:
    caught, _ = asked({"rules": [{"fault": fault}]}, remote_case, config, tools)
    error = caught.value
    assert isinstance(error, Transient)
    assert (error.cause, error.possibly_billed) == (Cause.CONNECTION, True)
    the_line(caught, tools)


@pytest.mark.parametrize("fault", ["silence", "drip"])
def test_a_reply_that_does_not_end_is_cut_at_the_deadline(remote_case, config, tools, fault: str) -> None:
    began = time.monotonic()
    caught, _ = asked({"rules": [{"fault": fault}]}, remote_case, config, tools, deadline_s=0.3)
    assert time.monotonic() - began < 3.0
    error = caught.value
    assert isinstance(error, Transient)
    assert (error.cause, error.possibly_billed) == (Cause.TIMEOUT, True)
    the_line(caught, tools)


def test_a_host_that_cannot_be_reached_cost_nothing(remote_case, config, tools) -> None:
    with pytest.raises(Transient, match="cannot be reached; check `base_url`") as caught:
        tools.send(config({"base_url": "http://127.0.0.1:9/v1"}).open(), remote_case.requests()[:1])
    assert (caught.value.cause, caught.value.possibly_billed, caught.value.tries) == (Cause.CONNECTION, False, 3)
    the_line(caught, tools)


def test_a_redirect_delivers_nothing_elsewhere(remote_case, config, tools) -> None:
    with Stub() as elsewhere:
        caught, stub = asked({"rules": [{"fault": "redirect", "location": elsewhere.url}]}, remote_case, config, tools)
        assert isinstance(caught.value, Transient | Stopped)
        assert len(stub.requests) == 1
        assert elsewhere.requests == []
