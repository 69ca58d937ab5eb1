from __future__ import annotations

import numpy as np
import pytest

from privolve.evaluation.membership import Attack, density_ratio, membership
from privolve.evaluation.metric import Items, MetricError, Score

DIMENSIONS = 12


def items(name: str, values: np.ndarray, *, network: str = "pixels") -> Items:
    return Items(name=name, values=values.astype(np.float32), network=network, network_hash="ab", protected=True)


def clusters(n: int, seed: int) -> np.ndarray:
    """Records of a source with structure: five clusters."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(scale=3, size=(5, DIMENSIONS))
    return centres[rng.integers(5, size=n)] + rng.normal(size=(n, DIMENSIONS))


MEMBERS, HELD_OUT = clusters(400, 1), clusters(2200, 2)


def judged(synthetic: np.ndarray, **settings: int) -> dict[str, Score]:
    found = membership(
        members=items("private records", MEMBERS),
        held_out=items("held-out test", HELD_OUT),
        synthetic=items("final population", synthetic),
        **settings,
    )
    return {score.name: score for score in found.scores()}


@pytest.fixture(scope="module")
def copied() -> dict[str, Score]:
    return judged(MEMBERS + np.random.default_rng(3).normal(scale=0.05, size=MEMBERS.shape))


@pytest.fixture(scope="module")
def fresh() -> dict[str, Score]:
    return judged(clusters(800, 4))


def test_memorised_copies_are_found_by_both_attacks(copied: dict[str, Score]) -> None:
    assert copied["membership AUC by distance"].value > 0.99
    assert copied["membership AUC by density"].value > 0.9
    for attack in ("distance", "density"):
        assert copied[f"membership balanced accuracy by {attack}"].value > 0.8
        found = copied[f"members found at 1.0% false alarms by {attack}"]
        assert found.value > 0.3 and found.interval is not None and found.interval[0] > 0.25


def test_fresh_samples_tell_nothing_and_the_intervals_say_so(fresh: dict[str, Score]) -> None:
    for name, score in fresh.items():
        assert score.interval is not None and score.interval[0] <= score.value <= score.interval[1]
        if "AUC" in name or "balanced" in name:
            assert score.interval[0] <= 0.5 <= score.interval[1] and abs(score.value - 0.5) < 0.08
    assert fresh["members found at 1.0% false alarms by distance"].value < 0.05


def test_copies_of_a_quarter_are_found_between_the_two(fresh: dict[str, Score], copied: dict[str, Score]) -> None:
    some = judged(np.concatenate([MEMBERS[:100], clusters(700, 5)]))
    for name in ("membership AUC by distance", "membership AUC by density"):
        assert fresh[name].value < some[name].value < copied[name].value
    found = some["members found at 0.1% false alarms by distance"]
    assert found.value == pytest.approx(0.25, abs=0.02) and found.interval is not None and found.interval[0] > 0.2


def test_records_of_a_dense_region_do_not_pass_for_members_of_the_density_attack() -> None:
    """Members that are merely typical lie near synthetic items by distance, and the reference density knows it."""
    rng = np.random.default_rng(7)
    typical, odd = rng.normal(scale=0.5, size=(300, 4)), rng.normal(scale=2, size=(600, 4))
    synthetic, both = rng.normal(scale=0.5, size=(400, 4)), np.concatenate([rng.normal(scale=0.5, size=(300, 4)), odd])
    nearest = np.linalg.norm(both[:, None] - synthetic, axis=2).min(axis=1)
    near = np.linalg.norm(typical[:, None] - synthetic, axis=2).min(axis=1)
    distance = Attack(name="distance", members=-near, others=-nearest[300:])
    density = density_ratio(
        members=typical, others=both[:300], synthetic=synthetic, reference=rng.normal(scale=0.5, size=(400, 4))
    )
    assert distance.area()[0] > 0.9 and abs(density.area()[0] - 0.5) < 0.15


def test_the_density_is_the_mean_of_gaussian_kernels_of_the_references_width() -> None:
    rng = np.random.default_rng(8)
    members, others, synthetic, reference = (rng.normal(size=(n, 3)).astype(np.float32) for n in (9, 8, 30, 40))
    apart = np.linalg.norm(reference[:, None].astype(float) - reference, axis=2)
    np.fill_diagonal(apart, np.inf)
    width = np.median(apart.min(axis=1)) / np.sqrt(3)

    def log_density(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        squares = ((queries[:, None].astype(float) - rows) ** 2).sum(axis=2)
        return np.log(np.exp(-squares / (2 * width**2)).mean(axis=1))

    attack = density_ratio(members=members, others=others, synthetic=synthetic, reference=reference)
    np.testing.assert_allclose(
        attack.members, log_density(members, synthetic) - log_density(members, reference), rtol=1e-6
    )
    np.testing.assert_allclose(
        attack.others, log_density(others, synthetic) - log_density(others, reference), rtol=1e-6
    )


def test_no_more_than_the_stated_share_of_others_lies_above_the_threshold() -> None:
    others = np.arange(1000.0)
    attack = Attack(name="a", members=np.array([988.5, 989.0, 989.5, 2000.0]), others=others)
    assert attack.found(0.01) == (0.5, pytest.approx((0.0676, 0.9324), abs=1e-4))  # ten others lie above 989
    assert attack.found(0.001) is not None and attack.found(0.001)[0] == 0.25  # type: ignore[index]
    tied = Attack(name="a", members=np.ones(10), others=np.ones(1000))
    assert tied.found(0.01) == (0.0, pytest.approx((0.0, 0.3085), abs=1e-4))


def test_a_rate_that_the_others_cannot_show_is_left_out() -> None:
    few = Attack(name="a", members=np.arange(50.0), others=np.arange(99.0))
    assert few.found(0.01) is None
    small = membership(
        members=items("m", MEMBERS), held_out=items("h", HELD_OUT[:300]), synthetic=items("s", clusters(50, 1))
    )
    assert [score.name for score in small.scores() if "found" in score.name] == [
        "members found at 1.0% false alarms by distance",
        "members found at 1.0% false alarms by density",
    ]


def test_the_balanced_accuracy_is_not_flattered_by_the_choice_of_its_threshold() -> None:
    """Over many attacks that know nothing the mean is one half; a threshold chosen on all records would be above."""
    means, flattered = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        members, others = rng.normal(size=40), rng.normal(size=40)
        means.append(Attack(name="a", members=members, others=others).balanced_accuracy()[0])
        cuts = np.concatenate([members, others])
        flattered.append(max(((members > cut).mean() + (others <= cut).mean()) / 2 for cut in cuts))
    assert abs(np.mean(means) - 0.5) < 0.025 and np.mean(flattered) > 0.56


def test_no_figure_is_ever_protected_and_each_names_its_sets(copied: dict[str, Score]) -> None:
    for score in copied.values():
        assert not score.protected
        assert (score.subject, score.reference, score.network, score.network_hash) == (
            "final population",
            "private records",
            "pixels",
            "ab",
        )
        assert (score.n, score.reference_n) == (400, 400)


def test_the_same_sets_give_the_same_figures_whatever_the_order_of_synthetic_items(fresh: dict[str, Score]) -> None:
    assert judged(clusters(800, 4)) == fresh
    backwards = judged(clusters(800, 4)[::-1])
    assert {name: score.value for name, score in backwards.items()} == pytest.approx(
        {name: score.value for name, score in fresh.items()}
    )


@pytest.mark.parametrize(
    ("members", "held_out", "synthetic", "words"),
    [
        (19, 100, 10, "private records.*at least 20 items, not 19"),
        (30, 39, 10, "held-out.*40"),
        (30, 60, 1, "final.*2"),
    ],
)
def test_too_few_of_anything_is_one_line(members: int, held_out: int, synthetic: int, words: str) -> None:
    with pytest.raises(MetricError, match=words):
        membership(
            members=items("private records", MEMBERS[:members]),
            held_out=items("held-out test", HELD_OUT[:held_out]),
            synthetic=items("final population", clusters(synthetic, 1)),
        )


def test_features_of_two_networks_and_held_out_records_that_are_all_the_same_are_refused() -> None:
    with pytest.raises(MetricError, match="two networks"):
        membership(
            members=items("m", MEMBERS),
            held_out=items("h", HELD_OUT, network="gradients"),
            synthetic=items("s", clusters(50, 1)),
        )
    with pytest.raises(MetricError, match="all the same"):
        membership(
            members=items("m", MEMBERS), held_out=items("h", np.zeros((60, 12))), synthetic=items("s", clusters(50, 1))
        )
