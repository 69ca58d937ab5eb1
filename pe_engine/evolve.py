"""The loop of Private Evolution, a generator without I/O (Algorithm 1 of Lin et al., 2024, arXiv 2305.15560).

    score: where the candidates are, and the noisy votes on them (the only private access, inside the caller's release)
    select: the winners of each label
    vary: the next population

Everything but the votes is a function of the population, the plan and the public seed. So a run that starts at `first`
with the stored population and gets the stored releases yields what an undisturbed run would have yielded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from ..privacy.randomness import PublicRng
from .population import Population
from .schedule import Stage
from .selection import At
from .variation import chosen

Score = Callable[[int, Population], tuple[Population, np.ndarray]]
"""(iteration, population) to the population, with what scoring made for it, and its noisy votes, int64."""
Final = Literal["selected", "varied"]


class Select(Protocol):
    def __call__(self, stage: Stage, votes: np.ndarray, labels: np.ndarray, at: At) -> np.ndarray: ...


class Vary(Protocol):
    def __call__(self, stage: Stage, iteration: int, selected: Population, rng: PublicRng) -> Population: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Iteration:
    """What one iteration did, all of it public.

    `scored` is the population that was voted on, `votes` the noisy votes, `rows` the rows of `scored` that were selected,
    `selected` those candidates, and `population` what goes on: the next population, or in the end the final set.
    """

    number: int
    stage: Stage
    scored: Population
    votes: np.ndarray
    rows: np.ndarray
    selected: Population
    population: Population


def by_stage(stage: Stage, votes: np.ndarray, labels: np.ndarray, at: At) -> np.ndarray:
    """The rows that the stage's own rule selects."""
    return stage.selection.select(votes, labels, stage.counts, at)


def evolve(
    population: Population,
    *,
    first: int,
    last: int,
    plan: Callable[[int], Stage],
    score: Score,
    vary: Vary,
    rng: PublicRng,
    select: Select = by_stage,
    final: Final = "selected",
) -> Iterator[Iteration]:
    """The iterations `first` to `last`, each after its votes and variations.

    `final`: end with the set that was selected, or with a last variation of it, which nobody will vote on.
    """
    for number in range(first, last + 1):
        stage = plan(number)
        scored, votes = score(number, population)
        if len(scored) != len(population) or votes.shape != (len(population),):
            raise ValueError(
                f"{len(population)} candidates came back as {len(scored)} with votes of shape {votes.shape}"
            )
        rows = select(stage, votes, scored.labels, _label_randomness(rng, number))
        selected = chosen(scored, rows, number)
        ends = number == last and final == "selected"
        population = selected if ends else vary(stage, number, selected, rng)
        yield Iteration(
            number=number,
            stage=stage,
            scored=scored,
            votes=votes,
            rows=rows,
            selected=selected,
            population=population,
        )


def _label_randomness(rng: PublicRng, number: int) -> At:
    return lambda label: rng.at("select", number, label)
