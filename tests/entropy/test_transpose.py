"""Tiles moved through registers, and the row kernels, against NumPy indexing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemcodecs.entropy.kernels.transpose import gather_rows, plane_statistics, scatter_rows

Array = np.ndarray[Any, Any]
GUARD = 12345


@st.composite
def groups(draw: st.DrawFn) -> tuple[Array, Array, int]:
    """A plane of counts, the positions of 64 lanes, and a first row."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([np.uint8, np.uint16]))
    n_pixels = draw(st.sampled_from([1, 7, 31, 32, 33, 64, 95, 2048, 2079, 4100]))
    n_positions = draw(st.integers(1, 80))
    plane = random.integers(0, np.iinfo(dtype).max + 1, (n_positions, n_pixels)).astype(dtype)
    positions = np.full(64, -1, np.int64)
    chosen = random.permutation(n_positions)[:64]
    lanes = np.arange(64) if draw(st.booleans()) else random.permutation(64)
    positions[lanes[: chosen.size]] = chosen
    return plane, positions, draw(st.integers(0, 5))


@pytest.mark.slow
@settings(max_examples=100)
@given(group=groups())
def test_gather(group: tuple[Array, Array, int]) -> None:
    plane, positions, origin = group
    n = plane.shape[1]
    rows = np.full((origin + n + 3, 64), GUARD, np.uint16)
    gather_rows(plane, positions, rows, origin, 0, plane.shape[1])
    expected = np.where(positions >= 0, plane[np.maximum(positions, 0)].T, 0)
    assert np.array_equal(rows[origin : origin + n], expected)
    assert (rows[:origin] == GUARD).all()
    assert (rows[origin + n :] == GUARD).all()


@pytest.mark.slow
@settings(max_examples=100)
@given(group=groups())
def test_scatter(group: tuple[Array, Array, int]) -> None:
    plane, positions, origin = group
    n = plane.shape[1]
    rows = np.random.default_rng(n).integers(0, np.iinfo(plane.dtype).max + 1, (origin + n + 3, 64)).astype(np.uint16)
    expected = plane.copy()
    held = positions >= 0
    expected[positions[held]] = rows[origin : origin + n].T[held]
    guarded = np.full((plane.shape[0] + 2, n), 77, plane.dtype)
    guarded[1:-1] = plane
    scatter_rows(rows, origin, positions, guarded[1:-1])
    assert np.array_equal(guarded[1:-1], expected)
    assert (guarded[[0, -1]] == 77).all()


@settings(max_examples=50)
@given(data=st.data())
def test_statistics(data: st.DataObject) -> None:
    n_positions, n = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 90))
    dtype = data.draw(st.sampled_from([np.uint8, np.uint16]))
    plane = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 256, (n_positions, n)).astype(dtype)
    cut = data.draw(st.integers(0, n))
    total, low, high = np.ones(n, np.int64), np.full(n, 65535, np.uint16), np.zeros(n, np.uint16)
    of_position = np.zeros(n_positions, np.int64)
    for first, last in ((0, cut), (cut, n)):
        plane_statistics(plane, first, last, total, low, high, of_position)
    values = plane.astype(np.int64)
    assert np.array_equal(total, values.sum(axis=0) + 1)
    assert np.array_equal(low, values.min(axis=0))
    assert np.array_equal(high, values.max(axis=0))
    assert np.array_equal(of_position, values.sum(axis=1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_largest_values_do_not_wrap(dtype: Any) -> None:
    plane = np.full((66_000, 3), np.iinfo(dtype).max, dtype)
    total, low, high = np.zeros(3, np.int64), np.full(3, 65535, np.uint16), np.zeros(3, np.uint16)
    of_position = np.zeros(66_000, np.int64)
    plane_statistics(plane, 0, 3, total, low, high, of_position)
    assert (total == 66_000 * int(np.iinfo(dtype).max)).all()
    assert (of_position == 3 * int(np.iinfo(dtype).max)).all()
