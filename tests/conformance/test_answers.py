"""What every adapter promises of its replies: alignment, draws, refusals, and independence from whatever is asked beside."""

from __future__ import annotations

import time

import numpy as np
import pytest

from privolve.adapters import registry
from privolve.adapters.contract import AsyncAdapter, EmbedRequest, Refusal, Stopped, wrong_with
from privolve.adapters.roles import RoleError
from privolve.adapters.stub import Stub
from privolve.cache.modes import Mode
from privolve.cache.store import MemoryStore


def test_every_registered_adapter_has_a_case(cases) -> None:
    assert {case.kind for case in cases.values()} == set(registry.names())


def test_the_cases_of_a_kind_ask_all_that_it_declares(cases) -> None:
    for kind in registry.names():
        asked = {type(request) for case in cases.values() if case.kind == kind for request in case.requests()}
        assert asked == set(registry.config_class(kind).answers), kind


def test_reply_i_answers_request_i(case, adapter, tools) -> None:
    requests = case.requests()
    replies = tools.send(adapter, requests)
    assert [wrong_with(request, reply) for request, reply in zip(requests, replies, strict=True)] == [""] * len(replies)
    assert not any(isinstance(reply, Refusal) for reply in replies)
    # Answers differ, so that one at a wrong place is seen where they move.
    assert not tools.same([replies[0]], [replies[-1]])


def test_replies_move_with_their_requests(case, adapter, tools) -> None:
    requests = case.requests()
    replies = tools.send(adapter, requests)
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(len(requests))
        mixed = tools.send(adapter, [requests[place] for place in order])
        assert tools.same(mixed, [replies[place] for place in order])


def test_a_request_alone_gets_what_it_gets_among_others(case, adapter, tools) -> None:
    requests = case.requests()
    replies = tools.send(adapter, requests)
    for place in (0, len(requests) // 2, len(requests) - 1):
        assert tools.same(tools.send(adapter, [requests[place]]), [replies[place]])


def test_the_size_of_a_batch_moves_the_last_bits_of_features_at_most(case, config, adapter, tools) -> None:
    if "batch_size" not in type(config()).model_fields:
        pytest.skip("its batches have no size to set")
    requests = case.requests()
    replies = tools.send(adapter, requests)
    others = tools.send(config({"batch_size": 5}).open(), requests)
    if isinstance(replies[0], np.ndarray):
        assert np.allclose(np.stack(others), np.stack(replies), rtol=1e-4, atol=1e-5)
    else:
        assert tools.same(others, replies)


def test_a_refused_neighbour_changes_nothing(case, adapter, tools) -> None:
    refused, requests = case.refuses(), case.requests()
    if not refused:
        pytest.skip("it refuses nothing")
    replies = tools.send(adapter, [refused[0], *requests, *refused])
    assert tools.same(replies[1 : 1 + len(requests)], tools.send(adapter, requests))
    for reply in (replies[0], *replies[1 + len(requests) :]):
        assert isinstance(reply, Refusal)
        assert reply.reason
        assert "\n" not in reply.reason


def test_equal_requests_get_equal_replies_from_an_adapter_opened_anew(case, config, adapter, tools) -> None:
    requests = case.requests()
    assert tools.same(tools.send(config().open(), requests), tools.send(adapter, requests))


def test_draws_differ_where_it_samples_and_a_draw_is_the_same_again(case, config, opened, tools) -> None:
    """Behind the gateway: a provider knows of no draws, so what was said of one is kept."""
    by_question: dict[str, list] = {}
    requests = case.requests()
    with Stub({"polls": 0}) as fresh:
        role = opened(config(stub=fresh)).open("it")
        replies = role.send([*requests, *requests])
        assert tools.same(replies[: len(requests)], replies[len(requests) :])
        assert tools.same(role.send(requests[::-1]), replies[: len(requests)][::-1])
    for request, reply in zip(requests, replies, strict=False):
        about = tuple((name, id(value) if "image" in name else repr(value)) for name, value in vars(request).items())
        by_question.setdefault(repr([pair for pair in about if pair[0] != "draw"]), []).append(reply)
    drawn = [some for some in by_question.values() if len(some) > 1]
    if not case.samples:
        assert all(tools.same(some[:1] * len(some), some) for some in drawn)
        return
    assert drawn
    differ = [not tools.same(some[:1], [other]) for some in drawn for other in some[1:]]
    assert sum(differ) > len(differ) / 2


def test_nothing_asked_is_nothing_answered(case, config, adapter, opened) -> None:
    if not isinstance(adapter, AsyncAdapter):
        assert list(adapter.send([])) == []
    assert list(opened(config()).open("it").send([])) == []


def test_a_kind_of_request_that_it_does_not_declare_is_refused_before_any_work(case, config, opened, cases) -> None:
    others = [
        one for each in cases.values() if each.kind in ("lexicon", "glyphs", "hashing") for one in each.requests()
    ]
    gateway = opened(config())
    for request in others:
        if not isinstance(request, config().answers):
            with pytest.raises(RoleError, match="does not answer"):
                gateway.require("it", type(request))


def test_a_replay_gives_the_same_bits_and_asks_nobody(case, config, opened, tools) -> None:
    store, requests = MemoryStore(), case.requests()
    with Stub({"polls": 0}) as provider:
        there = config(stub=provider)
        replies = opened(there, store=store, mode=Mode.RECORD).open("it").send(requests)
        asked = len(provider.requests)
        for chunk in (1, 9):
            again = opened(there, store=store, mode=Mode.REPLAY, chunk=chunk, concurrency=chunk).open("it")
            assert tools.same(again.send(requests[::-1])[::-1], replies)
        assert len(provider.requests) == asked


def test_an_embedding_model_stops_where_it_can_read_none_of_a_kind(tools, steady) -> None:
    """Remote embedders read texts: an image is a mistake of the job, told at once and without a request."""
    pytest.importorskip("openai")
    before = len(steady.requests)
    table = {"kind": "openai", "model": "text-embedding-3-small", "base_url": steady.openai_url}
    adapter = registry.parse({**table, "api_key_env": "CONFORMANCE_KEY"}).open()
    began = time.monotonic()
    with pytest.raises(Stopped, match="it embeds texts, not images"):
        tools.send(adapter, [EmbedRequest(content=tools.noise(1)[0])])
    assert time.monotonic() - began < 2
    assert len(steady.requests) == before
