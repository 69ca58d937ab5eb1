"""Slots, ghosts, partitions: the same for every source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from privolve.data.config import DataConfig
from privolve.data.errors import DataError, Undeclared
from privolve.data.private_set import Record
from privolve.data.slots import Listing, SlotRecords, Unusable, partition

IDS = [f"row/{row}" for row in range(1000)]


class Scripted:
    """A source whose slots in `broken` are ghosts."""

    def __init__(self, count: int, broken: frozenset[int] = frozenset()) -> None:
        self.ids = IDS[:count]
        self._broken = broken

    def read(self, rows: Sequence[int]) -> Sequence[Record | Unusable]:
        return [Unusable("it is broken") if row in self._broken else Record(f"text {row}", 0) for row in rows]

    def raw(self, row: int) -> bytes:
        return b"" if row in self._broken else str(row).encode()


class ScriptedConfig(DataConfig):
    kind: str = "scripted"
    broken: frozenset[int] = frozenset()

    def listing(self) -> Listing:
        return Listing(voters=Scripted(200, self.broken))


def test_ghosts_change_neither_the_number_of_slots_nor_the_split(records) -> None:
    whole = ScriptedConfig(classes=("a",), holdout=0.25).load()
    broken = ScriptedConfig(classes=("a",), holdout=0.25, broken=frozenset(range(0, 200, 3))).load()
    for one, other in ((whole.train, broken.train), (whole.test, broken.test)):
        assert one is not None and other is not None
        assert one.count == other.count == len(records(other))
        assert list(records(one).ids) == list(records(other).ids)
    assert whole.train.count == 150


def test_a_ghost_stays_in_its_place_and_leaves_its_neighbours_alone(records) -> None:
    whole = records(ScriptedConfig(classes=("a",)).load().train).read_many(0, 200)
    broken = records(ScriptedConfig(classes=("a",), broken=frozenset({7})).load().train).read_many(0, 200)
    assert broken[7] is None
    assert [*whole[:7], *whole[8:]] == [*broken[:7], *broken[8:]]


def test_reading_many_equals_reading_one_by_one(records) -> None:
    found = records(ScriptedConfig(classes=("a",), holdout=0.5, broken=frozenset({3, 50})).load().train)
    assert list(found.read_many(10, 60)) == [found.read(slot) for slot in range(10, 60)]
    with pytest.raises(IndexError):
        found.read(-1)
    with pytest.raises(IndexError):
        found.raw(len(found))


def test_ghosts_are_named_in_the_private_log_once_and_nowhere_else(records, capfd) -> None:
    lines: list[str] = []
    split = ScriptedConfig(classes=("a",), broken=frozenset({5})).load(private_log=lines.append)
    assert lines == []  # nothing is decoded before it is read
    found = records(split.train)
    found.read_many(0, 200)
    found.read(5)
    assert lines == ["scripted/train: slot 'row/5' is a ghost: it is broken"]
    assert capfd.readouterr() == ("", "")


def test_voters_and_held_out_are_disjoint_sorted_and_of_declared_size() -> None:
    voters, held_out = partition(IDS, slots=None, holdout=0.3, where="")
    assert len(held_out) == 300
    assert sorted([*voters, *held_out]) == list(range(1000))
    assert list(voters) == sorted(voters) and list(held_out) == sorted(held_out)


def test_who_is_held_out_depends_on_the_slot_id_and_on_nothing_else() -> None:
    _, few = partition(IDS, slots=None, holdout=0.1, where="")
    _, more = partition(IDS, slots=None, holdout=0.2, where="")
    assert set(few) < set(more)
    _, shuffled = partition(IDS[::-1], slots=None, holdout=0.1, where="")
    assert {IDS[row] for row in few} == {IDS[::-1][row] for row in shuffled}
    assert few[:5] == [43, 56, 57, 68, 91]  # the key is fixed: another key would be another split of every set


def test_a_range_of_slots_takes_part_alone() -> None:
    voters, held_out = partition(IDS, slots=(100, 300), holdout=0.0, where="")
    assert list(voters) == list(range(100, 300)) and len(held_out) == 0
    voters, held_out = partition(IDS, slots=(100, 300), holdout=0.5, where="")
    assert len(voters) == len(held_out) == 100


@pytest.mark.parametrize(("slots", "holdout"), [((0, 1001), 0.0), (None, 0.0001), ((0, 1), 0.5)])
def test_a_part_without_slots_is_refused(slots: tuple[int, int] | None, holdout: float) -> None:
    with pytest.raises(Undeclared):
        partition(IDS, slots=slots, holdout=holdout, where="here")


def test_a_declared_count_that_the_set_does_not_have_is_refused_in_one_line() -> None:
    assert ScriptedConfig(classes=("a",), count=150, holdout=0.25).load().train.count == 150
    with pytest.raises(DataError, match=r"count = 151 .* holds 150; declare count = 150") as caught:
        ScriptedConfig(classes=("a",), count=151, holdout=0.25).load()
    assert "\n" not in str(caught.value)


def test_classes_must_be_declared() -> None:
    with pytest.raises(DataError, match="declare the classes"):
        ScriptedConfig().load()


@pytest.mark.parametrize(
    "wrong",
    [
        {"classes": ("a", "a")},
        {"classes": ("",)},
        {"slots": (5, 5)},
        {"slots": (-1, 5)},
        {"holdout": 1.0},
        {"holdout": float("nan")},
        {"count": 0},
        {"size": (0, 8)},
        {"channels": 2},
        {"name": "../elsewhere"},
        {"name": ""},
        {"colour": "red"},
    ],
)
def test_wrong_declarations_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ScriptedConfig.model_validate({"classes": ("a",), **wrong})


def test_a_test_part_is_private_until_it_is_declared_public() -> None:
    assert not ScriptedConfig(classes=("a",), holdout=0.5).load().test_is_public
    assert ScriptedConfig(classes=("a",), holdout=0.5, test="public").load().test_is_public
    nothing_held_out = ScriptedConfig(classes=("a",), test="public").load()
    assert nothing_held_out.test is None and not nothing_held_out.test_is_public


def test_a_set_has_the_name_of_its_path_or_of_its_kind() -> None:
    from privolve.data.folder import FolderConfig

    assert ScriptedConfig().name == "scripted"
    assert FolderConfig(path=Path("some/bed rooms.d")).name == "bed-rooms"
    assert FolderConfig(path=Path()).name == "folder"
    assert FolderConfig(path=Path("x"), name="mine").name == "mine"


def test_relative_paths_are_taken_from_the_folder_of_the_job_file() -> None:
    from privolve.data.folder import FolderConfig

    config = FolderConfig(path=Path("rooms"), test_path=Path("/elsewhere/rooms"))
    resolved = config.resolved(Path("/jobs"))
    assert (resolved.path, resolved.test_path, resolved.name) == (
        Path("/jobs/rooms"),
        Path("/elsewhere/rooms"),
        "rooms",
    )


def test_neither_records_nor_their_container_show_what_they_hold() -> None:
    found = SlotRecords(Scripted(3), range(3), where="here")
    assert "text" not in repr(found) + repr(found.read(0)) and "row" not in repr(found)
    assert repr(Record(np.zeros((1, 1, 1), np.uint8), 4)) == "Record()"
