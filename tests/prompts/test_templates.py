"""Templates: what may stand in them, what they render, and how replies are cleaned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from privolve.prompts.masking import mask, word_count, word_target
from privolve.prompts.reply import cleaned
from privolve.prompts.template import KINDS, VALUES, PromptError, load, names

VALID = """
provenance = "author-written"
domain = "general"
kind = "vary"
[lists]
manner = ["plainly", "shortly"]
[[messages]]
role = "user"
content = "Rephrase {manner} {{as is}}: {sample}"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "own.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_our_templates_load_and_say_where_they_come_from() -> None:
    expected = {"caption/general", "initial/glyphs", "initial/general", "vary/glyphs-rephrase", "vary/glyphs-fill"}
    assert expected | {"vary/general-rephrase", "vary/general-fill"} <= set(names())
    digests = set()
    for name in names():
        template = load(name)
        assert template.provenance == "author-written"
        assert template.kind == name.split("/")[0] and template.kind in KINDS
        assert template.domain in name or template.domain == "general"
        digests.add(template.digest)
    assert len(digests) == len(names())


@pytest.mark.parametrize("name", names())
def test_our_templates_render_with_what_callers_give(name: str) -> None:
    given = {"label": "digit 3", "sample": "SAMPLE", "masked_sample": "S _ E", "word_count": "30"}
    template = load(name)
    messages = template.render(given, np.random.default_rng())
    assert messages[-1][0] == "user"
    text = "\n".join(content for _, content in messages)
    assert "{" not in text and "}" not in text
    for value in template.required:
        assert given[value] in text
    # What follows the last marker is the sample alone, as the lexicon and people expect.
    if template.kind == "vary":
        assert text.rpartition("Text:")[2].strip() in ("SAMPLE", "S _ E")


def test_values_of_lists_are_drawn_evenly_and_by_the_generator(tmp_path: Path) -> None:
    template = load(written(tmp_path, VALID))
    rng = np.random.default_rng()
    texts = [template.render({"sample": "x"}, rng)[0][1] for _ in range(1000)]
    assert set(texts) == {"Rephrase plainly {as is}: x", "Rephrase shortly {as is}: x"}
    # Seven standard deviations of 1,000 fair draws.
    assert abs(texts.count("Rephrase plainly {as is}: x") - 500) < 111
    again = [template.render({"sample": "x"}, np.random.default_rng(5)) for _ in range(2)]
    assert again[0] == again[1]


def test_a_value_is_put_in_as_it_is(tmp_path: Path) -> None:
    template = load(written(tmp_path, VALID))
    hostile = "{manner} {{x}} {sample.__class__} \\1 %s ${HOME}"
    assert template.render({"sample": hostile}, np.random.default_rng())[0][1].endswith(": " + hostile)


def test_a_missing_value_is_an_error_and_an_unused_one_is_not(tmp_path: Path) -> None:
    template = load(written(tmp_path, VALID))
    template.render({"sample": "x", "label": "unused"}, np.random.default_rng())
    with pytest.raises(PromptError, match="needs a value for sample"):
        template.render({"label": "3"}, np.random.default_rng())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{sample}", "{samples}", "unknown placeholder {samples}"),
        ("{sample}", "{sample.__class__}", "belongs to no placeholder"),
        ("{sample}", "{sample!r}", "belongs to no placeholder"),
        ("{sample}", "{0}", "belongs to no placeholder"),
        ("{manner}", "", "'manner' is used in no message"),
        ('["plainly", "shortly"]', "[]", "not empty"),
        ('["plainly", "shortly"]', "[1, 2]", "list of texts"),
        ('kind = "vary"', 'kind = "other"', "kind 'other' is none of"),
        ('provenance = "author-written"', "", "'provenance' is missing"),
        ('domain = "general"', 'domain = "general"\nextra = 1', "unknown key 'extra'"),
        ('role = "user"', 'role = "robot"', "a message has a role"),
        ('role = "user"', 'role = "assistant"', "the last message is the user's"),
        ("manner = [", "sample = [", "has the name of a value"),
        ("[lists]", "[lists", "cannot be read"),
    ],
)
def test_a_wrong_template_is_an_error_when_it_is_loaded(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = VALID.replace(old, new)
    assert text != VALID
    with pytest.raises(PromptError, match=message.replace("{", r"\{")) as caught:
        load(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="vary/glyphs-fill"):
        load("vary/nothing")
    with pytest.raises(PromptError, match="cannot be read"):
        load(tmp_path / "absent.toml")


def test_the_digest_is_of_what_is_said_not_of_how_the_file_is_laid_out(tmp_path: Path) -> None:
    one = load(written(tmp_path, VALID)).digest
    assert load(written(tmp_path, "# a comment\n" + VALID.replace(" = ", "  =  "))).digest == one
    assert load(written(tmp_path, VALID.replace("plainly", "plainer"))).digest != one


def test_defaults_stand_in_for_values(tmp_path: Path) -> None:
    template = load(written(tmp_path, VALID.replace("[lists]", '[defaults]\nsample = "nothing"\n[lists]')))
    assert template.required == frozenset() and template.placeholders == {"sample"} <= set(VALUES)
    assert template.render({}, np.random.default_rng())[0][1].endswith(": nothing")
    assert template.render({"sample": "x"}, np.random.default_rng())[0][1].endswith(": x")


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("A small, bold 3.", "A small, bold 3."),
        ('  "A small 3."  ', "A small 3."),
        ("“A small 3.”", "A small 3."),
        ('"A" and "B"', '"A" and "B"'),
        ("Sure! Here is a caption:\n\n**A small 3.**", "A small 3."),
        ("Certainly.\n\nA small 3.", "A small 3."),
        ("Here's a rephrased version of the text: A small 3.", "A small 3."),
        ("Caption: A sign that says: stop", "A sign that says: stop"),
        ("## Caption\n\n- A *small*\n- **3**", "Caption A small 3"),
        ("```text\nA small 3.\n```", "A small 3."),
        ("<think>What is it?</think>\nA small 3.", "A small 3."),
        ("<think>What is", ""),
        ("A small 3. (6 words)", "A small 3."),
        ("A small 3.\n\nWord count: 3", "A small 3."),
        ("A page of 25 words", "A page of 25 words"),
        ("A _ 3 on __ wood .", "A 3 on wood."),
        ("two\nlines", "two lines"),
        ("___", ""),
        ("", ""),
        ("I'm sorry, but I can't help with that.", ""),
        ("I’m sorry, I can’t assist with this request.", ""),
        ("Sorry.", ""),
        ("I cannot describe people in images.", ""),
        ("As an AI language model, I have no eyes.", ""),
        ("Unfortunately, I am unable to comply.", ""),
        # Texts that only begin like a header or a refusal.
        ("I can't wait to go back! Great tacos.", "I can't wait to go back! Great tacos."),
        ("I'm sorry I ever went there.", "I'm sorry I ever went there."),
        ("Okay, so we came at five.", "Okay, so we came at five."),
        ("Great food. Nice staff.", "Great food. Nice staff."),
        ("Here is where it gets good: dessert", "Here is where it gets good: dessert"),
    ],
)
def test_replies_are_cleaned(reply: str, text: str) -> None:
    assert load("vary/general-fill").parse(reply) == cleaned(reply) == text
    assert cleaned(text) == text


def test_masking_replaces_words_and_leaves_punctuation() -> None:
    rng = np.random.default_rng()
    text = "A small, bold digit 3: it's well-made (mostly)."
    assert mask(text, 0.0, rng) == text
    assert mask(text, 1.0, rng) == "_ _, _ _ _: _ _ (_)."
    share = mask("word " * 4000, 0.3, rng).count("_") / 4000
    assert share == pytest.approx(0.3, abs=0.051)  # seven standard deviations
    with pytest.raises(ValueError, match="between 0 and 1"):
        mask(text, 1.5, rng)


def test_the_target_of_words_is_near_the_text_and_not_below_the_least() -> None:
    rng = np.random.default_rng()
    text = "one two three, four-five"
    assert word_count(text) == 4 == word_target(text, rng)
    targets = [word_target(text, rng, spread=10, least=3) for _ in range(300)]
    assert min(targets) == 3 and max(targets) > 10
