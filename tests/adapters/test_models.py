"""Facts on cloud models: dated, overridable, and honest where nothing is known."""

from __future__ import annotations

from datetime import date

import pytest

from privolve.adapters import models
from privolve.adapters.contract import Usage
from privolve.adapters.models import ModelsError, Price

TODAY = date(2026, 11, 22)


def test_every_entry_says_when_and_where_it_was_read():
    catalogue = models.catalogue()
    assert catalogue.version
    for provider, model, region in catalogue.entries:
        facts = catalogue.facts(provider, model, region=region)
        assert facts.source and facts.as_of is not None and facts.as_of <= TODAY, model


def test_an_unknown_model_is_no_error_and_has_no_price():
    facts = models.facts("openai", "a-model-of-tomorrow")
    assert not facts.known
    assert facts.cost(Usage(input_tokens=1)) is None


def test_a_price_is_micro_dollars_rounded_up():
    luna = models.facts("openai", "gpt-6-luna")
    assert luna.cost(Usage(input_tokens=1_000_000, output_tokens=1_000_000)) == 600_000
    assert luna.cost(Usage(input_tokens=1)) == 1
    assert luna.cost(Usage()) == 0
    assert luna.cost(Usage(input_tokens=1_000_000), batch=True) == 50_000


def test_cached_tokens_are_a_part_of_the_input_with_a_price_of_their_own():
    luna = models.facts("openai", "gpt-6-luna")
    raw = {"prompt_tokens_details": {"cached_tokens": 600_000, "cache_write_tokens": 100_000}}
    assert luna.cost(Usage(input_tokens=1_000_000, raw=raw)) == 6_000 + 12_500 + 30_000


def test_image_tokens_have_their_own_price_and_an_unsaid_split_costs_the_dearer():
    flare = models.facts("openai", "gpt-image-2.6-flare")
    raw = {"input_tokens_details": {"text_tokens": 100, "image_tokens": 900}}
    assert flare.cost(Usage(input_tokens=1000, output_tokens=200, images=1, raw=raw)) == 500 + 7_200 + 6_000
    assert flare.cost(Usage(input_tokens=1000, output_tokens=200, images=1)) == 8_000 + 6_000


def test_a_price_by_the_piece_counts_images():
    assert Price(per_image="0.03").micro_dollars(Usage(images=2)) == 60_000


def test_a_part_without_a_price_makes_the_whole_unknown():
    assert Price(input="1").micro_dollars(Usage(input_tokens=1, output_tokens=1)) is None
    assert Price(input="1").micro_dollars(Usage(images=1)) is None
    assert Price(input="1").micro_dollars(Usage(input_tokens=1)) == 1


def test_models_near_their_end_are_listed_soonest_first_with_what_replaces_them():
    listed = models.near_shutdown(TODAY, within_days=60)
    names = [one.model for one in listed]
    assert "gpt-4o-mini" in names and "gpt-image-1.5" in names and "gpt-5.1" not in names
    assert [one.shutdown for one in listed] == sorted(one.shutdown for one in listed)
    mini = models.facts("openai", "gpt-4o-mini")
    assert "2027-01-14 (53 days)" in models.warning(mini, TODAY) and "gpt-6-luna" in models.warning(mini, TODAY)
    assert models.warning(models.facts("openai", "gpt-6-luna"), TODAY) == ""
    assert "was shut down" in models.warning(models.facts("openai", "dall-e-3"), TODAY)


def test_a_region_has_facts_of_its_own_over_those_of_all_regions():
    everywhere = models.facts("dashscope", "qwen3-vl-plus")
    beijing = models.facts("dashscope", "qwen3-vl-plus", region="cn-beijing")
    assert everywhere.limits.rpm is None and beijing.limits.rpm == 1200
    assert beijing.enable_thinking is everywhere.enable_thinking is False


def test_facts_are_overridden_field_by_field(tmp_path, monkeypatch):
    mine = tmp_path / "mine.toml"
    mine.write_text(
        'version = "mine"\n[[model]]\nprovider = "openai"\nnames = ["gpt-6-luna", "new"]\nprice = { input = 9.0 }\n'
    )
    monkeypatch.setenv(models.OVERRIDES, str(mine))
    luna = models.facts("openai", "gpt-6-luna")
    assert luna.price == Price(input="9.0") and luna.reasoning_effort == "none"
    assert models.facts("openai", "new").known
    assert models.catalogue().version.endswith("+mine")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("not toml", "cannot be read"),
        ('[[model]]\nprovider = "openai"\n', "names"),
        ('[[model]]\nprovider = "openai"\nnames = ["m"]\ncolour = 1\n', "colour"),
        ('[[model]]\nprovider = "openai"\nnames = ["m"]\nprice = { input = -1.0 }\n', "price.input"),
    ],
)
def test_a_file_that_cannot_be_followed_is_one_line_that_says_where(tmp_path, monkeypatch, content, words):
    mine = tmp_path / "mine.toml"
    mine.write_text(content)
    monkeypatch.setenv(models.OVERRIDES, str(mine))
    with pytest.raises(ModelsError, match=words) as caught:
        models.facts("openai", "gpt-6-luna")
    assert "mine.toml" in str(caught.value)


def test_a_file_that_is_not_there_is_named_with_the_variable_that_named_it(tmp_path, monkeypatch):
    monkeypatch.setenv(models.OVERRIDES, str(tmp_path / "gone.toml"))
    with pytest.raises(ModelsError, match=models.OVERRIDES):
        models.facts("openai", "gpt-6-luna")
