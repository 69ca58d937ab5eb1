"""The loop on a line of numbers: it walks to where the private numbers are, and goes on from anywhere as if undisturbed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from privolve.pe_engine.evolve import Iteration, evolve
from privolve.pe_engine.histogram import NearestNeighbourHistogram
from privolve.pe_engine.population import Population
from privolve.pe_engine.schedule import Stage, Stages
from privolve.pe_engine.scoring import RenderedScoring, Scoring, TextScoring
from privolve.pe_engine.selection import Rank, Sample
from privolve.pe_engine.variation import TextMaker, initial, vary
from privolve.privacy.randomness import PublicRng, SystemRng

ITERATIONS = 8


class Run:
    """A job in small: a plan, a scoring, a histogram and voters, with the releases kept by iteration as a ledger would."""

    def __init__(self, world: Any, templates: Any, voters: Any, secret: Any, **options: Any) -> None:
        settings: dict[str, Any] = {
            "iterations": ITERATIONS, "classes": ("low", "high"), "shares": np.array([0.5, 0.5]),
            "count": 8, "folds": 3, "selection": Rank(), "keep_selected": True,
        }  # fmt: skip
        first, variation = templates
        self.rng = PublicRng(7)
        self.plan = Stages(**(settings | options))
        self.maker = TextMaker(writer=world.writer, classes=("low", "high"), initial=first, vary=variation)
        self.scoring: Scoring = TextScoring(eye=world.eye)
        self.noisy = NearestNeighbourHistogram().with_noise(1.0)
        self.voters, self.secret = voters, secret
        self.releases: dict[int, np.ndarray] = {}

    def score(self, iteration: int, population: Population) -> tuple[Population, np.ndarray]:
        population, embeddings = self.scoring.embed(population, iteration=iteration)
        mechanism = self.noisy.over(embeddings, population.labels)
        if iteration not in self.releases:
            self.releases[iteration] = mechanism(self.secret, self.voters)["histogram"]
        return population, self.releases[iteration]

    def start(self) -> Population:
        return initial(self.maker, self.plan(0), self.rng)

    def go(self, population: Population, first: int = 1, last: int = ITERATIONS, **more: Any) -> list[Iteration]:
        follow: Callable[..., Population] = partial(vary, self.maker)
        return list(
            evolve(
                population, first=first, last=last, plan=self.plan, score=self.score, vary=follow, rng=self.rng, **more
            )
        )


@pytest.fixture
def private(voters: Any) -> Any:
    """Forty records near 20 labelled low, forty near 90 labelled high, and a few that cannot vote."""
    numbers = [18, 20, 22, 20] * 10 + [88, 90, 92, 90] * 10 + [np.nan, 50, 50]
    rows = np.stack([np.array(numbers, dtype=float), np.ones(83)], axis=1)
    return voters(rows, [0] * 40 + [1] * 40 + [0, -1, 7], [True] * 81 + [False, True])


def captions(population: Population, label: int) -> list[int]:
    return sorted(int(c.caption) for c in population if c.label == label)


def shown(population: Population) -> list[Any]:
    return [(c.id, c.label, c.caption, c.parent, c.fold, c.born) for c in population]


def facts(steps: list[Iteration]) -> list[Any]:
    return [
        (
            step.number,
            step.rows.tolist(),
            step.votes.tolist(),
            [shown(population) for population in (step.scored, step.selected, step.population)],
        )
        for step in steps
    ]


def test_the_winners_walk_to_the_private_numbers_of_their_label(
    world: Any, templates: Any, private: Any, silent: Any
) -> None:
    run = Run(world, templates, private, silent)
    start = run.start()
    assert captions(start, 0)[0] >= 40
    steps = run.go(start)
    # From 50 by tens: three steps to 20 and four to 90, and the best candidate of each label stays once it is found.
    assert 20 in captions(steps[-1].population, 0)
    assert 90 in captions(steps[-1].population, 1)
    best = [
        min(abs(int(c.caption) - goal) for c in step.selected if c.label == label)
        for step in steps
        for label, goal in ((0, 20), (1, 90))
    ]
    assert best[-2:] == [0, 0]
    assert all(later <= earlier for earlier, later in zip(best[::2], best[2::2], strict=False))
    assert all(step.votes.sum() == 80 for step in steps), "ghosts and what is not finite do not vote"


def test_a_golden_iteration_by_hand(world: Any, templates: Any, voters: Any, silent: Any) -> None:
    from privolve.pe_engine.population import Candidate

    run = Run(world, templates, voters([[11, 1], [12, 1], [31, 1], [99, 1]], [0, 0, 0, 1]), silent)
    start = Population(
        tuple(
            Candidate(id=f"0/{n}", label=label, caption=caption)
            for n, (label, caption) in enumerate([(0, "10"), (1, "10"), (0, "30"), (1, "80"), (0, "50")])
        )
    )
    stage = Stage(counts=(2, 1), folds=1, degree=0.0, selection=Rank(), keep_selected=True)
    step = next(
        evolve(
            start, first=1, last=2, plan=lambda _: stage, score=run.score, vary=partial(vary, run.maker), rng=run.rng
        )
    )
    assert step.votes.tolist() == [2, 0, 1, 1, 0]
    assert step.rows.tolist() == [0, 2, 3]
    assert [c.id for c in step.selected] == ["0/0", "0/2", "0/3"]
    assert [(c.id, c.parent) for c in step.population] == [
        ("1/0", "0/0"), ("1/1", "0/2"), ("1/2", "0/3"), ("0/0", ""), ("0/2", ""), ("0/3", ""),
    ]  # fmt: skip
    assert all(
        abs(int(c.caption) - int(p.caption)) in (0, 10) for c, p in zip(step.population, step.selected, strict=False)
    )


def test_a_restart_anywhere_equals_an_undisturbed_run(world: Any, templates: Any, private: Any) -> None:
    for options in ({}, {"selection": Sample(), "keep_selected": False, "folds": 1}):
        run = Run(world, templates, private, SystemRng(), **options)
        steps = run.go(run.start())
        asked = world.asked("writer")
        for first in range(2, ITERATIONS + 1):
            world.log.clear()
            again = run.go(steps[first - 2].population, first=first)
            assert facts(again) == facts(steps)[first - 1 :]
            assert world.asked("writer") == asked[len(asked) - len(world.asked("writer")) :]
        world.log.clear()


def test_the_last_iteration_makes_no_variation_that_nobody_votes_on(
    world: Any, templates: Any, private: Any, silent: Any
) -> None:
    run = Run(world, templates, private, silent)
    start = run.start()
    world.log.clear()
    steps = run.go(start, last=2)
    assert len([role for role, _ in world.log if role == "writer"]) == 3, "three folds once, after the first iteration"
    assert steps[-1].population is steps[-1].selected
    world.log.clear()
    varied = run.go(start, last=2, final="varied")
    assert len([role for role, _ in world.log if role == "writer"]) == 6
    assert len(varied[-1].population) == 8 * 4
    assert facts(varied)[0] == facts(steps)[0]


def test_a_run_without_iterations_yields_nothing(world: Any, templates: Any, private: Any, silent: Any) -> None:
    run = Run(world, templates, private, silent)
    assert run.go(run.start(), last=0) == []


def test_nothing_is_asked_before_the_caller_wants_it(world: Any, templates: Any, private: Any, silent: Any) -> None:
    run = Run(world, templates, private, silent)
    start = run.start()
    steps = evolve(start, first=1, last=2, plan=run.plan, score=run.score, vary=partial(vary, run.maker), rng=run.rng)
    assert run.releases == {}
    next(steps)
    assert list(run.releases) == [1]


def test_the_winning_picture_is_the_one_that_is_kept(world: Any, templates: Any, private: Any, silent: Any) -> None:
    run = Run(world, templates, private, silent)
    run.scoring = RenderedScoring(painter=world.painter, eye=world.eye, size=(1, 1), channels=1, rng=run.rng)
    steps = run.go(run.start(), last=4)
    painted = [request.draw for request in world.asked("painter")]
    assert len(set(painted)) == len(painted), "no candidate is painted twice"
    pictures: dict[str, Any] = {}
    for step in steps:
        for candidate in step.scored:
            assert candidate.image is not None
            assert pictures.setdefault(candidate.id, candidate.image) is candidate.image
    assert all(candidate.image is pictures[candidate.id] for candidate in steps[-1].population)


def test_another_selection_can_stand_in_for_the_stages_own(
    world: Any, templates: Any, private: Any, silent: Any
) -> None:
    run = Run(world, templates, private, silent)

    def first_of_each(stage: Stage, votes: Any, labels: Any, at: Any) -> np.ndarray:
        return np.array([np.flatnonzero(labels == label)[0] for label in (0, 1)])

    steps = run.go(run.start(), last=1, select=first_of_each)
    assert [c.id for c in steps[0].selected] == ["0/0", "0/4"]


def test_votes_that_do_not_fit_the_population_are_an_error(
    world: Any, templates: Any, private: Any, silent: Any
) -> None:
    run = Run(world, templates, private, silent)
    run.releases[1] = np.zeros(3, np.int64)
    with pytest.raises(ValueError, match=r"32 candidates came back as 32 with votes of shape \(3,\)"):
        run.go(run.start())
