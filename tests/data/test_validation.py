"""The validation partition: which slots are set aside, and that they are nowhere else."""

from __future__ import annotations

import math

import numpy as np
import pytest

from privolve.data.digits import DigitsConfig
from privolve.data.errors import Undeclared
from privolve.data.slots import partition
from privolve.data.validation import validation_split
from privolve.privacy.private import open_private


def test_the_slots_are_a_function_of_the_ids_alone_and_of_no_order() -> None:
    ids = [f"image-{n:04}.png" for n in range(500)]
    train, validate = validation_split(ids, share=0.2, where="here")
    assert len(validate) == 100 and sorted(train + validate) == list(range(500))
    assert validate != list(range(100)) and train == sorted(train)
    backwards = validation_split(ids[::-1], share=0.2, where="here")[1]
    assert {ids[::-1][slot] for slot in backwards} == {ids[slot] for slot in validate}


def test_the_slots_are_picked_independently_of_the_held_out_ones() -> None:
    ids = [str(n) for n in range(4000)]
    held_out = set(partition(ids, slots=None, holdout=0.5, where="here")[1])
    validate = validation_split(ids, share=0.5, where="here")[1]
    assert abs(len(held_out & set(validate)) - 1000) < 6.5 * math.sqrt(4000 * 0.25 * 0.75)


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
def test_a_share_that_leaves_a_partition_empty_is_refused(share: float) -> None:
    with pytest.raises(Undeclared, match="without slots"):
        validation_split(["a", "b", "c"], share=share, where="here")


def ids(part) -> list[str]:
    return list(open_private(part.records).ids)


def test_train_and_validation_are_disjoint_and_together_what_the_ledger_knows() -> None:
    plain, split = DigitsConfig().load(), DigitsConfig().load(validation=0.1)
    assert split.validation is not None and split.whole is not None
    assert split.validation.partition == "validation" and split.train.partition == "train"
    assert not set(ids(split.train)) & set(ids(split.validation))
    assert sorted([*ids(split.train), *ids(split.validation)]) == sorted(ids(plain.train))
    assert (split.train.count, split.validation.count) == (len(ids(split.train)), len(ids(split.validation)))
    assert split.validation.count == int(0.1 * plain.train.count)
    assert split.registered.count == plain.registered.count == plain.train.count
    assert ids(split.registered) == ids(plain.registered)
    assert plain.test is not None and split.test is not None and ids(split.test) == ids(plain.test)


def test_a_record_is_the_same_in_whichever_partition_it_lies() -> None:
    whole, split = DigitsConfig().load().train, DigitsConfig().load(validation=0.25)
    known = dict(zip(ids(whole), open_private(whole.records).read_many(0, whole.count), strict=True))
    for part in (split.train, split.validation):
        assert part is not None
        for slot, record in zip(ids(part), open_private(part.records).read_many(0, part.count), strict=True):
            before = known[slot]
            assert record is not None and before is not None
            assert record.label == before.label
            assert np.array_equal(np.asarray(record.content), np.asarray(before.content))


def test_rows_kept_of_one_split_are_not_taken_for_those_of_another() -> None:
    splits = [DigitsConfig().load(), DigitsConfig().load(validation=0.1), DigitsConfig().load(validation=0.2)]
    assert len({split.train.declaration for split in splits}) == 3
    assert len({split.registered.declaration for split in splits}) == 1
