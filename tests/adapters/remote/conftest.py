from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from privolve.adapters.contract import (
    Answered,
    CaptionRequest,
    Image,
    ImageRequest,
    ImageVariationRequest,
    Message,
    TextRequest,
)
from privolve.adapters.remote.dashscope import DashScopeConfig
from privolve.adapters.remote.openai import OpenAIConfig
from privolve.adapters.stub import Stub

KEY = "sk-canary-0123456789abcdef"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("A_KEY", KEY)
    return KEY


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub() as stub:
        yield stub


@pytest.fixture
def openai(stub: Stub) -> Callable[..., OpenAIConfig]:
    def make(model: str = "gpt-6-luna", **settings: Any) -> OpenAIConfig:
        about = {"base_url": stub.openai_url, "provider": "openai", "api_key_env": "A_KEY", "deadline_s": 20.0}
        return OpenAIConfig(**{"model": model, **about, **settings})

    return make


@pytest.fixture
def dashscope(stub: Stub) -> Callable[..., DashScopeConfig]:
    def make(model: str = "qwen3.7-plus", **settings: Any) -> DashScopeConfig:
        about = {"base_url": stub.dashscope_url, "region": "ap-southeast-1", "api_key_env": "A_KEY"}
        return DashScopeConfig(**{"model": model, **about, "deadline_s": 20.0, "poll_s": 0.01, **settings})

    return make


@pytest.fixture
def ask() -> Callable[..., Answered[Any]]:
    """Open, ask once, close."""

    def asked(config: Any, request: Any) -> Answered[Any]:
        async def once() -> Answered[Any]:
            adapter = config.open()
            try:
                return await adapter.answer_metered(request)
            finally:
                await adapter.close()

        return asyncio.run(once())

    return asked


@pytest.fixture
def text() -> TextRequest:
    messages = (Message(role="system", content="Be brief."), Message(role="user", content="Write a caption."))
    return TextRequest(messages=messages, draw=0, temperature=1.2, max_tokens=50)


@pytest.fixture
def picture() -> Image:
    return Image(np.random.default_rng(7).integers(0, 256, (24, 32, 3)).astype(np.uint8))


@pytest.fixture
def caption(picture: Image) -> CaptionRequest:
    return CaptionRequest(image=picture, prompt="Describe it.", draw=0, max_tokens=40)


@pytest.fixture
def painting() -> ImageRequest:
    return ImageRequest(prompt="a bedroom", draw=0, size=(48, 32), channels=3)


@pytest.fixture
def variation(picture: Image) -> ImageVariationRequest:
    return ImageVariationRequest(image=picture, prompt="a bedroom", degree=0.1, draw=0)
