from __future__ import annotations

import numpy as np
import pytest

from privolve.evaluation.canaries import Exposure, exposure
from privolve.evaluation.metric import Items, MetricError, Score


def items(name: str, values: np.ndarray, *, network: str = "pixels") -> Items:
    return Items(name=name, values=values.astype(np.float32), network=network, protected=True)


def noise(n: int, seed: int) -> np.ndarray:
    """Canaries: random points, unlike anything else."""
    return np.random.default_rng(seed).uniform(0, 10, size=(n, 6))


PLANTED, REFERENCES = noise(24, 1), noise(511, 2)


def judged(synthetic: np.ndarray) -> Exposure:
    return exposure(
        planted=items("canaries", PLANTED),
        references=items("references", REFERENCES),
        synthetic=items("final", synthetic),
    )


def score(found: Exposure, name: str, subject: str = "final") -> Score:
    (only,) = [each for each in found.scores() if (each.name, each.subject) == (name, subject)]
    return only


def test_canaries_that_were_copied_have_the_largest_exposure_that_the_references_can_show() -> None:
    found = judged(np.concatenate([noise(300, 3), PLANTED + 0.01]))
    assert found.exposures.tolist() == [9.0] * 24  # log2(512)
    assert score(found, "mean canary exposure").value == found.largest_possible == 9.0
    assert score(found, "canaries nearer than references").value == 1.0
    largest = score(found, "largest canary exposure")
    assert largest.interval is not None and 5 < largest.interval[0] < largest.interval[1] == 9.0


def test_canaries_that_nothing_remembers_are_exposed_as_the_unplanted_are() -> None:
    found = judged(noise(300, 5))
    mean, nothing = score(found, "mean canary exposure"), score(found, "mean canary exposure", "canaries never planted")
    assert mean.interval is not None and mean.interval[0] <= nothing.value <= mean.interval[1] < 3
    assert nothing.value == pytest.approx(1.43, abs=0.01)
    share = score(found, "canaries nearer than references")
    assert share.interval is not None and share.interval[0] <= 0.5 <= share.interval[1]


def test_the_interval_of_the_mean_covers_that_of_no_memory_nearly_always_when_there_is_none() -> None:
    covered = 0
    for seed in range(40):
        distances = np.random.default_rng(seed).exponential(size=240)
        found = Exposure(
            planted=distances[:40],
            references=distances[40:],
            subject="s",
            reference="r",
            network="",
            network_hash="",
            n=1,
        )
        interval = score(found, "mean canary exposure", "s").interval
        covered += interval is not None and interval[0] <= found.expected_of_nothing <= interval[1]
    assert 32 <= covered <= 40


def test_one_copied_canary_among_many_shows_in_the_largest_exposure() -> None:
    found = judged(np.concatenate([noise(300, 4), PLANTED[5:6]]))
    assert score(found, "largest canary exposure").value == 9.0
    assert score(found, "mean canary exposure").value < 3


def test_the_exposure_is_the_definition_and_the_mean_over_all_ranks_is_the_unplanteds() -> None:
    base = {"subject": "s", "reference": "r", "network": "", "network_hash": "", "n": 1}
    found = Exposure(planted=np.array([0.5, 1.5, 2.0, 9.0]), references=np.array([1.0, 2.0, 3.0]), **base)
    assert found.exposures.tolist() == pytest.approx([2.0, 1.0, np.log2(4 / 3), 0.0])  # ranks 1, 2, 3 (a tie), 4
    every = Exposure(planted=np.arange(4) + 0.5, references=np.array([1.0, 2.0, 3.0]), **base)
    assert every.exposures.mean() == pytest.approx(every.expected_of_nothing)


def test_an_interval_holds_its_figure_and_no_figure_is_protected() -> None:
    for synthetic in (noise(300, 4), PLANTED, PLANTED[:1]):
        for each in judged(synthetic).scores():
            assert not each.protected and each.reference_n == 24
            assert each.interval is None or each.interval[0] <= each.value <= each.interval[1]


def test_too_few_references_and_other_networks_are_refused() -> None:
    with pytest.raises(MetricError, match="references: canary exposure needs at least 10 items, not 9"):
        exposure(
            planted=items("c", PLANTED), references=items("references", REFERENCES[:9]), synthetic=items("s", PLANTED)
        )
    with pytest.raises(MetricError, match="two networks"):
        exposure(
            planted=items("c", PLANTED),
            references=items("references", REFERENCES),
            synthetic=items("s", PLANTED, network="gradients"),
        )
