"""What a classifier reads of `Items`: labelled images of one size, checked before any training."""

from __future__ import annotations

import numpy as np

from ..metric import Items, MetricError


def labels_of(items: Items, classes: int) -> np.ndarray:
    """The labels, all of them below `classes`; raises MetricError where there are none."""
    if items.labels is None or not len(items):
        raise MetricError(f"{items.name}: a classifier needs labelled images, and there are none")
    if int(items.labels.max()) >= classes:
        raise MetricError(f"{items.name}: label {int(items.labels.max())} of only {classes} classes")
    return items.labels


def pictures(values: np.ndarray, name: str) -> np.ndarray:
    """The images as (n, height, width, channels), without a copy: uint8, or floats in [0, 1]."""
    if values.ndim == 3:
        values = values[..., None]
    if values.ndim != 4 or not values[:1].size:
        raise MetricError(f"{name}: images are (n, height, width, channels), not an array of shape {values.shape}")
    check_pixels(values, name)
    return values


def check_pixels(values: np.ndarray, name: str) -> None:
    """Refuse what is neither uint8 nor floats in [0, 1]."""
    if values.dtype == np.uint8:
        return
    if values.dtype.kind != "f" or (values.size and not (values.min() >= 0 and values.max() <= 1)):
        raise MetricError(f"{name}: pixels are uint8 or floats in [0, 1], not {values.dtype}")


def unit_interval(values: np.ndarray) -> np.ndarray:
    """A fresh float32 copy in [0, 1]; the same bits for bytes and for the floats that they stand for."""
    if values.dtype == np.uint8:
        return values.astype(np.float32) / np.float32(255)
    return values.astype(np.float32)


def same_pictures(training: Items, test: Items) -> None:
    """Refuse to train on images of one size or colour and to test on another."""
    known, unknown = (items.values.shape[1:] + (1,) * (items.values.ndim == 3) for items in (training, test))
    if known[:2] != unknown[:2] or len(known) != len(unknown):
        raise MetricError(
            f"{training.name} has images of {training.values.shape[1:]}, {test.name} of {test.values.shape[1:]}; "
            "resize one of them"
        )
    if known != unknown:
        colours = {1: "grey", 3: "colour"}
        raise MetricError(
            f"{training.name} has {colours.get(known[2], f'{known[2]}-channel')} images and {test.name} "
            f"{colours.get(unknown[2], f'{unknown[2]}-channel')} ones; convert one of them"
        )
