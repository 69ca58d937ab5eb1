"""The course of a Private Evolution run, step by step, each durable before the next."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np

from ..adapters import registry
from ..adapters.gateway import Gateway
from ..adapters.roles import Counts
from ..cache.money import dollars
from ..cache.sqlite import SqliteStore
from ..data.private_set import Split
from ..data.voters import Voters
from ..evaluation.report.content import ancestry
from ..pe_engine import shares
from ..pe_engine.evolve import Iteration, evolve
from ..pe_engine.population import SELECTED, Candidate, Population
from ..pe_engine.refusals import Refusals
from ..pe_engine.schedule import Stage, Stages
from ..pe_engine.scoring import RenderedScoring
from ..pe_engine.selection import At, Sample, Uniform, barred, select_all_labels
from ..pe_engine.variation import chosen, initial, vary
from ..privacy import durable
from ..privacy.accounting import default_delta
from ..privacy.failpoint import failpoint
from ..privacy.ledger import Ledger
from ..privacy.private import Private
from ..privacy.randomness import PublicRng
from . import assess, certify, model_selection, page, store
from .design import Design, histogram_release, label_release
from .evolution import EvolutionConfig
from .gateways import CACHE_FILE, cache_folder, open_gateway
from .ledgers import check_heads, ledger_folder, open_ledger
from .progress import Bars
from .reserving import reserve
from .run import Event, Run

GALLERY_OF_A_LABEL = 14
GALLERY_EDGE = 160
LINEAGES = 8


class PrivateEvolution:
    """One run. `go` does whatever is not done yet."""

    def __init__(self, config: EvolutionConfig, run: Run) -> None:
        self.config = config
        self.run = run
        self.rng = PublicRng(config.seed)
        self.bars = Bars()
        self._counted: Mapping[str, Counts] = {}
        self._refusals: list[Refusals] = []
        self._classes: tuple[str, ...] = ()

    def go(self) -> None:
        config, run, began = self.config, self.run, time.monotonic()
        data = config.split(private_log=run.private_log)
        config.check(data)
        config.check_roles()
        prompts = config.prompts()
        delta = default_delta(data.registered.count)
        Design.of(config, classes=data.train.classes, voters=data.train.count, delta=delta).stages()
        with ExitStack() as opened:
            ledger = opened.enter_context(open_ledger(config, data))
            check_heads(config, ledger, run)
            design = Design.of(config, classes=data.train.classes, voters=data.train.count, delta=ledger.delta)
            stages = design.stages()
            gateway = opened.enter_context(self._gateway(ledger))
            say_signal(design, stages)
            self.bars.figures = lambda: figures(ledger, gateway)
            opened.enter_context(self.bars)

            # Open every model first: one that is missing must not cost the share of a plan.
            identities = {role: vars(identity) for role, identity in gateway.identities().items()}
            run.check_unchanged("model", identities, run.manifest.get("identities"))
            run.check_unchanged("prompts", prompts, run.manifest.get("prompts"))
            run.record(
                ledger=str(ledger_folder(config).resolve()),
                ledger_id=ledger.id,
                identities=identities,
                locations={role: str(registry.location(config.adapters[role])) for role in config.roles()},
                private_roles=list(config.private_roles()),
                prompts=prompts,
                test_is_public=data.test_is_public,
                label_shares=config.evolution.shares if isinstance(config.evolution.shares, str) else "declared",
                signals=[vars(each) for each in design.signals(stages)],
            )

            # Reserve the whole plan before anything is released.
            releases = design.releases(run.releases_as)
            reserve(ledger, run, partition=data.train.partition, share=design.target, releases=releases)
            if design.selection is not None:
                model_selection.reserve(ledger, run, design.selection, design.target)
            self._note_egress(ledger, gateway)
            run.record(ledger_head=ledger.head())

            final, first, voters = self._evolve(data, design, stages, ledger, gateway)
            candidates = self._candidates(final, gateway, data)
            final = self._chosen(candidates, data, design, ledger)
            self._publish(final, data.train.classes)
            self._lineages(final, data.train.classes, gateway, data)
            assess.assess(
                self,
                data,
                first=first,
                final=final,
                candidates=candidates,
                voters=voters,
                gateway=gateway,
                ledger=ledger,
            )
            self._count_requests("evaluation", gateway)
            run.record(
                ledger_head=ledger.head(),
                duration_s=round(run.manifest.get("duration_s", 0.0) + time.monotonic() - began, 1),
                egress=[{"role": role, **vars(identity)} for role, identity in gateway.egress().items()],
            )
            certify.certify(ledger, run)
            run.record(ledger_head=ledger.head())
            failpoint("run-before-report")
            page.write(run.folder)

    # The evolution.

    def _evolve(
        self, data: Split, design: Design, stages: Stages, ledger: Ledger, gateway: Gateway
    ) -> tuple[Population, Population, Private[Voters]]:
        """The final set with its pictures, the first candidates with theirs, and the voters."""
        config, run = self.config, self.run
        self.bars.stage("private set")
        voters = config.voters(gateway, data.train)
        if design.labels is not None:
            name = label_release(run.releases_as)
            counts = ledger.release(design.labels, voters, name=name, question=f"classes {len(data.train.classes)}")
            self._released(name, ledger)
            durable.write_bytes(run.release / "label_counts.json", json.dumps(counts["labels"].tolist()).encode())
            stages = design.stages(self._released_shares(counts["labels"]))
        maker = config.maker(gateway, data.train)
        scoring = config.scoring(gateway, data.train, maker, stages, self.rng)
        self._refusals = [maker.refusals, *([scoring.refusals] if isinstance(scoring, RenderedScoring) else [])]
        self._classes = data.train.classes
        done = store.finished_iterations(run.iterations)
        if not done:
            self.bars.stage("initial")
            population = initial(maker, stages(0), self.rng)
            self._save(0, population, gateway, arrays={})
            done = [0]
        population = store.load_population(run.iterations / f"{done[-1]:03d}")

        def score(number: int, population: Population) -> tuple[Population, np.ndarray]:
            self.bars.stage(f"iteration {number}")
            population, embeddings = scoring.embed(population, iteration=number)
            question = design.histogram.over(embeddings, population.labels, backend=config.performance.neighbours)
            name = histogram_release(run.releases_as, number)
            released = ledger.release(question, voters, name=name, question=question.question)
            self._released(name, ledger)
            return population, barred(released["histogram"], embeddings)

        for iteration in evolve(
            population,
            first=done[-1] + 1,
            last=config.evolution.iterations,
            plan=stages,
            score=score,
            vary=partial(vary, maker),
            rng=self.rng,
            select=partial(self._select, data.train.classes),
            final=config.evolution.final,
        ):
            self._save_iteration(iteration, gateway, data)
            population = iteration.population
        self.bars.stage("pictures")
        first = Population(
            tuple(each for each in store.load_population(run.iterations / "000") if each.fold == SELECTED)
        )
        return (
            config.pictured(population, gateway, data.train, self.rng),
            config.pictured(first, gateway, data.train, self.rng),
            voters,
        )

    def _candidates(self, final: Population, gateway: Gateway, data: Split) -> list[Population]:
        """The sets that were selected in the iterations 1 to T, with their pictures: what a choice is between.

        `final` is the last of them, and the only one where nothing is chosen.
        """
        if self.config.selection.rule == "last":
            return [final]
        self.bars.stage("candidates")
        found: list[Population] = []
        for number in range(1, self.config.evolution.iterations):
            scored = store.load_population(self.run.iterations / f"{number - 1:03d}")
            rows = np.load(self.run.iterations / f"{number:03d}" / "selected.npy", allow_pickle=False)
            found.append(self.config.pictured(chosen(scored, rows, number), gateway, data.train, self.rng))
        return [*found, final]

    def _chosen(self, candidates: Sequence[Population], data: Split, design: Design, ledger: Ledger) -> Population:
        """The one that is released."""
        config = self.config
        if config.selection.rule == "last":
            return candidates[-1]
        self.bars.stage("selection")
        choice = model_selection.choose(
            assess.pictures_of(candidates, data),
            names=[f"iteration {number}" for number in range(1, len(candidates) + 1)],
            data=data,
            settings=config.selection,
            seed=config.seed,
            cost=design.selection,
            ledger=ledger,
            run=self.run,
        )
        return candidates[choice.index]

    def random_selection(self, data: Split, gateway: Gateway) -> Population:
        """The same evolution with random selection instead of votes: what the votes must beat. Reads no private record."""
        config = self.config
        stages = config.stages(data.train.classes, self._shares(data))
        maker = config.maker(gateway, data.train)

        def at_random(number: int) -> Stage:
            stage = stages(number)
            return Stage(
                counts=stage.counts,
                folds=stage.folds,
                degree=stage.degree,
                selection=Uniform(replace=isinstance(stage.selection, Sample)),
                keep_selected=stage.keep_selected,
            )

        def score(number: int, population: Population) -> tuple[Population, np.ndarray]:
            return population, np.zeros(len(population), dtype=np.int64)

        population = store.load_population(self.run.iterations / "000")
        for iteration in evolve(
            population,
            first=1,
            last=config.evolution.iterations,
            plan=at_random,
            score=score,
            vary=partial(vary, maker),
            rng=PublicRng(config.seed + 1),
            final=config.evolution.final,
        ):
            population = iteration.population
        return config.pictured(population, gateway, data.train, self.rng)

    def _shares(self, data: Split) -> np.ndarray:
        declared = self.config.evolution.shares
        if declared == "released":
            counts = json.loads((self.run.release / "label_counts.json").read_text())
            return self._released_shares(np.array(counts, dtype=np.int64))
        if declared == "uniform":
            return shares.uniform(len(data.train.classes))
        return shares.declared(declared, data.train.classes)

    def _released_shares(self, counts: np.ndarray) -> np.ndarray:
        """Shares from the released counts in which no class is left without a candidate."""
        count = self.config.evolution.count
        return shares.with_floor(shares.released(counts), count if isinstance(count, int) else min(count))

    def _select(
        self, classes: tuple[str, ...], stage: Stage, votes: np.ndarray, labels: np.ndarray, at: At
    ) -> np.ndarray:
        """The stage's own selection; a label that its threshold emptied is said, and goes on without it."""
        rows, emptied = select_all_labels(stage.selection, votes, labels, stage.counts, at)
        for each in emptied:
            print(
                f"no candidate of {classes[each.label]!r} is above the threshold {each.threshold:g}; it goes on without one"
            )
        return rows

    # What is saved.

    def _released(self, name: str, ledger: Ledger) -> None:
        """Remember that this ledger holds the release, before anything made of it is saved."""
        self.run.record(ledger_head=ledger.head())
        self.run.journal(Event.RELEASED, name=name)

    def _save(self, number: int, population: Population, gateway: Gateway, *, arrays: Mapping[str, np.ndarray]) -> None:
        failpoint("run-before-save")
        store.save_iteration(
            self.run.iterations / f"{number:03d}", population, with_images=self.config.carries_images, arrays=arrays
        )
        failpoint("run-after-save")
        self._count_requests(f"{number:03d}", gateway)
        self.run.journal(Event.SAVED, iteration=number)

    def _save_iteration(self, iteration: Iteration, gateway: Gateway, data: Split) -> None:
        arrays = {"histogram": iteration.votes, "selected": iteration.rows}
        if not self.config.carries_images:
            arrays |= gallery("winners", iteration.selected)
            if iteration.number == 1:
                first = tuple(each for each in iteration.scored if each.fold == SELECTED)
                arrays |= gallery("first", Population(first))
        self._save(iteration.number, iteration.population, gateway, arrays=arrays)

    def _publish(self, final: Population, classes: tuple[str, ...]) -> None:
        store.save_release(self.run.release, final, classes, pictures=self.config.evolution.pictures)

    def _lineages(self, final: Population, classes: tuple[str, ...], gateway: Gateway, data: Split) -> None:
        """The ancestors of a few final candidates, one of each label first, with their pictures."""
        known = {
            each.id: each
            for number in store.finished_iterations(self.run.iterations)
            for each in store.load_population(self.run.iterations / f"{number:03d}")
        }
        parents = {each.id: each.parent for each in known.values()}
        ancestors = {each.id: [one for one in ancestry(parents, each.id) if one in known] for each in final}
        chosen: list[Candidate] = []
        seen: Counter[int] = Counter()
        for candidate in sorted(final, key=lambda each: -len(ancestors[each.id])):
            if seen[candidate.label] == 0 and len(chosen) < LINEAGES:
                chosen.append(candidate)
                seen[candidate.label] += 1
        lines = [ancestors[candidate.id] for candidate in chosen]
        members = {identity: known[identity] for line in lines for identity in line}
        pictured = {
            each.id: each
            for each in self.config.pictured(Population(tuple(members.values())), gateway, data.train, self.rng)
        }
        store.save_lineages(
            self.run.release,
            [
                (classes[candidate.label], [pictured[each] for each in line])
                for candidate, line in zip(chosen, lines, strict=True)
            ],
        )

    # What was asked.

    def _count_requests(self, part: str, gateway: Gateway) -> None:
        """Keep what was asked since the last call under the part of the run that it belongs to; a part done again counts anew."""
        now = gateway.counts()
        before, self._counted = self._counted, now
        spent = {
            role: {key: value - getattr(before.get(role), key, 0) for key, value in vars(counts).items()}
            for role, counts in now.items()
        }
        refused: dict[str, Mapping[str, int]] = {}
        for each in self._refusals:
            refused.update(each.taken(self._classes))
        self.run.record(
            requests={**self.run.manifest.get("requests", {}), part: spent},
            refusals={**self.run.manifest.get("refusals", {}), part: refused},
            money={"micro_dollars": dict(gateway.spent()), **vars(gateway.money())},
        )

    # What is opened.

    def _gateway(self, ledger: Ledger) -> Gateway:
        config = self.config
        return open_gateway(
            {role: config.adapters[role] for role in config.roles() if role in config.adapters},
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

    def _note_egress(self, ledger: Ledger, gateway: Gateway) -> None:
        for role, identity in gateway.egress().items():
            ledger.note(self.run.id, "egress", {"role": role, **vars(identity)})


def figures(ledger: Ledger, gateway: Gateway) -> str:
    """What is spent so far: of the private set, by all runs of its ledger, and of money, by this run."""
    money = gateway.money()
    epsilon = f"ledger epsilon {ledger.spent().epsilon:.3g}"
    if money.cap is None and not money.spent:
        return epsilon
    of = "" if money.cap is None else f" of {dollars(money.cap)}"
    return f"{epsilon}, {dollars(money.spent)}{of}"


def say_signal(design: Design, stages: Stages) -> None:
    """Signal against noise, from public numbers, before anything is spent."""
    signals = design.signals(stages)
    print(f"noise of scale {design.histogram.scale:.3f} on each of {len(signals)} histograms")
    for advice in dict.fromkeys(each.advice for each in signals):
        print(f"  {advice}")


def gallery(name: str, population: Population) -> dict[str, np.ndarray]:
    """The first pictures of each label, small, as arrays to save: `NAME_x` and `NAME_y`, and the rows `NAME_rows`."""
    seen: Counter[int] = Counter()
    rows: list[int] = []
    for row, candidate in enumerate(population):
        if candidate.image is not None and seen[candidate.label] < GALLERY_OF_A_LABEL:
            rows.append(row)
            seen[candidate.label] += 1
    if not rows:
        return {}
    pixels = np.stack([small(population.candidates[row].image.pixels) for row in rows])  # type: ignore[union-attr]
    return {f"{name}_x": pixels, f"{name}_y": population.labels[rows]}


def small(pixels: np.ndarray) -> np.ndarray:
    """At most `GALLERY_EDGE` on the longer edge, by whole steps."""
    step = max(1, -(-max(pixels.shape[:2]) // GALLERY_EDGE))
    return pixels[::step, ::step]
