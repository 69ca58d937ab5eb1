"""Whatever makes a record unusable, the run goes on as if its slot held any other ghost: bit by bit, outside `private/`."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from privolve.privacy import ledger

SLOT = Path("data", "0", "glyph-042.png")
PATTERN = np.full((8, 8), 7, dtype=np.uint8)
"""What the eye of these runs cannot embed."""

EYE = """
import numpy as np
from privolve.adapters.contract import AdapterConfig, EmbedRequest, ModelIdentity

class PickyConfig(AdapterConfig):
    answers = (EmbedRequest,)
    kind: str = "picky"
    def open(self):
        return Picky()

class Picky:
    location = "local"
    identity = ModelIdentity(provider="outside", model="picky")
    def send(self, requests):
        rows = [request.content.pixels.reshape(-1).astype(np.float32) / np.float32(255) for request in requests]
        return [np.log(row - row[0]) if row.size and (row == row[0]).all() and row[0] else row for row in rows]
"""


class FrozenNoise:
    """The same noise in every run, so that runs can be compared; never for claims."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def discrete_gaussian(self, counts: np.ndarray, scale: float) -> np.ndarray:
        return counts + np.rint(self._rng.normal(0, scale, counts.shape)).astype(np.int64)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_100_megapixels(path: Path) -> None:
    """A whole, honest PNG of 10,000 x 10,000 black pixels in 100 kB."""
    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(bytes(10_001)) for _ in range(10_000)) + packer.flush()
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def write_claims(path: Path) -> None:
    """A header of four thousand million pixels, and nothing after it."""
    header = struct.pack(">IIBBBBB", 65_535, 65_535, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header))


def write_link(path: Path) -> None:
    path.symlink_to(path.with_name("glyph-044.png"))


GHOSTS: dict[str, Callable[[Path], object]] = {
    "broken": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing of the kind"),
    "cut off": lambda path: path.write_bytes(path.with_name("glyph-044.png").read_bytes()[:-40]),
    "empty": lambda path: path.write_bytes(b""),
    "100 megapixels": write_100_megapixels,
    "a claim of 4 gigapixels": write_claims,
    "embedded to NaN": lambda path: Image.fromarray(PATTERN).save(path),
    "a link": write_link,
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a pipe": os.mkfifo,
    "of another size": lambda path: Image.fromarray(np.zeros((9, 8), dtype=np.uint8)).save(path),
    "of colour": lambda path: Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(path),
    "another format": lambda path: Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(path, format="BMP"),
    "animated nonsense": lambda path: path.write_bytes(b"RIFF\xff\xff\xff\xffWEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff" * 6),
}


@pytest.fixture(scope="module")
def run_with(workplace, glyphs: Path, tmp_path_factory: pytest.TempPathFactory):
    """Runs the job with something else in the one slot; gives what was said and what may be seen."""
    patch = pytest.MonkeyPatch()
    package = tmp_path_factory.mktemp("package")
    (package / "picky-1.0.dist-info").mkdir()
    (package / "picky-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: picky\nVersion: 1.0\n")
    (package / "picky-1.0.dist-info" / "entry_points.txt").write_text(
        "[privolve.adapters]\npicky = picky:PickyConfig\n"
    )
    (package / "picky.py").write_text(EYE)
    patch.syspath_prepend(package)
    patch.setattr(ledger, "SystemRng", FrozenNoise)

    def run(change: Callable[[Path], object] | None) -> Mapping[str, bytes]:
        work = workplace(tmp_path_factory.mktemp("run"))
        shutil.copytree(glyphs, work.folder / "data")
        if change is not None:
            (work.folder / SLOT).unlink()
            change(work.folder / SLOT)
        work.job(
            data='{ kind = "folder", path = "data", classes = ["0", "1"], size = [8, 8], channels = 1, resize = "refuse", '
            "holdout = 0.1 }",
            adapters='{ painter = { kind = "glyphs" }, eye = { kind = "picky" } }',
            trust='["eye"]',
            evolution='{ iterations = 2, count = 8, variations = 1, shares = "released", share_noise = 5.0 }',
            evaluation="{ unprotected = true, random_baseline = true }",
        )
        outcome = work("run", "job.toml", "--out", "run")
        assert (outcome.code, outcome.err) == (0, "")
        seen = {"stdout": outcome.out.encode(), "exported": work("export", "run", "public").out.encode()}
        for path in sorted((work.folder / "run").rglob("*")):
            inside = path.relative_to(work.folder / "run")
            if path.is_file() and inside.parts[0] != "private":
                seen[str(inside)] = alike(path)
        return seen

    yield run
    patch.undo()
    sys.modules.pop("picky", None)


def alike(path: Path) -> bytes:
    """A file without what differs between any two runs: random names, hashes of them, times, the folder of the job."""
    content = path.read_bytes()
    if path.name == "journal.jsonl":
        content = re.sub(rb'"at": "[^"]*"', b"", content)
    if path.name == "run.json":
        manifest = json.loads(content)
        manifest["config"]["data"]["path"] = "data"
        manifest["config_digest"] = ""
        content = json.dumps(
            {key: value for key, value in manifest.items() if key not in ("started", "duration_s")}
        ).encode()
    if path.suffix == ".html":
        content = re.sub(rb"[0-9.,]+(ms|\s*s|\s*min)\b", b"TIME", content)
    if path.suffix in (".npz", ".npy", ".png"):
        return content
    content = re.sub(rb"\b([0-9a-f]{64}|[0-9a-f]{32})\b|run-[0-9a-f]{8}", b"RANDOM", content)
    return re.sub(rb'"/[^"]*ledgers', b'"LEDGERS', content)


def said(seen: Mapping[str, bytes]) -> bytes:
    words = b" ".join(seen["stdout"].split())
    return re.sub(rb"\b([0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32})\b|run-\s?[0-9a-f]{8}", b"RANDOM", words)


@pytest.fixture(scope="module")
def first(run_with) -> Mapping[str, bytes]:
    return run_with(GHOSTS["broken"])


@pytest.mark.parametrize("kind", [kind for kind in GHOSTS if kind != "broken"])
def test_every_ghost_is_like_every_other(run_with, first: Mapping[str, bytes], kind: str) -> None:
    seen = run_with(GHOSTS[kind])
    assert said(seen) == said(first)
    assert seen["exported"] == first["exported"]
    assert seen.keys() == first.keys()
    assert [name for name in seen if name != "stdout" and seen[name] != first[name]] == []


def test_a_record_that_can_be_used_is_seen_in_the_votes_and_nowhere_else(run_with, first: Mapping[str, bytes]) -> None:
    """Else the comparison above would say nothing."""
    seen = run_with(None)
    assert said(seen) == said(first)
    assert seen.keys() == first.keys()
    differs = [name for name in seen if seen[name] != first[name]]
    assert "release/label_counts.json" in differs
    assert "iterations/001/histogram.npy" in differs


def test_a_set_of_ghosts_alone_runs_to_its_end(run_with, workplace, tmp_path: Path) -> None:
    work = workplace(tmp_path)
    for label in "01":
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(30):
            (tmp_path / "data" / label / f"{number}.png").write_bytes(b"no image")
    work.job(evaluation="{ unprotected = true }")
    outcome = work("run", "job.toml", "--out", "run")
    assert (outcome.code, outcome.err) == (0, "")
    assert work("verify", "run").code == 0
