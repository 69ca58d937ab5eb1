"""Two kinds of randomness that cannot be exchanged: secret (noise, masks) and public (everything else).

Secret randomness comes from a ChaCha20 key stream keyed by the operating system, and for discrete noise from OpenDP's
exact sampler, which draws its own. It has no seed: whoever can repeat the noise can subtract it.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportPrivateImportUsage=false

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
from fractions import Fraction
from functools import lru_cache
from operator import index
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class SecretRng(Protocol):
    """A cryptographic source for noise and masks. It has no seed and no state to read; tests have their own."""

    def discrete_gaussian(self, counts: NDArray[np.int64], scale: float) -> NDArray[np.int64]:
        """`counts` plus independent discrete Gaussian noise of parameter `scale`, exactly distributed."""
        ...

    def gaussian(self, shape: tuple[int, ...], scale: float) -> NDArray[np.float64]:
        """Independent normal noise of standard deviation `scale`; for the lattice, see `lattice.py`."""
        ...

    def mask(self, n: int, probability: float) -> NDArray[np.bool_]:
        """`n` independent bits, each true with `probability`."""
        ...

    def noisy_max(self, counts: NDArray[np.int64], epsilon: float) -> int:
        """The index of about the largest count, where a record adds at most 1 to each: pure `epsilon` under zero-out."""
        ...


@final
class SystemRng:
    """The `SecretRng` of every release: ChaCha20 keyed by the operating system, with a new key in every process.

    It cannot be seeded, copied or pickled, so that no two places draw the same noise.
    """

    __slots__ = ("__drawn", "__key_stream", "__lock", "__process")

    def __init_subclass__(cls, **_: Any) -> NoReturn:
        raise TypeError("SystemRng is final")

    def __init__(self) -> None:
        self.__rekey()

    def discrete_gaussian(self, counts: NDArray[np.int64], scale: float) -> NDArray[np.int64]:
        if counts.dtype != np.int64:
            raise TypeError(f"exact noise is for int64 counts, not {counts.dtype}")
        if not 0 < scale < math.inf:
            raise ValueError(f"the noise scale is {scale}; it must be a finite number above 0")
        noise = _exact_gaussian(float(scale))([0] * counts.size)
        return counts + np.asarray(noise, dtype=np.int64).reshape(counts.shape)

    def gaussian(self, shape: tuple[int, ...], scale: float) -> NDArray[np.float64]:
        """By inversion of 64 bits, sign and tail probability apart: tails reach 9.2 standard deviations."""
        from scipy.special import ndtri

        if not 0 <= scale < math.inf:
            raise ValueError(f"the noise scale is {scale}; it must be a finite number of at least 0")
        words = self.__words(math.prod(shape))
        tail = ((words >> np.uint64(1)).astype(np.float64) + 0.5) * 2.0**-64
        sign = np.where(words & np.uint64(1), 1.0, -1.0)
        return (np.asarray(ndtri(tail), dtype=np.float64) * sign * scale).reshape(shape)

    def mask(self, n: int, probability: float) -> NDArray[np.bool_]:
        """By comparing 64 bits with the probability rounded down to a multiple of 2^-64."""
        if not 0 <= probability <= 1:
            raise ValueError(f"the probability is {probability}; it must lie in [0, 1]")
        threshold = int(Fraction(probability) * 2**64)
        words = self.__words(n)
        return np.ones(n, dtype=np.bool_) if threshold == 2**64 else words < np.uint64(threshold)

    def noisy_max(self, counts: NDArray[np.int64], epsilon: float) -> int:
        if counts.dtype != np.int64:
            raise TypeError(f"selection is by int64 counts, not {counts.dtype}")
        if not 0 < epsilon < math.inf:
            raise ValueError(f"epsilon is {epsilon}; it must be a finite number above 0")
        return int(_noisy_max(float(epsilon))(counts.tolist()))

    def __words(self, count: int) -> NDArray[np.uint64]:
        if os.getpid() != self.__process:
            self.__rekey()
        with self.__lock:
            self.__drawn += 8 * count
            if self.__drawn > _KEY_LIFE_BYTES:
                self.__key_stream, self.__drawn = _fresh_key_stream(), 8 * count
            pieces = [
                self.__key_stream.update(bytes(8 * min(count - start, _PIECE_WORDS)))
                for start in range(0, count, _PIECE_WORDS)
            ]
        return np.frombuffer(b"".join(pieces), dtype="<u8").astype(np.uint64)

    def __rekey(self) -> None:
        self.__lock = threading.Lock()
        self.__key_stream, self.__drawn = _fresh_key_stream(), 0
        self.__process = os.getpid()

    def __repr__(self) -> str:
        return "<SystemRng>"

    def __refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a SystemRng cannot be copied or stored: its noise would repeat. Make a new one")

    __copy__ = __refuse
    __deepcopy__ = __refuse
    __reduce__ = __refuse  # type: ignore[assignment]
    __reduce_ex__ = __refuse  # type: ignore[assignment]
    __getstate__ = __refuse  # type: ignore[assignment]


class PublicRng:
    """Public randomness by place, so that a run that starts anywhere draws what an undisturbed run would have drawn."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def at(self, *path: int | str) -> np.random.Generator:
        """The generator of one place, such as `at("select", 3, label)`: a function of seed and path alone."""
        place = [index(self.seed), *(step if isinstance(step, str) else index(step) for step in path)]
        digest = hashlib.sha256(b"privolve public randomness 1\0" + json.dumps(place).encode()).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


_KEY_LIFE_BYTES = 2**33  # far below the 2^38 bytes of one ChaCha20 nonce
_PIECE_WORDS = 2**23


def _fresh_key_stream() -> Any:
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

    return Cipher(ChaCha20(os.urandom(32), bytes(16)), mode=None).encryptor()


@lru_cache(maxsize=64)
def _exact_gaussian(scale: float) -> Any:
    """OpenDP's measurement that adds exact discrete Gaussian noise to integers."""
    dp = _opendp()
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64")
    return dp.m.make_gaussian(*space, scale=scale)


@lru_cache(maxsize=64)
def _noisy_max(epsilon: float) -> Any:
    """OpenDP's report noisy max on counts that a record can only raise, each by at most 1."""
    dp = _opendp()
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.linf_distance(T="i64", monotonic=True)
    measurement = dp.m.make_noisy_max(*space, dp.max_divergence(), scale=1 / epsilon)
    while measurement.map(1) > epsilon:
        epsilon = math.nextafter(epsilon, 0)
        measurement = dp.m.make_noisy_max(*space, dp.max_divergence(), scale=1 / epsilon)
    return measurement


def _opendp() -> Any:
    import opendp.prelude as dp

    dp.enable_features("contrib")
    return dp
