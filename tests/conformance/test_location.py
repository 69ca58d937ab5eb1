"""Where an adapter's input goes: a constant of its code; and what leaves this machine sees no private record unasked."""

from __future__ import annotations

import numpy as np
import pytest

from privolve.adapters import registry
from privolve.adapters.contract import Location
from privolve.adapters.roles import TrustError
from privolve.data.private_set import PrivateSet, Record
from privolve.privacy.private import Private, open_private

TEXTS = ("the red cat of the canary", "a big house of the canary", "old river")


class Records:
    """Three records of one class."""

    ids = ("a", "b", "c")

    def __init__(self, contents) -> None:
        self.contents = contents

    def __len__(self) -> int:
        return len(self.contents)

    def read(self, slot: int) -> Record:
        return Record(self.contents[slot], 0)

    def read_many(self, start: int, stop: int) -> list[Record]:
        return [self.read(slot) for slot in range(start, stop)]

    def raw(self, slot: int) -> bytes:
        return str(slot).encode()

    def parts(self):
        return (self.raw(slot) for slot in range(len(self)))


@pytest.fixture
def private(case, tools) -> PrivateSet:
    """Texts for what reads texts, small images for what sees."""
    request = case.requests()[0]
    sees = hasattr(request, "image") or not isinstance(getattr(request, "content", ""), str)
    pixels = [image.pixels for image in tools.noise(3, (16, 16, 3), seed=5)]
    return PrivateSet(
        name="canaries",
        partition="train",
        records=Private(Records(pixels if sees else TEXTS)),
        count=3,
        classes=("a",),
        size=(16, 16) if sees else None,
        channels=3 if sees else 0,
        text_bytes=0 if sees else 100,
        declaration="",
    )


def test_a_location_is_a_constant(case, config, adapter) -> None:
    expected = Location.REMOTE if case.remote else Location.LOCAL
    assert (
        adapter.location is type(adapter).location is type(config()).location is registry.location(config()) is expected
    )
    assert registry.is_ours(config())
    assert "location" not in type(config()).model_fields


def test_what_is_remote_gets_no_private_record_without_trust(remote_case, config, opened, steady) -> None:
    steady.clear()
    gateway = opened(config())
    with pytest.raises(TrustError, match="is a remote adapter and may not see private data"):
        gateway.check_trust("it")
    with pytest.raises(TrustError):
        gateway.open_trusted("it")
    assert gateway.egress() == {}
    assert steady.requests == []


def test_what_is_local_needs_no_trust_and_is_no_egress(case, config, opened) -> None:
    if case.remote:
        pytest.skip("it is remote")
    gateway = opened(config(), trust=["it"])
    gateway.open_trusted("it")
    assert gateway.egress() == {}
    opened(config()).open_trusted("it")


def asked(gateway, case, private):
    """What the role makes of the private set, by the first thing that it can do with it; None if there is none."""
    kinds = {kind.__name__ for kind in registry.config_class(case.kind).answers}
    kinds &= {type(request).__name__ for request in case.requests()}
    role = gateway.open_trusted("it")
    if "EmbedRequest" in kinds:
        return open_private(role.embed(private)).embeddings
    if "CaptionRequest" in kinds and private.size is not None:
        derived = open_private(role.caption(private, prompt="a photo", max_tokens=6).records)
    elif "ImageRequest" in kinds and private.size is None:
        derived = open_private(role.paint(private, size=(16, 16), channels=3).records)
    else:
        return None
    return [None if each is None else each.content for each in derived.read_many(0, 3)]


def test_what_is_trusted_sees_every_record_and_is_listed(remote_case, config, opened, private, steady) -> None:
    steady.clear()
    gateway = opened(config(), trust=["it"])
    answers = asked(gateway, remote_case, private)
    if answers is None:
        pytest.skip("a set of this form is nothing to it")
    assert len(answers) == 3
    assert list(gateway.egress()) == ["it"]
    bodies = b"".join(request.body for request in steady.requests)
    assert private.size is not None or all(text.encode() in bodies for text in TEXTS)
    # Nothing of it is in the shared cache: asked again in public, it is asked anew.
    assert gateway.counts()["it"].asked >= 3


def test_the_answer_about_a_private_record_does_not_depend_on_the_others(
    case, config, opened, private, tmp_path
) -> None:
    if case.kind in ("glyphs", "glyph-painter", "diffusers-class", "trained"):
        pytest.skip("no private text names what it draws")

    def answers(contents, name: str):
        changed = PrivateSet(**{**vars(private), "records": Private(Records(contents))})
        gateway = opened(config(), trust=["it"], private_dir=tmp_path / name)
        return asked(gateway, case, changed)

    contents = open_private(private.records).contents
    whole = answers(contents, "whole")
    if whole is None:
        pytest.skip("a set of this form is nothing to it")
    other = "a blue dog on the new bed" if isinstance(contents[0], str) else np.zeros_like(contents[0])
    neighbour = answers([contents[0], other, contents[2]], "neighbour")
    for slot in (0, 2):
        assert np.array_equal(whole[slot], neighbour[slot])
    assert not np.array_equal(whole[1], neighbour[1])
