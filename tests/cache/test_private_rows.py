from __future__ import annotations

import errno
import os
import stat

import numpy as np
import pytest

from privolve.cache.private_rows import MemoryRows, PrivateRows, RowsBusy

BOUND = b"a keyed digest"


def file_rows(folder, *, slots=10, row_bytes=6, binding=BOUND) -> PrivateRows:
    return PrivateRows(folder / "private" / "a.rows", slots=slots, row_bytes=row_bytes, binding=binding)


@pytest.fixture(params=["memory", "file"])
def rows(request, tmp_path):
    opened = MemoryRows(slots=10, row_bytes=6) if request.param == "memory" else file_rows(tmp_path)
    yield opened
    opened.close()


def write(rows, slots, value=7, valid=True) -> None:
    slots = np.array(slots, dtype=np.int64)
    payload = (slots[:, None] + np.full((len(slots), 6), value)).astype(np.uint8)
    rows.write(slots, payload, slots * 10, np.full(len(slots), valid))


def test_a_row_lies_at_its_slot_in_whatever_order_it_came(rows):
    write(rows, [4, 5, 9])
    write(rows, [0], valid=False)
    columns = rows.columns()
    assert rows.done().nonzero()[0].tolist() == [0, 4, 5, 9]
    assert columns.payload[:, 0].tolist() == [7, 0, 0, 0, 11, 12, 0, 0, 0, 16]
    assert columns.labels[[4, 5, 9]].tolist() == [40, 50, 90]
    assert columns.valid.nonzero()[0].tolist() == [4, 5, 9]


def test_columns_stay_readable_and_cannot_be_written(rows):
    write(rows, range(10))
    columns = rows.columns()
    rows.close()
    assert columns.payload.shape == (10, 6)
    assert columns.payload[9, 5] == 16
    for column in (columns.payload, columns.labels, columns.valid):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 0


def test_rows_are_gone_on_with_after_the_process(tmp_path):
    first = file_rows(tmp_path)
    write(first, [1, 2])
    first.close()
    again = file_rows(tmp_path)
    assert again.done().nonzero()[0].tolist() == [1, 2]
    assert again.columns().payload[2, 0] == 9


@pytest.mark.parametrize(
    "other", [{"slots": 11}, {"row_bytes": 7}, {"binding": b"another"}, {"slots": 6, "row_bytes": 10}]
)
def test_rows_under_another_binding_are_made_anew(tmp_path, other):
    first = file_rows(tmp_path)
    write(first, range(10))
    kept = first.columns()
    first.close()
    again = file_rows(tmp_path, **other)
    assert not again.done().any()
    assert not again.columns().payload.any()
    assert kept.payload[9, 0] == 16
    assert [path.name for path in (tmp_path / "private").iterdir()] == ["a.rows"]


def test_a_truncated_file_is_made_anew(tmp_path):
    first = file_rows(tmp_path)
    write(first, range(10))
    first.close()
    path = tmp_path / "private" / "a.rows"
    os.truncate(path, path.stat().st_size - 1)
    assert not file_rows(tmp_path).done().any()


def test_only_the_owner_can_read_rows(tmp_path):
    (tmp_path / "private").mkdir(mode=0o755)
    before = os.umask(0)
    try:
        file_rows(tmp_path).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o700
    path = tmp_path / "private" / "a.rows"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    file_rows(tmp_path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_in_the_place_of_rows_is_refused(tmp_path):
    (tmp_path / "private").mkdir()
    (tmp_path / "elsewhere").write_bytes(b"precious")
    (tmp_path / "private" / "a.rows").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        file_rows(tmp_path)
    assert (tmp_path / "elsewhere").read_bytes() == b"precious"


def test_one_process_at_a_time_writes_rows(tmp_path):
    first = file_rows(tmp_path)
    with pytest.raises(RowsBusy):
        file_rows(tmp_path)
    with pytest.raises(RowsBusy):
        file_rows(tmp_path, binding=b"another")
    write(first, [3])
    first.close()
    assert file_rows(tmp_path).done()[3]


def test_a_slot_is_not_done_if_its_row_could_not_be_written(tmp_path, monkeypatch):
    rows = file_rows(tmp_path)
    write(rows, [0])

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            write(rows, [1])
    assert rows.done().nonzero()[0].tolist() == [0]
    write(rows, [1])
    assert rows.done().nonzero()[0].tolist() == [0, 1]


def test_the_size_of_the_file_depends_on_public_numbers_alone(tmp_path):
    rows = file_rows(tmp_path)
    path = tmp_path / "private" / "a.rows"
    before = path.stat().st_size
    write(rows, range(10), valid=False)
    assert path.stat().st_size == before
