"""Candidates come about by requests that a restart repeats, one send a fold, with refusals asked for again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from privolve.adapters.contract import Image, ImageRequest, ImageVariationRequest, TextRequest
from privolve.pe_engine.population import SELECTED, Candidate, Population
from privolve.pe_engine.schedule import Stage
from privolve.pe_engine.variation import ImageMaker, NoUsableReply, TextMaker, chosen, initial, vary
from privolve.privacy.randomness import PublicRng

STAGE = Stage(counts=(3, 2), folds=2, degree=0.5, keep_selected=True)


def text_maker(world: Any, templates: Any, **options: Any) -> TextMaker:
    first, variation = templates
    return TextMaker(writer=world.writer, classes=("low", "high"), initial=first, vary=variation, **options)


def image_maker(world: Any) -> ImageMaker:
    return ImageMaker(painter=world.painter, prompts=("a low one", "a high one"), size=(1, 1), channels=1)


def shown(population: Population) -> list[tuple[str, int, str, str, int, int]]:
    return [(c.id, c.label, c.caption, c.parent, c.fold, c.born) for c in population]


def test_the_first_population_has_first_candidates_then_folds_of_variations_of_each(world: Any, templates: Any) -> None:
    population = initial(text_maker(world, templates), STAGE, PublicRng(1))
    assert len(population) == 15
    assert population.labels.tolist() == [0, 0, 0, 1, 1] * 3
    assert [c.id for c in population] == [f"0/{n}" for n in range(15)]
    assert [c.fold for c in population] == [SELECTED] * 5 + [0] * 5 + [1] * 5
    assert [c.parent for c in population] == [""] * 5 + [f"0/{n}" for n in range(5)] * 2
    assert [c.caption for c in population.candidates[:5]] == ["50"] * 5
    assert {c.caption for c in population.candidates[5:]} <= {"40", "50", "60"}


def test_all_labels_of_a_fold_go_in_one_send(world: Any, templates: Any) -> None:
    initial(text_maker(world, templates), STAGE, PublicRng(1))
    assert [(role, len(batch)) for role, batch in world.log] == [("writer", 5)] * 3


def test_no_two_requests_of_a_run_have_the_same_draw(world: Any, templates: Any) -> None:
    maker, rng = text_maker(world, templates), PublicRng(1)
    population = initial(maker, STAGE, rng)
    for iteration in (1, 2):
        vary(maker, STAGE, iteration, population.take([0, 0, 1, 1, 4]), rng)
    draws = [request.draw for request in world.asked("writer")]
    assert len(set(draws)) == len(draws) == 15 + 20


def test_the_same_place_asks_the_same_again_and_another_seed_something_else(world: Any, templates: Any) -> None:
    maker = text_maker(world, templates, words_spread=5.0)
    parents = initial(maker, STAGE, PublicRng(1))
    world.log.clear()
    for seed in (1, 1, 2):
        vary(maker, STAGE, 3, parents, PublicRng(seed))
    requests = world.asked("writer")
    assert requests[:30] == requests[30:60]
    assert not {r.draw for r in requests[:30]} & {r.draw for r in requests[60:]}


def test_the_next_population_is_the_variations_then_the_kept_with_their_ids(world: Any, templates: Any) -> None:
    maker, rng = text_maker(world, templates), PublicRng(1)
    selected = chosen(initial(maker, STAGE, rng), np.array([7, 1, 3]), 4)
    following = vary(maker, STAGE, 4, selected, rng)
    assert [c.id for c in following] == [f"4/{n}" for n in range(6)] + ["0/7", "0/1", "0/3"]
    assert [c.parent for c in following.candidates[:6]] == ["0/7", "0/1", "0/3"] * 2
    assert [c.fold for c in following] == [0, 0, 0, 1, 1, 1] + [SELECTED] * 3
    assert [c.born for c in following] == [4] * 6 + [0] * 3
    assert following.labels.tolist() == selected.labels.tolist() * 3
    without = vary(maker, Stage(counts=(3, 2), folds=1, degree=0.5, keep_selected=False), 4, selected, rng)
    assert shown(without) == shown(following)[:3]


def test_a_candidate_selected_twice_is_copied_under_a_new_id_with_the_first_as_parent() -> None:
    image = Image(np.zeros((1, 1, 1), np.uint8))
    population = Population(
        tuple(Candidate(id=f"0/{n}", label=0, caption=str(n), image=image, fold=1) for n in range(3))
    )
    selected = chosen(population, np.array([2, 0, 2, 2]), 5)
    assert shown(selected) == [
        ("0/2", 0, "2", "", SELECTED, 0),
        ("0/0", 0, "0", "", SELECTED, 0),
        ("5/copy2", 0, "2", "0/2", SELECTED, 5),
        ("5/copy3", 0, "2", "0/2", SELECTED, 5),
    ]
    assert all(candidate.image is image for candidate in selected)


def test_refused_and_empty_answers_are_asked_for_again_with_another_draw(world: Any, templates: Any) -> None:
    maker = text_maker(world, templates)
    whole = initial(maker, STAGE, PublicRng(1))
    world.log.clear()
    world.refuse = lambda request: request.draw % 2 == 0
    population = initial(maker, STAGE, PublicRng(1), redraws=60)
    assert len(world.log[0][1]) == 5
    assert [(c.id, c.label, c.parent) for c in population] == [(c.id, c.label, c.parent) for c in whole]
    draws = [request.draw for request in world.asked("writer")]
    assert len(draws) > 15, "something was refused"
    assert sum(draw % 2 for draw in draws) == 15
    assert len(set(draws)) == len(draws)


def test_refusals_are_counted_by_class_until_they_are_taken(world: Any, templates: Any) -> None:
    maker = text_maker(world, templates)
    initial(maker, STAGE, PublicRng(1))
    assert maker.refusals.taken(maker.classes) == {}
    world.log.clear()
    # The fourth of the first candidates is the first of the class "high".
    initial(maker, STAGE, PublicRng(1))
    unlucky = world.asked("writer")[3].draw
    world.refuse = lambda request: request.draw == unlucky
    initial(maker, STAGE, PublicRng(1))
    assert maker.refusals.taken(maker.classes) == {"writer": {"high": 1}}
    assert maker.refusals.taken(maker.classes) == {}


def test_a_refusal_changes_no_other_rows_request(world: Any, templates: Any) -> None:
    maker = text_maker(world, templates)
    initial(maker, Stage(counts=(5,), folds=0, degree=0.5), PublicRng(1))
    before = world.asked("writer")
    world.log.clear()
    unlucky = before[2].draw
    world.refuse = lambda request: request.draw == unlucky
    initial(maker, Stage(counts=(5,), folds=0, degree=0.5), PublicRng(1))
    assert [len(batch) for _, batch in world.log] == [5, 1]
    assert world.asked("writer")[:5] == before


def test_a_role_that_never_answers_is_an_error_that_names_it(world: Any, templates: Any) -> None:
    world.refuse = lambda request: True
    with pytest.raises(
        NoUsableReply, match=r"'writer' gave no usable answer to 5 of 5 requests in 3 tries .*not this one"
    ):
        initial(text_maker(world, templates), STAGE, PublicRng(1), redraws=2)
    with pytest.raises(NoUsableReply, match="'painter' gave no usable answer"):
        initial(image_maker(world), STAGE, PublicRng(1))


def test_images_are_asked_for_by_prompt_and_varied_by_degree(world: Any) -> None:
    maker, rng = image_maker(world), PublicRng(1)
    population = initial(maker, STAGE, rng)
    firsts, variations = world.asked("painter")[:5], world.asked("painter")[5:]
    assert all(isinstance(request, ImageRequest) for request in firsts)
    assert [request.prompt for request in firsts] == ["a low one"] * 3 + ["a high one"] * 2
    assert {(request.size, request.channels) for request in firsts} == {((1, 1), 1)}
    assert all(isinstance(request, ImageVariationRequest) and request.degree == 0.5 for request in variations)
    assert [request.prompt for request in variations] == (["a low one"] * 3 + ["a high one"] * 2) * 2
    assert variations[0].image is population.candidates[0].image
    assert all(candidate.image is not None for candidate in population)


def test_a_candidate_without_an_image_cannot_be_varied_as_one(world: Any) -> None:
    bare = Population((Candidate(id="0/0", label=0),))
    with pytest.raises(ValueError, match="candidate 0/0 has no image"):
        vary(image_maker(world), STAGE, 1, bare, PublicRng(1))


def test_the_blank_probability_is_the_degree_and_words_and_tokens_follow_the_parent(world: Any, templates: Any) -> None:
    from dataclasses import replace

    first, variation = templates
    fill = replace(variation, messages=(("user", "Exactly {word_count} words. {masked_sample}\nText: {sample}"),))
    parent = Population((Candidate(id="0/0", label=0, caption="20"),) * 200)
    asked: dict[float, list[TextRequest]] = {}
    for degree in (0.0, 0.5, 1.0):
        world.log.clear()
        maker = text_maker(world, (first, fill), least_words=25, words_spread=36.0, tokens_per_word=2.0, max_tokens=60)
        vary(maker, Stage(counts=(200,), folds=1, degree=degree), 1, parent, PublicRng(1))
        asked[degree] = world.asked("writer")
    blanks = {degree: sum(" _\n" in r.messages[0].content for r in requests) for degree, requests in asked.items()}
    assert blanks[0.0] == 0
    assert blanks[1.0] == 200
    assert 50 < blanks[0.5] < 150
    words = [int(r.messages[0].content.split()[1]) for r in asked[0.5]]
    assert min(words) == 25
    assert max(words) > 40
    assert [r.max_tokens for r in asked[0.5]] == [min(60, 2 * count) for count in words]


def test_a_broken_adapter_is_named(world: Any, templates: Any) -> None:
    from dataclasses import replace

    class Short:
        location = world.writer.location
        identity = world.writer.identity

        def send(self, requests: Any, /) -> Any:
            return ["50"] * (len(requests) - 1)

    class Wrong(Short):
        def send(self, requests: Any, /) -> Any:
            return [7] * len(requests)

    maker = text_maker(world, templates)
    with pytest.raises(ValueError, match="'writer' gave 4 answers to 5 requests"):
        initial(replace(maker, writer=Short()), STAGE, PublicRng(1))
    with pytest.raises(TypeError, match="the writer answered a int where a text was asked for"):
        initial(replace(maker, writer=Wrong()), STAGE, PublicRng(1))
