"""Estimate: the most that a request can consume, from the request alone: no network, no key, no tokenizer.

A token is at least a third of its UTF-8 bytes long in every language that was tried, so bytes / 3 bounds the count; what a
provider wraps around a message is added. Images are counted as the provider says it cuts them, else generously.
"""

from __future__ import annotations

import math

from ..contract import (
    CaptionRequest,
    EmbedRequest,
    ImageRequest,
    ImageVariationRequest,
    Message,
    Request,
    TextRequest,
    Usage,
)
from ..models import Facts

MESSAGE_TOKENS = 8
REQUEST_TOKENS = 16
PATCH_TOKENS = 3
"""Tokens of a patch of 32 x 32 pixels, where nothing better is known."""
MOST_VISION_TOKENS = 16384
PAINTED_TOKENS = 7100
"""Output tokens of a 1024 x 1024 image of a model that says nothing of them."""


def text_tokens(text: str) -> int:
    return math.ceil(len(text.encode("utf-8", "surrogatepass")) / 3)


def prompt_tokens(messages: tuple[Message, ...]) -> int:
    return REQUEST_TOKENS + sum(MESSAGE_TOKENS + text_tokens(one.content) for one in messages)


def vision_tokens(facts: Facts, size: tuple[int, int], *, detail: str) -> int:
    """Input tokens of an image of `size` (width, height)."""
    if facts.vision is None:
        patches = math.ceil(size[0] / 32) * math.ceil(size[1] / 32)
        return min(MOST_VISION_TOKENS, 128 + PATCH_TOKENS * patches)
    if detail == "low":
        return facts.vision.low
    # Fitted into 2048 x 2048, then to 768 on the short side, then cut into tiles of 512.
    scale = min(1.0, 2048 / max(size), 768 / min(size))
    tiles = math.ceil(size[0] * scale / 512) * math.ceil(size[1] * scale / 512)
    return facts.vision.base + facts.vision.tile * tiles


def painted_tokens(facts: Facts, size: tuple[int, int], *, quality: str) -> int:
    """Output tokens of a painted image of `size`, by area from the figure of 1024 x 1024."""
    square = facts.image_tokens.get(quality, max(facts.image_tokens.values(), default=PAINTED_TOKENS))
    area = size[0] * size[1] / 1024**2
    return math.ceil(square * (1.0 if area == 1.0 else 1.1 * area))


def worst(
    facts: Facts,
    request: Request,
    *,
    max_tokens: int = 0,
    detail: str = "auto",
    quality: str = "",
    painted: tuple[int, int] = (1024, 1024),
    extra_prompt: str = "",
) -> Usage:
    """The most that one request consumes; `reported` is False, as for every figure that is ours."""
    if isinstance(request, TextRequest):
        tokens, output, images = prompt_tokens(request.messages), request.max_tokens or max_tokens, 0
    elif isinstance(request, CaptionRequest):
        height, width = request.image.pixels.shape[:2]
        tokens = REQUEST_TOKENS + MESSAGE_TOKENS + text_tokens(request.prompt)
        tokens += vision_tokens(facts, (width, height), detail=detail)
        output, images = request.max_tokens or max_tokens, 0
    elif isinstance(request, EmbedRequest):
        tokens = REQUEST_TOKENS + (text_tokens(request.content) if isinstance(request.content, str) else 0)
        output, images = 0, 0
    else:
        tokens = REQUEST_TOKENS + text_tokens(request.prompt) + text_tokens(extra_prompt)
        if isinstance(request, ImageVariationRequest):
            height, width = request.image.pixels.shape[:2]
            tokens += vision_tokens(facts, (width, height), detail="high")
        output, images = painted_tokens(facts, painted, quality=quality), 1
    return Usage(input_tokens=tokens, output_tokens=output, images=images, reported=False)


def asked_size(request: ImageRequest | ImageVariationRequest) -> tuple[int, int]:
    """(width, height) of the image that the request wants back."""
    if isinstance(request, ImageRequest):
        return request.size
    height, width = request.image.pixels.shape[:2]
    return width, height
