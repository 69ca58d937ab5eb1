"""The gate: the secret source of noise as a mechanism sees it, so that nothing is drawn that was not charged."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, final

import numpy as np
from numpy.typing import NDArray

from .lattice import RESOLUTION
from .mechanism import Cost, DiscreteGaussian, PureEpsilon, SampledGaussian, ZeroConcentrated
from .randomness import SecretRng


@final
class Gate:
    """The secret source as a mechanism sees it: its first draw charges durably, and it is shut after the call.

    It gives the noise that the cost states, of that kind, at that scale, and for no more answers, or none. Of sampled steps it
    gives those after the `done` that a checkpoint holds: for each one mask at the stated probability, then lattice noise once.
    """

    def __init__(self, secret: SecretRng, cost: Cost, charge: Callable[[], None], *, done: int = 0) -> None:
        self._secret = secret
        self._cost = cost
        self._charge = charge
        self._done = done
        self._answers = 0
        self._masks = 0
        self._closed = False
        self.charged = False
        self.refusal = ""

    def discrete_gaussian(self, counts: NDArray[np.int64], scale: float) -> NDArray[np.int64]:
        cost = self._cost
        stated = isinstance(cost, ZeroConcentrated) or (isinstance(cost, DiscreteGaussian) and scale == cost.scale)
        self._pass(stated=stated, answers=cost.copies if isinstance(cost, DiscreteGaussian | ZeroConcentrated) else 0)
        return self._secret.discrete_gaussian(counts, scale)

    def gaussian(self, shape: tuple[int, ...], scale: float) -> NDArray[np.float64]:
        cost = self._cost
        sampled = isinstance(cost, SampledGaussian)
        if sampled and cost.probability < 1 and self._masks <= self._answers:
            self.refusal = self.refusal or "its mechanism answers without drawing who takes part"
        stated = sampled and scale == cost.noise_multiplier * RESOLUTION
        self._pass(stated=stated, answers=self.steps_left)
        return self._secret.gaussian(shape, scale)

    def mask(self, n: int, probability: float) -> NDArray[np.bool_]:
        stated = isinstance(self._cost, SampledGaussian) and probability == self._cost.probability
        self._pass(stated=stated, answers=self.steps_left, mask=True)
        return self._secret.mask(n, probability)

    def noisy_max(self, counts: NDArray[np.int64], epsilon: float) -> int:
        cost = self._cost
        stated = isinstance(cost, PureEpsilon) and epsilon == cost.epsilon
        self._pass(stated=stated, answers=cost.copies if isinstance(cost, PureEpsilon) else 0)
        return self._secret.noisy_max(counts, epsilon)

    @property
    def steps_left(self) -> int:
        """How many steps of a sampled cost the checkpoint leaves to be drawn; 0 for other costs."""
        return self._cost.steps - self._done if isinstance(self._cost, SampledGaussian) else 0

    def close(self) -> None:
        """No draw from here on."""
        self._closed = True

    def _pass(self, *, stated: bool, answers: int, mask: bool = False) -> None:
        """Let one draw through. `answers`: how many of its kind, masks apart from noise, the cost pays for."""
        if self._closed:
            raise RuntimeError("this source of noise is shut")
        if not stated:
            self.refusal = self.refusal or "its mechanism draws other noise than its cost states"
        elif (self._masks if mask else self._answers) >= answers:
            self.refusal = self.refusal or "its mechanism gives more answers than its cost states"
        if self.refusal:
            raise RuntimeError(self.refusal)
        if not self.charged:
            self._charge()
            self.charged = True
        if mask:
            self._masks += 1
        else:
            self._answers += 1


@final
class Masks:
    """The secret source of a process that helps with a release which another one charges: it draws masks, and no noise."""

    def __init__(self, secret: SecretRng, cost: SampledGaussian) -> None:
        self._secret = secret
        self._cost = cost
        self._masks = 0

    def mask(self, n: int, probability: float) -> NDArray[np.bool_]:
        if probability != self._cost.probability or self._masks >= self._cost.steps:
            raise RuntimeError("a helping mechanism draws other masks than its cost states")
        self._masks += 1
        return self._secret.mask(n, probability)

    def gaussian(self, shape: tuple[int, ...], scale: float) -> NDArray[np.float64]:
        self._refuse()

    def discrete_gaussian(self, counts: NDArray[np.int64], scale: float) -> NDArray[np.int64]:
        self._refuse()

    def noisy_max(self, counts: NDArray[np.int64], epsilon: float) -> int:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise RuntimeError("noise is drawn once, by the process that holds the ledger")
