"""Scoring: what is embedded, what is painted and how often, and what becomes of refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from privolve.adapters.contract import EmbedRequest, Image, ImageRequest
from privolve.pe_engine.population import Candidate, Population
from privolve.pe_engine.scoring import ImageScoring, LookAhead, RenderedScoring, TextScoring
from privolve.pe_engine.variation import TextMaker
from privolve.privacy.randomness import PublicRng


def captions(*texts: str) -> Population:
    return Population(tuple(Candidate(id=f"0/{n}", label=0, caption=text) for n, text in enumerate(texts)))


def pixel(value: int) -> Image:
    return Image(np.full((1, 1, 1), value, np.uint8))


def rendered(world: Any, **options: Any) -> RenderedScoring:
    return RenderedScoring(painter=world.painter, eye=world.eye, size=(1, 1), channels=1, rng=PublicRng(1), **options)


def test_text_is_embedded_as_text(world: Any) -> None:
    population, embeddings = TextScoring(eye=world.eye).embed(captions("3", "7"), iteration=1)
    assert embeddings.tolist() == [[3, 1], [7, 1]]
    assert embeddings.dtype == np.float32
    assert [c.image for c in population] == [None, None]


def test_images_are_embedded_as_images_and_a_missing_one_is_nan(world: Any) -> None:
    population = Population((Candidate(id="a", label=0, image=pixel(9)), Candidate(id="b", label=0)))
    _, embeddings = ImageScoring(eye=world.eye).embed(population, iteration=1)
    assert embeddings[0].tolist() == [9, 1]
    assert np.isnan(embeddings[1]).all()
    assert len(world.asked("eye")) == 1


def test_captions_are_painted_then_seen_and_the_picture_stays_with_the_candidate(world: Any) -> None:
    population, embeddings = rendered(world).embed(captions("3", "7"), iteration=1)
    assert embeddings.tolist() == [[3, 1], [7, 1]]
    assert [int(c.image.pixels[0, 0, 0]) for c in population if c.image] == [3, 7]
    assert [role for role, _ in world.log] == ["painter", "eye"]


def test_a_candidate_with_a_picture_is_not_painted_again(world: Any) -> None:
    scoring = rendered(world)
    painted, _ = scoring.embed(captions("3", "7"), iteration=1)
    world.log.clear()
    more = painted + Population((Candidate(id="1/0", label=0, caption="9"),))
    again, embeddings = scoring.embed(more, iteration=2)
    assert [request.prompt for request in world.asked("painter")] == ["9"]
    assert embeddings[:, 0].tolist() == [3, 7, 9]
    assert again.candidates[0].image is painted.candidates[0].image


def test_equal_captions_of_two_candidates_get_two_draws_and_a_restart_the_same(world: Any) -> None:
    for _ in range(2):
        rendered(world).embed(captions("3", "3"), iteration=1)
    draws = [request.draw for request in world.asked("painter")]
    assert draws[:2] == draws[2:]
    assert draws[0] != draws[1]


def test_the_mean_of_several_paintings_keeps_the_first_as_the_picture(world: Any) -> None:
    shades = iter([10, 20, 30, 50])
    world.painter = world._adapter("painter", lambda request: pixel(next(shades)))
    population, embeddings = rendered(world, images=2).embed(captions("a", "b"), iteration=1)
    assert embeddings[:, 0].tolist() == [20, 35]
    assert [int(c.image.pixels[0, 0, 0]) for c in population if c.image] == [10, 20]
    assert len({request.draw for request in world.asked("painter")}) == 4


def test_what_is_refused_has_a_row_of_nan(world: Any) -> None:
    world.refuse = lambda request: (
        (isinstance(request, ImageRequest) and request.prompt == "7")
        or (
            isinstance(request, EmbedRequest)
            and isinstance(request.content, Image)
            and request.content.pixels.max() == 9
        )
    )
    population, embeddings = rendered(world).embed(captions("3", "7", "9"), iteration=1)
    assert embeddings[0].tolist() == [3, 1]
    assert np.isnan(embeddings[1:]).all()
    assert population.candidates[1].image is None


def test_an_eye_that_sees_nothing_or_different_lengths_is_an_error(world: Any) -> None:
    world.refuse = lambda request: True
    with pytest.raises(ValueError, match="'eye' embedded none of 2"):
        TextScoring(eye=world.eye).embed(captions("3", "7"), iteration=1)
    world.refuse = lambda request: False
    eye = world._adapter("eye", lambda request: np.zeros(int(request.content), np.float32))
    with pytest.raises(ValueError, match="one length"):
        TextScoring(eye=eye).embed(captions("3", "7"), iteration=1)


def test_look_ahead_is_the_mean_over_variations_and_leaves_the_candidate_alone(world: Any, templates: Any) -> None:
    first, variation = templates
    maker = TextMaker(writer=world.writer, classes=("x",), initial=first, vary=variation)
    degrees: list[int] = []

    def degree(iteration: int) -> float:
        degrees.append(iteration)
        return 0.5

    ahead = LookAhead(inner=TextScoring(eye=world.eye), maker=maker, count=3, degree=degree, rng=PublicRng(1))
    before = captions("30", "80")
    population, embeddings = ahead.embed(before, iteration=4)
    assert population is before
    requests = world.asked("writer")
    steps = np.array([request.draw % 3 - 1 for request in requests]).reshape(3, 2)
    expected = np.float32([30, 80]) + 10 * steps.mean(axis=0)
    np.testing.assert_allclose(embeddings[:, 0], expected, rtol=1e-6)
    assert degrees == [4]
    ahead.embed(before, iteration=4)
    assert world.asked("writer")[6:] == requests
    with pytest.raises(ValueError, match="at least 1"):
        LookAhead(inner=TextScoring(eye=world.eye), maker=maker, count=0, degree=0.5, rng=PublicRng(1))


def test_look_ahead_leaves_out_what_cannot_be_scored(world: Any, templates: Any) -> None:
    first, variation = templates
    maker = TextMaker(writer=world.writer, classes=("x",), initial=first, vary=variation)
    ahead = LookAhead(inner=TextScoring(eye=world.eye), maker=maker, count=4, degree=0.5, rng=PublicRng(1))
    world.refuse = lambda request: isinstance(request, EmbedRequest) and request.content in ("60", "490", "500", "510")
    _, embeddings = ahead.embed(captions("50", "500", "1000"), iteration=1)
    tens = [50 + 10 * (request.draw % 3 - 1) for request in world.asked("writer")[::3]]
    assert 60 in tens, "the case has something to leave out"
    assert embeddings[0, 0] == pytest.approx(np.mean([ten for ten in tens if ten != 60]))
    assert np.isnan(embeddings[1]).all()
