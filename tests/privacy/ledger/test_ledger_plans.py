from __future__ import annotations

import dataclasses

import pytest

from privolve.privacy.accounting import default_delta
from privolve.privacy.ledger import BudgetExceeded, Ledger, LedgerError, PlanChanged, PlannedRelease, TermsDiffer
from privolve.privacy.mechanism import DiscreteGaussian, Relation


def test_delta_is_fixed_from_the_slots_when_the_ledger_is_made(desk):
    ledger = desk.open(slots=1_000_000)
    assert ledger.delta == default_delta(1_000_000) < 1e-7
    ledger.close()
    assert desk.open(slots=1_000_000).delta == ledger.delta
    assert desk.open("other", delta=1e-6).delta == 1e-6
    assert desk.open("capped", total=(4.0, 2e-6)).delta == 2e-6


@pytest.mark.parametrize("delta", [0.01, 0.5, 0.0, -1e-5])
def test_a_delta_of_one_slot_or_more_is_refused(desk, delta):
    with pytest.raises(LedgerError):
        desk.open(delta=delta)
    with pytest.raises(LedgerError):
        desk.open(total=(1.0, delta))


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"slots": 101}, "slots 100, not 101"),
        ({"unit": "patient"}, "unit 'image', not 'patient'"),
        ({"relation": Relation.REPLACE_ONE}, "relation 'zero-out', not 'replace-one'"),
        ({"delta": 1e-6}, "delta 1e-05, not 1e-06"),
        ({"total": (9.0, 1e-5)}, r"total \(8.0, 1e-05\), not \(9.0, 1e-05\)"),
        ({"purpose": "benchmark"}, "purpose 'private', not 'benchmark'"),
        ({"name": "letters"}, "name 'digits', not 'letters'"),
    ],
)
def test_a_ledger_reopened_on_other_terms_says_which_and_the_way_out(desk, asked, what):
    for way_out in ("remove its folder", "name another ledger"):
        with pytest.raises(TermsDiffer, match=f"{what}.*{way_out}") as refusal:
            desk.open(total=(8.0, 1e-5)).close()
            desk.open(**{"name": "digits", "folder": "digits", **asked})
        assert "\n" not in str(refusal.value)
        # From here on something is planned in it.
        ledger = desk.open()
        ledger.reserve(desk.plan())
        ledger.close()


def test_terms_left_open_are_as_they_were_made(desk):
    desk.open(total=(8.0, 1e-5), delta=1e-6).close()
    assert desk.open().book.terms.total == (8.0, 1e-5)


def test_an_equal_plan_is_nothing_new(desk):
    ledger = desk.open()
    ledger.reserve(desk.plan())
    head = ledger.head()
    ledger.reserve(desk.plan())
    desk.release(ledger)
    ledger.close()
    ledger = desk.open()
    ledger.reserve(desk.plan())
    assert desk.kinds(ledger) == ["created", "plan", "charge", "release"]
    assert ledger.entries()[1].hash == head


def test_a_plan_may_change_until_its_run_is_charged(desk):
    ledger = desk.open(total=(1.0, 1e-5))
    ledger.reserve(desk.plan(epsilon=0.9))
    ledger.reserve(desk.plan(epsilon=0.8, releases=2))
    assert ledger.spent().epsilon == 0.8 and ledger.spent().runs == 1
    desk.release(ledger)
    for changed in (
        desk.plan(epsilon=0.8),
        desk.plan(epsilon=0.7, releases=2),
        desk.plan(releases=2, partition="test"),
    ):
        with pytest.raises(PlanChanged, match="begin a new run"):
            ledger.reserve(changed)


def test_a_charge_without_an_output_fixes_the_plan_too(desk):
    def crash(_: object) -> None:
        raise KeyboardInterrupt

    ledger = desk.open()
    ledger.reserve(desk.plan())
    with pytest.raises(KeyboardInterrupt):
        desk.release(ledger, during=crash)
    with pytest.raises(PlanChanged):
        ledger.reserve(desk.plan(releases=2))


def test_a_plan_that_costs_more_than_its_share_is_refused(desk):
    ledger = desk.open()
    with pytest.raises(BudgetExceeded, match=r"cost epsilon 0.2.* more than its share 0.2"):
        ledger.reserve(desk.plan(epsilon=0.2, releases=3))
    assert desk.kinds(ledger) == ["created"]


def test_under_replace_one_the_same_noise_costs_more(desk):
    zero_out = desk.open("a")
    zero_out.reserve(desk.plan("a", epsilon=0.3))
    replace_one = desk.open("b", relation=Relation.REPLACE_ONE)
    with pytest.raises(BudgetExceeded):
        replace_one.reserve(desk.plan("b", epsilon=0.3, relation=Relation.REPLACE_ONE))


def test_k_votes_a_record_cost_more_than_one(desk):
    ledger = desk.open()
    ledger.reserve(desk.plan("one", epsilon=0.3))
    with pytest.raises(BudgetExceeded):
        ledger.reserve(desk.plan("five", epsilon=0.3, cost=DiscreteGaussian(scale=desk.scale, cells=5)))


def test_ten_shares_of_a_tenth_fill_a_total_of_one_and_no_more_fits(desk):
    ledger = desk.open(total=(1.0, 1e-5))
    for number in range(10):
        assert ledger.spent().left == pytest.approx((1 - number / 10, 1e-5 - number * 1e-6), rel=1e-12, abs=1e-18)
        ledger.reserve(desk.plan(f"run{number}", epsilon=0.1, delta=1e-6, releases=1, scale=60))
    assert ledger.spent().left == (0.0, 0.0)
    with pytest.raises(BudgetExceeded, match="above the owner's total"):
        ledger.reserve(desk.plan("last", epsilon=1e-9, delta=1e-20, releases=1, scale=1e9))


def test_delta_alone_can_fill_the_total(desk):
    ledger = desk.open(total=(8.0, 1e-5))
    ledger.reserve(desk.plan("a", epsilon=1.0, delta=9e-6))
    with pytest.raises(BudgetExceeded, match="total"):
        ledger.reserve(desk.plan("b", epsilon=1.0, delta=2e-6))


def test_the_deltas_of_all_runs_stay_below_one_slot(desk):
    ledger = desk.open(delta=0.004)
    ledger.reserve(desk.plan("a", delta=0.004))
    ledger.reserve(desk.plan("b", delta=0.004))
    with pytest.raises(BudgetExceeded, match="not below 1/100"):
        ledger.reserve(desk.plan("c", delta=0.002))
    ledger.reserve(desk.plan("d", delta=0.0019))


def test_a_benchmark_runs_on(desk):
    ledger = desk.open(delta=0.004, purpose="benchmark")
    for number in range(4):
        ledger.reserve(desk.plan(f"run{number}", delta=0.004))
    assert ledger.spent().delta == 0.016


def test_a_share_may_not_ask_for_more_delta_than_the_ledger_has(desk):
    with pytest.raises(BudgetExceeded, match="fixed when the ledger was made"):
        desk.open().reserve(desk.plan(delta=2e-5))


def test_partitions_compose_apart_and_the_largest_counts(desk):
    ledger = desk.open(total=(2.0, 1e-5))
    ledger.reserve(desk.plan("a", epsilon=1.5, delta=1e-6))
    ledger.reserve(desk.plan("b", epsilon=1.0, delta=2e-6, partition="test"))
    with pytest.raises(BudgetExceeded, match="partition train"):
        ledger.reserve(desk.plan("c", epsilon=0.6))
    assert (ledger.spent("train").epsilon, ledger.spent("test").epsilon) == (1.5, 1.0)
    assert (ledger.spent().epsilon, ledger.spent().delta) == (1.5, 2e-6)
    assert ledger.spent("nobody's").epsilon == 0.0


def test_stopping_early_gives_nothing_back(desk):
    ledger = desk.open(total=(1.5, 1e-5))
    ledger.reserve(desk.plan("early", delta=1e-6))
    desk.release(ledger, run="early")
    assert ledger.spent().epsilon == 1.0
    with pytest.raises(BudgetExceeded):
        ledger.reserve(desk.plan("next", delta=1e-6))
    with pytest.raises(PlanChanged):
        ledger.reserve(desk.plan("early", delta=1e-6, releases=1, epsilon=0.4))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"releases": ()}, "at least one release"),
        ({"run": ""}, "names its run"),
        ({"partition": ""}, "its partition"),
        ({"releases": (PlannedRelease(name="other/histogram/0", cost=DiscreteGaussian(scale=50.0)),)}, "under its run"),
        ({"releases": (PlannedRelease(name="run/x", cost=DiscreteGaussian(scale=50.0)),) * 2}, "one name"),
    ],
)
def test_a_plan_names_what_it_will_release(desk, change, why):
    with pytest.raises(LedgerError, match=why):
        desk.open().reserve(dataclasses.replace(desk.plan(), **change))


def test_two_runs_cannot_share_a_name(desk):
    ledger = desk.open()
    ledger.reserve(desk.plan("a"))
    release = PlannedRelease(name="a/b/histogram/0", cost=DiscreteGaussian(scale=50.0))
    ledger.reserve(dataclasses.replace(desk.plan("a/b"), releases=(release,)))
    with pytest.raises(LedgerError, match="belongs to the plan of run a/b"):
        ledger.reserve(dataclasses.replace(desk.plan("a"), releases=(release,)))


def test_units_and_relations_are_not_mixed(desk):
    ledger = desk.open()
    for other in (desk.plan(unit="patient"), desk.plan(relation=Relation.REPLACE_ONE)):
        with pytest.raises(LedgerError, match="cannot be added up"):
            ledger.reserve(other)


def test_every_time_that_figures_are_shown_is_counted_against_later_plans(desk):
    ledger = desk.open()
    ledger.reserve(desk.plan("before"))
    ledger.note("before", "disclosed", {"partition": "train", "figures": 1})
    ledger.note("before", "disclosed", {"partition": "train", "figures": 1})
    ledger.note("before", "disclosed", {"partition": "test", "figures": 1})
    # How many there were depends on the records.
    with pytest.raises(LedgerError, match="noted as"):
        ledger.note("before", "disclosed", {"partition": "train", "figures": 7})
    ledger.reserve(desk.plan("after"))
    assert {run: reserved.figures_before for run, reserved in ledger.book.plans.items()} == {"before": 0, "after": 2}


def test_notes_of_trust_and_assumptions_are_chained_once(desk):
    ledger = desk.open()
    for _ in range(2):
        ledger.note("run", "egress", {"role": "captioner", "model": "some model"})
        ledger.note("run", "assumption", {"text": "painter made without these records"})
    assert desk.kinds(ledger) == ["created", "egress", "assumption"]
    for kind, body in (("charge", {}), ("disclosed", {"partition": "train"}), ("assumption", {})):
        with pytest.raises(LedgerError):
            ledger.note("run", kind, body)


def test_ledgers_are_made_by_create_or_open(desk):
    with pytest.raises(LedgerError, match="at least one slot"):
        desk.open(slots=0)
    with pytest.raises(LedgerError, match="purpose"):
        desk.open(purpose="fun")
    assert isinstance(desk.open(), Ledger)
