from __future__ import annotations

import dataclasses
import doctest
import importlib
import re
from collections.abc import Callable
from html.parser import HTMLParser

import numpy as np
import pytest

from privolve.evaluation.metric import Score
from privolve.evaluation.report.content import (
    Claim,
    Curve,
    Gallery,
    Lineage,
    Picture,
    ReportData,
    ReportError,
    Series,
    ancestry,
)
from privolve.evaluation.report.page import render
from privolve.evaluation.report.pictures import THUMBNAIL, encode, montage
from privolve.evaluation.report.plots import plot

VOID = {"meta", "link", "img", "br", "input", "hr"}
MakePage = Callable[..., ReportData]


class Reading(HTMLParser):
    """What a parser makes of a page: tags, visible text, attributes, and whether every tag is closed where it should be."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.styled: list[str] = []
        self.handlers: list[str] = []
        self.policy = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if dict(attrs).get("http-equiv") == "Content-Security-Policy":
            self.policy = dict(attrs)["content"] or ""
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "data", "poster"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name == "style":
                self.styled.append(tag)
            if name.startswith("on"):
                self.handlers.append(name)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1] == tag, (tag, self._open[-3:])
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("public_only", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"iterations": 0}, {"iterations": 1}, {"labels": 26, "iterations": 11}, {"captions": False}]
)
def test_a_page_is_whole_and_self_contained(page_of: MakePage, options: dict[str, int], public_only: bool) -> None:
    page = render(page_of(**options), public_only=public_only)
    read = Reading(page)
    assert not {"script", "iframe", "object", "embed", "form", "base", "audio", "video"} & set(read.tags)
    assert read.handlers == [] and read.styled == []
    assert all(
        link.startswith(("data:image/png;base64,", "data:image/jpeg;base64,", "#")) or link == "data:,"
        for link in read.links
    )
    assert {link[1:] for link in read.links if link.startswith("#")} <= set(read.ids)
    assert len(read.ids) == len(set(read.ids))
    assert "url(" not in page and "@import" not in page
    assert "default-src 'none'; img-src data:; style-src 'sha256-" in read.policy


def test_captions_are_text_whatever_they_look_like(page_of: MakePage) -> None:
    page = render(page_of(), public_only=True)
    assert "<script" not in page and "alert(1)" in page
    assert "a <script>alert(1)</script> & \"quoted\" 'seven' </style>" in Reading(page).text


def test_nothing_unprotected_remains_in_the_public_copy(page_of: MakePage) -> None:
    data = page_of()
    private, public = render(data, public_only=False), render(data, public_only=True)
    withheld = (
        "73.1",
        "0.731",
        "unprotected",
        "do not publish",
        "Frechet to voters",
        "77,0",
        "77.0",
        "1 min 17",
        "real training set",
    )
    for words in withheld:
        assert words in private.replace("Unprotected", "unprotected"), words
        assert words not in re.sub(r"<style>.*?</style>|data:[^\"]*", "", public, flags=re.S).replace(
            "no unprotected figure", ""
        ), words
    assert "81.2 %" in public and "Frechet distance" in public


def test_the_public_copy_is_the_same_whatever_was_withheld(page_of: MakePage) -> None:
    data = page_of()
    other = dataclasses.replace(
        data,
        scores=(
            *(score if score.protected else dataclasses.replace(score, value=score.value / 3) for score in data.scores),
            Score(name="another", subject="voters", value=3.0, protected=False),
        ),
        curves=tuple(curve for curve in data.curves if curve.protected),
        models=tuple(
            dataclasses.replace(use, refused=5, sent=6, cost="$ 9") if use.saw_private else use for use in data.models
        ),
        facts=dataclasses.replace(data.facts, duration_s=1.0),
    )
    assert render(other, public_only=True) == render(data, public_only=True)
    assert render(other, public_only=False) != render(data, public_only=False)


def test_scores_of_two_networks_or_references_stand_in_two_tables() -> None:
    def score(**changes: str) -> Score:
        return Score(
            **{
                "name": "Frechet distance",
                "subject": "final",
                "value": 1.0,
                "protected": True,
                "reference": "test",
                **changes,
            }
        )  # type: ignore[arg-type]

    alike = render(ReportData(title="t", scores=(score(), score(subject="initial"))), public_only=True)
    apart = render(
        ReportData(title="t", scores=(score(network="a"), score(network="b"), score(reference="voters"))),
        public_only=True,
    )
    assert alike.count('<table class="scores">') == 1 and apart.count('<table class="scores">') == 3


def test_a_guarantee_is_never_printed_smaller_than_it_is() -> None:
    claim = Claim(text="t", epsilon=1.00001, delta=1.00001e-5, replace_one=float("inf"))
    text = Reading(render(ReportData(title="t", claim=claim), public_only=True)).text
    assert "ε = 1.001" in text and "1.001 × 10⁻⁵" in text and "ε = ∞" in text


def test_the_text_says_how_many_are_shown_of_how_many_and_the_page_stays_small() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6000, 28, 28, 1), dtype=np.uint8)
    labels = np.arange(6000) % 26
    classes = [chr(65 + n) for n in range(26)]
    galleries = tuple(Gallery.of(f"Iteration {n}", classes=classes, labels=labels, images=images) for n in range(11))
    page = render(ReportData(title="t", galleries=galleries), public_only=True)
    assert "12 of 231" in page
    assert len(page) < 3_000_000


def test_photographs_become_thumbnails_and_tiny_images_stay_exact() -> None:
    import base64
    import io

    from PIL import Image

    tiny = np.random.default_rng(0).integers(0, 256, (28, 20, 3), dtype=np.uint8)
    encoded = encode(tiny)
    with Image.open(io.BytesIO(base64.b64decode(encoded.uri.partition(",")[2]))) as image:
        np.testing.assert_array_equal(np.asarray(image), tiny)
    assert (encoded.width, encoded.height) == (60, 84)
    photo = encode(np.zeros((512, 1024, 3), dtype=np.uint8))
    assert (photo.width, photo.height, photo.tiny) == (THUMBNAIL, THUMBNAIL // 2, False)
    assert len(photo.uri) < 8_000


def test_a_montage_holds_every_picture_of_whatever_size_and_colour() -> None:
    import base64
    import io

    from PIL import Image

    pictures = [np.full((8, 8), 9, np.uint8), np.full((6, 4, 1), 7, np.uint8), np.full((8, 8, 3), 5, np.uint8)]
    sheet = montage(pictures, columns=2)
    with Image.open(io.BytesIO(base64.b64decode(sheet.uri.partition(",")[2]))) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (17, 17, 4)
    assert (pixels[:8, :8] == [9, 9, 9, 255]).all() and (pixels[:6, 9:13] == [7, 7, 7, 255]).all()
    assert (pixels[9:, :8] == [5, 5, 5, 255]).all() and (pixels[8] == 0).all()


def test_texts_alone_make_a_page_too() -> None:
    gallery = Gallery.of(
        "Released", classes=["good", "bad"], labels=np.array([0, 1, 0]), captions=["fine", "poor", "<b>"]
    )
    read = Reading(render(ReportData(title="Reviews", galleries=(gallery,)), public_only=True))
    assert "Texts" in read.text and "poor" in read.text and "<b>" in read.text and "b" not in read.tags


def test_an_empty_report_and_an_empty_label_are_pages() -> None:
    Reading(render(ReportData(title="nothing yet"), public_only=False))
    gallery = Gallery.of("Initial", classes=["a", "b"], labels=np.array([0]), images=np.zeros((1, 8, 8), np.uint8))
    assert "None." in render(ReportData(title="t", galleries=(gallery, gallery)), public_only=True)
    Reading(render(ReportData(title="t", lineages=(Lineage(label="a", steps=()),)), public_only=True))


def test_a_curve_of_one_point_of_equal_values_of_gaps_or_of_nothing_is_drawn_or_left_out() -> None:
    def curve(*ys: float) -> Curve:
        return Curve(
            title="c", x_label="x", y_label="y", protected=True, series=(Series(name="s", x=range(len(ys)), y=ys),)
        )

    nan = float("nan")
    assert plot(curve()) is None and plot(curve(nan, nan)) is None
    for ys in ((1.0,), (2.0, 2.0), (0.0,), (1.0, nan, 3.0), (1e-9, 1e9), (-5.0, 5.0)):
        drawn = plot(curve(*ys))
        assert drawn is not None
        for across, up, _ in drawn.lines[0].points:
            assert drawn.left <= across <= drawn.right and drawn.top <= up <= drawn.bottom
        assert all(drawn.top - 0.1 <= tick.at <= drawn.bottom + 0.1 for tick in drawn.y_ticks)
    gap = plot(curve(1.0, nan, 3.0))
    assert gap is not None and gap.lines[0].path.count("M") == 2


def test_every_curve_has_its_values_as_a_table(page_of: MakePage) -> None:
    text = Reading(render(page_of(iterations=2), public_only=True)).text
    assert "0.957" in text and "Accuracy against Iteration" in text


def test_ancestry_ends_at_an_unknown_parent_and_in_a_circle() -> None:
    assert ancestry({"c": "b", "b": "a"}, "c") == ("a", "b", "c")
    assert ancestry({}, "c") == ("c",)
    assert ancestry({"a": "b", "b": "a"}, "a") == ("b", "a")


def test_content_that_cannot_be_shown_is_refused() -> None:
    with pytest.raises(ReportError):
        Picture(pixels=np.zeros((8, 8), dtype=np.float32))
    with pytest.raises(ReportError):
        Picture(pixels=np.zeros((8, 8, 4), dtype=np.uint8))
    with pytest.raises(ReportError):
        Gallery.of("Initial", classes=["a"], labels=np.array([0, 0]), images=np.zeros((1, 8, 8), np.uint8))
    with pytest.raises(ReportError):
        Series(name="s", x=[1], y=[])


@pytest.mark.parametrize("name", ["wording", "plots", "content"])
def test_the_examples_in_the_docstrings_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"privolve.evaluation.report.{name}"))
    assert result.attempted and not result.failed
