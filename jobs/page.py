"""The report pages of a run, made from its folder: the public copy in `release/`, the full one in `private/`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.metric import SHARE, Score
from ..evaluation.report.content import (
    Ancestor,
    Claim,
    Curve,
    Gallery,
    Lineage,
    ModelUse,
    Picture,
    ReportData,
    RunFacts,
    Series,
    SignalRow,
)
from ..evaluation.report.page import render
from ..pe_engine.population import SELECTED, Population
from ..privacy import durable
from . import store
from .job import InputError
from .run import read_manifest


def rewrite(folder: Path) -> list[Path]:
    """Make the pages of a finished run again; return where they lie."""
    if read_manifest(folder).get("status") != "finished":
        raise InputError(f"{folder}: is not finished; run its job again first")
    return write(folder)


def write(folder: Path) -> list[Path]:
    """Write both pages of a certified run."""
    data = content(folder)
    pages = [(folder / "release" / "report.html", True, 0o644), (folder / "private" / "report.html", False, 0o600)]
    for path, public_only, mode in pages:
        durable.write_bytes(path, render(data, public_only=public_only).encode(), mode=mode)
    return [path for path, _, _ in pages]


def scores(folder: Path, *, private: bool) -> list[Score]:
    """The scores of a run: the protected ones, or all."""
    path = folder / ("private" if private else "release") / "scores.json"
    return [Score.from_json(each) for each in json.loads(path.read_text(encoding="utf-8"))]


def content(folder: Path) -> ReportData:
    """All that the pages say; what is unprotected is marked so."""
    manifest = read_manifest(folder)
    certificate = json.loads((folder / "release" / "privacy.json").read_text(encoding="utf-8"))
    config = manifest["config"]
    classes = _classes(folder)
    return ReportData(
        title=f"{config['data']['name']}, synthetic",
        subtitle=_subtitle(manifest, certificate, len(classes)),
        claim=Claim(
            text=certificate["claim"],
            epsilon=float(certificate["epsilon"]),
            delta=certificate["delta"],
            replace_one=float(certificate["replace_one"]["epsilon"]),
            unit=certificate["unit"],
            assumptions=tuple(certificate["assumptions"]),
            note="Public data played as private." if certificate["purpose"] == "benchmark" else "",
        ),
        galleries=tuple(_galleries(folder, classes)),
        curves=tuple(_curves(folder)),
        signal=tuple(
            SignalRow(
                name=f"Histogram {number}",
                expected_votes=each["expected_votes"],
                noise_scale=each["scale"],
                noise_share=each["noise_share"],
                advice=each["advice"],
            )
            for number, each in enumerate(manifest["signals"], 1)
        ),
        lineages=tuple(_lineages(folder)),
        models=tuple(_models(manifest)),
        scores=tuple(scores(folder, private=True)),
        facts=RunFacts(
            run=manifest["id"],
            date=manifest["started"][:10],
            commit=manifest["commit"],
            versions=manifest["versions"],
            duration_s=manifest.get("duration_s"),
        ),
        verify=f"privolve verify {folder.name}",
    )


def _classes(folder: Path) -> list[str]:
    manifest = read_manifest(folder)
    return list(manifest["config"]["data"]["classes"])


def _subtitle(manifest: Mapping[str, Any], certificate: Mapping[str, Any], classes: int) -> str:
    settings = manifest["config"]["evolution"]
    kinds = {"dpiti": "captions, painted", "image-pe": "images"}
    return (
        f"Private Evolution on {kinds[manifest['kind']]}: {certificate['slots']:,} private {certificate['unit']}s of "
        f"{classes} classes voted {settings['iterations']} times"
    )


def _galleries(folder: Path, classes: Sequence[str]) -> Iterable[Gallery]:
    """The first candidates, the winners of each iteration, and in the end what is released."""
    numbers = store.finished_iterations(folder / "iterations")
    samples = folder / "release" / "samples.npz"
    for number in numbers:
        if number == numbers[-1] and samples.exists():
            with np.load(samples, allow_pickle=False) as released:
                images, labels = released["x"], released["y"]
            yield Gallery.of(f"{_when(number)}, released", classes=classes, labels=labels, images=images)
            continue
        iteration = folder / "iterations" / f"{number:03d}"
        if (iteration / "images.npz").exists():
            population = store.load_population(iteration)
            kept = Population(tuple(each for each in population if each.fold == SELECTED))
            shown = kept if len(kept) else population
            images = [each.image.pixels for each in shown if each.image is not None]
            yield Gallery.of(_when(number), classes=classes, labels=shown.labels, images=images)
            continue
        if (iteration / "first_x.npy").exists():
            yield _saved("first", _when(0), iteration, classes)
        if (iteration / "winners_x.npy").exists():
            yield _saved("winners", _when(number), iteration, classes)


def _saved(name: str, title: str, iteration: Path, classes: Sequence[str]) -> Gallery:
    pixels = np.load(iteration / f"{name}_x.npy", allow_pickle=False)
    labels = np.load(iteration / f"{name}_y.npy", allow_pickle=False)
    return Gallery.of(title, classes=classes, labels=labels, images=pixels)


def _when(number: int) -> str:
    return f"Iteration {number}" if number else "Initial"


def _curves(folder: Path) -> Iterable[Curve]:
    """From released values alone: how the noisy votes concentrate, iteration by iteration."""
    numbers = [number for number in store.finished_iterations(folder / "iterations") if number]
    winners: list[float] = []
    everybody: list[float] = []
    for number in numbers:
        iteration = folder / "iterations" / f"{number:03d}"
        votes = np.load(iteration / "histogram.npy", allow_pickle=False)
        rows = np.load(iteration / "selected.npy", allow_pickle=False)
        finite = votes[votes > np.iinfo(np.int64).min]
        winners.append(float(np.mean(votes[rows])))
        everybody.append(float(np.mean(finite)))
    if len(numbers) > 1:
        yield Curve(
            title="Noisy votes of a candidate",
            x_label="iteration",
            y_label="votes",
            protected=True,
            description="Mean over the winners and over all candidates, from the released histograms.",
            series=(
                Series(name="winners", x=numbers, y=winners),
                Series(name="all candidates", x=numbers, y=everybody),
            ),
        )


def _lineages(folder: Path) -> Iterable[Lineage]:
    with np.load(folder / "release" / "lineages.npz", allow_pickle=False) as pictures:
        for number, line in enumerate((folder / "release" / "lineages.jsonl").read_text(encoding="utf-8").splitlines()):
            lineage = json.loads(line)
            steps = []
            for step, each in enumerate(lineage["steps"]):
                name = f"{number}-{step}"
                picture = Picture(pixels=pictures.get(name), caption=each["caption"])
                steps.append(Ancestor(when=_when(each["born"]), picture=picture))
            yield Lineage(label=lineage["label"], steps=tuple(steps))


def _models(manifest: Mapping[str, Any]) -> Iterable[ModelUse]:
    totals: dict[str, dict[str, int]] = {}
    for part in manifest.get("requests", {}).values():
        for role, counts in part.items():
            total = totals.setdefault(role, dict.fromkeys(counts, 0))
            for key, value in counts.items():
                total[key] += value
    trusted = {each["role"] for each in manifest.get("egress", [])}
    for role, identity in manifest["identities"].items():
        counts = totals.get(role, {})
        yield ModelUse(
            role=role,
            kind=manifest["config"]["adapters"][role]["kind"],
            model=" ".join(part for part in (identity["model"], identity["revision"]) if part),
            location="remote, trusted" if role in trusted else manifest["locations"][role],
            saw_private=role in manifest["private_roles"],
            asked=counts.get("asked", 0),
            from_cache=counts.get("from_cache"),
            sent=counts.get("sent"),
            refused=counts.get("refused"),
        )


def accuracy_lines(folder: Path, *, private: bool) -> list[str]:
    """The classifier's accuracies, one line each, for the terminal; unprotected ones, if wanted, say so."""
    lines = []
    for score in scores(folder, private=private):
        if score.unit == SHARE and score.name == "classifier accuracy":
            mark = "" if score.protected else "  (unprotected: not for publication)"
            lines.append(f"  {score.value:6.1%}  {score.subject}{mark}")
    return lines
