"""Label shares: every candidate is given to a class, and no class goes without a word."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privolve.pe_engine import shares


def test_counts_are_rounded_down_and_the_rest_goes_to_the_largest_remainders() -> None:
    assert shares.apportion(10, np.array([0.34, 0.33, 0.33]), ["a", "b", "c"]) == (4, 3, 3)
    assert shares.apportion(11, np.array([0.28, 0.31, 0.41]), ["a", "b", "c"]) == (3, 3, 5)
    assert shares.apportion(5, shares.uniform(3), ["a", "b", "c"]) == (2, 2, 1)


@given(weights=st.lists(st.floats(0.01, 1), min_size=1, max_size=12), total=st.integers(100, 5000))
def test_counts_add_up_and_are_within_one_of_their_share(weights: list[float], total: int) -> None:
    fractions = np.array(weights) / sum(weights)
    try:
        counts = np.array(shares.apportion(total, fractions, [str(i) for i in range(len(weights))]))
    except ValueError:
        assert (fractions * total < 1).any()
        return
    assert counts.sum() == total
    assert (np.abs(counts - fractions * total) < 1 + 1e-9).all()


def test_a_class_that_would_get_nothing_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match=r"10 candidates leave none for \['rare'\]"):
        shares.apportion(10, np.array([0.99, 0.01]), ["common", "rare"])


def test_declared_shares_name_every_class_and_no_other() -> None:
    assert shares.declared({"a": 1, "b": 3}, ["b", "a"]).tolist() == [0.75, 0.25]
    with pytest.raises(ValueError, match=r"lack \['b'\]"):
        shares.declared({"a": 1}, ["a", "b"])
    with pytest.raises(ValueError, match=r"name \['c'\], which are no classes"):
        shares.declared({"a": 1, "c": 1}, ["a"])
    with pytest.raises(ValueError, match="at least 0"):
        shares.declared({"a": -1, "b": 1}, ["a", "b"])


def test_released_counts_become_shares_and_negative_noise_counts_as_none() -> None:
    assert shares.released(np.array([30, -4, 10])).tolist() == [0.75, 0.0, 0.25]
    assert shares.released(np.array([-1, 0])).tolist() == [0.5, 0.5]


def test_a_class_that_noise_left_without_a_share_still_gets_a_candidate() -> None:
    floored = shares.with_floor(shares.released(np.array([1000, -4, 0])), 30)
    assert shares.apportion(30, floored, ["a", "b", "c"]) == (28, 1, 1)
    with pytest.raises(ValueError, match="raise `count`"):
        shares.with_floor(np.array([0.5, 0.5]), 1)
