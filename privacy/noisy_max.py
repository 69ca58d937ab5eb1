"""Selection by private data: which of a public list of candidates is right on the most private records.

Formal guarantee: a record adds 0 or 1 to each candidate's count, whatever it holds, so report noisy max with exponential
noise of scale 1/epsilon is epsilon-DP under zero-out and 2 epsilon under replace-one. Pure epsilons are added, never
composed as randomized response.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .mechanism import JSON, PureEpsilon
from .randomness import SecretRng

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Verdicts:
    """One row a slot, one column a candidate: 1 where the candidate is right on the slot's record; a ghost is right nowhere."""

    right: NDArray[Any]

    def parts(self) -> Iterator[bytes]:
        yield str((self.right.dtype.str, self.right.shape)).encode()
        yield np.ascontiguousarray(self.right).tobytes()


@dataclass(frozen=True, kw_only=True)
class NoisyMax:
    """Select one of `candidates`, a public list of public things fixed before any private record was read."""

    candidates: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.candidates:
            raise ValueError("there is nothing to select from: name at least one candidate")

    def with_noise(self, noise_multiplier: float, /) -> CalibratedNoisyMax:
        """Noise in units of what one record can add to a count: epsilon = 1 / noise_multiplier."""
        return CalibratedNoisyMax(candidates=self.candidates, epsilon=1 / noise_multiplier)


@dataclass(frozen=True, kw_only=True)
class CalibratedNoisyMax:
    """Reports {"selected": the index of about the best candidate}."""

    candidates: tuple[str, ...]
    epsilon: float

    @property
    def cost(self) -> PureEpsilon:
        return PureEpsilon(epsilon=self.epsilon)

    def describe(self) -> Mapping[str, JSON]:
        return {"mechanism": "noisy-max", "candidates": list(self.candidates), "epsilon": self.epsilon}

    def __call__(self, secret: SecretRng, data: Verdicts, /) -> Mapping[str, NDArray[np.int64]]:
        # Anything but exactly 1 counts as wrong, non-finite numbers among it.
        counts = np.equal(data.right, 1).sum(axis=0, dtype=np.int64)
        if counts.shape != (len(self.candidates),):
            raise ValueError(f"{counts.shape} counts for {len(self.candidates)} candidates")
        return {"selected": np.asarray([secret.noisy_max(counts, self.epsilon)], dtype=np.int64)}
