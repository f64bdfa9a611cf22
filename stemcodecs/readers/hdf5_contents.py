"""What there is of an HDF5 dataset, and what HDF5 would read as fill values without a word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stemcodecs.errors import SourceError

__all__ = ["Contents", "note_chunks", "spelled_intervals", "spelled_rows", "taken_rows"]

_NAMED = 4
"""Intervals and reasons that a message names."""


@dataclass
class Contents:
    """What there is of a dataset.

    Parameters
    ----------
    shape : tuple of int
        Shape; () where the dataset holds no array.
    dtype : numpy.dtype
        Dtype.
    lost : ndarray of shape (shape[0],)
        For each row (index of the first dimension) the number of values that would be read as the fill value.
    reasons : list of str
        Why values are lost, each a clause after the name of the dataset; empty where nothing is.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    lost: np.ndarray[Any, np.dtype[np.int64]]
    reasons: list[str] = field(default_factory=list)

    @classmethod
    def whole(cls, shape: Sequence[int], dtype: np.dtype[Any]) -> Contents:
        """A dataset of which nothing is known to be lost."""
        return cls(tuple(shape), dtype, np.zeros(shape[0] if shape else 0, np.int64))

    @property
    def row_size(self) -> int:
        """Values in a row."""
        return math.prod(self.shape[1:])

    @property
    def rows_there(self) -> int:
        """Rows up to the last one of which anything is there."""
        there = np.flatnonzero(self.lost < self.row_size)
        return int(there[-1]) + 1 if len(there) else 0

    def explain(self, reason: str) -> None:
        """Note why values are lost."""
        if reason not in self.reasons:
            self.reasons.append(reason)

    def lose(self, rows: np.ndarray[Any, Any] | slice, values: Any, reason: str) -> None:
        """Note that a number of values of some rows is lost."""
        self.lost[rows] = np.minimum(self.lost[rows] + values, self.row_size)
        self.explain(reason)

    def lose_bytes(self, start: int, count: int, itemsize: int, reason: str) -> None:
        """Note that bytes of the array in C order are lost."""
        row = self.row_size * itemsize
        begins = np.arange(self.shape[0], dtype=np.int64) * row
        lost = np.minimum(begins + row, start + count) - np.maximum(begins, start)
        self.lose(slice(None), -(-np.maximum(lost, 0) // itemsize), reason)

    def summary(self) -> str:
        """How much is there, for the user: ``5 of 8 frames``."""
        whole = int((self.lost == 0).sum())
        partly = int(((self.lost > 0) & (self.lost < self.row_size)).sum())
        parts = f" and parts of {partly}" if partly else ""
        return f"{whole} of {self.shape[0]} {spelled_rows(self.shape)}{parts}"


def spelled_rows(shape: Sequence[int]) -> str:
    """What the first dimension of an array counts."""
    return {2: "detector rows", 3: "frames", 4: "scan rows"}.get(len(shape), "entries")


def spelled_intervals(rows: np.ndarray[Any, Any]) -> str:
    """Sorted indices as ``3, 5:9``, the first few of them."""
    breaks = np.flatnonzero(np.diff(rows) > 1)
    firsts, lasts = rows[np.r_[0, breaks + 1]], rows[np.r_[breaks, len(rows) - 1]]
    named = [f"{a}" if a == b else f"{a}:{b + 1}" for a, b in zip(firsts[:_NAMED], lasts[:_NAMED], strict=True)]
    return ", ".join(named) + (", …" if len(firsts) > _NAMED else "")


def taken_rows(contents: Contents, *, path: str, name: str, partial: bool) -> tuple[int, tuple[str, ...]]:
    """How many rows of a dataset are a scan, and what its user must be told.

    A whole dataset is taken whole. Of one with lost values nothing is taken, or with `partial` the rows
    up to the last that holds anything: what is missing before that is the fill value, and is named.

    Raises
    ------
    SourceError
        Values are lost and `partial` is not asked for, or nothing is there.
    """
    if not contents.reasons:
        return contents.shape[0], ()
    reasons = ", ".join(contents.reasons[:_NAMED])
    if len(contents.reasons) > _NAMED:
        reasons += f" (and {len(contents.reasons) - _NAMED} more)"
    rows = contents.rows_there
    if not partial or not rows:
        remedy = "put it next to the file" if "is missing" in reasons else "restore it from another copy"
        rest = f", or take what is there ({contents.summary()}) with --partial" if rows else ""
        raise SourceError(f"{path}: {name} {reasons}; {remedy}{rest}")
    word = spelled_rows(contents.shape)
    remarks = [f"{name} {reasons}; taken are the first {rows} of {contents.shape[0]} {word}"]
    holes = np.flatnonzero(contents.lost[:rows])
    if len(holes):
        remarks.append(
            f"{name}: {len(holes)} of these {word} ({spelled_intervals(holes)}) lack values, which are stored as the "
            "fill value"
        )
    elif rows == contents.shape[0]:
        remarks.append(f"{name}: values that are not there are stored as the fill value")
    return rows, tuple(remarks)


def note_chunks(node: Any, contents: Contents) -> None:
    """Note chunks that were never written.

    Programs that leave out chunks of zeros on purpose exist; a scan from such a one needs ``--partial``, because
    nobody can tell it from a run that was aborted.
    """
    grid = [-(-n // c) for n, c in zip(contents.shape, node.chunks, strict=True)]
    needed = math.prod(grid)
    # Counting costs 0.1 µs a chunk, listing them 1.5 µs; nearly every file is whole.
    if node.id.get_num_chunks() >= needed:
        return
    written = np.zeros(grid, bool)

    def note(chunk: Any) -> None:
        place = tuple(o // c for o, c in zip(chunk.chunk_offset, node.chunks, strict=True))
        if all(i < n for i, n in zip(place, grid, strict=True)):
            written[place] = True

    node.id.chunk_iter(note)
    values: Any = ~written
    for i in reversed(range(1, len(grid))):
        edges = np.minimum(np.arange(grid[i] + 1) * node.chunks[i], contents.shape[i])
        values = values @ np.diff(edges)
    lost = np.repeat(values.astype(np.int64), node.chunks[0])[: contents.shape[0]]
    if lost.any():
        count = needed - int(written.sum())
        where = f"{spelled_rows(contents.shape)} {spelled_intervals(np.flatnonzero(lost))}"
        contents.lose(slice(None), lost, f"has {count} of {needed} chunks that were never written ({where})")
