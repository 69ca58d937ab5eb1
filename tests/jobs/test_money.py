"""Money at the command line: plans without a key, budgets, shared answers, and the cache's upkeep."""

from __future__ import annotations

import json

import pytest

from privolve.adapters import registry

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


def test_a_cache_that_is_not_there_is_one_line(work) -> None:
    outcome = work("cache", "stats", "--cache", "nowhere")
    assert outcome.code == 2
    assert "there is no cache" in outcome.line
