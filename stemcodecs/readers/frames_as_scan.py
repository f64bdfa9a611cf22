"""Frames that a detector wrote one after the other, read as the scan that they were taken in.

The frames of a line follow each other from left to right, line by line from the top. A snake scan, of which every
second line runs backwards, is not put in order here: its odd lines come out mirrored, and have to be turned around
before, or after by whoever reads the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial as bound
from typing import Any

import numpy as np

from stemcodecs.errors import SourceError
from stemcodecs.readers.scan import Axis, BlockSource, Region, Scan, default_dims

__all__ = ["frames_as_scan"]

_FACTORS_LISTED = 4


@dataclass(frozen=True, kw_only=True)
class ScanOfFrames:
    """A view of frames as lines of a scan.

    Parameters
    ----------
    source : BlockSource
        Array of shape (..., det_y, det_x); its frames count through all dimensions before the detector.
    scan : tuple of int
        Positions of the view.
    flyback : int
        Frames at the end of each line that are left out.
    """

    source: BlockSource
    scan: tuple[int, ...]
    flyback: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the view."""
        return (*self.scan, *self.source.shape[-2:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the values."""
        return self.source.dtype

    def read(self, region: Region) -> np.ndarray[Any, Any]:
        """Values of a region with explicit bounds: one read of the source for each run of neighbouring frames."""
        positions, detector = region[:-2], region[-2:]
        counts = [s.stop - s.start for s in positions]
        frame = [s.stop - s.start for s in detector]
        pieces = [piece for run in self._runs(positions) for piece in _regions(self.source.shape[:-2], run[0], run[1])]
        if len(pieces) == 1:  # the usual case: no copy of a block that comes in one piece
            return self.source.read((*pieces[0][0], *detector)).reshape(*counts, *frame)
        block = np.empty((int(np.prod(counts, dtype=np.int64)), *frame), self.dtype)
        done = 0
        for inside, count in pieces:
            block[done : done + count] = self.source.read((*inside, *detector)).reshape(count, *frame)
            done += count
        return block.reshape(*counts, *frame)

    def _runs(self, positions: Region) -> Iterator[tuple[int, int]]:
        """Ranges of frame numbers, neighbouring lines joined where nothing lies between them."""
        *slow, fast = positions
        line = self.scan[-1] + self.flyback
        begun: tuple[int, int] | None = None
        for index in np.ndindex(*(s.stop - s.start for s in slow)):
            number = 0
            for i, s, n in zip(index, slow, self.scan[:-1], strict=True):
                number = number * n + s.start + i
            start, stop = number * line + fast.start, number * line + fast.stop
            if begun is not None and begun[1] == start:
                begun = begun[0], stop
            else:
                if begun is not None:
                    yield begun
                begun = start, stop
        if begun is not None:
            yield begun

    def close(self) -> None:
        """Release the file."""
        self.source.close()


def _regions(shape: tuple[int, ...], start: int, stop: int) -> Iterator[tuple[Region, int]]:
    """Cut a range of positions of an array into regions: whole rows at once, the ends of rows alone."""
    if start >= stop:
        return
    if len(shape) == 1:
        yield (slice(start, stop),), stop - start
        return
    row = int(np.prod(shape[1:], dtype=np.int64))
    while start < stop:
        first, inside = divmod(start, row)
        if inside == 0 and stop - start >= row:
            rows = (stop - start) // row
            yield (slice(first, first + rows), *(slice(0, n) for n in shape[1:])), rows * row
            start += rows * row
        else:
            end = min(row, inside + stop - start)
            for region, count in _regions(shape[1:], inside, end):
                yield (slice(first, first + 1), *region), count
            start += end - inside


def frames_as_scan(scan: Scan, scan_shape: Sequence[int], drop_flyback: int = 0) -> Scan:
    """Read the frames of a stack as a scan.

    Parameters
    ----------
    scan : Scan
        A stack (frame, det_y, det_x), or a scan of which the positions are to be arranged in another way.
    scan_shape : sequence of int
        Rows and columns of the scan, without the frames of the flyback; or one number for a plain stack.
    drop_flyback : int
        Frames at the end of each line that were taken while the beam went back.

    Raises
    ------
    SourceError
        The positions are not as many as the frames.
    """
    shape = tuple(int(n) for n in scan_shape)
    frames = int(np.prod(scan.shape[:-2], dtype=np.int64))
    if not 1 <= len(shape) <= 2 or min(shape) < 1 or drop_flyback < 0:
        raise SourceError(
            f"scan shape {shape} with {drop_flyback} flyback frames cannot be; give --scan-shape ROWS,COLUMNS, "
            "and --drop-flyback for the frames of each line to leave out"
        )
    if len(shape) == 1 and drop_flyback:
        raise SourceError("--drop-flyback needs lines: give --scan-shape ROWS,COLUMNS")
    if len(scan.shape) < 3:
        raise SourceError(f"{scan.path}: one pattern {scan.shape} is no stack of frames; leave out --scan-shape")
    needed = int(np.prod(shape[:-1], dtype=object)) * (shape[-1] + drop_flyback)
    if needed != frames:
        with_flyback = f" with {drop_flyback} flyback frames a line" if drop_flyback else ""
        raise SourceError(
            f"{scan.path}: {frames} frames do not make a scan of {_times(shape)}{with_flyback} ({needed} frames); "
            f"{frames} is {_factors(frames)}; where lines have extra frames, give --drop-flyback"
        )
    remarks = list(scan.remarks)
    if len(shape) == 2 and shape != scan.shape[:-2]:
        remarks.append(f"{frames} frames are read as a scan of {_times(shape)}, line by line from left to right")
    if drop_flyback:
        remarks.append(f"{shape[0] * drop_flyback} flyback frames, the last {drop_flyback} of each line, are left out")
    names = default_dims(len(shape) + 2, scan.path)
    positions = [Axis(name=name, size=size) for name, size in zip(names, shape, strict=False)]
    if scan.shape[:-2] == shape:
        positions = list(scan.axes[:-2])
    view = Scan(
        path=scan.path,
        format=scan.format,
        opener=bound(_open_view, scan._opener, shape, drop_flyback),
        axes=(*positions, *scan.axes[-2:]),
        chunks=_chunks(scan, shape),
        metadata={**scan.metadata, "scan_shape": list(shape), "flyback_frames": drop_flyback},
        identity=scan.identity,
        remarks=remarks,
    )
    scan.close()
    return view


def _open_view(opener: Callable[[], BlockSource], scan: tuple[int, ...], flyback: int) -> ScanOfFrames:
    return ScanOfFrames(source=opener(), scan=scan, flyback=flyback)


def _chunks(scan: Scan, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Block of the view that reads no frame of a block of the source twice, as far as that can be."""
    if scan.chunks is None:
        return None
    frames = int(np.prod(scan.chunks[:-2], dtype=np.int64))
    if len(shape) == 1:
        return (min(frames, shape[0]), *scan.chunks[-2:])
    rows, columns = max(1, frames // shape[1]), min(frames, shape[1])
    return (min(rows, shape[0]), columns, *scan.chunks[-2:])


def _times(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _factors(frames: int) -> str:
    """Products of two numbers, those nearest to a square first."""
    pairs = [(n, frames // n) for n in range(int(frames**0.5), 0, -1) if frames % n == 0]
    return ", ".join(_times(pair) for pair in pairs[:_FACTORS_LISTED])
