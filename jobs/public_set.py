"""The public set of a training job: loaded or painted, at the private set's size, and without a private record in it."""

from __future__ import annotations

import numpy as np

from ..adapters.contract import ImageRequest, Refusal
from ..adapters.gateway import Gateway
from ..data.private_set import PrivateSet
from ..data.training_records import TrainingRecords, holds_any, read_all
from ..evaluation.harness import pixels_like
from ..privacy.private import Journal, Private, disclose
from ..trainers.contract import PublicImages, Shape
from ..trainers.contract import digest as digest_of
from .job import InputError
from .train import Painted, TrainConfig


def public_name(config: TrainConfig) -> str:
    return "" if config.public is None else config.public.name


def public_images(config: TrainConfig, shape: Shape, gateway: Gateway | None, journal: Journal) -> PublicImages | None:
    """The public set at the private set's size; None where there is none. A painted one needs the gateway."""
    public = config.public
    if public is None:
        return None
    if isinstance(public, Painted):
        assert gateway is not None
        pixels, labels, classes = _painted(public, shape, gateway)
    else:
        loaded = public.load()
        if loaded.train.size is None:
            raise InputError(f"[public] {public.name!r} holds texts; a training job needs images")
        why = "public by declaration"
        opened = disclose(loaded.train.records, partition=f"public:{public.name}", why=why, journal=journal)
        records = read_all(opened, loaded.train)
        pixels, labels, classes = records.pixels[records.valid], records.labels[records.valid], loaded.train.classes
    if not len(pixels):
        raise InputError(f"[public] {public.name!r} has no image that can be read")
    pixels = pixels_like(pixels, (shape.width, shape.height), shape.channels)
    digest = digest_of({"pixels": pixels, "labels": labels})
    return PublicImages(pixels=pixels, labels=labels, classes=classes, digest=digest)


def refuse_shared(
    config: TrainConfig,
    public: PublicImages | None,
    records: Private[TrainingRecords],
    data: PrivateSet,
    journal: Journal,
) -> None:
    """Refuse a public set that holds an image of the private one: then it is not public, and nothing would protect it.

    The answer is a fact about private records. A run that does not begin releases nothing else; one that begins says that
    there is none, which no epsilon covers, and so its certificate assumes it: see `assumed`.
    """
    if public is None or isinstance(config.public, Painted):
        return
    why = "whether the public set holds private records"
    if disclose(holds_any(records, public.pixels), partition=data.partition, why=why, journal=journal):
        raise InputError(
            f"[public] {public_name(config)!r} shares records with the private set {data.name!r}, so it is not public; name "
            "another set, or leave these records out of it"
        )


def assumed(config: TrainConfig) -> list[str]:
    """What the certificate must assume because the run would have been refused otherwise."""
    if config.public is None or isinstance(config.public, Painted):
        return []
    return [
        f"no image of the public set {public_name(config)!r} equals a private record; this was checked on the records before "
        "anything was released, and that the run took place says so"
    ]


def _painted(public: Painted, shape: Shape, gateway: Gateway) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    classes = public.classes or shape.classes
    labels = np.arange(public.count) % len(classes)
    requests = [
        ImageRequest(prompt=classes[label], size=(shape.width, shape.height), channels=shape.channels, draw=draw)
        for draw, label in enumerate(labels.tolist())
    ]
    replies = gateway.open("painter").send(requests)
    kept = [(reply, label) for reply, label in zip(replies, labels, strict=True) if not isinstance(reply, Refusal)]
    if not kept:
        raise InputError("[public]: the painter refused every class; see `privolve adapters` for what it can paint")
    pixels = pixels_like(np.stack([image.pixels for image, _ in kept]), (shape.width, shape.height), shape.channels)
    return pixels, np.array([label for _, label in kept], dtype=np.int64), classes
