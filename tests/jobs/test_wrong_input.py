"""Wrong input through the command line: one line that says where, what and the way out, the right code, nothing lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

EYE = 'eye = { kind = "pixels" }'
PAINTER = 'painter = { kind = "glyphs" }'


def data(path: str = "data", classes: str = '["0", "1"]', more: str = "") -> str:
    """The TOML of a `[data]` table."""
    return f'{{ kind = "folder", path = "{path}", classes = {classes}, size = [8, 8], channels = 1{more} }}'


WRONG = {
    # What is wrong: the settings, and what the line must say.
    "an unknown table": (
        {"evaluaton": "{ random_baseline = true }"},
        "evaluaton: unknown key; did you mean 'evaluation'?",
    ),
    "an unknown key": ({"evolution": "{ iterations = 2, count = 8, variatons = 2 }"}, "did you mean 'variations'?"),
    "an unknown key of privacy": ({"privacy": "{ epsilom = 1 }"}, "did you mean 'epsilon'?"),
    "an unknown key of data": ({"data": data(more=", hold_out = 0.2")}, "has no setting 'hold_out'"),
    "an unknown key of an adapter": (
        {"adapters": '{ painter = { kind = "glyphs", font = "x" }, eye = { kind = "pixels" } }'},
        "'font' is not a setting of kind 'glyphs'",
    ),
    "an adapter's key nearly right": (
        {"adapters": f'{{ painter = {{ kind = "glyphs", sise = [0.9, 1.0] }}, {EYE} }}'},
        "job.toml: adapters.painter: 'sise' is not a setting of kind 'glyphs'; did you mean 'size'?",
    ),
    "a metric nearly right": (
        {"evaluation": '{ metrics = ["frechett"] }'},
        "there is no metric of kind 'frechett'; did you mean 'frechet'?",
    ),
    "a rule nearly right": (
        {"evolution": '{ iterations = 2, count = 8, select = { kind = "rnk" } }'},
        "evolution.select: there is no kind 'rnk'; did you mean 'rank'? there are rank, sample, uniform",
    ),
    "a missing table": ({"privacy": None}, "privacy: missing"),
    "no adapters": ({"adapters": None}, "adapters: missing"),
    "no epsilon": ({"privacy": "{}"}, "privacy.epsilon: missing"),
    "a text for a number": ({"evolution": '{ iterations = "two", count = 8 }'}, "evolution.iterations"),
    "a number for a table": ({"evolution": "3"}, "evolution: a table is needed, not 3"),
    "a number for the data": ({"data": "3"}, "data: a table is needed, not 3"),
    "a number for an adapter": ({"adapters": f"{{ {PAINTER}, eye = 3 }}"}, "adapters.eye"),
    "a list for a table": ({"privacy": "[1]"}, "privacy"),
    "an unknown job kind": (
        {"kind": '"dpity"'},
        "'dpity' is no job kind; did you mean 'dpiti'? use one of dpiti, image-pe",
    ),
    "a training method as job kind": ({"kind": '"dp-feta"'}, 'kind = "train", and [trainer] kind = "dp-feta"'),
    "no job kind": ({"kind": None}, "kind: missing; use one of dpiti, image-pe"),
    "a list as job kind": ({"kind": "[1]"}, "use one of dpiti, image-pe"),
    "an unknown data kind": ({"data": '{ kind = "foldr" }'}, "did you mean 'folder'? known kinds: "),
    "an unknown adapter": (
        {"adapters": f'{{ {PAINTER}, eye = {{ kind = "pixel" }} }}'},
        "did you mean 'pixels'? known kinds: ",
    ),
    "an adapter without a kind": ({"adapters": f"{{ {PAINTER}, eye = {{}} }}"}, "adapters.eye"),
    "an unknown role": (
        {"adapters": f'{{ {PAINTER}, {EYE}, paintr = {{ kind = "glyphs" }} }}'},
        "adapters.paintr: image-pe has no such role; did you mean 'painter'?",
    ),
    "a missing role": ({"adapters": f"{{ {PAINTER} }}"}, "needs an adapter for the role 'eye'"),
    "an adapter that answers something else": (
        {"adapters": f'{{ painter = {{ kind = "lexicon" }}, {EYE} }}'},
        "does not answer ImageRequest or ImageVariationRequest",
    ),
    "a trusted role that is none": ({"trust": '["ear"]'}, "`trust` names 'ear'"),
    "an epsilon of zero": ({"privacy": "{ epsilon = 0 }"}, "privacy.epsilon: input should be greater than 0"),
    "a negative epsilon": ({"privacy": "{ epsilon = -1.0 }"}, "privacy.epsilon: input should be greater than 0"),
    "an epsilon that is no number": ({"privacy": "{ epsilon = nan }"}, "privacy.epsilon: input should be"),
    "an infinite epsilon": ({"privacy": "{ epsilon = inf }"}, "privacy.epsilon: input should be a finite number"),
    "a delta of 1/N": ({"privacy": "{ epsilon = 20.0, delta = 0.02 }"}, "is not below 1/N"),
    "a delta of one": ({"privacy": "{ epsilon = 20.0, delta = 1.0 }"}, "privacy.delta"),
    "a delta that is no number": ({"privacy": "{ epsilon = 20.0, delta = nan }"}, "privacy.delta"),
    "one total of two": ({"privacy": "{ epsilon = 1, total_epsilon = 2 }"}, "give both or neither"),
    "an unknown relation": ({"privacy": '{ epsilon = 1, relation = "swap" }'}, "privacy.relation"),
    "an infinite share": (
        {"evolution": "{ iterations = 2, count = 8, shares = { 0 = inf, 1 = 1.0 } }"},
        "finite",
    ),
    "a share of no class": (
        {"evolution": "{ iterations = 2, count = 8, shares = { 0 = 1.0, 2 = 1.0 } }"},
        "lack ['1']",
    ),
    "a threshold that is no number": ({"evolution": "{ iterations = 2, count = 8, threshold = nan }"}, "finite"),
    "no classes": ({"data": '{ kind = "folder", path = "data", size = [8, 8], channels = 1 }'}, "declare the classes"),
    "no size": ({"data": '{ kind = "folder", path = "data", classes = ["0", "1"] }'}, "size, as in size = [64, 64]"),
    "a class twice": ({"data": data(classes='["0", "0"]')}, "a class is declared twice"),
    "a missing path": ({"data": data("date")}, "date does not exist; check `path`"),
    "a file for a folder": ({"data": data("job.toml")}, "job.toml is no folder"),
    "an empty folder": ({"data": data("empty")}, "the set is empty"),
    "another count": ({"data": data(more=", count = 119")}, "declare count = 120"),
    "a holdout of nearly all": ({"data": data(more=", holdout = 0.001")}, "holdout"),
    "slots past the end": ({"data": data(more=", slots = [0, 121]")}, "ends after the last of 120 slots"),
    "a list too short": (
        {"evolution": "{ iterations = 2, count = [8, 8] }"},
        "[evolution] `count` lists 2 values, and the iterations 0 to 2 are 3",
    ),
    "a list too long": (
        {"evolution": "{ iterations = 2, count = 8, degree = [0.5, 0.4, 0.3, 0.2] }"},
        "`degree` lists 4 values",
    ),
    "a list of rules too short": (
        {"evolution": '{ iterations = 2, count = 8, select = [{ kind = "rank" }] }'},
        "`select` lists 1 values, and the iterations 1 to 2 are 2",
    ),
    "negative variations": ({"evolution": "{ iterations = 2, count = 8, variations = -1 }"}, "`variations` is -1"),
    "nobody left": (
        {"evolution": "{ iterations = 2, count = 8, variations = 0, keep_selected = false }"},
        "leaves no candidates",
    ),
    "a degree above one": ({"evolution": "{ iterations = 2, count = 8, degree = 1.5 }"}, "evolution.degree"),
    "fewer candidates than classes": ({"evolution": "{ iterations = 2, count = 1 }"}, "leave none for ['1']"),
    "no candidates": ({"evolution": "{ iterations = 2, count = 0 }"}, "`count` is 0"),
    "a pool smaller than what is selected": (
        {"evolution": "{ iterations = 2, count = [4, 40, 8], variations = 2 }"},
        "iteration 1 selects 20 candidates of class '0' from a pool of 6",
    ),
    "a later pool too small": (
        {"evolution": "{ iterations = 2, count = 8, variations = [2, 1, 1], keep_selected = [false, true] }"},
        "",  # 4 of 4: fits, and must not be refused.
    ),
    "more neighbours than candidates": (
        {"evolution": "{ iterations = 2, count = 4, variations = 1, neighbours = 5 }"},
        "neighbours = 5, and iteration 1 has 4 candidates of class '0'",
    ),
    "no iterations": ({"evolution": "{ iterations = 0, count = 8 }"}, "evolution.iterations"),
    "prompts of other classes": (
        {"evolution": '{ iterations = 2, count = 8, prompts = { 0 = "zero" } }'},
        "give one prompt for each class",
    ),
    "a negative chunk": ({"performance": "{ chunk = 0 }"}, "performance.chunk"),
    "an unknown backend": ({"performance": '{ neighbours = "annoy" }'}, "performance.neighbours"),
}


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("what", [what for what, (_, said) in WRONG.items() if said])
def test_wrong_settings_are_refused_in_one_line_and_nothing_is_made(work, what: str, command: str) -> None:
    changed, said = WRONG[what]
    (work.folder / "empty").mkdir()
    work.job(**changed)
    outcome = work(command, "job.toml", *(["--out", "run"] if command == "run" else []))
    assert outcome.code == 2
    assert said in outcome.line
    assert not (work.folder / "ledgers").exists()
    assert not (work.folder / "run" / "iterations" / "000").exists()


def test_a_suite_given_to_run_names_the_command_that_takes_it(work) -> None:
    work.job(kind='"suite"')
    outcome = work("run", "job.toml")
    assert outcome.code == 2
    assert outcome.line == "job.toml: is a suite, no job: `privolve plan` and `privolve compare` take it"


def test_a_refused_run_leaves_nothing_in_a_folder_that_is_not_its_own(work) -> None:
    work.job()
    before = sorted((work.folder / "data").rglob("*"))
    assert "is not empty and holds no run" in work("run", "job.toml", "--out", "data").line
    assert sorted((work.folder / "data").rglob("*")) == before


def test_a_pool_that_just_suffices_is_not_refused(work) -> None:
    work.job(**WRONG["a later pool too small"][0])
    assert work("plan", "job.toml").code == 0


def test_the_corrected_command_takes_over_what_a_refused_one_left(work) -> None:
    work.job(data=data("date"))
    assert work("run", "job.toml", "--out", "run").code == 2
    work.job(evolution="{ iterations = 1, count = 4, variations = 1, neighbours = 5 }")
    assert work("run", "job.toml", "--out", "run").code == 2
    work.job(evolution="{ iterations = 1, count = 4, variations = 1 }")
    outcome = work("run", "job.toml", "--out", "run")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("running run")
    assert work("verify", "run").code == 0


def test_a_run_that_has_reserved_its_plan_is_not_taken_over(work) -> None:
    work.job(evolution="{ iterations = 1, count = 4, variations = 1 }")
    assert work("run", "job.toml", "--out", "run").code == 0
    outcome = work("run", "job.toml", "--out", "run", "--set", "evolution.count=6")
    assert outcome.code == 2
    assert "(evolution.count differs); name another --out" in outcome.line
    assert work("verify", "run").code == 0


DPITI_WRONG = {
    "a prompt that is not there": ('initial_prompt = "glyfs"', "there is no prompt 'initial/glyfs'; there are "),
    "a prompt file that is not there": ('variation_prompt = "mine.toml"', "prompt 'mine.toml' cannot be read"),
    "a prompt file that is none": ('variation_prompt = "job.toml"', "prompt 'job.toml': unknown key"),
    "a prompt file that is binary": ('variation_prompt = "binary.toml"', "prompt 'binary.toml' cannot be read"),
    "a folder as prompt": ('variation_prompt = "folder.toml"', "prompt 'folder.toml' cannot be read"),
    "blanks for other iterations": (
        "blank_probability = [0.5, 0.5]",
        "`blank_probability` lists 2 values, and the iterations 0 to 2 are 3",
    ),
    "words for images": ('voting = "text"', "needs an adapter for the role 'captioner'"),
    "images of no size": ("size = [0, 8]", "evolution.size"),
}


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("what", DPITI_WRONG)
def test_wrong_settings_of_dpiti_are_refused_in_one_line(work, what: str, command: str) -> None:
    setting, said = DPITI_WRONG[what]
    (work.folder / "binary.toml").write_bytes(bytes(range(256)))
    (work.folder / "folder.toml").mkdir()
    prompts = 'initial_prompt = "glyphs", variation_prompt = "glyphs-fill"'
    key = setting.partition(" ")[0]
    others = ", ".join(part for part in prompts.split(", ") if not part.startswith(key))
    work.job("dpiti", evolution=f"{{ iterations = 2, count = 8, {others}, {setting} }}")
    outcome = work(command, "job.toml")
    assert outcome.code == 2
    assert said in outcome.line
    assert not (work.folder / "ledgers").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"kind = ", "not valid TOML"),
        (b"kind = 'a'\nkind = 'b'\n", "not valid TOML"),
        (b"\x00\x01\xff\xfe", "it is not UTF-8 text"),
        (b"a = " + b"[" * 20_000, "TOML"),
        (b"", "kind: missing"),
        (b"a = " + b"{b=" * 5_000, "TOML"),
    ],
)
def test_what_is_no_job_file_is_said_in_a_line(work, content: bytes, said: str) -> None:
    (work.folder / "job.toml").write_bytes(content)
    if b"[[" in content or b"{b=" in content:
        said = ""  # Too deep, or unfinished: whichever is found first.
    for command in ("plan", "run"):
        outcome = work(command, "job.toml")
        assert outcome.code == 2
        assert outcome.line.startswith("job.toml: ")
        assert said in outcome.line


def test_a_job_file_may_begin_with_a_byte_order_mark(work) -> None:
    path = work.job()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert work("plan", "job.toml").code == 0


def test_a_job_file_that_cannot_be_read_is_said_with_the_way_out(work) -> None:
    for name in ("missing.toml", "data"):
        outcome = work("run", name)
        assert outcome.code == 2
        assert f"{name}: cannot be read" in outcome.line
        assert "privolve init" in outcome.line


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("seed", "write it as --set table.key=value"),
        ("=1", "write it as --set table.key=value"),
        ("sed=1", "did you mean 'seed'?"),
        ("privacy.epsilon=", "privacy.epsilon"),
        ("privacy.epsilon=two", "privacy.epsilon"),
        ("privacy.epsilon.much=2", "'epsilon' is a value, not a table"),
        ("privacy..epsilon=2", "write it as --set table.key=value"),
        ("privacy=2", "privacy"),
        ("data.classes=[", "classes"),
        ("evolution.count=" + "[" * 5_000, "evolution.count"),
    ],
)
def test_a_wrong_setting_on_the_command_line_is_said_in_a_line(work, setting: str, said: str) -> None:
    work.job()
    outcome = work("plan", "job.toml", "--set", setting)
    assert outcome.code == 2
    assert said in outcome.line
    assert len(outcome.line) < 1000


def test_settings_on_the_command_line_are_applied_in_order(work) -> None:
    work.job()
    outcome = work("plan", "job.toml", "--set", "privacy.epsilon=3", "--set", "privacy.epsilon=7", "--set", "seed=4")
    assert outcome.code == 0
    assert "privacy: (7, " in outcome.out


def test_a_budget_that_is_used_up_stops_the_next_run_with_code_three(work) -> None:
    work.job(privacy="{ epsilon = 20.0, total_epsilon = 30.0, total_delta = 1e-3 }")
    assert work("run", "job.toml").code == 0
    before = work.entries
    outcome = work("run", "job.toml", "--set", "seed=1", "--out", "second")
    assert outcome.code == 3
    assert "ask for at most what is left, (10, 0.00099)" in outcome.line
    assert not list((work.folder / "second" / "iterations").iterdir())
    # Only that the ledger was opened is written down; what is left can still be used, in the same folder.
    assert work.entries <= before + 1
    outcome = work("run", "job.toml", "--set", "seed=1", "--set", "privacy.epsilon=10", "--out", "second")
    assert (outcome.code, outcome.err) == (0, "")


def test_a_ledger_from_which_nothing_was_planned_says_how_to_change_its_terms(work) -> None:
    work.job(privacy="{ epsilon = 20.0, total_epsilon = 10.0, total_delta = 1e-3 }")
    assert work("run", "job.toml").code == 3
    outcome = work("run", "job.toml", "--set", "privacy.total_epsilon=40")
    assert outcome.code == 2
    assert "remove its folder, as nothing was ever released or planned from it" in outcome.line
    shutil.rmtree(work.folder / "ledgers" / "data")
    assert work("run", "job.toml", "--set", "privacy.total_epsilon=40").code == 0


@contextmanager
def nobody() -> Iterator[None]:
    """As a user without special rights, also where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    if not all(place.stat().st_mode & 0o001 for place in Path(__file__).resolve().parents):
        pytest.skip("the project lies in a folder that another user may not enter, so that none can run it")
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_delta_below_one_in_n_is_taken_as_the_ledgers_own(work) -> None:
    work.job(privacy="{ epsilon = 20.0, delta = 5e-4 }", evolution="{ iterations = 1, count = 4, variations = 1 }")
    assert work("run", "job.toml").code == 0
    assert work("run", "job.toml", "--set", "privacy.delta=1e-6").code == 0
    outcome = work("run", "job.toml", "--set", "privacy.delta=6e-4")
    assert outcome.code == 3
    assert "which was fixed when the ledger was made" in outcome.line


@pytest.fixture
def open_work(workplace, glyphs: Path):
    """A place whose parents everybody may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        shutil.copytree(glyphs, Path(folder) / "data")
        yield workplace(Path(folder))


def test_a_place_that_cannot_be_written_is_said_in_a_line(open_work) -> None:
    work = open_work
    work.job()
    assert work("plan", "job.toml").code == 0  # Everything is imported now.
    work.folder.chmod(0o555)
    try:
        with nobody():
            outcome = work("run", "job.toml")
            assert outcome.code == 2
            assert "cannot be written (Permission denied); name another folder with --out" in outcome.line
    finally:
        work.folder.chmod(0o755)


def test_a_private_record_that_may_not_be_read_stops_before_any_charge(
    open_work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permission says nothing about a record, so it makes no ghost; and no message names the file."""
    work = open_work
    work.job()
    for name in ("experiments", "ledgers"):
        (work.folder / name).mkdir()
        (work.folder / name).chmod(0o777)
    hidden = work.folder / "data" / "0" / "glyph-004.png"
    # What is imported on first use must be there before another user runs, who may not read where it lies.
    settings = (
        f"data.name=other privacy.ledger={work.folder}/other/ledger performance.cache={work.folder}/other/cache"
    ).split()
    elsewhere = [word for setting in settings for word in ("--set", setting)]
    assert work("run", "job.toml", "--out", work.folder / "first", *elsewhere).code == 0
    monkeypatch.setenv("PRIVOLVE_STATE", str(work.folder / "experiments" / "state"))
    hidden.chmod(0)
    with nobody():
        outcome = work("run", "job.toml", "--out", "experiments/run")
    assert outcome.code == 3
    assert "could not be opened or read (EACCES)" in outcome.line
    assert "glyph-004" not in outcome.out + outcome.err
    assert "glyph-004" in (work.folder / "experiments" / "run" / "private" / "log.txt").read_text()
    hidden.chmod(0o644)
    with nobody():
        assert work("run", "job.toml", "--out", "experiments/run").code == 0


def test_out_that_is_a_file_or_holds_something_else_is_refused(work) -> None:
    work.job()
    (work.folder / "file").write_text("mine")
    (work.folder / "folder").mkdir()
    (work.folder / "folder" / "mine").write_text("mine")
    for name in ("file", "folder"):
        outcome = work("run", "job.toml", "--out", name)
        assert outcome.code == 2
        assert "name another" in outcome.line
    assert (work.folder / "folder" / "mine").read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_a_damaged_run_is_said_in_a_line_and_stays_as_it_is(work, content: bytes) -> None:
    work.job()
    (work.folder / "run").mkdir()
    (work.folder / "run" / "run.json").write_bytes(content)
    outcome = work("run", "job.toml", "--out", "run")
    assert outcome.code == 2
    assert "run.json: damaged; restore it, or start a new run with another --out" in outcome.line
    assert (work.folder / "run" / "run.json").read_bytes() == content


def test_a_damaged_run_among_others_does_not_keep_a_job_from_running(work) -> None:
    work.job(evolution="{ iterations = 1, count = 4, variations = 1 }")
    assert work("run", "job.toml").code == 0
    (run,) = work.runs
    (run / "run.json").write_bytes(b"")
    outcome = work("run", "job.toml")
    assert outcome.code == 2
    assert str(run.relative_to(work.folder)) in outcome.line


def test_a_cache_of_a_newer_version_is_refused(work) -> None:
    work.job("dpiti")
    (work.folder / "cache").mkdir()
    database = sqlite3.connect(work.folder / "cache" / "answers.db")
    database.execute("create table x (y)")
    database.execute(f"pragma application_id = {0x50564C43}")
    database.execute("pragma user_version = 99")
    database.close()
    outcome = work("run", "job.toml", "--set", "performance.cache=cache", "--out", "run")
    assert outcome.code == 2
    assert "was written by a newer privolve" in outcome.line
    outcome = work("run", "job.toml", "--set", "performance.cache=other", "--out", "run")
    assert (outcome.code, outcome.err) == (0, "")


def test_a_cache_that_is_none_is_refused(work) -> None:
    work.job("dpiti")
    (work.folder / "cache").mkdir()
    (work.folder / "cache" / "answers.db").write_bytes(b"something else" * 100)
    outcome = work("run", "job.toml", "--set", "performance.cache=cache")
    assert outcome.code == 2
    assert "answers.db" in outcome.line
    (work.folder / "file").write_text("")
    outcome = work("run", "job.toml", "--set", "performance.cache=file")
    assert outcome.code == 2
    assert "file" in outcome.line


def test_a_threshold_that_empties_a_class_says_so(work) -> None:
    work.job(evolution="{ iterations = 1, count = 4, variations = 1, threshold = 1000000.0 }")
    outcome = work("run", "job.toml")
    assert outcome.code == 2
    assert "is above the threshold 1e+06" in outcome.line
    assert "Lower the threshold" in outcome.line


def test_text_for_an_image_job_is_refused(work) -> None:
    (work.folder / "captions.csv").write_text("text,label\na,0\nb,1\n")
    table = '{ kind = "csv", path = "captions.csv", classes = ["0", "1"], label_column = "label" }'
    for kind, said in (("image-pe", "image-pe needs images"), ("dpiti", "image voting compares images")):
        work.job(kind, data=table)
        for command in ("plan", "run"):
            outcome = work(command, "job.toml")
            assert outcome.code == 2
            assert said in outcome.line


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04" + bytes(100), b"\x93NUMPY" + bytes(50), np.zeros(5).tobytes(), struct.pack(">I", 2051)],
)
def test_a_container_that_is_none_is_said_in_a_line(work, content: bytes) -> None:
    (work.folder / "set.npz").write_bytes(content)
    work.job(data='{ kind = "npz", path = "set.npz", classes = ["0", "1"], size = [8, 8], channels = 1 }')
    outcome = work("run", "job.toml")
    assert outcome.code == 2
    assert "set.npz" in outcome.line


@pytest.mark.parametrize(
    "classes",
    [("0/", "1"), ("0:*?", "1 1"), ("..", "."), (".0", "-1"), ("zéro 0", "один 1"), ("0" * 300, "1\n\t")],
)
def test_classes_of_odd_characters_end_in_safe_file_names(work, classes: tuple[str, str]) -> None:
    """The names differ from the private folders', so that every record is a ghost: which changes nothing either."""
    import json

    names = ", ".join(json.dumps(name) for name in classes)
    prompts = ", ".join(f"{json.dumps(name)} = '{number}'" for number, name in enumerate(classes))
    work.job(
        data=data(classes=f"[{names}]"),
        evolution=f"{{ iterations = 1, count = 4, variations = 1, prompts = {{ {prompts} }} }}",
    )
    outcome = work("run", "job.toml", "--out", "run")
    assert (outcome.code, outcome.err) == (0, "")
    images = sorted(path.name for path in (work.folder / "run" / "release" / "images").iterdir())
    assert len(images) == 4
    assert not any(name.startswith(".") or len(name.encode()) > 160 for name in images)
    assert work("verify", "run").code == 0


def test_paths_may_hold_any_character(work) -> None:
    place = work.folder / "Дані — “x” ☂ [a]*"
    place.mkdir()
    shutil.move(work.folder / "data", place / "data")
    path = work.job(evolution="{ iterations = 1, count = 4, variations = 1 }")
    path.rename(place / "job [1].toml")
    outcome = work("run", place / "job [1].toml", "--out", place / "run ü")
    assert (outcome.code, outcome.err) == (0, "")
    assert work("verify", place / "run ü").code == 0
    assert work("export", place / "run ü", place / "öffentlich").code == 0
    assert work("run", place / "job [1].toml").code == 0
    assert "is finished" in work("run", place / "job [1].toml").out
