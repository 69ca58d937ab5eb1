"""Can this run work? Expected votes against noise, from public numbers alone.

Model: within a label, the candidate in place r of popularity gets votes in proportion to 1/r (Zipf), as nearest-neighbour
votes crowd on few candidates; the simulated votes get the noise of the release, and the candidates with most noisy votes
win. A winner is picked by noise if its noise exceeds its true votes. The generator has a fixed seed, so equal numbers
give equal answers; nothing here has seen a record.

Known points: DPITI's LSUN run (300,000 voters, 14,000 candidates, noise 11) works; its Cat run (200 voters, 1,400
candidates, noise 7.8) cannot: seven of eight winners have no true vote at all, as in a random choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

Verdict = Literal["fine", "weak", "cannot work"]
WEAK = 0.5
HOPELESS = 0.75
REPEATS = 24
HALVINGS = 12


@dataclass(frozen=True, kw_only=True)
class Signal:
    """Expected votes of a candidate, the noise on them, and what that does to the winners.

    `noise_share`: the expected share of winners whose noise exceeds their true votes. `voteless_share`: the expected share
    of winners without any true vote.
    """

    expected_votes: float
    scale: float
    noise_share: float
    voteless_share: float
    verdict: Verdict
    advice: str


def signal(
    *,
    voters: int,
    candidates: Sequence[int],
    selected: Sequence[int],
    scale: float,
    shares: Sequence[float] | np.ndarray | None = None,
    neighbours: int = 1,
    iterations: int = 1,
) -> Signal:
    """The signal of one release: `candidates` and `selected` per label, label `shares` of the voters (default: by candidates).

    `scale` is the parameter of the noise on a count, as the calibrated histogram has it for all `iterations`.
    """
    if shares is None:
        shares = np.array(candidates, dtype=np.float64) / sum(candidates)
    voting = [round(float(share) * voters) for share in shares]
    labels = [label for label in zip(voting, candidates, selected, strict=True) if label[2] > 0]
    if not labels:
        raise ValueError("no label has candidates to be selected; there is no signal to speak of")

    def noise_share(*, pool: float = 1.0, noise: float = 1.0) -> tuple[float, float]:
        wins = [_winners(n, _part(c, pool), _part(s, pool), neighbours, scale * noise) for n, c, s in labels]
        return tuple(np.average(wins, axis=0, weights=[_part(s, pool) for _, _, s in labels]).tolist())  # type: ignore[return-value]

    by_noise, voteless = noise_share()
    expected = voters * neighbours / sum(candidates)
    verdict: Verdict = "cannot work" if by_noise >= HOPELESS else "weak" if by_noise >= WEAK else "fine"
    advice = _said(by_noise, expected, scale, verdict)
    if verdict != "fine":
        fewest = min(c for _, c, _ in labels)
        smaller = _halvings(lambda part: noise_share(pool=part)[0] if _part(fewest, part) > 1 else 1.0)
        quieter = _halvings(lambda part: noise_share(noise=part)[0])
        advice += _way_out(smaller, quieter, sum(candidates), iterations)
    return Signal(
        expected_votes=expected,
        scale=scale,
        noise_share=by_noise,
        voteless_share=voteless,
        verdict=verdict,
        advice=advice,
    )


@lru_cache(maxsize=4096)
def _winners(voters: int, candidates: int, selected: int, neighbours: int, scale: float) -> tuple[float, float]:
    """(share of winners picked by noise, share of winners without a true vote), one label, simulated."""
    rng = np.random.default_rng(0)
    popularity = 1 / np.arange(1, candidates + 1)
    popularity /= popularity.sum()
    by_noise = voteless = 0.0
    for _ in range(REPEATS):
        votes = np.minimum(rng.multinomial(voters * neighbours, popularity), voters)
        noise = rng.normal(0.0, scale, candidates)
        winners = np.argpartition(-(votes + noise), selected - 1)[:selected]
        by_noise += float((noise[winners] > votes[winners]).mean())
        voteless += float((votes[winners] == 0).mean())
    return by_noise / REPEATS, voteless / REPEATS


def _part(count: int, part: float) -> int:
    return max(1, round(count * part))


def _halvings(noise_share: Callable[[float], float]) -> int | None:
    """How often the pool, or the noise, must be halved until noise picks less than half of the winners."""
    return next((n for n in range(1, HALVINGS + 1) if noise_share(0.5**n) < WEAK), None)


def _said(by_noise: float, expected: float, scale: float, verdict: Verdict) -> str:
    opening = {
        "fine": "The votes outweigh the noise for most winners",
        "weak": "The votes are weak against the noise",
        "cannot work": "This cannot work, for the noise drowns the votes",
    }[verdict]
    return (
        f"{opening}: {expected:.3g} votes a candidate are expected against noise of {scale:.3g}, "
        f"so about {by_noise:.0%} of the winners owe more to noise than to votes."
    )


def _way_out(smaller: int | None, quieter: int | None, candidates: int, iterations: int) -> str:
    ways: list[str] = []
    if smaller is not None:
        ways.append(f"make about {max(1, candidates // 2**smaller):,} candidates instead of {candidates:,}")
    if quieter is not None:
        ways.append(f"give about {2**quieter} times the epsilon")
        if iterations >= 4**quieter:
            fewer = iterations // 4**quieter
            ways.append(f"run {fewer} iteration{'s' if fewer > 1 else ''} instead of {iterations}")
    if not ways:
        return " These voters are too few at this noise, whatever the settings: use more records or much more epsilon."
    return f" To help: {', or '.join(ways)}."
