from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest

from privolve.adapters.contract import (
    CaptionRequest,
    EmbedRequest,
    Image,
    ImageRequest,
    ImageVariationRequest,
    Message,
    ModelIdentity,
    TextRequest,
)
from privolve.cache.keys import Addressing, canonical_json, request_key

MODEL = ModelIdentity(provider="somewhere", model="writer", revision="1")
PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
TEXT = TextRequest(messages=(Message(role="user", content="a cat"),), draw=0, temperature=0.7, max_tokens=20)
CAPTION = CaptionRequest(image=Image(PIXELS), prompt="what is it?", draw=0)
PAINT = ImageRequest(prompt="a cat", draw=0, size=(8, 8))
VARY = ImageVariationRequest(image=Image(PIXELS, "r"), prompt="a cat", degree=0.5, draw=0)
EMBED = EmbedRequest(content=Image(PIXELS))

CHANGED = [
    (TEXT, {"messages": (Message(role="user", content="a dog"),)}),
    (TEXT, {"messages": (Message(role="system", content="a cat"),)}),
    (TEXT, {"messages": (*TEXT.messages, *TEXT.messages)}),
    (TEXT, {"temperature": None}),
    (TEXT, {"max_tokens": None}),
    (CAPTION, {"prompt": "what is it"}),
    (CAPTION, {"image": Image(PIXELS + 1)}),
    (CAPTION, {"image": Image(PIXELS.reshape(1, 4, 3))}),
    (PAINT, {"size": (8, 9)}),
    (PAINT, {"channels": 1}),
    (PAINT, {"prompt": "a cat "}),
    (VARY, {"degree": 0.25}),
    (VARY, {"image": Image(PIXELS, "another recipe")}),
    (EMBED, {"content": "a cat"}),
    (EMBED, {"content": Image(PIXELS[::-1].copy())}),
]


@pytest.mark.parametrize(("request_", "change"), CHANGED)
def test_every_field_of_a_request_counts(request_, change):
    assert request_key(MODEL, request_) != request_key(MODEL, replace(request_, **change))


@pytest.mark.parametrize("change", [{"provider": "x"}, {"model": "x"}, {"revision": "2"}])
def test_who_answers_counts(change):
    assert request_key(MODEL, TEXT) != request_key(replace(MODEL, **change), TEXT)


def test_how_the_adapter_is_set_up_counts():
    keys = {
        request_key(MODEL, TEXT, settings=settings) for settings in (None, {"steps": 4}, {"steps": 5}, {"stops": 4})
    }
    assert len(keys) == 4


def test_requests_of_different_kinds_with_equal_fields_have_different_keys():
    @dataclass(frozen=True)
    class Other:
        content: str

    assert request_key(MODEL, Other("a cat")) != request_key(MODEL, EmbedRequest(content="a cat"))


def test_a_draw_is_a_place_beside_the_key():
    at = Addressing(MODEL, namespace="run")
    first, second = at.of(TEXT), at.of(replace(TEXT, draw=1))
    assert first.key == second.key
    assert (first.draw, second.draw) == (0, 1)
    assert first.place != second.place


def test_a_new_run_draws_anew_but_shares_embeddings():
    one, other = Addressing(MODEL, namespace="one"), Addressing(MODEL, namespace="other")
    assert one.of(TEXT).place != other.of(TEXT).place
    assert one.of(EMBED).place == other.of(EMBED).place


def test_a_key_is_versioned_and_is_the_hash_of_the_canonical_json():
    from hashlib import blake2b

    address = Addressing(MODEL, settings={"b": 1, "a": None}).of(VARY)
    assert address.key == "k1:" + blake2b(address.canonical.encode(), digest_size=32).hexdigest()
    canonical = json.dumps(json.loads(address.canonical), sort_keys=True, separators=(",", ":"))
    assert canonical == address.canonical


def test_equal_pixels_in_another_memory_layout_have_an_equal_key():
    turned = EmbedRequest(content=Image(np.asfortranarray(PIXELS)))
    assert request_key(MODEL, turned) == request_key(MODEL, EMBED)


def test_numbers_have_one_spelling_and_nothing_else_is_normalised():
    assert canonical_json([1.0, 1, -0.0, 0.5]) == "[1,1,0,0.5]"
    assert canonical_json(True) != canonical_json(1)
    assert canonical_json("e\u0301") != canonical_json("\u00e9")
    assert canonical_json("\ud800") == '"\\ud800"'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: "a"}, {True: "a"}, object(), {1, 2}])
def test_what_has_no_one_spelling_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        canonical_json(value)


def test_a_key_is_the_same_in_every_process():
    code = (
        "from privolve.adapters.contract import *; from privolve.cache.keys import request_key;"
        "print(request_key(ModelIdentity(provider='p', model='m'), EmbedRequest(content='x'), settings={'b': 1, 'a': 2}))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    model = ModelIdentity(provider="p", model="m")
    assert other == request_key(model, EmbedRequest(content="x"), settings={"a": 2, "b": 1})
