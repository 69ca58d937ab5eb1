"""The validation partition: slots set aside, so that a choice between models costs the training partition nothing.

Which slots is a function of their ids alone (rule 4), under a key of its own, so that this split and the held-out one
are independent. A slot set aside is in no vote and in no training: N of the training partition is what remains.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from .errors import Undeclared

VALIDATION_KEY = b"privolve: slots for validation, 1"
"""Fixed, and another one than that of the held-out slots."""


def validation_split(ids: Sequence[str], *, share: float, where: str) -> tuple[list[int], list[int]]:
    """(slots to train on, slots to validate on), each in listing order: exactly floor(share x slots) validate."""
    held = int(share * len(ids))
    if not 0 < held < len(ids):
        raise Undeclared(
            f"{where}: selection.share = {share:g} of {len(ids)} slots leaves a partition without slots; change it"
        )
    order = sorted(range(len(ids)), key=lambda slot: (_keyed_hash(ids[slot]), slot))
    return sorted(order[held:]), sorted(order[:held])


def _keyed_hash(slot_id: str) -> bytes:
    return hashlib.blake2b(slot_id.encode("utf-8", "surrogateescape"), key=VALIDATION_KEY, digest_size=16).digest()
