from __future__ import annotations

import numpy as np
import pytest

from privolve.data.digits import DigitsConfig
from privolve.data.errors import DataError


def test_the_digits_need_no_declaration_and_hold_out_a_public_test_part(records) -> None:
    split = DigitsConfig().load()
    assert split.test is not None and split.test_is_public
    assert (split.train.count, split.test.count) == (1438, 359)
    assert (split.train.name, split.train.size, split.train.channels) == ("digits", (8, 8), 1)
    voters, tests = records(split.train), records(split.test)
    assert not set(voters.ids) & set(tests.ids)
    read = voters.read_many(0, 1438)
    assert all(record is not None and record.content.shape == (8, 8, 1) for record in read)
    pixels = np.stack([record.content for record in read])
    assert pixels.dtype == np.uint8 and pixels.max() == 255 and pixels.min() == 0
    counts = np.bincount([record.label for record in read], minlength=10)
    assert counts.min() > 120


def test_digits_of_some_classes_leave_the_others_as_ghosts(records) -> None:
    split = DigitsConfig(classes=("3", "8")).load()
    labels = [None if record is None else record.label for record in records(split.train).read_many(0, 1438)]
    assert split.train.count == 1438 and 100 < labels.count(0) < 200 and labels.count(None) > 1000


def test_digits_can_be_scaled(records) -> None:
    split = DigitsConfig(size=(28, 28), channels=3, resize="fit").load()
    assert records(split.test).read(0).content.shape == (28, 28, 3)
    with pytest.raises(DataError, match="is declared"):
        DigitsConfig(size=(28, 28)).load()


def test_the_digits_propose_themselves() -> None:
    assert DigitsConfig().propose()["count"] == 1438
