"""`transformers-text` on a tiny Llama with random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from privolve.adapters.contract import AdapterError, AdapterUnavailable, Message, Refusal, TextRequest, wrong_with
from privolve.adapters.local.generation import Ask, GumbelNoise, Manner
from privolve.adapters.local.writer import TransformersText, TransformersTextConfig


@pytest.fixture(scope="module")
def llama(folder_of):
    def opened(**settings) -> TransformersText:
        return TransformersTextConfig(model=folder_of("llama"), **{"max_tokens": 10, **settings}).open()

    return opened


@pytest.fixture(scope="module")
def writer(llama) -> TransformersText:
    return llama(batch_size=4)


@pytest.fixture
def requests(tools):
    """Prompts of unequal length, draws, temperatures and limits, mixed."""
    return [
        tools.ask("the " * length + "cat", draw, temperature=temperature, max_tokens=limit)
        for length in (1, 7, 20)
        for draw in (0, 1)
        for temperature, limit in ((None, None), (0.0, 6), (1.7, 3))
    ]


def test_a_reply_does_not_depend_on_its_batch(writer, llama, requests):
    replies = writer.send(requests)
    assert [wrong_with(request, reply) for request, reply in zip(requests, replies, strict=True)] == [""] * len(replies)
    assert [writer.send([request])[0] for request in requests] == replies
    assert writer.send(requests[::-1])[::-1] == replies
    assert llama(batch_size=7).send(requests) == replies


def test_draws_differ_and_a_draw_is_the_same_again(writer, tools):
    replies = writer.send([tools.ask("a cat", draw) for draw in range(6)])
    assert len(set(replies)) == 6
    assert writer.send([tools.ask("a cat", 3)]) == [replies[3]]


def test_temperature_0_takes_the_likeliest_token_whatever_the_draw(writer, tools):
    [one, other] = writer.send([tools.ask("a cat", draw, temperature=0.0) for draw in (0, 1)])
    assert one == other


def test_a_reply_is_what_the_model_says_step_by_step(writer, tools):
    """Against a loop that feeds the whole text each time, without a cache, a mask or padding."""
    request = tools.ask("the small red cat", temperature=0.0, max_tokens=8)
    ids = list(writer._tokens(request))
    start = len(ids)
    with torch.inference_mode():
        for _ in range(8):
            ids.append(int(writer._model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    expected = writer._decoded(ids[start:]).strip()
    # Beside a longer prompt, so that it is padded.
    assert writer.send([tools.ask("the " * 9, temperature=0.0, max_tokens=8), request])[1] == expected


def test_no_reply_is_longer_than_asked(writer, tools):
    lengths = {}
    for limit in (1, 4, 9):
        [reply] = writer.send([tools.ask("a", temperature=0.0, max_tokens=limit)])
        lengths[limit] = reply
    assert lengths[9].startswith(lengths[4]) or lengths[4].startswith(lengths[9])
    assert len(lengths[1]) < len(lengths[9])


def test_the_prompt_is_the_tokenizers_own_template(writer, tools):
    ids = writer._tokens(tools.ask("red cat"))
    assert writer._tokenizer.decode(ids) == "<user>red cat<end><assistant>"


def test_a_template_without_system_messages_gets_them_in_the_first_message(writer):
    messages = (Message(role="system", content="Be brief."), Message(role="user", content="red cat"))
    ids = writer._tokens(TextRequest(messages=messages, draw=0))
    assert writer._tokenizer.decode(ids) == "<user>Be brief.\n\nred cat<end><assistant>"


def test_messages_that_the_template_refuses_are_one_line(writer):
    messages = (Message(role="assistant", content="hello"), Message(role="system", content="Be brief."))
    with pytest.raises(AdapterError, match="chat template refuses") as caught:
        writer.send([TextRequest(messages=messages, draw=0)])
    assert "\n" not in str(caught.value)


def test_a_prompt_that_the_model_cannot_read_is_refused_with_numbers(writer, tools):
    replies = writer.send([tools.ask("cat " * 400), tools.ask("cat")])
    assert isinstance(replies[0], Refusal)
    assert "192" in replies[0].reason
    assert isinstance(replies[1], str)


def test_a_reply_ends_before_a_stop_string(llama, tools):
    asked = [tools.ask("a cat", draw, max_tokens=30) for draw in range(6)]
    whole = llama().send(asked)
    stop = " cat"
    assert llama(stop=(stop,)).send(asked) == [reply.partition(stop)[0].strip() for reply in whole]


def test_a_stop_token_ends_a_reply(llama, tools):
    plain, stopped = llama(), llama(stop_tokens=("<halt>",))
    halt = plain._tokenizer.get_vocab()["<halt>"]
    assert halt not in plain._manner.ends
    assert halt in stopped._manner.ends
    with pytest.raises(AdapterUnavailable, match="no token of this model"):
        llama(stop_tokens=("two words",))


def test_habits_of_the_folder_are_not_ours(writer):
    """The folder asks for sampling, penalties and a length; the config is what counts."""
    config = writer._model.generation_config
    assert (config.do_sample, config.repetition_penalty, config.max_length) == (False, None, None)
    assert config.temperature is None


def test_a_model_without_a_template_needs_plain_to_be_said(folder_of, tools, tmp_path):
    import shutil

    bare = shutil.copytree(folder_of("llama"), tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(AdapterUnavailable, match="set plain = true"):
        TransformersTextConfig(model=str(bare)).open()
    plain = TransformersTextConfig(model=str(bare), plain=True, max_tokens=4).open()
    assert plain._tokenizer.decode(plain._tokens(tools.ask("red cat"))).endswith("red cat")
    assert isinstance(plain.send([tools.ask("red cat")])[0], str)


def test_the_identity_is_the_weights_the_code_and_the_numbers(writer, llama):
    identity = writer.identity
    assert identity == llama(batch_size=2, temperature=0.1).identity
    assert identity.provider == "transformers"
    assert identity.model and "/" not in identity.model
    assert "+cpu+float32+" in identity.revision
    assert llama(dtype="bfloat16").identity != identity


@pytest.mark.parametrize(("temperature", "right"), [(1.0, True), (0.7, False), (1.4, False)])
def test_gumbel_noise_and_argmax_sample_from_the_softmax(temperature, right):
    scores = torch.tensor([2.0, 1.0, 0.0, -1.0, 0.5])
    rows = 8000
    asks = [Ask(seed=seed, temperature=temperature, max_tokens=1) for seed in range(rows)]
    noise = GumbelNoise(asks, Manner(), torch.device("cpu"))
    chosen = noise(torch.zeros(rows, 3, dtype=torch.long), scores.repeat(rows, 1)).argmax(dim=1)
    counts = np.bincount(chosen.numpy(), minlength=5)
    expected = torch.softmax(scores.double(), dim=0).numpy() * rows
    probability = chisquare(counts, expected).pvalue
    assert probability > 1e-9 if right else probability < 1e-9


def test_top_k_and_top_p_leave_out_the_unlikely():
    scores = torch.tensor([[3.0, 2.0, 1.0, -9.0]]).repeat(500, 1)
    asks = [Ask(seed=seed, temperature=1.0, max_tokens=1) for seed in range(500)]
    for manner, allowed in ((Manner(top_k=2), {0, 1}), (Manner(top_p=0.5), {0})):
        noise = GumbelNoise(asks, manner, torch.device("cpu"))
        assert set(noise(torch.zeros(500, 1, dtype=torch.long), scores).argmax(dim=1).tolist()) == allowed


def test_the_noise_of_a_row_does_not_know_the_other_rows():
    def first(count: int) -> list[torch.Tensor]:
        asks = [Ask(seed=seed, temperature=1.0, max_tokens=9) for seed in range(count)]
        noise = GumbelNoise(asks, Manner(), torch.device("cpu"))
        return [noise(torch.zeros(count, 1, dtype=torch.long), torch.zeros(count, 7))[0] for _ in range(3)]

    assert all(torch.equal(one, other) for one, other in zip(first(1), first(5), strict=True))
