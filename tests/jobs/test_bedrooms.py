"""DPITI on bedrooms by each backend: whole runs of the examples, through the real SDKs to the stub, or on tiny models.

What a run changes of an example is its size, where its servers are, and its eye, whose real weights are no part of a
test. Whatever reaches the stub is searched for the private images, their names and their files.
"""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from privolve.adapters.stub import Stub
from privolve.jobs import job

EXAMPLES = Path(__file__).parents[2] / "examples" / "bedrooms"
BACKENDS = ("openai", "qwen", "local")
SDKS = {"openai": ("openai", "httpx2"), "qwen": ("dashscope.v2", "httpx")}
KEYS = {"openai": "OPENAI_API_KEY", "qwen": "DASHSCOPE_API_KEY"}
KEY = "sk-canary-Hn3Lw"
SIDE, COUNT = 32, 16
CANARY = "canary-Xq7Zp-name"
PIXELS = np.random.default_rng(7).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
SMALL = ("evolution.iterations=2", "evolution.count=4", "evolution.variations=1", f"data.size=[{SIDE}, {SIDE}]")
IMAGES = ('adapters.eye={ kind = "pixels" }',)
TEXTS = ('evolution.voting="text"', 'adapters.eye={ kind = "hashing" }')


@pytest.fixture
def bedrooms(tmp_path: Path, workplace: Any) -> Any:
    """A place with the examples and a folder of bedrooms, one of which is the canary."""
    for backend in BACKENDS:
        shutil.copy(EXAMPLES / f"dpiti-{backend}.toml", tmp_path)
    folder = tmp_path / "bedrooms"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        room = np.full((SIDE, SIDE, 3), rng.integers(0, 256, 3), dtype=np.uint8)
        room[SIDE // 2 :, 8:24] = rng.integers(0, 256, 3)
        Image.fromarray(room).save(folder / f"{number:02d}.png")
    Image.fromarray(PIXELS).save(folder / f"{CANARY}.png")
    # Scaled to the declared size, and lossy: what would leave of it is neither its bytes nor its pixels.
    Image.fromarray(PIXELS.repeat(2, 0).repeat(2, 1)).save(folder / f"{CANARY}-large.jpg")
    return workplace(tmp_path)


class Telling(Stub):
    """A stub that keeps what it said of the pictures that it was shown."""

    def __init__(self) -> None:
        super().__init__({"polls": 0})
        self.captions: list[str] = []

    def _answer(self, asked: Any, *rest: Any, **others: Any) -> Any:
        outgoing = super()._answer(asked, *rest, **others)
        if "data:image/" in str(asked.fields):
            self.captions += re.findall(r'"(?:content|text)": ?"([^"]{30,})"', outgoing.body.decode())
        return outgoing


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Telling]:
    for name in KEYS.values():
        monkeypatch.setenv(name, KEY)
    with Telling() as running:
        yield running


def sdk_or_skip(backend: str) -> None:
    for module in SDKS[backend]:
        pytest.importorskip(module, reason=f"the SDK of the {backend} example is not installed")


def settings(*changes: str) -> list[str | Path]:
    return [part for change in (*SMALL, *changes) for part in ("--set", change)]


def at(stub: Stub, backend: str, *roles: str) -> tuple[str, ...]:
    """The stub in place of the provider: its address, with the provider's own rules and prices."""
    url = stub.openai_url if backend == "openai" else stub.dashscope_url
    changes = [f"adapters.{role}.base_url={url}" for role in roles]
    if backend == "openai":
        changes += [f"adapters.{role}.provider=openai" for role in roles]
    return (*changes, "adapters.painter.image_size=64x64")


def certificate(run: Path) -> dict[str, Any]:
    return json.loads((run / "release" / "privacy.json").read_text())


def needles() -> dict[str, bytes]:
    """What must not leave: the name, the pixels and the files' bytes, as they are and in base64 at each alignment."""
    plain = {
        "the name": CANARY.encode(),
        "a row of pixels": PIXELS[5].tobytes(),
        "a column of pixels": PIXELS[:, 5].tobytes(),
        "the pixels as features": (PIXELS[3].astype(np.float32) / 255).tobytes()[:64],
    }
    for kind in ("PNG", "JPEG", "WEBP", "BMP"):
        file = io.BytesIO()
        Image.fromarray(PIXELS).save(file, kind)
        plain[f"the file as {kind}"] = file.getvalue()[200:280]
    found = dict(plain)
    for what, value in plain.items():
        found[f"{what} in hex"] = value.hex().encode()
        for shift in range(3):
            start = (shift * 8 + 5) // 6
            encoded = base64.b64encode(bytes(shift) + value)[start : (shift + len(value)) * 8 // 6]
            found[f"{what} in base64, shifted by {shift}"] = encoded
    return found


def pictures(body: bytes) -> list[np.ndarray]:
    """Every picture that a request carries, by its pixels."""
    found: list[np.ndarray] = []
    for run in re.findall(rb"[A-Za-z0-9+/]{64,}={0,2}", body):
        try:
            with Image.open(io.BytesIO(base64.b64decode(run + b"=" * (-len(run) % 4)))) as image:
                found.append(np.asarray(image.convert("RGB")))
        except (ValueError, OSError):
            continue
    return found


def leaks(stub: Stub) -> set[tuple[str, str]]:
    """(the path of a request, what of the private set it holds)."""
    sought = needles()
    found: set[tuple[str, str]] = set()
    for request in stub.requests:
        everything = b"\n".join(
            [request.body, request.path.encode(), request.query.encode(), repr(dict(request.headers)).encode()]
        )
        found |= {(request.path, what) for what, needle in sought.items() if needle in everything}
        if pictures(request.body):
            found.add((request.path, "a picture"))
    return found


def run_whole(place: Any, backend: str, *changes: str) -> Path:
    """Plan, run and verify an example; the run's folder."""
    example = f"dpiti-{backend}.toml"
    planned = place("plan", example, *settings(*changes))
    assert (planned.code, planned.err) == (0, "")
    outcome = place("run", example, *settings(*changes))
    assert outcome.code == 0, outcome.err
    (run,) = place.runs
    for arguments in (("verify", run), ("verify", "--ledger", run)):
        verified = place(*arguments)
        assert verified.code == 0, verified.out + verified.err
    with np.load(run / "release" / "samples.npz") as samples:
        shapes = {samples[name].shape for name in samples.files}
    assert (4, SIDE, SIDE, 3) in shapes
    return run


def key_is_nowhere(place: Any) -> None:
    for path in place.folder.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_example_is_planned_without_a_key_or_a_model(
    bedrooms: Any, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in KEYS.values():
        monkeypatch.delenv(name, raising=False)
    outcome = bedrooms("plan", f"dpiti-{backend}.toml")
    assert (outcome.code, outcome.err) == (0, "")
    plain = " ".join(outcome.out.split())
    assert "3,200 text" in plain
    assert "no remote model, so none" in plain if backend == "local" else "budget" in plain
    assert "not known" not in plain


@pytest.mark.parametrize("backend", BACKENDS)
def test_swapping_one_role_is_one_line(bedrooms: Any, backend: str) -> None:
    """Any role's line of one example fits into another in place of its own."""
    path = bedrooms.folder / f"dpiti-{backend}.toml"
    text = path.read_text()
    tables = {other: (EXAMPLES / f"dpiti-{other}.toml").read_text() for other in BACKENDS if other != backend}
    for role in ("writer", "painter", "captioner"):
        (line,) = re.findall(rf"^{role} = \{{.*\}}$", text, re.M)
        for other in tables.values():
            (theirs,) = re.findall(rf"^{role} = \{{.*\}}$", other, re.M)
            path.write_text(text.replace(line, theirs))
            config: Any = job.load(path)
            config.check_roles()
            assert config.adapters[role].kind == tomllib.loads(theirs)[role]["kind"]


def test_the_examples_differ_in_their_models_alone() -> None:
    tables = [tomllib.loads((EXAMPLES / f"dpiti-{backend}.toml").read_text()) for backend in BACKENDS]
    for table in tables:
        assert set(table.pop("adapters")) == {"writer", "painter", "eye", "captioner"}
        table.pop("budget", None)
    assert tables[0] == tables[1] == tables[2]


@pytest.mark.parametrize("backend", SDKS)
def test_a_run_by_image_voting_tells_the_provider_nothing_of_the_private_images(
    bedrooms: Any, stub: Telling, backend: str
) -> None:
    sdk_or_skip(backend)
    run = run_whole(bedrooms, backend, *IMAGES, *at(stub, backend, "writer", "painter"))
    asked = [request.path for request in stub.requests if request.method == "POST"]
    # 4 first captions and one variation of each, then 4 variations; each is painted once.
    assert len(asked) == 2 * (4 + 4 + 4)
    assert {request.headers["authorization"] for request in stub.requests if request.method == "POST"} == {
        f"Bearer {KEY}"
    }
    assert leaks(stub) == set()
    assert certificate(run)["egress"] == []
    key_is_nowhere(bedrooms)


@pytest.mark.parametrize("backend", SDKS)
def test_a_run_by_text_voting_shows_private_images_to_the_trusted_captioner_alone(
    bedrooms: Any, stub: Telling, backend: str
) -> None:
    sdk_or_skip(backend)
    changes = (*TEXTS, "data.holdout=0.0", *at(stub, backend, "writer", "painter", "captioner"))
    refused = bedrooms("run", f"dpiti-{backend}.toml", "--out", "refused", *settings(*changes))
    assert refused.code == 2
    assert "'captioner' is a remote adapter and may not see private data" in refused.line
    assert stub.requests == []

    run = run_whole(bedrooms, backend, *changes, 'trust=["captioner"]')
    captions = [request for request in stub.requests if pictures(request.body)]
    seen = [picture for request in captions for picture in pictures(request.body)]
    # Before the private images it is asked about a blank one: whether it answers at all.
    assert sum(not picture.any() for picture in seen) == 1
    assert len(seen) == len(captions) == len(stub.captions) == 1 + COUNT + 2
    # The search would find them: what it is shown, it sees. And it is shown pixels alone, no name.
    assert sum(np.array_equal(picture, PIXELS) for picture in seen) == 1
    assert not any(CANARY.encode() in request.body for request in captions)
    stub.requests[:] = [request for request in stub.requests if request not in captions]
    assert leaks(stub) == set()
    # What was said of private images is as private as they are: no other role hears it, and it lies with the ledger alone.
    said = [caption.encode() for caption in stub.captions[1:]]
    assert not any(caption in request.body for caption in said for request in stub.requests)
    files = [path for path in bedrooms.folder.rglob("*") if path.is_file()]
    held = {path.relative_to(bedrooms.folder).parts[0] for path in files for one in said if one in path.read_bytes()}
    assert held == {"ledgers"}
    assert [each["role"] for each in certificate(run)["egress"]] == ["captioner"]
    assert "captioner" in (run / "release" / "privacy.txt").read_text()
    key_is_nowhere(bedrooms)


def test_a_run_whose_writer_waits_for_batches_asks_nothing_live_and_tells_as_little(
    bedrooms: Any, stub: Telling
) -> None:
    sdk_or_skip("openai")
    waits = ('adapters.writer.mode="batch"', "adapters.writer.batch_poll_s=0.01")
    run = run_whole(bedrooms, "openai", *IMAGES, *at(stub, "openai", "writer", "painter"), *waits)
    paths = [request.path for request in stub.requests if request.method == "POST"]
    assert paths.count("/v1/chat/completions") == 0
    # The first captions, a variation of each, and one of each winner: a batch each.
    assert paths.count("/v1/batches") == paths.count("/v1/files") == 3
    assert paths.count("/v1/images/generations") == 4 + 4 + 4
    assert leaks(stub) == set()
    manifest = json.loads((run / "run.json").read_text())
    assert sum(part["writer"]["sent"] for part in manifest["requests"].values()) == 4 + 4 + 4
    assert manifest["money"]["reserved"] == 0
    key_is_nowhere(bedrooms)


def test_the_search_finds_a_private_image_that_is_sent(stub: Stub) -> None:
    """Else its silence would say nothing."""
    import http.client

    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    sent = [
        PIXELS.tobytes(),
        b'{"a": "' + base64.b64encode(b"x" + PIXELS.tobytes()) + b'"}',
        b"data:image/png;base64," + base64.b64encode(file.getvalue()),
        CANARY.encode(),
    ]
    for body in sent:
        stub.clear()
        connection = http.client.HTTPConnection(stub.url.removeprefix("http://"), timeout=5)
        connection.request("POST", "/v1/chat/completions", body)
        connection.getresponse().read()
        connection.close()
        assert leaks(stub), body[:40]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Tiny models with random weights, made as the tests of the local adapters make them."""
    for module in ("torch", "transformers", "diffusers"):
        pytest.importorskip(module, reason="the local models' libraries are not installed")
    from tiny_models import make

    def made(name: str) -> Path:
        import torch

        torch.set_num_threads(1)
        path = make(name, tmp_path_factory.mktemp(name))
        if name == "llama":
            # Its letters are tokens, so a prompt is long; it has no weights that depend on how much it reads.
            config = json.loads((path / "config.json").read_text())
            (path / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}))
        return path

    return made


def test_a_run_on_local_models_asks_nobody_else(bedrooms: Any, tiny: Callable[[str], Path]) -> None:
    run = run_whole(
        bedrooms,
        "local",
        f"adapters.writer.model={tiny('llama')}",
        f"adapters.painter.model={tiny('sdxl')}",
        "adapters.painter.steps=1",
        "adapters.painter.native_size=[16, 16]",
        f'adapters.eye={{ kind = "clip", model = "{tiny("clip")}" }}',
        "evolution.max_tokens=12",
    )
    assert certificate(run)["egress"] == []


def test_a_local_captioner_needs_no_trust(bedrooms: Any, tiny: Callable[[str], Path]) -> None:
    run = run_whole(
        bedrooms,
        "local",
        *TEXTS,
        f"adapters.writer.model={tiny('llama')}",
        f"adapters.painter.model={tiny('sdxl')}",
        "adapters.painter.steps=1",
        "adapters.painter.native_size=[16, 16]",
        f"adapters.captioner.model={tiny('blip')}",
        "evolution.max_tokens=12",
    )
    assert certificate(run)["egress"] == []
