"""What is measured in the end: on held-out real records, and for the private copy on the voters too.

Every kind of job asks here, and `evaluation/harness.py` judges; here is what it needs of the private set.

Formal guarantee: a score is protected only if everything that it was computed from is released or declared public; all
others go to `private/` alone. The door is `disclose`, a journal line each; figures on the voters are counted in the ledger
before they are written anywhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from ..adapters.contract import EmbedRequest, Image, Refusal
from ..data.private_set import PrivateSet, Records, Split
from ..data.voters import Voters
from ..evaluation.harness import (
    CEILING,
    FINAL,
    HELD_OUT,
    INITIAL,
    RANDOM,
    Canaries,
    Judged,
    judge,
    pixels_like,
)
from ..evaluation.metric import Items, MetricError, Score
from ..evaluation.settings import Settings
from ..evaluation.text import column, text_items
from ..privacy import durable
from ..privacy.private import Private, disclose
from .job import InputError
from .model_selection import ModelSelection, Sets, by_test
from .run import Event, Run

if TYPE_CHECKING:
    from ..adapters.gateway import Gateway
    from ..pe_engine.population import Population
    from ..privacy.ledger import Ledger
    from .private_evolution import PrivateEvolution


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """Released or public images: uint8 (n, height, width, channels) with class indices. `seen`: measured in features too."""

    name: str
    pixels: np.ndarray
    labels: np.ndarray
    seen: bool = True

    @classmethod
    def of(cls, name: str, population: Population, *, seen: bool = True) -> list[Images]:
        """The candidates that have an image, as one set; no set if none has."""
        pictured = [candidate for candidate in population if candidate.image is not None]
        if not pictured:
            return []
        pixels = np.stack([candidate.image.pixels for candidate in pictured if candidate.image is not None])
        labels = np.array([candidate.label for candidate in pictured], dtype=np.int64)
        return [cls(name=name, pixels=pixels, labels=labels, seen=seen)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Texts:
    """Released or public texts with class indices. `seen`: measured in features too."""

    name: str
    texts: tuple[str, ...]
    labels: np.ndarray
    seen: bool = True

    @classmethod
    def of(cls, name: str, population: Population, *, seen: bool = True) -> list[Texts]:
        """The candidates that have a caption, as one set; no set if none has."""
        written = [candidate for candidate in population if candidate.caption]
        if not written:
            return []
        labels = np.array([candidate.label for candidate in written], dtype=np.int64)
        return [cls(name=name, texts=tuple(candidate.caption for candidate in written), labels=labels, seen=seen)]


def sets_of(name: str, population: Population, data: Split, *, seen: bool = True) -> Sequence[Images] | Sequence[Texts]:
    """What of a population is judged: its texts where the private set holds texts, its images otherwise."""
    if data.train.size is None:
        return Texts.of(name, population, seen=seen)
    return Images.of(name, population, seen=seen)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What judges the images or the texts of one run or evaluation.

    `role` is the feature network's in `gateway`, None: classifiers alone judge. `ledger` counts figures on the voters;
    without one, and unless `shows_voters`, the voters are not looked at. `ceiling`: whether they are judged as a set, too. `say` gets lines that may be seen by all.
    """

    run: Run
    data: Split
    settings: Settings
    gateway: Gateway | None
    role: str | None
    shows_voters: bool = False
    ceiling: bool = True
    ledger: Ledger | None = None
    say: Callable[[str], None] = field(default=print)

    def scores(
        self, candidates: Sequence[Images | Texts], *, voters: Private[Voters] | None = None, only: int | None = None
    ) -> list[Score]:
        """Of the candidates, the released set first. `voters` are the private records' features, if they are there already.

        `only`: the place of the one that is judged, where private records chose it: requests, of all, tell nothing of which.
        Without a held-out part there is nothing to judge by, and no score.
        """
        test = self.data.test
        if test is None:
            return []
        synthetic = [self._synthetic(each, test) for each in candidates]
        if self._looks_at_voters:
            self._note_look()
        # On matrices this small, threads of a BLAS cost more than they give, and one thread gives the same bits anywhere.
        with threadpool_limits(limits=1):
            found = judge(
                synthetic if only is None else [synthetic[only]],
                test=self._real(test, HELD_OUT, protected=self.data.test_is_public),
                train=self._real(self.data.train, CEILING, embedded=voters) if self._looks_at_voters else None,
                classes=len(self.data.train.classes),
                settings=self.settings,
                ceiling=self.ceiling,
                lost=self.lost if only is None else self._lost_in_private,
                kept=Outcomes(self.run.private / "outcomes.jsonl"),
                class_names=self.data.train.classes,
                canaries=self._canaries(test) if self._looks_at_voters else None,
            )
        return found

    def held_out(self) -> Items | None:
        """The held-out real images, disclosed; None without any."""
        test = self.data.test
        if test is None or test.size is None:
            return None
        return self._opened(test, HELD_OUT, protected=self.data.test_is_public)

    @property
    def _looks_at_voters(self) -> bool:
        return self.shows_voters and self.ledger is not None

    def _note_look(self) -> None:
        """Chain that figures of the voters are shown, before any is: not how many, which depends on the records."""
        assert self.ledger is not None
        self.ledger.note(self.run.id, "disclosed", {"partition": self.data.train.partition, "figures": 1})

    def lost(self, line: str, /, *, public: bool) -> None:
        if public:
            self.say(f"not measured: {line}")
            known = self.run.manifest.get("not_measured", [])
            self.run.record(not_measured=[*dict.fromkeys([*known, line])])
        else:
            self.run.private_log(line)

    def _lost_in_private(self, line: str, /, *, public: bool) -> None:
        self.lost(line, public=False)

    def _synthetic(self, synthetic: Images | Texts, like: PrivateSet) -> Judged:
        items = self._items(synthetic, like)
        if self.gateway is None or self.role is None or not synthetic.seen or not self.settings.metrics:
            return Judged(images=items)
        contents = synthetic.texts if isinstance(synthetic, Texts) else [Image(each) for each in synthetic.pixels]
        features = self._features(synthetic.name, contents, synthetic.labels, self.gateway, self.role)
        if features is None:
            self.lost(f"{synthetic.name}: {self.role!r} refused every one", public=True)
            return Judged(images=items)
        return Judged(images=items, features=features, probabilities=self._probabilities(features))

    def _items(self, synthetic: Images | Texts, like: PrivateSet) -> Items:
        if isinstance(synthetic, Texts):
            return text_items(synthetic.name, synthetic.texts, synthetic.labels, protected=True)
        assert like.size is not None
        pixels = pixels_like(synthetic.pixels, like.size, like.channels)
        return Items(name=synthetic.name, values=pixels, labels=synthetic.labels, protected=True)

    def _features(
        self,
        name: str,
        contents: Sequence[Image | str],
        labels: np.ndarray | None,
        gateway: Gateway,
        role: str,
        *,
        protected: bool = True,
    ) -> Items | None:
        """Of public contents, without those that were refused; None if all were."""
        replies = gateway.open(role).send([EmbedRequest(content=each) for each in contents])
        kept = [row for row, reply in enumerate(replies) if not isinstance(reply, Refusal)]
        if not kept:
            return None
        return Items(
            name=name,
            values=np.stack([reply for reply in replies if not isinstance(reply, Refusal)]),
            labels=None if labels is None else labels[kept],
            **self._network(gateway, role),
            protected=protected,
        )

    def _probabilities(self, features: Items) -> Items | None:
        """Of the judge's own classes, if it has any and a metric looks at them."""
        if self.gateway is None or self.role is None:
            return None
        if not any(metric.looks_at == "probabilities" for metric in self.settings.chosen()):
            return None
        head = self.gateway.class_head(self.role)
        return None if head is None else replace(features, values=head(features.values))

    def _canaries(self, like: PrivateSet) -> Canaries | None:
        """Those of the settings, as the judge sees them: made by whoever planted them, and known to be there."""
        path = self.settings.canaries
        if path is None or self.gateway is None or self.role is None:
            return None
        if like.size is None:
            self.lost("canaries are images, and the data holds texts", public=True)
            return None
        found: list[Items] = []
        for name, pixels in read_canaries(path).items():
            images = [Image(each) for each in pixels_like(pixels, like.size, like.channels)]
            seen = self._features(f"canaries: {name}", images, None, self.gateway, self.role, protected=False)
            if seen is None:
                self.lost(f"{path}: {self.role!r} refused every canary", public=True)
                return None
            found.append(seen)
        return Canaries(planted=found[0], references=found[1])

    def _real(
        self, records: PrivateSet, name: str, *, protected: bool = False, embedded: Private[Voters] | None = None
    ) -> Judged:
        """Real images and their features, disclosed."""
        items = self._opened(records, name, protected=protected)
        if self.gateway is None or self.role is None or not self.settings.metrics:
            return Judged(images=items)
        seen = embedded if embedded is not None else self.gateway.open_trusted(self.role).embed(records)
        rows = disclose(seen, partition=records.partition, why=f"features: {name}", journal=self.run)
        features = Items.of_records(
            name=name,
            values=rows.embeddings,
            labels=rows.labels,
            valid=rows.valid,
            **self._network(self.gateway, self.role),
            protected=protected,
        )
        return Judged(images=items, features=features, probabilities=self._probabilities(features))

    def _opened(self, records: PrivateSet, name: str, *, protected: bool) -> Items:
        why = f"evaluation: {name}"
        opened = disclose(records.records, partition=records.partition, why=why, journal=self.run)
        if records.size is None:
            return _texts(opened, name, protected=protected)
        width, height = records.size
        pixels = np.zeros((records.count, height, width, records.channels), dtype=np.uint8)
        labels = np.full(records.count, -1, dtype=np.int64)
        _read(opened, pixels, labels)
        return Items.of_records(name=name, values=pixels, labels=labels, valid=labels >= 0, protected=protected)

    def _network(self, gateway: Gateway, role: str) -> dict[str, str]:
        """The feature space: which model, and the digest of its weights and options."""
        identity = gateway.identity(role)
        return {"network": f"{identity.provider} {identity.model}", "network_hash": identity.revision}


class Outcomes(dict[str, Any]):
    """Outcomes of trainings by their keys, on disk as soon as they are there: a line each, private."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            with suppress(ValueError):  # The last line of a process that was killed may be cut short.
                key, outcome = json.loads(line)
                super().__setitem__(key, outcome)

    def __setitem__(self, key: str, outcome: Any) -> None:
        super().__setitem__(key, outcome)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, f"\n{json.dumps([key, outcome])}\n".encode())
        finally:
            os.close(descriptor)


def pictures_of(populations: Sequence[Population], data: Split) -> list[tuple[np.ndarray, np.ndarray]]:
    """(images, labels) of each population, of the candidates that have an image; of those without any, none."""
    width, height = data.train.size or (0, 0)
    nothing = (np.zeros((0, height, width, data.train.channels), np.uint8), np.zeros(0, np.int64))
    found = [Images.of("", each) for each in populations]
    return [(each[0].pixels, each[0].labels) if each else nothing for each in found]


def assess(
    evolution: PrivateEvolution,
    data: Split,
    *,
    first: Population,
    final: Population,
    candidates: Sequence[Population],
    voters: Private[Voters],
    gateway: Gateway,
    ledger: Ledger,
) -> None:
    """Write `release/scores.json` (protected) and `private/scores.json` (all). What was written is not measured again."""
    run, config = evolution.run, evolution.config
    if (run.private / "scores.json").exists():
        return
    evolution.bars.stage("evaluation")
    bench = Bench(
        run=run,
        data=data,
        settings=config.evaluation,
        gateway=gateway,
        role=config.judging_role,
        shows_voters=config.shows_unprotected,
        ceiling=config.evaluation.ceiling,
        ledger=ledger,
    )
    scores: list[Score] = []
    if data.test is not None:
        judged = [*sets_of(FINAL, final, data), *(sets_of(INITIAL, first, data) if config.evaluation.floor else [])]
        if config.evaluation.random_baseline:
            judged += sets_of(RANDOM, evolution.random_selection(data, gateway), data, seen=False)
        scores = bench.scores(judged, voters=voters if config.judging_role == "eye" else None)
        if config.selection.rule == "oracle":
            sets, settings = pictures_of(candidates, data), config.selection
            names = [f"iteration {number}" for number in range(1, len(sets) + 1)]
            scores += of_oracle(bench, sets, names=names, settings=settings, seed=config.seed)
    write_scores(run, scores)


def of_oracle(bench: Bench, sets: Sets, *, names: Sequence[str], settings: ModelSelection, seed: int) -> list[Score]:
    """Figures of the set that the test set itself would choose: marked and unprotected, and of nothing that is released."""
    test = bench.held_out()
    assert test is not None  # `check` saw to it.
    choice = None
    try:
        choice = by_test(sets, test, names=names, data=bench.data.train, settings=settings, seed=seed)
    except MetricError as error:
        bench.lost(f"oracle: {error}", public=False)
    candidates = [Images(name=FINAL, pixels=pixels, labels=labels) for pixels, labels in sets]
    # Without a choice all are embedded the same, because whether there is one depends on private records.
    found = replace(bench, shows_voters=False).scores(candidates, only=choice.index if choice else 0)
    return [choice.marked(each) for each in found] if choice else []


def write_scores(run: Run, scores: Sequence[Score]) -> None:
    """The protected ones into `release/scores.json`, all of them into `private/scores.json`."""
    for folder, kept in ((run.release, [each for each in scores if each.protected]), (run.private, list(scores))):
        content = json.dumps([each.to_json() for each in kept], indent=2, ensure_ascii=False)
        durable.write_bytes(
            folder / "scores.json", content.encode() + b"\n", mode=0o644 if folder == run.release else 0o600
        )
    run.journal(Event.SAVED, scores=sum(each.protected for each in scores))


def read_canaries(path: Path) -> dict[str, np.ndarray]:
    """`planted` and `references` of an .npz, uint8 (n, height, width, channels). Raises InputError, one line."""
    from ..data.files import GIBIBYTE
    from ..data.npz import Archive

    if not path.is_file():
        raise InputError(f"evaluation.canaries: there is no file {str(path)!r}; give an .npz, or leave it out")
    found: dict[str, np.ndarray] = {}
    with Archive(path, max_bytes=GIBIBYTE, where=str(path)) as archive:
        for name in ("planted", "references"):
            pixels: np.ndarray = np.asarray(archive.array(name)) if name in archive.keys else np.empty(0)
            pixels = pixels[..., None] if pixels.ndim == 3 else pixels
            if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or not len(pixels):
                raise InputError(f"{path}: {name!r} has to hold images, uint8 (n, height, width, 1 or 3)")
            found[name] = pixels
    return found


def _texts(records: Records, name: str, *, protected: bool, chunk: int = 4096) -> Items:
    """Disclosed texts, without the slots that hold a ghost."""
    texts: list[str] = []
    labels = np.full(len(records), -1, dtype=np.int64)
    for start in range(0, len(records), chunk):
        for slot, record in enumerate(records.read_many(start, min(start + chunk, len(records))), start):
            texts.append("")
            if record is not None and isinstance(record.content, str):
                texts[slot], labels[slot] = record.content, record.label
    return Items.of_records(name=name, values=column(texts), labels=labels, valid=labels >= 0, protected=protected)


def _read(records: Records, pixels: np.ndarray, labels: np.ndarray, chunk: int = 4096) -> None:
    for start in range(0, len(records), chunk):
        for slot, record in enumerate(records.read_many(start, min(start + chunk, len(records))), start):
            if record is not None and isinstance(record.content, np.ndarray):
                pixels[slot], labels[slot] = record.content, record.label
