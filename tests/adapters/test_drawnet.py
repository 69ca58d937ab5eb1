"""The network that ships with the project: what it is, that it is what its card says, and that its features rank rightly."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privolve.adapters.contract import AdapterUnavailable, EmbedRequest, Image, Refusal
from privolve.adapters.embedded.drawnet.adapter import FOLDER, Drawnet, DrawnetConfig
from privolve.adapters.embedded.drawnet.network import FEATURES, Network, fitted
from privolve.adapters.embedded.drawnet.pictures import CLASSES, SIDE, pictures
from privolve.evaluation.frechet import GaussianFit, frechet_distance

CARD = json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def network() -> Any:
    return DrawnetConfig().open()


@pytest.fixture(scope="module")
def real() -> Path:
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "images"
    if not folder.is_dir():
        pytest.skip("there are no real data sets beside the project: ../shared/data/images")
    return folder


def embed(network: Any, images: np.ndarray) -> np.ndarray:
    images = images if images.ndim == 4 else images[..., None]
    return np.stack(network.send([EmbedRequest(content=Image(image)) for image in images]))


def test_the_weights_are_those_of_the_card_and_the_identity_says_so(network: Any) -> None:
    digest = hashlib.sha256((FOLDER / "weights.npz").read_bytes()).hexdigest()
    assert CARD["sha256"] == digest
    assert digest[:32] in network.identity.revision
    assert (FOLDER / "weights.npz").stat().st_size < 1 << 20
    assert CARD["real_pictures"] == 0 and CARD["licence"].startswith("Apache-2.0") and CARD["classes"] == len(CLASSES)


def test_other_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "card.json", tmp_path)
    changed = bytearray((FOLDER / "weights.npz").read_bytes())
    changed[-100_000] ^= 1
    (tmp_path / "weights.npz").write_bytes(changed)
    with pytest.raises(AdapterUnavailable, match=r"^drawnet: .* is not what its card says: its SHA-256 is [^\n]*$"):
        Drawnet(tmp_path)


def test_missing_weights_are_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(AdapterUnavailable, match=r"^drawnet: its weights cannot be read [^\n]*$"):
        Drawnet(tmp_path)


@pytest.mark.parametrize("shape", [(28, 28, 1), (8, 8, 1), (32, 32, 3), (70, 41, 3)])
def test_features_of_an_image_do_not_depend_on_its_neighbours(network: Any, shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng().integers(0, 256, (41, *shape), dtype=np.uint8)
    together = embed(network, images)
    assert together.shape == (41, FEATURES) and together.dtype == np.float32
    assert np.array_equal(np.concatenate([embed(network, images[row : row + 1]) for row in range(41)]), together)
    assert np.array_equal(embed(network, images[5:30]), together[5:30])


def test_grey_is_read_as_colour_and_text_is_refused(network: Any) -> None:
    grey = np.random.default_rng(1).integers(0, 256, (3, 28, 28, 1), dtype=np.uint8)
    assert np.array_equal(embed(network, grey), embed(network, np.repeat(grey, 3, axis=3)))
    text, image = network.send([EmbedRequest(content="a text"), EmbedRequest(content=Image(grey[0]))])
    assert isinstance(text, Refusal) and isinstance(image, np.ndarray)


def test_a_large_image_is_averaged_and_not_sampled() -> None:
    checks = (np.indices((128, 128)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None]
    assert np.abs(fitted(checks).astype(int) - 127).max() <= 2


def test_the_features_are_those_of_the_convolutions_as_torch_computes_them() -> None:
    torch = pytest.importorskip("torch")
    from privolve.adapters.embedded.drawnet.training import Trained, folded

    torch.manual_seed(3)
    model = Trained()
    for norm in model.norms:
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 1.5)
        norm.weight.data.uniform_(0.5, 1.5)
    drawn = pictures(5, seed=(4,)).pixels
    with torch.no_grad():
        logits, _ = model.eval()(torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 255 - 0.5)
    ours = Network.of(folded(model))
    expected = torch.softmax(logits, dim=1).numpy()
    assert np.allclose(ours.probabilities(ours.features(drawn)), expected, atol=2e-3)


def test_probabilities_tell_generated_pictures_as_well_as_the_card_says(network: Any) -> None:
    held_out = pictures(300, seed=(99,))
    shares = network.probabilities(embed(network, held_out.pixels))
    assert shares.shape == (300, len(CLASSES)) and np.allclose(shares.sum(axis=1), 1) and shares.min() >= 0
    right = float((shares.argmax(axis=1) == held_out.labels).mean())
    # Six standard deviations of 300 pictures.
    assert abs(right - CARD["accuracy_on_held_out_pictures"]["all"]) < 6 * 0.5 / np.sqrt(300)


def test_pictures_are_their_seeds_alone() -> None:
    first, again, other = (pictures(40, seed=seed) for seed in ((1, 2), (1, 2), (1, 3)))
    assert np.array_equal(first.pixels, again.pixels) and np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.pixels, other.pixels)
    assert first.pixels.shape == (40, SIDE, SIDE, 3) and np.isfinite(first.attributes).all()


@pytest.mark.slow
def test_training_twice_gives_the_same_weights() -> None:
    pytest.importorskip("torch")
    from privolve.adapters.embedded.drawnet import training

    first, again = (training.folded(training.train(steps=3)) for _ in range(2))
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_five_thousand_digits_take_seconds(network: Any, real: Path) -> None:
    images = np.load(real / "mnist.npz")["x_train"][:1000]
    began = time.process_time()
    embed(network, images)
    assert (time.process_time() - began) * 5 < 15


def test_neighbours_of_digits_are_digits_of_the_same_class(network: Any, real: Path) -> None:
    digits = np.load(real / "mnist.npz")
    known, asked = embed(network, digits["x_train"][:2000]), embed(network, digits["x_test"][:500])
    distances = (known**2).sum(axis=1) - 2 * asked @ known.T
    nearest = digits["y_train"][:2000].astype(int)[np.argpartition(distances, 10, axis=1)[:, :10]]
    found = np.array([np.bincount(row).argmax() for row in nearest])
    assert np.mean(found == digits["y_test"][:500]) > 0.88


def test_distances_rank_as_a_reader_of_digits_would(network: Any, real: Path) -> None:
    from scipy.ndimage import gaussian_filter

    digits = np.load(real / "mnist.npz")
    rng, images, labels = np.random.default_rng(0), digits["x_train"], digits["y_train"]
    fit, others = GaussianFit.of(embed(network, images[:1000])), images[1000:2000]

    def distance(changed: np.ndarray) -> float:
        return frechet_distance(fit, GaussianFit.of(embed(network, changed)))

    same = distance(others)
    noisy = np.clip(others + rng.normal(0, 60, others.shape), 0, 255).astype(np.uint8)
    blurred = gaussian_filter(others, (0, 1.2, 1.2))
    assert same < distance(noisy) and same < distance(blurred)
    assert 3 * same < distance(images[labels < 5][:1000])
    assert 20 * same < distance(np.load(real / "fashionmnist.npz")["x_train"][:1000])


def test_distances_rank_colour_pictures_too(network: Any, real: Path) -> None:
    cells = np.load(real / "bccd_cells_32.npz")["x"]
    emoji = np.load(real / "noto_emoji_32.npz")
    pictures_of_emoji = emoji[next(name for name in emoji.files if emoji[name].ndim == 4)]
    order = np.random.default_rng(0).permutation(len(cells))
    fit = GaussianFit.of(embed(network, cells[order[:800]]))
    same = frechet_distance(fit, GaussianFit.of(embed(network, cells[order[800:1600]])))
    swapped = frechet_distance(fit, GaussianFit.of(embed(network, cells[order[800:1600]][:, :, :, ::-1])))
    other = frechet_distance(fit, GaussianFit.of(embed(network, pictures_of_emoji[:800])))
    assert same * 2 < swapped and same * 20 < other
