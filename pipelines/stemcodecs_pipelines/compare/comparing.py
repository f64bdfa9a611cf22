"""What the rows of a comparison have in common, and what each of them gives."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stemcodecs.errors import StemcodecsError
from stemcodecs.readers.scan import Region, Scan
from stemcodecs_pipelines.compare.losses import CountsBehind, LossSums
from stemcodecs_pipelines.compare.report import Row
from stemcodecs_pipelines.compare.sample import ChosenBlocks, choose_blocks
from stemcodecs_pipelines.methods.base import RememberedFits
from stemcodecs_pipelines.store.virtual_images import VirtualDetectors

__all__ = ["Comparing", "Outcome", "in_short"]

Array = np.ndarray[Any, Any]


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
    remembered : RememberedFits
        What methods learn from the scan.
    """

    scan: Scan
    sample_bytes: int
    counts: CountsBehind
    detectors: VirtualDetectors | None
    folder: Path
    keep_patterns: bool = False
    stopped: threading.Event = field(default_factory=threading.Event)
    step: Callable[[float], None] = lambda share: None
    remembered: RememberedFits = field(default_factory=RememberedFits)

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


def in_short(error: BaseException) -> str:
    """An error in one line, with its kind where its words alone would not say what it is."""
    words = " ".join(str(error).split())[:200]
    return words if isinstance(error, StemcodecsError) and words else f"{type(error).__name__}: {words}".rstrip(": ")
