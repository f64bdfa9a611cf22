"""Mappings of virtual datasets: which rows a source fills, and what they lack when the source does."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.errors import SourceError
from stemcodecs.readers.hdf5_contents import Contents
from stemcodecs.readers.hdf5_selections import Selection, counted_blocks, selections, unlimited_dimension

__all__ = ["Mapping", "mappings_of", "number_beyond"]


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """A part of a virtual dataset and where its values come from.

    Parameters
    ----------
    label : str
        The source, as the user knows it.
    source : Contents or str
        What there is of it, or what is wrong: a file or dataset and a clause about it.
    filled : list of Selection
        What it fills.
    taken : list of Selection
        What of the source fills that, in the same order of points.
    """

    label: str
    source: Contents | str
    filled: list[Selection]
    taken: list[Selection]

    def carry_losses(self, contents: Contents, path: str) -> None:
        """Note what the virtual dataset lacks because its source does.

        Raises
        ------
        SourceError
            HDF5 would clip the values to another dtype.
        """
        if isinstance(self.source, str):
            for selection in self.filled:
                contents.lose(selection.rows, selection.row_points, f"takes values from {self.source}")
            return
        if not np.can_cast(self.source.dtype, contents.dtype, "safe"):
            raise SourceError(
                f"{path}: a virtual dataset takes {self.source.dtype} values from {self.label} as {contents.dtype}, "
                "which HDF5 would clip; give the file with the values itself"
            )
        for reason in self.source.reasons:
            contents.explain(f"takes values from {self.label}, which {reason}")
        if self._lacks_points():
            shape = self.source.shape
            contents.explain(f"takes values from {self.label}, which with shape {shape} is smaller than it should be")
        elif not self.source.reasons:
            return
        if len(self.filled) == len(self.taken) == 1:
            rows, lost = _carried(self.filled[0], self.taken[0], self.source)
            contents.lose(rows, lost, contents.reasons[-1])

    def _lacks_points(self) -> bool:
        """Whether the source has become smaller than what is taken of it: HDF5 would read what lies behind it."""
        assert isinstance(self.source, Contents)
        shape = self.source.shape
        if any(len(s.end) != len(shape) or any(map(int.__gt__, s.end, shape)) for s in self.taken):
            return True
        return sum(s.points for s in self.taken) < sum(s.points for s in self.filled)


def _carried(filled: Selection, taken: Selection, source: Contents) -> tuple[np.ndarray[Any, Any], Any]:
    """Values that rows of a virtual dataset lack, spread over them as over the rows of the source.

    Points correspond in C order, also where the selections have other shapes (frames that become a scan).
    """
    rows, width = taken.rows, taken.row_points
    lost = np.full(len(rows), width, np.int64)
    if len(taken.end) == len(source.shape) and all(map(int.__le__, taken.end[1:], source.shape[1:])):
        inside = rows < source.shape[0]
        lost[inside] = np.minimum(source.lost[rows[inside]], width)
    points = np.append(np.arange(len(rows) + 1) * width, max(filled.points, taken.points))
    lacking = np.append(np.concatenate([[0], np.cumsum(lost)]), lost.sum() + points[-1] - taken.points)
    ends = np.arange(len(filled.rows) + 1) * filled.row_points
    return filled.rows, np.ceil(np.diff(np.interp(ends, points, lacking))).astype(np.int64)


def mappings_of(source: Any, shape: Sequence[int], look: Callable[[str, str], Contents | str]) -> Iterator[Mapping]:
    """What one entry of a virtual dataset maps: several sources where HDF5 counts them by ``%b``.

    Parameters
    ----------
    source : h5py VDSmap
        The entry.
    shape : sequence of int
        Shape of the virtual dataset.
    look : callable
        Contents of a dataset, given the name of its file and its own, or what is wrong with it.
    """
    file, name = source.file_name, source.dset_name
    dimension = unlimited_dimension(source.vspace)
    if dimension is None:
        filled = [s.clipped(shape) for s in selections(source.vspace, shape)]
        found = look(file, name)
        yield Mapping(label=_label(file, name), source=found, filled=filled, taken=_taken(source, found))
        return
    if _is_counted(source):
        count = counted_blocks(source.vspace, dimension, shape[dimension])
        whole = selections(source.vspace, shape, {dimension: count})[0]
        for i in range(count):
            place = _numbered(file, i), _numbered(name, i)
            found = look(*place)
            filled = [whole.interval(dimension, i).clipped(shape)]
            yield Mapping(label=_label(*place), source=found, filled=filled, taken=_taken(source, found))
        return
    # A selection without end fills as much as its source has.
    found = look(file, name)
    taken = _taken(source, found)
    along = unlimited_dimension(source.src_space)
    count = taken[0].count(along) if taken and along is not None else 0
    # Every index begins at most one block, so that as many blocks are enough to cut from.
    filled = [s.first(dimension, count).clipped(shape) for s in selections(source.vspace, shape, {dimension: count})]
    yield Mapping(label=_label(file, name), source=found, filled=filled, taken=taken)


def _taken(source: Any, found: Contents | str) -> list[Selection]:
    """What of a source is taken."""
    if isinstance(found, str):
        return []
    along = unlimited_dimension(source.src_space)
    if along is None:
        return selections(source.src_space, found.shape)
    count = counted_blocks(source.src_space, along, found.shape[along])
    return [s.clipped(found.shape) for s in selections(source.src_space, found.shape, {along: count})]


def number_beyond(source: Any, shape: Sequence[int], names: Callable[[str, str], list[str]]) -> str | None:
    """Why a counted series ends too early: something with a higher number is there.

    Parameters
    ----------
    source, shape
        As for `mappings_of`.
    names : callable
        Names of what lies in the folder, or in the group, of a counted source.
    """
    dimension = unlimited_dimension(source.vspace)
    if dimension is None or not _is_counted(source):
        return None
    count = counted_blocks(source.vspace, dimension, shape[dimension])
    pattern = source.file_name if "%b" in source.file_name else source.dset_name
    spelled = "([0-9]+)".join(re.escape(part.replace("%%", "%")) for part in os.path.basename(pattern).split("%b", 1))
    found = [m for m in (re.fullmatch(spelled, n) for n in names(source.file_name, source.dset_name)) if m]
    later = sorted(int(m[1]) for m in found if int(m[1]) >= count)
    if not later:
        return None
    missing, there = _numbered(pattern, count), _numbered(pattern, later[0])
    return f"takes values from {missing}, which is missing, though there is {there}"


def _is_counted(source: Any) -> bool:
    return "%b" in source.file_name or "%b" in source.dset_name


def _label(file: str, name: str) -> str:
    return name if file == "." else file


def _numbered(pattern: str, number: int) -> str:
    """What HDF5 makes of a name with %b: the number of the block; %% is a percent sign."""
    return re.sub("%[b%]", lambda found: str(number) if found[0] == "%b" else "%", pattern)
