from __future__ import annotations

import dataclasses
import doctest
import importlib
import itertools
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from privolve.evaluation.comparison import Comparison
from privolve.evaluation.metric import Score
from privolve.evaluation.report import comparison_page, interactive, saved
from privolve.evaluation.report.content import (
    Claim,
    Curve,
    Gallery,
    Lineage,
    Picture,
    Release,
    ReportData,
    ReportError,
    Series,
    ancestry,
)
from privolve.evaluation.report.page import render
from privolve.evaluation.report.pictures import THUMBNAIL, encode, montage
from privolve.evaluation.report.plots import plot
from privolve.evaluation.selection import ORACLE
from privolve.jobs.job import InputError

VOID = {"meta", "link", "img", "br", "input", "hr"}
MakePage = Callable[..., ReportData]
MakeComparison = Callable[..., Comparison]
LIBRARY = "window.privolveEmbed = async () => ({});"
"""Stands in for the library, which is tested in a browser."""


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


def whole(page: str, *, scripts: int) -> Reading:
    """The page, read, and seen to be whole, to ask for nothing, and to allow its own scripts alone."""
    read = Reading(page)
    assert not {"iframe", "object", "embed", "form", "base", "audio", "video"} & set(read.tags)
    assert read.tags.count("script") == scripts == read.policy.partition("script-src")[2].count("'sha256-")
    assert read.handlers == [] and read.styled == []
    assert all(link.startswith(("data:image/", "#")) or link == "data:," for link in read.links)
    assert {link[1:] for link in read.links if link.startswith("#")} <= set(read.ids)
    assert len(read.ids) == len(set(read.ids))
    assert "default-src 'none'; img-src data:;" in read.policy and "unsafe" not in read.policy
    return read


@pytest.mark.parametrize("public_only", [True, False])
def test_a_comparison_is_whole_and_self_contained_with_and_without_scripts(
    comparison_of: MakeComparison, public_only: bool
) -> None:
    for library, scripts in ((None, 0), (LIBRARY, 2)):
        page = comparison_page.render(
            comparison_of(), public_only=public_only, library=library, again="privolve report x"
        )
        read = whole(page, scripts=scripts)
        assert page.count('class="plot drawn"') >= 4, "the static plots are there in any case"
        assert ("data-plot=" in page) is (library is not None)
        assert "a <script>alert(1)</script> & \"quoted\" 'seven' </style>" in read.text
        assert "<script>alert" not in page


def test_a_page_without_curves_has_no_script(page_of: MakePage) -> None:
    whole(render(dataclasses.replace(page_of(), curves=()), public_only=True, library=LIBRARY), scripts=0)
    whole(render(page_of(), public_only=True, library=LIBRARY), scripts=2)


def visible(page: str) -> str:
    """Everything but the stylesheet, the scripts and the pictures; plots' data is part of it."""
    return re.sub(r"<style>.*?</style>|<script>.*?</script>|data:image[^\"]*", "", page, flags=re.S)


def test_nothing_unprotected_remains_in_the_public_copy_of_a_comparison(comparison_of: MakeComparison) -> None:
    comparison = comparison_of()
    private = visible(comparison_page.render(comparison, public_only=False, library=LIBRARY))
    public = visible(comparison_page.render(comparison, public_only=True, library=LIBRARY))
    for words in (
        "membership",
        "ceiling",
        "oracle selection",
        "77.04",
        "7,703",
        "real data",
        "do not publish",
        "0.7312",
    ):
        assert words in private, words
        assert words not in public, words
    assert "image-pe" in public and "Classifier accuracy".casefold() in public.casefold()


def test_the_public_copy_of_a_comparison_is_the_same_whatever_was_withheld(comparison_of: MakeComparison) -> None:
    comparison = comparison_of()

    def other(score: Score) -> Score:
        return score if score.protected else dataclasses.replace(score, value=score.value / 3)

    (group,) = comparison.groups
    cells = tuple(
        dataclasses.replace(
            cell, scores=tuple(map(other, cell.scores)), seconds=1.0, all_micro_dollars=cell.micro_dollars
        )
        for cell in group.cells
    )
    changed = dataclasses.replace(comparison, groups=(dataclasses.replace(group, cells=cells),))
    for library in (None, LIBRARY):
        pages = [comparison_page.render(each, public_only=True, library=library) for each in (comparison, changed)]
        assert pages[0] == pages[1]
    assert comparison_page.render(comparison, public_only=False) != comparison_page.render(changed, public_only=False)


def test_a_choice_by_the_test_set_is_in_no_summary_and_no_plot(comparison_of: MakeComparison) -> None:
    comparison = comparison_of(hostile=False)
    (group,) = comparison.groups
    accuracy = Score(
        name=f"classifier accuracy{ORACLE}", subject="x", value=0.99, protected=False, unit="share", better="higher"
    )
    oracles = (accuracy, dataclasses.replace(accuracy, name=f"Frechet distance{ORACLE}", unit="", better="lower"))
    first = tuple(dataclasses.replace(cell, scores=(*oracles, *cell.scores)) for cell in group.cells)
    only = tuple(dataclasses.replace(cell, scores=oracles) for cell in group.cells)
    for cells in (first, only):
        shown = dataclasses.replace(comparison, groups=(dataclasses.replace(group, cells=cells),))
        page = visible(comparison_page.render(shown, public_only=False, library=LIBRARY))
        before, _, after = page.partition("Every figure</h3>")
        assert "oracle selection" not in before and "oracle selection" in after


def test_published_figures_stand_beside_comparable_ones_and_are_marked(comparison_of: MakeComparison) -> None:
    comparison = comparison_of(hostile=False)
    page = comparison_page.render(comparison, public_only=True)
    rows = {row for row in re.findall(r'<tr class="published">.*?</tr>', page, flags=re.S) if "DP-LoRA" in row}
    assert rows and all("claim does not hold" in row for row in rows)
    assert "its 8 copies of a record are clipped one by one" in page and "DPImageBench, README section 7" in page
    dpdm = [row for row in re.findall(r'<tr class="published">.*?</tr>', page, flags=re.S) if ">DPDM " in row]
    assert dpdm and not any("claim does not hold" in row for row in dpdm)
    assert "published elsewhere" in page and "published, its claim does not hold" in page
    (group,) = comparison.groups
    elsewhere = dataclasses.replace(comparison, groups=(dataclasses.replace(group, names=("my own set",)),))
    page = comparison_page.render(elsewhere, public_only=True)
    assert 'class="published"' not in page and "DP-LoRA" not in page and "published elsewhere" not in page


def test_a_cell_that_was_lost_is_said_at_the_top_and_in_full(comparison_of: MakeComparison) -> None:
    read = Reading(comparison_page.render(comparison_of(hostile=False), public_only=True))
    assert "1 entry is missing" in read.text and "#missing" in read.links
    assert "dpdm on mnist, epsilon 1, seed 2: not started within the time limit" in read.text
    complete = dataclasses.replace(comparison_of(hostile=False), limits=())
    assert "missing" not in Reading(comparison_page.render(complete, public_only=True)).text


def test_means_over_seeds_have_their_interval_in_table_plot_and_text(comparison_of: MakeComparison) -> None:
    page = comparison_page.render(comparison_of(hostile=False), public_only=True, library=LIBRARY)
    assert "Means over 3 seeds" in page and page.count('class="whisker"') >= 12
    curves = comparison_of(hostile=False).groups[0].curves()
    drawn = plot(curves[0])
    assert drawn is not None and drawn.head == ("Of", "epsilon", "classifier accuracy (WRN-40-4)", "95 % interval")
    assert all(" to " in row[1][2] for row in drawn.rows if "epsilon" in row[0])
    one = comparison_page.render(comparison_of(seeds=1, hostile=False), public_only=True, library=LIBRARY)
    assert 'class="whisker"' not in one and "Means over" not in one


def test_a_comparison_of_nothing_and_of_one_cell_are_pages(comparison_of: MakeComparison) -> None:
    comparison = comparison_of()
    (group,) = comparison.groups
    for cells in ((), group.cells[:1], group.cells[-1:]):
        shown = dataclasses.replace(comparison, groups=(dataclasses.replace(group, cells=cells),))
        for public_only in (True, False):
            whole(comparison_page.render(shown, public_only=public_only, library=LIBRARY), scripts=0)


def test_what_a_run_measured_beside_itself_is_public_only_with_a_figure_that_is(comparison_of: MakeComparison) -> None:
    """Whether a private figure could be computed depends on private records."""
    comparison = comparison_of()
    (group,) = comparison.groups
    scores = group.cells[1].scores
    private = tuple(each for each in scores if not each.protected)
    beside = [
        dataclasses.replace(group.cells[1], name=f"run: {name}", method=name, folder="run", scores=figures)
        for name, figures in (("measured", scores), ("hidden", private), ("impossible", ()))
    ]
    own = dataclasses.replace(group.cells[1], name="run", method="own", folder="run", scores=private)
    shown = dataclasses.replace(comparison, groups=(dataclasses.replace(group, cells=(own, *beside)),))
    assert [each.method for each in shown.public().cells] == ["own", "measured"]
    assert [each.method for each in shown.cells] == ["own", "measured", "hidden", "impossible"]


def test_a_comparison_that_was_written_makes_the_same_page(comparison_of: MakeComparison) -> None:
    comparison = comparison_of()
    for shown in (comparison, comparison.public()):
        written = json.loads(json.dumps(shown.to_json()))
        again = saved.comparison(written, saved.pictures(shown))
        for public_only in (True, False):
            assert comparison_page.render(again, public_only=public_only) == comparison_page.render(
                shown, public_only=public_only
            )
    with pytest.raises(ReportError, match="compare its runs again"):
        saved.comparison({**written, "format": 2}, {})
    with pytest.raises(ReportError, match="compare its runs again"):
        saved.comparison({"format": 1, "title": "x"}, {})


def test_both_pages_lie_beside_their_tables_and_are_made_again_from_them(
    comparison_of: MakeComparison, tmp_path: Path
) -> None:
    from privolve.jobs import page as pages
    from privolve.jobs import side_by_side

    *_, public, private = side_by_side.write(tmp_path, comparison_of())
    assert public == tmp_path / "release" / "comparison.html" and private == tmp_path / "private" / "comparison.html"
    assert private.stat().st_mode & 0o077 == 0
    first = [path.read_bytes() for path in (public, private)]
    assert b"do not publish" in first[1] and b"do not publish" not in first[0]
    assert pages.rewrite(tmp_path) == [public, private]
    assert [path.read_bytes() for path in (public, private)] == first
    for path in (tmp_path / "private").iterdir():
        path.unlink()
    assert pages.rewrite(tmp_path) == [public] and public.read_bytes() == first[0]
    (tmp_path / "release" / "comparison.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="compare its runs again"):
        pages.rewrite(tmp_path)


def test_the_interactive_plot_holds_the_points_of_the_static_one_and_nothing_else(
    comparison_of: MakeComparison,
) -> None:
    for curve in comparison_of().groups[0].curves():
        drawn = plot(curve)
        assert drawn is not None
        spec = interactive.spec(drawn)
        json.dumps(spec, allow_nan=False)
        assert sorted(row["text"] for row in spec["data"]["values"]) == sorted(
            text for line in drawn.lines for _, _, text in line.points
        )
        assert "url" not in json.dumps(spec["data"]) and "url" not in spec


def test_without_the_extra_pages_are_static_and_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from privolve.jobs import page as pages

    monkeypatch.setattr(interactive, "is_installed", lambda: False)
    interactive.library.cache_clear()
    assert interactive.library() is None
    (line,) = pages.hint()
    assert "pip install 'privolve[report]'" in line
    monkeypatch.setattr(interactive, "is_installed", lambda: True)
    assert pages.hint() == []
    interactive.library.cache_clear()


def test_a_logarithmic_axis_is_one_only_for_positive_values() -> None:
    def drawn(*xs: float):
        series = (Series(name="s", x=xs, y=xs),)
        return plot(Curve(title="c", x_label="x", y_label="y", protected=True, series=series, logarithmic=True))

    logarithmic = drawn(1.0, 10.0, 100.0)
    assert logarithmic.logarithmic
    first, middle, last = (point[0] for point in logarithmic.lines[0].points)
    assert middle - first == pytest.approx(last - middle, abs=0.2)
    assert not drawn(0.0, 10.0).logarithmic and not drawn(5.0).logarithmic
    assert [tick.text for tick in drawn(1.0, 10.0, 100.0).x_ticks] == ["1", "10", "100"]
    many = drawn(*(1.03**step for step in range(200)))
    places = [tick.at for tick in many.x_ticks]
    assert len(places) >= 3 and min(b - a for a, b in itertools.pairwise(places)) >= 25


def test_releases_and_the_facts_of_a_training_are_on_the_page() -> None:
    releases = (
        Release(name="Central images", kind="query", noise="Gaussian, noise multiplier 5", alone=0.72551),
        Release(name="Training", kind="training", noise="112 steps", alone=9.94494, paid=2),
    )
    data = ReportData(title="t", releases=releases, training={"Steps": "112", "Noise draws a record, K": "4"})
    text = Reading(render(data, public_only=True)).text
    for words in ("Training and releases", "0.7256", "9.945", "paid 2 times", "Noise draws a record, K"):
        assert words in text
    never = Release(name="Training", kind="training", noise="none", alone=float("inf"))
    assert "∞" in Reading(render(ReportData(title="t", releases=(never,)), public_only=True)).text


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


def test_two_floors_and_a_ceiling_have_dashes_of_their_own() -> None:
    levels = [
        Series(name=name, x=(1.0, 3.0), y=(height, height), look="level")
        for name, height in zip("abc", (1.0, 2.0, 3.0), strict=True)
    ]
    drawn = plot(Curve(title="c", x_label="epsilon", y_label="y", protected=True, series=tuple(levels)))
    assert len({line.style for line in drawn.lines}) == 3
    assert len({tuple(interactive._dash(line.look, line.place)) for line in drawn.lines}) == 3


def test_shares_have_one_decimal_and_evidence_says_what_guessing_reaches() -> None:
    auc = Score(
        name="membership AUC by distance", subject="final", value=0.5, protected=True, unit="share", interval=(0.4, 0.6)
    )
    page = render(ReportData(title="t", scores=(auc,)), public_only=True)
    assert "50.0 %" in page and "guessing reaches 50 %" in page
    assert "40.0 % to 60.0 %, 95 % interval" in page and "1 seeds" not in page


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
