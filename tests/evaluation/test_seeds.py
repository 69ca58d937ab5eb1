from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from privolve.evaluation.diversity import VendiScore
from privolve.evaluation.frechet import FrechetDistance, FrechetDistanceAtInfinity
from privolve.evaluation.kernel import ClipMaximumMeanDiscrepancy, KernelInceptionDistance
from privolve.evaluation.metric import SHARE, Items, Metric, Score
from privolve.evaluation.seeds import mean_score

SCORE = Score(name="classifier accuracy", subject="final", value=0.99, protected=True, unit=SHARE)


def test_the_interval_of_a_share_stays_within_nought_and_one() -> None:
    low, high = dataclasses.replace(SCORE, value=0.01), dataclasses.replace(SCORE, value=0.97)
    assert mean_score([low, high]).interval == (0.0, 1.0)
    mean = mean_score([SCORE, dataclasses.replace(SCORE, value=0.98)])
    assert mean.interval == pytest.approx((0.985 - 12.7062 * 0.005, 1.0), rel=1e-4)
    plain = [dataclasses.replace(each, unit="") for each in (low, high)]
    interval = mean_score(plain).interval
    assert interval is not None and interval[0] < 0 and interval[1] > 1


@pytest.mark.parametrize(
    ("metric", "least"),
    [
        (FrechetDistance(), 0.0),
        (FrechetDistanceAtInfinity(), None),
        (KernelInceptionDistance(), None),
        (ClipMaximumMeanDiscrepancy(), None),
        (ClipMaximumMeanDiscrepancy(estimate="biased"), 0.0),
        (VendiScore(), 1.0),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_the_interval_of_a_figure_ends_where_its_definition_does(metric: Metric, least: float | None) -> None:
    """A distance is not negative; an estimate without bias, or of a line's end, may be."""
    rng = np.random.default_rng(0)
    real, synthetic = (Items(name=name, values=rng.normal(size=(40, 3))) for name in ("real", "synthetic"))
    score = metric(real, synthetic)
    ends = [dataclasses.replace(score, value=(least or 0.0) + value) for value in (0.1, 0.9)]
    low, high = mean_score(ends).interval or (0.0, 0.0)
    half = 12.7062 * 0.4
    assert high == pytest.approx((least or 0.0) + 0.5 + half, rel=1e-4)
    assert low == (pytest.approx(0.5 - half, rel=1e-4) if least is None else least)


def test_figures_that_rounding_put_below_their_least_value_still_have_an_interval() -> None:
    score = Score(name="Vendi score", subject="x", value=1 - 1e-12, protected=True, least=1.0)
    assert mean_score([score, score]).interval == (1.0, 1.0)
