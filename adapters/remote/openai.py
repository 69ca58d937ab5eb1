"""`openai`: OpenAI's models, and every server that speaks its protocol: vLLM, Ollama, llama.cpp, Azure, compatible modes.

The SDK is used for its wire alone: no retries (one layer retries, above), no redirects, no proxies or settings of the
environment, a deadline over the whole call. Every reply is read by our own strict rules, because the SDK hands back
objects full of None, or a page of HTML, as success.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Annotated, Any, ClassVar, Literal, NoReturn
from urllib.parse import quote

import numpy as np
from pydantic import AfterValidator, Field, SecretStr, field_validator

from .. import models
from ..contract import (
    AdapterError,
    AdapterUnavailable,
    Answered,
    CaptionRequest,
    EmbedRequest,
    Image,
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
from .egress import EgressError, guarded_client, only
from .endpoint import Endpoint, KeyName, checked_url, read_key
from .errors import TABLES, Failure, Meaning, Origin, malformed, meaning, settle
from .estimate import asked_size, worst
from .openai_batch import OpenAIBatches
from .pictures import NoPicture, data_url, fitted, from_base64, nearest_size, parse_size, png
from .provider import CONNECT_S, Caller, PerLoop, RemoteConfig, counted, refuse_shut_down, sayable, unanswered, without

REVISION = "1"
"""Part of every cache key: raised when what we send for a request, or make of its reply, changes."""

BATCH_BYTES = 2**30
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
        self._endpoint = config.endpoint
        self._provider = config.speaks
        self._key = key
        self.identity = ModelIdentity(
            provider=f"openai/{self._provider}", model=config.model, revision=f"{self._endpoint} r{REVISION}"
        )
        self._origin = Origin(
            kind="openai",
            provider=self._provider,
            model=config.model,
            endpoint=self._endpoint.host,
            key_name=config.api_key_env,
            key=key,
            replacement=facts.replacement,
        )
        self._caller = Caller(self._origin, deadline_s=config.deadline_s)
        self._client = PerLoop(self._connected)

    def estimate(self, request: Request, /) -> Usage:
        """The most that the request can consume; no network, no key."""
        return self.config.bound(request, self.facts)

    async def answer(self, request: Request, /) -> Reply | Refusal:
        return (await self.answer_metered(request)).reply

    async def answer_metered(self, request: Request, /) -> Answered[Reply | Refusal]:
        bound = self.estimate(request)
        response, failure = await self._sent(request)
        self._caller.reached()
        if failure is not None:
            return self._refused(request, failure, bound)
        body = self._body(response, bound)
        usage = self._usage(body, response.headers, bound)
        return Answered(await self._reply(request, body, usage), usage, _rate(response.headers))

    def _refused(self, request: Request, failure: Failure, bound: Usage) -> Answered[Reply | Refusal]:
        """The refusal that a failure is; raises if it is another thing."""
        paints = isinstance(request, ImageRequest | ImageVariationRequest)
        # A picture may have been painted, and charged, before a server behind the server failed or blocked it.
        refusal = settle(self._origin, failure, possibly_billed=paints and failure.status >= 500)
        return Answered(refusal, bound if paints else Usage())

    # Batches: what `openai_batch.py` asks on the same wire.

    @property
    def where(self) -> str:
        return self._caller.where

    def shown(self, text: str) -> str:
        """A server's words on one short line."""
        return self._origin.shown(text)

    async def read(self, request: Request, status: int, body: Any, *, request_id: str) -> Answered[Reply | Refusal]:
        """What a response says that came otherwise than by a call of its own."""
        bound = self.estimate(request)
        if status != 200:
            told = body.get("error") if isinstance(body, dict) else None
            failure = _told(told if isinstance(told, dict) else {}, status, {})
            return self._refused(request, failure, bound)
        checked = self._checked(body, {}, bound)
        usage = replace(self._usage(checked, {}, bound), request_id=request_id)
        return Answered(await self._reply(request, checked, usage), usage)

    async def posted(
        self, path: str, body: Mapping[str, Any], *, file: tuple[str, tuple[str, bytes]] | None = None
    ) -> Mapping[str, Any]:
        return self._told_all(await self._called(lambda client: _posted(client, path, body, file=file)))

    async def got(self, path: str) -> Mapping[str, Any]:
        return self._told_all(await self._called(lambda client: _got(client, path)))

    async def fetched(self, path: str) -> bytes:
        response, failure = await self._called(lambda client: _got(client, path))
        if failure is not None:
            self._fail(failure)
        return response.content

    def _told_all(self, outcome: tuple[Any, Failure | None]) -> Mapping[str, Any]:
        response, failure = outcome
        if failure is not None:
            self._fail(failure)
        body = _json(response.content)
        if not isinstance(body, dict):
            malformed(self.where, "a reply that is no JSON object")
        return body

    def _fail(self, failure: Failure) -> NoReturn:
        refusal = settle(self._origin, failure)
        raise Stopped(f"{self.where}: {refusal.reason}")

    async def close(self) -> None:
        client = self._client.forget()
        if client is not None:
            await client.close()

    async def listed_shutdown(self) -> date | None:
        """When the server's own list says that the model stops; a free call, for `doctor`."""
        response, failure = await self._called(
            lambda client: _got(client, f"/models/{quote(self.config.model, safe='')}")
        )
        if failure is not None:
            refusal = settle(self._origin, failure)
            raise Stopped(f"{self._caller.where}: {refusal.reason}")
        said = _json(response.content)
        day = said.get("shutdown_date") if isinstance(said, dict) else None
        try:
            return date.fromisoformat(day) if isinstance(day, str) else None
        except ValueError:
            malformed(self._caller.where, "a models list whose shutdown date is no date")

    # What is sent.

    async def _sent(self, request: Request) -> tuple[Any, Failure | None]:
        if isinstance(request, ImageVariationRequest):
            return await self._vary(request)
        path, body = self.body(request)
        return await self._called(lambda client: _posted(client, path, body))

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
                    f"{self._caller.where}: takes no temperature; leave `temperature` out of the job, or set `drop_temperature = true`"
                )
            body["temperature"] = temperature
        if self._provider == "openai":
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

    async def _vary(self, request: ImageVariationRequest) -> tuple[Any, Failure | None]:
        if self.facts.variation == "none":
            raise unanswered(self._caller.where, request, "this model makes no variations; use another for this role")
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
        return await self._called(lambda client: _posted(client, path, form, file=("image", image)))

    def _embed(self, request: EmbedRequest) -> dict[str, Any]:
        if not isinstance(request.content, str):
            raise unanswered(
                self._caller.where, request, "it embeds texts, not images; use a local adapter such as clip"
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

    # How it goes.

    def _connected(self) -> Any:
        import httpx2
        import openai

        endpoint, azure = self._endpoint, self._provider == "azure"
        url, params = str(endpoint), {}
        if azure and self.config.azure_api_version:
            url, params = (
                f"{url}/openai/deployments/{self.config.model}",
                {"api-version": self.config.azure_api_version},
            )
        elif azure and not endpoint.path:
            url = f"{url}/openai/v1"
        secrets: dict[str, str | SecretStr] = {}
        if self._key is not None:
            key = self._key.get_secret_value()
            secrets = {"api-key": self._key} if azure else {"authorization": SecretStr(f"Bearer {key}")}
        if self.config.organization:
            secrets["openai-organization"] = self.config.organization
        if self.config.project:
            secrets["openai-project"] = self.config.project
        http = guarded_client(
            httpx2,
            allows=only(endpoint),
            secrets=secrets,
            # The answers of a batch come in one file.
            max_bytes=max(self.config.max_response_bytes, BATCH_BYTES if self.config.is_batch else 0),
            connect_s=min(CONNECT_S, self.config.deadline_s),
        )
        # The key is put on as a request leaves, so the SDK never holds it.
        return openai.AsyncOpenAI(
            api_key="held-elsewhere",
            base_url=url,
            default_query=params or None,
            max_retries=0,
            timeout=httpx2.Timeout(None, connect=min(CONNECT_S, self.config.deadline_s)),
            http_client=http,
        )

    async def _called(self, call: Any) -> tuple[Any, Failure | None]:
        """The server's answer, whole, or the failure that it told; raises for anything that is neither."""
        import httpx2
        import openai

        error: AdapterError
        try:
            async with asyncio.timeout(self.config.deadline_s):
                return await call(self._client()), None
        except TimeoutError:
            error = self._caller.timed_out()
        except openai.APIStatusError as status:
            return None, _failure(status)
        except (openai.OpenAIError, httpx2.HTTPError, EgressError, ValueError, TypeError) as broken:
            unsent = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
            error = self._caller.broken(broken, unsent=unsent)
        raise error

    # What comes back.

    def _body(self, response: Any, bound: Usage) -> Mapping[str, Any]:
        where = self._caller.where
        body = _json(response.content)
        if body is None:
            kind = response.headers.get("content-type", "no type").partition(";")[0]
            malformed(where, f"a reply that is not JSON ({kind})", usage=bound)
        return self._checked(body, response.headers, bound)

    def _checked(self, body: Any, headers: Mapping[str, str], bound: Usage) -> Mapping[str, Any]:
        where = self._caller.where
        if not isinstance(body, dict):
            malformed(where, "a reply that is no JSON object", usage=bound)
        told = body.get("error")
        if isinstance(told, dict) and told:
            failure = _told(told, 200, headers)
            if meaning(self._provider, failure) is Meaning.INVALID:
                malformed(
                    where, f"an error in a reply that claims success ({failure.code or failure.type})", usage=bound
                )
            settled = settle(self._origin, failure)
            return {"refused": settled.reason}
        return body

    def _usage(self, body: Mapping[str, Any], headers: Mapping[str, str], bound: Usage) -> Usage:
        """What the server says that it took; our bound where it says nothing."""
        raw = body.get("usage")
        model = body.get("model")
        said = replace(
            bound,
            raw=raw if isinstance(raw, dict) else {},
            resolved_model=model if isinstance(model, str) else "",
            request_id=headers.get("x-request-id", ""),
        )
        taken = counted(said.raw, "prompt_tokens", "input_tokens")
        given = counted(said.raw, "completion_tokens", "output_tokens")
        if taken is None or (given is None and bound.output_tokens):
            return said
        return replace(said, input_tokens=taken, output_tokens=given or 0, reported=True)

    async def _reply(self, request: Request, body: Mapping[str, Any], usage: Usage) -> Reply | Refusal:
        if "refused" in body:
            return Refusal(str(body["refused"]))
        if isinstance(request, TextRequest | CaptionRequest):
            return self._text(body, usage)
        if isinstance(request, EmbedRequest):
            return self._vector(body, usage)
        return await self._image(request, body, usage)

    def _text(self, body: Mapping[str, Any], usage: Usage) -> str | Refusal:
        choice = self._single(body.get("choices"), "choice", usage)
        message = choice.get("message")
        if not isinstance(message, dict):
            malformed(self._caller.where, "a choice without a message", usage=usage)
        if choice.get("finish_reason") == "content_filter":
            return Refusal("content_filter")
        if message.get("refusal"):
            return Refusal("refused by the model")
        content = message.get("content")
        if isinstance(content, str) and content.strip():
            # A text that ends at `max_tokens` is what was asked for: no longer than that.
            return sayable(content)
        if choice.get("finish_reason") == "length":
            malformed(
                self._caller.where,
                "all tokens were spent before the first word; raise `max_tokens` or lower `reasoning_effort`",
                usage=usage,
            )
        malformed(self._caller.where, "a message without content", usage=usage)

    def _vector(self, body: Mapping[str, Any], usage: Usage) -> np.ndarray:
        values = self._single(body.get("data"), "embedding", usage).get("embedding")
        if not isinstance(values, list) or not values:
            malformed(self._caller.where, "an embedding without numbers", usage=usage)
        if not all(isinstance(value, int | float) and abs(value) < 1e30 for value in values):
            malformed(self._caller.where, "an embedding that holds something else than numbers", usage=usage)
        # Whether its width is that of the others is for the gateway to say: this reply may be of a private record.
        return np.asarray(values, dtype=np.float32)

    async def _image(
        self, request: ImageRequest | ImageVariationRequest, body: Mapping[str, Any], usage: Usage
    ) -> Image:
        encoded = self._single(body.get("data"), "image", usage).get("b64_json")
        if not isinstance(encoded, str) or not encoded:
            malformed(self._caller.where, 'no image in the reply itself; set `image_format = "b64_json"`', usage=usage)
        channels = request.channels if isinstance(request, ImageRequest) else request.image.pixels.shape[2]
        try:
            return await asyncio.to_thread(_picture, encoded, asked_size(request), channels)
        except NoPicture as error:
            problem = str(error)
        malformed(self._caller.where, problem, usage=usage)

    def _single(self, items: Any, what: str, usage: Usage) -> dict[str, Any]:
        """The one item that was asked for."""
        if not isinstance(items, list) or not items:
            malformed(self._caller.where, f"a reply without {what}", usage=usage)
        if len(items) != 1 or not isinstance(items[0], dict):
            malformed(self._caller.where, f"not one {what}, as was asked for", usage=usage)
        return items[0]


async def _posted(
    client: Any, path: str, body: Mapping[str, Any], *, file: tuple[str, tuple[Any, ...]] | None = None
) -> Any:
    """The response as it came, read whole. The SDK's typed methods would rebuild what we send and what comes, unasked."""
    import httpx2

    if file is None:
        return await client.post(path, cast_to=httpx2.Response, body=body)
    form: Any = {"headers": {"Content-Type": "multipart/form-data"}}
    return await client.post(path, cast_to=httpx2.Response, body=body, files=[file], options=form)


async def _got(client: Any, path: str) -> Any:
    import httpx2

    return await client.get(path, cast_to=httpx2.Response)


def _rate(headers: Any) -> dict[str, str]:
    """What the server says of its limits."""
    return {
        name.decode("latin-1").lower(): value.decode("latin-1")
        for name, value in headers.raw
        if name[:12].lower() == b"x-ratelimit-"
    }


def _json(content: bytes) -> Any:
    """None for what is no JSON; the error that would say so holds the content."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _picture(encoded: str, size: tuple[int, int], channels: int) -> Image:
    return fitted(from_base64(encoded), size, channels)


def _failure(error: Any) -> Failure:
    body = error.body if isinstance(error.body, dict) else {}
    return _told(body, error.status_code, error.response.headers)


def _told(body: Mapping[str, Any], status: int, headers: Mapping[str, str]) -> Failure:
    inner = body.get("innererror")
    code = str(body.get("code") or "")
    if isinstance(inner, dict) and inner.get("code"):
        # Azure tells a block by its content filter only here.
        code = (
            str(inner["code"])
            if meaning("azure", Failure(status=status, code=code, headers={})) is Meaning.INVALID
            else code
        )
    return Failure(
        status=status,
        code=code,
        type=str(body.get("type") or ""),
        message=str(body.get("message") or ""),
        headers=headers,
    )
