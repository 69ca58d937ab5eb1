"""A desk to try the ledger at: small records, a cheap mechanism, and noise whose draws can be looked at."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from privolve.privacy.ledger import Ledger, Plan, PlannedRelease
from privolve.privacy.mechanism import Cost, DiscreteGaussian, PrivacyTarget, Relation
from privolve.privacy.private import Private

SLOTS = 100
SCALE = 20.0


@dataclass
class Counts:
    """A private input that knows how often it was read."""

    values: np.ndarray
    reads: int = 0

    def parts(self) -> Iterator[bytes]:
        self.reads += 1
        yield self.values.tobytes()


@dataclass(frozen=True)
class Histogram:
    """The mechanism under test; `during` runs between its draw and its return, `drawn` draws."""

    scale: float = SCALE
    stated: Cost | None = None
    before: Callable[[Any], None] = lambda _: None
    during: Callable[[Any], None] = lambda _: None
    drawn: Callable[[Any, np.ndarray, float], np.ndarray] = lambda secret, counts, scale: secret.discrete_gaussian(
        counts, scale
    )
    note: str = ""

    @property
    def cost(self) -> Cost:
        return self.stated or DiscreteGaussian(scale=self.scale)

    def describe(self) -> dict[str, Any]:
        return {"mechanism": "histogram", "scale": self.scale, "note": self.note}

    def __call__(self, secret: Any, data: Counts) -> dict[str, np.ndarray]:
        self.before(secret)
        noisy = self.drawn(secret, data.values, self.scale)
        self.during(secret)
        return {"histogram": noisy}


@dataclass
class Noise:
    """A source whose draws are kept, so that they can be compared."""

    draws: list[np.ndarray] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)
    on_draw: Callable[[], None] = lambda: None

    def discrete_gaussian(self, counts: np.ndarray, scale: float) -> np.ndarray:
        self.on_draw()
        self.scales.append(scale)
        self.draws.append(np.frombuffer(os.urandom(8 * counts.size), dtype=np.int64) % 1_000_000)
        return counts + self.draws[-1]

    def gaussian(self, shape: tuple[int, ...], scale: float) -> np.ndarray:
        return np.zeros(shape)

    def mask(self, n: int, probability: float) -> np.ndarray:
        return np.zeros(n, dtype=bool)

    def noisy_max(self, counts: np.ndarray, epsilon: float) -> int:
        return 0


class Slots:
    """Records by their stored bytes."""

    def __init__(self, raws: Sequence[bytes]) -> None:
        self._raws = raws

    def __len__(self) -> int:
        return len(self._raws)

    def raw(self, slot: int) -> bytes:
        return self._raws[slot]


class Desk:
    """Opens ledgers below one root, and knows plans and releases that suit them."""

    scale = SCALE
    slots = SLOTS
    Counts, Histogram, Noise = Counts, Histogram, Noise

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open: list[Ledger] = []

    def open(
        self, name: str = "digits", *, folder: str = "", records: Sequence[bytes] | None = None, **terms: Any
    ) -> Ledger:
        """The ledger of `name`, closed at the end of the test at the latest."""
        given = {
            "slots": SLOTS,
            "unit": "image",
            "relation": Relation.ZERO_OUT,
            "secret": Noise(),
            "records": None if records is None else Private(Slots(records)),
        }
        ledger = Ledger.create_or_open(self.root / (folder or name), name=name, **{**given, **terms})
        self._open.append(ledger)
        return ledger

    def records(self, *, first: int = 0, count: int = SLOTS) -> list[bytes]:
        """Different records, numbered."""
        return [f"record {first + number}".encode() for number in range(count)]

    def plan(
        self,
        run: str = "run",
        *,
        releases: int = 3,
        epsilon: float = 1.0,
        delta: float = 1e-5,
        partition: str = "train",
        scale: float = SCALE,
        cost: Cost | None = None,
        unit: str = "image",
        relation: Relation = Relation.ZERO_OUT,
    ) -> Plan:
        """`releases` histograms at one scale."""
        return Plan(
            run=run,
            partition=partition,
            share=PrivacyTarget(epsilon=epsilon, delta=delta, unit=unit, relation=relation),
            releases=tuple(
                PlannedRelease(name=f"{run}/histogram/{number}", cost=cost or DiscreteGaussian(scale=scale))
                for number in range(releases)
            ),
        )

    def release(
        self,
        ledger: Ledger,
        number: int = 0,
        *,
        run: str = "run",
        name: str = "",
        question: str = "candidates",
        data: Counts | None = None,
        **mechanism: Any,
    ) -> np.ndarray:
        """One histogram of five counts under the name that `plan` gives it."""
        outputs = ledger.release(
            Histogram(**mechanism),
            Private(data or self.counts()),
            name=name or f"{run}/histogram/{number}",
            question=question,
        )
        return outputs["histogram"]

    def counts(self, *values: int) -> Counts:
        return Counts(np.asarray(values or (3, 1, 4, 1, 5), dtype=np.int64))

    def kinds(self, ledger: Ledger) -> list[str]:
        """What was chained, in order."""
        return [entry.kind for entry in ledger.entries()]

    def finished(
        self, ledger: Ledger, run_dir: Path, *, run: str = "run", releases: int = 3, **plan: Any
    ) -> SimpleNamespace:
        """A whole run whose histograms lie in `run_dir/iterations`: what `statement.write` needs to certify it."""
        ledger.reserve(self.plan(run, releases=releases, **plan))
        artefacts: dict[str, Path] = {}
        for number in range(releases):
            path = run_dir / "iterations" / f"{number:03}" / "histogram.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, self.release(ledger, number, run=run))
            artefacts[str(path.relative_to(run_dir))] = path
        return SimpleNamespace(
            run=run,
            release_dir=run_dir / "release",
            artefacts=artefacts,
            manifest={"commit": "c0ffee", "prompts": [{"name": "digits", "provenance": "author-written"}]},
        )

    def close(self) -> None:
        for ledger in self._open:
            ledger.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "ledgers")
    yield desk
    desk.close()
