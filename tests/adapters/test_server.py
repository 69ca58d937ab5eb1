"""`privolve serve`: the real openai SDK as a client of the gateway, and clients that are not welcome."""

from __future__ import annotations

import base64
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from privolve.adapters.contract import (
    AdapterError,
    Image,
    ImageVariationRequest,
    Location,
    Refusal,
    Stopped,
    TextRequest,
    Transient,
)
from privolve.adapters.registry import parse
from privolve.adapters.scripted import Scripted, ScriptedConfig
from privolve.adapters.wrappers.retrying import Patience

openai = pytest.importorskip("openai")
server = pytest.importorskip("privolve.adapters.server.app")

MESSAGES = [{"role": "user", "content": "Write a caption of the digit 3."}]
EMBEDDED = {
    "writer": {"kind": "lexicon"},
    "painter": {"kind": "glyph-painter"},
    "captioner": {"kind": "glyph-captioner"},
    "eye": {"kind": "hashing"},
}
IMPATIENT = Patience(first_wait_s=0.0, deadline_s=0.05)


@pytest.fixture
def serve(gateway) -> Iterator[Callable[..., object]]:
    """Serves roles until the test ends: tables, configs or functions."""
    with ExitStack() as stack:

        def start(roles: dict[str, object] | None = None, *, local: bool = False, **options):
            where = Location.LOCAL if local else Location.REMOTE
            configs = {
                role: parse(given, role=role)
                if isinstance(given, dict)
                else ScriptedConfig(adapter=Scripted(given, location=where))
                for role, given in (roles or EMBEDDED).items()
            }
            app = server.application(gateway(configs, patience=IMPATIENT), configs, **options)
            return stack.enter_context(server.Server(app))

        yield start


@pytest.fixture
def connect() -> Iterator[Callable[..., openai.OpenAI]]:
    with ExitStack() as stack:
        yield lambda running, key="any", **options: stack.enter_context(
            openai.OpenAI(base_url=running.url, api_key=key, timeout=10, **options)
        )


def said(client: openai.OpenAI, **more) -> str:
    asked = {"model": "writer", "messages": MESSAGES, **more}
    return client.chat.completions.create(**asked).choices[0].message.content


def picture(color: str = "white") -> str:
    out = BytesIO()
    PIL.Image.new("RGB", (32, 32), color).save(out, format="PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def about(url: str) -> list[dict[str, object]]:
    parts = [{"type": "text", "text": "Describe it."}, {"type": "image_url", "image_url": {"url": url}}]
    return [{"role": "user", "content": parts}]


def post(running, path: str, body: bytes, **headers: str) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=5)
    named = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", f"/v1/{path}", body, named)
    response = connection.getresponse()
    status, answer = response.status, json.loads(response.read())
    connection.close()
    return status, answer


def test_a_writer_writes(serve, connect) -> None:
    client = connect(serve())
    reply = client.chat.completions.create(model="writer", messages=MESSAGES, n=3, temperature=1.0)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert all("3" in choice.message.content for choice in reply.choices)
    assert reply.choices[0].finish_reason == "stop"


def test_a_stream_is_the_whole_answer_in_pieces(serve, connect) -> None:
    client = connect(serve({"writer": lambda request: "  Two words,\nand  more. "}))
    events = list(client.chat.completions.create(model="writer", messages=MESSAGES, stream=True))
    assert "".join(event.choices[0].delta.content or "" for event in events) == "  Two words,\nand  more. "
    assert len(events) > 4
    assert events[-1].choices[0].finish_reason == "stop"


def test_a_painter_paints_at_the_size_asked(serve, connect) -> None:
    client = connect(serve())
    reply = client.images.generate(model="painter", prompt="a bold digit 7", size="40x30", n=2)
    opened = [PIL.Image.open(BytesIO(base64.b64decode(each.b64_json))) for each in reply.data]
    assert [each.size for each in opened] == [(40, 30), (40, 30)]
    assert len({each.tobytes() for each in opened}) == 2


def test_an_eye_embeds_texts_packed_or_plain(serve, connect) -> None:
    client = connect(serve())
    packed = client.embeddings.create(model="eye", input=["a bed", "a lamp", "a bed"])
    plain = client.embeddings.create(model="eye", input="a lamp", encoding_format="float")
    assert packed.data[0].embedding == packed.data[2].embedding != packed.data[1].embedding
    assert plain.data[0].embedding == pytest.approx(packed.data[1].embedding, abs=1e-7)


def test_the_models_are_the_roles(serve, connect) -> None:
    client = connect(serve())
    assert [model.id for model in client.models.list()] == ["captioner", "eye", "painter", "writer"]
    assert client.models.retrieve("eye").owned_by == "privolve"
    with pytest.raises(openai.NotFoundError, match="no role here"):
        client.models.retrieve("gpt-6-luna")


def test_images_are_refused_unless_they_were_declared_public(serve, connect) -> None:
    closed, opened = connect(serve()), connect(serve(inputs_are_public=True))
    with pytest.raises(openai.PermissionDeniedError, match="--inputs-are-public"):
        said(closed, model="captioner", messages=about(picture()))
    assert said(opened, model="captioner", messages=about(picture()))


def test_an_image_is_never_fetched(serve, connect) -> None:
    client = connect(serve(inputs_are_public=True))
    for url in ("http://127.0.0.1:1/x.png", "file:///etc/hostname", "data:image/png;base64,AAAA"):
        with pytest.raises(openai.BadRequestError, match="image"):
            said(client, model="captioner", messages=about(url))


def test_equal_questions_get_different_samples_and_equal_seeds_equal_ones(serve, connect) -> None:
    client = connect(serve({"writer": lambda request: f"draw {request.draw}"}))
    assert [said(client) for _ in range(3)] == ["draw 0", "draw 1", "draw 2"]
    assert said(client, seed=7) == said(client, seed=7) != said(client, seed=8)
    other = said(client, extra_headers={"x-privolve-run": "other"})
    assert other not in {f"draw {draw}" for draw in range(10)}


def test_a_server_started_again_answers_from_the_cache(serve, connect) -> None:
    asked: list[TextRequest] = []

    def writer(request: TextRequest) -> str:
        asked.append(request)
        return f"answer {len(asked)}"

    first = connect(serve({"writer": writer}))
    before = [said(first), said(first)]
    second = connect(serve({"writer": writer}))
    assert [said(second), said(second)] == before == ["answer 1", "answer 2"]
    assert len(asked) == 2


def test_sampling_settings_reach_the_role(serve, connect) -> None:
    client = connect(serve({"writer": lambda request: repr(request)}))
    text = said(
        client,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        ],
        temperature=0.5,
        max_completion_tokens=9,
    )
    assert "temperature=0.5" in text and "max_tokens=9" in text and "Be brief." in text and "content='Hi'" in text


def test_what_cannot_be_asked_is_refused_by_name(serve, connect) -> None:
    client = connect(serve())
    with pytest.raises(openai.BadRequestError, match="`top_p` cannot be asked"):
        said(client, top_p=0.5)
    with pytest.raises(openai.BadRequestError, match="`stop` cannot be asked"):
        said(client, stop=["."])
    with pytest.raises(openai.BadRequestError, match="`n` is between"):
        said(client, n=1000)
    with pytest.raises(openai.BadRequestError, match="writes no text; roles that can: writer"):
        said(client, model="painter")
    with pytest.raises(openai.NotFoundError, match="'gpt-6-luna' is no role here"):
        said(client, model="gpt-6-luna")
    with pytest.raises(openai.BadRequestError, match="b64_json"):
        client.images.generate(model="painter", prompt="digit 3", response_format="url")
    with pytest.raises(openai.BadRequestError, match="no other number"):
        client.embeddings.create(model="eye", input="x", dimensions=3)
    with pytest.raises(openai.NotFoundError, match="there are chat/completions"):
        client.moderations.create(input="x")
    assert said(client, top_p=1, presence_penalty=0, user="me")


def test_a_refusal_ends_as_openais_do(serve, connect) -> None:
    client = connect(serve({"it": lambda request: Refusal("not that")}))
    choice = client.chat.completions.create(model="it", messages=MESSAGES).choices[0]
    assert (choice.finish_reason, choice.message.content, choice.message.refusal) == (
        "content_filter",
        None,
        "not that",
    )
    with pytest.raises(openai.BadRequestError) as raised:
        client.images.generate(model="it", prompt="x", size="8x8")
    assert raised.value.code == "moderation_blocked"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Transient("the provider is busy"), 503),
        (Stopped("the account is empty; top it up"), 403),
        (AdapterError("it gave nonsense"), 502),
    ],
)
def test_an_error_is_one_line_and_never_tried_again_by_the_client(serve, connect, error, status) -> None:
    asked: list[float] = []

    def fail(_request: object) -> str:
        asked.append(time.monotonic())
        raise error

    client = connect(serve({"writer": fail}), max_retries=3)
    with pytest.raises(openai.APIStatusError, match=str(error)) as raised:
        said(client)
    assert raised.value.status_code == status
    before = len(asked)
    time.sleep(0.2)
    assert len(asked) == before


def test_an_unforeseen_error_tells_nothing_of_what_was_sent(serve, connect, capfd) -> None:
    def fail(request: TextRequest) -> str:
        raise KeyError(request.messages[0].content)

    client = connect(serve({"writer": fail}), max_retries=0)
    with pytest.raises(openai.InternalServerError) as raised:
        said(client, messages=[{"role": "user", "content": "a secret word"}])
    assert "KeyError" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_remote_roles_are_asked_at_once(serve, connect) -> None:
    together = threading.Barrier(16)

    def writer(request: TextRequest) -> str:
        together.wait(timeout=5)
        return request.messages[0].content

    client = connect(serve({"writer": writer}))
    with ThreadPoolExecutor(16) as pool:
        texts = list(
            pool.map(lambda number: said(client, messages=[{"role": "user", "content": str(number)}]), range(16))
        )
    assert texts == [str(number) for number in range(16)]


def test_a_local_role_is_asked_by_one_thread_in_batches(serve, connect) -> None:
    threads: set[int] = set()

    def writer(request: TextRequest) -> str:
        threads.add(threading.get_ident())
        time.sleep(0.005)
        if request.messages[0].content == "7":
            raise AdapterError("not 7")
        return request.messages[0].content

    client = connect(serve({"writer": writer}, local=True), max_retries=0)

    def ask(number: int) -> str:
        try:
            return said(client, messages=[{"role": "user", "content": str(number)}])
        except openai.APIStatusError as error:
            return str(error.status_code)

    with ThreadPoolExecutor(16) as pool:
        texts = list(pool.map(ask, range(16)))
    assert texts == ["502" if number == 7 else str(number) for number in range(16)]
    assert len(threads) == 1


def test_beyond_loopback_a_token_is_needed() -> None:
    with pytest.raises(server.ServerError, match="--token-env"):
        server.check_address("0.0.0.0", token=None)
    with pytest.raises(server.ServerError, match="fewer than 16"):
        server.check_address("0.0.0.0", token="short")
    server.check_address("0.0.0.0", token="t" * 16)
    for host in ("127.0.0.1", "127.1.2.3", "localhost", "::1"):
        server.check_address(host, token=None)


def test_the_token_is_the_key_of_the_client(serve, connect) -> None:
    running = serve(token="the token of this test")
    assert said(connect(running, key="the token of this test"))
    for wrong in ("the token of this tes", "the token of this test!", "thé"):
        status, answer = post(running, "chat/completions", b"{}", Authorization=f"Bearer {wrong}")
        assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    assert post(running, "embeddings", b"{}")[0] == 401


def test_a_web_page_cannot_reach_it(serve) -> None:
    running = serve()
    body = json.dumps({"model": "writer", "messages": MESSAGES}).encode()
    assert post(running, "chat/completions", body)[0] == 200
    assert post(running, "chat/completions", body, Content_Type="text/plain")[0] == 415
    assert post(running, "chat/completions", body, Host="rebound.example:80")[0] == 403


def test_nonsense_is_refused(serve) -> None:
    running = serve()
    for body in (b"", b"{", b"[]", b"{}", b'{"model": 3}', b'{"model": "writer", "messages": [1]}', b"[" * 100_000):
        status, answer = post(running, "chat/completions", body)
        assert status in (400, 404) and answer["error"]["message"]


def test_the_command_serves_a_file_of_adapters(tmp_path: Path, connect) -> None:
    (tmp_path / "adapters.toml").write_text('[adapters]\nwriter = { kind = "lexicon" }\neye = { kind = "hashing" }\n')
    environment = {**os.environ, "SERVE_TOKEN": "a token that is never shown"}
    command = [sys.executable, "-m", "privolve.cli", "serve", "adapters.toml", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--token-env", "SERVE_TOKEN"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving eye, writer at http://127.0.0.1:"), line + process.stdout.read()
        with openai.OpenAI(base_url=line.split()[-1], api_key="a token that is never shown") as client:
            assert "3" in said(client)
    finally:
        process.send_signal(2)
        rest, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "writer: 1 asked" in rest
    assert "never shown" not in line + rest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.toml"], "none.toml: cannot be read"),
        (["bad.toml"], "there is no adapter of kind 'nothing'"),
        (["empty.toml"], "[adapters] names no role"),
        (["good.toml", "--host", "0.0.0.0"], "--token-env"),
        (["good.toml", "--token-env", "NOT_SET"], "this environment variable is empty"),
        (["good.toml", "--port", "99999"], "cannot be listened on"),
        (["good.toml", "--host", "192.0.2.1", "--token-env", "TOKEN"], "cannot be listened on"),
    ],
)
def test_wrong_input_is_one_line(tmp_path: Path, monkeypatch, capsys, arguments: list[str], message: str) -> None:
    from privolve import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKEN", "t" * 20)
    (tmp_path / "bad.toml").write_text('[adapters]\nwriter = { kind = "nothing" }\n')
    (tmp_path / "empty.toml").write_text("[adapters]\n")
    (tmp_path / "good.toml").write_text('[adapters]\nwriter = { kind = "lexicon" }\n')
    assert cli.main(["serve", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_without_the_extra_one_line_names_it(tmp_path: Path, monkeypatch, capsys) -> None:
    from privolve import cli

    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "privolve.adapters.server.app")
    monkeypatch.delattr("privolve.adapters.server.app")
    monkeypatch.chdir(tmp_path)
    Path("good.toml").write_text('[adapters]\nwriter = { kind = "lexicon" }\n')
    assert cli.main(["serve", "good.toml"]) == 2
    assert "pip install 'privolve[serve]'" in capsys.readouterr().err


def test_serving_takes_a_job_file_too(tmp_path: Path) -> None:
    from privolve.jobs import serve

    job = Path(__file__).parents[2] / "examples"
    files = sorted(job.rglob("*.toml"))
    assert files
    assert {"writer"} <= set(serve.load(next(file for file in files if "dpiti" in file.name)).adapters)


def test_embedding_replies_are_exact(serve, connect) -> None:
    vector = np.array([1 / 3, -2e-20, 5e7], dtype=np.float32)
    client = connect(serve({"eye": lambda request: vector}))
    reply = client.embeddings.create(model="eye", input="x")
    assert np.array_equal(np.array(reply.data[0].embedding, dtype=np.float32), vector)


def png(width: int = 20, height: int = 12, mode: str = "RGB") -> bytes:
    out = BytesIO()
    PIL.Image.new(mode, (width, height), 90).save(out, format="PNG")
    return out.getvalue()


def mirrored(request: ImageVariationRequest) -> Image:
    """A variation that shows what was asked."""
    assert isinstance(request, ImageVariationRequest)
    pixels = request.image.pixels.copy()
    pixels[0, 0] = round(100 * request.degree) + request.draw
    return Image(pixels)


def test_an_image_is_edited_and_varied_at_its_own_size(serve, connect) -> None:
    asked: list[ImageVariationRequest] = []

    def vary(request: ImageVariationRequest) -> Image:
        asked.append(request)
        return mirrored(request)

    client = connect(serve({"painter": vary}, inputs_are_public=True))
    edited = client.images.edit(model="painter", image=("x.png", png()), prompt="a bedroom", n=2, size="20x12")
    opened = [np.asarray(PIL.Image.open(BytesIO(base64.b64decode(each.b64_json)))) for each in edited.data]
    assert [each.shape for each in opened] == [(12, 20, 3)] * 2
    assert sorted(int(each[0, 0, 0]) for each in opened) == [50, 51]
    assert {each.prompt for each in asked} == {"a bedroom"}
    with pytest.warns(DeprecationWarning):
        varied = client.images.create_variation(
            model="painter", image=("x.png", png(mode="L")), extra_body={"degree": 0.25}
        )
    assert np.asarray(PIL.Image.open(BytesIO(base64.b64decode(varied.data[0].b64_json))))[0, 0] == 25
    assert asked[-1].prompt == ""


def test_an_image_to_vary_is_refused_unless_it_was_declared_public(serve, connect) -> None:
    client = connect(serve({"painter": mirrored}))
    with pytest.raises(openai.PermissionDeniedError, match="--inputs-are-public"):
        client.images.edit(model="painter", image=("x.png", png()), prompt="a bedroom")


def test_what_an_edit_cannot_do_is_refused_by_name(serve, connect) -> None:
    client = connect(serve({"painter": mirrored, "writer": {"kind": "lexicon"}}, inputs_are_public=True))

    def edit(**more):
        return client.images.edit(**{"model": "painter", "image": ("x.png", png()), "prompt": "a bed", **more})

    for more, words in (
        ({"size": "64x64"}, "a variation has the size of its image, 20x12"),
        ({"mask": ("m.png", png())}, "`mask` cannot be asked"),
        ({"image": [("a.png", png()), ("b.png", png())]}, "`image` is one image"),
        ({"image": ("x.png", b"no image")}, "an image could not be read"),
        ({"input_fidelity": "high"}, "`input_fidelity` cannot be asked"),
        ({"extra_body": {"degree": 3}}, "`degree` is between"),
        ({"stream": True}, "`stream`"),
        ({"model": "writer"}, "'writer' varies no images; roles that can: painter"),
    ):
        with pytest.raises(openai.BadRequestError, match=words):
            edit(**more)
    assert edit(n=2).data


def test_a_form_of_a_web_page_is_refused(serve) -> None:
    running = serve({"painter": mirrored}, inputs_are_public=True)
    boundary = "x7"
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="model"\r\n\r\npainter\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    ).encode() + png()
    body += f"\r\n--{boundary}--\r\n".encode()
    kind = {"Content_Type": f"multipart/form-data; boundary={boundary}"}
    assert post(running, "images/variations", body, **kind)[0] == 200
    for header in ("Origin", "Sec_Fetch_Site"):
        status, answer = post(running, "images/variations", body, **kind, **{header: "http://127.0.0.1"})
        assert (status, answer["error"]["code"]) == (403, "wrong_origin")
    for nonsense in (b"", b"--x7\r\n", b"\0" * 100, body[:-200]):
        assert post(running, "images/variations", nonsense, **kind)[0] == 400
    assert post(running, "images/variations", body, Content_Type="multipart/form-data")[0] == 400
    assert post(running, "images/variations", b"{}")[0] == 415


@pytest.fixture
def paid(gateway, connect, monkeypatch):
    """The server in front of a provider that bills: a client of it, the stub, and the gateway's account."""
    from privolve.adapters.server.usages import Usages
    from privolve.adapters.stub import Stub

    monkeypatch.setenv("A_KEY", "sk-of-no-use")
    with Stub() as stub:
        common = {"kind": "openai", "base_url": stub.openai_url, "provider": "openai", "api_key_env": "A_KEY"}
        names = {"writer": "gpt-6-luna", "painter": "gpt-image-2", "eye": "text-embedding-3-small"}
        configs = {role: parse({**common, "model": model}) for role, model in names.items()}
        usages = Usages()
        opened = gateway(configs, billed=usages.heard)
        app = server.application(opened, configs, inputs_are_public=True, usages=usages)
        with server.Server(app) as running:
            yield connect(running), stub, opened


def test_replies_tell_what_they_took_and_nothing_when_they_came_from_the_cache(paid) -> None:
    client, stub, opened = paid
    first = client.chat.completions.create(model="writer", messages=MESSAGES, n=2, seed=1)
    assert first.usage.prompt_tokens > 10
    assert first.usage.completion_tokens > 20
    assert first.usage.total_tokens == first.usage.prompt_tokens + first.usage.completion_tokens
    again = client.chat.completions.create(model="writer", messages=MESSAGES, n=2, seed=1)
    assert again.choices == first.choices
    assert (again.usage.prompt_tokens, again.usage.total_tokens) == (0, 0)
    embedded = client.embeddings.create(model="eye", input=["a bed", "a lamp"])
    assert embedded.usage.prompt_tokens == embedded.usage.total_tokens > 2
    painted = client.images.edit(model="painter", image=("x.png", png()), prompt="a bed")
    assert painted.usage.output_tokens > 100
    assert len([each for each in stub.requests if each.method == "POST"]) == 2 + 2 + 1
    assert opened.money().spent > 0


def test_a_stream_ends_with_its_usage_if_that_is_asked_for(paid) -> None:
    client, _, _ = paid
    options = {"include_usage": True}
    events = list(
        client.chat.completions.create(model="writer", messages=MESSAGES, stream=True, stream_options=options)
    )
    assert events[-1].choices == []
    assert events[-1].usage.total_tokens > 20
    assert all(event.usage is None for event in events[:-1])
    plain = list(client.chat.completions.create(model="writer", messages=MESSAGES, stream=True))
    assert all(event.usage is None for event in plain)


def test_a_stream_that_waits_shows_signs_of_life_and_tells_a_late_error(serve, connect, monkeypatch) -> None:
    monkeypatch.setattr(server, "SIGN_OF_LIFE_S", 0.02)

    def writer(request: TextRequest) -> str:
        time.sleep(0.3)
        if request.messages[0].content == "fail":
            raise Stopped("the account is empty; top it up")
        return "Two words."

    running = serve({"writer": writer})
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=5)
    body = json.dumps({"model": "writer", "messages": MESSAGES, "stream": True})
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    raw = connection.getresponse().read().decode()
    connection.close()
    assert raw.count(": asked, and waiting") > 3
    assert raw.endswith("data: [DONE]\n\n")
    client = connect(running, max_retries=0)
    events = client.chat.completions.create(model="writer", messages=MESSAGES, stream=True)
    assert "".join(event.choices[0].delta.content or "" for event in events) == "Two words."
    failing = [{"role": "user", "content": "fail"}]
    with pytest.raises(openai.APIError, match="the account is empty"):
        list(client.chat.completions.create(model="writer", messages=failing, stream=True))
