"""A comparison's pictures as files: curves as SVG, grids of images as PNG."""

from __future__ import annotations

import io
from xml.sax.saxutils import escape

import numpy as np

from .comparison import Grid
from .report.content import Curve
from .report.plots import plot

COLOURS = ("#1f5fa8", "#c2410c", "#1a7f4b", "#7c3aed", "#a16207", "#be185d", "#0f766e", "#4b5563")
"""Dark enough on white; a line differs by its dashes too."""
DASHES = ("", "6 3", "2 3", "8 3 2 3")
LEGEND_LINE = 18.0
EDGE = 64
"""An image of a grid is shown about so large."""
GAP, MARGIN, NAMES = 4, 8, 220


def svg(curve: Curve) -> str | None:
    """The curve with its axes and legend; None without a finite point."""
    drawn = plot(curve)
    if drawn is None:
        return None
    height = drawn.height + LEGEND_LINE * (len(drawn.lines) + 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {drawn.width:g} {height:g}" width="{1.6 * drawn.width:g}" '
        f'font-family="sans-serif" font-size="11" role="img" aria-label="{_text(curve.title)}">',
        f'<rect width="{drawn.width:g}" height="{height:g}" fill="white"/>',
    ]
    for tick in drawn.y_ticks:
        parts.append(
            f'<path d="M{drawn.left} {tick.at}H{drawn.right}" stroke="#ddd"/>'
            f'<text x="{drawn.left - 6}" y="{tick.at + 4}" text-anchor="end">{_text(tick.text)}</text>'
        )
    for tick in drawn.x_ticks:
        parts.append(f'<text x="{tick.at}" y="{drawn.bottom + 16}" text-anchor="middle">{_text(tick.text)}</text>')
    parts.append(f'<path d="M{drawn.left} {drawn.bottom}H{drawn.right}" stroke="#333"/>')
    middle = (drawn.left + drawn.right) / 2
    parts.append(f'<text x="{middle}" y="{drawn.bottom + 34}" text-anchor="middle">{_text(curve.x_label)}</text>')
    for place, line in enumerate(drawn.lines):
        colour, dash = COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)]
        stroke = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        parts.append(f'<path d="{line.path}" {stroke}/>')
        parts += [
            f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"><title>{_text(said)}</title></circle>'
            for x, y, said in line.points
        ]
        below = drawn.height + LEGEND_LINE * (place + 0.5)
        parts.append(f'<path d="M{drawn.left} {below - 4}h26" {stroke}/>')
        parts.append(f'<text x="{drawn.left + 34}" y="{below}">{_text(line.name)}</text>')
    below = drawn.height + LEGEND_LINE * (len(drawn.lines) + 0.5)
    parts.append(f'<text x="{drawn.left}" y="{below}" font-weight="bold">{_text(curve.y_label)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def png(grid: Grid) -> bytes:
    """A row a method with its name, a column a class; small images are enlarged by whole steps."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(13)
    tiles = [[None if each is None else _tile(each) for each in row.pictures] for row in grid.rows]
    width = max((tile.width for row in tiles for tile in row if tile is not None), default=EDGE)
    height = max((tile.height for row in tiles for tile in row if tile is not None), default=EDGE)
    columns = len(grid.labels)
    head = MARGIN + 20
    sheet = Image.new(
        "RGB",
        (NAMES + columns * (width + GAP) + MARGIN, head + len(tiles) * (height + GAP) + MARGIN),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(grid.labels):
        draw.text((NAMES + column * (width + GAP), MARGIN), _cut(name, width // 7), fill="black", font=font)
    for place, (row, pictures) in enumerate(zip(grid.rows, tiles, strict=True)):
        top = head + place * (height + GAP)
        draw.text((MARGIN, top + height // 2 - 8), _cut(row.name, NAMES // 7), fill="black", font=font)
        for column, tile in enumerate(pictures):
            if tile is not None:
                sheet.paste(tile, (NAMES + column * (width + GAP), top))
    stream = io.BytesIO()
    sheet.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _tile(pixels: np.ndarray):
    from PIL import Image

    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    longest = max(picture.size)
    if longest > 2 * EDGE:
        picture.thumbnail((2 * EDGE, 2 * EDGE), Image.Resampling.LANCZOS)
        return picture
    scale = max(1, round(EDGE / longest))
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= max(most, 1) else f"{text[: max(most - 1, 1)]}…"


def _text(text: str) -> str:
    return escape(text, {'"': "&quot;"})
