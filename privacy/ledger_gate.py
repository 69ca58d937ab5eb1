"""The gate: the secret source of noise as a mechanism sees it, so that nothing is drawn that was not charged."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np
from numpy.typing import NDArray

from .mechanism import Cost, DiscreteGaussian, PureEpsilon, SampledGaussian, ZeroConcentrated
from .randomness import SecretRng


@final
class Gate:
    """The secret source as a mechanism sees it: its first draw charges durably, and it is shut after the call.

    It gives the noise that the cost states, of that kind, at that scale, and for no more answers, or none.
    """

    def __init__(self, secret: SecretRng, cost: Cost, charge: Callable[[], None]) -> None:
        self._secret = secret
        self._cost = cost
        self._charge = charge
        self._answers = 0
        self._closed = False
        self.charged = False
        self.refusal = ""

    def discrete_gaussian(self, counts: NDArray[np.int64], scale: float) -> NDArray[np.int64]:
        cost = self._cost
        stated = isinstance(cost, ZeroConcentrated) or (isinstance(cost, DiscreteGaussian) and scale == cost.scale)
        self._pass(stated=stated, answers=cost.copies if isinstance(cost, DiscreteGaussian | ZeroConcentrated) else 0)
        return self._secret.discrete_gaussian(counts, scale)

    def gaussian(self, shape: tuple[int, ...], scale: float) -> NDArray[np.float64]:
        self._pass(stated=isinstance(self._cost, SampledGaussian))
        return self._secret.gaussian(shape, scale)

    def mask(self, n: int, probability: float) -> NDArray[np.bool_]:
        self._pass(stated=isinstance(self._cost, SampledGaussian) and probability <= self._cost.probability)
        return self._secret.mask(n, probability)

    def noisy_max(self, counts: NDArray[np.int64], epsilon: float) -> int:
        cost = self._cost
        stated = isinstance(cost, PureEpsilon) and epsilon == cost.epsilon
        self._pass(stated=stated, answers=cost.copies if isinstance(cost, PureEpsilon) else 0)
        return self._secret.noisy_max(counts, epsilon)

    def close(self) -> None:
        """No draw from here on."""
        self._closed = True

    def _pass(self, *, stated: bool, answers: int | None = None) -> None:
        """Let one draw through. `answers`: how many of them the cost pays for, if that can be counted."""
        if self._closed:
            raise RuntimeError("this source of noise is shut")
        if not stated:
            self.refusal = self.refusal or "its mechanism draws other noise than its cost states"
        elif answers is not None and self._answers >= answers:
            self.refusal = self.refusal or "its mechanism gives more answers than its cost states"
        if self.refusal:
            raise RuntimeError(self.refusal)
        if not self.charged:
            self._charge()
            self.charged = True
        self._answers += 1
