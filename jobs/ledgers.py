"""The ledger of a job's private set: where it lies, and that it is the one that earlier runs saw."""

from __future__ import annotations

from pathlib import Path

from ..data.private_set import Split
from ..privacy.ledger import Ledger
from ..privacy.ledger_store import FILE
from .job import JobConfig
from .run import Run, heads_seen


def ledger_folder(config: JobConfig) -> Path:
    return Path(config.privacy.ledger) if config.privacy.ledger else Path("ledgers") / config.data.name


def open_ledger(config: JobConfig, data: Split) -> Ledger:
    """The private set's ledger, made at its first run: the delta of that run, if it states one, is the ledger's."""
    privacy, folder = config.privacy, ledger_folder(config)
    total = None
    if privacy.total_epsilon is not None and privacy.total_delta is not None:
        total = (privacy.total_epsilon, privacy.total_delta)
    return Ledger.create_or_open(
        folder,
        name=config.data.name,
        slots=data.registered.count,
        unit=privacy.unit,
        relation=privacy.relation,
        delta=None if (folder / FILE).exists() else privacy.delta,
        total=total,
        purpose=config.purpose,
        records=data.registered.records,
        declare_disjoint=privacy.declare_disjoint,
    )


def check_heads(config: JobConfig, ledger: Ledger, run: Run) -> None:
    """Refuse a ledger that lacks what an earlier run saw in it."""
    for head in heads_seen(ledger_folder(config).resolve(), ledger.id, [run.folder.parent, Path("experiments")]):
        ledger.check_head(head)
