"""The course of a training job, step by step, each durable before the next."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from ..adapters import registry
from ..adapters.gateway import Gateway
from ..cache.sqlite import SqliteStore
from ..data.private_set import Split
from ..data.training_records import training_records
from ..evaluation.harness import FINAL, INITIAL
from ..pe_engine import shares
from ..privacy import arrays, durable
from ..privacy.failpoint import failpoint
from ..privacy.ledger import Ledger
from ..trainers.contract import GenerativeModel, Shape, Trained
from ..trainers.workspace import chosen_device
from . import assess, certify, model_selection, page, store
from .gateways import CACHE_FILE, cache_folder, open_gateway
from .helping import invite
from .ledgers import check_heads, ledger_folder, open_ledger
from .progress import Bars
from .public_set import assumed, public_images, public_name, refuse_shared
from .reserving import reserve
from .run import Event, Run
from .train import Painted, TrainConfig
from .training_bench import JobBench
from .training_candidates import Candidate, Candidates
from .training_design import TRAINING, Design, check, describe
from .training_network import Network

PUBLIC_ONLY = "0-public-data-alone.npz"
"""Pictures of the model before any private record: first in the gallery, which is in the order of the names."""
PICTURES_OF_A_LABEL = 14


class Training:
    """One run. `go` does whatever is not done yet."""

    def __init__(self, config: TrainConfig, run: Run) -> None:
        self.config = config
        self.run = run
        self.bars = Bars()

    def go(self) -> None:
        config, run, began = self.config, self.run, time.monotonic()
        data = config.split(private_log=run.private_log)
        check(config, data)
        config.check_roles()
        design = Design.of(config, data)
        with ExitStack() as opened:
            ledger = opened.enter_context(open_ledger(config, data))
            check_heads(config, ledger, run)
            if config.privacy.delta is None and ledger.delta != design.target.delta:
                design = Design.of(config, data, delta=ledger.delta)
            gateway = opened.enter_context(self._gateway(ledger))
            if design.sgd is not None:
                print(describe(design))
            self.bars.figures = lambda: f"ledger epsilon {ledger.spent().epsilon:.3g}"
            opened.enter_context(self.bars)

            # Whatever can be missing must not cost the share of a plan.
            identities = {role: vars(identity) for role, identity in gateway.identities().items()}
            public = public_images(config, design.shape, gateway, run)
            config.trainer.check(design.shape, public)
            asked = {role: vars(counts) for role, counts in gateway.counts().items()}
            records = training_records(data.train)
            refuse_shared(config, public, records, data.train, run)
            if data.validation is not None:
                refuse_shared(config, public, training_records(data.validation), data.validation, run)
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
                label_shares="declared" if config.declares_shares else "uniform",
                assumptions=assumed(config),
            )

            self._check_gradients(design, ledger)

            # Reserve the whole plan before anything is released.
            releases = design.releases(run.releases_as)
            reserve(ledger, run, partition=data.train.partition, share=design.target, releases=releases)
            if design.selection is not None:
                model_selection.reserve(ledger, run, design.selection, design.target)
            for role, identity in gateway.egress().items():
                ledger.note(run.id, "egress", {"role": role, **vars(identity)})
            run.record(ledger_head=ledger.head())

            kept = None
            if config.selection.rule != "last":
                device = chosen_device(config.performance.device)
                kept = Candidates(run.private / "candidates", classes=design.shape.classes, device=device)
            bench = JobBench(
                config=config,
                run=run,
                ledger=ledger,
                design=design,
                public=public,
                records=records,
                bars=self.bars,
                candidates=kept,
            )
            invite(design, public, painted=isinstance(config.public, Painted))
            trained = config.trainer.train(design.sgd, bench)
            candidates = kept.all(trained.model, steps=design.sgd.cost.steps) if kept and design.sgd else []
            model = self._chosen(trained.model, candidates, data, design, ledger)
            self._publish(replace(trained, model=model), design.shape)
            self._assess(trained, candidates, design.shape, data, gateway, ledger)
            run.record(
                ledger_head=ledger.head(),
                requests={"public set": asked},
                money={"micro_dollars": dict(gateway.spent()), **vars(gateway.money())},
                duration_s=round(run.manifest.get("duration_s", 0.0) + time.monotonic() - began, 1),
                egress=[{"role": role, **vars(identity)} for role, identity in gateway.egress().items()],
            )
            certify.certify(ledger, run)
            run.record(ledger_head=ledger.head())
            failpoint("run-before-report")
            page.write(run.folder)

    def _check_gradients(self, design: Design, ledger: Ledger) -> None:
        """Compiled and rounded as asked, unless the training has begun: then it was done."""
        network = Network.of(self.config, design)
        if network is not None and not ledger.book.attempts(f"{self.run.releases_as}/{TRAINING}"):
            self.bars.stage("gradients")
            network.check()

    # What is released.

    def _chosen(
        self, last: GenerativeModel, candidates: Sequence[Candidate], data: Split, design: Design, ledger: Ledger
    ) -> GenerativeModel:
        """The last model, or the one of the candidates that a choice is for."""
        if not candidates:
            return last
        self.bars.stage("selection")
        choice = model_selection.choose(
            self._sets(candidates, design.shape),
            names=[each.name for each in candidates],
            data=data,
            settings=self.config.selection,
            seed=self.config.seed,
            cost=design.selection,
            ledger=ledger,
            run=self.run,
        )
        return candidates[choice.index]

    def _sets(self, candidates: Sequence[Candidate], shape: Shape) -> model_selection.Sets:
        """The samples that each would release."""
        labels = self._labels(shape)
        return [(self._sampled(each, labels, each.name), labels) for each in candidates]

    def _sampled(self, model: GenerativeModel, labels: np.ndarray, name: str) -> np.ndarray:
        return model.sample(labels, seed=self.config.seed, progress=lambda done, total: self.bars(name, done, total))

    def _publish(self, trained: Trained, shape: Shape) -> None:
        """The model, then its samples; what is there already is not made again."""
        run, config = self.run, self.config
        if not (run.release / "model.json").exists():
            store.save_model(run.release, trained.model, shape.classes)
        for title, (pixels, labels) in (trained.pictures or {}).items():
            folder = run.release / "pictures"
            folder.mkdir(exist_ok=True)
            durable.write_bytes(folder / f"{title}.npz", arrays.npz({"x": pixels, "y": labels}, compressed=True))
        if not (run.release / "samples.npz").exists():
            labels = self._labels(shape)
            self.bars.stage("samples")
            pixels = self._sampled(trained.model, labels, "model")
            failpoint("training-before-samples")
            store.save_images(run.release, pixels, labels, shape.classes, pictures=config.samples.pictures)
            failpoint("training-after-samples")
        run.journal(Event.SAVED, samples=config.samples.count)

    def _labels(self, shape: Shape) -> np.ndarray:
        """Exactly as many as asked, in the declared shares."""
        wanted = self.config.samples.shares
        share = shares.uniform(len(shape.classes)) if wanted == "uniform" else shares.declared(wanted, shape.classes)
        counts = shares.apportion(self.config.samples.count, share, shape.classes)
        return np.repeat(np.arange(len(shape.classes), dtype=np.int64), counts)

    def _assess(
        self,
        trained: Trained,
        choices: Sequence[Candidate],
        shape: Shape,
        data: Split,
        gateway: Gateway,
        ledger: Ledger,
    ) -> None:
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
        scores = bench.scores(candidates)
        if config.selection.rule == "oracle":
            names, settings = [each.name for each in choices], config.selection
            scores += assess.of_oracle(
                bench, self._sets(choices, shape), names=names, settings=settings, seed=config.seed
            )
        failpoint("training-before-scores")
        assess.write_scores(run, scores)

    def _floor(self, model: GenerativeModel, labels: np.ndarray) -> np.ndarray:
        """As many images of the model that saw public data alone."""
        pixels = self._sampled(model, labels, "public model")
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
