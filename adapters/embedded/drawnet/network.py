"""The network itself, in numpy: five convolutions, the mean over places, and a linear layer of classes.

Each image is multiplied by itself, in products of one shape: its features have the same bits whatever is sent beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .pictures import SIDE

STRIDES = (1, 2, 2, 1, 2)
WIDTHS = (3, 16, 32, 64, 96, 128)
FEATURES = WIDTHS[-1]
CHUNK = 16
"""Images at once: as many as stay in a core's cache."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """float32 `kernels` (9 * channels in, channels out), rows by place and then channel; `biases`; the classes' layer."""

    kernels: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    class_weights: np.ndarray
    class_bias: np.ndarray

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray]) -> Network:
        """From the arrays of the file of weights."""
        single = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in arrays.items()}
        return cls(
            kernels=tuple(single[f"kernel_{layer}"] for layer in range(len(STRIDES))),
            biases=tuple(single[f"bias_{layer}"] for layer in range(len(STRIDES))),
            class_weights=single["class_weights"],
            class_bias=single["class_bias"],
        )

    def features(self, images: np.ndarray) -> np.ndarray:
        """Of uint8 (n, 32, 32, 3): float32 (n, 128), >= 0."""
        found = np.empty((len(images), FEATURES), dtype=np.float32)
        for start in range(0, len(images), CHUNK):
            values = images[start : start + CHUNK].astype(np.float32) / np.float32(255) - np.float32(0.5)
            for kernel, bias, stride in zip(self.kernels, self.biases, STRIDES, strict=True):
                values = _convolved(values, kernel, bias, stride)
            found[start : start + CHUNK] = values.mean(axis=(1, 2))
        return found

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Of features (n, 128): float64 (n, classes), rows that sum to 1."""
        logits = features.astype(np.float64) @ self.class_weights + self.class_bias
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)


def _convolved(values: np.ndarray, kernel: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """A convolution of 3 x 3 with a border of zeros, and the positive part; channels last."""
    count, height, width, channels = values.shape
    rows, columns = height // stride, width // stride
    padded = np.zeros((count, height + 2, width + 2, channels), dtype=np.float32)
    padded[:, 1:-1, 1:-1] = values
    places = np.empty((count, rows, columns, 9, channels), dtype=np.float32)
    for place in range(9):
        down, right = divmod(place, 3)
        places[:, :, :, place] = padded[
            :, down : down + stride * rows : stride, right : right + stride * columns : stride
        ]
    product = np.matmul(places.reshape(count, rows * columns, 9 * channels), kernel)
    product += bias
    np.maximum(product, 0, out=product)
    return product.reshape(count, rows, columns, kernel.shape[1])


def fitted(pixels: np.ndarray) -> np.ndarray:
    """A uint8 image of any size, grey or colour, as the network reads it: (32, 32, 3), larger ones averaged."""
    height, width, channels = pixels.shape
    if (width, height) != (SIDE, SIDE):
        from PIL import Image as Pillow

        planes = [Pillow.fromarray(np.ascontiguousarray(pixels[:, :, channel])) for channel in range(channels)]
        resized = [np.asarray(plane.resize((SIDE, SIDE), Pillow.Resampling.BILINEAR)) for plane in planes]
        pixels = np.stack(resized, axis=2)
    return pixels if channels == 3 else np.repeat(pixels, 3, axis=2)
