"""The prompts with examples, and those for bedrooms: what they render, what their examples promise, how replies are read."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest

from privolve.prompts.masking import mask, word_count
from privolve.prompts.reply import cleaned
from privolve.prompts.template import Template, load, names

BEDROOM = {
    "caption/bedroom",
    "initial/bedroom",
    "initial/bedroom-chat",
    *(f"vary/bedroom-{way}{form}" for way in ("rephrase", "fill") for form in ("", "-few-shot", "-chat")),
}
GENERAL = {f"vary/general-{way}{form}" for way in ("rephrase", "fill") for form in ("", "-few-shot", "-chat")}
GIVEN = {
    "label": "bedroom",
    "subject": "a bedroom",
    "sample": "A plain bed.",
    "masked_sample": "A _ bed.",
    "word_count": "37",
}
_EXAMPLE = re.compile(
    r"^(?:Words: (?P<words>\d+)\n)?(?:Manner: .+\n)?Text: (?P<text>.+)\nAnswer: (?P<answer>.+)$", re.M
)


def rendered(name: str) -> list[tuple[str, str]]:
    return list(load(name).render(GIVEN, np.random.default_rng()))


def examples(name: str) -> list[tuple[int | None, str, str]]:
    """(the number of words asked for, the text to work on, the answer), of every demonstration in a prompt."""
    messages = rendered(name)
    found: list[tuple[int | None, str, str]] = []
    for (role, asked), (next_role, answer) in pairwise(messages):
        if (role, next_role) == ("user", "assistant"):
            words = re.search(r"(?:Words: |in )(\d+)(?: words)?", asked)
            found.append((int(words[1]) if words else None, asked.rpartition("Text: ")[2], answer))
    for example in _EXAMPLE.finditer(messages[-1][1]):
        words = example["words"]
        found.append((int(words) if words else None, example["text"], example["answer"]))
    return found


WITH_EXAMPLES = sorted(name for name in BEDROOM | GENERAL if name.endswith(("-few-shot", "-chat")))


def test_bedrooms_and_the_general_domain_have_every_form() -> None:
    assert set(names()) >= BEDROOM | GENERAL
    assert {load(name).domain for name in BEDROOM} == {"bedroom"}


@pytest.mark.parametrize("name", sorted(BEDROOM | GENERAL))
def test_nothing_is_left_open_in_what_is_sent(name: str) -> None:
    template = load(name)
    assert template.provenance == "author-written"
    assert template.required <= set(GIVEN)
    for _ in range(20):
        for role, content in template.render(GIVEN, np.random.default_rng()):
            assert role in ("system", "user", "assistant")
            assert not re.search(r"[{}]|@@|\bTODO\b", content)
            assert content == content.strip()


@pytest.mark.parametrize("name", sorted(BEDROOM))
def test_prompts_for_bedrooms_need_no_subject(name: str) -> None:
    """They are for bedrooms alone, and a set of bedrooms has one class, whose name says nothing."""
    assert not load(name).placeholders & {"subject", "label"}


@pytest.mark.parametrize("name", sorted(BEDROOM | GENERAL))
def test_the_forms_are_what_their_names_say(name: str) -> None:
    roles = [role for role, _ in rendered(name)]
    if name.endswith("-chat"):
        assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    elif name.endswith("-few-shot"):
        assert roles == ["user"]
        assert len(examples(name)) == 2
    else:
        assert roles in (["user"], ["system", "user"])
        assert not examples(name)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_keep_what_they_promise(name: str) -> None:
    shown = examples(name)
    assert len(shown) == 2
    most = re.search(r"at most (\d+) words", " ".join(content for _, content in rendered(name)))
    for words, text, answer in shown:
        if words is None:
            assert "rephrase" in name
            assert most and word_count(answer) <= int(most[1])
            assert answer != text
        else:
            assert word_count(answer) == words
        # What is shown is what we want back: nothing that the reply's cleaning would have to take off.
        assert cleaned(answer) == answer


@pytest.mark.parametrize("name", [name for name in WITH_EXAMPLES if "-fill" in name])
def test_the_examples_blanks_are_those_of_masking_and_what_is_left_stays(name: str) -> None:
    for _, text, answer in examples(name):
        # A text that is masked already has no words to blank but those that are left.
        assert mask(text, 0.0, np.random.default_rng()) == text
        assert not re.search(r"__|_\w|\w_", text)
        assert 0.3 < text.split().count("_") / len(text.split()) < 0.8
        left = re.escape(text).replace("_", r"[\w-]+(?:,? [\w-]+)*?")
        assert re.fullmatch(left, answer), (text, answer)


@pytest.mark.parametrize("name", [name for name in WITH_EXAMPLES if name.startswith("vary/")])
def test_the_sample_comes_last_and_in_the_form_of_the_examples(name: str) -> None:
    content = rendered(name)[-1][1]
    assert content.endswith("Text: A _ bed." if "-fill" in name else "Text: A plain bed.")
    assert ("Words: 37\n" in content) == ("-fill" in name)


def test_first_captions_are_asked_for_in_many_ways() -> None:
    """What is asked differs, so the spread of first captions does not rest on the model's temperature alone."""
    rng = np.random.default_rng()
    for name in ("initial/bedroom", "initial/bedroom-chat"):
        template: Template = load(name)
        ways = 1
        for options in template.lists.values():
            assert len(set(options)) == len(options)
            ways *= len(options)
        assert ways > 2000
        assert len({template.render({}, rng) for _ in range(200)}) > 150


def test_replies_are_read_as_one_caption() -> None:
    caption = "A low bed with a striped cover stands by a window."
    for name in sorted(BEDROOM):
        template = load(name)
        for reply in (
            caption,
            f'"{caption}"',
            f"Sure! Here is the description:\n\n{caption}",
            f"Answer: {caption}",
            f"{caption} (11 words)",
        ):
            assert template.parse(reply) == caption
        assert template.parse("I'm sorry, but I can't help with that.") == ""
