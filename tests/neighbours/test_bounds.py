"""The near-tie band covers the error of every scan, and is narrow enough that few queries are settled twice."""

from __future__ import annotations

import numpy as np
import pytest

from privolve.neighbours import Distance, Index
from privolve.neighbours.bounds import UNIT32, Extent, band, gamma
from privolve.neighbours.scans import FaissScan, NumpyScan, Scan, TorchScan


def scans(points: np.ndarray, offsets: np.ndarray, distance: Distance) -> list[Scan]:
    return [
        NumpyScan(points, offsets, threads=1),
        FaissScan(pytest.importorskip("faiss"), points, distance),
        TorchScan(pytest.importorskip("torch"), points, offsets),
    ]


@pytest.mark.parametrize("distance", [Distance.L2, Distance.INNER_PRODUCT])
@pytest.mark.parametrize("shift", [0.0, 0.9])
def test_no_scan_errs_by_more_than_half_the_band(distance: Distance, shift: float) -> None:
    rng = np.random.default_rng(1)
    points = (rng.uniform(-1, 1, (60, 500)) / 2 + shift / 2).astype(np.float32)
    queries = (rng.uniform(-1, 1, (50, 500)) / 2 + shift).astype(np.float32)
    wide, far = queries.astype(np.float64), points.astype(np.float64)
    inner = distance is Distance.INNER_PRODUCT
    halves = np.zeros(60) if inner else (far * far).sum(axis=1) / 2
    true = wide @ far.T - halves
    norms = np.sqrt((wide * wide).sum(axis=1))
    most = float(np.sqrt((far * far).sum(axis=1)).max())
    extent = Extent(dimensions=500, centred=most, plain=most)
    for scan in scans(points, (-halves).astype(np.float32), distance):
        scores, columns = scan.best(queries, 60)
        width = band(norms, extent, distance, unit=UNIT32, expanded=scan.expanded)
        error = scores - np.take_along_axis(true, columns, axis=1)
        if isinstance(scan, FaissScan) and not inner:
            error -= -(norms**2 / 2)[:, None]
        assert (np.abs(error) <= width[:, None] / 2).all()
        assert np.abs(error).max() > width.max() / 1e4, "a bound so wide settles everything twice"


def test_few_queries_of_ordinary_data_need_float64() -> None:
    rng = np.random.default_rng(2)
    index = Index(rng.standard_normal((2000, 64), dtype=np.float32) + np.float32(50), backend="numpy")
    _, settled = index._scanned(rng.standard_normal((2000, 64), dtype=np.float32) + np.float32(50), 1)
    assert settled.mean() > 0.98


def test_gamma_is_highams() -> None:
    assert gamma(1000, 2.0**-24) == pytest.approx(1000 * 2**-24 / (1 - 1000 * 2**-24))
