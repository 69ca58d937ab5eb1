"""What leaves and what never does: keys, the environment's wishes, redirected bodies."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import subprocess
import sys
import traceback

import pytest
from pydantic import ValidationError

from privolve.adapters.contract import AdapterError, AdapterUnavailable, Cause, Refusal, Stopped, Transient
from privolve.adapters.remote.dashscope import DashScopeConfig
from privolve.adapters.remote.egress import EgressError, guarded_client
from privolve.adapters.remote.endpoint import Endpoint
from privolve.adapters.remote.openai import OpenAIConfig
from privolve.adapters.stub import Stub

BOTH = pytest.mark.parametrize("which", ["openai", "dashscope"])


@pytest.fixture
def config(openai, dashscope):
    return lambda which, **settings: {"openai": openai, "dashscope": dashscope}[which](**settings)


@BOTH
def test_a_redirect_delivers_no_body_to_the_other_host(stub, config, ask, text, which):
    with Stub() as other:
        stub.follow({"rules": [{"fault": "redirect", "location": other.url}]})
        with pytest.raises(Transient, match="redirect") as caught:
            ask(config(which), text)
        assert caught.value.cause is Cause.MALFORMED and caught.value.tries == 2
        assert other.requests == [] and other.counts["connections"] == 0
    assert len(stub.requests) == 1


def test_an_image_that_redirects_is_not_followed(stub, dashscope, ask, painting):
    with Stub() as other:
        stub.follow({"rules": [{"path": "/results/*", "fault": "redirect", "location": other.url}]})
        with pytest.raises(Transient):
            ask(dashscope("wan2.2-t2i-flash"), painting)
        assert other.counts["connections"] == 0


@BOTH
def test_settings_of_the_environment_reach_neither_the_server_nor_another(
    stub, config, ask, text, which, monkeypatch, key
):
    with Stub() as other:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, other.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("OPENAI_BASE_URL", other.openai_url)
        monkeypatch.setenv("DASHSCOPE_BASE_URL", other.dashscope_url)
        monkeypatch.setenv("DASHSCOPE_HTTP_BASE_URL", other.dashscope_url)
        for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY", "DASHSCOPE_WORKSPACE", "OPENAI_API_KEY"):
            monkeypatch.setenv(name, "AMBIENT-VALUE")
        monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer AMBIENT-VALUE\nX-More: AMBIENT-VALUE")
        assert ask(config(which), text).reply
        assert other.counts["connections"] == 0
    (sent,) = stub.requests
    assert sent.headers["authorization"] == f"Bearer {key}"
    assert "AMBIENT-VALUE" not in str(sent.headers) and b"AMBIENT-VALUE" not in sent.body


@BOTH
def test_no_telemetry_travels(stub, config, ask, text, which):
    ask(config(which), text)
    names = set(stub.requests[0].headers)
    assert names <= {
        "host",
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "user-agent",
    }


def test_an_organisation_travels_only_if_the_job_names_it(stub, openai, ask, text):
    ask(openai(organization="org-1", project="proj-1"), text)
    headers = stub.requests[0].headers
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-1", "proj-1")


@BOTH
def test_a_missing_key_is_one_line_at_open_that_names_the_variable(config, which, monkeypatch):
    for value in (None, "", "  "):
        monkeypatch.delenv("A_KEY", raising=False)
        if value is not None:
            monkeypatch.setenv("A_KEY", value)
        with pytest.raises(AdapterUnavailable, match="A_KEY is not set") as caught:
            config(which).open()
        assert "\n" not in str(caught.value)


@BOTH
def test_a_key_in_place_of_its_variables_name_is_refused_without_being_repeated(config, which):
    with pytest.raises(ValidationError) as caught:
        config(which, api_key_env="sk-proj-0123456789")
    assert "0123456789" not in str(caught.value)


def test_a_server_on_this_machine_may_want_no_key(stub, ask, text):
    config = OpenAIConfig(model="m", base_url=stub.openai_url, api_key_env="")
    with pytest.raises(Stopped, match="access denied"):
        ask(config, text)
    assert "authorization" not in stub.requests[0].headers


FAULTS = ["bad-key", "bad-request", "rate-limited", "server-error", "html", "drop", "silence", "no-content", "redirect"]


@BOTH
@pytest.mark.parametrize("fault", FAULTS)
def test_the_key_is_in_no_exception_no_traceback_no_repr_and_no_log_at_debug(stub, config, text, which, fault, key):
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("", *logging.root.manager.loggerDict)}
    root.addHandler(handler)
    for name in levels:
        logging.getLogger(name or None).setLevel(logging.DEBUG)
    stub.follow({"rules": [{"fault": fault, "location": "http://127.0.0.1:9"}]})
    made = config(which, deadline_s=0.5)
    try:
        adapter = made.open()

        async def ask() -> AdapterError:
            try:
                await adapter.answer(text)
            except AdapterError as error:
                return error
            finally:
                await adapter.close()
            raise AssertionError("it should have failed")

        error = asyncio.run(ask())
    finally:
        root.removeHandler(handler)
        for name, level in levels.items():
            logging.getLogger(name or None).setLevel(level)
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    for where in (
        heard.getvalue(),
        "".join(told.format()),
        repr(error),
        repr(made),
        repr(adapter),
        made.model_dump_json(),
    ):
        assert key not in where
    # Nothing of the SDK hangs on the error: no request, no header.
    assert error.__cause__ is None and error.__context__ is None
    assert "Write a caption" not in heard.getvalue()


@BOTH
def test_a_server_that_sends_the_key_back_is_not_quoted(config, text, ask, which, key, httpserver):
    error = {"code": "invalid_value", "message": f"header was Bearer {key}"}
    httpserver.expect_request("/x" + _path(which)).respond_with_json(
        {"error": error} if which == "openai" else error, status=400
    )
    with pytest.raises(Stopped) as caught:
        ask(config(which, base_url=httpserver.url_for("/x")), text)
    assert key not in str(caught.value) and "[key]" in str(caught.value)


def test_a_compressed_reply_is_not_unpacked(openai, ask, text, httpserver):
    httpserver.expect_request("/x/chat/completions").respond_with_data(
        b"\x1f\x8b", headers={"content-encoding": "gzip", "content-type": "application/json"}
    )
    with pytest.raises(Transient, match="compressed"):
        ask(openai(base_url=httpserver.url_for("/x")), text)


def test_a_blocked_prompt_of_azure_is_a_refusal(openai, ask, text, httpserver):
    body = {
        "error": {
            "code": "content_filter",
            "message": "blocked",
            "innererror": {"code": "ResponsibleAIPolicyViolation"},
        }
    }
    httpserver.expect_request("/openai/v1/chat/completions").respond_with_json(body, status=400)
    assert isinstance(ask(openai(base_url=httpserver.url_for(""), provider="azure"), text).reply, Refusal)


def test_config_classes_import_no_sdk_and_no_http_client():
    code = (
        "import sys\n"
        "import privolve.adapters.remote.openai, privolve.adapters.remote.dashscope\n"
        "privolve.adapters.remote.openai.OpenAIConfig(model='m').facts\n"
        "heavy = {'openai', 'dashscope', 'httpx', 'httpx2', 'requests', 'torch'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_sdks_switch_for_logging_is_not_heard():
    code = (
        "import logging, os\n"
        "os.environ.update(OPENAI_LOG='debug', DASHSCOPE_LOGGING_LEVEL='debug', DASHSCOPE_LOG='debug', K='k')\n"
        "from privolve.adapters.remote.openai import OpenAIConfig\n"
        "from privolve.adapters.remote.dashscope import DashScopeConfig\n"
        "OpenAIConfig(model='m', api_key_env='K').open()\n"
        "DashScopeConfig(model='m', api_key_env='K', region='cn-beijing').open()\n"
        "assert not logging.root.handlers\n"
        "assert not any(logging.getLogger(name).isEnabledFor(logging.INFO) for name in ('openai', 'dashscope', 'dashscope.v2'))\n"
        "assert os.environ['OPENAI_LOG'] == 'debug'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_endpoint_has_one_spelling():
    assert str(Endpoint.parse("HTTPS://API.Example.com:443/v1/")) == "https://api.example.com/v1"
    assert str(Endpoint.parse("http://[::1]:8000")) == "http://[::1]:8000"


def _path(which: str) -> str:
    return "/chat/completions" if which == "openai" else "/services/aigc/text-generation/generation"


def test_both_are_remote_by_their_class():
    assert OpenAIConfig.location == DashScopeConfig.location == "remote"


@pytest.mark.parametrize("where", ["head", "body"])
@pytest.mark.parametrize("http", ["httpx", "httpx2"])
def test_a_call_that_is_cancelled_twice_leaves_no_dead_connection_behind(where, http):
    """The second cancellation lands while the first is being cleaned up."""
    module = pytest.importorskip(http)
    slow = True

    async def serve(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
                writer.write(head + b"o" if where == "body" else b"")
                await writer.drain()
                await asyncio.sleep(30.0 if slow else 0.0)
                writer.write(b"k" if where == "body" else head + b"ok")
                await writer.drain()

    async def ask():
        nonlocal slow
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = guarded_client(module, allows=lambda *_: True, secrets={}, max_bytes=100, connect_s=5.0)
        call = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/"))
        await asyncio.sleep(0.2)
        call.cancel()
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        slow = False
        reply = await asyncio.wait_for(client.get(f"http://127.0.0.1:{port}/"), timeout=5.0)
        await client.aclose()
        with pytest.raises(EgressError, match="closed"):
            await client.get(f"http://127.0.0.1:{port}/")
        server.close()
        return reply.text

    assert asyncio.run(ask()) == "ok"
