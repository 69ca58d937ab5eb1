from __future__ import annotations

import math
import tempfile
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from privolve.privacy.accounting import gaussian_epsilon
from privolve.privacy.ledger import LedgerError
from privolve.privacy.private import PrivateStageError

RUNS = ["a", "b", "c", "d"]
ENDINGS = ["well", "crash", "fail", "no noise", "less noise", "twice"]


class AnyCalls(RuleBasedStateMachine):
    """Whatever is called in whatever order, what was seen stays within what was allowed.

    What was seen is counted apart from the ledger: from the noise that was drawn for answers which returned or failed.
    """

    desk_class: Any = None

    @initialize(epsilon=st.sampled_from([0.3, 1.0, 2.0]), purpose=st.sampled_from(["private", "benchmark"]))
    def make(self, epsilon: float, purpose: Any) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.desk = self.desk_class(Path(self.folder.name) / "ledgers")
        self.total = (epsilon, 2.4e-3)
        self.purpose = purpose
        self.seen: dict[str, list[float]] = defaultdict(list)
        self.answers: dict[str, bytes] = {}
        self.open()

    def open(self) -> None:
        self.noise = self.desk.Noise()
        self.ledger = self.desk.open(slots=400, delta=1e-3, total=self.total, purpose=self.purpose, secret=self.noise)

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.open()

    @rule(
        run=st.sampled_from(RUNS),
        partition=st.sampled_from(["train", "train", "test"]),
        epsilon=st.sampled_from([0.1, 0.2, 0.3, 0.7, 1.0]),
        delta=st.sampled_from([1e-5, 5e-4, 1e-3]),
        releases=st.integers(1, 4),
        scale=st.sampled_from([5.0, 20.0, 40.0]),
    )
    def reserve(self, run: str, **plan: Any) -> None:
        try:
            self.ledger.reserve(self.desk.plan(run, **plan))
        except LedgerError:
            return

    @rule(
        run=st.sampled_from(RUNS),
        number=st.integers(0, 4),
        scale=st.sampled_from([5.0, 20.0, 20.0, 40.0]),
        ending=st.sampled_from(ENDINGS),
        value=st.sampled_from([3, 3, 3, 4]),
    )
    def release(self, run: str, number: int, scale: float, ending: str, value: int) -> None:
        def crash(_: Any) -> None:
            if ending == "crash":
                raise KeyboardInterrupt
            if ending == "fail":
                raise ZeroDivisionError

        def drawn(secret: Any, counts: np.ndarray, scale: float) -> np.ndarray:
            if ending == "no noise":
                return counts
            if ending == "twice":
                secret.discrete_gaussian(counts, scale)
            return secret.discrete_gaussian(counts, scale / (2 if ending == "less noise" else 1))

        name, before = f"{run}/histogram/{number}", len(self.noise.draws)
        data = self.desk.counts(value, 1, 4)
        try:
            answer = self.desk.release(self.ledger, number, run=run, scale=scale, during=crash, drawn=drawn, data=data)
        except KeyboardInterrupt:
            assert ending == "crash"
            return
        except (LedgerError, PrivateStageError):
            if len(self.noise.draws) > before:  # A failure after the noise may have told something.
                self.seen[run].append(scale)
            return
        if name in self.answers:
            assert answer.tobytes() == self.answers[name] and len(self.noise.draws) == before
        else:
            assert len(self.noise.draws) == before + 1 and ending in ("well", "crash", "fail")
            assert np.array_equal(answer, data.values + self.noise.draws[-1])
            self.answers[name] = answer.tobytes()
            self.seen[run].append(scale)

    @invariant()
    def shares_stay_within_the_total(self) -> None:
        book = self.ledger.book
        for partition in ("train", "test"):
            shares = [book.plans[run].plan.share for run in book.runs(partition)]
            epsilon = sum((Decimal(str(share.epsilon)) for share in shares), Decimal(0))
            delta = sum((Decimal(str(share.delta)) for share in shares), Decimal(0))
            assert epsilon <= Decimal(str(self.total[0])) and delta <= Decimal(str(self.total[1]))

    @invariant()
    def what_was_seen_stays_within_its_share(self) -> None:
        book = self.ledger.book
        for run, scales in self.seen.items():
            share = book.plans[run].plan.share
            mu = math.sqrt(sum(scale**-2 for scale in scales))
            assert gaussian_epsilon(mu, share.delta) <= share.epsilon * 1.01
            assert book.above_share(run) == ""

    @invariant()
    def every_answer_was_charged_and_saved(self) -> None:
        for name in self.answers:
            assert [attempt.outcome for attempt in self.ledger.book.attempts(name)][-1] == "released"

    def teardown(self) -> None:
        if hasattr(self, "desk"):
            self.desk.close()
            self.folder.cleanup()


def test_no_sequence_of_calls_passes_the_budget(desk):
    class Calls(AnyCalls):
        desk_class = type(desk)

    run_state_machine_as_test(
        Calls,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
