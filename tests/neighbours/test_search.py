"""Exact neighbours: every backend gives what comparing all pairs in float64 gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from privolve.neighbours import Distance, Index, reference, search
from privolve.neighbours import index as index_module
from privolve.neighbours.points import exact, usable
from privolve.neighbours.scans import NumpyScan

DISTANCES = list(Distance)
BACKENDS = ["numpy", "faiss", "torch"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    if request.param != "numpy":
        pytest.importorskip(request.param)
    return request.param


def by_all_pairs(queries: np.ndarray, database: np.ndarray, k: int, distance: Distance) -> np.ndarray:
    """The definition: order the usable rows by (float64 reference, index), for one query at a time."""
    good = np.flatnonzero(usable(database, distance))
    points = exact(database[good], distance)
    found = np.full((len(queries), k), -1, dtype=np.int64)
    for row in np.flatnonzero(usable(queries, distance)):
        query = exact(queries[row : row + 1], distance)
        near = reference(np.repeat(query, len(good), axis=0), points, distance)
        found[row] = good[np.lexsort((good, near))[:k]]
    return found


def hard_cases() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(5)

    def normal(rows: int, dimensions: int) -> np.ndarray:
        return rng.standard_normal((rows, dimensions), dtype=np.float32)

    far = np.float32(3000)
    lattice = rng.integers(0, 3, (90, 6)).astype(np.float32)
    wide = normal(70, 9) * np.exp2(rng.integers(-60, 60, (70, 1))).astype(np.float32)
    wide_queries = normal(40, 9) * np.exp2(rng.integers(-60, 60, (40, 1))).astype(np.float32)
    crowd = np.float32(1) + np.float32(1e-6) * normal(80, 12)
    holes, questions = normal(60, 8), normal(50, 8)
    holes[[0, 7, 8]] = np.nan
    holes[9, 3] = np.inf
    holes[11] = 0
    questions[[0, 4]] = np.nan
    questions[5, 1] = -np.inf
    questions[6] = 0
    extreme = np.array([[3e38, -3e38], [-3e38, 3e38], [1e-45, 0], [0, 1e-45], [0, 0], [1, 1]], dtype=np.float32)
    return {
        "normal": (normal(200, 24), normal(150, 24)),
        "far from zero": (normal(60, 30) + far, normal(90, 30) + far),
        "lattice with ties": (rng.integers(0, 3, (80, 6)).astype(np.float32), lattice),
        "half-way": (lattice[:40] + np.float32(0.5), lattice),
        "duplicates": (normal(50, 5), np.repeat(normal(9, 5), 8, axis=0)[rng.permutation(72)]),
        "one point many times": (normal(20, 4), np.ones((30, 4), dtype=np.float32)),
        "wide scales": (wide_queries, wide),
        "a crowd": (crowd[:30] + np.float32(1e-7), crowd),
        "queries in the database": (holes[20:50], holes),
        "not all finite": (questions, holes),
        "extreme": (extreme, extreme),
        "tiny": (normal(20, 4) * np.float32(1e-42), normal(30, 4) * np.float32(1e-42)),
        "huge": (normal(20, 4) * np.float32(5e37), normal(30, 4) * np.float32(5e37)),
        "one dimension": (normal(60, 1), normal(40, 1)),
        "signed zeros": (
            normal(9, 3),
            np.array([[0.0, -0.0, 0], [-0.0, 0, 0], [1, 0, 0], [0, 0, -0.0]], dtype=np.float32),
        ),
    }


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("case", hard_cases())
def test_every_backend_finds_what_all_pairs_in_float64_give(case: str, distance: Distance, backend: str) -> None:
    queries, database = hard_cases()[case]
    candidates = int(usable(database, distance).sum())
    for k in sorted({1, 2, min(5, candidates), min(12, candidates), candidates} & set(range(1, candidates + 1))):
        found = search(queries, database, k=k, distance=distance, backend=backend)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, by_all_pairs(queries, database, k, distance), err_msg=f"{case}, k = {k}")


floats = st.floats(width=32, allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-30, 1e30])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_floats_at_all_are_searched_as_all_pairs_would(data: st.DataObject) -> None:
    dimensions = data.draw(st.integers(1, 4))
    distance = data.draw(st.sampled_from(DISTANCES))
    queries = data.draw(arrays.arrays(np.float32, (data.draw(st.integers(0, 6)), dimensions), elements=floats))
    database = data.draw(arrays.arrays(np.float32, (data.draw(st.integers(1, 8)), dimensions), elements=floats))
    candidates = int(usable(database, distance).sum())
    if candidates == 0:
        with pytest.raises(ValueError, match="candidates"):
            search(queries, database, distance=distance)
        return
    k = data.draw(st.integers(1, candidates))
    found = search(queries, database, k=k, distance=distance, backend="numpy")
    np.testing.assert_array_equal(found, by_all_pairs(queries, database, k, distance))


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_result_does_not_depend_on_blocks_batch_or_threads(
    distance: Distance, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, database = hard_cases()["lattice with ties"]
    queries = np.concatenate([queries] * 3)
    whole = search(queries, database, k=4, distance=distance, backend="numpy")
    one_by_one = [
        search(queries[i : i + 1], database, k=4, distance=distance, backend="numpy")[0] for i in range(len(queries))
    ]
    np.testing.assert_array_equal(whole, one_by_one)
    monkeypatch.setattr(NumpyScan, "rows", 7)
    monkeypatch.setattr(NumpyScan, "tile", 11)
    monkeypatch.setattr(index_module, "settled_rows", lambda candidates: 3)
    monkeypatch.setattr(index_module, "SETTLED_TILE", 13)
    monkeypatch.setattr(index_module, "PREPARED_ROWS", 5)
    monkeypatch.setattr(index_module, "reference_pairs", lambda dimensions: 2)
    monkeypatch.setattr(index_module, "_blas_threads", lambda: 3)
    np.testing.assert_array_equal(search(queries, database, k=4, distance=distance, backend="numpy"), whole)


def test_a_row_that_leaves_or_changes_moves_no_other_rows_neighbour(backend: str) -> None:
    rng = np.random.default_rng(3)
    database = rng.standard_normal((300, 16), dtype=np.float32)
    queries = database[rng.integers(0, 300, 700)] / 2 + database[rng.integers(0, 300, 700)] / 2
    before = search(queries, database, k=2, backend=backend)
    for other in (np.zeros(16), np.full(16, np.nan), np.full(16, 1e30)):
        changed = queries.copy()
        changed[350] = other
        after = search(changed, database, k=2, backend=backend)
        np.testing.assert_array_equal(np.delete(after, 350, axis=0), np.delete(before, 350, axis=0))
    np.testing.assert_array_equal(
        search(np.delete(queries, 350, axis=0), database, k=2, backend=backend), np.delete(before, 350, axis=0)
    )


def test_equal_distances_go_to_the_lowest_index(backend: str) -> None:
    database = np.float32([[2, 0], [0, 1], [-1, 0], [0, 1], [1, 0]])
    assert search(np.float32([[0, 0]]), database, k=4, backend=backend).tolist() == [[1, 2, 3, 4]]


def test_a_candidate_in_the_same_place_never_takes_a_vote_from_the_first(backend: str) -> None:
    point = np.float32([[0.1, 0.2, 0.7]])
    found = search(point * 1.5, np.repeat(point, 40, axis=0), backend=backend)
    assert found.tolist() == [[0]]


def test_more_neighbours_than_candidates_is_an_error(backend: str) -> None:
    database = np.float32([[0], [1], [np.nan]])
    with pytest.raises(ValueError, match="3 neighbours were asked of 2 candidates"):
        search(np.float32([[0]]), database, k=3, backend=backend)
    with pytest.raises(ValueError, match="0 neighbours"):
        search(np.float32([[0]]), database, k=0, backend=backend)


def test_no_queries_find_no_neighbours(backend: str) -> None:
    assert search(np.empty((0, 2), np.float32), np.float32([[0, 1]]), backend=backend).shape == (0, 1)


def test_unknown_names_and_shapes_are_errors_that_list_the_known() -> None:
    one = np.float32([[1]])
    with pytest.raises(ValueError, match="unknown distance 'hamming'; known: l2, cosine, inner-product"):
        search(one, one, distance="hamming")
    with pytest.raises(ValueError, match="unknown backend 'annoy'; known: auto, numpy, faiss, torch"):
        search(one, one, backend="annoy")
    with pytest.raises(ValueError, match="1 dimensions and the database 2"):
        search(one, np.float32([[1, 2]]))
    with pytest.raises(ValueError, match="must be floats"):
        search(np.array([[1]]), one)


def test_a_backend_that_cannot_be_loaded_is_an_error_only_when_asked_for_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import builtins

    really = builtins.__import__

    def broken(name: str, *rest: object, **more: object) -> object:
        if name == "faiss":
            raise RuntimeError("libcudart.so.12: cannot open shared object file")
        return really(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", broken)
    one = np.float32([[1]])
    assert search(one, one, backend="auto").tolist() == [[0]]
    with pytest.raises(ValueError, match=r"'faiss' cannot be loaded .*privolve\[faiss\]"):
        search(one, one, backend="faiss")


def test_torch_searches_in_full_precision_whatever_the_caller_set() -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_float32_matmul_precision()
    queries, database = hard_cases()["normal"]
    try:
        torch.set_float32_matmul_precision("medium")
        found = search(queries, database, backend="torch")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_array_equal(found, by_all_pairs(queries, database, 1, Distance.L2))


def test_an_index_answers_many_searches() -> None:
    queries, database = hard_cases()["not all finite"]
    index = Index(database)
    assert index.candidates == int(usable(database, Distance.L2).sum())
    np.testing.assert_array_equal(index.search(queries, k=3), search(queries, database, k=3))
    np.testing.assert_array_equal(index.search(queries[:7]), search(queries, database)[:7])
