"""The pages in a real headless Chromium: they fit every width, can be used without a mouse, and ask nobody for anything."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from privolve.evaluation.comparison import Comparison
from privolve.evaluation.report import comparison_page, interactive
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
        for domain in ("Page", "Network", "Log", "Runtime"):
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

    def open(
        self, page: Path, *, width: int, height: int = 900, dark: bool = False, media: str = "", scripts: bool = True
    ) -> None:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media=media, features=scheme)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._next()
        if scripts and self.evaluate("document.querySelector('figure[data-plot]') !== null"):
            self.until("document.documentElement.dataset.plots === 'drawn'")

    def until(self, expression: str, *, timeout_s: float = 20) -> None:
        """Wait until it is true."""
        last = time.monotonic() + timeout_s
        while not self.evaluate(expression):
            assert time.monotonic() < last, f"never true: {expression}; {self.complaints()}"
            time.sleep(0.02)

    def press(self, key: str, code: int, text: str = "") -> None:
        named = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **named)
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

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
        """What the browser, the page's policy or a script had to say, and every error."""
        said: list[str] = []
        for event in self.events:
            match event["method"]:
                case "Log.entryAdded":
                    said.append(event["params"]["entry"]["text"])
                case "Runtime.exceptionThrown":
                    said.append(str(event["params"]["exceptionDetails"]))
                case "Runtime.consoleAPICalled":
                    said.append(str([each.get("value") for each in event["params"]["args"]]))
        return said

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

    browser.press("Tab", 9)
    assert browser.evaluate("document.activeElement.className") == "skip"
    reached = 1
    while browser.evaluate("document.activeElement.tagName") != "SUMMARY" and reached < 40:
        browser.press("Tab", 9)
        reached += 1
    assert browser.evaluate("document.activeElement.tagName") == "SUMMARY"
    browser.press("Enter", 13, "\r")
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


# --- comparisons, and plots that can be explored ----------------------------------------------------------------------

MakeComparison = Callable[..., Comparison]
needs_library = pytest.mark.skipif(
    not interactive.is_installed(), reason="plots are interactive with the extra: pip install 'privolve[report]'"
)


@pytest.fixture(scope="module")
def compared(comparison_of: MakeComparison, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages of one comparison: `static`, and with the library `private`, `public` and, without hostile texts, `plain`."""
    folder = tmp_path_factory.mktemp("compared")
    library = interactive.library()
    pages = {
        "static": comparison_page.render(comparison_of(), public_only=False),
        "private": comparison_page.render(comparison_of(), public_only=False, library=library),
        "public": comparison_page.render(comparison_of(), public_only=True, library=library),
        "plain": comparison_page.render(comparison_of(hostile=False), public_only=True, library=library),
    }
    for name, page in pages.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in pages}


OPEN_ALL = "document.querySelectorAll('details').forEach(d => d.open = true)"


@pytest.mark.parametrize("kind", ["static", "private", "public"])
def test_a_comparison_fits_every_width_and_asks_nobody(
    kind: str, browser: Browser, witness: Witness, compared: dict[str, Path]
) -> None:
    for name in ("phone", "laptop") if kind == "public" else WIDTHS:
        width = WIDTHS[name]
        browser.open(compared[kind], width=width, dark=name == "tablet")
        browser.evaluate(OPEN_ALL)
        assert browser.evaluate(OVERFLOWING) == [0, []], f"{kind} at {width}"
        assert browser.requests() == [compared[kind].as_uri()]
        assert browser.complaints() == []
        assert browser.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert witness.asked == []


@needs_library
def test_every_plot_is_drawn_by_the_library_and_the_static_one_waits_for_the_printer(
    browser: Browser, compared: dict[str, Path]
) -> None:
    heights = """[...document.querySelectorAll('figure[data-plot]')].map(f =>
        ['svg.drawn', '.live svg', '.tools'].map(s => f.querySelector(s)?.getBoundingClientRect().height ?? -1))"""
    browser.open(compared["plain"], width=1280)
    found = browser.evaluate(heights)
    assert len(found) >= 4 and all(static == 0 and live > 100 and tools > 0 for static, live, tools in found)
    assert browser.evaluate("document.querySelectorAll('.live path[d]').length") > 20
    browser.open(compared["plain"], width=718, media="print")
    assert all(static > 100 and live == 0 and tools == 0 for static, live, tools in browser.evaluate(heights))
    assert browser.evaluate(OVERFLOWING) == [0, []]
    browser.open(compared["plain"], width=390, scripts=False)
    shown = browser.evaluate(heights)
    assert all(static > 100 and live == -1 for static, live, _ in shown), "nothing is lost without scripts"


@needs_library
def test_series_are_toggled_and_plots_zoomed_by_keyboard(browser: Browser, compared: dict[str, Path]) -> None:
    browser.open(compared["plain"], width=1280)
    points = "document.querySelector('.live').querySelectorAll('.mark-symbol path').length"
    labels = "[...document.querySelector('.live').querySelectorAll('.role-axis-label text')].map(t => t.textContent).join(' ')"
    # The first series off and on again.
    before = browser.evaluate(points)
    browser.evaluate("document.querySelector('.legend button').focus()")
    browser.press("Enter", 13, "\r")
    assert browser.evaluate("document.activeElement.getAttribute('aria-pressed')") == "false"
    browser.until(f"{points} < {before}")
    browser.press("Enter", 13, "\r")
    browser.until(f"{points} === {before}")
    assert browser.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    # Nearer, to the side, and the whole again.
    whole = browser.evaluate(labels)
    browser.evaluate("document.querySelector('.live').focus()")
    browser.press("+", 187, "+")
    browser.until(f"{labels} !== {json.dumps(whole)}")
    nearer = browser.evaluate(labels)
    browser.press("ArrowUp", 38)
    browser.until(f"{labels} !== {json.dumps(nearer)}")
    browser.press("0", 48, "0")
    browser.until("!document.querySelector('.live').classList.contains('zoomed')")
    assert sorted(browser.evaluate(labels).split()) == sorted(whole.split())
    assert browser.evaluate("document.querySelector('.tools button:last-child').disabled")
    assert browser.complaints() == []


@needs_library
def test_hovering_says_the_value_as_text(browser: Browser, compared: dict[str, Path]) -> None:
    browser.open(compared["private"], width=1280)
    place = browser.evaluate("""(() => {
        document.querySelector('.live').scrollIntoView({block: 'center', behavior: 'instant'});
        const marks = [...document.querySelectorAll('.live .mark-symbol path')].map(p => p.getBoundingClientRect());
        return marks.filter(r => r.width && r.top > 0 && r.bottom < innerHeight).map(r => [r.x + r.width / 2, r.y + r.height / 2]);
    })()""")
    said: set[str] = set()
    for x, y in place:
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        said.add(
            browser.evaluate("document.querySelector('.tip').hidden ? '' : document.querySelector('.tip').textContent")
        )
    assert any("image-pe, epsilon 1: 6" in words and " % (" in words for words in said), said
    assert any("<script>alert(1)</script>" in words for words in said), "a name is read, not run"
    assert browser.complaints() == []


CONTRAST = r"""(() => {
    const parse = c => { const v = c.match(/[\d.]+/g).map(Number); return v.length > 3 ? v : [...v, 1]; };
    const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
    const light = c => [0, 1, 2].map(i => c[i] / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const ground = element => {
        const layers = [];
        for (let e = element; e; e = e.parentElement) {
            const c = parse(getComputedStyle(e).backgroundColor);
            if (c[3] > 0) layers.push(c);
            if (c[3] === 1) break;
        }
        return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
    };
    const found = [];
    for (const e of document.querySelectorAll('body *')) {
        if (e.closest('.hidden, .skip, button:disabled, [hidden], [aria-pressed="false"]')) continue;
        const words = [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent.trim()).join('');
        const box = e.getBoundingClientRect();
        if (!words || !box.width || !box.height || ['SCRIPT', 'STYLE', 'TITLE', 'DESC'].includes(e.tagName.toUpperCase())) continue;
        const style = getComputedStyle(e), paper = ground(e);
        const inside = e.namespaceURI.endsWith('svg') ? style.fill : style.color;
        if (!inside.startsWith('rgb')) continue;
        const ink = over(parse(inside), paper);
        const [high, low] = [light(ink), light(paper)].sort((a, b) => b - a);
        const ratio = (high + .05) / (low + .05);
        if (ratio < 4.5) found.push(`${e.tagName}.${e.className.baseVal ?? e.className} ${words.slice(0, 30)} ${ratio.toFixed(2)}`);
    }
    return found;
})()"""

MARK_CONTRAST = r"""(() => {
    const hex = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const light = h => [1, 3, 5].map(i => parseInt(h.slice(i, i + 2), 16) / 255)
        .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);
    const paper = light(hex('--paper'));
    return ['--warn', ...[...Array(8).keys()].map(n => `--series-${n}`)].map(name => {
        const [high, low] = [light(hex(name)), paper].sort((a, b) => b - a);
        return (high + .05) / (low + .05);
    });
})()"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_and_marks_stand_out_from_the_paper(dark: bool, browser: Browser, compared: dict[str, Path]) -> None:
    for kind in ("static", "private"):
        browser.open(compared[kind], width=1280, dark=dark)
        browser.evaluate(OPEN_ALL)
        assert browser.evaluate(CONTRAST) == []
        assert min(browser.evaluate(MARK_CONTRAST)) >= 3
    browser.evaluate("document.querySelector('.lead').setAttribute('class', 'lead faint')")
    browser.evaluate("document.querySelector('.faint').style.color = getComputedStyle(document.body).backgroundColor")
    assert any("faint" in line for line in browser.evaluate(CONTRAST)), "the measure sees what nobody can read"


STRUCTURE = r"""(() => {
    const wrong = [];
    const name = e => e.getAttribute('aria-label') || (e.getAttribute('aria-labelledby') || '').split(' ').map(id => document.getElementById(id)?.textContent ?? '').join('').trim() || e.textContent.trim();
    let level = 0;
    for (const h of document.querySelectorAll('h1, h2, h3, h4')) {
        const now = Number(h.tagName[1]);
        if (now > level + 1) wrong.push(`heading ${h.textContent} skips a level`);
        level = now;
    }
    for (const tag of ['h1', 'main', 'header', 'footer', 'nav']) {
        if (document.querySelectorAll(`body > ${tag}, body > * > ${tag}`).length !== 1) wrong.push(`not one ${tag}`);
    }
    for (const e of document.querySelectorAll('img')) if (!e.hasAttribute('alt')) wrong.push('img without alt');
    for (const e of document.querySelectorAll('svg')) {
        if (e.getAttribute('role') === 'img' ? !name(e) : !e.closest('[aria-hidden="true"]')) wrong.push('svg without words');
    }
    for (const e of document.querySelectorAll('button, a[href], summary, [role="region"], [role="group"], nav')) if (!name(e)) wrong.push(`${e.tagName} without a name`);
    for (const e of document.querySelectorAll('[aria-labelledby]')) for (const id of e.getAttribute('aria-labelledby').split(' ')) if (!document.getElementById(id)) wrong.push(`nothing is called ${id}`);
    for (const e of document.querySelectorAll('table')) if (!e.caption && !e.closest('[role="region"]')) wrong.push('table without a name');
    for (const e of document.querySelectorAll('th')) if (!e.scope) wrong.push('th without scope');
    for (const e of document.querySelectorAll('.scroll')) if (e.tabIndex !== 0) wrong.push('a scrolling part that no key reaches');
    return wrong;
})()"""


@pytest.mark.parametrize("kind", ["static", "private", "run"])
def test_headings_names_and_landmarks_are_what_a_screen_reader_needs(
    kind: str, browser: Browser, compared: dict[str, Path], page_of: Callable[..., ReportData], tmp_path: Path
) -> None:
    page = compared.get(kind, tmp_path / "run.html")
    if kind == "run":
        page.write_text(render(page_of(), public_only=False, library=interactive.library()), encoding="utf-8")
    browser.open(page, width=1280)
    assert browser.evaluate(STRUCTURE) == []
    browser.evaluate("document.querySelector('img').removeAttribute('alt')")
    assert browser.evaluate(STRUCTURE) == ["img without alt"]


@needs_library
def test_the_tab_key_goes_through_the_page_from_top_to_bottom_and_is_seen(
    browser: Browser, compared: dict[str, Path]
) -> None:
    browser.open(compared["plain"], width=1280)
    tops: list[float] = []
    reached: set[str] = set()
    for _ in range(60):
        browser.press("Tab", 9)
        at = browser.evaluate("""(() => { const e = document.activeElement, r = e.getBoundingClientRect();
            return [e.tagName, e.className, r.top + scrollY, getComputedStyle(e).outlineStyle, r.width]; })()""")
        if at[0] == "BODY":
            break
        reached.add(at[1] or at[0])
        assert at[3] != "none", f"{at[0]}.{at[1]} has the focus and does not show it"
        tops.append(at[2])
    assert {"skip", "scroll", "live", "BUTTON", "SUMMARY"} <= reached
    backwards = [(a, b) for a, b in itertools.pairwise(tops[1:]) if b < a - 500]
    assert backwards == [], "the focus never jumps back, but to a plot beside"


@needs_library
def test_the_policy_lets_no_other_script_and_no_request_through(
    browser: Browser, witness: Witness, compared: dict[str, Path], tmp_path: Path
) -> None:
    careless = (
        compared["plain"]
        .read_text(encoding="utf-8")
        .replace(
            "</main>",
            "<script>document.title = 'ran'</script><b onclick='1'></b>"
            "<img src='http://tracker.invalid/pixel.png'></main>",
        )
    )
    page = tmp_path / "careless.html"
    page.write_text(careless, encoding="utf-8")
    browser.open(page, width=1280)
    assert browser.evaluate("document.title") != "ran"
    assert len(browser.complaints()) >= 2 and witness.asked == []
    added = """(() => { const script = document.createElement('script'); script.textContent = 'window.seen = 1';
        document.body.append(script); return window.seen ?? 'no'; })()"""
    assert browser.evaluate(added) == "no"
