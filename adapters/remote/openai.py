"""`openai`: OpenAI's models, and every server that speaks its protocol: vLLM, Ollama, llama.cpp, Azure, compatible modes.

Here: the settings, and what is sent for each kind of request. `openai_wire.py` sends it, `openai_replies.py` reads what comes
back, `openai_batch.py` asks the Batch API on the same wire.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import date
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote

from pydantic import AfterValidator, Field, SecretStr, field_validator

from .. import models
from ..contract import (
    AdapterUnavailable,
    Answered,
    CaptionRequest,
    EmbedRequest,
    ImageRequest,
    ImageVariationRequest,
    Location,
    ModelIdentity,
    Refusal,
    Reply,
    Request,
    Stopped,
    TextRequest,
    Usage,
)
from ..models import Facts
from .endpoint import Endpoint, KeyName, checked_url, read_key
from .errors import TABLES, Failure, Origin, malformed, settle
from .estimate import asked_size, worst
from .openai_batch import OpenAIBatches
from .openai_replies import Replies, as_failure, parsed, rate
from .openai_wire import Outcome, Wire
from .pictures import data_url, nearest_size, parse_size, png
from .provider import RemoteConfig, refuse_shut_down, sayable, unanswered, without

REVISION = "1"
"""Part of every cache key: raised when what we send for a request, or make of its reply, changes."""

OWN_URL = "https://api.openai.com/v1"
OURS = frozenset({"model", "messages", "input", "prompt", "image", "n", "stream"})
DEGREES = (
    "Repeat this image with the smallest possible changes.",
    "Make a close variation of this image: the same scene, with small changes of detail.",
    "Make a variation of this image: the same subject, with some things in it changed.",
    "Make a free variation of this image: the same kind of subject, with most things in it changed.",
    "Make a new image of the same kind as this one; let nothing but the kind of subject be the same.",
)
"""The protocol has no strength, so `degree` in [0, 1] is said in words."""


class OpenAIConfig(RemoteConfig):
    answers: ClassVar[tuple[type, ...]] = (
        TextRequest,
        CaptionRequest,
        ImageRequest,
        ImageVariationRequest,
        EmbedRequest,
    )
    cannot_change_replies: ClassVar[frozenset[str]] = RemoteConfig.cannot_change_replies | {
        "organization",
        "project",
        "mode",
        "batch_poll_s",
    }

    kind: str = Field(default="openai", pattern="^openai$")
    api_key_env: KeyName = "OPENAI_API_KEY"
    base_url: Annotated[str, AfterValidator(checked_url)] = OWN_URL
    """https, or http on this machine. The only place that anything is sent to."""
    provider: str = ""
    """Whose errors, prices and limits hold: openai, azure, dashscope or compatible; by the host of `base_url` if empty."""
    azure_api_version: str = Field(default="", pattern=r"^(\d{4}-\d{2}-\d{2}(-preview)?)?$")
    """Azure's older endpoints: `base_url` is the resource's, `model` the deployment. Empty: Azure's v1 endpoint."""
    organization: str = ""
    project: str = ""
    mode: Literal["live", "batch"] = "live"
    """batch: public requests wait for the provider's Batch API, at most a day, for half the price; private ones do not wait."""
    batch_poll_s: float = Field(default=30.0, gt=0)
    """How often a batch is looked at."""

    detail: Literal["auto", "low", "high"] = "auto"
    """How closely images are looked at: `low` costs least."""
    quality: Literal["", "auto", "low", "medium", "high", "xhigh", "max"] = "low"
    """Of painted images; "" leaves it out. The best costs 36 times the least."""
    moderation: Literal["", "auto", "low"] = ""
    image_format: Literal["", "b64_json", "none"] = ""
    """The `response_format` to ask for, so that no link is sent in place of the image; "none": leave it out."""
    degree_in_words: bool = True
    """Whether a sentence on the wanted degree is added to the prompt of a variation."""
    reasoning_effort: str | None = Field(default=None, pattern="^[a-z]*$")
    """"" sends none; None what the model needs for `temperature` to be taken."""
    max_tokens_parameter: Literal["max_tokens", "max_completion_tokens"] | None = None
    drop_temperature: bool = False
    """Go on without the temperature of a request if the model takes none."""
    dimensions: int | None = Field(default=None, ge=1)
    """Of embeddings."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """More fields of the request's body, for servers that have them: `{ top_k = 40 }`."""

    @field_validator("provider")
    @classmethod
    def _known(cls, provider: str) -> str:
        if provider and provider not in TABLES:
            raise ValueError(f"the known providers are {', '.join(sorted(TABLES))}")
        return provider

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, extra: dict[str, Any]) -> dict[str, Any]:
        ours = sorted(OURS & extra.keys())
        if ours:
            raise ValueError(f"{', '.join(ours)} cannot be set here: they are what is asked")
        return extra

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint.parse(self.base_url)

    @property
    def speaks(self) -> str:
        """The provider whose tables hold."""
        host = self.endpoint.host
        if self.provider:
            return self.provider
        if host == "api.openai.com" or host.endswith(".api.openai.com"):
            return "openai"
        if host.endswith((".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")):
            return "azure"
        return "dashscope" if host.endswith(".aliyuncs.com") else "compatible"

    @property
    def facts(self) -> Facts:
        """What is known of the model here: another's server has OpenAI's parameters, but not its prices and dates."""
        speaks = self.speaks
        if speaks in ("openai", "dashscope"):
            facts = models.facts(speaks, self.model)
        else:
            facts = models.facts("openai", self.model)
            elsewhere: dict[str, Any] = {
                "provider": speaks,
                "known": False,
                "price": None,
                "shutdown": None,
                "batch_discount": None,
            }
            if not facts.known:
                # Servers of models that we do not know send a link unless they are asked for the image.
                elsewhere["image_format"] = "b64_json"
            facts = facts.model_copy(update={**elsewhere, "limits": models.Limits()})
        return facts if self.price is None else facts.model_copy(update={"price": self.price})

    @property
    def is_batch(self) -> bool:
        return self.mode == "batch"

    def batches(self, adapter: OpenAI) -> OpenAIBatches:
        """The Batch API of the same model."""
        return OpenAIBatches(adapter)

    def settings(self) -> dict[str, Any]:
        facts = self.facts
        sent = {
            "effort": self.effort(facts),
            "limit": self.max_tokens_parameter or facts.max_tokens_parameter,
            "sizes": facts.image_sizes,
            "temperature": facts.temperature,
            "variation": facts.variation,
        }
        return {**super().settings(), "sent": sent}

    def bound(self, request: Request, facts: Facts) -> Usage:
        paints = isinstance(request, ImageRequest | ImageVariationRequest)
        return worst(
            facts,
            request,
            max_tokens=self.max_tokens,
            detail=self.detail,
            quality=self.quality or "auto",
            painted=self.painted_size(request, facts) if paints else (0, 0),
            extra_prompt=max(DEGREES, key=len),
        )

    def painted_size(self, request: ImageRequest | ImageVariationRequest, facts: Facts) -> tuple[int, int]:
        """The size to paint at."""
        return parse_size(self.image_size) if self.image_size else nearest_size(facts.image_sizes, asked_size(request))

    def effort(self, facts: Facts) -> str:
        return (facts.reasoning_effort or "") if self.reasoning_effort is None else self.reasoning_effort

    def estimate(self, request: Request, /) -> Usage:
        """The most that a request can consume, before anything is opened; for plans."""
        return OpenAI(self, facts=self.facts, key=None).estimate(request)

    def open(self) -> OpenAI:
        facts, endpoint = self.facts, self.endpoint
        if endpoint.host.endswith("api.openai.com"):
            refuse_shut_down(self.kind, facts, date.today())
        key = read_key(self.kind, self.api_key_env)
        try:
            with without("OPENAI_LOG"):
                import httpx2  # noqa: F401
                import openai  # noqa: F401
        except ImportError as error:
            raise AdapterUnavailable(f"openai: {error.name} is not installed; pip install 'privolve[openai]'") from None
        return OpenAI(self, facts=facts, key=key)


class OpenAI:
    """One model of one server. Each call is one request on the wire."""

    location = Location.REMOTE

    def __init__(self, config: OpenAIConfig, *, facts: Facts, key: SecretStr | None) -> None:
        self.config = config
        self.facts = facts
        endpoint, provider = config.endpoint, config.speaks
        self.identity = ModelIdentity(
            provider=f"openai/{provider}", model=config.model, revision=f"{endpoint} r{REVISION}"
        )
        self.origin = Origin(
            kind="openai",
            provider=provider,
            model=config.model,
            endpoint=endpoint.host,
            key_name=config.api_key_env,
            key=key,
            replacement=facts.replacement,
        )
        self.wire = Wire(config, self.origin)
        self._replies = Replies(self.origin)

    def estimate(self, request: Request, /) -> Usage:
        """The most that the request can consume; no network, no key."""
        return self.config.bound(request, self.facts)

    async def answer(self, request: Request, /) -> Reply | Refusal:
        return (await self.answer_metered(request)).reply

    async def answer_metered(self, request: Request, /) -> Answered[Reply | Refusal]:
        bound = self.estimate(request)
        response, failure = await self._sent(request)
        self.wire.reached()
        if failure is not None:
            return self._refused(request, failure, bound)
        body = self._replies.body(response, bound)
        usage = self._replies.usage(body, response.headers, bound)
        return Answered(await self._replies.reply(request, body, usage), usage, rate(response.headers))

    async def read(self, request: Request, status: int, body: Any, *, request_id: str) -> Answered[Reply | Refusal]:
        """What a response says that came otherwise than by a call of its own: in the file of a batch."""
        bound = self.estimate(request)
        if status != 200:
            told = body.get("error") if isinstance(body, dict) else None
            failure = as_failure(told if isinstance(told, dict) else {}, status, {})
            return self._refused(request, failure, bound)
        checked = self._replies.checked(body, {}, bound)
        usage = replace(self._replies.usage(checked, {}, bound), request_id=request_id)
        return Answered(await self._replies.reply(request, checked, usage), usage)

    async def close(self) -> None:
        await self.wire.close()

    async def listed_shutdown(self) -> date | None:
        """When the server's own list says that the model stops; a free call, for `doctor`."""
        said = parsed(await self.wire.fetched(f"/models/{quote(self.config.model, safe='')}"))
        day = said.get("shutdown_date") if isinstance(said, dict) else None
        try:
            return date.fromisoformat(day) if isinstance(day, str) else None
        except ValueError:
            malformed(self.origin.where, "a models list whose shutdown date is no date")

    def _refused(self, request: Request, failure: Failure, bound: Usage) -> Answered[Reply | Refusal]:
        """The refusal that a failure is; raises if it is another thing."""
        paints = isinstance(request, ImageRequest | ImageVariationRequest)
        # A picture may have been painted, and charged, before a server behind the server failed or blocked it.
        refusal = settle(self.origin, failure, possibly_billed=paints and failure.status >= 500)
        return Answered(refusal, bound if paints else Usage())

    # What is sent.

    async def _sent(self, request: Request) -> Outcome:
        if isinstance(request, ImageVariationRequest):
            return await self._vary(request)
        path, body = self.body(request)
        return await self.wire.post(path, body)

    def body(self, request: Request) -> tuple[str, dict[str, Any]]:
        """The path below `base_url` and the JSON that ask for it; not of a variation, which is a form."""
        if isinstance(request, TextRequest | CaptionRequest):
            return "/chat/completions", self._chat(request)
        if isinstance(request, ImageRequest):
            return "/images/generations", self._paint(request.prompt, request)
        assert isinstance(request, EmbedRequest)
        return "/embeddings", self._embed(request)

    def _chat(self, request: TextRequest | CaptionRequest) -> dict[str, Any]:
        config, facts = self.config, self.facts
        if isinstance(request, TextRequest):
            messages: list[Any] = [{"role": one.role, "content": sayable(one.content)} for one in request.messages]
            temperature = request.temperature
        else:
            url = {"url": data_url(request.image), "detail": config.detail}
            content = [{"type": "text", "text": sayable(request.prompt)}, {"type": "image_url", "image_url": url}]
            messages, temperature = [{"role": "user", "content": content}], None
        limit = config.max_tokens_parameter or facts.max_tokens_parameter
        body: dict[str, Any] = {
            "model": config.model,
            "messages": messages,
            limit: request.max_tokens or config.max_tokens,
        }
        effort = config.effort(facts)
        if effort:
            body["reasoning_effort"] = effort
        if temperature is not None and not config.drop_temperature:
            if not facts.temperature:
                raise Stopped(
                    f"{self.origin.where}: takes no temperature; leave `temperature` out of the job, or set `drop_temperature = true`"
                )
            body["temperature"] = temperature
        if self.origin.provider == "openai":
            body["store"] = False
        return self._with_extra(body)

    def _paint(self, prompt: str, request: ImageRequest | ImageVariationRequest) -> dict[str, Any]:
        config, facts = self.config, self.facts
        width, height = config.painted_size(request, facts)
        body: dict[str, Any] = {"model": config.model, "prompt": sayable(prompt), "n": 1, "size": f"{width}x{height}"}
        if config.quality and facts.image_quality:
            body["quality"] = config.quality
        if config.moderation and isinstance(request, ImageRequest):
            body["moderation"] = config.moderation
        asked = config.image_format or facts.image_format
        if asked and asked != "none":
            body["response_format"] = asked
        return self._with_extra(body)

    async def _vary(self, request: ImageVariationRequest) -> Outcome:
        if self.facts.variation == "none":
            raise unanswered(self.origin.where, request, "this model makes no variations; use another for this role")
        # The name is a part of what is sent, so it says nothing.
        image = ("image.png", await asyncio.to_thread(png, request.image), "image/png")
        prompt = request.prompt
        if self.config.degree_in_words:
            words = DEGREES[min(len(DEGREES) - 1, int(request.degree * len(DEGREES)))]
            prompt = f"{words} {prompt}".strip()
        body = self._paint(prompt or DEGREES[2], request)
        names, path = tuple(body), "/images/edits"
        if self.facts.variation == "variations":
            # OpenAI retired this endpoint; other servers have it.
            names, path = ("model", "n", "size", "response_format", *self.config.extra), "/images/variations"
        form = {name: body[name] for name in names if name in body}
        return await self.wire.post(path, form, file=("image", image))

    def _embed(self, request: EmbedRequest) -> dict[str, Any]:
        if not isinstance(request.content, str):
            raise unanswered(
                self.origin.where, request, "it embeds texts, not images; use a local adapter such as clip"
            )
        body: dict[str, Any] = {
            "model": self.config.model,
            "input": sayable(request.content),
            "encoding_format": "float",
        }
        if self.config.dimensions:
            body["dimensions"] = self.config.dimensions
        return self._with_extra(body)

    def _with_extra(self, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, **self.config.extra} if self.config.extra else body
