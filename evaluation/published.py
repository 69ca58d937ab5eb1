"""Published figures as data: what others report, where, and whether their privacy claim holds.

A figure is drawn beside ours only if data set, metric and network (or classifier) are the same; what else differs in how
it was measured is said beneath the table. A method whose code does not support its claim is marked, with the reason.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from .metric import SHARE, MetricError, Score


@dataclass(frozen=True, kw_only=True)
class Published:
    """One figure as published, in our units (shares in [0, 1]). `epsilon` is None where none is claimed.

    `networks` are the names of our networks that are the same one. `public_data`: whether the method was pretrained.
    """

    method: str
    data: str
    epsilon: float | None
    delta: str
    metric: str
    networks: tuple[str, ...]
    network: str
    value: float
    unit: str
    source: str
    protocol: str
    claim_holds: bool
    why_not: str
    caveat: str
    public_data: bool | None

    def compares_with(self, score: Score, names: Collection[str]) -> bool:
        """Whether this figure may stand in the column of `score`, on a set that is known by `names`."""
        same_set = any(_plain(self.data) == _plain(name) for name in names)
        # A feature network is named by its provider too.
        same_network = any(f" {score.network}".endswith(f" {network}") for network in self.networks)
        return same_set and same_network and (self.metric, self.unit) == (score.name, score.unit)


@cache
def figures() -> tuple[Published, ...]:
    """Every figure that ships with the project, file by file."""
    folder = resources.files(__package__ or "").joinpath("published")
    files = sorted((path for path in folder.iterdir() if path.name.endswith(".toml")), key=lambda path: path.name)
    return tuple(figure for path in files for figure in read(tomllib.loads(path.read_text("utf-8")), where=path.name))


def read(table: Mapping[str, Any], *, where: str) -> list[Published]:
    """The figures of one file: `source`, `delta`, `caveat` on all of it, `[claims]` of methods whose
    claim does not hold, `[public_data]` (whether a method was pretrained), and `[[tables]]`.

    A table has `metric`, `network`, `networks`, `epsilons`, `data`, `protocol`, `unit` ("percent" or ""), and `[values]`:
    for each method one list of values a data set, in the order of `epsilons`; "" is a figure that was not published.
    """
    try:
        return list(_figures(table))
    except (KeyError, TypeError, ValueError) as error:
        raise MetricError(f"{where}: no file of published figures ({type(error).__name__}: {error})") from None


def _figures(table: Mapping[str, Any]) -> Iterator[Published]:
    claims: Mapping[str, str] = table.get("claims", {})
    pretrained = table.get("public_data", {})
    for part in table["tables"]:
        percent = part.get("unit", "") == "percent"
        for method, rows in part["values"].items():
            for data, values in zip(part["data"], rows, strict=True):
                for epsilon, value in zip(part["epsilons"], values, strict=True):
                    if value == "":
                        continue
                    yield Published(
                        method=method,
                        data=data,
                        epsilon=None if epsilon == "none" else float(epsilon),
                        delta=str(part.get("delta", table.get("delta", ""))),
                        metric=part["metric"],
                        networks=tuple(part["networks"]),
                        network=part["network"],
                        value=float(value) / 100 if percent else float(value),
                        unit=SHARE if percent else "",
                        source=part.get("source", table["source"]),
                        protocol=part.get("protocol", ""),
                        claim_holds=method not in claims,
                        why_not=claims.get(method, ""),
                        caveat=table.get("caveat", ""),
                        public_data=pretrained.get(method),
                    )


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())
