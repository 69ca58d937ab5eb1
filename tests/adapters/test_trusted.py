from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import logging
import os
import stat
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from privolve.adapters.contract import (
    AdapterError,
    AdapterUnavailable,
    CaptionRequest,
    EmbedRequest,
    Image,
    ImageRequest,
    Location,
    ModelIdentity,
    Refusal,
    Stopped,
    Transient,
)
from privolve.adapters.roles import Counts, GatewayError
from privolve.adapters.scripted import ScriptedAsync, ScriptedConfig
from privolve.adapters.trusted import CAPTION_BYTES
from privolve.adapters.wrappers.retrying import Patience
from privolve.data.private_set import PrivateSet, Record
from privolve.data.voters import Voters
from privolve.privacy.private import OperationalError, Private, PrivateStageError, open_private

ODD = 3
"""The slot whose record is special in these tests."""


def pixels_of(number: int) -> np.ndarray:
    return np.random.default_rng(number + 1).integers(1, 256, (4, 4, 1)).astype(np.uint8)


def some_records(count: int) -> list[Any]:
    return [Record(pixels_of(slot), slot % 3) for slot in range(count)]


def features(request: EmbedRequest) -> np.ndarray:
    assert isinstance(request.content, Image)
    return np.sqrt(request.content.pixels.reshape(-1)[:5]).astype(np.float32)


def is_odd(request: EmbedRequest | CaptionRequest) -> bool:
    image = request.content if isinstance(request, EmbedRequest) else request.image
    return isinstance(image, Image) and bool((image.pixels == pixels_of(ODD)).all())


class Batches:
    """A batch adapter whose bits depend on the shape of the batch, as a matrix product's do; and which can be told to fail."""

    location = Location.LOCAL
    identity = ModelIdentity(provider="scripted", model="batches")

    def __init__(self, odd: Any = None) -> None:
        self.odd = odd
        self.sizes: list[int] = []

    def send(self, requests: Sequence[EmbedRequest], /) -> list[Any]:
        self.sizes.append(len(requests))
        replies = [features(request) + np.float32(len(requests)) for request in requests]
        for place, request in enumerate(requests):
            if self.odd is not None and is_odd(request):
                if isinstance(self.odd, Exception):
                    raise self.odd
                if isinstance(self.odd, str):
                    return replies[1:]
                replies[place] = self.odd
        return replies


class Async(ScriptedAsync):
    """The same as a remote model, with the batch's part left out."""

    def __init__(self, odd: Any = None) -> None:
        super().__init__(self.reply, identity=ModelIdentity(provider="scripted", model="async"))
        self.odd = odd
        self.asked: list[EmbedRequest] = []

    async def reply(self, request: EmbedRequest) -> Any:
        self.asked.append(request)
        await asyncio.sleep(0)
        if self.odd is not None and is_odd(request):
            if isinstance(self.odd, Exception):
                raise self.odd
            return self.odd
        return features(request)


def config(adapter: Any) -> ScriptedConfig:
    return ScriptedConfig(adapter=adapter)


def opened(private: Private[Any]) -> Any:
    return open_private(private)


def contents(private: PrivateSet) -> list[Any]:
    records = open_private(private.records)
    return [None if record is None else record.content for record in records.read_many(0, len(records))]


@pytest.fixture(params=[Batches, Async])
def kind(request):
    return request.param


@pytest.fixture
def embed(gateway, images):
    """The voters of an adapter on some records, in a new gateway that trusts it."""

    def voters(adapter: Any, records: Any = 10, **options: Any) -> Voters:
        return opened(
            gateway({"eye": config(adapter)}, trust=["eye"], **options).open_trusted("eye").embed(images(records))
        )

    return voters


# One row a slot


def test_every_record_has_its_row_and_its_label(embed, kind):
    voters = embed(kind())
    shift = np.array([4] * 8 + [2] * 2) if kind is Batches else 0
    expected = np.stack([features(EmbedRequest(content=Image(pixels_of(slot)))) for slot in range(10)])
    assert np.array_equal(
        voters.embeddings, expected + np.float32(np.reshape(shift, (-1, 1) if kind is Batches else ()))
    )
    assert voters.labels.tolist() == [slot % 3 for slot in range(10)]
    assert voters.valid.all()


def test_a_ghost_holds_zeros_and_no_label_in_its_slot(embed, kind):
    records = some_records(10)
    records[ODD] = None
    voters = embed(kind(), records)
    assert voters.valid.tolist() == [slot != ODD for slot in range(10)]
    assert voters.labels[ODD] == -1
    assert not voters.embeddings[ODD].any()


@pytest.mark.parametrize("slot", range(10))
def test_replacing_a_record_by_a_ghost_changes_no_other_row_bit_for_bit(embed, kind, tmp_path, slot):
    whole = embed(kind(), private_dir=tmp_path / "whole")
    records = some_records(10)
    records[slot] = None
    ghost = embed(kind(), records, private_dir=tmp_path / "ghost")
    others = np.arange(10) != slot
    assert whole.embeddings[others].tobytes() == ghost.embeddings[others].tobytes()
    assert np.array_equal(whole.labels[others], ghost.labels[others])
    assert ghost.valid[others].all()


def test_batches_have_public_sizes_whatever_the_records_are(embed, images):
    whole, ghosts = Batches(), Batches()
    embed(whole, 10)
    embed(ghosts, [None] * 10)
    assert whole.sizes[1:] == [4, 4, 2]
    assert ghosts.sizes == [4, 4, 2]  # The blank that tells the width is public, and cached.


UNUSABLE = [
    np.array([1, 2, np.nan, 4, 5], dtype=np.float32),
    np.array([1, 2, np.inf, 4, 5], dtype=np.float32),
    np.ones(6, dtype=np.float32),
    np.ones((5, 1), dtype=np.float32),
    np.ones(5, dtype=np.float64),
    "words",
    7,
    Refusal("unsafe"),
    ValueError("a record that breaks the model"),
    RuntimeError("a record that breaks the model"),
    AdapterError("this image is strange"),
]


@pytest.mark.parametrize("odd", [*UNUSABLE, None], ids=repr)
def test_a_record_that_cannot_be_used_is_a_ghost_and_no_other_row_moves(embed, kind, tmp_path, odd):
    # For the batch adapter a word stands for a batch of another length.
    whole = embed(kind(), private_dir=tmp_path / "whole")
    voters = embed(kind(odd), private_dir=tmp_path / "odd")
    others = np.arange(10) != ODD
    assert voters.valid[ODD] == (odd is None)
    assert voters.embeddings[others].tobytes() == whole.embeddings[others].tobytes()
    assert np.array_equal(voters.labels[others], whole.labels[others])
    assert voters.valid[others].all()
    if odd is not None:
        assert voters.labels[ODD] == -1
        assert not voters.embeddings[ODD].any()


@pytest.mark.parametrize(
    "record",
    [
        ValueError("cannot be decoded"),
        Record("words", 1),
        Record(np.zeros((4, 5, 1), dtype=np.uint8), 1),
        Record(np.zeros((4, 4, 3), dtype=np.uint8), 1),
        Record(np.zeros((4, 4, 1), dtype=np.float32), 1),
    ],
    ids=repr,
)
def test_a_record_that_is_not_of_the_declared_form_is_a_ghost(embed, kind, record):
    records = some_records(10)
    records[ODD] = record
    voters = embed(kind(), records)
    assert voters.valid.tolist() == [slot != ODD for slot in range(10)]


def test_nothing_is_deduplicated(embed):
    adapter = Async()
    embed(adapter, [Record(pixels_of(0), 0)] * 10)
    assert len(adapter.asked) == 1 + 10


def test_an_empty_set_has_voters(embed, kind):
    voters = embed(kind(), 0)
    assert voters.embeddings.shape == (0, 5)


# What stops


OPERATIONAL = [
    (Transient("CANARY", wait_s=9.0), "gave no answer before its deadline"),
    (Stopped("CANARY"), "stopped: its key, its account or its model"),
    (AdapterUnavailable("CANARY"), "cannot be opened"),
    (OSError(errno.ENOSPC, "CANARY", "/CANARY"), "No space left on device"),
    (ConnectionResetError("CANARY"), "ConnectionResetError"),
    (TimeoutError("CANARY"), "TimeoutError"),
    (MemoryError("CANARY"), "out of memory"),
]


@pytest.mark.parametrize(("failure", "words"), OPERATIONAL, ids=lambda value: type(value).__name__)
def test_a_failure_of_the_operation_stops_the_stage_with_public_words(embed, kind, failure, words):
    with pytest.raises(OperationalError, match=f"'eye'.*{words}.*nothing was charged") as stopped:
        embed(kind(failure), patience=Patience(deadline_s=1.0))
    assert "CANARY" not in "".join(traceback.format_exception(stopped.value))


def test_an_adapter_that_breaks_on_blanks_is_not_taken_for_a_private_set_of_ghosts(embed, kind):
    class Broken(kind):
        def send(self, requests):
            return super().send(requests) if len(requests) == 1 else 1 / 0

        async def reply(self, request):
            if not self.asked:
                return await super().reply(request)
            raise ZeroDivisionError

    with pytest.raises(OperationalError, match=r"'eye' fails on a .*blank"):
        embed(Broken())


def test_a_disk_that_cannot_be_read_stops_the_stage(embed):
    records = some_records(10)
    records[ODD] = OSError(errno.EIO, "CANARY")
    with pytest.raises(OperationalError, match="Input/output error"):
        embed(Batches(), records)


def test_a_full_disk_stops_the_stage_and_what_was_kept_is_gone_on_with(embed, monkeypatch):
    adapter = Batches()
    written = 0
    real = os.pwrite

    def nearly_full(*arguments: Any) -> int:
        nonlocal written
        written += 1
        if written > 8:
            raise OSError(errno.ENOSPC, "full")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", nearly_full)
        with pytest.raises(OperationalError, match="No space left on device"):
            embed(adapter)
    assert embed(adapter).valid.all()
    assert adapter.sizes == [1, 4, 4, 4, 2]


def test_a_set_of_another_size_than_declared_stops(gateway, images):
    declared = images(10)
    short = PrivateSet(**{**{name: getattr(declared, name) for name in declared.__dataclass_fields__}, "count": 11})
    with pytest.raises(OperationalError, match="another number of slots"):
        gateway({"eye": config(Batches())}).open_trusted("eye").embed(short)


def test_a_bug_inside_shows_its_stage_and_type_only(gateway, images, monkeypatch):
    from privolve.adapters import trusted_rows

    def bug(*_: object) -> None:
        raise KeyError("CANARY")

    monkeypatch.setattr(trusted_rows, "_read", bug)
    with pytest.raises(PrivateStageError, match=r"embedding by 'eye' failed on private values .KeyError.") as shown:
        gateway({"eye": config(Batches())}).open_trusted("eye").embed(images(5))
    assert "CANARY" not in "".join(traceback.format_exception(shown.value))


def test_a_refused_blank_is_a_public_error(embed, kind):
    class Refusing(kind):
        def send(self, requests):
            return [Refusal("no")] * len(requests)

        async def reply(self, request):
            return Refusal("no")

    with pytest.raises(AdapterError, match="refuses to embed a blank"):
        embed(Refusing())


# Going on


def test_what_was_answered_is_not_asked_again(embed, kind):
    adapter = kind()
    first = embed(adapter)
    asked = list(adapter.sizes if kind is Batches else adapter.asked)
    again = embed(adapter)
    assert again.embeddings.tobytes() == first.embeddings.tobytes()
    assert again.labels.tolist() == first.labels.tolist()
    assert list(adapter.sizes if kind is Batches else adapter.asked) == asked


def test_a_batch_adapter_goes_on_at_the_chunk_that_failed(embed):
    class Failing(Batches):
        def send(self, requests, /):
            if len(self.sizes) == 2:
                self.sizes.append(-1)
                raise Stopped("no money")
            return super().send(requests)

    failing = Failing()
    with pytest.raises(OperationalError):
        embed(failing)
    assert embed(failing).valid.all()
    assert failing.sizes == [1, 4, -1, 4, 2]


def test_an_async_adapter_keeps_each_answer_that_finished(embed):
    adapter = Async(Stopped("no money"))
    with pytest.raises(OperationalError):
        embed(adapter, chunk=10, concurrency=2)
    before = len(adapter.asked)
    adapter.odd = None
    assert embed(adapter, chunk=10, concurrency=2).valid.all()
    kept = before - 2  # All but the public blank and the one that failed.
    assert len(adapter.asked) - before == 10 - kept
    assert kept >= ODD


def test_a_changed_set_model_or_setting_is_asked_anew(embed):
    class Other(Batches):
        identity = ModelIdentity(provider="scripted", model="other")

    adapter = Batches()
    embed(adapter)
    changed = some_records(10)
    changed[5] = Record(pixels_of(5), 1)
    assert embed(adapter, changed).labels[5] == 1
    assert adapter.sizes == [1, 4, 4, 2, 4, 4, 2]
    other = Other()
    embed(other, changed)
    assert other.sizes == [1, 4, 4, 2]


@pytest.mark.parametrize("declared", [{"classes": ("b", "a", "c")}, {"declaration": "another"}], ids=repr)
def test_another_declaration_makes_the_rows_anew(gateway, images, declared):
    adapter = Batches()
    eye = gateway({"eye": config(adapter)}).open_trusted("eye")
    eye.embed(images(5))
    relabelled = [Record(pixels_of(slot), (slot + 1) % 3) for slot in range(5)]

    # The bytes are the same, and what a slot's label index means is not.
    private = images(relabelled, **declared)
    records = open_private(private.records)
    records.raw = open_private(images(5).records).raw
    assert opened(eye.embed(private)).labels.tolist() == [1, 2, 0, 1, 2]
    assert adapter.sizes == [1, 4, 1, 4, 1]


def test_another_partition_has_rows_of_its_own(gateway, images, tmp_path):
    train = images(5)
    test = PrivateSet(**{**{name: getattr(train, name) for name in train.__dataclass_fields__}, "partition": "test"})
    trusted = gateway({"eye": config(Batches())}).open_trusted("eye")
    trusted.embed(train)
    trusted.embed(test)
    assert len(list((tmp_path / "private").glob("*.rows"))) == 2


def test_a_cheap_adapter_leaves_no_private_file(gateway, images, tmp_path):
    class Cheap(ScriptedConfig):
        cheap: ClassVar[bool] = True

    adapter = Batches()
    eye = gateway({"eye": Cheap(adapter=adapter)}, trust=["eye"]).open_trusted("eye")
    first, again = opened(eye.embed(images(6))), opened(eye.embed(images(6)))
    assert first.embeddings.tobytes() == again.embeddings.tobytes()
    assert adapter.sizes == [1, 4, 2, 1, 4, 2]
    assert not (tmp_path / "private").exists()


# Captions and pictures


def describe(request: CaptionRequest) -> str:
    return f"{request.prompt}: sum {int(request.image.pixels.sum())} \u2713"


def test_captions_become_a_private_set_of_texts(gateway, images):
    records = some_records(6)
    records[1] = None
    captioner = gateway({"captioner": describe}).open_trusted("captioner")
    captions = captioner.caption(images(records), prompt="what")
    assert (captions.name, captions.count, captions.size, captions.channels) == ("pictures", 6, None, 0)
    assert contents(captions) == [
        None if slot == 1 else f"what: sum {pixels_of(slot).sum()} \u2713" for slot in range(6)
    ]
    inner = open_private(captions.records)
    assert inner.ids == tuple(f"slot-{slot}" for slot in range(6))
    assert [inner.read(slot).label for slot in (0, 2, 5)] == [0, 2, 2]
    assert len({len(part) for part in inner.parts()}) == 1


def test_a_long_caption_is_cut_between_characters(gateway, images):
    captioner = gateway({"captioner": lambda _: "\u2713" * 3000}).open_trusted("captioner")
    (caption,) = contents(captioner.caption(images(1), prompt="what"))
    assert caption == "\u2713" * ((CAPTION_BYTES - 4) // 3)


def test_a_refused_image_is_a_ghost_and_its_refusal_is_not_counted(gateway, images):
    def picky(request: CaptionRequest) -> object:
        return Refusal("CANARY") if is_odd(request) else "fine"

    opened_gateway = gateway({"captioner": picky})
    captions = opened_gateway.open_trusted("captioner").caption(images(6), prompt="what")
    assert contents(captions) == ["fine", "fine", "fine", None, "fine", "fine"]
    assert opened_gateway.counts() == {"captioner": Counts(asked=6, from_cache=0, sent=6, refused=0)}


def test_another_prompt_is_another_question(gateway, images):
    captioner = gateway({"captioner": describe}).open_trusted("captioner")
    first = contents(captioner.caption(images(2), prompt="what"))
    assert contents(captioner.caption(images(2), prompt="who")) != first
    assert contents(captioner.caption(images(2), prompt="what")) == first


def test_texts_become_a_private_set_of_images(gateway, texts):
    def painter(request: ImageRequest) -> object:
        if request.prompt == "nothing":
            return Refusal("no")
        return Image(np.full((*request.size[::-1], request.channels), len(request.prompt), dtype=np.uint8))

    notes = texts([Record("a", 0), None, Record("nothing", 0), Record("abc", 0)])
    painted = gateway({"painter": painter}).open_trusted("painter").paint(notes, size=(3, 2), channels=1)
    assert (painted.size, painted.channels, painted.count) == ((3, 2), 1, 4)
    got = contents(painted)
    assert [None if image is None else (image.shape, int(image[0, 0, 0])) for image in got] == [
        ((2, 3, 1), 1),
        None,
        None,
        ((2, 3, 1), 3),
    ]


def test_a_derived_set_can_be_embedded(gateway, images):
    def lengths(request: EmbedRequest) -> np.ndarray:
        assert isinstance(request.content, str)
        return np.array([len(request.content)], dtype=np.float32)

    opened_gateway = gateway({"captioner": describe, "eye": lengths})
    captions = opened_gateway.open_trusted("captioner").caption(images([*some_records(2), None]), prompt="what")
    voters = opened(opened_gateway.open_trusted("eye").embed(captions))
    assert voters.embeddings[:, 0].tolist() == [*(len(text) for text in contents(captions)[:2]), 0]
    assert voters.valid.tolist() == [True, True, False]


def test_only_images_are_captioned_and_only_texts_painted(gateway, images, texts):
    trusted = gateway({"any": describe}).open_trusted("any")
    with pytest.raises(GatewayError, match="only images"):
        trusted.caption(texts([]), prompt="what")
    with pytest.raises(GatewayError, match="only texts"):
        trusted.paint(images(1), size=(2, 2), channels=1)


# Nothing leaves


def test_progress_and_counts_tell_of_slots_alone(gateway, images):
    def run(records: list[Any], name: str) -> tuple[list[Any], Any]:
        seen: list[Any] = []
        opened_gateway = gateway({"eye": config(Batches())}, progress=lambda *line: seen.append(line), namespace=name)
        opened_gateway.open_trusted("eye").embed(images(records))
        return seen, opened_gateway.counts()["eye"].asked

    strange = [None, *some_records(10)[1:]]
    strange[ODD] = ValueError("broken")
    run(some_records(10), "warm")  # The public blank is cached from here on.
    assert run(some_records(10), "a") == run(strange, "b")


def test_private_files_are_the_owners_alone(embed, tmp_path):
    before = os.umask(0)
    try:
        embed(Batches())
    finally:
        os.umask(before)
    folder = tmp_path / "private"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def forms(secret: bytes) -> list[bytes]:
    """A secret, and what a careless program makes of it: base64, hexadecimal, bare hashes."""
    hashes = [hashlib.new(name, secret).digest() for name in ("md5", "sha1", "sha256", "sha512", "blake2b")]
    hashes.append(hashlib.blake2b(secret, digest_size=32).digest())
    plain = [secret, *hashes]
    return [*plain, *(value.hex().encode() for value in plain), *(base64.b64encode(value) for value in plain)]


@pytest.mark.parametrize("face", ["batch", "async"])
@pytest.mark.parametrize("misbehaviour", ["answers", "talks", "raises", "stops"])
def test_canaries_appear_nowhere_outside_the_private_folder(
    gateway, texts, images, tmp_path, capfd, caplog, misbehaviour, face
):
    canary = "the canary sang at 4711 Hidden Lane"
    picture = pixels_of(ODD)

    def look(request: Any) -> Any:
        if isinstance(request, CaptionRequest):
            return canary if is_odd(request) else "words"
        words = request.content if isinstance(request.content, str) else request.content.pixels.tobytes().hex()
        secret = words == canary or words == picture.tobytes().hex()
        if secret and misbehaviour == "talks":
            warnings.warn(words, stacklevel=1)
            logging.getLogger("model").error(words)
            np.divide(np.float32(1), np.zeros(1, dtype=np.float32))
        if secret and misbehaviour == "raises":
            raise ValueError(words)
        if secret and misbehaviour == "stops":
            raise Stopped(words)
        return np.array([len(words), 1], dtype=np.float32)

    async def look_later(request: Any) -> Any:
        await asyncio.sleep(0)
        return look(request)

    caplog.set_level(logging.DEBUG)
    sets = [texts([Record("a", 0), Record(canary, 0)]), images(6)]
    failures: list[BaseException] = []
    seen: list[Any] = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        eye = look if face == "batch" else config(ScriptedAsync(look_later))
        opened_gateway = gateway({"eye": eye}, trust=["eye"], progress=lambda *line: seen.append(line))
        trusted = opened_gateway.open_trusted("eye")
        private: list[Any] = [trusted.caption(sets[1], prompt="what")]
        for one in sets:
            try:
                private.append(trusted.embed(one))
            except OperationalError as error:
                failures.append(error)
    assert len(failures) == (2 if misbehaviour == "stops" else 0)

    output = capfd.readouterr()
    told = [output.out, output.err, caplog.text, repr(warned), repr(seen), repr(private), repr(opened_gateway.counts())]
    told += ["".join(traceback.format_exception(error)) for error in failures]
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and tmp_path / "private" not in path.parents]
    assert outside
    everything = "\n".join(told).encode() + b"".join(path.read_bytes() + path.name.encode() for path in outside)
    inside = b"".join(path.read_bytes() + path.name.encode() for path in (tmp_path / "private").iterdir())
    for secret in (canary.encode(), picture.tobytes()):
        for form in forms(secret):
            assert form not in everything
        # Not even there: whoever holds the picture and sees a hash of it knows that it was here.
        for form in forms(secret)[1:]:
            assert form not in inside
    assert b"slot-3" not in everything
    assert not warned


def test_the_names_and_bindings_of_private_files_need_the_key(gateway, images, tmp_path):
    def files(key: bytes, name: str) -> dict[str, bytes]:
        folder = tmp_path / name
        gateway({"eye": config(Batches())}, key=key, private_dir=folder).open_trusted("eye").embed(images(3))
        return {path.name: path.read_bytes()[:4096] for path in folder.iterdir()}

    first, same, other = files(b"a" * 32, "1"), files(b"a" * 32, "2"), files(b"b" * 32, "3")
    assert first == same
    assert first.keys() != other.keys()
    assert set(first.values()) != set(other.values())
