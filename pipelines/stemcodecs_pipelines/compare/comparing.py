"""What the rows of a comparison have in common, and the clock that they are timed by."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from stemcodecs.errors import StemcodecsError
from stemcodecs.readers.scan import Region, Scan
from stemcodecs_pipelines.compare.losses import CountsBehind, LossSums
from stemcodecs_pipelines.compare.report import Row
from stemcodecs_pipelines.compare.sample import ChosenBlocks, choose_blocks
from stemcodecs_pipelines.store.virtual_images import VirtualDetectors

__all__ = ["Comparing", "DecodedPatterns", "Outcome", "best_of", "first_pattern", "in_short"]

Array = np.ndarray[Any, Any]
Result = TypeVar("Result")

REPEATS, ENOUGH_SECONDS = 3, 2.0
"""How often the first block is coded at most, and after how much time no more: the first call of a kernel loads it."""


@dataclass(frozen=True, kw_only=True)
class Comparing:
    """What every row is given.

    Attributes
    ----------
    scan : Scan
        Source.
    sample_bytes : int
        See `choose_blocks`.
    counts : CountsBehind
        How values become counts.
    detectors : VirtualDetectors or None
        Of the virtual images.
    folder : Path
        For what a row must write; removed in the end.
    keep_patterns : bool
        Whether decoded patterns are kept in files, for reconstructions.
    stopped : threading.Event
        Set when the comparison was interrupted.
    step : callable
        Called with a share of a row that is done, the sum of which is 1 for each.
    """

    scan: Scan
    sample_bytes: int
    counts: CountsBehind
    detectors: VirtualDetectors | None
    folder: Path
    keep_patterns: bool = False
    stopped: threading.Event = field(default_factory=threading.Event)
    step: Callable[[float], None] = lambda share: None

    def blocks(self, *, whole_detector: bool, together: int = 1) -> ChosenBlocks:
        """Blocks that a method with such chunks reads."""
        return choose_blocks(self.scan, self.sample_bytes, whole_detector=whole_detector, together=together)

    def read(self, region: Region) -> Array:
        """A block of the scan.

        Raises
        ------
        KeyboardInterrupt
            The comparison was interrupted: what is at work ends with its block.
        """
        if self.stopped.is_set():
            raise KeyboardInterrupt
        return self.scan.read(region)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A row, and what the page draws of it.

    Attributes
    ----------
    row : Row
    decoded : ndarray or None
        Counts of the first pattern that was read, decoded; of lossy methods.
    errors : LossSums or None
        Of lossy methods.
    patterns : Path or None
        File with all decoded patterns, where they are kept.
    chunk : tuple or None
        Codec and bytes of the first chunk, of lossless methods of ours.
    """

    row: Row
    decoded: Array | None = None
    errors: LossSums | None = None
    patterns: Path | None = None
    chunk: tuple[Any, bytes] | None = None


class DecodedPatterns:
    """A file of decoded counts, block by block.

    Parameters
    ----------
    place : Path
        File to write, ``.npy``.
    shape : tuple of int
        Of the scan.
    """

    def __init__(self, place: Path, shape: tuple[int, ...]) -> None:
        self.place = place
        self.file = np.lib.format.open_memmap(place, "w+", np.float32, shape)

    def add(self, decoded: Array, region: Region) -> None:
        """Take a block of counts; no reconstruction can do anything with less than none."""
        part = self.file[region]
        part[...] = np.maximum(decoded.reshape(part.shape), 0)


def best_of(
    work: Callable[..., Result],
    *arguments: Any,
    clock: Callable[[], float] = time.thread_time,
    repeats: int = 1,
) -> tuple[float, Result]:
    """Least seconds of a few calls, and their result.

    The clock is that of the calling thread: other rows, and other programs, do not count.
    """
    best = spent = float("inf")
    for i in range(repeats):
        start = clock()
        result = work(*arguments)
        seconds = clock() - start
        best, spent = min(best, seconds), seconds + (spent if i else 0.0)
        if spent > ENOUGH_SECONDS and i:
            break
    return best, result


def first_pattern(block: Array) -> Array:
    """The pattern in the middle of a block, shape (det_y, det_x)."""
    patterns = block.reshape(-1, *block.shape[-2:])
    return np.asarray(patterns[len(patterns) // 2])


def in_short(error: BaseException) -> str:
    """An error in one line, with its kind where its words alone would not say what it is."""
    words = " ".join(str(error).split())[:200]
    return words if isinstance(error, StemcodecsError) and words else f"{type(error).__name__}: {words}".rstrip(": ")
