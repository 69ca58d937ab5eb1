"""A released model as a painter: what it draws, what it refuses, and by what it is known. `tests/conformance` asks the rest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from privolve.adapters import registry
from privolve.adapters.contract import AdapterUnavailable, Image, ImageRequest, ImageVariationRequest, Refusal
from privolve.trainers import serving
from privolve.trainers.contract import TrainerError

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_models import make

    return make("trained", tmp_path_factory.mktemp("trained"))


def opened(folder: Path, **settings):
    return registry.parse({"kind": "trained", "path": str(folder), "device": "cpu", **settings}).open()


def asking(prompt: str, draw: int = 0) -> ImageRequest:
    return ImageRequest(prompt=prompt, draw=draw, size=(8, 8), channels=1)


def test_a_prompt_is_a_class_of_the_model_and_nothing_else(folder: Path) -> None:
    painter = opened(folder)
    ring, bar, other = painter.send([asking("ring"), asking("bar"), asking("Ring")])
    assert isinstance(ring, Image) and ring.pixels.shape == (8, 8, 1)
    assert not np.array_equal(ring.pixels, bar.pixels)
    assert isinstance(other, Refusal) and "ring, bar, dot" in other.reason


def test_it_draws_what_the_model_draws_of_the_label_of_that_name(folder: Path) -> None:
    """With labels mixed up every image would be another's."""
    from privolve.adapters.local.seeds import seed_of

    model = serving.load(folder).model
    asked = [asking(name) for name in ("dot", "ring", "bar")]
    expected = model.sample(np.array([2, 0, 1]), seed=[seed_of(request) for request in asked])
    assert all(np.array_equal(a.pixels, b) for a, b in zip(opened(folder).send(asked), expected, strict=True))
    mixed = model.sample(np.array([0, 1, 2]), seed=[seed_of(request) for request in asked])
    assert not np.array_equal(mixed, expected)


def test_an_image_of_a_seed_of_its_own_has_no_number(folder: Path) -> None:
    model = serving.load(folder).model
    labels = np.array([0, 1, 0, 2])
    drawn = model.sample(labels, seed=[7, 8, 7, 9])
    assert np.array_equal(drawn[0], drawn[2])
    assert np.array_equal(model.sample(labels[::-1], seed=[9, 7, 8, 7])[::-1], drawn)
    assert not np.array_equal(model.sample(labels, seed=7)[0], model.sample(labels, seed=7)[2])
    with pytest.raises(ValueError, match="3 seeds for 4 images"):
        model.sample(labels, seed=[1, 2, 3])


def test_a_variation_is_nearer_to_its_parent_the_lower_its_degree(folder: Path) -> None:
    painter = opened(folder)
    parent = Image(np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8))

    def distance(degree: float) -> float:
        asked = [ImageVariationRequest(image=parent, prompt="dot", degree=degree, draw=draw) for draw in range(16)]
        return float(np.mean([np.abs(each.pixels.astype(int) - parent.pixels).mean() for each in painter.send(asked)]))

    assert distance(0.0) < 2.0 < distance(0.6) < distance(1.0)


def test_it_is_known_by_its_weights_and_its_classes(folder: Path, tmp_path: Path) -> None:
    known = opened(folder).identity
    (tmp_path / "release").mkdir()
    described = json.loads((folder / "model.json").read_text())
    (tmp_path / "release" / "model.npz").write_bytes((folder / "model.npz").read_bytes())
    write = (tmp_path / "release" / "model.json").write_text
    write(json.dumps(described, indent=2))
    assert opened(tmp_path).identity == known, "a run's folder, and its release, hold the same model"
    write(json.dumps({**described, "classes": ["bar", "ring", "dot"]}))
    assert opened(tmp_path).identity != known
    assert (known.provider, known.model) == ("privolve", "trained")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.json", b"{", "damaged"),
        ("model.json", b"[]", "damaged"),
        ("model.json", b'{"kind": "gan"}', "'gan' is not known"),
        ("model.npz", b"PK nothing", "damaged"),
    ],
)
def test_a_model_that_cannot_be_read_is_told_in_one_line(
    folder: Path, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    for each in ("model.json", "model.npz"):
        (tmp_path / each).write_bytes((folder / each).read_bytes())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AdapterUnavailable, match=said) as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_model_without_the_names_of_its_classes_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.npz").write_bytes((folder / "model.npz").read_bytes())
    described = json.loads((folder / "model.json").read_text())
    for classes in (None, ["ring", "bar"]):
        (tmp_path / "model.json").write_text(json.dumps({**described, "classes": classes}))
        with pytest.raises(TrainerError, match="does not name its classes"):
            serving.load(tmp_path)


def test_a_latent_model_is_served_as_well(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    from privolve.privacy import arrays
    from privolve.trainers.diffusion.latent import Autoencoder, LatentUNet
    from privolve.trainers.diffusion.sampling import SamplerConfig
    from privolve.trainers.diffusion.sizes import AutoencoderConfig, LatentUNetConfig
    from privolve.trainers.latent_model import LatentModel

    torch.manual_seed(0)
    coder = AutoencoderConfig(image_width=8, image_height=8, channels=1, width=8)
    network = LatentUNetConfig(height=4, width_in=4, channels=3, classes=2, width=8)
    description, weights = LatentModel(
        autoencoder=coder,
        network=network,
        weights={name: value.numpy() for name, value in LatentUNet(network).state_dict().items()},
        autoencoder_weights=Autoencoder(coder).saved(),
        parametrisation="edm",
        sampling=SamplerConfig(steps=2),
    ).saved()
    (tmp_path / "model.json").write_text(json.dumps({**description, "classes": ["a", "b"]}))
    (tmp_path / "model.npz").write_bytes(arrays.npz(weights))
    painter = opened(tmp_path, batch_size=3)
    drawn = painter.send([asking("a"), asking("b"), asking("a", draw=1)])
    assert {image.pixels.shape for image in drawn} == {(8, 8, 1)}
    (varied,) = painter.send([ImageVariationRequest(image=drawn[0], prompt="a", degree=0.5, draw=0)])
    assert varied.pixels.shape == (8, 8, 1)
    assert np.array_equal(painter.send([asking("b")])[0].pixels, drawn[1].pixels)
