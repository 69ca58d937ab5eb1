"""Money at the command line: plans without a key, budgets, shared answers, and the cache's upkeep."""

from __future__ import annotations

import json
import re
from contextlib import closing

import pytest

from privolve.adapters import registry
from privolve.cache import upkeep
from privolve.cache.sqlite import SqliteStore
from privolve.jobs.gateways import CACHE_FILE

JOB = """
kind = "dpiti"
[data]
kind = "digits"
[privacy]
epsilon = 1.0
[evolution]
iterations = 9
count = 2000
variations = 6
max_tokens = 200
[adapters]
writer = { kind = "openai", model = "gpt-6-luna" }
painter = { kind = "openai", model = "gpt-image-2" }
eye = { kind = "pixels" }
"""


@pytest.fixture
def remote(monkeypatch):
    """The remote adapter under its name, and no key for it anywhere."""
    from privolve.adapters.remote.openai import OpenAIConfig

    known = registry.config_class
    monkeypatch.setattr(registry, "config_class", lambda kind: OpenAIConfig if kind == "openai" else known(kind))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_the_references_setting_is_planned_without_a_key(work, remote) -> None:
    (work.folder / "big.toml").write_text(JOB)
    outcome = work("plan", "big.toml")
    assert (outcome.code, outcome.err) == (0, "")
    plain = " ".join(outcome.out.split())
    assert "the published code would ask 122,000 writer" in plain
    assert "writer openai 110,000 text" in plain
    assert "openai gpt-6-luna: 110,000 calls" in plain
    assert "110,000 images" in plain
    assert "as a batch" in plain
    assert "budget" not in plain
    tight = work("plan", "big.toml", "--set", "budget.max_cost=5")
    assert "$5.00: not enough" in tight.out


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("budget.max_cost=0", "budget.max_cost: input should be greater than 0, not 0"),
        ("budget.max_price=3", "known here: max_cost"),
        ('performance.cache_mode="tape"', "performance.cache_mode: input should be 'live', 'record', 'replay'"),
    ],
)
def test_wrong_money_settings_are_one_line(work, setting: str, words: str) -> None:
    work.job()
    outcome = work("run", "job.toml", "--set", setting)
    assert outcome.code == 2
    assert words in outcome.line


def test_money_and_cache_settings_do_not_make_another_run(work) -> None:
    from privolve.jobs import job

    path = work.job()
    plain = job.load(path)
    other = job.load(path, ["budget.max_cost=3", 'performance.cache_mode="record"', "performance.concurrency=2"])
    assert other.budget.micro == 3_000_000
    assert plain.digest() == other.digest()


def test_runs_share_answers_only_by_name(work) -> None:
    work.job()
    for folder, reuse in (("one", "pair"), ("two", "pair"), ("three", None)):
        arguments = [
            "run",
            "job.toml",
            "--set",
            "performance.cache_mode=record",
            "--out",
            folder,
            *(["--reuse", reuse] if reuse else []),
        ]
        outcome = work(*arguments)
        assert outcome.code == 0, outcome.err
    stats = work("cache", "stats").out
    assert "shared:pair" in stats
    three = json.loads((work.folder / "three" / "run.json").read_text())
    assert three["id"] in stats
    sent = {
        name: sum(each["sent"] for part in manifest["requests"].values() for each in part.values())
        for name in ("one", "two", "three")
        for manifest in [json.loads((work.folder / name / "run.json").read_text())]
    }
    assert sent["two"] < sent["one"]
    outcome = work("run", "job.toml", "--out", "three", "--reuse", "pair")
    assert outcome.code == 2
    assert "began with other answers" in outcome.line

    assert work("cache", "export", "pair.db", "--public", "--namespace", "shared:pair").code == 0
    assert work("cache", "export", "pair.db", "--public").line.endswith("exists; name a new file")
    assert work("cache", "export", "none.db", "--namespace", "nobody").code == 2
    removed = work("cache", "prune", "--namespace", "shared:pair")
    assert removed.code == 0
    assert "shared:pair" not in work("cache", "stats").out


TEXT_VOTING = (
    '{ iterations = 2, count = 8, variations = 2, voting = "text", initial_prompt = "glyphs", '
    'variation_prompt = "glyphs-fill" }'
)


@pytest.fixture
def paid_eye(work, monkeypatch):
    """A job whose eye costs money and sees private captions, at a stub; and the stub."""
    pytest.importorskip("openai")
    from privolve.adapters.stub import Stub

    monkeypatch.setenv("A_KEY", "sk-of-no-use")
    with Stub() as stub:
        eye = f'kind = "openai", model = "text-embedding-3-small", base_url = "{stub.openai_url}", provider = "openai"'
        work.job(
            "dpiti",
            trust='["eye"]',
            evolution=TEXT_VOTING,
            adapters='{ writer = { kind = "lexicon" }, painter = { kind = "glyph-painter" }, captioner = { kind = '
            f'"glyph-captioner", characters = "01", per_character = 60 }}, eye = {{ {eye}, api_key_env = "A_KEY" }} }}',
            performance="{ chunk = 40 }",
        )
        yield stub


def planned(text: str) -> tuple[int, int]:
    """The two ends of the money, in millionths of a dollar."""
    found = re.search(r"together +\$([\d.,]+) to \$([\d.,]+)", text)
    assert found is not None, text
    return tuple(round(float(end.replace(",", "")) * 1e6) for end in found.groups())  # type: ignore[return-value]


def test_private_slots_are_planned_at_what_they_take_from_the_budget(work, paid_eye) -> None:
    before = work("plan", "job.toml").out
    assert "and 96 private slots" in before
    assert "the slots are paid in advance at the worst, 3 tries each" in before
    expected, worst = planned(before)
    assert work("run", "job.toml").code == 0
    spent = json.loads((work.runs[0] / "run.json").read_text())["money"]["spent"]
    # The largest text of a slot, three times, and no public text costs more: nearly all of the worst is spent.
    assert 0.9 * worst < spent <= worst
    assert expected < spent / 10


def test_a_budget_that_cannot_pay_the_slots_in_advance_is_not_called_enough(work, paid_eye) -> None:
    expected, worst = planned(work("plan", "job.toml").out)
    between = (expected + worst) / 2e6
    assert "not enough" in work("plan", "job.toml", "--set", f"budget.max_cost={between:f}").out
    assert "not enough" not in work("plan", "job.toml", "--set", f"budget.max_cost={worst * 1.05 / 1e6:f}").out
    assert work("run", "job.toml", "--set", f"budget.max_cost={worst * 1.05 / 1e6:f}").code == 0


def test_what_a_run_has_paid_is_not_planned_again(work, paid_eye) -> None:
    worst = planned(work("plan", "job.toml").out)[1]
    assert work("run", "job.toml").code == 0
    after = work("plan", "job.toml").out
    assert "more are kept)" in after
    assert "calls and" not in after
    # Equal captions are asked about once, so a few fewer calls than planned were needed.
    assert planned(after)[1] < worst / 50
    stats = work("cache", "stats").out
    assert "96 private slots in advance" in stats


def test_a_plan_expects_what_earlier_calls_of_any_run_took_and_its_worst_stays(work, paid_eye) -> None:
    other = ("plan", "job.toml", "--set", "seed=1")
    before = work(*other).out
    assert "expected as its last" not in before
    assert work("run", "job.toml").code == 0
    after = work(*other).out
    assert re.search(r"expected as its last \d+ calls of this kind went", after)
    tokens = [re.search(r"([\d,]+) to ([\d,]+) tokens in", said) for said in (before, after)]
    (typical, worst), (seen, still) = ([int(end.replace(",", "")) for end in each.groups()] for each in tokens if each)
    assert still == worst and 0 < seen != typical
    with closing(SqliteStore(work.folder / "experiments" / ".cache" / CACHE_FILE)) as store:
        habit = upkeep.habit(store, model="text-embedding-3-small", request="EmbedRequest")
    assert habit is not None
    assert seen == pytest.approx(habit.share_of_input / 0.75 * typical, rel=0.05)


def test_a_run_that_stopped_among_its_slots_plans_those_of_the_last_chunk_again(work, paid_eye) -> None:
    """Three chunks: of 40, 40 and 16 slots. The budget pays for two."""
    worst = planned(work("plan", "job.toml").out)[1]
    stopped = work("run", "job.toml", "--set", f"budget.max_cost={worst * 0.9 / 1e6:f}")
    assert stopped.code == 3
    assert "the next 16 private slots of 'eye'" in stopped.line
    assert "and 56 private slots" in work("plan", "job.toml").out


def test_a_cache_that_is_not_there_is_one_line(work) -> None:
    outcome = work("cache", "stats", "--cache", "nowhere")
    assert outcome.code == 2
    assert "there is no cache" in outcome.line
