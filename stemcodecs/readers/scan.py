"""A scan that lies in a file: its shape, its calibrated axes, and blocks of it on demand."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np

from stemcodecs.errors import SourceError, StemcodecsError, UnsupportedDtypeError
from stemcodecs.readers.identity import Identity

__all__ = [
    "Axis",
    "BlockSource",
    "Region",
    "Scan",
    "default_dims",
    "explicit_region",
    "one_line",
    "small_attributes",
]

Region = tuple[slice, ...]

_SCAN_DIMS = ("scan_y", "scan_x", "det_y", "det_x")
_RESERVED = (
    "data",
    "provenance",
    "mean_pattern",
    "sum_image",
    "bright_field",
    "annular_dark_field",
    "com_y",
    "com_x",
)
"""Names that a store has for other arrays."""
_LARGEST_ATTRIBUTE = 16_384
_LARGEST_ATTRIBUTES = 65_536


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of a scan.

    Parameters
    ----------
    name : str
        Name of the dimension, as in `Scan.dims`.
    size : int
        Number of positions or pixels.
    scale : float, optional
        Distance of two neighbours in `units`; None where the source is not calibrated.
    offset : float
        Coordinate of the first position or pixel in `units`.
    units : str, optional
        Units of `scale` and `offset` as the source spells them.
    """

    name: str
    size: int
    scale: float | None = None
    offset: float = 0.0
    units: str | None = None

    @property
    def calibrated(self) -> bool:
        """Whether the source says how large a step is."""
        return self.scale is not None

    @property
    def coordinates(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Coordinates, float64 of shape (size,); indices where the axis is not calibrated."""
        scale = 1.0 if self.scale is None else self.scale
        return self.offset + scale * np.arange(self.size, dtype=np.float64)


class BlockSource(Protocol):
    """What a format gives: an open array from which regions are read.

    One whose values depend on more than the file at the scan's path has an attribute ``identity`` as well, made
    after the file was opened; and ``remarks``, where there is something that its user must be told.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the values, in any byte order."""

    def read(self, region: Region) -> np.ndarray[Any, Any]:
        """Values of a region with explicit bounds; safe to call from several threads."""

    def close(self) -> None:
        """Release the file."""


class Scan:
    """A 4D-STEM scan or a stack of frames in a file, read block by block.

    Opening reads headers only. A scan can be pickled: in the other process it opens its file again
    at the first read, and refuses one that is not the file that was opened here. The pickled bytes
    hold the identity, so that they differ when the file did.

    Attributes
    ----------
    path : str
        File, folder or URL of the source.
    format : str
        Name of the format, such as ``"HDF5 (py4DSTEM)"``.
    dataset : str or None
        Which array of the file this is; None where the file holds one.
    shape : tuple of int
        Shape of the array, 2 dimensions or more.
    dtype : numpy.dtype
        Dtype of what `read` returns: that of the source in native byte order.
    dims : tuple of str
        Names of the dimensions, see `default_dims`.
    axes : tuple of Axis
        One for each dimension.
    chunks : tuple of int or None
        Block in which the source stores the array; None where any block reads equally well.
    metadata : dict
        Where the array comes from and what the source says about it; small, ready for JSON.
    identity : Identity or None
        Every file that the values depend on, as it was when the scan was opened; None for what lies in memory.
    remarks : tuple of str
        What the user must be told about the values, one line each.
    """

    def __init__(
        self,
        *,
        path: str,
        format: str,
        opener: Callable[[], BlockSource],
        axes: Sequence[Axis] | None = None,
        chunks: tuple[int, ...] | None = None,
        metadata: Mapping[str, Any] | None = None,
        identity: Identity | None = None,
        remarks: Sequence[str] = (),
    ) -> None:
        self.path = path
        self.format = format
        self._opener = opener
        self._lock = threading.Lock()
        self._closed = False
        # Before the file is opened and again after it: nothing can take its place in between.
        before = identity or (Identity.of([path]) if os.path.isfile(path) else None)
        self._source: BlockSource | None = opener()
        self.identity: Identity | None = getattr(self._source, "identity", before)
        self.shape = tuple(int(n) for n in self._source.shape)
        stored = np.dtype(self._source.dtype)
        try:
            self.check_unchanged()
            names = default_dims(len(self.shape), path)
            _check_dtype(stored, path)
            if 0 in self.shape:
                raise SourceError(f"{path}: the array {self.shape} is empty; give a scan with data")
        except BaseException:
            self._source.close()
            raise
        self.dtype = stored.newbyteorder("=")
        # A part of a scan is shorter than its axes say.
        given = axes or [Axis(name=name, size=0) for name in names]
        self.axes = tuple(replace(axis, size=size) for axis, size in zip(given, self.shape, strict=True))
        self.dims = tuple(axis.name for axis in self.axes)
        self.chunks = chunks
        self.metadata: dict[str, Any] = {"format": format, "stored_dtype": stored.str}
        self.metadata.update(metadata or {})
        self.dataset: str | None = self.metadata.get("dataset") or None
        self.remarks = (*remarks, *getattr(self._source, "remarks", ()))

    @property
    def nbytes(self) -> int:
        """Size of the whole array in memory, in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def read(self, region: Region) -> np.ndarray[Any, Any]:
        """Read a block into a fresh C-contiguous array in native byte order.

        Parameters
        ----------
        region : tuple of slice
            One slice for each dimension, without step and within the shape; trailing dimensions
            that are left out are read whole. May be called from several threads at once.

        Raises
        ------
        SourceError
            The region is not within the scan, the scan is closed, or the source cannot be read.
        CorruptChunkError
            The source is a stemcodecs store and a chunk of it is damaged.
        """
        explicit = explicit_region(region, self.shape)
        try:
            block = self._open_source().read(explicit)
        except (StemcodecsError, MemoryError):
            raise
        except Exception as error:  # each format and each codec raises its own kinds
            raise SourceError(
                f"{self.path}: cannot read the block at {_spell(explicit)} ({one_line(error)}); "
                "check the file or restore it from another copy"
            ) from error
        expected = tuple(s.stop - s.start for s in explicit)
        if block.shape != expected:
            raise SourceError(
                f"{self.path}: the block at {_spell(explicit)} has shape {block.shape}, "
                f"not {expected}; the file was changed while it was read: start again"
            )
        return np.ascontiguousarray(block, dtype=self.dtype)

    def _open_source(self) -> BlockSource:
        with self._lock:
            if self._closed:
                raise SourceError(f"{self.path} was closed; open it again with open_scan")
            if self._source is None:
                # Before the file is opened: what was replaced need not be a file of the same kind.
                self.check_unchanged()
                source = self._opener()
                try:
                    self._check_identity(getattr(source, "identity", None) or self._identity_now())
                    found = np.dtype(source.dtype).newbyteorder("=")
                    if tuple(source.shape) != self.shape or found != self.dtype:
                        raise SourceError(
                            f"{self.path} now holds {found}{tuple(source.shape)}, it held {self.dtype}"
                            f"{self.shape} when it was opened; start again with the new file"
                        )
                except BaseException:
                    source.close()
                    raise
                self._source = source
            return self._source

    def check_unchanged(self) -> None:
        """Make sure that every file that the values depend on is still the one that was opened.

        Costs one `stat` a file, and for a Zarr folder one for each chunk. Who says that a store equals its source
        calls this after the last read.

        Raises
        ------
        SourceError
            A file was replaced, changed, or is gone; it is named.
        """
        self._check_identity(self._identity_now())

    def _identity_now(self) -> Identity | None:
        return None if self.identity is None else self.identity.now()

    def _check_identity(self, now: Identity | None) -> None:
        if self.identity is not None and now is not None and (change := self.identity.difference(now)):
            raise SourceError(
                f"{self.path} is not what it was when it was opened: {change}; start again with the new file"
            )

    def release(self) -> None:
        """Let go of the file; the next read opens it again, and refuses another one."""
        with self._lock:
            source, self._source = self._source, None
        if source is not None:
            source.close()

    def close(self) -> None:
        """Release the file; reading is refused from then on."""
        with self._lock:
            self._closed = True
        self.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_source")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _source=None)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{n}: {s}" for n, s in zip(self.dims, self.shape, strict=True))
        return f"<Scan {self.dtype} ({sizes}), {self.format}, {self.path}>"


def default_dims(ndim: int, path: str, leading: Sequence[str | None] = ()) -> tuple[str, ...]:
    """Names of the dimensions of a scan (4), a stack of frames (3), one pattern (2), or a series of scans (5, ...).

    The leading dimensions of a series are called ``series``, or ``series_0``, ``series_1``, … where there are
    several; `leading` has the names that the source gives them, None where it gives none.

    Raises
    ------
    SourceError
        For fewer than 2 dimensions.
    """
    if ndim < 2:
        raise SourceError(
            f"{path}: the array has {ndim} dimension{'s' * (ndim != 1)}; "
            "give a series of scans (5), a scan (4), a stack of frames (3) or a pattern (2)"
        )
    if ndim == 3:
        return ("frame", "det_y", "det_x")
    names: list[str] = []
    for i in range(ndim - len(_SCAN_DIMS)):
        plain = "series" if ndim == 5 else f"series_{i}"
        while plain in names:
            plain += "_"
        said = leading[i] if i < len(leading) else None
        # The name becomes that of an array in the store.
        name = re.sub(r"\W+", "_", said or "").strip("_").lower()
        taken = {*_SCAN_DIMS, *_RESERVED, *names}
        names.append(name if name and name not in taken else plain)
    return (*names, *_SCAN_DIMS[max(0, len(_SCAN_DIMS) - ndim) :])


def explicit_region(region: Region, shape: tuple[int, ...]) -> Region:
    """Spell a region out: one slice with bounds for each dimension.

    Raises
    ------
    SourceError
        It does not fit the shape, or has a step.
    """
    whole = (*region, *(slice(None),) * (len(shape) - len(region)))
    if len(whole) != len(shape):
        raise SourceError(
            f"a region with {len(region)} slices does not fit {len(shape)} dimensions; "
            "give at most one slice for each dimension"
        )
    explicit = []
    for part, size in zip(whole, shape, strict=True):
        start = 0 if part.start is None else part.start
        stop = size if part.stop is None else part.stop
        if part.step not in (None, 1) or not 0 <= start <= stop <= size:
            # Python would clip here; a block that is smaller than asked for hides a bug.
            raise SourceError(
                f"region {_spell(whole)} is not within the shape {shape}; "
                "give slices with 0 <= start <= stop <= size and no step"
            )
        explicit.append(slice(int(start), int(stop)))
    return tuple(explicit)


def small_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a source's attributes that are small and can be written as JSON."""
    kept: dict[str, Any] = {}
    total = 0
    for name, value in attributes.items():
        plain = _plain(value)
        try:
            size = len(json.dumps(plain, allow_nan=False))
        except (TypeError, ValueError):
            continue
        if plain is None or size > _LARGEST_ATTRIBUTE or total + size > _LARGEST_ATTRIBUTES:
            continue
        total += size
        kept[str(name)] = plain
    return kept


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist()) if value.size <= 64 else None
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return value


def _check_dtype(dtype: np.dtype[Any], path: str) -> None:
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise UnsupportedDtypeError(
            f"{path}: cannot store dtype {dtype}; give real numbers of at most 64 bits "
            "(complex data as two arrays: real and imaginary part)"
        )


def _spell(region: Region) -> str:
    def bound(value: int | None) -> str:
        return "" if value is None else str(value)

    parts = [f"{bound(s.start)}:{bound(s.stop)}" + (f":{s.step}" if s.step else "") for s in region]
    return "[" + ", ".join(parts) + "]"


def one_line(error: BaseException) -> str:
    """The message of an error without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
