"""Secret randomness is distributed as stated, and never repeats; public randomness always does."""

from __future__ import annotations

import ast
import copy
import math
import multiprocessing
import os
import pickle
import random
import threading
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import privolve
from privolve.privacy.audit import noise_rows
from privolve.privacy.randomness import PublicRng, SystemRng

ROOT = Path(privolve.__file__).parent
RARE = 1e-10


@pytest.fixture
def secret() -> SystemRng:
    return SystemRng()


# --- distributions: accept the right one, reject wrong ones -----------------------------------------------------------


def variance_is(noise: np.ndarray, scale: float) -> bool:
    """The variance of discrete Gaussian noise is scale^2 up to e^(-2 pi^2 scale^2); 6.5 standard deviations either way."""
    return abs(np.mean(noise.astype(float) ** 2) / scale**2 - 1) < 6.5 * math.sqrt(2 / noise.size)


def test_exact_noise_has_the_scale_asked_for_and_not_one_5_percent_off(secret: SystemRng) -> None:
    noise = secret.discrete_gaussian(np.zeros(200_000, np.int64), 4.7)
    assert variance_is(noise, 4.7)
    assert not variance_is(noise, 4.7 * 1.05) and not variance_is(noise, 4.7 / 1.05)
    assert noise_rows(noise.astype(float), 4.7, width=1000)[0].passed


@pytest.mark.slow
def test_exact_noise_has_the_scale_asked_for_and_not_one_3_percent_off(secret: SystemRng) -> None:
    noise = secret.discrete_gaussian(np.zeros(1_000_000, np.int64), 11.797)
    assert all(row.passed for row in noise_rows(noise.astype(float), 11.797, width=1000))
    for factor in (0.97, 1.03):
        assert not noise_rows(noise.astype(float), 11.797 * factor, width=1000)[0].passed
        assert not variance_is(noise, 11.797 * factor)


def test_exact_noise_of_a_small_scale_has_the_masses_of_the_discrete_gaussian(secret: SystemRng) -> None:
    noise = secret.discrete_gaussian(np.zeros(20_000, np.int64), 0.6)
    points = np.arange(-3, 4)
    masses = np.exp(-0.5 * (points / 0.6) ** 2)
    seen = np.array([np.count_nonzero(noise == point) for point in points])
    p_right = stats.chisquare(seen[1:-1], masses[1:-1] / masses[1:-1].sum() * seen[1:-1].sum()).pvalue
    wrong = np.exp(-0.5 * (points / 0.64) ** 2)[1:-1]
    p_wrong = stats.chisquare(seen[1:-1], wrong / wrong.sum() * seen[1:-1].sum()).pvalue
    assert p_right > RARE and p_wrong < RARE


def test_exact_noise_keeps_shape_type_and_large_counts(secret: SystemRng) -> None:
    counts = np.full((3, 4), 2**40, np.int64)
    noisy = secret.discrete_gaussian(counts, 2.0)
    assert noisy.shape == (3, 4) and noisy.dtype == np.int64 and np.abs(noisy - counts).max() < 100
    assert secret.discrete_gaussian(np.zeros(0, np.int64), 2.0).shape == (0,)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_exact_noise_of_no_scale_is_refused(secret: SystemRng, scale: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        secret.discrete_gaussian(np.zeros(3, np.int64), scale)


@pytest.mark.parametrize("counts", [np.zeros(3), np.zeros(3, np.int32), np.zeros(3, np.float32)])
def test_exact_noise_is_for_int64_counts_alone(secret: SystemRng, counts: np.ndarray) -> None:
    with pytest.raises(TypeError, match="int64"):
        secret.discrete_gaussian(counts, 1.0)


def test_gaussian_noise_is_normal_at_its_scale_and_at_no_other(secret: SystemRng) -> None:
    noise = secret.gaussian((500, 600), 3.0)
    assert noise.shape == (500, 600) and noise.dtype == np.float64
    sample = noise.ravel()
    assert stats.kstest(sample / 3.0, "norm").pvalue > RARE
    assert stats.kstest(sample / (3.0 * 0.95), "norm").pvalue < RARE
    assert stats.kstest(sample / (3.0 * 1.05), "norm").pvalue < RARE
    assert variance_is(sample, 3.0) and not variance_is(sample, 3.0 * 0.97) and not variance_is(sample, 3.0 * 1.03)
    assert len(np.unique(sample)) > sample.size - 5


def test_masks_are_binomial(secret: SystemRng) -> None:
    n, q = 400_000, 0.037
    mask = secret.mask(n, q)
    assert mask.dtype == np.bool_ and mask.shape == (n,)
    deviation = math.sqrt(n * q * (1 - q))
    assert abs(mask.sum() - n * q) < 6.5 * deviation
    assert abs(mask.sum() - n * q * 1.1) > 6.5 * deviation
    sizes = np.array([secret.mask(200, 0.05).sum() for _ in range(4000)])
    assert abs(sizes.var() / (200 * 0.05 * 0.95) - 1) < 6.5 * math.sqrt(2.2 / 4000)  # no fixed batch size
    inclusion = sum(secret.mask(50, 0.3).astype(int) for _ in range(4000))
    assert np.abs(inclusion - 1200).max() < 7 * math.sqrt(4000 * 0.3 * 0.7)


def test_masks_of_certain_and_impossible_draws(secret: SystemRng) -> None:
    assert secret.mask(1000, 1.0).all() and not secret.mask(1000, 0.0).any()
    assert secret.mask(0, 0.5).shape == (0,)
    assert any(not secret.mask(3, 0.01).any() for _ in range(50))  # the empty batch happens
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="probability"):
            secret.mask(3, wrong)


# --- freshness --------------------------------------------------------------------------------------------------------


def test_seeding_every_global_generator_changes_nothing() -> None:
    def draw() -> bytes:
        random.seed(0)
        np.random.seed(0)
        try:
            import torch

            torch.manual_seed(0)
        except ImportError:
            pass
        source = SystemRng()
        exact = source.discrete_gaussian(np.zeros(100, np.int64), 50.0)
        return exact.tobytes() + source.gaussian((8,), 1.0).tobytes() + source.mask(256, 0.5).tobytes()

    one, other = draw(), draw()
    assert one[:800] != other[:800] and one[800:864] != other[800:864] and one[864:] != other[864:]


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, pickle.dumps, lambda s: s.__getstate__(), lambda s: s.__reduce__()]
)
def test_a_secret_source_cannot_be_copied_or_stored(secret: SystemRng, copied) -> None:
    with pytest.raises(TypeError, match="copied"):
        copied(secret)


def test_a_secret_source_takes_no_seed_and_has_no_heirs() -> None:
    with pytest.raises(TypeError):
        SystemRng(0)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="final"):
        type("Seeded", (SystemRng,), {})
    assert not hasattr(SystemRng(), "__dict__")


def child(source: SystemRng, pipe) -> None:
    pipe.send((source.gaussian((16,), 1.0).tobytes(), source.discrete_gaussian(np.zeros(32, np.int64), 1e6).tobytes()))


def test_forked_processes_do_not_share_noise(secret: SystemRng) -> None:
    secret.gaussian((3,), 1.0)
    secret.discrete_gaussian(np.zeros(3, np.int64), 1e6)
    context = multiprocessing.get_context("fork")
    drawn = []
    for _ in range(2):
        here, there = context.Pipe()
        process = context.Process(target=child, args=(secret, there))
        process.start()
        drawn.append(here.recv())
        process.join()
    drawn.append(
        (secret.gaussian((16,), 1.0).tobytes(), secret.discrete_gaussian(np.zeros(32, np.int64), 1e6).tobytes())
    )
    assert len({real for real, _ in drawn}) == 3 and len({exact for _, exact in drawn}) == 3


def test_a_fork_in_the_middle_of_a_draw_of_another_thread_does_not_hang(secret: SystemRng) -> None:
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            secret.mask(100_000, 0.5)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                secret.mask(10, 0.5)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        stop.set()
        thread.join()


def test_threads_draw_different_noise(secret: SystemRng) -> None:
    drawn: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: drawn.append(secret.gaussian((5000,), 1.0))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(np.unique(np.concatenate(drawn))) == 40_000


# --- public randomness ------------------------------------------------------------------------------------------------


def test_public_randomness_is_a_function_of_seed_and_place() -> None:
    def at(seed: int, *path: int | str) -> int:
        return int(PublicRng(seed).at(*path).integers(2**62))

    assert at(1, "select", 3, "a") == at(1, "select", np.int64(3), "a")
    places = [(), (3,), ("3",), ("a", 1), ("a1",), ("a", "1"), (1, "a"), ("a", 1, 1), ('a", 1',)]
    values = [at(seed, *place) for seed in (0, 1) for place in places]
    assert len(set(values)) == len(values)


def test_public_randomness_keeps_its_values_across_versions() -> None:
    assert PublicRng(7).at("select", 3).integers(10**6, size=3).tolist() == [587069, 399445, 541135]


def test_a_place_is_named_by_whole_numbers_and_words() -> None:
    with pytest.raises(TypeError):
        PublicRng(0).at(1.5)  # type: ignore[arg-type]


# --- what the code may not do -----------------------------------------------------------------------------------------

GENERATORS = {"Generator", "PCG64"}
EXEMPT = {("audit.py", "_seed_global_generators")}  # it seeds them to show that nothing changes, and puts them back


def offences(path: Path) -> list[str]:
    """Uses of global or seeded generators in a file, function by function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    exempt = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and (path.name, node.name) in EXEMPT
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in exempt or not isinstance(node, ast.Attribute):
            continue
        text = ast.unparse(node)
        numpy_global = text.startswith(("np.random.", "numpy.random.")) and node.attr not in GENERATORS
        if numpy_global or text.startswith("random.") or node.attr in {"manual_seed", "default_rng", "RandomState"}:
            found.append(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in {"random", "numpy.random"}:
            found.append(f"from {node.module}")
        if isinstance(node, ast.Import) and path.name != "audit.py":
            found += [f"import {alias.name}" for alias in node.names if alias.name in {"random", "torch"}]
    return found


def test_nothing_in_privacy_uses_global_or_seeded_generators() -> None:
    assert {path.name: offences(path) for path in (ROOT / "privacy").glob("*.py") if offences(path)} == {}


def test_that_check_sees_what_it_looks_for(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("import random\nimport numpy as np\nnp.random.normal()\nrandom.seed(0)\nnp.random.default_rng(0)\n")
    assert len(offences(bad)) >= 4
