"""`render`: one run as one self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..metric import SHARE, Score
from . import pictures, shell, wording
from .content import Gallery, Lineage, Picture, ReportData, RunFacts

PICTURES_IN_ALL = 320
"""Shown of the last population; a label gets its part of it, between 4 and `PICTURES_OF_A_LABEL`."""

PICTURES_OF_A_LABEL = 14

CAPTION = 600
"""Characters of a caption that are shown."""

LABELS = 120
COLUMNS = 8
"""The most labels and the most points of the run that are shown."""


def render(data: ReportData, *, public_only: bool, library: str | None = None) -> str:
    """The page. With `public_only` whatever is unprotected is left out first; without it a banner says not to publish.

    `library` is `interactive.library()`, for plots that can be explored; without it they are static and no script is there.
    """
    content = data.public() if public_only else data
    plots = shell.drawn(content.curves, library)
    grid = _grid(content.galleries)
    return shell.page(
        "page.jinja",
        curves=plots,
        library=library,
        data=content,
        public_only=public_only,
        cover=_cover(content.galleries),
        grid=grid,
        what="Images" if grid is None or any(row.pictured for row in grid[1]) else "Texts",
        evolution=_evolution(content.galleries),
        lineages=[_lineage(lineage) for lineage in content.lineages],
        plots=plots,
        columns=_columns(content.scores),
        signal_top=max((max(row.expected_votes, row.noise_scale) for row in content.signal), default=0.0) or 1.0,
        releases_top=_top(release.alone for release in content.releases),
        verifiable=bool(content.verify) or content.facts != RunFacts(),
        advice=list(dict.fromkeys(row.advice for row in content.signal if row.advice)),
    )


@dataclass(frozen=True)
class Tile:
    """A picture of the grid: encoded if it has pixels, with words for those who do not see it."""

    image: pictures.Encoded | None
    caption: str
    words: str


@dataclass(frozen=True)
class Row:
    """One label of the grid: the tiles that are shown, of how many."""

    label: str
    tiles: tuple[Tile, ...]
    of: int

    @property
    def pictured(self) -> bool:
        return any(tile.image for tile in self.tiles)

    @property
    def captioned(self) -> bool:
        return any(tile.caption for tile in self.tiles)


READ_AS = {
    "median distance to the nearest private record": "far below that of held-out records would be copying",
    "share nearer than held-out records": "50 % would be as near as they are",
    "membership AUC": "guessing reaches 50 %",
    "membership balanced accuracy": "guessing reaches 50 %",
    "members found": "guessing finds no larger share than its false alarms",
}
"""What to compare the figures with whose names begin so, where no other row says it."""


@dataclass(frozen=True)
class Column:
    """Scores that may be compared: each as text, with its interval, and its bar in [0, 100] where there is a scale for one."""

    first: Score
    rows: tuple[tuple[Score, str, str, float | None], ...]

    @property
    def read_as(self) -> str:
        return next((said for begins, said in READ_AS.items() if self.first.name.startswith(begins)), "")


def _top(values: Iterable[float]) -> float:
    """The largest, for the bars beside them; 0 where there is no scale for one."""
    known = list(values)
    return max(known) if known and all(map(math.isfinite, known)) else 0.0


def _tile(picture: Picture, words: str) -> Tile:
    image = None if picture.pixels is None else pictures.encode(picture.pixels)
    caption = picture.caption if len(picture.caption) <= CAPTION else picture.caption[: CAPTION - 1] + "…"
    return Tile(image, caption, caption or words)


def _cover(galleries: Sequence[Gallery]) -> pictures.Encoded | None:
    """One picture of each label of the last population, in a band of at most 26."""
    if not galleries:
        return None
    firsts = [
        next((picture.pixels for picture in some if picture.pixels is not None), None)
        for some in galleries[-1].pictures.values()
    ]
    images = [pixels for pixels in firsts if pixels is not None][:26]
    if len(images) < 2 or max(max(pixels.shape[:2]) for pixels in images) > pictures.TINY:
        return None
    return pictures.montage(images, columns=len(images) if len(images) <= 13 else 13)


def _grid(galleries: Sequence[Gallery]) -> tuple[str, tuple[Row, ...], int] | None:
    """The last population: its title, a row a label, and how many labels are not shown."""
    if not galleries or not any(galleries[-1].pictures.values()):
        return None
    last = galleries[-1]
    cap = max(4, min(PICTURES_OF_A_LABEL, PICTURES_IN_ALL // len(last.pictures)))
    rows = []
    for label, some in list(last.pictures.items())[:LABELS]:
        tiles = tuple(_tile(picture, f"{label}, number {number + 1}") for number, picture in enumerate(some[:cap]))
        rows.append(Row(label, tiles, len(some)))
    return last.title, tuple(rows), len(last.pictures) - len(rows)


def _evolution(
    galleries: Sequence[Gallery],
) -> tuple[list[str], list[tuple[str, list[pictures.Encoded | None]]]] | None:
    """A few pictures of every label at up to `COLUMNS` points of the run, evenly spread, first and last among them."""
    shown = [galleries[index] for index in _spread(len(galleries), COLUMNS)]
    if len(shown) < 2:
        return None
    labels = list(dict.fromkeys(label for gallery in shown for label in gallery.pictures))[:LABELS]
    rows: list[tuple[str, list[pictures.Encoded | None]]] = []
    for label in labels:
        cells: list[pictures.Encoded | None] = []
        for gallery in shown:
            images = [picture.pixels for picture in gallery.pictures.get(label, ()) if picture.pixels is not None][:6]
            cells.append(pictures.montage(images, columns=3, edge=28 if len(shown) > 3 else 40) if images else None)
        rows.append((label, cells))
    if not any(cell for _, cells in rows for cell in cells):
        return None
    return [gallery.title for gallery in shown], rows


def _spread(count: int, most: int) -> list[int]:
    """Up to `most` of 0 ... count - 1, evenly, with both ends."""
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]


def _lineage(lineage: Lineage) -> tuple[str, bool, list[tuple[str, Tile, tuple[tuple[str, bool], ...]]]]:
    """The label, whether it has words, and each step with its caption in pieces, new words marked."""
    steps, before = [], ""
    for step in lineage.steps:
        tile = _tile(step.picture, f"{lineage.label}, {step.when}")
        steps.append((step.when, tile, wording.changes(before, tile.caption)))
        before = tile.caption
    return lineage.label, any(tile.caption for _, tile, _ in steps), steps


def _columns(scores: Sequence[Score]) -> list[Column]:
    """Comparable scores together, in the order in which their kinds first appear."""
    kinds: dict[tuple[str, ...], list[Score]] = {}
    for score in scores:
        kinds.setdefault(score.column, []).append(score)
    return [Column(alike[0], tuple(_figures(score, alike) for score in alike)) for alike in kinds.values()]


def _figures(score: Score, alike: Sequence[Score]) -> tuple[Score, str, str, float | None]:
    """A score as text, its interval as text, and its bar: of the whole for a share, else of the largest beside it."""
    interval = "" if score.interval is None else " to ".join(wording.in_unit(end, score) for end in score.interval)
    top = 1.0 if score.unit == SHARE else max(abs(other.value) for other in alike)
    drawn = score.unit == SHARE or (len(alike) > 1 and top > 0)
    bar = round(min(max(score.value / top, 0.0), 1.0) * 100, 2) if drawn else None
    return score, wording.in_unit(score.value, score), interval, bar
