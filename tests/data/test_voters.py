from __future__ import annotations

import pickle

import numpy as np
import pytest

from privolve.data.voters import Voters


def voters(**changes: np.ndarray) -> Voters:
    parts = {
        "embeddings": np.arange(6, dtype=np.float32).reshape(3, 2),
        "labels": np.array([0, -1, 1]),
        "valid": np.array([True, False, True]),
    }
    return Voters(**{**parts, **changes})


def test_the_parts_of_voters_differ_in_the_changed_slot_alone() -> None:
    moved = np.arange(6, dtype=np.float32).reshape(3, 2)
    moved[2, 1] = 9
    before, after = list(voters().parts()), list(voters(embeddings=moved).parts())
    assert before[:2] == after[:2] and before[2] != after[2]
    assert list(voters(valid=np.array([True, False, False])).parts())[2] != before[2]
    assert next(voters(units=np.array([5, 6, 7])).parts()) != before[0]


def test_voters_are_neither_shown_nor_pickled() -> None:
    assert repr(voters()) == "Voters(...)"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(voters())


@pytest.mark.parametrize(
    "wrong",
    [
        {"embeddings": np.zeros((3, 2))},
        {"labels": np.zeros(2, dtype=np.int64)},
        {"labels": np.zeros(3, dtype=np.int32)},
        {"valid": np.zeros(3, dtype=np.int64)},
        {"units": np.zeros(4, dtype=np.int64)},
    ],
)
def test_voters_of_another_shape_or_type_are_refused(wrong: dict[str, np.ndarray]) -> None:
    with pytest.raises(TypeError, match="one row a slot"):
        voters(**wrong)
