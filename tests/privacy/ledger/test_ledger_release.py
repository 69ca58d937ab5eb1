from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from privolve.privacy import ledger as module
from privolve.privacy.lattice import RESOLUTION
from privolve.privacy.ledger import (
    BindingChanged,
    BudgetExceeded,
    LedgerDamaged,
    LedgerError,
    NotPlanned,
    PlanChanged,
)
from privolve.privacy.ledger_store import read_entries
from privolve.privacy.mechanism import DiscreteGaussian, PureEpsilon, SampledGaussian
from privolve.privacy.private import OperationalError, Private, PrivateStageError


def crash(_: Any) -> None:
    raise KeyboardInterrupt


def fail(_: Any) -> None:
    raise ZeroDivisionError("secret 12345")


def out_of_memory(_: Any) -> None:
    raise MemoryError


def test_a_release_is_charged_before_its_noise_is_drawn_and_saved_before_it_is_returned(desk):
    seen = []
    noise = desk.Noise(on_draw=lambda: seen.append([entry.kind for entry in read_entries(desk.root / "digits")]))
    ledger = desk.open(secret=noise)
    ledger.reserve(desk.plan())

    histogram = desk.release(ledger)

    assert seen == [["created", "plan", "charge"]]
    assert [entry.kind for entry in read_entries(desk.root / "digits")] == ["created", "plan", "charge", "release"]
    assert np.array_equal(histogram, desk.counts().values + noise.draws[0])
    assert noise.scales == [desk.scale]


def test_a_query_that_fails_before_its_noise_is_free(desk):
    ledger = desk.open()
    ledger.reserve(desk.plan())
    with pytest.raises(PrivateStageError):
        desk.release(ledger, before=fail)
    assert desk.kinds(ledger) == ["created", "plan"]
    desk.release(ledger)
    assert ledger.book.copies("run/histogram/0") == 1


def test_a_mechanism_that_draws_no_noise_releases_nothing(desk):
    ledger = desk.open()
    ledger.reserve(desk.plan())
    with pytest.raises(LedgerError, match="drew no noise"):
        desk.release(ledger, 2, drawn=lambda secret, counts, scale: counts)
    assert desk.kinds(ledger) == ["created", "plan"]


@pytest.mark.parametrize(
    "drawn",
    [
        lambda secret, counts, scale: secret.discrete_gaussian(counts, scale / 2),
        lambda secret, counts, scale: secret.discrete_gaussian(counts, scale * 2),
        lambda secret, counts, scale: counts + secret.gaussian(counts.shape, scale),
        lambda secret, counts, scale: counts[[secret.noisy_max(counts, 1.0)]],
        lambda secret, counts, scale: counts * secret.mask(counts.size, 0.5),
    ],
    ids=["half the noise", "twice the noise", "another kind", "a selection", "a mask alone"],
)
def test_a_mechanism_that_draws_other_noise_than_its_cost_states_releases_nothing(desk, drawn):
    ledger = desk.open()
    ledger.reserve(desk.plan())
    with pytest.raises(LedgerError, match="other noise than its cost states"):
        desk.release(ledger, drawn=drawn)
    assert desk.kinds(ledger) == ["created", "plan"]


def test_a_refused_draw_cannot_be_caught_and_passed_over(desk):
    def sly(secret: Any, counts: np.ndarray, scale: float) -> np.ndarray:
        try:
            return secret.discrete_gaussian(counts, scale / 2)
        except RuntimeError:
            return counts

    ledger = desk.open()
    ledger.reserve(desk.plan())
    with pytest.raises(LedgerError, match="other noise"):
        desk.release(ledger, drawn=sly)
    assert "release" not in desk.kinds(ledger)


def test_a_mechanism_answers_no_more_often_than_its_cost_states(desk):
    def twice(secret: Any, counts: np.ndarray, scale: float) -> np.ndarray:
        return secret.discrete_gaussian(counts, scale) + secret.discrete_gaussian(counts, scale)

    ledger = desk.open()
    ledger.reserve(desk.plan(releases=1))
    with pytest.raises(LedgerError, match="more answers than its cost states"):
        desk.release(ledger, drawn=twice)
    assert "release" not in desk.kinds(ledger)

    both = DiscreteGaussian(scale=desk.scale, copies=2)
    ledger.reserve(desk.plan("pair", cost=both))
    assert desk.release(ledger, run="pair", stated=both, drawn=twice).shape == (5,)


def test_each_cost_opens_its_own_noise(desk):
    ledger = desk.open()
    selection = PureEpsilon(epsilon=0.25)
    sampled = SampledGaussian(probability=0.1, noise_multiplier=5.0, steps=2)
    ledger.reserve(desk.plan("select", cost=selection, releases=1))
    ledger.reserve(desk.plan("train", cost=sampled, releases=1))

    best = desk.release(
        ledger,
        run="select",
        stated=selection,
        drawn=lambda secret, counts, _: np.asarray(secret.noisy_max(counts, 0.25)),
    )
    assert best == 0
    masked = desk.release(
        ledger,
        run="train",
        stated=sampled,
        drawn=lambda secret, counts, _: secret.mask(counts.size, 0.1) + secret.gaussian(counts.shape, 5.0 * RESOLUTION),
    )
    assert not masked.any()


def test_the_source_of_noise_is_shut_after_the_call(desk):
    kept = []
    ledger = desk.open()
    ledger.reserve(desk.plan())
    desk.release(ledger, during=kept.append)
    with pytest.raises(RuntimeError, match="shut"):
        kept[0].discrete_gaussian(np.zeros(1, dtype=np.int64), desk.scale)


def test_what_no_plan_names_is_refused_before_the_data_is_read(desk):
    ledger, data = desk.open(), desk.counts()
    with pytest.raises(NotPlanned):
        desk.release(ledger, data=data)
    ledger.reserve(desk.plan())
    with pytest.raises(NotPlanned):
        desk.release(ledger, 3, data=data)
    assert data.reads == 0


def test_a_redraw_with_other_noise_is_refused_before_the_data_is_read(desk):
    ledger, data = desk.open(), desk.counts()
    ledger.reserve(desk.plan())
    desk.release(ledger)
    for scale in (1e-9, desk.scale / 2, desk.scale * 2):
        with pytest.raises(PlanChanged, match="would cost"):
            desk.release(ledger, scale=scale, data=data)
    assert data.reads == 0


def test_the_equal_release_gives_back_what_was_saved_and_costs_nothing(desk):
    ledger = desk.open()
    ledger.reserve(desk.plan())
    first = desk.release(ledger)
    head = ledger.head()
    assert np.array_equal(desk.release(ledger), first)
    assert ledger.head() == head
    ledger.close()
    again = desk.release(desk.open())
    assert again.tobytes() == first.tobytes() and again.dtype == first.dtype


@pytest.mark.parametrize("saved", [True, False], ids=["after its release", "after a crash"])
@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"question": "other candidates"}, "another question"),
        ({"note": "another parameter"}, "another mechanism"),
        ({"data": (3, 1, 4, 1, 6)}, "another private input"),
    ],
    ids=["question", "mechanism", "input"],
)
def test_a_name_is_bound_to_its_question_mechanism_and_input(desk, change, what, saved):
    ledger = desk.open()
    ledger.reserve(desk.plan())
    if saved:
        desk.release(ledger)
    else:
        with pytest.raises(KeyboardInterrupt):
            desk.release(ledger, during=crash)
    head = ledger.head()
    if "data" in change:
        change = {"data": desk.counts(*change["data"])}
    with pytest.raises(BindingChanged, match=what):
        desk.release(ledger, **change)
    assert ledger.head() == head


@pytest.mark.parametrize("what", ["libraries", "code", "noise"])
def test_a_name_is_bound_to_code_libraries_and_noise(desk, monkeypatch, what):
    ledger = desk.open()
    ledger.reserve(desk.plan())
    desk.release(ledger)
    ledger.close()
    if what == "libraries":
        monkeypatch.setattr(module, "_libraries", lambda: {"opendp": "0.0.1"})
    if what == "code":
        monkeypatch.setattr(module, "_source_digest", lambda _: "edited")

    class OtherNoise(desk.Noise):
        pass

    ledger = desk.open(secret=OtherNoise() if what == "noise" else desk.Noise())
    with pytest.raises(BindingChanged, match=what):
        desk.release(ledger)


def test_a_release_needs_a_question(desk):
    ledger = desk.open()
    ledger.reserve(desk.plan())
    with pytest.raises(LedgerError, match="no question"):
        desk.release(ledger, question="")


def test_three_attempts_that_crash_are_one_charge_and_a_fourth_is_refused_where_the_share_is_full(desk):
    noise = desk.Noise()
    ledger = desk.open(secret=noise)
    ledger.reserve(desk.plan(releases=1, epsilon=0.2, scale=20.5))
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            desk.release(ledger, scale=20.5, during=crash)
        assert ledger.book.copies("run/histogram/0") == 1
    data = desk.counts()
    with pytest.raises(BudgetExceeded, match="attempted 3 times"):
        desk.release(ledger, scale=20.5, data=data)
    assert data.reads == 0
    assert len({draw.tobytes() for draw in noise.draws}) == 3


def test_the_third_attempt_may_still_succeed(desk):
    ledger = desk.open()
    ledger.reserve(desk.plan(releases=1, epsilon=0.2, scale=20.5))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            desk.release(ledger, scale=20.5, during=crash)
    desk.release(ledger, scale=20.5)
    assert ledger.book.copies("run/histogram/0") == 1
    assert [entry.body["attempt"] for entry in ledger.entries() if entry.kind == "charge"] == [1, 2, 3]


def test_a_fourth_attempt_is_charged_where_the_share_bears_it(desk):
    ledger = desk.open()
    ledger.reserve(desk.plan(releases=1))
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            desk.release(ledger, during=crash)
    desk.release(ledger)
    assert ledger.book.copies("run/histogram/0") == 2
    ledger.close()
    book = desk.open().book
    assert book.costs("run") == (DiscreteGaussian(scale=desk.scale),) * 2
    assert book.spent("train").epsilon == 1.0


def test_an_attempt_that_failed_after_its_noise_is_paid_at_once(desk):
    ledger = desk.open()
    ledger.reserve(desk.plan(releases=1, epsilon=0.2, scale=20.5))
    with pytest.raises(PrivateStageError) as failure:
        desk.release(ledger, scale=20.5, during=fail)
    assert "12345" not in str(failure.value) and failure.value.__cause__ is None
    assert desk.kinds(ledger)[-2:] == ["charge", "failed"]
    with pytest.raises(BudgetExceeded):
        desk.release(ledger, scale=20.5)


def test_running_out_of_memory_after_the_noise_is_a_crash(desk):
    ledger = desk.open()
    ledger.reserve(desk.plan(releases=1, epsilon=0.2, scale=20.5))
    with pytest.raises(OperationalError, match="after its charge"):
        desk.release(ledger, scale=20.5, during=out_of_memory)
    desk.release(ledger, scale=20.5)
    assert ledger.book.copies("run/histogram/0") == 1


@pytest.mark.parametrize(
    "outputs",
    [{}, {"histogram": np.array(["text"])}, {"histogram": np.array([None])}, {"not a name": np.zeros(1)}],
    ids=["nothing", "text", "objects", "another name"],
)
def test_a_release_is_made_of_named_arrays_of_numbers(desk, outputs):
    class Odd(desk.Histogram):
        def __call__(self, secret: Any, data: Any) -> Any:
            super().__call__(secret, data)
            return outputs

    ledger = desk.open()
    ledger.reserve(desk.plan())
    with pytest.raises(PrivateStageError):
        ledger.release(Odd(), Private(desk.counts()), name="run/histogram/0", question="q")
    assert desk.kinds(ledger)[-1] == "failed"


def test_a_mechanism_describes_itself_in_json(desk):
    ledger, data = desk.open(), desk.counts()
    ledger.reserve(desk.plan())
    with pytest.raises(LedgerError, match="JSON"):
        desk.release(ledger, note=np.zeros(3), data=data)
    assert data.reads == 0


def test_a_mechanism_may_not_release_in_its_turn(desk):
    ledger = desk.open()
    ledger.reserve(desk.plan())
    with pytest.raises(PrivateStageError):
        desk.release(ledger, before=lambda _: desk.release(ledger, 1))
    assert desk.kinds(ledger) == ["created", "plan"]


def test_a_saved_output_of_many_pieces_comes_back_whole(desk, monkeypatch):
    from privolve.privacy import ledger_store

    monkeypatch.setattr(ledger_store, "_PIECE", 64)
    ledger = desk.open()
    ledger.reserve(desk.plan())
    first = desk.release(ledger, data=desk.counts(*range(1000)))
    assert np.array_equal(desk.release(ledger, data=desk.counts(*range(1000))), first)


def test_a_changed_output_is_damage(desk):
    import sqlite3

    ledger = desk.open()
    ledger.reserve(desk.plan())
    desk.release(ledger)
    ledger.close()
    with sqlite3.connect(desk.root / "digits" / "ledger.sqlite") as database:
        (content,) = database.execute("SELECT content FROM outputs").fetchone()
        database.execute("UPDATE outputs SET content = ?", (content[:-1] + bytes([content[-1] ^ 1]),))
    database.close()
    with pytest.raises(LedgerDamaged, match="stored output"):
        desk.release(desk.open())


def test_no_seed_reaches_the_noise(desk):
    import random

    drawn = []
    for run in ("one", "two"):
        random.seed(0)
        np.random.seed(0)
        ledger = desk.open(run, secret=None)
        ledger.reserve(desk.plan(run))
        drawn += [desk.release(ledger, number, run=run, data=desk.counts(*[0] * 64)) for number in range(3)]
    assert len({histogram.tobytes() for histogram in drawn}) == 6
    assert {entry.body["noise"] for entry in ledger.entries() if entry.kind == "charge"} == {"SystemRng"}


def test_a_double_is_never_recorded_as_the_secret_source(desk):
    pretender = type("SystemRng", (desk.Noise,), {})
    ledger = desk.open(secret=pretender())
    ledger.reserve(desk.plan())
    desk.release(ledger)
    assert ledger.book.doubles(["run"]) != []
    assert ledger.book.epsilon("run", 1e-5) == float("inf")
