"""The report pages of a run, made from its folder: the public copy in `release/`, the full one in `private/`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.comparison import Comparison
from ..evaluation.metric import SHARE, Score
from ..evaluation.report import comparison_page, interactive, saved, wording
from ..evaluation.report.content import (
    Ancestor,
    Claim,
    Curve,
    Gallery,
    Lineage,
    ModelUse,
    Picture,
    Release,
    ReportData,
    RunFacts,
    Series,
    SignalRow,
)
from ..evaluation.report.page import render
from ..pe_engine.population import SELECTED, Population
from ..privacy import arrays, durable, statement
from ..privacy.accounting import cost_from_json, epsilon
from ..privacy.mechanism import Cost, DiscreteGaussian, PureEpsilon, Relation, SampledGaussian, ZeroConcentrated
from . import model_selection, store
from .job import InputError
from .run import read_manifest

TRAINING = "training"
"""The release that is the trained weights."""
TRAINING_FACTS = {
    "expected_batch": "Records in a step, on average",
    "clip": "Clipping",
    "clip_norm": "Clipping norm C",
    "multiplicity": "Noise draws a record, K",
    "augmentation": "Augmentation",
    "optimizer": "Optimizer",
    "learning_rate": "Learning rate",
    "schedule": "Schedule",
    "ema": "Averaging of weights",
    "parametrisation": "Parametrisation",
    "network": "Network",
}
"""Settings of `[trainer]` and what a page calls them."""


COMPARISON = "comparison"
"""The name of everything that a comparison writes; its pages are beside its tables."""


def rewrite(folder: Path) -> list[Path]:
    """Make the pages of a finished run, or of a comparison, again; return where they lie."""
    if any((folder / part / f"{COMPARISON}.json").exists() for part in ("release", "private")):
        return write_comparison(folder)
    manifest = read_manifest(folder)
    if manifest.get("status") != "finished":
        raise InputError(f"{folder}: is not finished; run its job again first")
    if not (folder / "release" / "privacy.json").exists():
        raise InputError(
            f"{folder}: has no certificate, and so no page of its own; `privolve compare` puts it beside others"
        )
    return write(folder)


def write(folder: Path) -> list[Path]:
    """Write both pages of a certified run."""
    data, library = content(folder), interactive.library()
    pages = [(folder / "release" / "report.html", True, 0o644), (folder / "private" / "report.html", False, 0o600)]
    for path, public_only, mode in pages:
        durable.write_bytes(path, render(data, public_only=public_only, library=library).encode(), mode=mode)
    return [path for path, _, _ in pages]


def write_comparison(folder: Path, comparison: Comparison | None = None) -> list[Path]:
    """Write the pages of a comparison whose tables lie in `folder`: the public one, and where there are private tables
    the full one. Without `comparison` both are made again of what was written then.
    """
    pages: list[Path] = []
    library = interactive.library()
    for part, public_only, mode in (("release", True, 0o644), ("private", False, 0o600)):
        target = folder / part
        kept = target / f"{COMPARISON}.npz"
        if comparison is not None:
            shown = comparison.public() if public_only else comparison
            durable.write_bytes(kept, arrays.npz(saved.pictures(shown), compressed=True), mode=mode)
        elif (target / f"{COMPARISON}.json").exists():
            shown = _read(target, kept)
        else:
            continue
        page = comparison_page.render(
            shown, public_only=public_only, library=library, again=f"privolve report {folder.name}"
        )
        pages.append(target / f"{COMPARISON}.html")
        durable.write_bytes(pages[-1], page.encode(), mode=mode)
    return pages


def _read(target: Path, kept: Path) -> Comparison:
    try:
        document = json.loads((target / f"{COMPARISON}.json").read_text(encoding="utf-8"))
        pictures: dict[str, np.ndarray] = {}
        if kept.exists():
            with np.load(kept, allow_pickle=False) as found:
                pictures = dict(found)
        return saved.comparison(document, pictures)
    except (OSError, ValueError) as error:
        raise InputError(f"{target}: {error}") from None


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
        subtitle=_subtitle(manifest, certificate, len(classes)) + _selected(folder),
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
        releases=tuple(_releases(manifest, certificate)),
        training=_training(manifest, certificate),
        signal=tuple(
            SignalRow(
                name=f"Histogram {number}",
                expected_votes=each["expected_votes"],
                noise_scale=each["scale"],
                noise_share=each["noise_share"],
                advice=each["advice"],
            )
            for number, each in enumerate(manifest.get("signals", ()), 1)
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
    if manifest["kind"] == "train":
        return (
            f"{manifest['config']['trainer']['kind']}, trained with DP-SGD on {certificate['slots']:,} private "
            f"{certificate['unit']}s of {classes} classes"
        )
    settings = manifest["config"]["evolution"]
    kinds = {"dpiti": "captions, painted", "image-pe": "images"}
    return (
        f"Private Evolution on {kinds[manifest['kind']]}: {certificate['slots']:,} private {certificate['unit']}s of "
        f"{classes} classes voted {settings['iterations']} times"
    )


def _selected(folder: Path) -> str:
    """Which of several sets was released, and by which rule; "" where nothing was chosen."""
    made = model_selection.read(folder)
    if made is None:
        return ""
    return f"; released is {made.name}, one of {made.among}, by {made.rule}"


def _releases(manifest: Mapping[str, Any], certificate: Mapping[str, Any]) -> Iterable[Release]:
    """This run's own, with the epsilon that each would have alone at the run's delta."""
    delta, relation = float(certificate["this_run"]["delta"]), Relation(certificate["relation"])
    known: dict[Cost, float] = {}
    for each in _own_releases(manifest, certificate):
        cost = cost_from_json(each["cost"])
        if cost not in known:
            known[cost] = epsilon([cost], delta, relation)
        name = each["name"].removeprefix(f"{_prefix(manifest)}/")
        name = model_selection.SELECTION if each["partition"] == model_selection.PARTITION else name
        yield Release(
            name=_named(name),
            kind="training" if name == TRAINING else "query",
            noise=_noise(cost),
            alone=known[cost],
            paid=each["paid"],
        )


def _own_releases(manifest: Mapping[str, Any], certificate: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    prefix, chosen = f"{_prefix(manifest)}/", model_selection.release_name(_prefix(manifest))
    return [each for each in certificate["releases"] if each["name"].startswith(prefix) or each["name"] == chosen]


def _prefix(manifest: Mapping[str, Any]) -> str:
    return manifest.get("releases_as", manifest["id"])


def _named(name: str) -> str:
    """
    >>> _named("histogram/001"), _named("1-central-images"), _named("training")
    ('Histogram 1', 'Central images', 'Training')
    """
    words = re.sub(r"^\d+-", "", name).replace("/", " ").replace("-", " ").split()
    return " ".join(word.lstrip("0") if word.isdigit() else word for word in words).capitalize()


def _noise(cost: Cost) -> str:
    match cost:
        case DiscreteGaussian():
            return f"exact discrete Gaussian of scale {wording.figure(cost.scale)} on each count"
        case SampledGaussian(steps=1, probability=1.0):
            return f"Gaussian, noise multiplier {wording.figure(cost.noise_multiplier)}"
        case SampledGaussian():
            return (
                f"{cost.steps:,} steps, each over a random {wording.percent(cost.probability)} of the slots, Gaussian, "
                f"noise multiplier {wording.figure(cost.noise_multiplier)}"
            )
        case PureEpsilon():
            return "noisy maximum"
        case ZeroConcentrated():
            return f"Gaussian, rho {wording.figure(cost.rho)}"


def _training(manifest: Mapping[str, Any], certificate: Mapping[str, Any]) -> dict[str, str]:
    """What a reader asks of a training, from its public settings; empty for other jobs."""
    trainer: Mapping[str, Any] = manifest["config"].get("trainer") or {}
    if not trainer:
        return {}
    facts = {"Method": f"{trainer['kind']}, profile {trainer['profile']}" if "profile" in trainer else trainer["kind"]}
    for each in _own_releases(manifest, certificate):
        cost = cost_from_json(each["cost"])
        if isinstance(cost, SampledGaussian) and each["name"].endswith(f"/{TRAINING}"):
            facts |= {
                "Steps": f"{cost.steps:,}",
                "Sampling rate": wording.percent(cost.probability),
                "Noise multiplier": wording.figure(cost.noise_multiplier),
            }
    for key, name in TRAINING_FACTS.items():
        value = trainer.get(key)
        if value is not None:
            facts[name] = wording.figure(value) if isinstance(value, int | float) else str(value)
    public = manifest["config"].get("public")
    return facts | {"Public images": "none" if public is None else str(public.get("name", public["kind"]))}


def _galleries(folder: Path, classes: Sequence[str]) -> Iterable[Gallery]:
    """The first candidates, the winners of each iteration, and in the end what is released."""
    numbers = store.finished_iterations(folder / "iterations")
    samples = folder / "release" / "samples.npz"
    for pictures in sorted((folder / "release" / "pictures").glob("*.npz")):
        yield _loaded(pictures, pictures.stem.partition("-")[2].replace("-", " ").capitalize(), classes)
    for preview in sorted((folder / "iterations").glob("*/preview.npz")):
        with np.load(preview, allow_pickle=False) as drawn:
            title = f"After {int(drawn['step']):,} steps"
            yield Gallery.of(title, classes=classes, labels=drawn["y"], images=drawn["x"])
    if not numbers and samples.exists():
        yield _loaded(samples, "Released", classes)
    made = model_selection.read(folder)
    released = numbers[-1] if made is None and numbers else made.place if made is not None else None
    for number in numbers:
        if number == released and samples.exists():
            yield _loaded(samples, f"{_when(number)}, released", classes)
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


def _loaded(path: Path, title: str, classes: Sequence[str]) -> Gallery:
    with np.load(path, allow_pickle=False) as released:
        return Gallery.of(title, classes=classes, labels=released["y"], images=released["x"])


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
    if not (folder / "release" / "lineages.npz").exists():
        return
    with np.load(folder / "release" / "lineages.npz", allow_pickle=False) as pictures:
        for number, line in enumerate((folder / "release" / "lineages.jsonl").read_text(encoding="utf-8").splitlines()):
            lineage = json.loads(line)
            steps = []
            for step, each in enumerate(lineage["steps"]):
                name = f"{number}-{step}"
                picture = Picture(pixels=pictures.get(name), caption=each["caption"])
                when = "First variations" if step and not each["born"] else _when(each["born"])
                steps.append(Ancestor(when=when, picture=picture))
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
        if role not in manifest["locations"]:
            continue  # A public set is named on the certificate and asked nothing.
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


def closing(folder: Path, *, private: bool) -> str:
    """What a finished run says in the end: its claim, its figures, and where things lie."""
    lines = [statement.summary(folder), ""]
    figures = accuracy_lines(folder, private=private)
    if figures:
        lines += ["accuracy on held-out real images of a classifier trained on", *figures, ""]
    return "\n".join(
        [
            *lines,
            f"report       {folder / 'release' / 'report.html'}",
            *hint(),
            f"private copy {folder / 'private' / 'report.html'}",
            f"ghosts       {folder / 'private' / 'log.txt'} names records that could not be used, if there were any",
            f"check it     privolve verify {folder}",
        ]
    )


def hint() -> list[str]:
    """One line on how to get interactive plots, where pages are static."""
    return [] if interactive.is_installed() else [f"             {interactive.HINT}"]


def accuracy_lines(folder: Path, *, private: bool) -> list[str]:
    """The classifier's accuracies, one line each, for the terminal; unprotected ones, if wanted, say so."""
    lines = []
    for score in scores(folder, private=private):
        if score.unit == SHARE and score.name == "classifier accuracy":
            mark = "" if score.protected else "  (unprotected: not for publication)"
            lines.append(f"  {score.value:6.1%}  {score.subject}{mark}")
    return lines
