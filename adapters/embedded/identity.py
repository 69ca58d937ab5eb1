"""Who answers: an embedded model's identity is its kind, the revision of its code and a digest of its options."""

from __future__ import annotations

import hashlib

from ..contract import AdapterConfig, ModelIdentity

REVISION = 1
"""Raised whenever an embedded model answers an old request in a new way, so that no saved reply stands in for it."""


def identity_of(config: AdapterConfig) -> ModelIdentity:
    """Equal options, equal identity, in every process."""
    options = hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:16]
    return ModelIdentity(provider="privolve", model=config.kind, revision=f"{REVISION}-{options}")
