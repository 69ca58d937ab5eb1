"""Synthetic images from anywhere: a run's folder, an .npz file, or a folder of pictures.

Whoever names them takes them for released: what is wrong with them is said in full, and no picture is left out in silence.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.files import GIBIBYTE
from ..data.npz import LAYOUTS, Archive
from .job import InputError
from .run import read_manifest

if TYPE_CHECKING:
    from .text_samples import TextSamples

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LABELS_FILE = "labels.csv"
MAX_PIXELS = 16_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """`pixels` uint8 (n, height, width, channels); `labels` index the classes that were asked for."""

    name: str
    pixels: np.ndarray
    labels: np.ndarray

    @property
    def digest(self) -> str:
        whole = hashlib.sha256(str(self.pixels.shape).encode())
        whole.update(np.ascontiguousarray(self.pixels).data)
        whole.update(np.ascontiguousarray(self.labels).data)
        return whole.hexdigest()


def read(path: Path, classes: Sequence[str]) -> Samples:
    """The images at `path` with labels of `classes`. Raises InputError, one line."""
    if (path / "release" / "samples.npz").is_file():
        return _of_run(path, classes)
    if path.is_dir():
        return _of_folder(path, classes)
    if path.suffix == ".npz" and path.is_file():
        return _of_npz(path, classes, known=None)
    if not path.exists():
        raise InputError(f"{path}: does not exist; name a run's folder, an .npz file or a folder of images")
    raise InputError(f"{path}: is none of a run's folder, an .npz file and a folder of images")


def _of_run(path: Path, classes: Sequence[str]) -> Samples:
    """An exported run has no manifest; its labels are indices of the classes that its set declares."""
    known = read_manifest(path)["config"]["data"]["classes"] if (path / "run.json").exists() else None
    found = _of_npz(path / "release" / "samples.npz", classes, known=known)
    return Samples(name=path.name, pixels=found.pixels, labels=found.labels)


# --- npz --------------------------------------------------------------------------------------------------------------


def _of_npz(path: Path, classes: Sequence[str], *, known: Sequence[str] | None) -> Samples:
    with Archive(path, max_bytes=8 * GIBIBYTE, where=str(path)) as archive:
        for images, labels in LAYOUTS:
            if images in archive.keys:
                pixels = _uint8(archive.array(images), path)
                if labels not in archive.keys:
                    return Samples(name=path.stem, pixels=pixels, labels=_unlabelled(len(pixels), classes, path))
                return Samples(
                    name=path.stem, pixels=pixels, labels=_indices(archive.array(labels), classes, known, path, pixels)
                )
        tried = ", ".join(f"{images}/{labels}" for images, labels in LAYOUTS)
        raise InputError(f"{path}: has none of the usual keys ({tried}); it holds {archive.holds}")


def _uint8(images: np.ndarray, path: Path) -> np.ndarray:
    """uint8 with channels last. Floats are in [0, 1] or [-1, 1] and, as generators write them, have channels first."""
    if not len(images):
        raise InputError(f"{path}: holds no image")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4:
        raise InputError(
            f"{path}: images have shape {images.shape}; rows x height x width, or with channels, are needed"
        )
    if images.dtype.kind == "f":
        wrong = len(images) - int(np.isfinite(images).all(axis=(1, 2, 3)).sum())
        if wrong:
            raise InputError(f"{path}: {wrong} of {len(images)} images hold NaN or infinity; leave them out first")
        low, high = float(images.min()), float(images.max())
        if low < -1.001 or high > 1.001:
            raise InputError(f"{path}: pixels lie between {low:g} and {high:g}; write them as uint8, or in [0, 1]")
        images = np.rint(np.clip(images if low >= 0 else (images + 1) / 2, 0, 1) * 255).astype(np.uint8)
    if images.dtype != np.uint8:
        raise InputError(f"{path}: images are of type {images.dtype}; uint8 or floats in [0, 1] are needed")
    if images.shape[3] not in (1, 3) and images.shape[1] in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    if images.shape[3] not in (1, 3):
        raise InputError(f"{path}: images of shape {images.shape[1:]} are neither grey nor colour")
    return np.ascontiguousarray(images)


def _indices(
    labels: np.ndarray, classes: Sequence[str], known: Sequence[str] | None, path: Path, images: np.ndarray
) -> np.ndarray:
    if labels.ndim != 1 or len(labels) != len(images):
        raise InputError(f"{path}: {labels.shape} labels for {len(images)} images; one a row is needed")
    if labels.dtype.kind == "U":
        return _named([str(each) for each in labels.tolist()], classes, path)
    if labels.dtype.kind not in "iu" and not np.array_equal(labels, np.rint(labels)):
        raise InputError(f"{path}: labels are of type {labels.dtype}; give indices of the classes, or their names")
    indices = labels.astype(np.int64)
    if known is not None:
        return _named([str(known[each]) for each in indices.tolist()], classes, path)
    wrong = indices[(indices < 0) | (indices >= len(classes))]
    if len(wrong):
        raise InputError(f"{path}: label {wrong[0]} of only {len(classes)} classes; see the data's class list")
    return indices


# --- folders ----------------------------------------------------------------------------------------------------------


def _of_folder(path: Path, classes: Sequence[str]) -> Samples:
    """Class subfolders; or pictures with `labels.csv` (file,label), named CLASS_anything, or of the one class there is."""
    inside = sorted(each for each in path.iterdir() if not each.name.startswith("."))
    folders = [each for each in inside if each.is_dir()]
    files: list[tuple[Path, str]] = []
    if folders:
        for folder in folders:
            files += [(each, folder.name) for each in _pictures(folder)]
    elif (path / LABELS_FILE).is_file():
        files = _listed(path)
    elif len(classes) == 1:
        files = [(each, classes[0]) for each in _pictures(path)]
    else:
        files = [(each, each.name.split("_", 1)[0]) for each in _pictures(path)]
    if not files:
        raise InputError(f"{path}: holds no image ({', '.join(ENDINGS)}); name a run's folder, an .npz or pictures")
    labels = _named([label for _, label in files], classes, path)
    return Samples(name=path.name, pixels=_decoded([file for file, _ in files]), labels=labels)


def _pictures(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.suffix.lower() in ENDINGS and not each.name.startswith("."))


def _listed(path: Path) -> list[tuple[Path, str]]:
    with (path / LABELS_FILE).open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    if rows and rows[0][:2] == ["file", "label"]:
        rows = rows[1:]
    for number, row in enumerate(rows, 1):
        if len(row) < 2 or not (path / row[0]).is_file():
            raise InputError(f"{path / LABELS_FILE}: row {number} names no image; each row is FILE,LABEL")
    return [(path / row[0], row[1]) for row in rows]


def _decoded(files: Sequence[Path]) -> np.ndarray:
    from PIL import Image

    images: list[np.ndarray] = []
    for file in files:
        try:
            with Image.open(file) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise InputError(f"{file}: has {picture.width} x {picture.height} pixels, more than {MAX_PIXELS:,}")
                grey = picture.mode in ("1", "L", "LA", "I;16")
                pixels = np.asarray(picture.convert("L" if grey else "RGB"), dtype=np.uint8)
        except (OSError, SyntaxError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{file}: cannot be decoded as an image; restore it, or leave it out") from None
        images.append(pixels[..., None] if pixels.ndim == 2 else pixels)
    shapes = Counter(each.shape for each in images)
    if len(shapes) > 1:
        usual = shapes.most_common(1)[0][0]
        odd = next(file for file, each in zip(files, images, strict=True) if each.shape != usual)
        raise InputError(
            f"{odd}: is {_shape(next(each for each in images if each.shape != usual).shape)} where most images are "
            f"{_shape(usual)}; make them alike first"
        )
    return np.stack(images)


def _shape(shape: tuple[int, ...]) -> str:
    return f"{'grey' if shape[2] == 1 else 'colour'} of {shape[1]} x {shape[0]}"


def _named(names: Sequence[str], classes: Sequence[str], path: Path) -> np.ndarray:
    known = {name: index for index, name in enumerate(classes)}
    for name in names:
        if name not in known:
            shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
            raise InputError(f"{path}: {name!r} is no class of the data; its classes are {shown}")
    return np.array([known[name] for name in names], dtype=np.int64)


def _unlabelled(count: int, classes: Sequence[str], path: Path) -> np.ndarray:
    if len(classes) > 1:
        raise InputError(f"{path}: holds no labels, and the data has {len(classes)} classes; add them as `y`")
    return np.zeros(count, dtype=np.int64)


def fits(samples: Samples, size: tuple[int, int], channels: int, *, fit: bool) -> None:
    """Refuse images that are not of the data's size and channels, unless they may be converted."""
    wanted = (size[1], size[0], channels)
    if not fit and samples.pixels.shape[1:] != wanted:
        raise InputError(
            f"{samples.name}: its images are {_shape(samples.pixels.shape[1:])} and the data's {_shape(wanted)}; "
            "convert them first, or let --fit do it"
        )


def missing_classes(samples: Samples | TextSamples, classes: Sequence[str]) -> list[str]:
    """The classes without an image or a text."""
    present = set(np.unique(samples.labels).tolist())
    return [name for index, name in enumerate(classes) if index not in present]
