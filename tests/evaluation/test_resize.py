from __future__ import annotations

import warnings

import numpy as np
import pytest

from privolve.evaluation.resize import clean_resize, clean_resized


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(28, 28), (64, 48), (400, 350), (299, 299)])
def test_it_is_clean_fids(height: int, width: int) -> None:
    resize = pytest.importorskip(
        "cleanfid.resize", reason="clean-fid is not installed: pip install --no-deps clean-fid", exc_type=ImportError
    )
    image = picture(height, width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs = resize.build_resizer("clean")(image)
    ours = clean_resize(image)
    assert ours.dtype == np.float32 and ours.shape == (299, 299, 3)
    np.testing.assert_array_equal(ours, theirs)


def test_shrinking_averages_over_what_it_leaves_out() -> None:
    """Without antialiasing, every eighth row of these stripes would be all of them."""
    stripes = np.zeros((64, 64, 1), dtype=np.uint8)
    stripes[::8] = 255
    small = clean_resize(stripes, (8, 8))
    np.testing.assert_allclose(small.mean(), 255 / 8, rtol=0.1)
    assert small.std() < 10


def test_it_stays_in_range_and_is_not_rounded() -> None:
    edges = (picture(16, 16, seed=3) > 127).astype(np.uint8) * 255
    large = clean_resize(edges, (61, 47))
    assert large.shape == (47, 61, 3) and large.min() == 0 and large.max() == 255
    assert (large != large.round()).any()
    np.testing.assert_allclose(clean_resize(np.full((5, 7, 1), 93, dtype=np.uint8)), 93.0, rtol=1e-6)


def test_images_come_in_parts_and_grey_ones_as_colour() -> None:
    images = np.stack([picture(8, 8, 1, seed) for seed in range(5)])
    parts = list(clean_resized(images, (10, 12), chunk=2))
    assert [part.shape for part in parts] == [(2, 12, 10, 3), (2, 12, 10, 3), (1, 12, 10, 3)]
    np.testing.assert_array_equal(parts[2][0, :, :, 1:2], clean_resize(images[4], (10, 12)))
