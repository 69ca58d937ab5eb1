"""Content for pages: scikit-learn's digits stand in for synthetic images, and captions try what captions could try."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from privolve.evaluation.comparison import Cell, Comparison, Group, Samples
from privolve.evaluation.metric import Score
from privolve.evaluation.report.content import (
    Ancestor,
    Claim,
    Curve,
    Gallery,
    Lineage,
    ModelUse,
    Picture,
    ReportData,
    RunFacts,
    Series,
    SignalRow,
)

HOSTILE = "a <script>alert(1)</script> & \"quoted\" 'seven' </style><img src=http://127.0.0.1:9/x onerror=alert(1)>"
LONG = "a bold upright seven with a long crossbar and a soft blur, drawn by a steady hand on a dark ground, " * 4
SECRET = 0.7312345


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Real handwritten digits, uint8 (1797, 8, 8), and their labels."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    return (loaded.images * (255 / 16)).round().astype(np.uint8), loaded.target.astype(np.int64)


@pytest.fixture(scope="session")
def torch_fidelity() -> SimpleNamespace:
    """torch-fidelity's modules of metrics on features: `fid`, `kid`, `isc`, `prc`.

    Its package imports torchvision for what touches images; that part is left out, and nothing stays in sys.modules.
    """
    spec = importlib.util.find_spec("torch_fidelity")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("torch-fidelity is not installed: pip install --no-deps torch-fidelity")
    package, images = types.ModuleType("torch_fidelity"), types.ModuleType("torch_fidelity.utils")
    package.__path__ = list(spec.submodule_search_locations)
    images.__getattr__ = lambda name: None  # type: ignore[method-assign]
    before = _set_aside_torch_fidelity()
    sys.modules.update({"torch_fidelity": package, "torch_fidelity.utils": images})
    try:
        found = {
            name: importlib.import_module(f"torch_fidelity.metric_{name}") for name in ("fid", "kid", "isc", "prc")
        }
    finally:
        _set_aside_torch_fidelity()
        sys.modules.update(before)
    return SimpleNamespace(**found)


def _set_aside_torch_fidelity() -> dict[str, types.ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] == "torch_fidelity"]
    return {name: sys.modules.pop(name) for name in names}


@pytest.fixture(scope="session")
def shared_images() -> Path:
    """The folder of real sets that lies beside a checkout of ours."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "images"
    if not folder.is_dir():
        pytest.skip("there are no real data sets beside the project: ../shared/data/images")
    return folder


@pytest.fixture(scope="session")
def page_of(digits: tuple[np.ndarray, np.ndarray]) -> Callable[..., ReportData]:
    """Makes a full page: so many iterations, labels and scores; with hostile and long texts, or without."""

    def make(*, iterations: int = 4, labels: int = 10, hostile: bool = True, captions: bool = True) -> ReportData:
        images, targets = digits
        classes = [str(n) for n in range(10)] if labels == 10 else [chr(ord("A") + n) for n in range(labels)]
        words = [
            HOSTILE if hostile and n % 9 == 4 else LONG if hostile and n % 9 == 7 else f"a thin {classes[n % labels]}"
            for n in range(len(images))
        ]
        rng = np.random.default_rng(7)
        galleries = []
        for step in range(iterations + 1):
            rows = rng.permutation(len(images))[: 30 * labels]
            blurred = [
                np.clip(images[row] + rng.normal(0, 90 / (1 + step), (8, 8)), 0, 255).astype(np.uint8) for row in rows
            ]
            galleries.append(
                Gallery.of(
                    "Initial" if step == 0 else f"Iteration {step}",
                    classes=classes,
                    labels=targets[rows] if labels == 10 else rows % labels,
                    images=np.stack(blurred),
                    captions=[words[row] for row in rows] if captions else None,
                )
            )
        xs = list(range(iterations + 1))
        return ReportData(
            title="Handwritten digits by Private Evolution",
            subtitle="1,200 real images of ten digits, 4 releases, image voting. No private record left this machine.",
            claim=Claim(
                text="Publishing, together, all releases listed here (ledger digits, entries 1 to 14, head 3f9a…c2; voting "
                "partition; later releases add) satisfies (1.0, 1e-5)-DP: replacing any one image of the N = 1,200 slots "
                "by a ghost without effect changes the probability of any event of the outputs by at most a factor "
                "e^epsilon, plus delta.",
                epsilon=1.0,
                delta=1e-5,
                replace_one=1.9634,
                unit="image",
                assumptions=(
                    "Ideal randomness; noise: exact discrete Gaussian, from a CSPRNG.",
                    "Unmodified code at commit 3fa9c1e; the ledger was not rolled back or copied.",
                    "Every model and public set was made without these records, or by an entry of this ledger.",
                )
                + ((HOSTILE,) if hostile else ()),
                note="Public data played as private: this is the epsilon that a single release would have.",
            ),
            galleries=tuple(galleries),
            curves=(
                Curve(
                    title="Accuracy by iteration",
                    x_label="Iteration",
                    y_label="Accuracy",
                    protected=True,
                    description="Classifier trained on synthetic images, tested on held-out real ones.",
                    series=(
                        Series(name="Final population", x=xs, y=[0.41 + 0.4 * (1 - 2.0**-x) for x in xs]),
                        Series(name="Random selection", x=xs, y=[0.41 + 0.01 * (x % 2) for x in xs]),
                        Series(name="Real training set", x=xs, y=[0.957] * len(xs)),
                    ),
                ),
                Curve(
                    title="Frechet distance to the voters",
                    x_label="Iteration",
                    y_label="Distance",
                    protected=False,
                    series=(Series(name="Frechet to voters", x=xs, y=[SECRET * 10 / (1 + x) for x in xs]),),
                ),
            ),
            signal=tuple(
                SignalRow(
                    name=f"Histogram {step}",
                    expected_votes=12.0 / step,
                    noise_scale=7.18,
                    noise_share=0.04 * step,
                    advice="The last releases are close to the noise: fewer candidates or fewer iterations would help.",
                )
                for step in range(1, iterations + 1)
            ),
            lineages=tuple(
                Lineage(
                    label=classes[label],
                    steps=tuple(
                        Ancestor(
                            when="Initial" if step == 0 else f"Iteration {step}",
                            picture=Picture(
                                pixels=images[label * 20 + step],
                                caption=(
                                    f"a {('thin', 'slanted', 'soft')[step % 3]} {classes[label]}, drawn with a pen"
                                    if captions
                                    else ""
                                ),
                            ),
                        )
                        for step in range(iterations + 1)
                    ),
                )
                for label in range(min(4, labels))
            ),
            models=(
                ModelUse(
                    role="writer",
                    kind="lexicon",
                    model="lexicon 1",
                    location="local",
                    saw_private=False,
                    asked=9800,
                    from_cache=0,
                    sent=9800,
                    refused=0,
                ),
                ModelUse(
                    role="painter",
                    kind="openai",
                    model="gpt-image-1-mini-with-a-very-long-name-2026-04-01",
                    location="remote",
                    saw_private=False,
                    asked=9800,
                    from_cache=120,
                    sent=9680,
                    refused=3,
                    cost="$ 4.12",
                ),
                ModelUse(
                    role="eye",
                    kind="gradients",
                    model="gradients 1",
                    location="local",
                    saw_private=True,
                    asked=1200,
                    from_cache=77001,
                    sent=77002,
                    refused=77003,
                    cost="$ 77.04",
                ),
            ),
            scores=(
                *(
                    Score(
                        name="classifier accuracy",
                        subject=subject,
                        value=value,
                        protected=True,
                        better="higher",
                        unit="share",
                        network="logistic regression on pixels",
                        reference="held-out test",
                        n=n,
                        reference_n=597,
                        interval=interval,
                        repeats=5 if interval else 1,
                    )
                    for subject, value, n, interval in (
                        ("final population", 0.8123, 1000, (0.79, 0.834)),
                        ("initial population", 0.412, 1000, None),
                        ("random selection", 0.4188, 1000, None),
                    )
                ),
                Score(
                    name="classifier accuracy",
                    subject="real training set",
                    value=SECRET,
                    protected=False,
                    better="higher",
                    unit="share",
                    network="logistic regression on pixels",
                    reference="held-out test",
                    n=1200,
                    reference_n=597,
                ),
                Score(
                    name="Frechet distance",
                    subject="final population",
                    value=31.4,
                    protected=True,
                    better="lower",
                    network="gradients",
                    network_hash="9f86d081884c7d65",
                    reference="held-out test",
                    n=1000,
                    reference_n=597,
                ),
                Score(
                    name="unprotected-only metric",
                    subject="final population",
                    value=SECRET,
                    protected=False,
                    network="gradients",
                    reference="voters",
                    n=1000,
                    reference_n=1200,
                ),
            ),
            facts=RunFacts(
                run="2026-11-22-dpiti-digits-3fa9",
                date="2026-11-22",
                commit="3fa9c1e",
                versions={"privolve": "0.1.0", "opendp": "0.16.0", "dp-accounting": "0.6.0"},
                duration_s=77.05,
            ),
            verify="privolve verify experiments/2026-11-22-dpiti-digits-3fa9",
        )

    return make


@pytest.fixture(scope="session")
def comparison_of(digits: tuple[np.ndarray, np.ndarray]) -> Callable[..., Comparison]:
    """Makes a comparison: on MNIST's names, so that published figures stand beside it, with everything that may not leave."""
    images, targets = digits

    def make(*, seeds: int = 3, hostile: bool = True, epsilons: tuple[float, ...] = (1.0, 10.0)) -> Comparison:
        rng = np.random.default_rng(3)

        def score(name: str, value: float, **more) -> Score:
            network = {"classifier accuracy": "WRN-40-4", "Frechet distance": "inception-v3-fid"}.get(name, "pixels")
            given = {
                "network": network,
                "reference": "held-out test",
                "n": 1000,
                "reference_n": 359,
                "subject": "final",
            }
            shares = {"unit": "share", "better": "higher"} if "accuracy" in name else {"better": "lower"}
            return Score(name=name, value=value, **{**given, **shares, "protected": True, **more})

        def cell(method: str, epsilon: float | None, level: float, seed: int = 0, **more) -> Cell:
            protected = more.get("kind") != "ceiling"
            scores = [
                score("classifier accuracy", level + 0.01 * rng.normal(), protected=protected),
                score("Frechet distance", 40 * (1 - level) + rng.normal(), protected=protected),
                score("expected calibration error", 0.1 + 0.02 * rng.random(), protected=protected),
                score("classifier accuracy (oracle selection)", SECRET, protected=False),
                score("membership advantage", SECRET, protected=False, reference="private records"),
            ]
            rows = rng.permutation(len(images))[:200]
            noisy = np.clip(images[rows] + rng.normal(0, 120 * (1 - level), (200, 8, 8)), 0, 255).astype(np.uint8)
            given = {"kind": "method", "delta": 1e-5, "calls": int(8000 * level), "micro_dollars": int(3e6 * level)}
            return Cell(
                name=f"{method}-{epsilon}-{seed}",
                method=method,
                epsilon=epsilon,
                seed=seed,
                scores=tuple(scores),
                samples=Samples(pixels=noisy[..., None], labels=targets[rows]),
                **{**given, "all_micro_dollars": 77_040_000, "seconds": 7703.5, **more},
            )

        cells = [cell("floor", None, 0.45, kind="floor", calls=560, micro_dollars=200_000)]
        for place, method in enumerate(("image-pe", "dpiti", HOSTILE if hostile else "dp-feta")):
            for step, epsilon in enumerate(epsilons):
                for seed in range(seeds):
                    cells.append(cell(method, epsilon, 0.6 + 0.08 * place + 0.1 * step, seed))
        cells.append(cell("ceiling", None, 0.97, kind="ceiling", calls=None, micro_dollars=None))
        return Comparison(
            title="digits: methods side by side",
            purpose="benchmark",
            groups=(
                Group(
                    title="mnist",
                    description="mnist: 10 classes; the held-out part is public.",
                    classes=tuple(str(n) for n in range(10)),
                    names=("mnist",),
                    cells=tuple(cells),
                    claim="Public data played as private: all plans of the ledger together would come to (22, 6e-05).",
                ),
            ),
            limits=(
                f"dpdm on mnist, epsilon 1, seed 2: {HOSTILE if hostile else 'not started within the time limit'}",
            ),
            facts={"suite": "2026-11-22-suite-digits-4592-03056d7c", "commit": "3fa9c1e"},
        )

    return make
