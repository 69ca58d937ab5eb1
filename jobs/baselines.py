"""The floor and the ceiling of a comparison, judged like any method.

The floor is what a method makes before any private record had a say: its first candidates. It costs no privacy. The
ceiling is the real training set itself: no method without a loss of privacy reaches it on average, and every figure of it
is unprotected, counted in the ledger, and kept in `private/`.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluation.classifier import FINAL
from .evolution import EvolutionConfig
from .job import JobConfig, canonical

if TYPE_CHECKING:
    from ..adapters.gateway import Gateway
    from ..data.private_set import Split
    from ..evaluation.settings import Settings
    from .run import Run

SHOWN_OF_A_LABEL = 14
"""Public held-out images that a ceiling keeps beside its figures."""


@dataclass(frozen=True, kw_only=True)
class FloorConfig:
    """The first candidates of a Private Evolution, as many as it would release."""

    judged: EvolutionConfig

    kind = "floor"

    @property
    def subject(self) -> str:
        return self.judged.subject

    def resolved(self) -> dict[str, Any]:
        return _resolved(self.kind, self.judged)

    def digest(self) -> str:
        return _digest(self.resolved())

    def run(self, run: Run) -> None:
        from ..pe_engine import shares
        from ..pe_engine.variation import initial
        from ..privacy.randomness import PublicRng
        from . import assess, store

        config, began = self.judged, time.monotonic()
        data = config.split(private_log=run.private_log)
        config.check(data)
        config.check_roles()
        with ExitStack() as opened:
            gateway = opened.enter_context(_gateway(config, run, set(config.roles())))
            _describe(run, config, data, gateway)
            classes, declared = data.train.classes, config.evolution.shares
            share = shares.uniform(len(classes))
            if isinstance(declared, dict):
                share = shares.declared(declared, classes)
            rng = PublicRng(config.seed)
            stage = replace(config.stages(classes, share)(0), folds=0)
            first = initial(config.maker(gateway, data.train), stage, rng)
            first = config.pictured(first, gateway, data.train, rng)
            asked = {role: vars(counts) for role, counts in gateway.counts().items()}
            store.save_release(run.release, first, classes, pictures=False)
            bench = assess.Bench(
                run=run, data=data, settings=config.evaluation, gateway=gateway, role=config.judging_role
            )
            assess.write_scores(run, bench.scores(assess.sets_of(FINAL, first, data)))
            _count(run, gateway, began, asked)


@dataclass(frozen=True, kw_only=True)
class CeilingConfig:
    """The real training set of a job, in the place of what it would release."""

    judged: JobConfig

    kind = "ceiling"

    @property
    def subject(self) -> str:
        return self.judged.subject

    def resolved(self) -> dict[str, Any]:
        """Without what no figure of it depends on."""
        kept = {"data", "adapters", "evaluation", "purpose", "trust"}
        return {"kind": self.kind, **{key: value for key, value in self.judged.resolved().items() if key in kept}}

    def digest(self) -> str:
        return _digest(self.resolved())

    def run(self, run: Run) -> None:
        from . import assess, store
        from .ledgers import check_heads, open_ledger

        config, began = self.judged, time.monotonic()
        data = config.split(private_log=run.private_log)
        with ExitStack() as opened:
            gateway = opened.enter_context(_gateway(config, run, {role_of(config)}))
            _describe(run, config, data, gateway)
            ledger = opened.enter_context(open_ledger(config, data))
            check_heads(config, ledger, run)
            bench = assess.Bench(
                run=run,
                data=data,
                settings=settings_of(config),
                gateway=gateway,
                role=role_of(config),
                shows_voters=True,
                ledger=ledger,
            )
            scores = bench.scores([])
            if data.test_is_public and (real := bench.held_out()) is not None and real.labels is not None:
                rows = np.concatenate(
                    [np.flatnonzero(real.labels == label)[:SHOWN_OF_A_LABEL] for label in np.unique(real.labels)]
                )
                store.save_images(run.release, real.values[rows], real.labels[rows], data.train.classes, pictures=False)
            assess.write_scores(run, scores)
            run.record(ledger_head=ledger.head(), ledger_id=ledger.id)
            _count(run, gateway, began, {})


def settings_of(config: JobConfig) -> Settings:
    """How a job is judged; what has no `[evaluation]` is judged as by default."""
    from ..evaluation.settings import Settings
    from .train import TrainConfig

    return config.evaluation if isinstance(config, EvolutionConfig | TrainConfig) else Settings()


def role_of(config: JobConfig) -> str | None:
    """Whose features a job's images are measured in."""
    if isinstance(config, EvolutionConfig):
        return config.judging_role
    return "judge" if "judge" in config.adapters else None


def _resolved(kind: str, config: JobConfig) -> dict[str, Any]:
    """Epsilon and the ledger's terms change nothing of what no private record has touched."""
    return {**config.resolved(), "kind": kind, "of": config.kind, "privacy": None}


def _digest(resolved: dict[str, Any]) -> str:
    return hashlib.sha256(canonical(resolved).encode()).hexdigest()


def _gateway(config: JobConfig, run: Run, roles: set[str] | set[str | None]) -> Gateway:
    """The judge and, for a floor, who makes candidates; of private records only the held-out ones are embedded."""
    from ..cache.sqlite import SqliteStore
    from .gateways import CACHE_FILE, cache_folder, open_gateway

    adapters = {role: adapter for role, adapter in config.adapters.items() if role in roles}
    return open_gateway(
        adapters,
        budget=config.budget,
        performance=config.performance,
        trust=[role for role in config.trust if role in adapters],
        store=SqliteStore(cache_folder(config.performance) / CACHE_FILE),
        private_dir=run.private / "answers",
        key=secrets.token_bytes(32),
        namespace=run.namespace,
        scope=run.id,
    )


def _describe(run: Run, config: JobConfig, data: Split, gateway: Gateway) -> None:
    identities = {role: vars(identity) for role, identity in gateway.identities().items()}
    run.check_unchanged("model", identities, run.manifest.get("identities"))
    run.record(identities=identities, private_roles=["judge"], test_is_public=data.test_is_public)


def _count(run: Run, gateway: Gateway, began: float, asked: dict[str, dict[str, int]]) -> None:
    """`asked`: to make the images; whatever came after judged them."""
    run.record(
        requests={"000": asked},
        money={"micro_dollars": dict(gateway.spent()), **vars(gateway.money())},
        duration_s=round(run.manifest.get("duration_s", 0.0) + time.monotonic() - began, 1),
    )
