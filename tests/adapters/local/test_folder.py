"""Where models are looked for, and how it is said that they are not there."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from privolve.adapters.contract import AdapterUnavailable, Location
from privolve.adapters.local.captioner import TransformersCaptionConfig
from privolve.adapters.local.class_painter import DiffusersClassConfig
from privolve.adapters.local.folder import digest, located
from privolve.adapters.local.inception import InceptionConfig
from privolve.adapters.local.minilm import MiniLmConfig
from privolve.adapters.local.model import opening
from privolve.adapters.local.painter import DiffusersConfig
from privolve.adapters.local.sentence_embedder import SentenceTransformersConfig
from privolve.adapters.local.vision_embedder import VisionConfig
from privolve.adapters.local.writer import TransformersTextConfig

FROM_FOLDERS = [
    TransformersTextConfig,
    TransformersCaptionConfig,
    DiffusersConfig,
    DiffusersClassConfig,
    VisionConfig,
    SentenceTransformersConfig,
]
COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize("config", FROM_FOLDERS)
@pytest.mark.parametrize(
    ("settings", "way_out"),
    [
        ({"model": "/nowhere/to/be/found"}, "check `model`"),
        ({"model": "./models/absent"}, "check `model`"),
        ({"model": "someone/some-model"}, "pin its commit"),
        ({"model": "someone/some-model", "revision": COMMIT}, "set download = true"),
    ],
)
def test_a_model_that_is_not_here_is_one_line_within_a_second(config, settings, way_out):
    began = time.monotonic()
    with pytest.raises(AdapterUnavailable, match=way_out) as caught:
        config(**settings).open()
    assert time.monotonic() - began < 1
    assert "\n" not in str(caught.value)


def test_a_download_without_a_network_is_one_line(monkeypatch):
    began = time.monotonic()
    with pytest.raises(AdapterUnavailable, match="cannot be downloaded") as caught:
        TransformersTextConfig(model="someone/some-model", revision=COMMIT, download=True).open()
    assert time.monotonic() - began < 5
    assert "\n" not in str(caught.value)


def test_a_missing_model_is_noticed_without_importing_anything_heavy():
    code = (
        "import sys, pathlib; from privolve.adapters.contract import AdapterUnavailable\n"
        "from privolve.adapters.local import captioner, class_painter, inception, minilm, painter, sentence_embedder, "
        "vision_embedder, writer\n"
        "try: painter.DiffusersConfig(model='someone/model', revision='0' * 40).open()\n"
        "except AdapterUnavailable: pass\n"
        "heavy = {'torch', 'transformers', 'diffusers', 'sentence_transformers', 'accelerate'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_revision_is_a_commit_not_a_branch():
    with pytest.raises(ValueError, match="revision"):
        TransformersTextConfig(model="someone/model", revision="main")


def test_a_pinned_model_of_the_hub_is_found_in_the_local_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--someone--some-model" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"weights")
    found = located("someone/some-model", kind="test", revision=COMMIT)
    assert found.path == snapshot
    assert (found.name, found.fingerprint) == ("someone/some-model", COMMIT)


def test_pickled_weights_are_not_read(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(AdapterUnavailable, match="pickled weights are not read"):
        TransformersTextConfig(model=str(tmp_path)).open()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(AdapterUnavailable, match="name the folder"):
        TransformersTextConfig(model=str(tmp_path / "model.safetensors")).open()


@pytest.mark.parametrize("config", FROM_FOLDERS)
def test_a_damaged_folder_is_one_line(config, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"')
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(AdapterUnavailable, match="cannot be opened") as caught:
        config(model=str(tmp_path)).open()
    assert "\n" not in str(caught.value)


def test_a_library_that_is_not_installed_names_the_extra():
    with (
        pytest.raises(AdapterUnavailable, match=r"needs no_such_library: pip install 'privolve\[local\]'"),
        opening("transformers-text", "no_such_library"),
    ):
        pass


def test_a_model_is_known_by_its_bytes_and_not_by_its_place(tmp_path):
    def folder(name: str, weights: bytes) -> Path:
        path = tmp_path / name
        path.mkdir()
        (path / "model.safetensors").write_bytes(weights)
        (path / "README.md").write_text(name)
        return path

    one, moved, other = folder("one", b"weights"), folder("moved", b"weights"), folder("other", b"Weights")
    assert digest(one) == digest(moved) != digest(other)


def test_options_that_change_no_reply_are_not_in_the_cache_key():
    plain = TransformersTextConfig(model="a/b", revision=COMMIT)
    moved = TransformersTextConfig(model="elsewhere", download=True, device="cpu", dtype="float32", batch_size=3)
    assert plain.settings() == moved.settings()
    assert plain.settings() != TransformersTextConfig(model="a/b", revision=COMMIT, temperature=0.5).settings()


def test_every_local_adapter_says_that_it_is_local():
    configs = [*FROM_FOLDERS, MiniLmConfig, InceptionConfig]
    assert {config.location for config in configs} == {Location.LOCAL}


def test_a_relative_folder_is_taken_from_the_job_file(tmp_path):
    (tmp_path / "models" / "small").mkdir(parents=True)
    config = TransformersTextConfig(model="models/small")
    assert config.resolved(tmp_path).model == str(tmp_path / "models/small")
    assert config.resolved(tmp_path / "models").model == "models/small"


def test_a_device_that_is_not_there_is_one_line(folder_of):
    import torch

    if torch.accelerator.is_available():
        pytest.skip("there is an accelerator")
    with pytest.raises(AdapterUnavailable, match="no device 'cuda'"):
        VisionConfig(model=folder_of("clip"), device="cuda").open()
    with pytest.raises(AdapterUnavailable, match="needs an accelerator"):
        TransformersTextConfig(model=folder_of("llama"), offload=True).open()
