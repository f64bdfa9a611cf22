"""Which of the arrays of a file is the scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.errors import SourceError, UnsupportedDtypeError

__all__ = ["Candidate", "choose_array"]

_LISTED = 8


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An array of a file with several arrays.

    Parameters
    ----------
    name : str
        How the user names it with ``--dataset``.
    shape : tuple of int
        Its shape.
    dtype : numpy.dtype
        Its dtype.
    is_main : bool
        The layout of the file says that this is the measured data.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_main: bool = False

    @property
    def is_numeric(self) -> bool:
        """Whether the values are real numbers."""
        return self.dtype.kind in "biuf" and self.dtype.itemsize <= 8

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}{self.shape}"


def choose_array(candidates: Sequence[Candidate], *, path: str, dataset: str | None = None) -> Candidate:
    """Find the scan among the arrays of a file.

    A 4D array goes before a 3D one and that before a 2D one; then what the layout of the file calls
    its main data; then the largest.

    Raises
    ------
    SourceError
        `dataset` is not in the file, nothing has 2 to 4 dimensions, or several arrays are equally
        plausible.
    UnsupportedDtypeError
        The arrays that could be scans do not hold real numbers.
    """
    if dataset is not None:
        wanted = dataset.strip("/")
        for candidate in candidates:
            if candidate.name.strip("/") == wanted:
                return candidate
        raise SourceError(f"{path}: no array {dataset}; give --dataset one of: {_listing(candidates)}")
    shaped = [c for c in candidates if 2 <= len(c.shape) <= 4 and c.size > 0]
    if not shaped:
        raise SourceError(f"{path}: no array with 2 to 4 dimensions to compress; found: {_listing(candidates)}")
    usable = [c for c in shaped if c.is_numeric]
    if not usable:
        raise UnsupportedDtypeError(
            f"{path}: no array of real numbers; found: {_listing(shaped)}; "
            "store complex data as two arrays: real and imaginary part"
        )
    best = max((len(c.shape), c.is_main, c.size) for c in usable)
    first, *others = [c for c in usable if (len(c.shape), c.is_main, c.size) == best]
    if others:
        raise SourceError(
            f"{path}: several arrays could be the scan; choose one with --dataset: {_listing([first, *others])}"
        )
    return first


def _listing(candidates: Sequence[Candidate]) -> str:
    by_size = sorted(candidates, key=lambda c: -c.size)
    names = [str(c) for c in by_size[:_LISTED]]
    if len(candidates) > _LISTED:
        names.append(f"and {len(candidates) - _LISTED} smaller ones")
    return ", ".join(names) or "nothing"
