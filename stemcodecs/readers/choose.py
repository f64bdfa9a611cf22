"""Which of the arrays of a file is the scan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.errors import SourceError, UnsupportedDtypeError

__all__ = ["Candidate", "choose_array"]

_LISTED = 8
_COMPARABLE = 8
"""How much larger an array that cannot be stored may be than a scan beside it: a probe or an exit wave is complex and
may be somewhat larger; a scan of which only a corner is left as real numbers is much smaller."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An array of a file with several arrays, or something in its place that cannot be read.

    Parameters
    ----------
    name : str
        How the user names it with ``--dataset``.
    shape : tuple of int or None
        Its shape; None where nobody can know: behind a link that leads nowhere.
    dtype : numpy.dtype or None
        Its dtype, where that is known.
    is_main : bool
        The layout of the file says that this is the measured data.
    trouble : str
        Why it cannot be read, as a clause after its name; empty where it can.
    is_ragged : bool
        Each value is a list of numbers of any length, such as the electrons of a frame.
    is_named : bool
        The file says what the dimensions before those of scan and detector are.
    """

    name: str
    shape: tuple[int, ...] | None
    dtype: np.dtype[Any] | None
    is_main: bool = False
    trouble: str = ""
    is_ragged: bool = False
    is_named: bool = False

    @property
    def is_numeric(self) -> bool:
        """Whether the values are real numbers."""
        return self.dtype is not None and self.dtype.kind in "biuf" and self.dtype.itemsize <= 8

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape or ()) if self.shape is not None else 0

    @property
    def nbytes(self) -> int:
        """Bytes of the values; of lists only those that point to them."""
        return self.size * (0 if self.dtype is None else self.dtype.itemsize)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape or ())

    @property
    def refusal(self) -> str:
        """Why it cannot be stored, as a clause after its name; empty where it can."""
        if self.trouble:
            return self.trouble
        if self.is_ragged:
            return "holds lists of different lengths; count them into frames first"
        if not self.is_numeric:
            complex_ = self.dtype is not None and self.dtype.kind == "c"
            way = "store complex data as two arrays: real and imaginary part" if complex_ else "save the counts alone"
            return f"does not hold real numbers of at most 64 bits; {way}"
        if self.size == 0:
            return "is empty"
        if self.ndim < 2:
            return f"has {self.ndim} dimension{'s' * (self.ndim != 1)}, and a scan at least 2"
        return ""

    @property
    def rank(self) -> tuple[int, bool, int, int]:
        """What goes before what, among arrays that can be stored."""
        return min(self.ndim, 4), self.is_main, self.ndim, self.size

    def __str__(self) -> str:
        return self.name if self.shape is None else f"{self.name} {self.dtype}{self.shape}"


def choose_array(candidates: Sequence[Candidate], *, path: str, dataset: str | None = None) -> Candidate:
    """Find the scan among the arrays of a file.

    An array of 4 dimensions or more goes before a 3D one and that before a 2D one; then what the layout
    of the file calls its main data; then the largest. Where something is there that outranks it and
    cannot be stored, nothing is taken in its place: a mask beside a measurement is no measurement.

    Raises
    ------
    SourceError
        `dataset` is not in the file, nothing has 2 dimensions or more, several arrays are equally
        plausible, or what goes before the best of them cannot be read.
    UnsupportedDtypeError
        The array that goes first does not hold real numbers.
    """
    if dataset is not None:
        wanted = dataset.strip("/")
        for candidate in candidates:
            if candidate.name.strip("/") == wanted:
                if candidate.trouble:
                    raise SourceError(f"{path}: {candidate.name} {candidate.trouble}")
                return candidate
        raise SourceError(f"{path}: no array {dataset}; give --dataset one of: {_listing(candidates)}")
    usable = [c for c in candidates if not c.refusal]
    if not usable:
        raise _nothing(candidates, path)
    best = max(c.rank for c in usable)
    first, *others = [c for c in usable if c.rank == best]
    in_the_way = [c for c in candidates if c.refusal and _outranks(c, first)]
    if in_the_way:
        worst = max(in_the_way, key=lambda c: (c.is_main, c.ndim, c.nbytes))
        refused = _is_about_dtype(worst)
        raise (UnsupportedDtypeError if refused else SourceError)(
            f"{path}: {worst} {worst.refusal}; not taken in its place: {_listing([first])} "
            "(if that is what you mean, give its name as --dataset)"
        )
    if others:
        raise SourceError(
            f"{path}: several arrays could be the scan; choose one with --dataset: {_listing([first, *others])}"
        )
    beside = [c for c in candidates if c is not first and c.ndim >= 2]
    if first.ndim > 4 and not first.is_named and beside:
        raise SourceError(
            f"{path}: {first} has {first.ndim} dimensions, and the file does not say which; if it is a series of "
            f"scans, store it whole with --dataset {first.name}; there is also {_listing(beside)}"
        )
    return first


def _outranks(other: Candidate, chosen: Candidate) -> bool:
    """Whether something that cannot be stored is more likely the measurement than the best that can."""
    if other.is_main and not chosen.is_main and (other.trouble or other.is_ragged or other.ndim >= min(chosen.ndim, 4)):
        return True
    if chosen.ndim >= 4:
        # A scan is no by-product, unless what cannot be stored is a scan too and far larger.
        if other.is_main != chosen.is_main:
            return False
        return other.ndim >= 4 and (min(other.ndim, 5), other.size) > (min(chosen.ndim, 5), _COMPARABLE * chosen.size)
    if chosen.is_main and chosen.ndim == 3 and not other.is_main:
        return other.ndim > 3
    if other.shape is None:
        return True
    if other.is_ragged:
        return other.size > math.prod(chosen.shape[:-2] if chosen.shape else ())
    if other.size == 0:
        # Made for a measurement that never began; a scalar without a value is only a gap in the metadata.
        return other.ndim > chosen.ndim or (other.ndim == chosen.ndim and other.ndim >= 3)
    if other.ndim > chosen.ndim:
        return True
    return other.nbytes > chosen.nbytes


def _is_about_dtype(candidate: Candidate) -> bool:
    return not candidate.trouble and candidate.size > 0 and (candidate.is_ragged or not candidate.is_numeric)


def _nothing(candidates: Sequence[Candidate], path: str) -> Exception:
    """Why no array of the file can be stored."""
    shaped = [c for c in candidates if c.ndim >= 2 and c.size > 0 and not c.trouble]
    broken = [c for c in candidates if c.trouble]
    if shaped:
        return UnsupportedDtypeError(
            f"{path}: no array of real numbers; found: {_listing(shaped)}; "
            "store complex data as two arrays: real and imaginary part"
        )
    if broken:
        first = max(broken, key=lambda c: (c.is_main, c.ndim, c.size))
        return SourceError(f"{path}: {first} {first.trouble}")
    return SourceError(
        f"{path}: no array with 2 to 4 dimensions (a series of scans: more) to compress; found: {_listing(candidates)}"
    )


def _listing(candidates: Sequence[Candidate]) -> str:
    by_size = sorted(candidates, key=lambda c: -c.size)
    names = [str(c) for c in by_size[:_LISTED]]
    if len(candidates) > _LISTED:
        names.append(f"and {len(candidates) - _LISTED} smaller ones")
    return ", ".join(names) or "nothing"
