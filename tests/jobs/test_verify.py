"""`verify`, `report` and `export`: a finished run proves its claim, and any changed byte of it is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest


@pytest.fixture
def copied(finished, tmp_path: Path) -> Path:
    """A copy of the finished run to damage."""
    return Path(shutil.copytree(finished[1], tmp_path / "copy"))


def change_one_byte(path: Path, place: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def test_a_good_run_verifies_and_prints_its_claim(finished) -> None:
    work, run = finished
    outcome = work("verify", run)
    assert (outcome.code, outcome.err) == (0, "")
    assert "satisfies (20, 1e-05)-DP" in " ".join(outcome.out.split())


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    "name",
    [
        "release/ledger.jsonl",
        "release/privacy.json",
        "release/privacy.txt",
        "release/images.sha256",
        "release/samples.npz",
        "release/samples.jsonl",
        "release/scores.json",
        "release/lineages.npz",
        "iterations/001/histogram.npy",
        "iterations/002/selected.npy",
        "iterations/000/population.jsonl",
        "iterations/000/images.npz",
    ],
)
def test_one_changed_byte_is_found_and_its_file_named(finished, copied: Path, name: str, place: float) -> None:
    change_one_byte(copied / name, place)
    outcome = finished[0]("verify", copied)
    assert (outcome.code, outcome.err) == (1, "")
    assert f"does not hold: {name}" in outcome.out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("release/ledger.jsonl", "release/ledger.jsonl"),
        ("release/privacy.json", "release/privacy.json"),
        ("release/privacy.txt", "release/privacy.txt"),
        ("iterations/001/histogram.npy", "iterations/001/histogram.npy"),
        ("release/images.sha256", "release/images.sha256"),
        ("release/images", "release/images/"),
    ],
)
def test_a_missing_file_is_named(finished, copied: Path, name: str, said: str) -> None:
    shutil.rmtree(copied / name) if (copied / name).is_dir() else (copied / name).unlink()
    outcome = finished[0]("verify", copied)
    assert (outcome.code, outcome.err) == (1, "")
    assert f"does not hold: {said}" in outcome.out


def test_a_changed_image_is_named(finished, copied: Path) -> None:
    image = min((copied / "release" / "images").iterdir())
    change_one_byte(image)
    outcome = finished[0]("verify", copied)
    assert outcome.code == 1
    assert f"release/images/{image.name} was changed" in outcome.out


@pytest.mark.parametrize(
    "name", ["release/images/0_999999.png", "release/label_counts.json", "iterations/003/histogram.npy"]
)
def test_a_file_that_was_added_is_named(finished, copied: Path, name: str) -> None:
    (copied / name).parent.mkdir(exist_ok=True)
    (copied / name).write_bytes(b"added")
    outcome = finished[0]("verify", copied)
    assert outcome.code == 1
    assert f"does not hold: {name}" in outcome.out


def test_lines_cannot_be_taken_off_the_end_of_the_chain(finished, copied: Path) -> None:
    chain = copied / "release" / "ledger.jsonl"
    chain.write_bytes(b"".join(chain.read_bytes().splitlines(keepends=True)[:-1]))
    outcome = finished[0]("verify", copied)
    assert outcome.code == 1
    assert "does not hold: release/ledger.jsonl" in outcome.out


def test_a_smaller_epsilon_cannot_be_written_into_the_certificate(finished, copied: Path) -> None:
    path = copied / "release" / "privacy.json"
    document = json.loads(path.read_text())
    document["epsilon"] = 1.0
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    assert finished[0]("verify", copied).code == 1


def test_what_is_no_run_is_wrong_input(finished, tmp_path: Path) -> None:
    work, _ = finished
    for folder in (tmp_path, tmp_path / "missing"):
        for command in (("verify",), ("report",)):
            outcome = work(*command, folder)
            assert outcome.code == 2
            assert str(folder) in outcome.line
        outcome = work("export", folder, tmp_path / "to")
        assert outcome.code == 2
        assert "run" in outcome.line
        assert not (tmp_path / "to").exists()


def test_a_run_that_is_not_finished_has_nothing_to_verify_export_or_report(finished, copied: Path, tmp_path) -> None:
    work, _ = finished
    manifest = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps({**manifest, "status": "running"}))
    (copied / "release" / "privacy.json").unlink()
    for command in (("verify", copied), ("report", copied), ("export", copied, tmp_path / "to")):
        outcome = work(*command)
        assert outcome.code == 2
        assert "is not finished" in outcome.line


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"status": "finished"}', b"\xff\xfe"])
def test_a_damaged_manifest_is_said_in_a_line(finished, copied: Path, tmp_path: Path, content: bytes) -> None:
    work, _ = finished
    (copied / "run.json").write_bytes(content)
    for command in (("report", copied), ("export", copied, tmp_path / "to"), ("verify", "--ledger", copied)):
        outcome = work(*command)
        assert outcome.code == 2
        assert "damaged" in outcome.line
    assert work("verify", copied).code == 0  # It reads the published files alone.


def test_an_export_holds_the_allowed_files_alone_and_verifies(finished, tmp_path: Path) -> None:
    work, run = finished
    outcome = work("export", run, tmp_path / "public")
    assert (outcome.code, outcome.err) == (0, "")
    exported = {path.relative_to(tmp_path / "public") for path in (tmp_path / "public").rglob("*") if path.is_file()}
    assert (tmp_path / "public" / "exported.json").exists()
    exported -= {Path("exported.json")}
    assert {path.parts[0] for path in exported} == {"release", "iterations"}
    assert outcome.out.startswith(f"{len(exported)} files")
    assert work("verify", tmp_path / "public").code == 0
    change_one_byte(tmp_path / "public" / "iterations" / "002" / "histogram.npy", 1.0)
    outcome = work("verify", tmp_path / "public")
    assert outcome.code == 1
    assert "iterations/002/histogram.npy" in outcome.out


def test_an_export_leaves_out_links_and_what_no_list_allows(finished, copied: Path, tmp_path: Path) -> None:
    work, _ = finished
    (copied / "release" / "notes.txt").write_text("mine")
    (copied / "release" / "images" / "0_link.png").symlink_to(copied / "private" / "report.html")
    (copied / "iterations" / "001" / "votes.npy").write_bytes(b"clean")
    assert work("export", copied, tmp_path / "public").code == 0
    names = {path.name for path in (tmp_path / "public").rglob("*")}
    assert not names & {"notes.txt", "0_link.png", "votes.npy", "run.json", "journal.jsonl", "private"}


def test_an_export_goes_into_a_new_or_empty_folder_only(finished, tmp_path: Path) -> None:
    work, run = finished
    (tmp_path / "kept").write_text("mine")
    outcome = work("export", run, tmp_path)
    assert outcome.code == 2
    assert "is not empty" in outcome.line
    outcome = work("export", run, tmp_path / "kept")
    assert outcome.code == 2
    assert str(tmp_path / "kept") in outcome.line
    assert (tmp_path / "kept").read_text() == "mine"


def test_the_pages_can_be_made_again(finished, copied: Path) -> None:
    work, _ = finished
    pages = [copied / "release" / "report.html", copied / "private" / "report.html"]
    assert work("report", copied).code == 0
    before = [page.read_bytes() for page in pages]
    for page in pages:
        page.unlink()
    outcome = work("report", copied)
    assert (outcome.code, outcome.out.split()) == (0, [str(page) for page in pages])
    assert [page.read_bytes() for page in pages] == before
    assert pages[1].stat().st_mode & 0o777 == 0o600
    assert work("verify", copied).code == 0


def test_a_finished_run_is_not_run_again_but_says_its_claim(finished) -> None:
    work, run = finished
    before = (run / "release" / "ledger.jsonl").read_bytes(), work.entries
    outcome = work("run", "job.toml")
    assert (outcome.code, outcome.err) == (0, "")
    assert "is finished" in outcome.out
    assert "-DP:" in outcome.out
    assert ((run / "release" / "ledger.jsonl").read_bytes(), work.entries) == before


def test_another_seed_is_another_run_that_continues_the_ledger(work) -> None:
    """`verify` speaks as of the run's end, `verify --ledger` as of now."""
    work.job(privacy="{ epsilon = 20.0, total_epsilon = 50.0, total_delta = 1e-3 }")
    assert work("run", "job.toml").code == 0
    (first,) = work.runs
    assert "Left for further runs: (30, 0.00099)" in work("verify", "--ledger", first).out
    assert work("run", "job.toml", "--set", "seed=1").code == 0
    (second,) = set(work.runs) - {first}

    assert "(20, 1e-05)-DP" in work("verify", first).out
    certificate = json.loads((second / "release" / "privacy.json").read_text())
    assert (certificate["epsilon"], len(certificate["runs"])) == (40.0, 2)
    for run in (first, second):
        outcome = work("verify", "--ledger", run)
        assert (outcome.code, outcome.err) == (0, "")
        assert "everything its 2 runs may release together is (40, 2e-05)-DP" in outcome.out
        assert "Left for further runs: (10, 0.00098)" in outcome.out

    # A ledger that was put back to what it was, or is gone, is not the one that the run saw.
    ledger = work.folder / "ledgers" / "data" / "ledger.sqlite"
    ledger.rename(ledger.with_name("kept"))
    outcome = work("verify", "--ledger", second)
    assert outcome.code == 1
    assert "holds no ledger" in outcome.out
    assert work("verify", second).code == 0


def test_an_export_of_what_was_never_certified_is_refused(finished, copied: Path, tmp_path: Path) -> None:
    work, _ = finished
    shutil.copyfile(next((copied / "release" / "images").glob("*.png")), copied / "release" / "images" / "secret.png")
    assert work("export", copied, tmp_path / "public").code == 2
    assert not (tmp_path / "public").exists()


def test_nothing_behind_a_linked_folder_is_exported(finished, copied: Path, tmp_path: Path) -> None:
    work, _ = finished
    (copied / "private" / "histogram.npy").write_bytes(b"clean")
    (copied / "iterations" / "777").symlink_to(copied / "private")
    assert work("export", copied, tmp_path / "public").code == 0
    assert not (tmp_path / "public" / "iterations" / "777").exists()
