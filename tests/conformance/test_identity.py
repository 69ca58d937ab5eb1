"""Who answers: said the same each time, as JSON, and part of every cache key; and what makes another key."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from privolve.adapters.contract import EmbedRequest, ModelIdentity
from privolve.cache.keys import canonical_json


def test_an_identity_is_the_same_each_time_and_says_who_answers(case, config, adapter) -> None:
    identity = adapter.identity
    assert isinstance(identity, ModelIdentity)
    assert identity == adapter.identity
    assert identity.provider
    assert identity.model
    assert json.loads(canonical_json(vars(identity))) == vars(identity)


def test_settings_and_identity_hold_no_key_no_path_and_no_moment(case, config, adapter, tools) -> None:
    said = json.dumps([config().settings(), vars(adapter.identity)])
    assert tools.KEY not in said
    assert "/tmp" not in said
    assert config().settings() == config().settings()


def test_keys_are_the_same_each_time_and_different_for_different_questions(case, config, tools) -> None:
    requests = case.requests()
    again = [request if isinstance(request, EmbedRequest) else replace(request, draw=99) for request in requests]
    keys = tools.keys_of(config(), [*requests, *again])
    assert tools.keys_of(config(), requests) == keys[: len(requests)] == keys[len(requests) :]
    assert len(set(keys)) > 1


def test_a_setting_that_changes_answers_changes_the_key(case, config, tools) -> None:
    keys = [tools.keys_of(config(changed), case.requests()[:1])[0] for changed in ({}, *case.changes)]
    assert len(set(keys)) == len(keys)


def test_a_setting_that_changes_no_answer_keeps_the_key(case, config, tools) -> None:
    requests = case.requests()[:1]
    for changed in case.keeps:
        assert config(changed) != config()
        assert tools.keys_of(config(changed), requests) == tools.keys_of(config(), requests), changed


def test_every_setting_counts_unless_it_is_said_not_to(case, config) -> None:
    fields = set(type(config()).model_fields)
    ignored = type(config()).cannot_change_replies
    assert not ignored & config().settings().keys()
    assert {name for name in fields - ignored if getattr(config(), name) is not None} <= config().settings().keys()


def test_a_model_is_known_by_its_weights_not_by_its_place(case, config, folder_of, tools, tmp_path: Path) -> None:
    if not case.model:
        pytest.skip("it is loaded from no folder")
    requests = case.requests()[:1]
    moved = tmp_path / folder_of(case.model).name
    shutil.copytree(folder_of(case.model), moved)
    assert tools.keys_of(config(case.placed(moved)), requests) == (before := tools.keys_of(config(), requests))
    weights = next(path for path in sorted(moved.rglob("*")) if path.suffix in (".safetensors", ".pth", ".npz"))
    if weights.suffix == ".pth":
        pytest.skip("other weights than those that its digest names are refused")
    if weights.suffix == ".npz":
        with np.load(weights) as arrays:
            changed = dict(arrays)
        next(iter(changed.values())).flat[-1] += 1
        np.savez(weights, **changed)
    else:
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    assert tools.keys_of(config(case.placed(moved)), requests) != before
