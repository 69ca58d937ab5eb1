"""Finished runs as a comparison: what each scored and cost, grouped by the private set and its split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ..evaluation.comparison import Cell, Comparison, Group, Kind, Samples
from ..evaluation.drawings import png, svg
from ..evaluation.harness import CEILING, FINAL, RANDOM
from ..evaluation.metric import MetricError, Score
from ..evaluation.tables import as_csv, latex, markdown
from ..privacy import durable
from ..privacy.words import counted
from . import page
from .job import canonical
from .run import read_manifest

PATHS = ("path", "test_path")
"""Of a `[data]` table: a set may move."""
FILE = "comparison"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A finished run with what it is called in the tables; `kind` of a suite's floors and ceilings.

    `epsilon` of a run that goes on from models that were trained on the same set: with their training, and by PLD.
    """

    folder: Path
    method: str
    set: str
    kind: Kind = "method"
    epsilon: float | None = None


def sources(folders: Sequence[Path]) -> list[Source]:
    """Runs under the names of their kinds; two kinds of settings under one name are told apart by their folders."""
    found: list[tuple[Path, dict[str, Any], str, str]] = []
    for folder in folders:
        manifest = read_manifest(folder)
        config = manifest["config"]
        found.append((folder, manifest, _called(manifest), _settings(config)))
    firsts: dict[tuple[str, str], str] = {}
    for folder, _, name, settings in found:
        firsts.setdefault((name, settings), folder.name)
    several = {name for name, _ in firsts if sum(other == name for other, _ in firsts) > 1}
    return [
        Source(
            folder=folder,
            method=f"{name} ({firsts[name, settings]})" if name in several else name,
            set=manifest["config"]["data"]["name"],
            kind=name if name in ("floor", "ceiling") else "method",
        )
        for folder, manifest, name, settings in found
    ]


def damaged(folder: Path) -> str:
    """Why a finished run cannot be put beside others, in one line; "" if it can."""
    try:
        _scores(folder)
        _samples(folder)
        _certificate(folder)
    except (OSError, ValueError, KeyError, TypeError, MetricError, BadZipFile) as error:
        return f"{folder.name}: a file of it is damaged ({type(error).__name__}); restore it, or run its job again"
    return ""


def groups(found: Iterable[Source]) -> tuple[Group, ...]:
    """One a set and split. Figures of different networks or splits never share a column; see `Score.column`."""
    kept: dict[tuple[str, str], list[tuple[Source, dict[str, Any]]]] = {}
    for source in found:
        manifest = read_manifest(source.folder)
        kept.setdefault((source.set, _split(manifest["config"]["data"])), []).append((source, manifest))
    sets = [name for name, _ in kept]
    return tuple(
        _group(name if sets.count(name) == 1 else f"{name}, split {split[:6]}", name, members)
        for (name, split), members in kept.items()
    )


def not_measured(found: Iterable[Source]) -> list[str]:
    """What a run could not measure, a line each: of what may be said of it."""
    return [
        f"{source.folder.name}: not measured: {line}"
        for source in found
        for line in read_manifest(source.folder).get("not_measured", ())
    ]


def write(folder: Path, comparison: Comparison) -> list[Path]:
    """What may leave into `release/`, all of it into `private/`; returns the two documents and the two pages."""
    documents: list[Path] = []
    for name, content, mode in (("release", comparison.public(), 0o755), ("private", comparison, 0o700)):
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        target.chmod(mode)
        documents.append(_write(target, content))
    return [*documents, *page.write_comparison(folder, comparison)]


def _write(target: Path, comparison: Comparison) -> Path:
    plots, grids = _drawn(target, comparison)
    texts = {
        "md": markdown(comparison, plots=plots, grids=grids),
        "csv": as_csv(comparison),
        "tex": latex(comparison),
        "json": json.dumps(comparison.to_json(), indent=1, ensure_ascii=False, default=_plain) + "\n",
    }
    for ending, text in texts.items():
        durable.write_bytes(target / f"{FILE}.{ending}", text.encode())
    return target / f"{FILE}.md"


def _drawn(target: Path, comparison: Comparison) -> tuple[list[str], list[str]]:
    """The paths of the plots and of the grids, from `target`."""
    plots: list[str] = []
    grids: list[str] = []
    for group in comparison.groups:
        for number, curve in enumerate(group.curves(), 1):
            drawn = svg(curve)
            if drawn is not None:
                plots.append(f"{_file_name(group.title)}-{number}.svg")
                durable.write_bytes(target / plots[-1], drawn.encode())
        grid = group.grid()
        if grid is not None:
            grids.append(f"{_file_name(group.title)}-images.png")
            durable.write_bytes(target / grids[-1], png(grid))
    return plots, grids


# --- one run ----------------------------------------------------------------------------------------------------------


def _group(title: str, name: str, members: Sequence[tuple[Source, dict[str, Any]]]) -> Group:
    manifest = members[0][1]
    data = manifest["config"]["data"]
    has = {source.kind for source, _ in members}
    cells: list[Cell] = []
    for source, each in members:
        for cell in _cells(source, each):
            if cell.kind != source.kind and cell.kind in has:
                continue  # The suite has a cell of its own for it.
            if cell.kind == "ceiling" and source.kind != "ceiling" and any(one.kind == "ceiling" for one in cells):
                continue  # The same real images again.
            cells.append(cell)
    public = "public" if manifest.get("test_is_public") else "private"
    return Group(
        title=title,
        description=f"{name}: {len(data['classes'])} classes; the held-out part is {public}.",
        classes=tuple(data["classes"]),
        names=tuple({name, data["name"], data["kind"]}),
        cells=tuple(cells),
        claim=_claim(members),
    )


def _cells(source: Source, manifest: Mapping[str, Any]) -> list[Cell]:
    """The run's own cell, then what it measured beside it: its initial population, random selection, the ceiling."""
    found = _scores(source.folder)
    config = manifest["config"]
    privacy = config.get("privacy") or {}
    own = CEILING if source.kind == "ceiling" else FINAL
    requests, private = manifest.get("requests", {}), set(manifest.get("private_roles", ()))
    money: Mapping[str, int] = manifest.get("money", {}).get("micro_dollars", {})
    cell = Cell(
        name=source.folder.name,
        method=source.method,
        kind=source.kind,
        epsilon=source.epsilon or privacy.get("epsilon") if source.kind == "method" else None,
        delta=_delta(source.folder, privacy),
        seed=int(config.get("seed", 0)),
        scores=tuple(each for each in found if each.subject == own),
        calls=_calls(requests) or None,
        micro_dollars=sum(each for role, each in money.items() if role not in private),
        all_micro_dollars=sum(money.values()),
        seconds=manifest.get("duration_s"),
        folder=source.folder.name,
        samples=_samples(source.folder),
    )
    beside: list[Cell] = []
    for subject in dict.fromkeys(each.subject for each in found):
        scores = tuple(each for each in found if each.subject == subject)
        if subject in (own, "held-out records"):
            continue
        kind: Kind = "ceiling" if subject == CEILING else "floor"
        name = subject if kind == "ceiling" else f"{source.method}: {subject}"
        extra = Cell(
            name=f"{source.folder.name}: {subject}",
            method=name,
            kind="floor" if kind == "floor" else "ceiling",
            epsilon=None,
            delta=None,
            seed=cell.seed,
            scores=scores,
            folder=source.folder.name,
        )
        # Random selection is a control of its own, which no floor replaces.
        beside.append(replace(extra, kind="method") if subject == RANDOM and source.kind == "method" else extra)
    return [cell, *beside]


def _scores(folder: Path) -> list[Score]:
    """All of them, or of an exported run those that left."""
    for part in ("private", "release"):
        path = folder / part / "scores.json"
        if path.exists():
            return [Score.from_json(each) for each in json.loads(path.read_text(encoding="utf-8"))]
    return []


def _calls(requests: Mapping[str, Mapping[str, Mapping[str, int]]]) -> int:
    """How often models were asked by the method, slots of private records counted; not by its evaluation."""
    return sum(counts["asked"] for part, roles in requests.items() if part != "evaluation" for counts in roles.values())


def _samples(folder: Path) -> Samples | None:
    path = folder / "release" / "samples.npz"
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return Samples(pixels=arrays["x"], labels=arrays["y"])


def _certificate(folder: Path) -> dict[str, Any] | None:
    path = folder / "release" / "privacy.json"
    return json.loads(path.read_bytes()) if path.exists() else None


def _delta(folder: Path, privacy: Mapping[str, Any]) -> float | None:
    certificate = _certificate(folder)
    return privacy.get("delta") if certificate is None else float(certificate["this_run"]["delta"])


def _claim(members: Sequence[tuple[Source, dict[str, Any]]]) -> str:
    """What may be claimed of all runs on one ledger together, from the certificate that saw the most of it."""
    known = [certificate for source, _ in members if (certificate := _certificate(source.folder)) is not None]
    if not known:
        return ""
    last = max(known, key=lambda each: each["ledger"]["entries"])
    planned, largest, unit = len(last["runs"]), last["maximum"], last["unit"]
    figures = f"({float(largest['epsilon']):.4g}, {float(largest['delta']):.3g})"
    if last["purpose"] == "benchmark":
        plans = "the one plan of the ledger"
        if planned > 1:
            plans = f"all {planned} plans of the ledger together"
        return (
            "Public data played as private: an epsilon is what its run would have if it were the only release; "
            f"{plans} would come to {figures} for one {unit}."
        )
    models = ", with the training of its model" if any(source.epsilon for source, _ in members) else ""
    plans = counted(planned, "plan")
    return (
        f"Everything released from this set together ({plans}) is {figures}-DP for one {unit}; an epsilon in a row is "
        f"what that run would cost alone{models}."
    )


def _split(data: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in data.items() if key not in PATHS and value is not None}
    return hashlib.sha256(canonical(kept).encode()).hexdigest()


def _called(manifest: Mapping[str, Any]) -> str:
    """A job by its kind, a training by its method, an evaluation by the name of what was judged."""
    config = manifest["config"]
    return config.get("called") or (config.get("trainer") or {}).get("kind") or manifest["kind"]


def _settings(config: Mapping[str, Any]) -> str:
    """What tells two methods of one kind apart: not the set, the seed or the epsilon."""
    kept = {
        key: value for key, value in config.items() if key not in ("data", "seed", "privacy", "evaluation", "purpose")
    }
    return hashlib.sha256(canonical(kept).encode()).hexdigest()


def _file_name(text: str) -> str:
    return "".join(character if character.isalnum() or character in "-." else "-" for character in text)[:80]


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON")
