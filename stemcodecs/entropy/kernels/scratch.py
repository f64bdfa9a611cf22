"""Large arrays that the coder needs for a moment, lent to whoever codes a group and taken back for the next.

Fresh memory would cost as much time as coding does, and arrays kept by every thread would weigh threads, not groups
in work: a pool of threads starts more of them than it needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from stemcodecs.entropy.kernels.rans import LANES

__all__ = ["SLACK", "give_rows", "lent_output", "lent_rows", "take_rows"]

Array = np.ndarray[Any, Any]
T = TypeVar("T")
Output = tuple[Array, Array, Array]

SLACK = 256
"""Words before and after those of a group."""
KEPT_ROWS = 1 << 30
"""Most bytes of rows that wait for the next group; more are freed. Rows take 8 MB for a detector of 256×256."""
KEPT_OUTPUTS = 4 << 30
"""The same of outputs, in address space: of 59 MB for such a detector, as much is touched as the group takes coded."""
# Appending to a list and taking its last item are atomic, and the last one is the one still in the cache.
_rows: list[Array] = []
_outputs: list[Output] = []


@contextmanager
def lent_rows(n: int) -> Iterator[Array]:
    """Rows of 64 lanes with whatever they held: uint16[>= n, 64]."""
    rows = take_rows(n)
    try:
        yield rows
    finally:
        give_rows(rows)


def take_rows(n: int) -> Array:
    """As :func:`lent_rows`, for whoever does not know when they are given back."""
    rows = _last(_rows)
    return rows if rows is not None and rows.shape[0] >= n else empty_rows(n)


def give_rows(rows: Array) -> None:
    """Hand rows back that nobody reads any more."""
    if sum(kept.nbytes for kept in list(_rows)) + rows.nbytes <= KEPT_ROWS:
        _rows.append(rows)


@contextmanager
def lent_output(n_values: int) -> Iterator[Output]:
    """Words, and places and values of patches, of a group: as large as the worst case, of which little is touched."""
    output = _last(_outputs)
    if output is None or output[1].size < n_values:
        output = (
            np.empty(n_values * 2 + 2 * SLACK, np.uint16),
            np.empty(n_values, np.int64),
            np.empty(n_values, np.uint16),
        )
    try:
        yield output
    finally:
        if sum(_nbytes(kept) for kept in list(_outputs)) + _nbytes(output) <= KEPT_OUTPUTS:
            _outputs.append(output)


def _nbytes(output: Output) -> int:
    return sum(array.nbytes for array in output)


def _last(kept: list[T]) -> T | None:
    try:
        return kept.pop()
    except IndexError:
        return None


def empty_rows(n: int) -> Array:
    """Uninitialised rows that begin at a cache line: uint16[n, 64]."""
    raw = np.empty(n * LANES + 32, np.uint16)
    skip = (-raw.ctypes.data % 64) // 2
    return raw[skip : skip + n * LANES].reshape(n, LANES)
