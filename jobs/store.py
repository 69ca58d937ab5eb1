"""The public artefacts of a run on disk: iterations of Private Evolution, written whole or not at all, and the release.

No pickles: JSON lines, `.npy`, `.npz` without objects, PNG.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..adapters.contract import Image
from ..pe_engine.population import Candidate, Population
from ..privacy import arrays as as_bytes
from ..privacy import durable
from ..privacy.failpoint import failpoint
from .job import canonical

if TYPE_CHECKING:
    from ..trainers.contract import GenerativeModel

COLUMNS = ("id", "label", "caption", "parent", "fold", "born")


def save_iteration(
    folder: Path, population: Population, *, with_images: bool, arrays: Mapping[str, np.ndarray]
) -> None:
    """Write one iteration under a temporary name, sync it, then give it its own: `folder` exists only when it is whole."""
    unfinished = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    durable.write_bytes(unfinished / "population.jsonl", _lines(population, classes=None))
    if with_images:
        durable.write_bytes(unfinished / "images.npz", pack_images(population))
    for name, array in arrays.items():
        durable.write_bytes(unfinished / f"{name}.npy", as_bytes.npy(array))
    unfinished.rename(folder)
    durable.sync_folder(folder.parent)


def load_population(folder: Path) -> Population:
    """The population that `save_iteration` wrote."""
    lines = (folder / "population.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    images: Sequence[Image | None] = [None] * len(rows)
    if (folder / "images.npz").exists():
        images = unpack_images(folder / "images.npz")
    return Population(
        tuple(
            Candidate(**{column: row[column] for column in COLUMNS}, image=image)
            for row, image in zip(rows, images, strict=True)
        )
    )


def finished_iterations(folder: Path) -> list[int]:
    """The numbers of the iterations of Private Evolution that are saved, ascending."""
    return sorted(int(path.parent.name) for path in folder.glob("[0-9][0-9][0-9]*/population.jsonl"))


def pack_images(population: Population) -> bytes:
    """`x` uint8 (n, height, width, channels) and `recipes` as fixed-width text; every candidate has an image."""
    images = [candidate.image for candidate in population]
    pixels = np.stack([image.pixels for image in images if image is not None])
    recipes = np.array([image.recipe for image in images if image is not None], dtype=np.str_)
    return as_bytes.npz({"x": pixels, "recipes": recipes}, compressed=True)


def unpack_images(path: Path) -> list[Image]:
    with np.load(path, allow_pickle=False) as arrays:
        pixels, recipes = arrays["x"], arrays["recipes"]
    return [Image(pixels[row], str(recipes[row])) for row in range(len(pixels))]


def save_release(folder: Path, population: Population, classes: Sequence[str], *, pictures: bool) -> None:
    """The synthetic set: `samples.jsonl`, and of those with an image `samples.npz` (x, y) and `images/CLASS_NUMBER.png`.

    The names follow DPSDA's `<class>_<rest>`, so that `kind = "folder"` reads them back.
    """
    durable.write_bytes(folder / "samples.jsonl", _lines(population, classes=classes))
    pictured = Population(tuple(candidate for candidate in population if candidate.image is not None))
    if not len(pictured):
        return
    pixels = np.stack([candidate.image.pixels for candidate in pictured if candidate.image is not None])
    save_images(folder, pixels, pictured.labels, classes, pictures=pictures)


def save_images(
    folder: Path, pixels: np.ndarray, labels: np.ndarray, classes: Sequence[str], *, pictures: bool
) -> None:
    """`samples.npz` (x, y), and with `pictures` the images and the list of their checksums."""
    samples = as_bytes.npz({"x": pixels, "y": labels}, compressed=True)
    if not pictures:
        durable.write_bytes(folder / "samples.npz", samples)
        return
    images = folder / "images"
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir()

    def written(number: int) -> str:
        name = f"{_file_name(classes[int(labels[number])])}_{number:06d}.png"
        content = _png(pixels[number])
        (images / name).write_bytes(content)
        return f"{hashlib.sha256(content).hexdigest()}  images/{name}\n"

    # Making thousands of small files is the file system's time, not ours.
    with ThreadPoolExecutor(max_workers=4) as pool:
        checksums = list(pool.map(written, range(len(pixels)), chunksize=64))
    durable.sync_folder(images)
    durable.write_bytes(folder / "images.sha256", "".join(checksums).encode())
    durable.write_bytes(folder / "samples.npz", samples)


def save_model(folder: Path, model: GenerativeModel, classes: Sequence[str]) -> None:
    """What `trainers.serving.load` makes the same model of: `model.npz`, then `model.json`, which is there once both are."""
    description, weights = model.saved()
    durable.write_bytes(folder / "model.npz", as_bytes.npz(weights))
    failpoint("training-during-model")
    durable.write_bytes(folder / "model.json", (canonical({**description, "classes": list(classes)}) + "\n").encode())


def save_lineages(folder: Path, lineages: Sequence[tuple[str, Sequence[Candidate]]]) -> None:
    """`lineages.jsonl` (a line each: label, ids and captions, oldest first) and their pictures in `lineages.npz`."""
    lines: list[str] = []
    pictures: dict[str, np.ndarray] = {}
    for number, (label, candidates) in enumerate(lineages):
        steps = [{"id": each.id, "born": each.born, "caption": each.caption} for each in candidates]
        lines.append(json.dumps({"label": label, "steps": steps}, ensure_ascii=False) + "\n")
        for step, each in enumerate(candidates):
            if each.image is not None:
                pictures[f"{number}-{step}"] = each.image.pixels
    durable.write_bytes(folder / "lineages.npz", as_bytes.npz(pictures, compressed=True))
    durable.write_bytes(folder / "lineages.jsonl", "".join(lines).encode())


def _lines(population: Population, classes: Sequence[str] | None) -> bytes:
    rows = []
    for candidate in population:
        row: dict[str, object] = {column: getattr(candidate, column) for column in COLUMNS}
        if classes is not None:
            row["label"] = classes[candidate.label]
        rows.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(rows).encode()


def _file_name(text: str) -> str:
    """`text` with nothing that a file system may refuse; not hidden, and short enough."""
    safe = "".join(character if character.isalnum() or character in "-." else "-" for character in text)
    return safe.encode()[:120].decode(errors="ignore").replace(".", "-", safe.startswith("."))


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image as Pillow

    stream = io.BytesIO()
    Pillow.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(stream, format="PNG", compress_level=1)
    return stream.getvalue()
