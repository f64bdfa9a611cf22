"""What the blocks of one row add up to: sizes, times and losses, and what is kept of the decoded counts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from stemcodecs.readers.scan import Region
from stemcodecs_pipelines.compare.comparing import Comparing, Outcome
from stemcodecs_pipelines.compare.losses import LossSums
from stemcodecs_pipelines.compare.report import Row
from stemcodecs_pipelines.compare.sample import ChosenBlocks

__all__ = ["RowSums", "best_of", "first_pattern"]

Array = np.ndarray[Any, Any]
Result = TypeVar("Result")
Clock = Callable[[], float]

REPEATS, ENOUGH_SECONDS = 3, 2.0
"""How often the first block is coded at most, and after how much time no more: small blocks are timed poorly."""


class RowSums:
    """Sums over the blocks of one row.

    Parameters
    ----------
    name : str
        Of the row.
    chosen : ChosenBlocks
        Blocks that it reads.
    common : Comparing
        What rows share.
    lossy : bool
        Whether losses are measured.
    repeats : int
        How often the first block is coded at most.
    """

    def __init__(
        self, name: str, chosen: ChosenBlocks, common: Comparing, *, lossy: bool, repeats: int = REPEATS
    ) -> None:
        self.chosen = chosen
        self.common = common
        self.repeats = repeats
        self.sizes: list[int] = []
        self.encoding_seconds = self.decoding_seconds = 0.0
        self.losses = LossSums(shape=common.scan.shape, detectors=common.detectors) if lossy else None
        self.shown: Array | None = None
        self.kept: _DecodedPatterns | None = None
        if lossy and common.keep_patterns:
            digest = hashlib.sha256(name.encode()).hexdigest()[:16]
            self.kept = _DecodedPatterns(common.folder / f"{digest}.npy", common.scan.shape)

    def blocks(self) -> Iterator[tuple[Region, Array]]:
        """Blocks of the source, one after the other; each is a step of the row.

        Raises
        ------
        KeyboardInterrupt
            The comparison was interrupted.
        """
        for region in self.chosen.regions:
            yield region, self.common.read(region)
            self.common.step(1 / len(self.chosen.numbers))

    def encode(
        self, work: Callable[..., Result], *arguments: Any, size: Callable[[Result], int], clock: Clock
    ) -> Result:
        """Call what encodes a block; its seconds and its size are taken."""
        seconds, encoded = best_of(work, *arguments, clock=clock, repeats=1 if self.sizes else self.repeats)
        self.encoding_seconds += seconds
        self.sizes.append(size(encoded))
        return encoded

    def decode(self, work: Callable[..., Result], *arguments: Any, clock: Clock) -> Result:
        """Call what decodes the block that was encoded last; its seconds are taken."""
        repeats = self.repeats if len(self.sizes) == 1 else 1
        seconds, decoded = best_of(work, *arguments, clock=clock, repeats=repeats)
        self.decoding_seconds += seconds
        return decoded

    def add_loss(self, source: Array, decoded: Array, known: Array | None, region: Region) -> None:
        """Take counts of a block before and after, see `LossSums.add`."""
        if self.losses is None:
            return
        self.losses.add(source, decoded, known, region)
        if self.kept is not None:
            self.kept.add(decoded, region)
        if self.shown is None:
            self.shown = first_pattern(decoded)

    def outcome(self, row: Row, *, model: int = 0, chunk: tuple[Any, bytes] | None = None) -> Outcome:
        """The row with its numbers.

        Parameters
        ----------
        row : Row
            Name, group, guarantee and note.
        model : int
            Bytes that the scan has once.
        chunk : tuple, optional
            See `Outcome`.
        """
        bits, error = self.chosen.bits_per_value(self.sizes, model)
        measured = self.losses if self.losses is not None and self.losses.values else None
        megabytes = self.chosen.raw_bytes / 1e6
        done = replace(
            row,
            stored_bytes=sum(self.sizes) + model,
            bits_per_value=bits,
            bits_error=error,
            encode_rate=megabytes / max(self.encoding_seconds, 1e-9),
            decode_rate=megabytes / max(self.decoding_seconds, 1e-9),
            loss=None if measured is None else measured.loss(whole=self.chosen.whole),
        )
        return Outcome(
            row=done,
            decoded=self.shown,
            errors=measured,
            patterns=None if self.kept is None else self.kept.place,
            chunk=chunk,
        )


class _DecodedPatterns:
    """A file of decoded counts, written block by block.

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


def best_of(work: Callable[..., Result], *arguments: Any, clock: Clock, repeats: int) -> tuple[float, Result]:
    """Least seconds of a few calls, and their result; no more calls once they took `ENOUGH_SECONDS` together."""
    best, spent = float("inf"), 0.0
    for _ in range(repeats):
        start = clock()
        result = work(*arguments)
        seconds = clock() - start
        best, spent = min(best, seconds), spent + seconds
        if spent > ENOUGH_SECONDS:
            break
    return best, result


def first_pattern(block: Array) -> Array:
    """The pattern in the middle of a block, shape (det_y, det_x); it does not hold the block in memory."""
    patterns = block.reshape(-1, *block.shape[-2:])
    return np.array(patterns[len(patterns) // 2])
