"""The wire to a server of OpenAI's protocol: one client, one deadline, and the answer whole or the failure that it told.

The SDK is used for this alone: no retries (one layer retries, above), no redirects, no proxies or settings of the
environment, a deadline over the whole call. Its typed methods would rebuild what we send and what comes, unasked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import SecretStr

from ..contract import AdapterError, Stopped
from .egress import EgressError, guarded_client, only
from .errors import Failure, Origin, malformed, settle
from .openai_replies import as_failure, parsed
from .provider import CONNECT_S, Caller, PerLoop

if TYPE_CHECKING:
    from .openai import OpenAIConfig

BATCH_BYTES = 2**30

Outcome = tuple[Any, Failure | None]
"""The server's answer, or its own account of a failure."""


class Wire:
    """The calls to one server, by its settings. Each is one request."""

    def __init__(self, config: OpenAIConfig, origin: Origin) -> None:
        self._config = config
        self._origin = origin
        self._caller = Caller(origin, deadline_s=config.deadline_s)
        self._client = PerLoop(self._connected)

    async def post(
        self, path: str, body: Mapping[str, Any], *, file: tuple[str, tuple[Any, ...]] | None = None
    ) -> Outcome:
        """What came of a request: a failure that the server tells is a value."""
        return await self._called(lambda client: _posted(client, path, body, file=file))

    def reached(self) -> None:
        """The server answered: from now on, silence is a matter of patience."""
        self._caller.reached()

    # Calls whose failure is no answer: it raises.

    async def posted(
        self, path: str, body: Mapping[str, Any], *, file: tuple[str, tuple[Any, ...]] | None = None
    ) -> Mapping[str, Any]:
        return self._object(await self.post(path, body, file=file))

    async def got(self, path: str) -> Mapping[str, Any]:
        return self._object(await self._called(lambda client: _got(client, path)))

    async def fetched(self, path: str) -> bytes:
        response, failure = await self._called(lambda client: _got(client, path))
        if failure is not None:
            self._fail(failure)
        return response.content

    async def close(self) -> None:
        client = self._client.forget()
        if client is not None:
            await client.close()

    def _object(self, outcome: Outcome) -> Mapping[str, Any]:
        response, failure = outcome
        if failure is not None:
            self._fail(failure)
        body = parsed(response.content)
        if not isinstance(body, dict):
            malformed(self._origin.where, "a reply that is no JSON object")
        return body

    def _fail(self, failure: Failure) -> NoReturn:
        refusal = settle(self._origin, failure)
        raise Stopped(f"{self._origin.where}: {refusal.reason}")

    def _connected(self) -> Any:
        import httpx2
        import openai

        config = self._config
        endpoint, azure = config.endpoint, self._origin.provider == "azure"
        url, params = str(endpoint), {}
        if azure and config.azure_api_version:
            url, params = (
                f"{url}/openai/deployments/{config.model}",
                {"api-version": config.azure_api_version},
            )
        elif azure and not endpoint.path:
            url = f"{url}/openai/v1"
        secrets: dict[str, str | SecretStr] = {}
        if self._origin.key is not None:
            key = self._origin.key.get_secret_value()
            secrets = {"api-key": self._origin.key} if azure else {"authorization": SecretStr(f"Bearer {key}")}
        if config.organization:
            secrets["openai-organization"] = config.organization
        if config.project:
            secrets["openai-project"] = config.project
        http = guarded_client(
            httpx2,
            allows=only(endpoint),
            secrets=secrets,
            # The answers of a batch come in one file.
            max_bytes=max(config.max_response_bytes, BATCH_BYTES if config.is_batch else 0),
            connect_s=min(CONNECT_S, config.deadline_s),
        )
        # The key is put on as a request leaves, so the SDK never holds it.
        return openai.AsyncOpenAI(
            api_key="held-elsewhere",
            base_url=url,
            default_query=params or None,
            max_retries=0,
            timeout=httpx2.Timeout(None, connect=min(CONNECT_S, config.deadline_s)),
            http_client=http,
        )

    async def _called(self, call: Callable[[Any], Awaitable[Any]]) -> Outcome:
        """The server's answer, whole, or the failure that it told; raises for anything that is neither."""
        import httpx2
        import openai

        error: AdapterError
        try:
            async with asyncio.timeout(self._config.deadline_s):
                return await call(self._client()), None
        except TimeoutError:
            error = self._caller.timed_out()
        except openai.APIStatusError as status:
            return None, _failure(status)
        except (openai.OpenAIError, httpx2.HTTPError, EgressError, ValueError, TypeError) as broken:
            unsent = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
            error = self._caller.broken(broken, unsent=unsent)
        raise error


async def _posted(
    client: Any, path: str, body: Mapping[str, Any], *, file: tuple[str, tuple[Any, ...]] | None = None
) -> Any:
    """The response as it came, read whole."""
    import httpx2

    if file is None:
        return await client.post(path, cast_to=httpx2.Response, body=body)
    form: Any = {"headers": {"Content-Type": "multipart/form-data"}}
    return await client.post(path, cast_to=httpx2.Response, body=body, files=[file], options=form)


async def _got(client: Any, path: str) -> Any:
    import httpx2

    return await client.get(path, cast_to=httpx2.Response)


def _failure(error: Any) -> Failure:
    body = error.body if isinstance(error.body, dict) else {}
    return as_failure(body, error.status_code, error.response.headers)
