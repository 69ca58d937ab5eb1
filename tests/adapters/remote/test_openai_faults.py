"""What `openai` makes of every failure of the wire table: one request is sent, and the right error is told once."""

from __future__ import annotations

import asyncio
import time

import pytest

from privolve.adapters.contract import Cause, EmbedRequest, Refusal, Stopped, Transient


def failing(stub, fault: str, **rule) -> None:
    stub.follow({"rules": [{"fault": fault, **rule}]})


@pytest.mark.parametrize(
    ("fault", "rule", "cause", "wait_s"),
    [
        ("rate-limited", {}, Cause.RATE, None),
        ("rate-limited", {"retry_after_s": 7}, Cause.RATE, 7.0),
        ("rate-limited", {"retry_after_s": 0.25}, Cause.RATE, 0.25),
        ("slow-down", {"retry_after_s": 130}, Cause.RATE, 130.0),
        ("tokens-limited", {}, Cause.RATE, None),
        ("overloaded", {}, Cause.RATE, None),
        ("server-error", {}, Cause.SERVER, None),
        ("bad-gateway", {}, Cause.SERVER, None),
        ("unavailable", {"retry_after_s": 3}, Cause.SERVER, 3.0),
        ("gateway-timeout", {}, Cause.SERVER, None),
        ("conflict", {}, Cause.SERVER, None),
        ("too-late", {}, Cause.SERVER, None),
    ],
)
def test_what_may_pass_is_transient_and_sent_once(stub, openai, ask, text, fault, rule, cause, wait_s):
    failing(stub, fault, **rule)
    with pytest.raises(Transient) as caught:
        ask(openai(), text)
    assert caught.value.cause is cause
    assert caught.value.wait_s == wait_s
    assert caught.value.tries is None
    assert len(stub.requests) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no-money", "no money or quota"),
        ("free-tier-only", "no money or quota"),
        ("bad-key", "check the key in A_KEY"),
        ("forbidden", "access denied"),
        ("model-gone", "check `model`"),
        ("bad-request", "not accepted"),
    ],
)
def test_what_a_person_must_mend_stops_the_role_at_once_in_one_line(stub, openai, ask, text, fault, words):
    failing(stub, fault)
    with pytest.raises(Stopped, match=words) as caught:
        ask(openai(), text)
    assert "\n" not in str(caught.value) and "gpt-6-luna" in str(caught.value)
    assert len(stub.requests) == 1


def test_a_model_that_is_gone_is_answered_with_its_replacement(stub, openai, ask, text):
    failing(stub, "model-gone")
    with pytest.raises(Stopped, match="names gpt-6-luna instead"):
        ask(openai("gpt-4o-mini"), text)


def test_moderation_is_a_refusal_and_costs_a_text_nothing(stub, openai, ask, text):
    failing(stub, "moderated")
    answered = ask(openai(), text)
    assert answered.reply == Refusal("moderation_blocked")
    assert answered.usage.input_tokens == answered.usage.output_tokens == 0


def test_a_server_that_fails_has_not_charged_a_text_but_may_have_charged_a_picture(stub, openai, ask, text, painting):
    failing(stub, "gateway-timeout")
    for model, request, billed in (("gpt-6-luna", text, False), ("gpt-image-2.6-flare", painting, True)):
        with pytest.raises(Transient) as caught:
            ask(openai(model), request)
        assert caught.value.possibly_billed is billed


def test_a_blocked_picture_counts_as_possibly_painted(stub, openai, ask, painting):
    failing(stub, "moderated")
    answered = ask(openai("gpt-image-2.6-flare"), painting)
    assert isinstance(answered.reply, Refusal)
    assert answered.usage.images == 1 and not answered.usage.reported


def test_an_answer_that_the_filter_took_away_is_a_refusal_that_was_paid_for(stub, openai, ask, text):
    failing(stub, "moderated-answer")
    answered = ask(openai(), text)
    assert isinstance(answered.reply, Refusal)
    assert answered.usage.reported and answered.usage.input_tokens > 0


def test_the_refusal_of_a_status_200_is_a_refusal(stub, openai, ask, text):
    failing(stub, "error-in-body")
    assert isinstance(ask(openai(), text).reply, Refusal)


MALFORMED = ("wrong-json", "truncated-json", "empty", "html", "no-content", "no-choices", "too-many-choices")


@pytest.mark.parametrize("fault", MALFORMED)
@pytest.mark.parametrize("kind", ["text", "painting", "embedding"])
def test_a_200_that_is_no_answer_is_tried_twice_at_most_and_counts_as_paid(
    stub, openai, ask, text, painting, fault, kind
):
    model, request = {
        "text": ("gpt-6-luna", text),
        "painting": ("gpt-image-2.6-flare", painting),
        "embedding": ("text-embedding-3-small", EmbedRequest(content="a")),
    }[kind]
    failing(stub, fault)
    with pytest.raises(Transient) as caught:
        ask(openai(model), request)
    assert caught.value.cause is Cause.MALFORMED
    assert caught.value.tries == 2
    assert caught.value.possibly_billed
    assert len(stub.requests) == 1


def test_only_a_usage_that_the_server_reported_is_told_with_a_failure(stub, openai, ask, text):
    for fault, told in (("no-content", True), ("html", False), ("drop", False)):
        failing(stub, fault)
        with pytest.raises(Transient) as caught:
            ask(openai(), text)
        assert (caught.value.usage is not None) is told


def test_bytes_that_are_no_image_are_no_answer(stub, openai, ask, painting):
    failing(stub, "bad-image")
    with pytest.raises(Transient) as caught:
        ask(openai("gpt-image-2.6-flare"), painting)
    assert caught.value.cause is Cause.MALFORMED


@pytest.mark.parametrize("fault", ["drop", "reset"])
def test_a_connection_that_breaks_after_sending_may_have_been_billed(stub, openai, ask, text, fault):
    failing(stub, fault)
    with pytest.raises(Transient) as caught:
        ask(openai(), text)
    assert caught.value.cause is Cause.CONNECTION
    assert caught.value.possibly_billed
    assert len(stub.requests) == 1


@pytest.mark.parametrize(("fault", "rule"), [("silence", {}), ("drip", {"pace_s": 0.05, "pieces": 100})])
def test_one_deadline_ends_silence_and_dripping_alike(stub, openai, ask, text, fault, rule):
    failing(stub, fault, **rule)
    start = time.monotonic()
    with pytest.raises(Transient) as caught:
        ask(openai(deadline_s=0.3), text)
    assert time.monotonic() - start < 3
    assert caught.value.cause is Cause.TIMEOUT and caught.value.possibly_billed
    assert len(stub.requests) == 1


def test_a_host_that_cannot_be_reached_was_sent_nothing_and_is_not_waited_for_all_night(openai, ask, text):
    with pytest.raises(Transient, match="cannot be reached") as caught:
        ask(openai(base_url="http://127.0.0.1:9/v1"), text)
    assert caught.value.cause is Cause.CONNECTION
    assert not caught.value.possibly_billed
    assert caught.value.tries == 3


def test_once_a_server_has_answered_its_absence_is_a_matter_of_patience(stub, openai, text):
    async def ask_twice():
        adapter = openai(deadline_s=5).open()
        await adapter.answer(text)
        await adapter.close()
        stub.__exit__(None, None, None)
        try:
            await adapter.answer(text)
        finally:
            await adapter.close()

    with pytest.raises(Transient) as caught:
        asyncio.run(ask_twice())
    assert caught.value.tries is None


def test_a_reply_that_is_too_large_is_cut_off(openai, ask, painting):
    with pytest.raises(Transient, match="more than 2048 bytes") as caught:
        ask(openai("gpt-image-2.6-flare", max_response_bytes=2048), painting)
    assert caught.value.cause is Cause.MALFORMED


def test_the_words_of_dashscopes_compatible_mode_mean_what_dashscope_means(stub, openai, ask, text):
    """The same `insufficient_quota`: an empty account at one, a throttle that lifts at the other."""
    url = stub.compatible_url
    failing(stub, "tokens-limited", retry_after_s=2)
    with pytest.raises(Transient) as caught:
        ask(openai("qwen-plus", base_url=url, provider="dashscope"), text)
    assert caught.value.cause is Cause.RATE and caught.value.wait_s == 2.0
    with pytest.raises(Stopped, match="no money"):
        ask(openai("qwen-plus", base_url=url, provider="openai"), text)


def test_only_the_deadline_bounds_a_slow_but_whole_reply(stub, openai, ask, text):
    stub.follow({"latency_s": 0.3})
    assert ask(openai(deadline_s=10), text).reply


def test_cancelling_the_caller_cancels_the_call(stub, openai, text):
    failing(stub, "silence")

    async def cancelled():
        adapter = openai(deadline_s=30).open()
        task = asyncio.create_task(adapter.answer(text))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await adapter.close()

    asyncio.run(cancelled())
    assert len(stub.requests) == 1
