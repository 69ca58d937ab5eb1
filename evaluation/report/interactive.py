"""Interactive plots: the same curves for Vega, whose source goes into the page.

Decision: Vega-Lite with Vega and Vega-Embed (BSD), as vl-convert-python bundles them: 0.9 MB a page (0.3 MB compressed),
without a further dependency. Plotly's bundle has 4.6 MB and Bokeh brings pandas and tornado; both need inline styles or
generated code, while Vega-Embed interprets expressions, so that the page's policy allows two scripts by hash, no `eval`, no
request. A plot in the page is never drawn by script alone: the static one stays for print and for readers without scripts.
"""

from __future__ import annotations

import contextlib
import os
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any

from ...privacy import durable
from ..metric import SHARE
from .content import ReportError
from .plots import LEVELS, Plot, points_of, said

PACKAGE = "vl-convert-python"
HINT = "its plots are static; for interactive ones: pip install 'privolve[report]', then privolve report"
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
SERIES = 8


def is_installed() -> bool:
    """Whether the extra `report` is there: pages are interactive if and only if it is."""
    return util.find_spec("vl_convert") is not None


@cache
def library() -> str | None:
    """The source that a page embeds, which defines `privolveEmbed`; None without the extra.

    Made once a machine and version, and kept in the user's cache folder where that can be written.
    """
    if not is_installed():
        return None
    name = f"vega-{metadata.version(PACKAGE)}.js"
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "privolve" / name
    with contextlib.suppress(OSError, UnicodeDecodeError):
        source = kept.read_text(encoding="utf-8")
        if source.endswith(_END):
            return source
    import vl_convert

    source = vl_convert.javascript_bundle("window.privolveEmbed = vegaEmbed;") + _END
    if "</script" in source.lower():
        raise ReportError(f"the bundle of {PACKAGE} cannot stand in a page; install another version of it")
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        durable.write_bytes(kept, source.encode("utf-8"))
    return source


_END = "\n/* vega */\n"


def spec(drawn: Plot) -> dict[str, Any]:
    """The plot for Vega-Lite. Colours are names of the stylesheet's variables, which the page's script looks up."""
    curve = drawn.curve
    rows: list[dict[str, Any]] = []
    for number, (series, line) in enumerate(zip(curve.series, drawn.lines, strict=True)):
        for x, y, label, low, high in points_of(series):
            text = said(label, x, y, low, high, curve.unit)
            row = {"x": x, "y": y, "s": number, "look": series.look, "text": text}
            rows.append({**row, "low": low, "high": high} if low < high else row)
        assert line.name == series.name
    numbers = list(range(len(drawn.lines)))
    colours = [_colour(line.look, line.place) for line in drawn.lines]
    dashes = [_dash(line.look, line.place) for line in drawn.lines]
    shapes = [{"rings": "circle", "crosses": "M-.7-.7L.7 .7M.7-.7L-.7 .7"}.get(line.look) for line in drawn.lines]
    shapes = [shape or SHAPES[line.place % len(SHAPES)] for shape, line in zip(shapes, drawn.lines, strict=True)]
    x = {
        "field": "x",
        "type": "quantitative",
        "title": curve.x_label,
        "scale": {
            "type": "log" if drawn.logarithmic else "linear",
            "domain": [{"expr": "xlow"}, {"expr": "xhigh"}],
            "nice": False,
            **({} if drawn.logarithmic else {"zero": False}),
        },
        "axis": {
            "grid": False,
            "format": ",.5~g",
            "tickCount": 6,
            "labelOverlap": "greedy",
            **({"tickMinStep": 1} if curve.x_label == "iteration" else {}),
        },
    }
    y = {
        "field": "y",
        "type": "quantitative",
        "title": None,
        "scale": {"domain": [{"expr": "ylow"}, {"expr": "yhigh"}], "nice": False, "zero": False},
        "axis": {"tickCount": 5, "format": ".3~p" if curve.unit == SHARE else ",.5~g"},
    }
    colour = {"field": "s", "type": "nominal", "scale": {"domain": numbers, "range": colours}, "legend": None}
    dash = {"field": "s", "type": "nominal", "scale": {"domain": numbers, "range": dashes}, "legend": None}
    shape = {"field": "s", "type": "nominal", "scale": {"domain": numbers, "range": shapes}, "legend": None}
    tip = {"field": "text", "type": "nominal"}
    joined = "datum.look === 'line' || datum.look === 'level'"
    elsewhere = "datum.look === 'rings' || datum.look === 'crosses'"

    def layer(mark: dict[str, Any], where: str, **encoding: Any) -> dict[str, Any]:
        return {
            "transform": [{"filter": where}],
            "mark": {"clip": True, **mark},
            "encoding": {"x": x, "y": y, "color": colour, **encoding},
        }

    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "height": 220,
        "background": "transparent",
        "autosize": {"type": "fit-x", "contains": "padding"},
        "params": [
            {"name": "hidden", "value": []},
            *(
                {"name": name, "value": value}
                for name, value in zip(
                    ("xlow", "xhigh", "ylow", "yhigh"), (*drawn.x_range, *drawn.y_range), strict=True
                )
            ),
        ],
        "data": {"values": rows},
        "transform": [{"filter": "indexof(hidden, datum.s) < 0"}],
        "layer": [
            layer(
                {"type": "line", "interpolate": "step-after", "strokeWidth": 6, "opacity": 0.3},
                "datum.look === 'front'",
            ),
            layer({"type": "line", "strokeWidth": 2}, joined, strokeDash=dash),
            layer(
                {"type": "rule", "strokeWidth": 1.5},
                "isValid(datum.low)",
                y={**y, "field": "low"},
                y2={"field": "high"},
            ),
            layer(
                {"type": "point", "size": 60, "filled": False, "strokeWidth": 1.8},
                elsewhere,
                shape=shape,
                tooltip=tip,
            ),
            layer(
                {"type": "point", "size": 70, "filled": True, "opacity": 1},
                "datum.look === 'line'",
                shape=shape,
                tooltip=tip,
            ),
        ],
        "config": {
            "aria": False,
            "font": "system-ui, sans-serif",
            "view": {"stroke": None},
            "axis": {
                "labelColor": "--soft",
                "titleColor": "--soft",
                "labelFontSize": 12,
                "titleFontSize": 12,
                "titleFontWeight": "normal",
                "gridColor": "--line",
                "domainColor": "--line",
                "tickColor": "--line",
            },
            "axisY": {"domain": False, "ticks": False},
        },
    }


def _colour(look: str, place: int) -> str:
    return (
        f"--series-{min(place, SERIES - 1)}"
        if look == "line"
        else {"crosses": "--warn", "front": "--accent"}.get(look, "--soft")
    )


def _dash(look: str, place: int) -> list[int]:
    if look == "level":
        return [[2, 4], [9, 4], [9, 4, 2, 4], [18, 4]][place % LEVELS]
    return [[1, 0], [6, 3], [2, 3], [9, 4, 2, 4]][place % 4]
