"""Selections of HDF5 dataspaces as plain intervals: what a virtual dataset maps, and what it leaves out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Selection", "counted_blocks", "rows_without", "selections", "unlimited_dimension"]

_UNLIMITED = 2**64 - 1


@dataclass(frozen=True)
class Selection:
    """A product of intervals: along each dimension, which indices are selected.

    Parameters
    ----------
    starts, stops : tuple of ndarray
        For each dimension the sorted intervals.
    """

    starts: tuple[np.ndarray[Any, Any], ...]
    stops: tuple[np.ndarray[Any, Any], ...]

    @classmethod
    def box(cls, start: Sequence[int], stop: Sequence[int]) -> Selection:
        """One interval along each dimension."""
        return cls(tuple(np.array([n]) for n in start), tuple(np.array([n]) for n in stop))

    def clipped(self, shape: Sequence[int]) -> Selection:
        """What of it lies within a shape."""
        starts, stops = [], []
        for start, stop, size in zip(self.starts, self.stops, shape, strict=True):
            inside = start < size
            starts.append(start[inside])
            stops.append(np.minimum(stop[inside], size))
        return Selection(tuple(starts), tuple(stops))

    def interval(self, dimension: int, index: int) -> Selection:
        """One of the intervals along a dimension, everything along the others."""
        starts, stops = list(self.starts), list(self.stops)
        starts[dimension], stops[dimension] = (v[dimension][index : index + 1] for v in (starts, stops))
        return Selection(tuple(starts), tuple(stops))

    def count(self, dimension: int) -> int:
        """Selected indices of a dimension."""
        return int((self.stops[dimension] - self.starts[dimension]).sum())

    def first(self, dimension: int, count: int) -> Selection:
        """The first indices of a dimension only."""
        starts, stops = list(self.starts), list(self.stops)
        sizes = stops[dimension] - starts[dimension]
        left = np.clip(count - (np.cumsum(sizes) - sizes), 0, sizes)
        stops[dimension] = (starts[dimension] + left)[left > 0]
        starts[dimension] = starts[dimension][left > 0]
        return Selection(tuple(starts), tuple(stops))

    @property
    def rows(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Selected indices of the first dimension, sorted."""
        parts = [np.arange(a, b) for a, b in zip(self.starts[0], self.stops[0], strict=True)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    @property
    def row_points(self) -> int:
        """Points selected in each selected row."""
        return math.prod(self.count(i) for i in range(1, len(self.starts)))

    @property
    def points(self) -> int:
        """Points selected."""
        return self.count(0) * self.row_points

    @property
    def end(self) -> tuple[int, ...]:
        """Smallest shape that holds it."""
        return tuple(int(stop.max(initial=0)) for stop in self.stops)


def selections(space: Any, shape: Sequence[int], counts: dict[int, int] | None = None) -> list[Selection]:
    """What is selected in a dataspace.

    Parameters
    ----------
    space : h5py.h5s.SpaceID
        A dataspace.
    shape : sequence of int
        Shape of what it selects from: a space that selects everything is stored without its shape.
    counts : dict of int to int, optional
        How many blocks there are along dimensions whose number of blocks is unlimited.
    """
    import h5py

    kind = space.get_select_type()
    if kind == h5py.h5s.SEL_NONE:
        return []
    if kind == h5py.h5s.SEL_ALL:
        return [Selection.box((0,) * len(shape), shape)]
    if kind == h5py.h5s.SEL_POINTS:
        return [Selection.box(p, [n + 1 for n in p]) for p in space.get_select_elem_pointlist().tolist()]
    if not space.is_regular_hyperslab():
        return [Selection.box(first, last + 1) for first, last in space.get_select_hyper_blocklist()]
    starts, stops = [], []
    for i, (start, stride, count, block) in enumerate(zip(*space.get_regular_hyperslab(), strict=True)):
        if count == _UNLIMITED:
            count = (counts or {}).get(i, 0)
        if block == _UNLIMITED:  # one block without end, which grows with what it is mapped to
            count, block = 1, (counts or {}).get(i, 0)
        first = start + stride * np.arange(count, dtype=np.int64)
        starts.append(first)
        stops.append(first + block)
    return [Selection(tuple(starts), tuple(stops))]


def unlimited_dimension(space: Any) -> int | None:
    """Dimension along which a selection has no end, None where every one ends."""
    import h5py

    if space.get_select_type() != h5py.h5s.SEL_HYPERSLABS or not space.is_regular_hyperslab():
        return None
    _, _, counts, blocks = space.get_regular_hyperslab()
    ends = [_UNLIMITED in pair for pair in zip(counts, blocks, strict=True)]
    return ends.index(True) if any(ends) else None


def counted_blocks(space: Any, dimension: int, size: int) -> int:
    """Blocks (of an endless block: indices) of an unlimited selection that begin within a size."""
    start, stride, _, block = (int(said[dimension]) for said in space.get_regular_hyperslab())
    if block == _UNLIMITED:
        return max(0, size - start)
    return max(0, -(-(size - start) // stride))


def rows_without(shape: Sequence[int], mapped: Sequence[Selection]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Number of values of each row (index of the first dimension) that lie in none of the selections.

    The array is cut along all edges of the selections; each of the cells is covered or is not.
    """
    edges = []
    for i, size in enumerate(shape):
        found = [np.array([0, size])]
        found += [s.starts[i] for s in mapped] + [s.stops[i] for s in mapped]
        edges.append(np.unique(np.clip(np.concatenate(found), 0, size)))
    free = np.ones([len(e) - 1 for e in edges], bool)
    # Nearly always a selection is one box; all of them are looked up together then, thousands of parts in no time.
    boxes = [s for s in mapped if all(len(starts) == 1 for starts in s.starts)]
    corners = []
    for i, edge in enumerate(edges):
        for bounds in ([s.starts[i][0] for s in boxes], [s.stops[i][0] for s in boxes]):
            corners.append(np.searchsorted(edge, np.clip(np.array(bounds, np.int64), 0, edge[-1])).tolist())
    for corner in zip(*corners, strict=True):
        free[tuple(map(slice, corner[::2], corner[1::2]))] = False
    for selection in mapped:
        if any(len(starts) != 1 for starts in selection.starts):
            free[np.ix_(*map(_cells, edges, selection.starts, selection.stops))] = False
    values: Any = free
    for i in reversed(range(1, len(shape))):
        values = values @ np.diff(edges[i])
    return np.repeat(values.astype(np.int64), np.diff(edges[0]))


def _cells(
    edges: np.ndarray[Any, Any], starts: np.ndarray[Any, Any], stops: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Cells between edges that lie in some intervals."""
    steps = np.zeros(len(edges), np.int64)
    np.add.at(steps, np.searchsorted(edges, np.clip(starts, 0, edges[-1])), 1)
    np.add.at(steps, np.searchsorted(edges, np.clip(stops, 0, edges[-1])), -1)
    return np.flatnonzero(np.cumsum(steps)[:-1])
