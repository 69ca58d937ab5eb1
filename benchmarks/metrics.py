"""What the metrics of 2,048 features cost: the Frechet distance against scipy's sqrtm, precision and recall against torch-fidelity.

python benchmarks/metrics.py                         both; 10,000 x 10,000 items, each side in a process of its own
python benchmarks/metrics.py --items 4000            smaller
python benchmarks/metrics.py --only frechet          one of them

Without torch-fidelity, precision and recall are measured alone.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from privolve.evaluation.frechet import GaussianFit, frechet_distance
from privolve.evaluation.precision_recall import Balls, compare

DIMENSIONS = 2048
SETS = ((5000, 5000), (1000, 5000), (1000, 1000))
"""How many items the two sets of published statistics come from."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--only", choices=("frechet", "precision-recall"))
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        print(json.dumps(_side(asked.side, asked.items)))
        return 0
    wrong = 0
    if asked.only != "precision-recall":
        wrong += frechet()
    if asked.only != "frechet":
        precision_recall(asked.items)
    return int(wrong > 0)


def frechet() -> int:
    """From given statistics, as published ones are; returns how many sets were too slow or wrong."""
    from scipy.linalg import sqrtm

    wrong = 0
    print(f"Frechet distance of given statistics, {DIMENSIONS} dimensions")
    for n, m in SETS:
        (mean, covariance), (other_mean, other_covariance) = _statistics(n, 1), _statistics(m, 2)

        def theirs(
            one: np.ndarray = covariance,
            two: np.ndarray = other_covariance,
            offset: np.ndarray = mean - other_mean,
        ) -> float:
            root = np.real(sqrtm(one @ two))
            return float(offset @ offset + np.trace(one) + np.trace(two) - 2 * np.trace(root))

        def ours(
            one: tuple[np.ndarray, np.ndarray] = (mean, covariance),
            two: tuple[np.ndarray, np.ndarray] = (other_mean, other_covariance),
        ) -> float:
            return frechet_distance(GaussianFit.of_moments(*one), GaussianFit.of_moments(*two))

        our_s, our_value = _timed(ours)
        their_s, their_value = _timed(theirs)
        error = abs(our_value - their_value) / their_value
        print(
            f"n = {n:,} and {m:,}: sqrtm {their_s:6.2f} s   ours {our_s:6.2f} s   ratio {our_s / their_s:.3f}   "
            f"{their_value:.6g} and {our_value:.6g}, {error:.1e} apart"
        )
        wrong += our_s > their_s / 5 or error > 1e-3
    return wrong


def precision_recall(items: int) -> None:
    print(f"precision and recall, {items:,} x {items:,} x {DIMENSIONS}, k = 3; memory beyond the features and imports")
    for side in ("theirs", "ours"):
        if side == "theirs" and importlib.util.find_spec("torch_fidelity") is None:
            print("torch-fidelity is not installed")
            continue
        found = _in_its_own_process(side, items)
        print(f"{side:7} {found['seconds']:6.1f} s   {found['memory_gib']:5.2f} GiB   {found['figures']}")


def _side(side: str, items: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    real, synthetic = (rng.normal(0, spread, (items, 32)).astype(np.float32) for spread in (1.0, 0.9))
    mixing = rng.normal(0, 0.1, (32, DIMENSIONS)).astype(np.float32)
    real, synthetic = real @ mixing, synthetic @ mixing
    if side == "theirs":
        import torch

        measured = _torch_fidelity()
        before, start = _resident_bytes(), time.perf_counter()
        precision, recall = measured(torch.from_numpy(synthetic), torch.from_numpy(real), 3, 10_000)
        figures = {"precision": precision, "recall": recall}
    else:
        before, start = _resident_bytes(), time.perf_counter()
        figures = asdict(compare(Balls.of(real, 3), Balls.of(synthetic, 3)))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": seconds,
        "memory_gib": (peak - before) / 2**30,
        "figures": {name: round(value, 4) for name, value in figures.items()},
    }


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _torch_fidelity() -> Callable[..., tuple[float, float]]:
    """Its function for features alone, without torchvision, which its package imports for images."""
    import types

    spec = importlib.util.find_spec("torch_fidelity")
    assert spec is not None and spec.submodule_search_locations is not None
    package = types.ModuleType("torch_fidelity")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["torch_fidelity"] = package
    stand_in = types.ModuleType("torch_fidelity.utils")
    for name in (
        "create_feature_extractor",
        "extract_featuresdict_from_input_id_cached",
        "resolve_feature_extractor",
        "resolve_feature_layer_for_metric",
    ):
        setattr(stand_in, name, None)
    sys.modules["torch_fidelity.utils"] = stand_in
    return importlib.import_module("torch_fidelity.metric_prc").calculate_precision_recall_full


def _in_its_own_process(side: str, items: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--side", side, "--items", str(items)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _statistics(items: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of features whose variances fall by five orders, as a network's do."""
    rng = np.random.default_rng(seed)
    scales = np.geomspace(1, 10**-2.5, DIMENSIONS)
    mixing = np.linalg.qr(np.random.default_rng(0).normal(size=(DIMENSIONS, DIMENSIONS)))[0]
    rows = (rng.normal(size=(items, DIMENSIONS)) * scales * (1 + 0.1 * seed)) @ mixing + 0.01 * seed
    return rows.mean(axis=0), np.cov(rows.T)


def _timed(run: Callable[[], float]) -> tuple[float, float]:
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found


if __name__ == "__main__":
    raise SystemExit(main())
