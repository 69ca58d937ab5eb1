"""Local models behind the gateway, on private records: what DPITI asks of them."""

from __future__ import annotations

import numpy as np
import pytest

from privolve.adapters.local.captioner import TransformersCaptionConfig
from privolve.adapters.local.painter import DiffusersConfig
from privolve.adapters.local.vision_embedder import VisionConfig
from privolve.privacy.private import open_private

pytest.importorskip("diffusers")


def test_private_images_are_captioned_painted_and_embedded_without_trust(gateway, images, folder_of):
    roles = {
        "captioner": TransformersCaptionConfig(model=folder_of("blip"), max_tokens=5, batch_size=2),
        "painter": DiffusersConfig(model=folder_of("sdxl"), steps=1, batch_size=2),
        "eye": VisionConfig(kind="clip", model=folder_of("clip"), batch_size=2),
    }
    opened = gateway(roles)
    captions = opened.open_trusted("captioner").caption(images(3), prompt="a photo")
    painted = opened.open_trusted("painter").paint(captions, size=(9, 8), channels=3)
    voters = open_private(opened.open_trusted("eye").embed(painted))
    assert voters.embeddings.shape == (3, 24)
    assert voters.valid.all()
    assert np.isfinite(voters.embeddings).all()
    assert not opened.egress()
