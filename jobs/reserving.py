"""Reserve what a run will release, in a plan of its own; or see that the joint plan of its suite holds it."""

from __future__ import annotations

from collections.abc import Callable

from ..privacy.ledger import Ledger, Plan, PlannedRelease
from ..privacy.mechanism import PrivacyTarget
from .job import InputError
from .run import Event, Run


def reserve(
    ledger: Ledger,
    run: Run,
    *,
    partition: str,
    share: PrivacyTarget,
    releases: tuple[PlannedRelease, ...],
    named: Callable[[str], str] = str,
) -> None:
    """Before anything is released. The names of `releases` begin with `run.releases_as`.

    Formal guarantee: when this returns, a plan in the ledger holds every one of them at its cost. A cell of a joint plan
    adds nothing to the ledger; its `share` is what it would cost alone, and the plan's own share covers all cells by PLD.
    `named`: what the plan of this partition is called after the run; a plan is of one partition.
    """
    if run.planned_by == run.id:
        ledger.reserve(Plan(run=named(run.id), partition=partition, share=share, releases=releases))
    else:
        _check_joint(ledger, run, partition, releases, plan=named(run.planned_by))
    run.record(ledger_head=ledger.head())
    run.journal(Event.PLANNED, releases=len(releases))


def _check_joint(ledger: Ledger, run: Run, partition: str, releases: tuple[PlannedRelease, ...], *, plan: str) -> None:
    for release in releases:
        found = ledger.book.release_named(release.name)
        if found is None or (found[0].run, found[0].partition, found[1].cost) != (
            plan,
            partition,
            release.cost,
        ):
            raise InputError(
                f"{run.folder}: the joint plan {plan} does not hold {release.name!r} at this cost; give the "
                "suite as it was, or begin a new one with another --out"
            )
