from __future__ import annotations

import dataclasses

import pytest

from privolve.evaluation.metric import SHARE, Score
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
