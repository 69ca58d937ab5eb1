"""The page in a real headless Chromium: it fits every width, and asks nobody for anything."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from privolve.evaluation.report.content import ReportData
from privolve.evaluation.report.page import render

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = {"narrow": 360, "phone": 390, "tablet": 820, "laptop": 1280, "wide": 1920}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-client-side-phishing-detection",
    "--disable-extensions",
    "--metrics-recording-only",
    "--disable-features=OptimizationHints,MediaRouter,Translate,NetworkTimeServiceQuerying",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


LAUNCH = """
import fcntl, os, sys
ours = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
os.dup2(ours[0], 3), os.dup2(ours[1], 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
"""Puts two pipes on descriptors 3 and 4, where the protocol wants them, and becomes the browser."""


class Witness:
    """A proxy on loopback that answers nothing and remembers who was asked for."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.asked: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(2)
                with contextlib.suppress(OSError):
                    self.asked.append(connection.recv(4096).split(b"\r\n")[0].decode("latin-1"))

    def close(self) -> None:
        self._listener.close()


class Browser:
    """Chromium by its DevTools protocol over two pipes, as much of it as these tests need."""

    def __init__(self, profile: Path, witness: Witness) -> None:
        to_browser, self._requests = os.pipe()
        self._replies, from_browser = os.pipe()
        command = [
            str(CHROMIUM),
            *QUIET,
            f"--user-data-dir={profile}",
            "--proxy-server=http://127.0.0.1:9",  # the browser's own errands end at a port where nobody listens
            "--remote-debugging-pipe",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(to_browser), str(from_browser), *command],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._count = b"", 0
        self.events: list[dict[str, Any]] = []
        proxy = {"proxyServer": f"http://127.0.0.1:{witness.port}", "proxyBypassList": "<-loopback>"}
        context = self.call("Target.createBrowserContext", session="", **proxy)["browserContextId"]
        target = self.call("Target.createTarget", session="", url="about:blank", browserContextId=context)["targetId"]
        self._session = self.call("Target.attachToTarget", session="", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, *, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if session is None:
            message["sessionId"] = self._session
        os.write(self._requests, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._next()
            if reply.get("id") == self._count:
                assert "error" not in reply, reply
                return reply["result"]

    def open(self, page: Path, *, width: int, height: int = 900, dark: bool = False, media: str = "") -> None:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media=media, features=scheme)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._next()

    def evaluate(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def requests(self) -> list[str]:
        """Every URL that was asked for since `open`, but data URIs."""
        sent = (
            event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"
        )
        return [url for url in sent if not url.startswith("data:")]

    def complaints(self) -> list[str]:
        return [event["params"]["entry"]["text"] for event in self.events if event["method"] == "Log.entryAdded"]

    def close(self) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self.call("Browser.close", session="")
        os.close(self._requests)
        os.close(self._replies)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            piece = os.read(self._replies, 1 << 16)
            if not piece:
                raise OSError("Chromium closed the pipe")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message


@pytest.fixture(scope="module")
def witness() -> Iterator[Witness]:
    witness = Witness()
    yield witness
    witness.close()


@pytest.fixture(scope="module")
def browser(witness: Witness, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"), witness)
    yield browser
    browser.close()


OVERFLOWING = """
[document.documentElement.scrollWidth - innerWidth,
 [...document.querySelectorAll('body *')].filter(e => {
   const r = e.getBoundingClientRect();
   return r.right > innerWidth + 1 && r.width && !e.closest('.scroll, pre, .hidden');
 }).map(e => e.tagName + '.' + (e.className.baseVal ?? e.className)).slice(0, 5)]
"""


@pytest.mark.parametrize("kind", ["full", "start", "one", "alphabet", "pictures", "empty"])
def test_nothing_overflows_at_any_width_and_no_request_leaves_the_page(
    kind: str, browser: Browser, witness: Witness, page_of: Callable[..., ReportData], tmp_path: Path
) -> None:
    data = {
        "full": lambda: page_of(),
        "start": lambda: page_of(iterations=0),
        "one": lambda: page_of(iterations=1),
        "alphabet": lambda: page_of(labels=26, iterations=11),
        "pictures": lambda: page_of(captions=False, hostile=False),
        "empty": lambda: ReportData(title="An empty run with a_name_that_has_no_place_to_break_" + "x" * 80),
    }[kind]()
    page = tmp_path / "report.html"
    page.write_text(render(data, public_only=False), encoding="utf-8")
    for name, width in WIDTHS.items():
        browser.open(page, width=width, dark=name == "tablet")
        browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert browser.evaluate(OVERFLOWING) == [0, []], f"{kind} at {width}"
        assert browser.requests() == [page.as_uri()]
        assert browser.complaints() == []
        assert browser.evaluate("document.scripts.length") == 0
        assert browser.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert witness.asked == []


@pytest.mark.parametrize("name", ["phone", "laptop"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_screenshot_shows_ink_on_paper_in_the_scheme_that_was_asked_for(
    name: str, dark: bool, browser: Browser, page_of: Callable[..., ReportData], tmp_path: Path
) -> None:
    import numpy as np
    from PIL import Image

    page = tmp_path / "report.html"
    page.write_text(render(page_of(), public_only=False), encoding="utf-8")
    browser.open(page, width=WIDTHS[name], dark=dark)
    browser.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels.shape[1] == WIDTHS[name] and pixels.shape[0] > 2000
    paper = np.median(pixels)
    assert paper < 60 if dark else paper > 230
    assert pixels.std() > 10


def test_the_page_prints_with_its_details_open_and_within_the_paper(
    browser: Browser, page_of: Callable[..., ReportData], tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    page.write_text(render(page_of(hostile=False), public_only=True), encoding="utf-8")
    browser.open(page, width=718, media="print")
    assert browser.evaluate(OVERFLOWING) == [0, []]
    assert browser.evaluate("document.querySelector('.captions').getBoundingClientRect().height") > 20
    assert browser.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    (tmp_path / "page.pdf").write_bytes(base64.b64decode(browser.call("Page.printToPDF", printBackground=True)["data"]))
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_every_link_and_fold_can_be_reached_and_opened_by_keyboard(
    browser: Browser, page_of: Callable[..., ReportData], tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    page.write_text(render(page_of(iterations=1), public_only=True), encoding="utf-8")
    browser.open(page, width=1280)

    def press(key: str, code: int, text: str = "") -> None:
        browser.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, text=text)
        browser.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    press("Tab", 9)
    assert browser.evaluate("document.activeElement.className") == "skip"
    reached = 1
    while browser.evaluate("document.activeElement.tagName") != "SUMMARY" and reached < 40:
        press("Tab", 9)
        reached += 1
    assert browser.evaluate("document.activeElement.tagName") == "SUMMARY"
    press("Enter", 13, "\r")
    assert browser.evaluate("document.activeElement.parentElement.open") is True


def test_the_witness_sees_a_page_that_does_ask_and_the_policy_stops_one_that_would(
    browser: Browser, witness: Witness, page_of: Callable[..., ReportData], tmp_path: Path
) -> None:
    page = tmp_path / "asks.html"
    page.write_text("<!doctype html><img src='http://tracker.invalid/pixel.png'>", encoding="utf-8")
    browser.open(page, width=800)
    assert any("tracker.invalid/pixel.png" in line for line in witness.asked)
    witness.asked.clear()
    careless = render(page_of(iterations=0), public_only=True).replace(
        "</main>", "<img src='http://tracker.invalid/pixel.png'><script>document.title = 'ran'</script></main>"
    )
    page.write_text(careless, encoding="utf-8")
    browser.open(page, width=800)
    assert witness.asked == []
    assert browser.evaluate("document.title") != "ran"
    assert len(browser.complaints()) >= 2
