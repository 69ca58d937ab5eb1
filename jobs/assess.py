"""What is measured in the end: on held-out real records, and for the private copy on the voters too.

Formal guarantee: a score is protected only if everything that it was computed from is released or declared public; all
others go to `private/` alone. The door is `disclose`, a journal line each; figures on the voters are counted in the ledger
before they are computed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from ..adapters.contract import EmbedRequest, Image, Refusal
from ..data.private_set import PrivateSet, Records, Split
from ..evaluation.classifier import CEILING, FINAL, INITIAL, RANDOM, ClassifierAccuracy, LogisticRegression
from ..evaluation.frechet import FrechetDistance
from ..evaluation.metric import Items, MetricError, Score
from ..evaluation.nearest_records import nearest_records
from ..privacy import durable
from ..privacy.private import Private, disclose
from .run import Event

if TYPE_CHECKING:
    from ..adapters.gateway import Gateway
    from ..data.voters import Voters
    from ..pe_engine.population import Population
    from ..privacy.ledger import Ledger
    from .private_evolution import PrivateEvolution

UNPROTECTED_FIGURES = 4
"""On the voters: the ceiling's accuracy and the three figures of the nearest records."""


def assess(
    evolution: PrivateEvolution,
    data: Split,
    *,
    first: Population,
    final: Population,
    voters: Private[Voters],
    gateway: Gateway,
    ledger: Ledger,
) -> None:
    """Write `release/scores.json` (protected) and `private/scores.json` (all). What was written is not measured again."""
    run = evolution.run
    if (run.private / "scores.json").exists():
        return
    scores: list[Score] = []
    # On matrices this small, threads of a BLAS cost more than they give, and one thread gives the same bits anywhere.
    with threadpool_limits(limits=1):
        _assess(evolution, data, first, final, voters, gateway, ledger, scores)
    _write(evolution, scores)


def _assess(
    evolution: PrivateEvolution,
    data: Split,
    first: Population,
    final: Population,
    voters: Private[Voters],
    gateway: Gateway,
    ledger: Ledger,
    scores: list[Score],
) -> None:
    run, config = evolution.run, evolution.config
    if data.test is not None and data.test.size is not None:
        evolution.bars.stage("evaluation")
        test = _images(data.test, name="held-out test", protected=data.test_is_public, evolution=evolution)
        candidates = [_synthetic(FINAL, final, data.test), _synthetic(INITIAL, first, data.test)]
        if config.evaluation.random_baseline:
            random = evolution.random_selection(data, gateway)
            candidates.append(_synthetic(RANDOM, random, data.test))
        metric = ClassifierAccuracy(classifier=LogisticRegression(classes=len(data.train.classes)))
        scores += _each(evolution, lambda items: metric(test, items), candidates)
        shown = config.shows_unprotected
        if shown:
            ledger.note(run.id, "disclosed", {"partition": data.train.partition, "figures": UNPROTECTED_FIGURES})
            real = _images(data.train, name=CEILING, protected=False, evolution=evolution)
            scores += _each(evolution, lambda items: metric(test, items), [real])
        if config.evaluation.frechet and config.evolution_sees_images:
            scores += _in_the_eye(evolution, data, first, final, voters if shown else None, gateway)


def _in_the_eye(
    evolution: PrivateEvolution,
    data: Split,
    first: Population,
    final: Population,
    voters: Private[Voters] | None,
    gateway: Gateway,
) -> list[Score]:
    """Frechet distance to the held-out records, and with `voters` how near the final set lies to the private records."""
    assert data.test is not None
    network = _network(gateway)
    embedded = gateway.open_trusted("eye").embed(data.test)
    held_out = _features(embedded, "held-out test", network, data.test, evolution, protected=data.test_is_public)
    synthetic = [_seen(name, population, network, gateway) for name, population in ((FINAL, final), (INITIAL, first))]
    scores = _each(evolution, FrechetDistance().to(held_out), synthetic)
    if voters is not None:
        private = _features(voters, "private records", network, data.train, evolution, protected=False)
        try:
            scores += nearest_records(private=private, held_out=held_out, synthetic=synthetic[0]).scores()
        except MetricError as error:
            evolution.run.private_log(f"nearest records: {error}")
    return scores


def _each(evolution: PrivateEvolution, metric, candidates: Sequence[Items]) -> list[Score]:
    """The scores that can be computed; why one cannot may depend on private records, so only the private log says it."""
    scores: list[Score] = []
    for items in candidates:
        try:
            scores.append(metric(items))
        except MetricError as error:
            evolution.run.private_log(f"{items.name}: {error}")
    return scores


def _images(records: PrivateSet, *, name: str, protected: bool, evolution: PrivateEvolution) -> Items:
    """Real images, disclosed."""
    opened = disclose(
        records.records, partition=records.partition, why=f"classifier accuracy: {name}", journal=evolution.run
    )
    assert records.size is not None
    width, height = records.size
    pixels = np.zeros((records.count, height, width, records.channels), dtype=np.uint8)
    labels = np.full(records.count, -1, dtype=np.int64)
    _read(opened, pixels, labels)
    return Items.of_records(name=name, values=pixels, labels=labels, valid=labels >= 0, protected=protected)


def _read(records: Records, pixels: np.ndarray, labels: np.ndarray, chunk: int = 4096) -> None:
    for start in range(0, len(records), chunk):
        for slot, record in enumerate(records.read_many(start, min(start + chunk, len(records))), start):
            if record is not None and isinstance(record.content, np.ndarray):
                pixels[slot], labels[slot] = record.content, record.label


def _synthetic(name: str, population: Population, records: PrivateSet) -> Items:
    """Released images at the size of the real ones."""
    pictured = [candidate for candidate in population if candidate.image is not None]
    pixels = np.stack([_fitted(candidate.image, records) for candidate in pictured if candidate.image is not None])
    labels = np.array([candidate.label for candidate in pictured], dtype=np.int64)
    return Items(name=name, values=pixels, labels=labels, protected=True)


def _fitted(image: Image, records: PrivateSet) -> np.ndarray:
    assert records.size is not None
    width, height = records.size
    if image.pixels.shape == (height, width, records.channels):
        return image.pixels
    from PIL import Image as Pillow

    picture = Pillow.fromarray(image.pixels[:, :, 0] if image.pixels.shape[2] == 1 else image.pixels)
    picture = picture.convert("L" if records.channels == 1 else "RGB").resize(
        (width, height), Pillow.Resampling.LANCZOS
    )
    return np.asarray(picture, dtype=np.uint8).reshape(height, width, records.channels)


def _features(
    embedded: Private[Voters],
    name: str,
    network: str,
    records: PrivateSet,
    evolution: PrivateEvolution,
    *,
    protected: bool,
) -> Items:
    """Features of real records, disclosed."""
    opened = disclose(embedded, partition=records.partition, why=f"features: {name}", journal=evolution.run)
    return Items.of_records(
        name=name,
        values=opened.embeddings,
        labels=opened.labels,
        valid=opened.valid,
        network=network,
        protected=protected,
    )


def _seen(name: str, population: Population, network: str, gateway: Gateway) -> Items:
    """Features of released images."""
    images = [candidate.image for candidate in population if candidate.image is not None]
    replies = gateway.open("eye").send([EmbedRequest(content=image) for image in images])
    rows = [reply for reply in replies if not isinstance(reply, Refusal)]
    return Items(name=name, values=np.stack(rows), network=network, protected=True)


def _network(gateway: Gateway) -> str:
    identity = gateway.identity("eye")
    return " ".join(part for part in (identity.provider, identity.model, identity.revision) if part)


def _write(evolution: PrivateEvolution, scores: Sequence[Score]) -> None:
    run = evolution.run
    for folder, kept in ((run.release, [each for each in scores if each.protected]), (run.private, list(scores))):
        content = json.dumps([each.to_json() for each in kept], indent=2, ensure_ascii=False)
        durable.write_bytes(
            folder / "scores.json", content.encode() + b"\n", mode=0o644 if folder == run.release else 0o600
        )
    run.journal(Event.SAVED, scores=sum(each.protected for each in scores))
