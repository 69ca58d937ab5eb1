"""scikit-learn's handwritten digits: 1,797 real images of 8 x 8, public, played as private.

UCI's "Optical Recognition of Handwritten Digits"; the copy that scikit-learn carries. Its held-out part never votes, and
this source declares it public, because all of it is.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field, PositiveInt

from .config import ImageDataConfig
from .image_set import ArrayImages
from .labels import from_array
from .slots import Listing

FULL_INK = 16


class DigitsConfig(ImageDataConfig, frozen=True):
    """`kind = "digits"`: needs no other field."""

    kind: Literal["digits"] = "digits"
    classes: tuple[str, ...] = tuple("0123456789")
    size: tuple[PositiveInt, PositiveInt] | None = (8, 8)
    channels: Literal[1, 3] | None = 1
    holdout: float = Field(default=0.2, ge=0.0, lt=1.0)
    test: Literal["public", "private"] = "public"

    def listing(self) -> Listing:
        from sklearn.datasets import load_digits

        ink, digits = load_digits(return_X_y=True)
        images = np.rint(ink.reshape(-1, 8, 8) * (255 / FULL_INK)).astype(np.uint8)
        labels = from_array(digits, self.classes, count=len(images), where=self.where)
        return Listing(voters=ArrayImages(images, labels, ids="digits", rules=self.rules(), where=self.where))

    def survey(self) -> dict[str, Any]:
        return {"classes": self.classes, "size": self.size, "channels": self.channels}
