"""A long release goes on from a checkpoint: what is drawn, what it costs, and what the chain must say of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from privolve.privacy import ledger_chain as chain
from privolve.privacy import statement
from privolve.privacy.lattice import RESOLUTION
from privolve.privacy.ledger import Checkpoint, Ledger, LedgerError, assist
from privolve.privacy.ledger_book import Book, Contradiction
from privolve.privacy.mechanism import SampledGaussian
from privolve.privacy.private import OperationalError, Private, PrivateStageError

COST = SampledGaussian(probability=0.1, noise_multiplier=8.0, steps=6)


@dataclass(frozen=True)
class Walk:
    """Six steps of a mask and noise; `begin` of them are done, and after `stop` more the machine fails."""

    begin: int = 0
    stop: int | None = None
    until: int = 6
    probability: float = 0.1
    scale: float = 8.0 * RESOLUTION
    masks: int = 1
    fails: bool = False
    shows: Any = None

    @property
    def cost(self) -> SampledGaussian:
        return COST

    def describe(self) -> dict[str, Any]:
        return {"mechanism": "walk"}

    def __call__(self, secret: Any, data: Any) -> dict[str, np.ndarray]:
        for step in range(self.begin, self.until):
            if self.stop == step:
                raise ValueError("wrong") if self.fails else OperationalError("the machine failed")
            for _ in range(self.masks):
                secret.mask(5, self.probability)
            secret.gaussian((2,), self.scale)
            if self.shows is not None:
                self.shows(step + 1)
        return {"weights/layers.0.bias": np.zeros(2, dtype=np.float32)}


def at(step: int, mark: str = "a") -> Checkpoint:
    return Checkpoint(step=step, sha256=mark * 64)


@pytest.fixture
def ledger(desk: Any) -> Ledger:
    ledger = desk.open()
    ledger.reserve(desk.plan(cost=COST, releases=2))
    return ledger


def walk(ledger: Ledger, desk: Any, checkpoint: Checkpoint | None = None, *, number: int = 0, **walk: Any) -> Any:
    begin = checkpoint.step if checkpoint else 0
    return ledger.release(
        Walk(**{"begin": begin, **walk}),
        Private(desk.counts()),
        name=f"run/histogram/{number}",
        question="q",
        checkpoint=checkpoint,
    )


def stopped(ledger: Ledger, desk: Any, checkpoint: Checkpoint | None = None, **more: Any) -> None:
    with pytest.raises(OperationalError):
        walk(ledger, desk, checkpoint, **{"stop": 5, **more})


def entries(ledger: Ledger) -> list[tuple[str, Any, Any]]:
    return [(entry.kind, entry.body.get("attempt"), entry.body.get("step")) for entry in ledger.entries()[2:]]


def test_what_goes_on_is_no_new_attempt_and_what_does_not_is_one(desk: Any, ledger: Ledger):
    stopped(ledger, desk)
    stopped(ledger, desk, at(2))
    stopped(ledger, desk, at(3))
    stopped(ledger, desk, at(3))
    assert walk(ledger, desk, at(4))["weights/layers.0.bias"].shape == (2,)
    assert entries(ledger) == [
        ("charge", 1, None),
        ("continued", 1, 2),
        ("continued", 1, 3),
        ("charge", 2, None),
        ("continued", 2, 3),
        ("continued", 2, 4),
        ("release", 2, None),
    ]


def test_a_checkpoint_before_the_last_one_or_none_is_refused_before_the_data_is_read(desk: Any, ledger: Ledger):
    stopped(ledger, desk)
    stopped(ledger, desk, at(4))
    for checkpoint in (at(3), None, at(4, "b")):
        data = desk.counts()
        with pytest.raises(LedgerError, match="cannot begin") as refused:
            ledger.release(Walk(), Private(data), name="run/histogram/0", question="q", checkpoint=checkpoint)
        assert data.reads == 0 and "\n" not in str(refused.value)


def test_a_checkpoint_that_the_plan_cannot_hold_is_refused(desk: Any, ledger: Ledger):
    with pytest.raises(LedgerError, match="of no attempt"):
        walk(ledger, desk, at(1))
    stopped(ledger, desk)
    for step in (0, 7):
        with pytest.raises(LedgerError, match=f"no step {step}"):
            walk(ledger, desk, at(step))


def test_the_gate_gives_what_is_left_of_the_steps_and_no_more(desk: Any, ledger: Ledger):
    stopped(ledger, desk)
    with pytest.raises(LedgerError, match="more answers than its cost states"):
        walk(ledger, desk, at(4), begin=0)  # all six steps, of which four are done
    assert ledger.book.attempts("run/histogram/0")[-1].outcome == "failed"


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"until": 7}, "more answers"),
        ({"masks": 2}, "more answers"),
        ({"masks": 0}, "without drawing who takes part"),
        ({"probability": 0.05}, "other noise"),
        ({"probability": 0.2}, "other noise"),
        ({"scale": 4.0 * RESOLUTION}, "other noise"),
        ({"scale": 8.0}, "other noise"),
    ],
    ids=str,
)
def test_sampled_steps_draw_their_mask_and_their_noise_as_stated(
    desk: Any, ledger: Ledger, wrong: dict[str, Any], said: str
):
    with pytest.raises(LedgerError, match=said):
        walk(ledger, desk, **wrong)
    assert "release" not in desk.kinds(ledger)


def test_a_failed_attempt_is_paid_and_its_checkpoint_begins_another(desk: Any, ledger: Ledger):
    with pytest.raises(PrivateStageError):
        walk(ledger, desk, stop=3, fails=True)
    walk(ledger, desk, at(2))
    assert entries(ledger) == [
        ("charge", 1, None),
        ("failed", 1, None),
        ("charge", 2, None),
        ("continued", 2, 2),
        ("release", 2, None),
    ]
    assert ledger.book.copies("run/histogram/0") == 2


def test_what_is_shown_is_chained_while_its_release_runs(desk: Any, ledger: Ledger):
    with pytest.raises(LedgerError, match="unless its release runs"):
        ledger.shown("run/histogram/0", at(2))
    stopped(ledger, desk, shows=lambda step: ledger.shown("run/histogram/0", at(step)) if step == 3 else None)
    assert entries(ledger)[-1] == ("shown", 1, 3)
    for checkpoint in (at(2), None, at(3, "b")):
        with pytest.raises(LedgerError, match="cannot begin"):
            walk(ledger, desk, checkpoint)
    walk(ledger, desk, at(3))


def test_a_certificate_counts_continuations_and_verifies(desk: Any, ledger: Ledger, tmp_path: Any):
    stopped(ledger, desk)
    stopped(ledger, desk, at(2))
    walk(ledger, desk, at(3))
    walk(ledger, desk, number=1)
    certificate = statement.write(ledger, "run", release_dir=tmp_path / "run" / "release", artefacts={}, manifest={})
    assert "continued 2 times from a checkpoint" in certificate.text
    assert [release.get("continued") for release in certificate.document["releases"]] == [2, None]
    assert statement.verify(tmp_path / "run") == []


@pytest.mark.parametrize(
    "forged",
    [
        {"step": 3},
        {"step": 2},
        {"step": 7},
        {"step": 0},
        {"step": True},
        {"step": 4.0},
        {"attempt": 2},
        {"checkpoint": "short"},
        {"name": "run/histogram/1"},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["continued", "shown"])
def test_a_forged_continuation_contradicts_the_chain(desk: Any, ledger: Ledger, forged: dict[str, Any], kind: str):
    stopped(ledger, desk)
    stopped(ledger, desk, at(3))
    good = {"name": "run/histogram/0", "attempt": 1, **{"step": 4, "checkpoint": "c" * 64}}
    last = ledger.entries()[-1]
    Book([*ledger.entries(), chain.link(last, kind=kind, run="run", body=good)])
    with pytest.raises(Contradiction):
        Book([*ledger.entries(), chain.link(last, kind=kind, run="run", body={**good, **forged})])


def test_a_helping_process_draws_masks_and_no_noise(desk: Any):
    noise = desk.Noise()
    assist(_Helper(6), Private(desk.counts()), secret=noise)
    with pytest.raises(PrivateStageError):
        assist(_Helper(7), Private(desk.counts()), secret=noise)
    for wrong in ({"probability": 0.2}, {"noise": True}):
        with pytest.raises(PrivateStageError):
            assist(replace(_Helper(6), **wrong), Private(desk.counts()), secret=noise)
    with pytest.raises(LedgerError, match="sample"):
        assist(desk.Histogram(), Private(desk.counts()), secret=noise)


@dataclass(frozen=True)
class _Helper:
    steps: int
    probability: float = 0.1
    noise: bool = False

    @property
    def cost(self) -> SampledGaussian:
        return COST

    def describe(self) -> dict[str, Any]:
        return {}

    def __call__(self, secret: Any, data: Any) -> dict[str, np.ndarray]:
        for _ in range(self.steps):
            secret.mask(5, self.probability)
        if self.noise:
            secret.gaussian((2,), 8.0 * RESOLUTION)
        return {}
