"""`dashscope`: Qwen and Wan on Alibaba Cloud Model Studio: texts, captions, and images by tasks that are polled.

The v2 surface of the SDK only: the older one takes a prompt that is the name of a file for the file, and uploads it. The
region is a choice of where data goes, so it has no default. A painted image is fetched from the provider's storage: hosts
that are allowed, without the key, up to a size.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from .. import models
from ..contract import (
    AdapterError,
    AdapterUnavailable,
    Answered,
    CaptionRequest,
    Cause,
    ImageRequest,
    Location,
    ModelIdentity,
    Refusal,
    Reply,
    Request,
    TextRequest,
    Transient,
    Usage,
)
from ..models import Facts
from .egress import guarded_client, only
from .endpoint import Endpoint, KeyName, checked_url, is_loopback, read_key
from .errors import Failure, Meaning, Origin, malformed, meaning, settle
from .estimate import worst
from .pictures import NoPicture, data_url, fitted, nearest_size, parse_size
from .provider import CONNECT_S, Caller, PerLoop, RemoteConfig, counted, refuse_shut_down, sayable, unanswered, without

REVISION = "1"
"""Part of every cache key: raised when what we send for a request, or make of its reply, changes."""

SHARED_HOSTS = {
    "cn-beijing": "dashscope.aliyuncs.com",
    "ap-southeast-1": "dashscope-intl.aliyuncs.com",
    "us-east-1": "dashscope-us.aliyuncs.com",
    "cn-hongkong": "cn-hongkong.dashscope.aliyuncs.com",
}
"""Where a region answers without a workspace."""
LONGEST_POLL_S = 5.0
FETCHES = 3


class DashScopeConfig(RemoteConfig):
    answers: ClassVar[tuple[type, ...]] = (TextRequest, CaptionRequest, ImageRequest)
    cannot_change_replies: ClassVar[frozenset[str]] = RemoteConfig.cannot_change_replies | {"poll_s", "download_hosts"}

    kind: str = Field(default="dashscope", pattern="^dashscope$")
    api_key_env: KeyName = "DASHSCOPE_API_KEY"
    region: Literal["cn-beijing", "ap-southeast-1", "us-east-1", "cn-hongkong", "eu-central-1", "ap-northeast-1"]
    """Where the data goes: Beijing, Singapore, Virginia, Hong Kong, Frankfurt, Tokyo. Keys are a region's own."""
    workspace: str = Field(default="", pattern=r"^[A-Za-z0-9-]*$")
    """The workspace's id, for its own endpoint in the region."""
    base_url: Annotated[str, AfterValidator(lambda url: checked_url(url) if url else "")] = ""
    """In place of the region's endpoint."""
    download_hosts: tuple[str, ...] = ("dashscope-*.oss-*.aliyuncs.com",)
    """From where painted images may be fetched; `*` stands for letters, digits and hyphens, never for a dot."""
    deadline_s: float = Field(default=300.0, gt=0)
    poll_s: float = Field(default=1.0, gt=0)
    """Seconds until a task is first asked for; later ones are further apart."""

    enable_thinking: bool | None = None
    """None: as the model's facts say."""
    multimodal: bool = False
    """Send texts to the endpoint of models that also see."""
    prompt_extend: bool = False
    """Let the provider rewrite the prompts of images."""
    watermark: bool = False
    negative_prompt: str = ""

    @model_validator(mode="after")
    def _has_an_endpoint(self) -> DashScopeConfig:
        if not (self.base_url or self.workspace or self.region in SHARED_HOSTS):
            raise ValueError(f"the region {self.region} needs a `workspace`")
        return self

    @property
    def endpoint(self) -> Endpoint:
        if self.base_url:
            return Endpoint.parse(self.base_url)
        host = f"{self.workspace}.{self.region}.maas.aliyuncs.com" if self.workspace else SHARED_HOSTS[self.region]
        return Endpoint.parse(f"https://{host}/api/v1")

    @property
    def facts(self) -> Facts:
        facts = models.facts("dashscope", self.model, region=self.region)
        return facts if self.price is None else facts.model_copy(update={"price": self.price})

    @property
    def thinks(self) -> bool | None:
        return self.facts.enable_thinking if self.enable_thinking is None else self.enable_thinking

    def bound(self, request: Request, facts: Facts) -> Usage:
        most = worst(facts, request, max_tokens=self.max_tokens)
        # Images are sold by the piece.
        return replace(most, input_tokens=0, output_tokens=0) if most.images else most

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "sent": {"thinks": self.thinks, "sizes": self.facts.image_sizes}}

    def estimate(self, request: Request, /) -> Usage:
        """The most that a request can consume, before anything is opened; for plans."""
        return DashScope(self, facts=self.facts, key=None).estimate(request)

    def open(self) -> DashScope:
        facts = self.facts
        if self.endpoint.host.endswith(".aliyuncs.com"):
            refuse_shut_down(self.kind, facts, date.today())
        key = read_key(self.kind, self.api_key_env)
        try:
            with without("DASHSCOPE_LOGGING_LEVEL", "DASHSCOPE_LOG"):
                import dashscope.v2  # noqa: F401
                import httpx  # noqa: F401
        except ImportError as error:
            raise AdapterUnavailable(
                f"dashscope: {error.name} is not installed; pip install 'privolve[dashscope]'"
            ) from None
        return DashScope(self, facts=facts, key=key)


class DashScope:
    """One model in one region."""

    location = Location.REMOTE

    def __init__(self, config: DashScopeConfig, *, facts: Facts, key: SecretStr | None) -> None:
        self.config = config
        self.facts = facts
        self._endpoint = config.endpoint
        self._key = key
        self._thinks = config.thinks
        self.identity = ModelIdentity(
            provider="dashscope", model=config.model, revision=f"{self._endpoint} {config.region} r{REVISION}"
        )
        self._origin = Origin(
            kind="dashscope",
            provider="dashscope",
            model=config.model,
            endpoint=self._endpoint.host,
            key_name=config.api_key_env,
            key=key,
            replacement=facts.replacement,
        )
        self._caller = Caller(self._origin, deadline_s=config.deadline_s)
        self._client = PerLoop(self._connected)
        self._downloads = PerLoop(self._downloading)

    def estimate(self, request: Request, /) -> Usage:
        """The most that the request can consume; no network, no key."""
        return self.config.bound(request, self.facts)

    async def answer(self, request: Request, /) -> Reply | Refusal:
        return (await self.answer_metered(request)).reply

    async def answer_metered(self, request: Request, /) -> Answered[Reply | Refusal]:
        bound = self.estimate(request)
        if isinstance(request, TextRequest | CaptionRequest):
            work = self._told(request, bound)
        elif isinstance(request, ImageRequest):
            work = self._painted(request, bound)
        else:
            raise unanswered(self._caller.where, request, "it answers texts, captions and images; use another adapter")
        error: AdapterError
        try:
            async with asyncio.timeout(self.config.deadline_s):
                return await work
        except TimeoutError:
            error = self._caller.timed_out()
        raise error

    async def close(self) -> None:
        client, downloads = self._client.forget(), self._downloads.forget()
        if client is not None:
            await client.transport.http_client.aclose()
        if downloads is not None:
            await downloads.aclose()

    # Texts and captions.

    async def _told(self, request: TextRequest | CaptionRequest, bound: Usage) -> Answered[Reply | Refusal]:
        config = self.config
        asked: dict[str, Any] = {"model": config.model, "max_tokens": request.max_tokens or config.max_tokens}
        if self._thinks is not None:
            asked["enable_thinking"] = self._thinks
        if isinstance(request, TextRequest):
            messages: list[Any] = [{"role": one.role, "content": sayable(one.content)} for one in request.messages]
            asked["temperature"] = request.temperature
        else:
            # A data URL and nothing else: the SDK takes other values for files to upload.
            picture = {"type": "image", "url": data_url(request.image)}
            messages = [{"role": "user", "content": [picture, {"type": "text", "text": sayable(request.prompt)}]}]

        def ask(client: Any) -> Awaitable[Any]:
            seeing = config.multimodal or isinstance(request, CaptionRequest)
            chat = client.multimodal.chat if seeing else client.chat.completions
            return chat.create(messages=messages, **asked)

        completion, failure = await self._called(ask)
        if failure is not None:
            return Answered(self._settled(failure, bound), Usage())
        usage = self._usage(completion, bound)
        choices = completion.choices
        if len(choices) != 1:
            malformed(self._caller.where, f"{len(choices)} choices, not one, as was asked for", usage=usage)
        if choices[0].finish_reason == "content_filter":
            return Answered(Refusal("content_filter"), usage)
        content = choices[0].message.content
        if not isinstance(content, str) or not content.strip():
            malformed(self._caller.where, "a message without content", usage=usage)
        return Answered(sayable(content), usage)

    def _usage(self, reply: Any, bound: Usage) -> Usage:
        """What the server says that it took; our bound where it says nothing."""
        raw = reply.usage.model_dump(exclude_unset=True) if reply.usage is not None else {}
        said = replace(
            bound, raw=raw, resolved_model=getattr(reply, "model", None) or "", request_id=reply.request_id or ""
        )
        if bound.images:
            count = counted(raw, "image_count")
            return said if count is None else replace(said, images=count, reported=True)
        taken, given = counted(raw, "input_tokens"), counted(raw, "output_tokens")
        if taken is None or given is None:
            return said
        return replace(said, input_tokens=taken, output_tokens=given, reported=True)

    # Images.

    async def _painted(self, request: ImageRequest, bound: Usage) -> Answered[Reply | Refusal]:
        config = self.config
        size = (
            parse_size(config.image_size) if config.image_size else nearest_size(self.facts.image_sizes, request.size)
        )
        asked: dict[str, Any] = {
            "model": config.model,
            "prompt": sayable(request.prompt),
            "n": 1,
            "size": f"{size[0]}*{size[1]}",
            "prompt_extend": config.prompt_extend,
            "watermark": config.watermark,
        }
        if config.negative_prompt:
            asked["negative_prompt"] = config.negative_prompt
        if self.facts.one_shot:
            job, failure = await self._called(lambda client: client.images.generate(**asked))
        else:
            job, failure = await self._called(lambda client: client.images.jobs.create(**asked))
            if failure is None:
                job, failure = await self._polled(job, bound)
        if failure is not None:
            # Only an image that was made is paid for.
            return Answered(self._settled(failure, bound), replace(bound, images=0, reported=True))
        usage = self._usage(job, bound)
        if job.status != "SUCCEEDED" or len(job.image_urls) != 1:
            malformed(self._caller.where, "a task that ended without its one image", usage=usage)
        data = await self._fetched(job.image_urls[0], usage)
        try:
            return Answered(await asyncio.to_thread(fitted, data, request.size, request.channels), usage)
        except NoPicture as error:
            problem = str(error)
        malformed(self._caller.where, problem, usage=usage)

    async def _polled(self, job: Any, bound: Usage) -> tuple[Any, Failure | None]:
        """The task when it is over, or how it failed. A poll that fails is repeated: only the deadline ends it."""
        task, wait_s = job.task_id, self.config.poll_s
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", task):
            malformed(self._caller.where, "a task without an id", usage=bound)
        while not job.finished:
            await asyncio.sleep(wait_s)
            wait_s = min(LONGEST_POLL_S, wait_s * 1.5)
            try:
                asked, failure = await self._called(lambda client: client.images.jobs.fetch(task))
            except Transient:
                continue
            if failure is None:
                job = asked
            elif failure.status == 200 or meaning("dashscope", failure) not in (Meaning.RATE, Meaning.TRANSIENT):
                return job, failure
        return job, None

    async def _fetched(self, url: str, usage: Usage) -> bytes:
        """The image at a URL that the provider gave. It is paid for, so a fetch that fails is repeated here."""
        address = self._checked(url)
        import httpx

        error: AdapterError | None = None
        for attempt in range(FETCHES):
            try:
                response = await self._downloads().get(address)
                if response.status_code == 200 and response.content:
                    return response.content
                why = f"status {response.status_code}"
                error = Transient(
                    f"{self._caller.where}: the painted image cannot be fetched ({why})",
                    possibly_billed=True,
                    usage=usage,
                )
            except Exception as broken:  # noqa: BLE001  told anew below, without the request
                error = self._caller.broken(broken, unsent=(httpx.ConnectError, httpx.ConnectTimeout))
                if not isinstance(error, Transient) or error.cause is Cause.MALFORMED:
                    break
                error = Transient(str(error), cause=error.cause, possibly_billed=True, usage=usage)
            await asyncio.sleep(self.config.poll_s * (attempt + 1))
        assert error is not None
        raise error

    def _checked(self, url: str) -> str:
        """The URL over https, if its host is allowed."""
        parts = urlsplit(url)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            parts = parts._replace(scheme="https")
        if not self._may_fetch(
            parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        ):
            malformed(
                self._caller.where,
                f"an image at {parts.scheme}://{parts.hostname}, which `download_hosts` does not allow",
            )
        return parts.geturl()

    def _may_fetch(self, scheme: str, host: str, port: int) -> bool:
        if self._endpoint.loopback and only(self._endpoint)(scheme, host, port):
            return True
        if scheme != "https" or port != 443:
            return False
        patterns = (re.escape(pattern.lower()).replace(r"\*", "[a-z0-9-]*") for pattern in self.config.download_hosts)
        return any(re.fullmatch(pattern, host.lower()) for pattern in patterns)

    # The wire.

    def _connected(self) -> Any:
        import dashscope.v2
        import httpx

        secrets: Mapping[str, SecretStr] = {}
        if self._key is not None:
            secrets = {"authorization": SecretStr(f"Bearer {self._key.get_secret_value()}")}
        http = self._guarded(httpx, only(self._endpoint), secrets)
        # Settings of the environment and of the user's home are not ours: the SDK is told of a file that is none.
        return dashscope.v2.AsyncClient(
            api_key="held-elsewhere",
            base_url=str(self._endpoint),
            protocol="native",
            region=self.config.region,
            timeout=self.config.deadline_s,
            max_retries=0,
            config_path=Path(os.devnull) / "none",
            http_client=http,
        )

    def _downloading(self) -> Any:
        import httpx

        return self._guarded(httpx, self._may_fetch, {})

    def _guarded(self, http: Any, allows: Callable[[str, str, int], bool], secrets: Mapping[str, SecretStr]) -> Any:
        return guarded_client(
            http,
            allows=allows,
            secrets=secrets,
            max_bytes=self.config.max_response_bytes,
            connect_s=min(CONNECT_S, self.config.deadline_s),
            base_url=str(self._endpoint),
        )

    async def _called(self, call: Callable[[Any], Awaitable[Any]]) -> tuple[Any, Failure | None]:
        """The server's answer, or the failure that it told; raises for anything that is neither."""
        import httpx
        from dashscope.v2 import errors

        error: AdapterError
        try:
            reply = await call(self._client())
            self._caller.reached()
            return reply, None
        except errors.APIConnectionError as broken:
            error = self._caller.broken(broken, unsent=(httpx.ConnectError, httpx.ConnectTimeout))
        except errors.DashScopeError as told:
            self._caller.reached()
            return None, _failure(told)
        except Exception as broken:  # noqa: BLE001  a reply that the SDK trips over; told anew, without the request
            error = self._caller.broken(broken, unsent=())
        raise error

    def _settled(self, failure: Failure, bound: Usage) -> Refusal:
        if failure.status == 200 and meaning("dashscope", failure) is Meaning.INVALID:
            malformed(self._caller.where, f"a failure in a reply that claims success ({failure.code})", usage=bound)
        # A task may have begun although its server failed.
        return settle(self._origin, failure, possibly_billed=bound.images > 0 and failure.status >= 500)


def _failure(error: Any) -> Failure:
    body = error.body if isinstance(error.body, dict) else {}
    inner = body.get("error")
    return Failure(
        status=error.status_code or 0,
        code=str(error.code or ""),
        type=str(inner.get("type") or "") if isinstance(inner, dict) else "",
        message=str(error.message or ""),
        headers=error.headers or {},
    )
