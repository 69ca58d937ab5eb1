from __future__ import annotations

import math

import numpy as np
import pytest

from privolve.evaluation.likelihood import (
    FeatureLikelihoodDivergence,
    Mixture,
    Normalisation,
    baseline_of,
    feature_likelihood,
)
from privolve.evaluation.metric import Items, MetricError
from privolve.evaluation.metric_config import References


def features(n: int, seed: int, dimensions: int = 6, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (n, dimensions))


def published_log_variances(centres: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The published procedure again, with torch's autograd and Adam in place of ours."""
    torch = pytest.importorskip("torch")
    mu, x = torch.from_numpy(centres), torch.from_numpy(rows)
    dimensions = x.shape[1]
    squares = (x[:, None] - mu[None]).square().sum(2)
    origin = 0.81 * (x - x.mean(0)).square().sum(1, keepdim=True)
    logs = ((squares.min(0).values + 1e-3) / dimensions).log().requires_grad_()
    origin_log = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logs, origin_log], lr=0.5)

    def log_density(distances, log_variance):
        return -0.5 * distances / log_variance.exp() - dimensions / 2 * (log_variance + math.log(2 * math.pi))

    for _ in range(50):
        optimiser.zero_grad()
        parts = torch.cat([log_density(squares, logs) - math.log(len(mu)), log_density(origin, origin_log)], dim=1)
        (-parts.logsumexp(1).mean() / dimensions).backward()
        optimiser.step()
        with torch.no_grad():
            logs.clamp_(-40, 20)
    return logs.detach().numpy()


def density_by_hand(centres: np.ndarray, log_variances: np.ndarray, rows: np.ndarray) -> float:
    from scipy.special import logsumexp
    from scipy.stats import multivariate_normal

    logs = np.stack(
        [multivariate_normal(c, np.exp(v)).logpdf(rows) for c, v in zip(centres, log_variances, strict=True)], axis=1
    )
    return float(-(logsumexp(logs, axis=1) - np.log(len(centres))).mean() / rows.shape[1])


def test_fld_and_gap_are_the_published_ones() -> None:
    train, test, synthetic = features(120, 1), features(80, 2), features(60, 3, shift=0.4)
    synthetic[:5] = train[:5] + 0.01  # nearly copies
    mean, deviation = test.mean(axis=0), test.std(axis=0, ddof=1)
    a, b, c = ((rows - mean) / deviation for rows in (train, test, synthetic))
    fitted = published_log_variances(c, a)
    of_test, of_train = density_by_hand(c, fitted, b), density_by_hand(c, fitted, a)
    half = density_by_hand(a[:60], published_log_variances(a[:60], a[60:]), b)
    normal = Normalisation.of(test)
    baseline = baseline_of(normal(train), normal(test), most=60)
    found = feature_likelihood(normal(train), normal(test), normal(synthetic), baseline=baseline)
    assert baseline == pytest.approx(half, rel=1e-4)
    assert found.divergence == pytest.approx(100 * (of_test - half), rel=1e-3)
    assert found.gap == pytest.approx(100 * (of_train - of_test), rel=1e-3)


def test_a_likelihood_is_that_of_the_mixture() -> None:
    centres, rows = features(7, 1, 3), features(40, 2, 3)
    mixture = Mixture(centres=centres, log_variances=np.linspace(-3, 2, 7))
    expected = density_by_hand(centres, mixture.log_variances, rows)
    assert mixture.negative_log_likelihood(rows) == pytest.approx(expected, rel=1e-9)


def test_a_copy_gets_a_tiny_variance_and_an_item_between_training_items_a_wide_one() -> None:
    train = features(200, 1)
    mixture = Mixture.fitted(np.concatenate([train[:1], np.zeros((1, 6))]), train)
    copy, middle = np.exp(mixture.log_variances)
    assert copy < 1e-3 < 0.2 < middle


def test_fresh_items_are_better_than_shifted_ones_and_copies_of_train_are_worst() -> None:
    rows = features(1000, 0)
    train, test, fresh = rows[:300], rows[300:500], rows[500:700]
    judge = FeatureLikelihoodDivergence().judge(
        References(test=Items(name="test", values=test), train=Items(name="train", values=train))
    )
    scores = {
        name: [score.value for score in judge(Items(name=name, values=values))]
        for name, values in (("fresh", fresh), ("shifted", fresh + 1.5), ("copies", train[:200]))
    }
    assert abs(scores["fresh"][0]) < 15
    assert scores["fresh"][0] + 20 < scores["shifted"][0]
    assert scores["copies"][0] > 10 * abs(scores["shifted"][0])
    assert scores["copies"][1] < -100 < -30 < scores["fresh"][1]


def test_order_does_not_matter_nor_do_the_units_of_a_feature() -> None:
    rng = np.random.default_rng(4)
    train, test, synthetic = features(90, 1), features(50, 2), features(40, 3)
    normal = Normalisation.of(test)
    expected = feature_likelihood(normal(train), normal(test), normal(synthetic), baseline=1.0).divergence
    units = rng.uniform(0.01, 100, 6)
    for a, b, c in (
        (rng.permutation(train), rng.permutation(test), rng.permutation(synthetic)),
        (train * units + 5, test * units + 5, synthetic * units + 5),
    ):
        normal = Normalisation.of(b)
        assert feature_likelihood(normal(a), normal(b), normal(c), baseline=1.0).divergence == pytest.approx(
            expected, rel=1e-5
        )


def test_a_feature_that_never_varies_is_no_trouble() -> None:
    rows = np.column_stack([features(60, 1, 3), np.full(60, 7.0)])
    normal = Normalisation.of(rows)
    assert np.isfinite(normal(rows)).all() and (normal(rows)[:, 3] == 0).all()


def test_the_scores_name_both_references_and_the_least_protection() -> None:
    test = Items(name="held-out test", values=features(30, 1), network="pixels", protected=True)
    train = Items(name="voters", values=features(40, 2), network="pixels")
    final = Items(name="final", values=features(20, 3), network="pixels", protected=True)
    divergence, gap = FeatureLikelihoodDivergence().judge(References(test=test, train=train))(final)
    assert (divergence.name, gap.name) == ("FLD", "FLD generalisation gap")
    assert divergence.reference == "held-out test and voters" and divergence.network == "pixels"
    assert not divergence.protected and not gap.protected
    with pytest.raises(MetricError, match="FLD needs the training items beside held-out test"):
        FeatureLikelihoodDivergence().judge(References(test=test))
    with pytest.raises(MetricError, match="voters: FLD needs at least 4 items, not 3"):
        few = Items(name="voters", values=features(3, 2), network="pixels")
        FeatureLikelihoodDivergence().judge(References(test=test, train=few))(final)


def test_no_more_items_are_used_than_asked_for() -> None:
    test, train = (Items(name=name, values=features(60, seed)) for name, seed in (("test", 1), ("train", 2)))
    final = Items(name="final", values=features(50, 3))
    small = FeatureLikelihoodDivergence(most_synthetic=10, most_train=20, seed=5)
    other = FeatureLikelihoodDivergence(most_synthetic=10, most_train=20, seed=6)
    references = References(test=test, train=train)
    assert small.judge(references)(final)[0].value != other.judge(references)(final)[0].value
    everything = FeatureLikelihoodDivergence().judge(references)(final)[1].value
    assert FeatureLikelihoodDivergence(seed=9).judge(references)(final)[1].value == pytest.approx(everything, rel=1e-5)
