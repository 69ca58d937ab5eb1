"""A comparison as it was written, read back: its JSON, and the pictures beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..comparison import PICTURES, Cell, Comparison, Group, Samples
from ..metric import Score
from .content import ReportError

FORMAT = 1


def pictures(comparison: Comparison) -> dict[str, np.ndarray]:
    """The released pictures that its grids need: of each cell the first of each class, or the first few of one class."""
    found: dict[str, np.ndarray] = {}
    for group_number, group in enumerate(comparison.groups):
        for number, cell in enumerate(group.cells):
            if cell.samples is None:
                continue
            labels = cell.samples.labels
            rows = (
                np.arange(min(len(labels), PICTURES))
                if len(group.classes) == 1
                else np.sort(np.unique(labels, return_index=True)[1])
            )
            found[f"{group_number}-{number}-x"] = cell.samples.pixels[rows]
            found[f"{group_number}-{number}-y"] = labels[rows]
    return found


def comparison(document: Mapping[str, Any], pictures: Mapping[str, np.ndarray]) -> Comparison:
    """What `Comparison.to_json` wrote, with its pictures. Raises ReportError, one line."""
    if document.get("format") != FORMAT:
        raise ReportError(f"the comparison has format {document.get('format')!r}, not {FORMAT}; compare its runs again")
    try:
        return Comparison(
            title=document["title"],
            purpose=document["purpose"],
            limits=tuple(document["limits"]),
            facts=document["facts"],
            groups=tuple(_group(number, group, pictures) for number, group in enumerate(document["groups"])),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"the comparison cannot be read ({error}); compare its runs again") from None


def _group(number: int, written: Mapping[str, Any], pictures: Mapping[str, np.ndarray]) -> Group:
    return Group(
        title=written["title"],
        description=written["description"],
        classes=tuple(written["classes"]),
        names=tuple(written.get("names", ())),
        claim=written["claim"],
        cells=tuple(_cell(f"{number}-{place}", cell, pictures) for place, cell in enumerate(written["cells"])),
    )


def _cell(key: str, written: Mapping[str, Any], pictures: Mapping[str, np.ndarray]) -> Cell:
    known = {field.name for field in dataclasses.fields(Cell)}
    samples = None
    if f"{key}-x" in pictures:
        samples = Samples(pixels=pictures[f"{key}-x"], labels=pictures[f"{key}-y"])
    return Cell(
        **{
            **{name: value for name, value in written.items() if name in known},
            "scores": tuple(Score.from_json(score) for score in written["scores"]),
            "samples": samples,
        }
    )
