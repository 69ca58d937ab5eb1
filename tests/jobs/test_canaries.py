"""Canaries planted in a private set appear in nothing outside `private/` and the ledger's folder, in no form.

Searched for raw, in base64 at each alignment, in hex, and as plain hashes of the bytes; in every file as it lies there
and as it unpacks, in what was printed, and in the names of files.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import stat
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

NAME = "canary-Xq7Zp-name"
TEXT = "canary-Wv9Kd-in-a-text-chunk"
CAPTION = "the canary-Jt4Rb wrote this caption"
PATTERN = (np.arange(64) * 37 % 251).astype(np.uint8).reshape(8, 8)
"""Pixels that no glyph has."""
HASHES = ("sha256", "sha1", "md5", "blake2b", "blake2s", "sha512", "sha3_256")


def forms(canary: bytes) -> Iterator[tuple[str, bytes]]:
    """The canary, and what it may look like."""
    yield "raw", canary
    yield "hex", canary.hex().encode()
    yield "HEX", canary.hex().upper().encode()
    yield "JSON", json.dumps(canary.decode("latin-1"))[1:-1].encode()
    yield "list", ", ".join(map(str, canary)).encode()
    yield "wide", canary.decode("latin-1").encode("utf-16-le")
    yield "numpy text", canary.decode("latin-1").encode("utf-32-le")
    for shift in range(3):
        # Only the characters that the canary alone decides.
        encoded = base64.b64encode(bytes(shift) + canary)
        start = (shift * 8 + 5) // 6
        for altered in (encoded, encoded.translate(bytes.maketrans(b"+/", b"-_"))):
            yield f"base64 shifted by {shift}", altered[start : (shift + len(canary)) * 8 // 6]


def hashed(content: bytes) -> Iterator[tuple[str, bytes]]:
    for name in HASHES:
        digest = hashlib.new(name, content).digest()
        yield f"{name} raw", digest[:16]
        yield f"{name} hex", digest.hex()[:32].encode()
        yield f"{name} base64", base64.b64encode(digest)[:20]
    for size in (16, 20, 32):
        yield f"blake2b-{size}", hashlib.blake2b(content, digest_size=size).digest()
        yield f"blake2b-{size} hex", hashlib.blake2b(content, digest_size=size).hexdigest().encode()
    yield "crc32", b"crc32:%08x" % zlib.crc32(content)


def needles(canaries: dict[str, bytes], whole: dict[str, bytes]) -> dict[str, bytes]:
    """All that must not be found, by what it is. Of `whole` values only hashes are sought too."""
    found = {f"{what}, {form}": needle for what, value in canaries.items() for form, needle in forms(value)}
    for what, value in {**canaries, **whole}.items():
        found |= {f"{what}, {form}": needle for form, needle in hashed(value)}
    return found


def unpacked(content: bytes, depth: int = 0) -> Iterator[bytes]:
    """A file's bytes, and those of what it packs: archives, arrays, pictures, base64 in a page."""
    yield content
    if depth > 3:
        return
    if content[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield from unpacked(archive.read(name), depth + 1)
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            yield np.asarray(image).tobytes()
            yield repr(image.info).encode()
    if b"base64," in content:
        for piece in content.split(b"base64,")[1:]:
            encoded = piece.split(b'"')[0].split(b")")[0].split(b"'")[0]
            yield from unpacked(base64.b64decode(encoded + b"=="), depth + 1)


def public_files(folder: Path) -> list[Path]:
    """All but the set itself, the runs' `private/`, and the ledgers."""
    inside = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [
        path
        for path in inside
        if path.relative_to(folder).parts[0] not in ("data", "ledgers", "captions.csv", "package")
        and "private" not in path.relative_to(folder).parts
    ]


def assert_absent(sought: dict[str, bytes], place: Path, printed: list[str]) -> None:
    everything = {"what was printed": "\n".join(printed).encode()}
    for path in public_files(place):
        everything[f"the name of {path.name}"] = str(path.relative_to(place)).encode()
        for number, content in enumerate(unpacked(path.read_bytes())):
            everything[f"{path.relative_to(place)} ({number})"] = content
    assert len(everything) > 10
    found = [
        (where, what) for where, content in everything.items() for what, needle in sought.items() if needle in content
    ]
    assert not found


def assert_private_files_are_their_owners_alone(place: Path) -> None:
    private = [place / "ledgers", *place.glob("experiments/*/private"), *place.glob("experiments/*/run.json")]
    private += [*place.glob("experiments/*/journal.jsonl")]
    private += [path for folder in list(private) if folder.is_dir() for path in folder.rglob("*")]
    assert len(private) > 8
    for path in private:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def plant(work) -> dict[str, bytes]:
    """Canaries in the folder set: a name, a text chunk, a pattern, a broken file. Returns whole files and pixels."""
    chunk = PngImagePlugin.PngInfo()
    chunk.add_text("Comment", TEXT)
    zeros = work.folder / "data" / "0"
    Image.fromarray(PATTERN).save(zeros / f"{NAME}.png", pnginfo=chunk)
    (zeros / f"{NAME}-broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + TEXT.encode())
    Image.fromarray(PATTERN.repeat(2, 0)).save(zeros / f"{NAME}-large.png", pnginfo=chunk)
    names = [path.name for path in zeros.glob(f"{NAME}*")]
    return {
        **{f"the file {name}": (zeros / name).read_bytes() for name in names},
        **{f"the name {name}": name.encode() for name in names},
        **{f"the slot {name}": f"0/{name}".encode() for name in names},
        "the pixels": PATTERN.tobytes(),
        "the pixels as features": (PATTERN.astype(np.float32) / 255).tobytes(),
    }


SOUGHT = {
    "name": NAME.encode(),
    "text": TEXT.encode(),
    "pattern": PATTERN.tobytes()[:24],
    "features": (PATTERN.astype(np.float32) / 255).tobytes()[:48],
    "caption": CAPTION.encode(),
}

JOBS = {
    "image-pe": ("image-pe", {}),
    "train": ("train", {"evaluation": "{ unprotected = true }"}),
    "dpiti": ("dpiti", {}),
    "dpiti by text": (
        "dpiti",
        {
            "adapters": '{ writer = { kind = "lexicon" }, painter = { kind = "glyph-painter" }, '
            'captioner = { kind = "glyph-captioner", characters = "01", per_character = 60 }, eye = { kind = "hashing" } }',
            "evolution": '{ iterations = 2, count = 8, variations = 2, voting = "text", initial_prompt = "glyphs", '
            'variation_prompt = "glyphs-fill" }',
        },
    ),
    "image-pe by gradients": (
        "image-pe",
        {
            "adapters": '{ painter = { kind = "glyphs" }, eye = { kind = "gradients" } }',
            "evaluation": "{ unprotected = true, random_baseline = true }",
            "evolution": '{ iterations = 2, count = 8, variations = 2, shares = "released", share_noise = 5.0 }',
        },
    ),
}


@pytest.mark.parametrize("name", JOBS)
def test_no_canary_leaves_a_run_in_any_form(work, name: str) -> None:
    kind, changed = JOBS[name]
    whole = plant(work)
    work.job(kind, **changed)
    printed: list[str] = []

    def said(*arguments: str | Path, code: int) -> None:
        outcome = work(*arguments)
        assert outcome.code == code, outcome.err
        printed.extend((outcome.out, outcome.err))

    said("plan", "job.toml", code=0)
    said("run", "job.toml", code=0)
    (run,) = work.runs
    assert NAME in (run / "private" / "log.txt").read_text()  # The canary was seen, and may be named there.
    said("run", "job.toml", code=0)
    said("report", run, code=0)
    said("verify", run, code=0)
    said("verify", "--ledger", run, code=0)
    said("export", run, work.folder / "exported", code=0)

    # Failures, with all that --debug shows.
    said("--debug", "run", "job.toml", "--out", "a", "--set", "privacy.delta=0.5", code=2)
    said("--debug", "run", "job.toml", "--out", "b", "--set", "evolution.threshold=1e9", "--set", "seed=3", code=2)
    said("--debug", "run", "job.toml", "--out", "c", "--set", "data.count=5", code=2)
    said("--debug", "run", "job.toml", "--out", "d", "--set", "data.layout=names", code=2)
    (work.folder / "data" / "0" / f"{NAME}.png").rename(work.folder / f"data/0/{NAME}-moved.png")
    said("run", "job.toml", "--set", "seed=5", code=0)
    assert_absent(needles(SOUGHT, whole), work.folder, printed)
    assert_private_files_are_their_owners_alone(work.folder)


def test_no_caption_leaves_a_run_on_texts(work) -> None:
    rows = [f"a thin {number % 2},{number % 2}" for number in range(60)]
    rows[5] = f'"{CAPTION}",1'
    rows[6] = f'"{CAPTION}","{NAME}"'
    rows[7] = f'"{CAPTION * 5}",0'
    (work.folder / "captions.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    work.job(
        "dpiti",
        data='{ kind = "csv", path = "captions.csv", classes = ["0", "1"], label_column = "label", max_chars = 100, holdout = 0.2 }',
        adapters='{ writer = { kind = "lexicon" }, painter = { kind = "glyph-painter" }, eye = { kind = "hashing" } }',
        evolution='{ iterations = 2, count = 8, variations = 2, voting = "text", size = [8, 8], initial_prompt = "glyphs", '
        'variation_prompt = "glyphs-fill" }',
        evaluation="{ unprotected = true }",
    )
    outcomes = [work("plan", "job.toml"), work("--debug", "run", "job.toml")]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes[-1].err
    outcomes.append(work("--debug", "run", "job.toml", "--set", "data.label_column='absent'"))
    assert outcomes[-1].code == 2
    whole = {"the row": CAPTION.encode(), "the caption as a record": json.dumps(["1", CAPTION]).encode()}
    assert_absent(needles(SOUGHT, whole), work.folder, [each.out + each.err for each in outcomes])
    assert_private_files_are_their_owners_alone(work.folder)


ADAPTER = '''
"""An adapter from outside privolve whose every failure quotes what it was asked."""

import logging
import sys
import warnings

import numpy as np

from privolve.adapters.contract import AdapterConfig, AdapterUnavailable, EmbedRequest, Location, ModelIdentity, Stopped, Transient

CANARY = {pattern}


class QuotingConfig(AdapterConfig):
    answers = (EmbedRequest,)
    location = Location.LOCAL
    kind: str = "quoting"
    fails: str = "ValueError"

    def open(self):
        return Quoting(self)


class Quoting:
    location = Location.LOCAL
    identity = ModelIdentity(provider="outside", model="quoting")

    def __init__(self, config):
        self.fails = config.fails

    def send(self, requests):
        replies = []
        for request in requests:
            pixels = request.content.pixels
            if pixels.tobytes() == bytes(CANARY):
                text = "{text} " + repr(pixels.tolist())
                logging.getLogger("quoting").error(text)
                warnings.warn(text)
                np.float32(1) / np.zeros(3, dtype=np.float32)
                if self.fails == "nan":
                    replies.append(np.full(64, np.nan, dtype=np.float32))
                    continue
                kinds = dict(Stopped=Stopped, Transient=Transient, AdapterUnavailable=AdapterUnavailable)
                kinds |= dict(ValueError=ValueError, KeyError=KeyError, SystemExit=SystemExit, OSError=OSError)
                kinds |= dict(MemoryError=MemoryError, RecursionError=RecursionError)
                raise kinds[self.fails](text)
            replies.append((pixels.reshape(-1) / np.float32(255)).astype(np.float32))
        return replies
'''


@pytest.fixture
def outside(work, monkeypatch: pytest.MonkeyPatch):
    """The workplace, with a foreign distribution on Python's path."""
    package = work.folder / "package"
    information = package / "quoting-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: quoting\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[privolve.adapters]\nquoting = quoting:QuotingConfig\n")
    source = ADAPTER.replace("{pattern}", repr(PATTERN.ravel().tolist())).replace("{text}", TEXT)
    (package / "quoting.py").write_text(source)
    monkeypatch.syspath_prepend(package)
    yield work
    sys.modules.pop("quoting", None)


def quoting(fails: str) -> dict[str, str]:
    return {
        "adapters": f'{{ painter = {{ kind = "glyphs" }}, eye = {{ kind = "quoting", fails = "{fails}" }} }}',
        "evolution": "{ iterations = 1, count = 4, variations = 1 }",
        "data": '{ kind = "folder", path = "data", classes = ["0", "1"], size = [8, 8], channels = 1 }',
    }


def test_an_adapter_from_outside_needs_trust_and_is_named_on_the_certificate(outside) -> None:
    outside.job(**quoting("ValueError"))
    for command in ("plan", "run"):
        refused = outside(command, "job.toml")
        assert refused.code == 2
        assert "'eye' comes from outside privolve, so counts as remote" in refused.line
    assert not (outside.folder / "ledgers").exists()
    outside.job(**quoting("ValueError"), trust='["eye"]')
    trusted = outside("run", "job.toml", "--out", "experiments/run")
    assert (trusted.code, trusted.err) == (0, "")
    certificate = json.loads((outside.folder / "experiments/run/release/privacy.json").read_text())
    assert [each["role"] for each in certificate["egress"]] == ["eye"]


@pytest.mark.parametrize(
    ("fails", "code"),
    [
        ("ValueError", 0),
        ("RecursionError", 0),
        ("nan", 0),
        ("Stopped", 3),
        ("AdapterUnavailable", 3),
        ("OSError", 3),
        ("MemoryError", 3),
        ("SystemExit", 1),
    ],
)
def test_what_an_adapter_raises_about_a_record_is_told_to_nobody(outside, fails: str, code: int) -> None:
    """A failure of the record is a ghost; another stops the run, in words that no record chose."""
    whole = plant(outside)
    outside.job(**quoting(fails), trust='["eye"]')
    outcome = outside("--debug", "run", "job.toml", "--out", "experiments/run")
    assert outcome.code == code, outcome.err
    assert_absent(needles(SOUGHT, whole), outside.folder, [outcome.out, outcome.err])
    assert_private_files_are_their_owners_alone(outside.folder)
    if code == 0:
        assert outcome.err == ""


@pytest.mark.parametrize("form", ["raw", "npz", "base64", "png", "hash", "name", "printed"])
def test_the_search_finds_what_is_there(work, form: str) -> None:
    """Else its silence would say nothing."""
    whole = plant(work)
    public = work.folder / "experiments"
    public.mkdir()
    for number in range(10):
        (public / f"file-{number}").write_text("nothing")
    assert_absent(needles(SOUGHT, whole), work.folder, [])
    printed = []
    if form == "raw":
        (public / "a.json").write_text(json.dumps({"why": f"no {TEXT}"}))
    elif form == "npz":
        np.savez_compressed(public / "a.npz", x=np.stack([PATTERN, PATTERN]))
    elif form == "base64":
        (public / "a.html").write_bytes(b"<p>" + base64.b64encode(b"x" + CAPTION.encode() + b"y"))
    elif form == "png":
        Image.fromarray(PATTERN).save(public / "a.png")
    elif form == "hash":
        file = work.folder / "data" / "0" / f"{NAME}.png"
        (public / "a.txt").write_text(hashlib.sha256(file.read_bytes()).hexdigest())
    elif form == "name":
        (public / f"{NAME}.txt").write_text("")
    else:
        printed = [f"privolve: {NAME}"]
    with pytest.raises(AssertionError):
        assert_absent(needles(SOUGHT, whole), work.folder, printed)
