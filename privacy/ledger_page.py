"""What a ledger holds and costs, as figures and as lines: its page, and the part of every certificate that is about it.

The page needs no finished run: what was reserved counts in full, whether anything of it was released or not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .ledger_book import Attempt, Book, Contradiction, Loss
from .ledger_chain import Entry
from .ledger_errors import LedgerDamaged
from .ledger_store import read_entries
from .mechanism import Relation
from .words import counted, left, shown


def page(directory: Path) -> tuple[list[str], str]:
    """Why the ledger in `directory` does not hold, one line a problem, and all that it holds as of now.

    Reads as `verify` does, beside a run that writes. Raises LedgerError where there is no ledger.
    """
    problems, entries, book = _read(directory)
    if book is None:
        return problems, ""
    if not entries:
        return [], _empty(directory)
    problems, terms = above_shares(book, directory), book.terms
    total = "the owner set no total"
    if terms.total is not None:
        total = f"the owner's total is ({shown(terms.total[0])}, {shown(terms.total[1])}) a partition"
    lines = as_of_now(entries, book)
    lines += [
        f"For one {terms.unit} of {counted(terms.slots, 'slot')}, {terms.relation}; a share's delta is at most "
        f"{shown(terms.delta)}; {total}.",
        *(["Benchmark: public data played as private."] if terms.purpose == "benchmark" else []),
    ]
    if len(book.partitions) > 1:
        most = maximum(book)
        lines.append(
            f"A slot that lies in one partition of a run and in another of the next: at most ({shown(most['epsilon'])}, "
            f"{shown(most['delta'])}); replace-one {shown(most['replace_one'])}."
        )
    for partition, often in _figures_shown(book).items():
        lines.append(f"Unprotected figures of partition {partition} were shown {counted(often, 'time')} by now.")
    lines += ["", "Runs so far, each with its share:", *(run_lines(every_run(book)) or ["  none"])]
    lines += ["", "Every event:", *(event_lines(every_release(book)) or ["  none"])]
    if not problems:
        lines += [
            "",
            "The chain holds, and no plan costs more than its share. That the ledger was not rolled back is seen by "
            "comparing it with a run: privolve verify --ledger RUN.",
        ]
    return problems, "\n".join(lines)


def in_a_line(directory: Path) -> tuple[list[str], str]:
    """Why the chain of the ledger in `directory` does not hold, and how much is in it; composes nothing."""
    problems, entries, book = _read(directory)
    if book is None:
        return problems, ""
    if not entries:
        return [], _empty(directory)
    spent, many = book.spent(), counted(len(entries), "entry")
    sums = f"shares of at most ({shown(spent.epsilon)}, {shown(spent.delta)}) a partition"
    return [], f"{directory}: {many}, {counted(len(book.plans), 'run')}, {sums}"


def _read(directory: Path) -> tuple[list[str], list[Entry], Book | None]:
    """Why the chain does not hold, or its entries, read."""
    try:
        entries = read_entries(directory)
        return [], entries, Book(entries)
    except LedgerDamaged as error:
        return [str(error)], [], None
    except Contradiction as error:
        return [f"{directory}: the ledger contradicts itself ({error}). Restore it from a backup."], [], None


def _empty(directory: Path) -> str:
    return f"{directory}: a ledger without an entry: the run that made it stopped at once, or it was emptied"


def _figures_shown(book: Book) -> dict[str, int]:
    """How often unprotected figures of each partition were shown, planned or not."""
    noted = {note.body["partition"] for note in book.notes if note.kind == "disclosed"}
    return {partition: book.figures_shown(partition) for partition in sorted({*book.partitions, *noted})}


# --- figures ----------------------------------------------------------------------------------------------------------


def alone(book: Book, run: str) -> dict[str, Any]:
    """What the run costs a slot, in whichever of its partitions it lies: at its delta, and at others."""
    share, terms, plans = book.plans[run].plan.share, book.terms, book.plans_of(run)
    deltas = sorted({share.delta, 1e-5, 1e-6, 1 / terms.slots**2} - {1.0}, reverse=True)
    table = [
        {
            "delta": delta,
            "epsilon": number(max(book.epsilon(plan, delta) for plan in plans)),
            "replace_one": number(max(book.epsilon(plan, delta, Relation.REPLACE_ONE) for plan in plans)),
        }
        for delta in deltas
    ]
    own = next(row for row in table if row["delta"] == share.delta)
    return {**own, "share": pair(share.epsilon, share.delta), "at": table}


def together(book: Book, partition: str) -> dict[str, Any]:
    """All plans of a partition: one by its events, several by the sums of their shares."""
    runs = book.runs(partition)
    figure: dict[str, Any] = {"partition": partition, "runs": len(runs)}
    if len(runs) == 1:
        its = alone(book, runs[0])
        return {**figure, **{key: its[key] for key in ("epsilon", "delta", "replace_one")}}
    spent = book.spent(partition)
    shares = {run: book.plans[run].plan.share for run in runs}
    return {
        **figure,
        "epsilon": number(math.inf if book.doubles(runs) else spent.epsilon),
        "delta": spent.delta,
        "replace_one": number(
            math.fsum(book.epsilon(run, share.delta, Relation.REPLACE_ONE) for run, share in shares.items())
        ),
    }


def maximum(book: Book) -> dict[str, Any]:
    """The largest over the partitions, also for a slot that lies in one of a run, which may be any, and another in the next."""
    at_most = [together(book, name) for name in book.partitions]
    at_most += [_wherever(book, name) for name in book.partitions]
    return {key: max((figure[key] for figure in at_most), key=float) for key in ("epsilon", "delta", "replace_one")}


def _wherever(book: Book, partition: str) -> dict[str, Any]:
    """As `together`, for a slot that another run may have put elsewhere: of each run, the dearer of its partitions."""
    runs = list(dict.fromkeys(map(book.run_of, book.runs(partition))))
    if len(runs) == 1:
        return alone(book, runs[0])
    spent, plans = book.spent_wherever(partition), [book.plans_of(run) for run in runs]
    replaced = (
        max(book.epsilon(plan, book.plans[plan].plan.share.delta, Relation.REPLACE_ONE) for plan in each)
        for each in plans
    )
    return {
        "epsilon": number(math.inf if book.doubles([plan for each in plans for plan in each]) else spent.epsilon),
        "delta": spent.delta,
        "replace_one": number(math.fsum(replaced)),
    }


def every_run(book: Book) -> list[dict[str, Any]]:
    """Each run's plan of a partition with its share, and whether anything of it was charged or is reserved only."""
    return [
        {
            "run": name,
            "partition": reserved.plan.partition,
            "share": pair(reserved.plan.share.epsilon, reserved.plan.share.delta),
            "releases": len(reserved.plan.releases),
            "charged": book.charged(name),
            "unprotected_figures_before": reserved.figures_before,
        }
        for name, reserved in book.plans.items()
    ]


def every_release(book: Book) -> list[dict[str, Any]]:
    """Every event of every plan: what was planned, how often it is paid, and what its last attempt bound and gave."""
    return [_release(book, run, name.name) for run in book.plans for name in book.plans[run].plan.releases]


def _release(book: Book, run: str, name: str) -> dict[str, Any]:
    from .accounting import cost_to_json

    attempts = book.attempts(name)
    found = book.release_named(name)
    assert found is not None
    last = attempts[-1].body if attempts else {}
    return {
        "name": name,
        "run": run,
        "partition": found[0].partition,
        "cost": cost_to_json(found[1].cost),
        "paid": book.copies(name),
        "attempts": len(attempts),
        **{key: count for key, count in _checkpoints(attempts).items() if count},
        "output": attempts[-1].output if attempts and attempts[-1].outcome == "released" else None,
        **{key: last.get(key) for key in ("mechanism", "question", "noise", "code", "libraries")},
    }


def _checkpoints(attempts: Sequence[Attempt]) -> dict[str, int]:
    """How often a release went on from a checkpoint, and how many checkpoints something was shown of."""
    return {
        "continued": sum(len(attempt.continued) for attempt in attempts),
        "shown": sum(len(attempt.shown) for attempt in attempts),
    }


def sums(loss: Loss) -> dict[str, Any]:
    """The sums of the shares of a partition, and what they leave of the owner's total."""
    return {
        **pair(loss.epsilon, loss.delta),
        "runs": loss.runs,
        "total": None if loss.total is None else pair(*loss.total),
        "left": None if loss.left is None else pair(*loss.left),
    }


def pair(epsilon: float, delta: float) -> dict[str, Any]:
    """The two as JSON."""
    return {"epsilon": number(epsilon), "delta": delta}


def number(value: float) -> float | str:
    """Valid JSON for infinity too, which `float` reads back."""
    return "Infinity" if value == math.inf else float(value)


# --- in words ---------------------------------------------------------------------------------------------------------


def as_of_now(entries: Sequence[Entry], book: Book) -> list[str]:
    """The head, and by partition what may be claimed of everything in the ledger and what is left."""
    lines = [f"Ledger {book.terms.ledger} as of now: {counted(len(entries), 'entry')}, head {entries[-1].hash}."]
    for partition in book.partitions:
        figure = together(book, partition)
        lines.append(
            f"Partition {partition}: everything its {counted(figure['runs'], 'run')} may release together is "
            f"({shown(figure['epsilon'])}, {shown(figure['delta'])})-DP; replace-one {shown(figure['replace_one'])}."
        )
        if (rest := book.spent(partition).left) is not None:
            lines.append(f"Left for further runs: ({left(rest[0])}, {left(rest[1])}).")
    return lines


def run_lines(runs: Iterable[Mapping[str, Any]]) -> list[str]:
    """One a plan of `runs`."""
    lines: list[str] = []
    for run in runs:
        often = counted(run["unprotected_figures_before"], "time")
        after = f", made after unprotected figures of the voting set were shown {often}"
        lines.append(
            f"  {run['run']}: ({shown(run['share']['epsilon'])}, {shown(run['share']['delta'])}) of {run['partition']}, "
            f"{counted(run['releases'], 'release')}{after if run['unprotected_figures_before'] else ''}"
            f"{'' if run['charged'] else ' (reserved, nothing released)'}"
        )
    return lines


def event_lines(releases: Iterable[Mapping[str, Any]]) -> list[str]:
    """One a release of `releases`."""
    lines: list[str] = []
    for release in releases:
        cost = ", ".join(f"{key} {value}" for key, value in sorted(release["cost"].items()) if key != "kind")
        again = f", paid {release['paid']} times" if release["paid"] > 1 else ""
        if release.get("continued"):
            again += f", continued {counted(release['continued'], 'time')} from a checkpoint"
        unfinished = "" if release["output"] else " (no output)"
        lines.append(f"  {release['name']}: {release['cost']['kind']} ({cost}){again}{unfinished}")
    return lines


def above_shares(book: Book, where: object) -> list[str]:
    """The plans that cost more than the share that covers them, one line each."""
    return [f"{where}: the plan of run {run}: {why}" for run in book.plans if (why := book.above_share(run))]
