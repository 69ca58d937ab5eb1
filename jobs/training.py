"""The course of a training job, step by step, each durable before the next."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..adapters import registry
from ..adapters.contract import ImageRequest, Refusal
from ..adapters.gateway import Gateway
from ..cache.sqlite import SqliteStore
from ..data.private_set import PrivateSet, Split
from ..data.training_records import TrainingRecords, holds_any, read_all, training_records
from ..evaluation.harness import FINAL, INITIAL, pixels_like
from ..pe_engine import shares
from ..privacy import arrays, durable
from ..privacy.accounting import check_delta, default_delta
from ..privacy.failpoint import failpoint
from ..privacy.ledger import Ledger, PlannedRelease
from ..privacy.mechanism import CalibratedMechanism, PrivacyTarget, calibrate
from ..privacy.private import Private, disclose
from ..trainers import dp_sgd
from ..trainers.contract import Arrays, GenerativeModel, PublicImages, Shape, Trained
from ..trainers.contract import digest as digest_of
from ..trainers.workspace import Workspace, chosen_device
from . import assess, certify, page, store
from .gateways import CACHE_FILE, cache_folder, open_gateway
from .job import InputError, canonical
from .ledgers import check_heads, ledger_folder, open_ledger
from .progress import Bars
from .reserving import reserve
from .run import Event, Run
from .stages import Stages
from .train import Painted, TrainConfig

if TYPE_CHECKING:
    from ..trainers.dp_sgd import NoisySGD

SMALL_IMAGE = 256
"""Numbers in an image up to which many more records fit into a micro-batch."""

TRAINING = "training"
"""The release that is the trained weights."""
PUBLIC_ONLY = "0-public-data-alone.npz"
"""Pictures of the model before any private record: first in the gallery, which is in the order of the names."""
PICTURES_OF_A_LABEL = 14


@dataclass(frozen=True, kw_only=True)
class Design:
    """The private side of a training, from public numbers alone."""

    shape: Shape
    target: PrivacyTarget
    sgd: NoisySGD | None
    queries: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, config: TrainConfig, data: PrivateSet, *, delta: float | None = None) -> Design:
        """Queries at the noise of their settings, the training calibrated beside them. Raises ValueError."""
        shape = shape_of(data)
        privacy = config.privacy
        target = PrivacyTarget(
            epsilon=privacy.epsilon,
            delta=privacy.delta or delta or default_delta(data.count),
            unit=privacy.unit,
            relation=privacy.relation,
        )
        check_delta(target.delta, data.count)
        queries = config.trainer.queries(shape)
        training = config.trainer.dp_sgd(shape)
        sgd = None if training is None else calibrate(training, target, beside=[cost for _, cost in queries])
        return cls(shape=shape, target=target, sgd=sgd, queries=queries)

    def releases(self, prefix: str) -> tuple[PlannedRelease, ...]:
        """Every release of the run, in order."""
        planned = [PlannedRelease(name=f"{prefix}/{name}", cost=cost) for name, cost in self.queries]
        if self.sgd is not None:
            planned.append(PlannedRelease(name=f"{prefix}/{TRAINING}", cost=self.sgd.cost))
        return tuple(planned)


class Training:
    """One run. `go` does whatever is not done yet."""

    def __init__(self, config: TrainConfig, run: Run) -> None:
        self.config = config
        self.run = run
        self.bars = Bars()

    def go(self) -> None:
        config, run, began = self.config, self.run, time.monotonic()
        data = config.data.load(private_log=run.private_log)
        check(config, data)
        config.check_roles()
        Design.of(config, data.train)
        with ExitStack() as opened:
            ledger = opened.enter_context(open_ledger(config, data))
            check_heads(config, ledger, run)
            design = Design.of(config, data.train, delta=ledger.delta)
            gateway = opened.enter_context(self._gateway(ledger))
            if design.sgd is not None:
                print(describe(design))
            self.bars.figures = lambda: f"epsilon {ledger.spent().epsilon:.3g}"
            opened.enter_context(self.bars)

            # Whatever can be missing must not cost the share of a plan.
            identities = {role: vars(identity) for role, identity in gateway.identities().items()}
            public = public_images(config, design.shape, gateway, run)
            config.trainer.check(design.shape, public)
            records = training_records(data.train)
            refuse_shared(config, public, records, data.train, run)
            if public is not None:
                identities["public set"] = {
                    "provider": public_name(config),
                    "model": f"{len(public):,} images",
                    "revision": public.digest[:16],
                }
            run.check_unchanged("model or public set", identities, run.manifest.get("identities"))
            run.record(
                ledger=str(ledger_folder(config).resolve()),
                ledger_id=ledger.id,
                identities=identities,
                locations={role: str(registry.location(config.adapters[role])) for role in config.roles()},
                private_roles=["judge"] if "judge" in config.adapters else [],
                prompts=[],
                test_is_public=data.test_is_public,
                label_shares="uniform" if config.samples.shares == "uniform" else "declared",
            )

            # Reserve the whole plan before anything is released.
            releases = design.releases(run.releases_as)
            reserve(ledger, run, partition=data.train.partition, share=design.target, releases=releases)
            for role, identity in gateway.egress().items():
                ledger.note(run.id, "egress", {"role": role, **vars(identity)})
            run.record(ledger_head=ledger.head())

            bench = JobBench(
                config=config, run=run, ledger=ledger, design=design, public=public, records=records, bars=self.bars
            )
            trained = config.trainer.train(design.sgd, bench)
            self._publish(trained, design.shape)
            self._assess(trained, data, gateway, ledger)
            run.record(
                ledger_head=ledger.head(),
                duration_s=round(run.manifest.get("duration_s", 0.0) + time.monotonic() - began, 1),
                egress=[{"role": role, **vars(identity)} for role, identity in gateway.egress().items()],
            )
            certify.certify(ledger, run)
            run.record(ledger_head=ledger.head())
            failpoint("run-before-report")
            page.write(run.folder)

    # What is released.

    def _publish(self, trained: Trained, shape: Shape) -> None:
        """The model, then its samples; what is there already is not made again."""
        run, config = self.run, self.config
        if not (run.release / "model.json").exists():
            description, weights = trained.model.saved()
            durable.write_bytes(run.release / "model.npz", arrays.npz(weights))
            durable.write_bytes(run.release / "model.json", (canonical(description) + "\n").encode())
        for title, (pixels, labels) in (trained.pictures or {}).items():
            folder = run.release / "pictures"
            folder.mkdir(exist_ok=True)
            durable.write_bytes(folder / f"{title}.npz", arrays.npz({"x": pixels, "y": labels}, compressed=True))
        if not (run.release / "samples.npz").exists():
            labels = self._labels(shape)
            self.bars.stage("samples")
            pixels = trained.model.sample(
                labels, seed=config.seed, progress=lambda done, total: self.bars("model", done, total)
            )
            store.save_images(run.release, pixels, labels, shape.classes, pictures=config.samples.pictures)
        run.journal(Event.SAVED, samples=config.samples.count)

    def _labels(self, shape: Shape) -> np.ndarray:
        """Exactly as many as asked, in the declared shares."""
        wanted = self.config.samples.shares
        share = shares.uniform(len(shape.classes)) if wanted == "uniform" else shares.declared(wanted, shape.classes)
        counts = shares.apportion(self.config.samples.count, share, shape.classes)
        return np.repeat(np.arange(len(shape.classes), dtype=np.int64), counts)

    def _assess(self, trained: Trained, data: Split, gateway: Gateway, ledger: Ledger) -> None:
        run, config = self.run, self.config
        if (run.private / "scores.json").exists():
            return
        self.bars.stage("evaluation")
        with np.load(run.release / "samples.npz", allow_pickle=False) as released:
            pixels, labels = released["x"], released["y"]
        candidates = [assess.Images(name=FINAL, pixels=pixels, labels=labels)]
        if trained.floor is not None and config.evaluation.floor:
            candidates.append(assess.Images(name=INITIAL, pixels=self._floor(trained.floor, labels), labels=labels))
        bench = assess.Bench(
            run=run,
            data=data,
            settings=config.evaluation,
            gateway=gateway if "judge" in config.adapters else None,
            role="judge" if "judge" in config.adapters else None,
            shows_voters=config.shows_unprotected,
            ceiling=config.evaluation.ceiling,
            ledger=ledger,
        )
        assess.write_scores(run, bench.scores(candidates))

    def _floor(self, model: GenerativeModel, labels: np.ndarray) -> np.ndarray:
        """As many images of the model that saw public data alone."""
        pixels = model.sample(
            labels, seed=self.config.seed, progress=lambda done, total: self.bars("public model", done, total)
        )
        folder = self.run.release / "pictures"
        folder.mkdir(exist_ok=True)
        shown = np.concatenate([np.flatnonzero(labels == label)[:PICTURES_OF_A_LABEL] for label in np.unique(labels)])
        kept = {"x": pixels[shown], "y": labels[shown]}
        durable.write_bytes(folder / PUBLIC_ONLY, arrays.npz(kept, compressed=True))
        return pixels

    def _gateway(self, ledger: Ledger) -> Gateway:
        config = self.config
        return open_gateway(
            {role: config.adapters[role] for role in config.roles()},
            budget=config.budget,
            performance=config.performance,
            trust=config.trust,
            store=SqliteStore(cache_folder(config.performance) / CACHE_FILE),
            private_dir=ledger_folder(config) / "answers",
            key=ledger.key,
            namespace=self.run.namespace,
            scope=self.run.id,
            progress=self.bars,
        )


class JobBench:
    """`trainers.contract.Bench` of a run."""

    def __init__(
        self,
        *,
        config: TrainConfig,
        run: Run,
        ledger: Ledger,
        design: Design,
        public: PublicImages | None,
        records: Private[TrainingRecords],
        bars: Bars,
    ) -> None:
        self.shape = design.shape
        self.seed = config.seed
        self.public = public
        self.device = chosen_device(config.performance.device)
        self._run = run
        self._ledger = ledger
        self._records = records
        self._bars = bars
        self._performance = config.performance
        self._config = config
        self._design = design
        self._stages = Stages(cache_folder(config.performance).parent / ".stages")

    @property
    def progress(self) -> Callable[[str, int, int], None]:
        return self._bars

    def stage(self, name: str, key: Mapping[str, Any], make: Callable[[Path], Arrays]) -> Arrays:
        self._bars.stage(name)
        return self._stages.get(name, key, make)

    def release(
        self,
        name: str,
        mechanism: CalibratedMechanism[TrainingRecords],
        *,
        question: Mapping[str, Any],
    ) -> Arrays:
        self._bars.stage(name)
        name_of_release = f"{self._run.releases_as}/{name}"
        asked = hashlib.sha256(canonical(question).encode()).hexdigest()
        if isinstance(mechanism, dp_sgd.Training):
            released = dp_sgd.release_training(
                self._ledger, mechanism, self._records, name=name_of_release, question=asked
            )
        else:
            released = self._ledger.release(mechanism, self._records, name=name_of_release, question=asked)
        self._run.record(ledger_head=self._ledger.head())
        self._run.journal(Event.RELEASED, name=name)
        return released

    def workspace(self, name: str) -> Workspace:
        performance = self._performance
        return Workspace(
            folder=self._run.private / name,
            device=self.device,
            engine=performance.gradients,
            micro_batch=micro_batch(self._config, self._design),
            chunk=gradient_chunk(self._config, self._design),
            checkpoint_every=performance.checkpoint_every,
            progress=lambda step, steps: self._bars("steps", step, steps),
        )


# --- from the settings ------------------------------------------------------------------------------------------------


def shape_of(data: PrivateSet) -> Shape:
    """What is public of the private set."""
    assert data.size is not None  # `check` saw to it.
    return Shape(
        width=data.size[0],
        height=data.size[1],
        channels=data.channels,
        classes=data.classes,
        slots=data.count,
    )


def check(config: TrainConfig, data: Split) -> None:
    """Refuse data that no trainer can use, before any record is read."""
    if data.train.size is None:
        raise InputError(f"[data] {data.train.name!r} holds texts; a training job needs images")
    if config.trainer.needs_public and config.public is None:
        raise InputError(f"[public]: {config.trainer.kind} starts from a public set; name one")
    if config.samples.shares != "uniform" and set(config.samples.shares) != set(data.train.classes):
        raise InputError("samples.shares: give one share for each class, under its name")


def micro_batch(config: TrainConfig, design: Design) -> int:
    """How many records are computed at a time, from public numbers: most steps fill a whole number of micro-batches."""
    if config.performance.micro_batch is not None:
        return config.performance.micro_batch
    most = 64 if design.shape.pixels > SMALL_IMAGE else 512
    if design.sgd is None:
        return most
    rate, slots = design.sgd.cost.probability, design.shape.slots
    nearly_all = math.ceil(rate * slots + 2 * math.sqrt(rate * (1 - rate) * slots))
    pieces = math.ceil(nearly_all / most)
    return max(1, math.ceil(nearly_all / pieces))


def gradient_chunk(config: TrainConfig, design: Design) -> int | None:
    """How many gradients at a time: of small images all of a micro-batch, else the engine's own number."""
    chosen = config.performance.gradient_chunk
    return micro_batch(config, design) if chosen is None and design.shape.pixels <= SMALL_IMAGE else chosen


def describe(design: Design) -> str:
    """The training in one line, from public numbers."""
    assert design.sgd is not None
    cost = design.sgd.cost
    return (
        f"DP-SGD: {cost.steps:,} steps, each over a random {cost.probability:.1%} of {design.shape.slots:,} slots, "
        f"noise multiplier {cost.noise_multiplier:.3f}"
    )


def public_name(config: TrainConfig) -> str:
    return "" if config.public is None else config.public.name


def public_images(config: TrainConfig, shape: Shape, gateway: Gateway, run: Run) -> PublicImages | None:
    """The public set at the private set's size; None where there is none."""
    public = config.public
    if public is None:
        return None
    if isinstance(public, Painted):
        pixels, labels, classes = _painted(public, shape, gateway)
    else:
        loaded = public.load()
        if loaded.train.size is None:
            raise InputError(f"[public] {public.name!r} holds texts; a training job needs images")
        why = "public by declaration"
        opened = disclose(loaded.train.records, partition=f"public:{public.name}", why=why, journal=run)
        records = read_all(opened, loaded.train)
        pixels, labels, classes = records.pixels[records.valid], records.labels[records.valid], loaded.train.classes
    if not len(pixels):
        raise InputError(f"[public] {public.name!r} has no image that can be read")
    pixels = pixels_like(pixels, (shape.width, shape.height), shape.channels)
    digest = digest_of({"pixels": pixels, "labels": labels})
    return PublicImages(pixels=pixels, labels=labels, classes=classes, digest=digest)


def refuse_shared(
    config: TrainConfig, public: PublicImages | None, records: Private[TrainingRecords], data: PrivateSet, run: Run
) -> None:
    """Refuse a public set that holds an image of the private one: then it is not public, and nothing would protect it.

    The answer is a fact about private records, and the reason why this run does not begin; a run that begins says nothing.
    """
    if public is None or isinstance(config.public, Painted):
        return
    why = "whether the public set holds private records"
    if disclose(holds_any(records, public.pixels), partition=data.partition, why=why, journal=run):
        raise InputError(
            f"[public] {public_name(config)!r} shares records with the private set {data.name!r}, so it is not public; name "
            "another set, or leave these records out of it"
        )


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
