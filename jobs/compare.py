"""`privolve compare`: run what a suite still lacks, and put finished runs side by side.

experiments/2026-11-22-suite-digits-3fa9/
  run.json  cells/            a run of its own for each cell
  release/                    tables, curves and grids of protected figures
  private/                    the same with unprotected ones

A cell that fails loses only itself and is tried again by the next call; so are cells that the time limit left. Killed
anywhere, the same command goes on: a cell resumes as any run does, and a finished one is not run again.

Formal guarantee: on private data every release of every cell is in one plan of its private set's ledger before anything is
released; its epsilon is that of all of them by PLD, at most what the owner stated. A changed suite is another suite.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluation.comparison import Comparison
from ..evaluation.report.wording import duration
from ..evaluation.tables import tables
from ..privacy.accounting import epsilon
from ..privacy.failpoint import failpoint
from ..privacy.ledger import BudgetExceeded, Ledger, Plan
from ..privacy.mechanism import PrivacyTarget
from . import model_selection, page, side_by_side
from .baselines import CeilingConfig, FloorConfig
from .errors import exit_code, one_line
from .job import InputError, JobConfig
from .ledgers import check_heads, ledger_folder, open_ledger
from .run import Event, Run, read_manifest
from .start import EXPERIMENTS
from .suite import CELLS, Cell, Suite

DONE, FAILED, LIMIT = 0, 1, 3


def runs(folders: Sequence[Path], *, out: Path | None = None) -> int:
    """Print the tables of finished runs, a suite's folder standing for its cells; with `out` write everything there."""
    found: list[Path] = []
    limits: list[str] = []
    for folder in folders:
        inside = sorted(folder.glob(f"{CELLS}/*/run.json"))
        for each in [path.parent for path in inside] if inside else [folder]:
            if read_manifest(each)["status"] != "finished":
                limits.append(f"{each.name}: not finished; run its job again first")
            elif why := side_by_side.damaged(each):
                limits.append(why)
            else:
                found.append(each)
    if not found:
        raise InputError(limits[0] if limits else f"{folders[0]}: no finished run to compare; run its job again first")
    described = side_by_side.sources(found)
    purposes = {read_manifest(each)["config"].get("purpose", "private") for each in found}
    comparison = Comparison(
        title="Runs side by side",
        purpose="benchmark" if purposes == {"benchmark"} else "private",
        groups=side_by_side.groups(described),
        limits=(*limits, *side_by_side.not_measured(described)),
    )
    _print(comparison)
    if out is not None:
        if out.exists() and any(out.iterdir()) and not (out / "release" / f"{side_by_side.FILE}.json").exists():
            raise InputError(f"{out}: is not empty and holds no comparison; name another --out")
        for path in side_by_side.write(out, comparison):
            print(path)
    return DONE


def suite(described: Suite, *, out: Path | None = None) -> int:
    """Run what is not done yet, then write and print the tables. 1 if a cell failed, 3 if the time limit left some."""
    with Run.open(described, root=EXPERIMENTS, out=out) as run:
        print(f"{'going on with' if run.is_resumed else 'running'} {run.folder}: {len(described.cells)} cells")
        if described.is_joint and not run.is_finished:
            _reserve(described, run)
        ended = _run_cells(described, run)
        comparison = _collected(described, run, ended)
        documents = side_by_side.write(run.folder, comparison)
        failed = [each for each in ended if each.status == "failed"]
        left = [each for each in ended if each.status == "skipped"]
        if not failed and not left and not run.is_finished:
            run.finish()
        _print(comparison)
        print(f"tables       {documents[0]}\nreport       {documents[2]}", *page.hint(), sep="\n")
        print(f"private copy {documents[3]}")
    if failed or left:
        print(f"{len(failed)} cells failed and {len(left)} were left; the same command tries them again")
    return FAILED if failed else LIMIT if left else DONE


# --- the cells --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Ended:
    cell: Cell
    folder: Path
    status: str
    why: str = ""


def _run_cells(described: Suite, run: Run) -> list[_Ended]:
    began, limit = time.monotonic(), described.config.time_limit_s
    ended: list[_Ended] = []
    for number, cell in enumerate(described.cells, 1):
        folder = run.folder / CELLS / cell.name
        title = f"[{number}/{len(described.cells)}] {cell.title}"
        if _is_finished(folder):
            ended.append(_Ended(cell=cell, folder=folder, status="done"))
            continue
        if limit is not None and time.monotonic() - began >= limit:
            why = f"not started within the time limit of {described.config.time_limit}"
            ended.append(_Ended(cell=cell, folder=folder, status="skipped", why=why))
            continue
        lacking = {each.name for each in cell.after} - {each.cell.name for each in ended if each.status == "done"}
        if lacking:
            why = f"waits for its model, of {min(lacking)}"
            ended.append(_Ended(cell=cell, folder=folder, status="skipped", why=why))
            continue
        print(title, flush=True)
        started = time.monotonic()
        why = _run_cell(described, run, cell, folder)
        failpoint("suite-after-cell")
        ended.append(_Ended(cell=cell, folder=folder, status="failed" if why else "done", why=why))
        print(f"{'':6}failed: {why}" if why else f"{'':6}{duration(time.monotonic() - started)}", flush=True)
    run.record(cells={each.cell.name: {"status": each.status, "why": each.why} for each in ended})
    return ended


def _is_finished(folder: Path) -> bool:
    try:
        return (folder / "run.json").exists() and read_manifest(folder)["status"] == "finished"
    except InputError:
        return False  # A damaged manifest is said when its cell is opened.


def _run_cell(described: Suite, run: Run, cell: Cell, folder: Path) -> str:
    """Why it failed, in one line; "" if it is done."""
    is_planned = described.is_joint and isinstance(cell.config, JobConfig)
    said = io.StringIO()
    try:
        folder.parent.mkdir(exist_ok=True)
        releases_as = f"{run.id}/{cell.name}" if is_planned else None
        with Run.open(cell.config, root=folder.parent, out=folder, releases_as=releases_as) as opened:
            try:
                with contextlib.redirect_stdout(said):
                    _placed(cell, run.folder).run(opened)
                opened.finish()
            finally:
                _keep(opened.private / "said.txt", said.getvalue())
    except Exception as error:  # noqa: BLE001  whatever it was, it loses this cell alone
        return one_line(error, exit_code(error))
    return ""


def _placed(cell: Cell, suite: Path) -> JobConfig | FloorConfig | CeilingConfig:
    """The cell's job, which finds the models that it goes on from; where they lie is no part of what it is."""
    return cell.config.located(suite.absolute()) if cell.after and isinstance(cell.config, JobConfig) else cell.config


def _keep(path: Path, text: str) -> None:
    """What the cell would have printed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


# --- the joint plan ---------------------------------------------------------------------------------------------------


def _reserve(described: Suite, run: Run) -> None:
    """One plan a private set with the releases of all its cells, all of them checked before the first is reserved."""
    facts: dict[str, Any] = {}
    with ExitStack() as opened:
        planned: list[tuple[str, JobConfig, Ledger, Plan]] = []
        for label in described.config.data:
            cells = [(cell, cell.config) for cell in described.cells if cell.data == label]
            jobs = [(cell, config) for cell, config in cells if isinstance(config, JobConfig)]
            if not jobs:
                continue
            config = jobs[0][1]
            if len({each.set_aside for _, each in jobs}) > 1:
                raise InputError(
                    f"data.{label}: in a joint plan every method sets the same slots aside for validation; give each the same "
                    "[selection] rule and share"
                )
            data = config.split(private_log=run.private_log)
            ledger = opened.enter_context(open_ledger(config, data))
            check_heads(config, ledger, run)
            of_cell = {
                cell.name: each.planned_releases(data, delta=ledger.delta, prefix=f"{run.id}/{cell.name}")
                for cell, each in jobs
            }
            releases = tuple(release for each in of_cell.values() for release in each)
            privacy = config.privacy
            delta = privacy.delta or ledger.delta
            chosen_by = {
                cell.name: each.planned_selection(data, delta=ledger.delta, prefix=f"{run.id}/{cell.name}")
                for cell, each in jobs
            }
            with_models = {
                cell.name: max(
                    epsilon(
                        [release.cost for each in (*cell.after, cell) for release in releases_of[each.name]],
                        delta,
                        privacy.relation,
                    )
                    for releases_of in (of_cell, chosen_by)
                )
                for cell, _ in jobs
                if cell.after
            }
            needed = epsilon([release.cost for release in releases], delta, privacy.relation)
            chosen = tuple(release for each in chosen_by.values() for release in each)
            if chosen:
                # The slots that validate may lose no more than those that vote; so the share covers both.
                needed = max(needed, epsilon([release.cost for release in chosen], delta, privacy.relation))
            stated = described.config.privacy.joint_epsilon
            if stated is None or needed > stated:
                raise BudgetExceeded(
                    f"privacy.joint_epsilon: the {len(jobs)} cells on {label!r} cost epsilon {needed:.4g} together at delta "
                    f"{delta:.3g}, more than the {stated:g} stated; raise it, or take fewer cells"
                )
            share = PrivacyTarget(epsilon=needed, delta=delta, unit=privacy.unit, relation=privacy.relation)
            plan = Plan(run=run.id, partition=data.train.partition, share=share, releases=releases)
            planned.append((label, config, ledger, plan))
            if chosen:
                validation = Plan(
                    run=model_selection.plan_run(run.id),
                    partition=model_selection.PARTITION,
                    share=share,
                    releases=chosen,
                )
                planned.append((label, config, ledger, validation))
            facts[label] = {
                "epsilon": needed,
                "delta": delta,
                "releases": len(releases),
                "cells": len(jobs),
                "with_models": with_models,
            }
        for label, config, ledger, plan in planned:
            is_new = plan.run not in ledger.book.plans
            ledger.reserve(plan)
            run.record(
                ledger=str(ledger_folder(config).resolve()), ledger_id=ledger.id, ledger_head=ledger.head(), joint=facts
            )
            if is_new:
                run.journal(Event.PLANNED, releases=len(plan.releases))
            print(
                f"joint plan on {label}, {plan.partition}: {len(plan.releases)} releases of {facts[label]['cells']} cells, "
                f"epsilon {plan.share.epsilon:.4g} at delta {plan.share.delta:.3g}"
            )


# --- the tables -------------------------------------------------------------------------------------------------------


def _collected(described: Suite, run: Run, ended: Sequence[_Ended]) -> Comparison:
    kinds, joint = {"floor": "floor", "ceiling": "ceiling"}, run.manifest.get("joint", {})
    found = [
        side_by_side.Source(
            folder=each.folder,
            method=each.cell.method,
            set=each.cell.data,
            kind=kinds.get(each.cell.config.kind, "method"),  # type: ignore[arg-type]
            epsilon=joint.get(each.cell.data, {}).get("with_models", {}).get(each.cell.name),
        )
        for each in ended
        if each.status == "done"
    ]
    return Comparison(
        title=f"{described.config.name}: methods side by side",
        purpose=described.config.purpose,
        groups=side_by_side.groups(found),
        limits=(
            *(f"{each.cell.title}: {each.why}" for each in ended if each.status != "done"),
            *side_by_side.not_measured(found),
        ),
        facts={"suite": run.id, "commit": run.manifest.get("commit", "")},
    )


def _print(comparison: Comparison) -> None:
    """The tables that may be seen: of public data all, of private data what may leave."""
    shown = comparison if comparison.purpose == "benchmark" else comparison.public()
    if comparison.purpose == "private":
        print("figures on records that are not public lie in the private copy alone")
    for group in shown.groups:
        print()
        if group.claim:
            print(f"{group.claim}\n")
        for table in tables(group)[:1]:
            print(table.markdown())
    for line in comparison.limits:
        print(f"not in these tables: {line}")
