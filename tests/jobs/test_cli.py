"""The command line itself: commands, exit codes, and that an error is one line."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib

import numpy as np
import pytest

from privolve import __version__
from privolve.adapters.contract import AdapterError, AdapterUnavailable, Stopped, Transient
from privolve.cache.store import StoreDamaged, StoreFull
from privolve.cli import main
from privolve.jobs.errors import exit_code, one_line
from privolve.privacy.ledger import BudgetExceeded, LedgerBusy, LedgerWriteError
from privolve.privacy.private import OperationalError, PrivateStageError


@pytest.mark.parametrize(
    "arguments",
    [["--help"], *([command, "--help"] for command in ("init", "run", "plan", "report", "verify", "ledger", "export"))],
)
def test_help_is_printed_and_ends_with_zero(work, arguments: list[str]) -> None:
    outcome = work(*arguments)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("usage: privolve")


def test_without_a_command_help_is_printed(work) -> None:
    outcome = work()
    assert (outcome.code, outcome.err) == (0, "")
    assert "Exit codes: 0 done, 1 a check did not hold, 2 the input is wrong, 3 the budget" in " ".join(
        outcome.out.split()
    )


def test_the_version_is_printed(work) -> None:
    assert work("--version").out == f"privolve {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["rum", "job.toml"], ["run"], ["run", "a", "b"], ["verify", "--live", "x"], ["--deb", "rum"]]
)
def test_an_unknown_command_or_option_is_wrong_input(work, arguments: list[str]) -> None:
    outcome = work(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert "--help` says what there is" in outcome.line


def test_adapters_and_data_are_listed_without_being_imported() -> None:
    code = (
        "import sys; from privolve.cli import main; main(['adapters']); main(['data']); "
        "facts = {'privolve.data', *('privolve.data.' + name for name in ('catalogue', 'errors', 'registry'))}; "
        "unwanted = ('privolve.adapters', 'privolve.data', 'numpy'); "
        "sys.exit(any(name.startswith(unwanted) for name in sys.modules if name not in facts))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"glyphs", "lexicon", "pixels", "digits", "folder", "npz", "idx", "csv"} <= set(done.stdout.split())


def test_the_command_ends_as_main_says(work) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "privolve.cli", "run", "missing.toml"],
        cwd=work.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_debug_adds_the_traceback_and_keeps_the_line_and_the_code(work) -> None:
    work.job(seed='"x"')
    plain, shown = work("plan", "job.toml"), work("--debug", "plan", "job.toml")
    assert plain.code == shown.code == 2
    assert shown.err.startswith("Traceback")
    assert shown.err.endswith(plain.err)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("it is wrong"), 2, "it is wrong"),
        (AdapterUnavailable("pip install x"), 2, "pip install x"),
        (AdapterError("'eye' refuses"), 2, "'eye' refuses"),
        (LedgerBusy("in use"), 2, "in use"),
        (StoreDamaged("a cache"), 2, "a cache"),
        (PermissionError(13, "Permission denied", "place"), 2, "place: permission denied; give this user access to it"),
        (IsADirectoryError(21, "Is a directory", "place"), 2, "place: is a directory; "),
        (BudgetExceeded("no more"), 3, "no more"),
        (LedgerWriteError("disk"), 3, "disk"),
        (OperationalError("stopped"), 3, "stopped"),
        (Stopped("no money"), 3, "no money"),
        (Transient("no reply"), 3, "no reply"),
        (StoreFull("no space"), 3, "no space"),
        (OSError(28, "No space left on device", "place"), 3, "place: no space left on device; free some"),
        (MemoryError(), 3, "out of memory"),
        (PrivateStageError("embedding", "KeyError"), 1, "embedding failed on private values (KeyError)"),
        (KeyError("x"), 1, "internal error: KeyError: 'x'; run again with --debug and report it"),
        (RuntimeError("two\nlines"), 1, "internal error: RuntimeError: two lines"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_error_has_its_code_and_one_line(error: Exception, code: int, said: str) -> None:
    assert exit_code(error) == code
    line = one_line(error, code)
    assert line.startswith(said)
    assert "\n" not in line


def test_an_interrupted_command_says_how_to_go_on(work, monkeypatch: pytest.MonkeyPatch) -> None:
    from privolve.jobs import plan

    def interrupted(_config: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(plan, "text", interrupted)
    work.job()
    outcome = work("plan", "job.toml", "--set", "seed=2")
    assert outcome.code == 130
    assert outcome.line.endswith("goes on from here: privolve plan job.toml --set seed=2")


def test_a_plan_says_what_a_job_asks_costs_and_releases_and_makes_nothing(work) -> None:
    work.job()
    before = sorted(work.folder.rglob("*"))
    outcome = work("plan", "job.toml")
    assert (outcome.code, outcome.err) == (0, "")
    for words in ("96 private slots", "2 releases", "histogram/002", "painter", "signal against noise"):
        assert words in outcome.out
    assert sorted(work.folder.rglob("*")) == before


@pytest.mark.parametrize("kind", ["image-pe", "dpiti", "train"])
def test_init_writes_a_job_that_can_be_planned(work, kind: str) -> None:
    outcome = work("init", kind, "--data", "data", "--out", "new.toml")
    assert (outcome.code, outcome.err) == (0, "")
    table = tomllib.loads((work.folder / "new.toml").read_text())
    assert table["data"]["classes"] == ["0", "1"]
    assert table["data"]["size"] == [8, 8]
    assert work("plan", "new.toml").code == 0


@pytest.mark.parametrize(("name", "content"), [("notes.csv", "text\n"), ("notes.txt", ""), ("notes.jsonl", None)])
def test_init_writes_a_job_on_texts_that_can_be_planned(work, name: str, content: str | None) -> None:
    texts = [f"a note on the weather of day {day}" for day in range(400)]
    lines = [json.dumps({"text": text}) if content is None else text for text in texts]
    (work.folder / name).write_text((content or "") + "\n".join(lines) + "\n")
    outcome = work("init", "dpiti", "--data", name, "--out", "new.toml")
    assert (outcome.code, outcome.err) == (0, "")
    assert tomllib.loads((work.folder / "new.toml").read_text())["evolution"]["voting"] == "text"
    outcome = work("plan", "new.toml")
    assert (outcome.code, outcome.err) == (0, "")
    assert "400 private slots" in outcome.out


@pytest.mark.parametrize("kind", ["image-pe", "train"])
def test_init_of_a_job_on_images_refuses_texts_and_looks_at_none(work, kind: str) -> None:
    (work.folder / "notes.csv").write_text("no header that it knows\n")
    outcome = work("init", kind, "--data", "notes.csv", "--out", "new.toml")
    assert outcome.code == 2
    assert f"notes.csv: holds texts, and {kind} needs images; `privolve init dpiti --data notes.csv`" in outcome.line
    assert not (work.folder / "new.toml").exists()


@pytest.mark.parametrize(
    ("size", "count", "trainer"),
    [
        ((8, 8), 1438, {"profile": "tiny"}),
        ((9, 7), 40, {"profile": "tiny", "expected_batch": 10}),
        ((28, 28), 7000, {"profile": "small"}),
        ((45, 32), 3000, {"profile": "small", "network": "small", "mode": "frequency"}),
        ((64, 64), 300, {"profile": "small", "mode": "frequency", "expected_batch": 75}),
    ],
    ids=str,
)
def test_a_training_to_start_from_fits_the_size_and_the_number_of_the_images(work, size, count, trainer) -> None:
    """No batch is more than there are, the network sees such images, and the queries leave the training most of epsilon."""
    from privolve.jobs import job
    from privolve.jobs.training_design import shape_of
    from privolve.privacy.accounting import epsilon

    pixels = np.zeros((count, size[1], size[0]), dtype=np.uint8)
    np.savez_compressed(work.folder / "set.npz", x_train=pixels, y_train=np.arange(count) % 2)
    assert work("init", "train", "--data", "set.npz", "--out", "new.toml").code == 0
    config = job.load(work.folder / "new.toml")
    assert tomllib.loads((work.folder / "new.toml").read_text())["trainer"] == {"kind": "dp-feta-pro", **trainer}
    shape = shape_of(config.split().train)
    costs = [cost for _, cost in config.trainer.queries(shape)]
    assert epsilon(costs, 1e-5) < config.privacy.epsilon / 4
    config.trainer.check(shape, None)
    assert config.trainer.network_config(shape, 2).image_width == size[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rnu", "job.toml"), "invalid choice: 'rnu'; did you mean 'run'? `privolve --help` says what there is"),
        (("cache", "stat"), "invalid choice: 'stat'; did you mean 'stats'? `privolve cache --help`"),
        (("evaluate", "x"), "required: --data; `privolve evaluate --help`"),
        (("serve", "job.toml", "--port", "x"), "invalid int value: 'x'; `privolve serve --help`"),
        (("compare",), "required: SUITE.toml | RUN; `privolve compare --help`"),
    ],
)
def test_a_wrong_command_line_is_said_in_a_line_with_the_way_out(arguments, said: str, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("privolve: ") and said in line


def test_init_never_writes_over_a_file_and_refuses_what_it_does_not_know(work) -> None:
    (work.folder / "new.toml").write_text("mine")
    outcome = work("init", "dpiti", "--out", "new.toml")
    assert outcome.code == 2
    assert "exists already" in outcome.line
    assert (work.folder / "new.toml").read_text() == "mine"
    (work.folder / "empty").mkdir()
    for arguments, said in (
        (("dpity",), "'dpity' is no job kind; did you mean 'dpiti'?"),
        (("dp-feta",), "there is no starter for 'dp-feta': copy a file of it from examples/digits"),
        (("image-pe", "--data", "empty"), "the set is empty: it has no slot; check `path`"),
        (("dpiti", "--data", "nowhere"), "nowhere: there is no such file or folder"),
        (("dpiti", "--data", "new.toml"), "no source reads this"),
        (("dpiti", "--out", "no/such/folder.toml"), "cannot be written"),
    ):
        outcome = work("init", *arguments)
        assert outcome.code == 2
        assert said in outcome.line


def test_a_doctor_shows_no_key(work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    outcome = work("doctor")
    assert outcome.code == 0
    assert "sk-very-secret" not in outcome.out + outcome.err
