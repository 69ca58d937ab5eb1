"""Seeds: the randomness of a reply is a function of its request, `draw` included, and of nothing beside it."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from ...cache.keys import canonical_json


def seed_of(request: Any) -> int:
    """63 bits; equal requests, equal seed, in every process."""
    return int.from_bytes(blake2b(canonical_json(request).encode(), digest_size=8).digest(), "little") >> 1
