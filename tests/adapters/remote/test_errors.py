"""The tables of errors, as data."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from privolve.adapters.remote.errors import TABLES, Failure, Meaning, meaning, wait_s

ROWS = [
    ("openai", 429, "insufficient_quota", "", Meaning.QUOTA),
    ("dashscope", 429, "insufficient_quota", "", Meaning.RATE),
    ("dashscope", 429, "Throttling.AllocationQuota", "", Meaning.RATE),
    ("dashscope", 429, "Throttling.AllocationQuota", "Free allocated quota exceeded.", Meaning.QUOTA),
    ("dashscope", 403, "AllocationQuota.FreeTierOnly", "", Meaning.QUOTA),
    ("dashscope", 400, "Arrearage", "", Meaning.QUOTA),
    ("openai", 429, "project_spend_limit_exceeded", "", Meaning.QUOTA),
    ("openai", 503, "slow_down", "", Meaning.RATE),
    ("dashscope", 429, "limit_burst_rate", "", Meaning.RATE),
    ("openai", 400, "moderation_blocked", "", Meaning.REFUSED),
    ("openai", 400, "content_policy_violation", "", Meaning.REFUSED),
    ("openai", 400, "context_length_exceeded", "", Meaning.REFUSED),
    ("dashscope", 400, "<400> InternalError.Algo.DataInspectionFailed", "", Meaning.REFUSED),
    ("dashscope", 400, "data_inspection_failed", "", Meaning.REFUSED),
    ("dashscope", 500, "InternalError.Algo", "", Meaning.TRANSIENT),
    ("dashscope", 403, "AccessDenied.Unpurchased", "", Meaning.AUTH),
    ("dashscope", 404, "Model.NotExist", "", Meaning.GONE),
    ("openai", 404, "model_not_found", "", Meaning.GONE),
    ("openai", 401, "", "", Meaning.AUTH),
    ("openai", 400, "", "", Meaning.INVALID),
    ("openai", 529, "", "", Meaning.TRANSIENT),
    ("compatible", 402, "", "", Meaning.QUOTA),
    ("azure", 400, "content_filter", "", Meaning.REFUSED),
]


@pytest.mark.parametrize(("provider", "status", "code", "message", "expected"), ROWS)
def test_a_failure_means_what_its_own_provider_means_by_it(provider, status, code, message, expected):
    assert meaning(provider, Failure(status=status, code=code, message=message, headers={})) is expected
    assert meaning(provider, Failure(status=status, type=code, message=message, headers={})) is expected


@pytest.mark.parametrize("provider", sorted(TABLES))
@pytest.mark.parametrize("status", [200, 302, 400, 401, 404, 408, 413, 418, 422, 429, 500, 503, 599])
def test_every_failure_means_something(provider, status):
    assert meaning(provider, Failure(status=status, code="never-seen-before", headers={})) in Meaning


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
    ],
)
def test_the_providers_word_on_when_to_ask_again_is_read_in_all_its_spellings(headers, expected):
    assert wait_s(headers, now=datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)) == expected
